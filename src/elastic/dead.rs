//! The dead letters: documents that the cluster will never take as they are, with the reason, in `OUTPUT_FILE.dead`.
//!
//! Deals with: appending whole lines, and sharing the file with a `replay` in another process. Must never: lose a letter.
//! It is on the disk before the cursor moves past its document, and who takes the file over renames it under its lock.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

use crate::clock::{Millis, push_millis};
use crate::output::backups::folder;
use crate::output::owner;

/// Who may read it: the same as the output file.
const MODE: u32 = 0o640;
/// How often the file is opened anew because somebody took it over just then.
const OPENINGS_MAX: usize = 5;

/// `OUTPUT_FILE.dead`.
pub fn letters_path(output: &Path) -> PathBuf {
    with_suffix(output, ".dead")
}

/// The letters that a replay is at, or was when it was killed.
pub fn replaying_path(output: &Path) -> PathBuf {
    with_suffix(output, ".dead.replaying")
}

fn with_suffix(output: &Path, suffix: &str) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether there is any letter.
pub fn any(output: &Path) -> bool {
    [letters_path(output), replaying_path(output)]
        .iter()
        .any(|path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0))
}

/// Adds the line of a letter; `false`, and nothing added, for a record that is no JSON.
pub fn push_letter(lines: &mut Vec<u8>, at: Millis, status: u16, reason: &str, record: &[u8]) -> bool {
    if serde_json::from_slice::<&RawValue>(record).is_err() {
        return false;
    }
    lines.extend_from_slice(b"{\"at\":\"");
    push_millis(lines, at);
    let reason = serde_json::Value::from(reason);
    lines.extend_from_slice(format!("\",\"status\":{status},\"reason\":{reason},\"record\":").as_bytes());
    lines.extend_from_slice(record);
    lines.extend_from_slice(b"}\n");
    true
}

/// Appends whole lines and brings them to the disk; gives the device and inode of the file that they are in.
///
/// # Errors
/// When the file cannot be opened or written, and when another process holds its lock just now (`WouldBlock`): nothing
/// was appended then.
pub fn append(output: &Path, lines: &[u8]) -> io::Result<(u64, u64)> {
    let path = letters_path(output);
    let mut file = open_locked(&path, Purpose::Append)?;
    let length = mend_end(&file)?;
    let meta = file.metadata()?;
    // Opened first: there may be no descriptor left.
    let new_in = if length == 0 { Some(File::open(folder(&path))?) } else { None };
    let written = file
        .write_all(lines)
        .and_then(|()| file.sync_data())
        .and_then(|()| new_in.as_ref().map_or(Ok(()), File::sync_all));
    if written.is_err() {
        // Half a letter must not stand before the next one, nor a whole one that is written again.
        file.set_len(length)?;
    }
    written?;
    Ok((meta.dev(), meta.ino()))
}

/// Takes all letters over for a replay, with those that one before it left behind; `None` when there are none.
///
/// # Errors
/// When a file cannot be locked, renamed or written; `WouldBlock` when another replay is at work.
pub fn take_over(output: &Path) -> io::Result<Option<File>> {
    let (from, to) = (letters_path(output), replaying_path(output));
    let is_filled = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
    let left_behind = if to.exists() { Some(open_locked(&to, Purpose::Mark)?) } else { None };
    if is_filled(&from) {
        let mut letters = open_locked(&from, Purpose::Append)?;
        match &left_behind {
            None => fs::rename(&from, &to)?,
            Some(left) => {
                // A kill in between leaves letters in both: they are then sent twice, and the cluster keeps one.
                let end = mend_end(left)?;
                (&*left).seek(SeekFrom::Start(end))?;
                letters.seek(SeekFrom::Start(0))?;
                io::copy(&mut letters, &mut &*left)?;
                left.sync_data()?;
                fs::remove_file(&from)?;
            }
        }
        File::open(folder(&from))?.sync_all()?;
    }
    match left_behind {
        Some(left) => Ok(Some(left)),
        None if to.exists() => open_locked(&to, Purpose::Mark).map(Some),
        None => Ok(None),
    }
}

/// A file that is appended to takes no writes in its middle.
#[derive(Clone, Copy)]
enum Purpose {
    Append,
    Mark,
}

/// Opens the file that has this name, locked: not one that was renamed between the opening and the locking.
fn open_locked(path: &Path, purpose: Purpose) -> io::Result<File> {
    for _ in 0..OPENINGS_MAX {
        let mut options = OpenOptions::new();
        options.read(true).mode(MODE);
        let file = match purpose {
            Purpose::Append => {
                let file = options.create(true).append(true).open(path)?;
                // A replay that root runs must leave a file that the collector can append to.
                owner::follow(&file, &path.with_extension(""));
                file
            }
            Purpose::Mark => options.write(true).open(path)?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let (ours, named) = (file.metadata()?, fs::metadata(path));
        if named.is_ok_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino())) {
            return Ok(file);
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Cuts off half a letter that a kill left at the end: its document is sent again, for the cursor did not pass it.
/// Returns the length.
fn mend_end(mut file: &File) -> io::Result<u64> {
    const STEP_BYTES: u64 = 64 * 1024;
    let length = file.metadata()?.len();
    let mut end = length;
    while end > 0 {
        let begin = end.saturating_sub(STEP_BYTES);
        let mut tail = vec![0; (end - begin) as usize];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut tail)?;
        if let Some(at) = tail.iter().rposition(|byte| *byte == b'\n') {
            end = begin + at as u64 + 1;
            break;
        }
        end = begin;
    }
    if end < length {
        file.set_len(end)?;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("dead-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder.join("events.jsonl")
    }

    #[test]
    fn a_letter_holds_the_record_as_it_was() {
        let mut lines = Vec::new();
        assert!(push_letter(&mut lines, 0, 400, "no \"good\"", br#"{"a":1.0,"b":1e400}"#));
        assert!(!push_letter(&mut lines, 0, 400, "torn", br#"{"a":1.0,"b"}"#));
        let expected =
            r#"{"at":"1970-01-01T00:00:00.000Z","status":400,"reason":"no \"good\"","record":{"a":1.0,"b":1e400}}"#;
        assert_eq!(String::from_utf8(lines).unwrap(), format!("{expected}\n"));
    }

    #[test]
    fn half_a_letter_left_by_a_kill_is_cut_off_by_the_next() {
        let output = output("half");
        append(&output, b"{\"one\":1}\n").unwrap();
        let mut file = OpenOptions::new().append(true).open(letters_path(&output)).unwrap();
        file.write_all(&[b'x'; 200_000]).unwrap();
        append(&output, b"{\"two\":2}\n").unwrap();
        assert_eq!(fs::read_to_string(letters_path(&output)).unwrap(), "{\"one\":1}\n{\"two\":2}\n");
        assert_eq!(file.metadata().unwrap().mode() & 0o777 & !MODE, 0);
        fs::remove_dir_all(folder(&output)).unwrap();
    }

    #[test]
    fn a_replay_takes_all_letters_and_later_ones_begin_a_new_file() {
        let output = output("take");
        assert!(!any(&output) && take_over(&output).unwrap().is_none());
        append(&output, b"{\"one\":1}\n").unwrap();
        let taken = take_over(&output).unwrap();
        assert!(any(&output), "what is being replayed still is a letter");
        let second = take_over(&output).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        append(&output, b"{\"two\":2}\n").unwrap();
        assert_eq!(fs::read_to_string(replaying_path(&output)).unwrap(), "{\"one\":1}\n");
        assert_eq!(fs::read_to_string(letters_path(&output)).unwrap(), "{\"two\":2}\n");
        let held = open_locked(&letters_path(&output), Purpose::Append).unwrap();
        let refused = append(&output, b"{\"three\":3}\n").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        append(&output, b"{\"three\":3}\n").unwrap();
        // The first replay was killed: the next one goes on with its letters and the new ones.
        drop(taken);
        drop(take_over(&output).unwrap().unwrap());
        let all = "{\"one\":1}\n{\"two\":2}\n{\"three\":3}\n";
        assert_eq!(fs::read_to_string(replaying_path(&output)).unwrap(), all);
        assert!(!letters_path(&output).exists());
        fs::remove_dir_all(folder(&output)).unwrap();
    }
}
