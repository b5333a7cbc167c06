//! The dead letters: documents that the cluster will never take as they are, with the reason, in `OUTPUT_FILE.dead`.
//!
//! A full file becomes `.dead.1`, the next one `.dead.2`; the oldest go at the bound. A `replay` in another process takes
//! the files over under their locks. Must never: lose a letter that is not counted, or cut what it did not write.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;
use twox_hash::XxHash3_64;

use crate::clock::{Millis, push_millis};
use crate::elastic::document;
use crate::elastic::segments::count_lines;
use crate::output::backups;
use crate::output::{owner, regular};

/// Who may read it: the same as the output file.
const MODE: u32 = 0o640;
/// How often a file is opened anew because somebody took it over just then.
const OPENINGS_MAX: usize = 5;
/// Bytes of letters whose ids are known, the newest: about a MiB of ids.
const KNOWN_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Ids that are known at most: beyond, they are read anew.
const KNOWN_MAX: usize = 100_000;

/// A line of the file.
#[derive(Deserialize)]
pub struct Letter<'a> {
    #[serde(borrow)]
    pub record: &'a RawValue,
}

/// A document to be kept.
pub struct NewLetter {
    pub status: u16,
    pub reason: String,
    pub record: Vec<u8>,
}

/// What came of an append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Letters that were appended: those that were there already are not again.
    pub appended: u64,
    /// Older ones that were deleted at the bound.
    pub dropped: u64,
}

/// Where the letters go, and which ones are there.
pub struct DeadLetters {
    /// `OUTPUT_FILE.dead`.
    path: PathBuf,
    /// Bytes of one file.
    file_bytes: u64,
    /// Bytes of all files but the newest.
    bytes_max: u64,
    /// Hashes of the ids of the letters in `files`. `None`: letters are not looked for, as in a replay.
    known: Option<HashSet<u64>>,
    /// Device and inode of each file that is known.
    files: Vec<(u64, u64)>,
    /// The length of the newest file when it was last known: a replay may add letters too.
    length: u64,
}

/// `OUTPUT_FILE.dead`.
pub fn path_of(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".dead");
    name.into()
}

/// All files with letters, oldest first.
pub fn files(output: &Path) -> Vec<PathBuf> {
    let path = path_of(output);
    // A version before this one left the letters that it replayed under this name.
    let mut replaying = path.as_os_str().to_owned();
    replaying.push(".replaying");
    let numbers = backups::numbers(&path).unwrap_or_default();
    let numbered = numbers.into_iter().map(|number| backups::backup(&path, number));
    let all = std::iter::once(replaying.into()).chain(numbered).chain(std::iter::once(path.clone()));
    all.filter(|path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() > 0)).collect()
}

impl DeadLetters {
    /// `file_bytes`: when a file is full; `bytes_max`: what the full ones may take together. `knows`: a letter that is
    /// there already is not appended again.
    pub fn new(output: &Path, file_bytes: u64, bytes_max: u64, knows: bool) -> Self {
        let known = knows.then(HashSet::new);
        Self { path: path_of(output), file_bytes, bytes_max, known, files: Vec::new(), length: 0 }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        files(&self.path.with_extension("")).iter().filter_map(|path| fs::metadata(path).ok()).map(|m| m.len()).sum()
    }

    /// Appends the letters that are not there yet and brings them to the disk.
    ///
    /// # Errors
    /// When the file cannot be opened or written, and when another process holds its lock just now (`WouldBlock`): nothing
    /// was appended then.
    pub fn append(&mut self, at: Millis, letters: &[NewLetter]) -> io::Result<Kept> {
        self.refresh();
        let mut lines = Vec::new();
        let mut ids = HashSet::new();
        let mut kept = Kept::default();
        for NewLetter { status, reason, record } in letters {
            let fields = document::fields(record).unwrap_or_default();
            let id = XxHash3_64::oneshot(&document::id_of(record, &fields));
            if self.known.as_ref().is_some_and(|known| known.contains(&id) || !ids.insert(id)) {
                continue;
            }
            kept.appended += 1;
            push_letter(&mut lines, at, *status, reason, record);
        }
        if !lines.is_empty() {
            kept.dropped = self.append_lines(&lines)?;
        }
        if let Some(known) = &mut self.known {
            known.extend(ids);
        }
        Ok(kept)
    }

    /// Appends whole lines and brings them to the disk; returns how many older letters were deleted for them.
    ///
    /// # Errors
    /// As [`DeadLetters::append`].
    pub fn append_lines(&mut self, lines: &[u8]) -> io::Result<u64> {
        let mut file = open_locked(&self.path, true)?;
        let mut length = file.metadata()?.len();
        let is_full = length > 0 && length + lines.len() as u64 > self.file_bytes;
        if is_full {
            self.put_aside(&file)?;
            file = open_locked(&self.path, true)?;
            length = 0;
        }
        // Opened first: there may be no descriptor left.
        let new_in = if length == 0 { regular::open_folder(&self.path)? } else { None };
        let written = end_last_line(&file, length)
            .and_then(|()| file.write_all(lines))
            .and_then(|()| file.sync_data())
            .and_then(|()| regular::sync_opened(&self.path, &new_in));
        if written.is_err() {
            // Half a letter must not stand before the next one, nor a whole one that is written again.
            file.set_len(length)?;
        }
        written?;
        let meta = file.metadata()?;
        self.length = meta.len();
        let key = (meta.dev(), meta.ino());
        if self.known.is_some() && !self.files.contains(&key) {
            self.files.push(key);
        }
        if is_full { self.trim() } else { Ok(0) }
    }

    /// Puts all letters into files that nobody appends to: for a replay. `file` is the locked `.dead`.
    fn put_aside(&self, file: &File) -> io::Result<()> {
        end_last_line(file, file.metadata()?.len())?;
        let number = backups::numbers(&self.path)?.last().map_or(1, |last| last + 1);
        fs::rename(&self.path, backups::backup(&self.path, number))
    }

    /// Takes the letters over for a replay: the files, oldest first, none of which is appended to any more.
    ///
    /// # Errors
    /// When a file cannot be locked or renamed; `WouldBlock` when another process is at it just now.
    pub fn take_over(&self) -> io::Result<Vec<PathBuf>> {
        if fs::metadata(&self.path).is_ok_and(|meta| meta.len() > 0) {
            self.put_aside(&open_locked(&self.path, true)?)?;
            regular::sync_folder(&self.path)?;
        }
        let files = files(&self.path.with_extension(""));
        for path in &files {
            let file = regular::open(OpenOptions::new().read(true).append(true), path)?;
            end_last_line(&file, file.metadata()?.len())?;
        }
        Ok(files)
    }

    /// Deletes the oldest files beyond the bound, but none that a replay is at; returns how many letters those held.
    fn trim(&self) -> io::Result<u64> {
        let mut numbers = backups::numbers(&self.path)?;
        numbers.reverse();
        let mut bytes = 0;
        let mut dropped = 0;
        for path in numbers.into_iter().map(|number| backups::backup(&self.path, number)) {
            bytes += fs::metadata(&path)?.len();
            if bytes > self.bytes_max
                && let Ok(file) = open_locked(&path, false)
            {
                dropped += count_lines(&file, 0, u64::MAX)?;
                fs::remove_file(&path)?;
            }
        }
        Ok(dropped)
    }

    /// Reads the ids of the letters that are there, unless they are known: whoever takes letters away, a replay or a
    /// person, takes their ids along.
    fn refresh(&mut self) {
        let Some(known) = &mut self.known else { return };
        let paths = files(&self.path.with_extension(""));
        let keys: Vec<_> =
            paths.iter().filter_map(|path| fs::metadata(path).ok()).map(|meta| (meta.dev(), meta.ino())).collect();
        let length = fs::metadata(&self.path).map_or(0, |meta| meta.len());
        let is_known =
            length == self.length && !self.files.is_empty() && self.files.iter().all(|key| keys.contains(key));
        if is_known && keys.len() == self.files.len() && known.len() < KNOWN_MAX {
            return;
        }
        known.clear();
        (self.files, self.length) = (keys, length);
        let mut bytes = 0;
        for path in paths.iter().rev() {
            bytes += fs::metadata(path).map_or(0, |meta| meta.len());
            if bytes > KNOWN_BYTES_MAX {
                return;
            }
            if let Err(error) = read_ids(path, known) {
                log::warn!("cannot read {}: {error}; letters may be kept twice", path.display());
            }
        }
    }
}

fn read_ids(path: &Path, known: &mut HashSet<u64>) -> io::Result<()> {
    let mut file = BufReader::new(regular::open(OpenOptions::new().read(true), path)?);
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line)? > 0 {
        // A line that is no letter, or was replayed, has no id.
        if let Ok(Letter { record }) = serde_json::from_slice(&line) {
            let record = record.get().as_bytes();
            let fields = document::fields(record).unwrap_or_default();
            known.insert(XxHash3_64::oneshot(&document::id_of(record, &fields)));
        }
        line.clear();
    }
    Ok(())
}

/// A record that is no JSON, which only the cluster's own reading showed, is kept as a text.
fn push_letter(lines: &mut Vec<u8>, at: Millis, status: u16, reason: &str, record: &[u8]) {
    lines.extend_from_slice(b"{\"at\":\"");
    push_millis(lines, at);
    let reason = serde_json::Value::from(reason);
    lines.extend_from_slice(format!("\",\"status\":{status},\"reason\":{reason},\"record\":").as_bytes());
    match serde_json::from_slice::<&RawValue>(record) {
        Ok(_) => lines.extend_from_slice(record),
        Err(_) => {
            lines.extend_from_slice(serde_json::Value::from(String::from_utf8_lossy(record)).to_string().as_bytes())
        }
    }
    lines.extend_from_slice(b"}\n");
}

/// Opens the file that has this name, locked: not one that was renamed between the opening and the locking. `append`: it is
/// made if it is not there.
///
/// # Errors
/// When it cannot be opened; `WouldBlock` when another process has locked it.
pub fn open_locked(path: &Path, append: bool) -> io::Result<File> {
    for _ in 0..OPENINGS_MAX {
        let mut options = OpenOptions::new();
        options.read(true).mode(MODE);
        let options = if append { options.create(true).append(true) } else { options.write(true) };
        let file = regular::open(options, path)?;
        if append {
            // A replay that root runs must leave a file that the collector can append to.
            owner::follow(&file, &path.with_extension(""));
        }
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

/// Ends a last line that has no line feed: an editor or a kill left it so. Nothing is cut.
fn end_last_line(mut file: &File, length: u64) -> io::Result<()> {
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    if last[0] == b'\n' { Ok(()) } else { file.write_all(b"\n") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::backups::folder;

    /// A folder, and letters of at most 40 bytes a file, 100 in all full ones.
    fn letters(name: &str) -> (PathBuf, DeadLetters) {
        let folder = std::env::temp_dir().join(format!("dead-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let output = folder.join("events.jsonl");
        let letters = DeadLetters::new(&output, 40, 100, true);
        (output, letters)
    }

    fn letter(id: &str) -> NewLetter {
        NewLetter { status: 400, reason: "r".into(), record: format!(r#"{{"id":"{id}"}}"#).into_bytes() }
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn a_letter_holds_the_record_as_it_was() {
        let mut lines = Vec::new();
        push_letter(&mut lines, 0, 400, "no \"good\"", br#"{"a":1.0,"b":1e400}"#);
        push_letter(&mut lines, 0, 400, "torn", br#"{"a"}"#);
        let expected = concat!(
            r#"{"at":"1970-01-01T00:00:00.000Z","status":400,"reason":"no \"good\"","record":{"a":1.0,"b":1e400}}"#,
            "\n",
            r#"{"at":"1970-01-01T00:00:00.000Z","status":400,"reason":"torn","record":"{\"a\"}"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(lines).unwrap(), expected);
    }

    #[test]
    fn a_line_without_an_end_gets_one_and_is_kept() {
        let (output, mut letters) = letters("end");
        fs::write(letters.path(), "{\"one\":1}").unwrap();
        letters.append_lines(b"{\"two\":2}\n").unwrap();
        assert_eq!(text(letters.path()), "{\"one\":1}\n{\"two\":2}\n");
        assert_eq!(fs::metadata(letters.path()).unwrap().mode() & 0o777 & !0o666, 0);
        fs::write(letters.path(), "{\"one\":1}").unwrap();
        let taken = letters.take_over().unwrap();
        assert_eq!((taken.len(), text(&taken[0])), (1, "{\"one\":1}\n".to_owned()));
        fs::remove_dir_all(folder(&output)).unwrap();
    }

    #[test]
    fn full_files_are_put_aside_and_the_oldest_go_at_the_bound_and_are_counted() {
        let (output, mut letters) = letters("bound");
        let dropped: Vec<u64> =
            (0..7).map(|n| letters.append_lines(format!("{{\"letter\":{n:020}}}\n").as_bytes()).unwrap()).collect();
        assert_eq!(dropped, [0, 0, 0, 0, 1, 1, 1]);
        assert_eq!(files(&output).len(), 4);
        let all: String = files(&output).iter().map(|path| text(path)).collect();
        assert!(!all.contains(":00000000000000000002}") && all.contains(":00000000000000000003}"), "{all}");
        // What a replay is at stays.
        let _replay = open_locked(&files(&output)[0], false).unwrap();
        assert_eq!(letters.append_lines(b"{\"letter\":99999999999999999999}\n").unwrap(), 0);
        fs::remove_dir_all(folder(&output)).unwrap();
    }

    #[test]
    fn a_letter_that_is_there_is_not_kept_again_until_somebody_takes_it() {
        let (output, _) = letters("known");
        let mut letters = DeadLetters::new(&output, 200, 4000, true);
        let mut keep = |ids: &[&str]| {
            let all: Vec<NewLetter> = ids.iter().map(|id| letter(id)).collect();
            letters.append(0, &all).unwrap().appended
        };
        assert_eq!(keep(&["a", "b", "a"]), 2);
        assert_eq!(keep(&["b", "c"]), 1);
        let mut later = DeadLetters::new(&output, 4000, 4000, true);
        assert_eq!(later.append(0, &[letter("a"), letter("d")]).unwrap().appended, 1);
        assert_eq!(keep(&["d"]), 0);
        for file in files(&output) {
            fs::remove_file(file).unwrap();
        }
        assert_eq!(keep(&["a"]), 1, "its letter is gone");
        fs::remove_dir_all(folder(&output)).unwrap();
    }

    #[test]
    fn a_file_that_another_process_has_locked_is_left_alone_for_now() {
        let (output, mut letters) = letters("locked");
        letters.append_lines(b"{}\n").unwrap();
        let held = open_locked(letters.path(), true).unwrap();
        assert_eq!(letters.append_lines(b"{}\n").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(letters.take_over().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        letters.append_lines(b"{}\n").unwrap();
        fs::remove_dir_all(folder(&output)).unwrap();
    }
}
