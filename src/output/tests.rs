//! The output file's content after writes, crashes, rotations and moves.

use super::*;

/// Appends all lines, rotating as the writer does.
fn append_all(output: &mut OutputFile, mut lines: &[u8]) {
    loop {
        let appended = output.append(lines);
        lines = &lines[appended.bytes..];
        match appended.stopped {
            None => return,
            Some(Stopped::Full) => {
                backups::rotate(output.path(), 9, None).unwrap();
                output.rotated();
            }
            Some(Stopped::Error(error)) => panic!("{error}"),
        }
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("audiohook-output-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn a_file_is_rotated_before_a_line_would_exceed_it() {
    let folder = folder("rotate");
    let path = folder.join("events");
    let (mut output, _) = OutputFile::open(&path, Some(10)).unwrap();
    append_all(&mut output, b"aaa\nbbb\nccc\nthis one is long\nd\n");
    let read = |n: &str| std::fs::read_to_string(folder.join(n)).unwrap();
    assert_eq!(
        [read("events"), read("events.1"), read("events.2"), read("events.3")],
        ["d\n", "this one is long\n", "ccc\n", "aaa\nbbb\n"]
    );
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_rotation_that_fails_loses_nothing() {
    let folder = folder("refuse");
    let (mut output, _) = OutputFile::open(&folder.join("events"), Some(10)).unwrap();
    let lines = b"aaaaaaaa\nbbbbbbbb\ncccccccc\n";
    let appended = output.append(lines);
    assert!(appended.bytes == 9 && matches!(appended.stopped, Some(Stopped::Full)));
    output.not_rotated();
    assert_eq!(output.append(&lines[9..]).bytes, 18);
    assert_eq!(std::fs::read_to_string(folder.join("events")).unwrap(), "aaaaaaaa\nbbbbbbbb\ncccccccc\n");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_torn_last_line_is_removed_and_a_missing_line_feed_is_added() {
    let folder = folder("torn");
    let path = folder.join("events");
    std::fs::write(&path, "{\"a\":1}\n{\"b\":").unwrap();
    let (mut output, torn) = OutputFile::open(&path, None).unwrap();
    assert_eq!(torn.as_deref(), Some(&b"{\"b\":"[..]));
    output.append(b"{\"c\":3}\n");
    drop(output);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"c\":3}\n");
    std::fs::write(&path, format!("{{\"a\":1}}\n{{\"b\":\"{}", "x".repeat(6_000_000))).unwrap();
    let (_, torn) = OutputFile::open(&path, None).unwrap();
    assert_eq!(torn.map(|torn| torn.len() as u64), Some(TORN_MAX));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n", "however long it is");
    std::fs::write(&path, "{\"a\":1}").unwrap();
    let (_, torn) = OutputFile::open(&path, None).unwrap();
    assert_eq!((torn, std::fs::read_to_string(&path).unwrap().as_str()), (None, "{\"a\":1}\n"));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_moved_deleted_or_truncated_file_is_detected() {
    let folder = folder("moved");
    let path = folder.join("events");
    let (mut output, _) = OutputFile::open(&path, None).unwrap();
    output.append(b"a\n");
    assert_eq!(output.look().unwrap(), Change::None);
    std::fs::rename(&path, folder.join("old")).unwrap();
    assert_eq!(output.look().unwrap(), Change::Replaced);
    output.append(b"b\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "b\n");
    assert_eq!(output.look().unwrap(), Change::None);
    std::fs::remove_file(&path).unwrap();
    output.append(b"late\n");
    assert_eq!(output.look().unwrap(), Change::Replaced);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "late\n", "lines after the last look are kept");
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert_eq!(output.look().unwrap(), Change::Cut);
    output.append(b"c\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "c\n");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_file_has_one_writer_under_any_name_and_may_be_moved_away_and_back() {
    let folder = folder("links");
    let (path, moved) = (folder.join("events"), folder.join("moved"));
    let (mut output, _) = OutputFile::open(&path, Some(8)).unwrap();
    std::fs::hard_link(&path, folder.join("hard")).unwrap();
    std::os::unix::fs::symlink(&path, folder.join("soft")).unwrap();
    for link in ["hard", "soft"] {
        let refused = OutputFile::open(&folder.join(link), None).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy, "{link}");
    }
    output.append(b"aaa\n");
    std::fs::rename(&path, &moved).unwrap();
    assert_eq!(output.look().unwrap(), Change::Replaced);
    std::fs::rename(&moved, &path).unwrap();
    assert_eq!(output.look().unwrap(), Change::Replaced);
    append_all(&mut output, b"bbb\nccc\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "ccc\n");
    assert!(OutputFile::open(&folder.join("soft"), None).is_err(), "after a rotation too");
    drop(output);
    assert!(OutputFile::open(&folder.join("soft"), None).is_ok());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn after_a_failed_sync_lines_are_written_again_before_the_next_sync() {
    let folder = folder("sync");
    let path = folder.join("events");
    let (mut output, _) = OutputFile::open(&path, None).unwrap();
    output.append(b"first\n");
    output.sync().unwrap();
    output.append(b"second\n");
    // A device without sync stands in for a disk whose sync fails.
    let device = OpenOptions::new().write(true).open("/dev/null").unwrap();
    let whole = output.file.replace(device);
    assert!(output.sync().is_err());
    output.file = whole;
    output.sync().unwrap();
    output.append(b"third\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "first\nsecond\nthird\n", "later lines are appended");
    // Lines that cannot be read back never count as durable.
    output.sync_failed = true;
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[0; 6], 13).unwrap();
    assert_eq!(output.sync().unwrap_err().kind(), io::ErrorKind::InvalidData);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn on_a_full_disk_whole_lines_stay_and_the_torn_one_is_removed() {
    let folder = folder("full");
    let path = folder.join("events");
    // /dev/full stands in for a full disk.
    let (mut output, _) = OutputFile::open(&path, None).unwrap();
    output.append(b"first\n");
    let device = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let whole = output.file.replace(device);
    let appended = output.append(b"second\n");
    assert_eq!(appended.bytes, 0);
    assert!(matches!(appended.stopped, Some(Stopped::Error(error)) if error.kind() == io::ErrorKind::StorageFull));
    output.file = whole;
    assert_eq!(output.append(b"second\n").bytes, 7);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "first\nsecond\n");
    std::fs::remove_dir_all(folder).unwrap();
}
