use std::ffi::OsString;

use crossbeam_channel::bounded;

use super::*;
use crate::config::Need;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn frames_that_are_no_events_are_told_for_an_hour_after_the_last() {
    let folder = std::env::temp_dir().join(format!("audiohook-writer-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (settings, output) = (folder.join("empty.env"), folder.join("events.jsonl"));
    std::fs::write(&settings, "").unwrap();
    let environment = |name: &str| (name == "OUTPUT_FILE").then(|| OsString::from(&output));
    let config = Arc::new(Config::load_for(Need::Nothing, &environment, Some(&settings)).unwrap());
    let (clock, hand) = Clock::manual(1_795_430_645_000);
    let status = Arc::new(Status::new(clock.clone(), false));
    let (news, _heard) = bounded(1);
    let (mut writer, _) = Writer::open(config, status.clone(), clock, news).unwrap();
    let aside = || intake::Aside { at: 0, reason: "it is not JSON".to_owned(), frame: b"{".to_vec() };

    writer.keep_aside(&[aside()]);
    hand.advance(HOUR / 2);
    writer.keep_aside(&[aside()]);
    hand.advance(HOUR);
    writer.tick();
    assert!(status.is_raised(Code::UnreadableFrames));
    hand.advance(Duration::from_secs(1));
    writer.tick();
    assert!(!status.is_raised(Code::UnreadableFrames));
    std::fs::remove_dir_all(folder).unwrap();
}
