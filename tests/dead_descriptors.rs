//! A dead letter while file descriptors run out. Alone in its program: the limit is the whole process's.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::fs::{self, File};

use audiohook_collector::elastic::dead;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::Folder;

#[test]
fn a_letter_that_could_not_be_kept_is_not_there() {
    let folder = Folder::new("descriptors");
    let output = folder.join("events.jsonl");
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(128), maximum: most }).unwrap();
    // With one descriptor left there is one for the letters, and none for the folder that they are new in.
    for left in 0..4 {
        let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        taken.truncate(taken.len() - left);
        let kept = dead::append(&output, b"{}\n");
        drop(taken);
        let letters = fs::read_to_string(dead::letters_path(&output)).unwrap_or_default();
        assert_eq!(letters, if kept.is_ok() { "{}\n" } else { "" }, "{left} left: {kept:?}");
        assert_eq!(kept.is_ok(), left >= 2, "{left} left: {kept:?}");
        let _ = fs::remove_file(dead::letters_path(&output));
    }
}
