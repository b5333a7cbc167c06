//! A dead letter while file descriptors run out. Alone in its program: the limit is the whole process's.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::fs::{self, File};

use audiohook_collector::elastic::dead_letters::{DeadLetters, path_of};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::Folder;

#[test]
fn a_letter_that_could_not_be_kept_is_not_there() {
    let folder = Folder::new("descriptors");
    let output = folder.join("events.jsonl");
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(128), maximum: most }).unwrap();
    let mut letters = DeadLetters::new(&output, 1000, 1000);
    // With one descriptor left there is one for the letters, and none for the folder that they are new in.
    for left in 0..4 {
        let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        taken.truncate(taken.len() - left);
        let kept = letters.append_lines(b"{}\n");
        drop(taken);
        let text = fs::read_to_string(path_of(&output)).unwrap_or_default();
        assert_eq!(text, if kept.is_ok() { "{}\n" } else { "" }, "{left} left: {kept:?}");
        assert_eq!(kept.is_ok(), left >= 2, "{left} left: {kept:?}");
        let _ = fs::remove_file(path_of(&output));
    }
}
