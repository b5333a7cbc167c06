//! The dead letters: documents that the cluster rejected for good, with the reason, in `OUTPUT_FILE.dead`.
//!
//! A full file is renamed to `.dead.1`, the next one to `.dead.2`, and so on. The oldest files are deleted at the
//! limit. A `replay` in another process takes over the files while it holds their locks. Must never: lose a letter
//! without counting it, or truncate what it did not write.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;
use twox_hash::XxHash3_64;

use crate::clock::{Millis, push_millis};
use crate::elastic::document;
use crate::output::backups;
use crate::output::{owner, regular};

/// The same permissions as the output file.
const MODE: u32 = 0o640;
/// Attempts to open a file that another process renames at the same time.
const OPEN_ATTEMPTS_MAX: usize = 5;
/// Bytes of the newest letters whose ids are kept in memory: about 1 MiB of ids.
const KNOWN_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Maximum number of ids in memory. When it is reached, they are read again from the files.
const KNOWN_MAX: usize = 100_000;
/// Maximum length of a letter: longer than any line that is sent.
const LETTER_BYTES_MAX: usize = 5 * 1024 * 1024;

/// A letter, as it is parsed from a line.
#[derive(Deserialize)]
struct Letter<'a> {
    #[serde(borrow)]
    record: &'a RawValue,
}

pub struct NewLetter {
    pub status: u16,
    pub reason: String,
    pub record: Vec<u8>,
}

/// The result of an append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Letters that were appended, without those that were in the files already.
    pub appended: u64,
    /// Older letters that were deleted at the limit.
    pub dropped: u64,
}

pub struct DeadLetters {
    /// `OUTPUT_FILE.dead`.
    path: PathBuf,
    /// Maximum length of one file.
    file_bytes: u64,
    /// Maximum length of all files but the newest.
    bytes_max: u64,
    /// `None` in a replay, where duplicates are not checked.
    known: Option<Known>,
}

/// The letters in the files.
#[derive(Default)]
struct Known {
    /// Hashes of the records' ids.
    ids: HashSet<u64>,
    /// The files that these ids were read from.
    files: Vec<FileState>,
}

/// Device, inode and length of a file. They change when a replay or a person removes letters.
type FileState = (u64, u64, u64);

/// `OUTPUT_FILE.dead`.
pub fn path_of(output: &Path) -> PathBuf {
    with_suffix(output, ".dead")
}

pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// All files with letters, oldest first.
pub fn files(output: &Path) -> Vec<PathBuf> {
    files_of(&path_of(output))
}

fn files_of(path: &Path) -> Vec<PathBuf> {
    // An earlier version stored the letters that it was replaying under this name.
    let replaying = with_suffix(path, ".replaying");
    let numbers = backups::numbers(path).unwrap_or_default();
    let numbered = numbers.into_iter().map(|number| backups::backup(path, number));
    let all = std::iter::once(replaying).chain(numbered).chain(std::iter::once(path.to_owned()));
    all.filter(|path| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() > 0)).collect()
}

impl DeadLetters {
    /// For the indexer: a letter that is in the files already is not appended again. `file_bytes`: the maximum length
    /// of a file; `bytes_max`: that of all full files together.
    pub fn new(output: &Path, file_bytes: u64, bytes_max: u64) -> Self {
        Self { path: path_of(output), file_bytes, bytes_max, known: Some(Known::default()) }
    }

    /// For a replay: appends every letter to one file.
    pub fn to_file(path: &Path) -> Self {
        Self { path: path.to_owned(), file_bytes: u64::MAX, bytes_max: u64::MAX, known: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        files_of(&self.path).iter().filter_map(|path| fs::metadata(path).ok()).map(|meta| meta.len()).sum()
    }

    /// Appends the letters that are not in the files yet, and syncs the file.
    ///
    /// # Errors
    /// When the file cannot be opened or written, or another process holds its lock (`WouldBlock`). Nothing was
    /// appended then.
    pub fn append(&mut self, at: Millis, letters: &[NewLetter]) -> io::Result<Kept> {
        if let Some(known) = &mut self.known {
            known.refresh(&self.path);
        }
        let mut lines = Vec::new();
        let mut ids = HashSet::new();
        let mut kept = Kept::default();
        for NewLetter { status, reason, record } in letters {
            let id = id_hash(record);
            if self.known.as_ref().is_some_and(|known| known.ids.contains(&id) || !ids.insert(id)) {
                continue;
            }
            kept.appended += 1;
            push_letter(&mut lines, at, *status, reason, record);
        }
        if !lines.is_empty() {
            kept.dropped = self.append_lines(&lines)?;
        }
        if let Some(known) = &mut self.known {
            known.ids.extend(ids);
        }
        Ok(kept)
    }

    /// Appends whole lines and syncs the file; returns the number of older letters that were deleted for them.
    ///
    /// # Errors
    /// As [`DeadLetters::append`].
    pub fn append_lines(&mut self, lines: &[u8]) -> io::Result<u64> {
        let mut file = open_locked(&self.path, true)?;
        let mut length = file.metadata()?.len();
        let is_full = length > 0 && length + lines.len() as u64 > self.file_bytes;
        if is_full {
            retire(&self.path, &file)?;
            file = open_locked(&self.path, true)?;
            length = 0;
        }
        // Open the folder before writing, since there may be no descriptor left.
        let new_in = if length == 0 { regular::open_folder(&self.path)? } else { None };
        let written = end_last_line(&file, length)
            .and_then(|()| file.write_all(lines))
            .and_then(|()| file.sync_data())
            .and_then(|()| regular::sync_opened(&self.path, &new_in));
        if written.is_err() {
            // Remove a partial letter, or whole ones that will be written again.
            file.set_len(length)?;
        }
        written?;
        if let Some(known) = &mut self.known {
            let (dev, ino, bytes) = state_of(&file.metadata()?);
            known.files.retain(|known| (known.0, known.1) != (dev, ino));
            known.files.push((dev, ino, bytes));
        }
        Ok(if is_full { self.trim() } else { 0 })
    }

    /// Deletes the oldest files above the limit, except those that a replay is using; returns the number of letters in
    /// them. The new letters are on disk by now. A file that cannot be deleted is tried again when the next file is
    /// full.
    fn trim(&self) -> u64 {
        let numbers = backups::numbers(&self.path).unwrap_or_default();
        let (mut bytes, mut dropped) = (0, 0);
        for path in numbers.into_iter().rev().map(|number| backups::backup(&self.path, number)) {
            bytes += fs::metadata(&path).map_or(0, |meta| meta.len());
            if bytes <= self.bytes_max {
                continue;
            }
            match delete(&path) {
                Ok(letters) => dropped += letters,
                // A replay is using the file, or just removed it.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotFound) => {}
                Err(error) => log::warn!("cannot delete {}: {error}", path.display()),
            }
        }
        dropped
    }
}

impl Known {
    /// Reads the ids of the letters again if the files have changed.
    fn refresh(&mut self, path: &Path) {
        let paths = files_of(path);
        let files: Vec<FileState> =
            paths.iter().filter_map(|path| fs::metadata(path).ok()).map(|meta| state_of(&meta)).collect();
        if files == self.files && self.ids.len() < KNOWN_MAX {
            return;
        }
        self.ids.clear();
        let mut bytes = 0;
        for (path, (_, _, length)) in paths.iter().zip(&files).rev() {
            bytes += length;
            if bytes > KNOWN_BYTES_MAX || self.ids.len() > KNOWN_MAX / 2 {
                break;
            }
            if let Err(error) = self.read_ids(path) {
                log::warn!("cannot read {}: {error}; some letters may be stored twice", path.display());
            }
        }
        self.files = files;
    }

    fn read_ids(&mut self, path: &Path) -> io::Result<()> {
        let mut lines = Lines::new(regular::open(OpenOptions::new().read(true), path)?);
        while let Some(line) = lines.read()? {
            self.ids.extend(line.record().map(id_hash));
        }
        Ok(())
    }
}

fn id_hash(record: &[u8]) -> u64 {
    let fields = document::fields(record).unwrap_or_default();
    XxHash3_64::oneshot(&document::id_of(record, &fields))
}

/// Reads the lines of a file of letters. A line longer than any letter is returned in pieces.
pub struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
    at: u64,
    is_within: bool,
}

/// A line, or a piece of one.
pub struct Line<'a> {
    /// With its line feed.
    pub text: &'a [u8],
    /// Offset in the file.
    pub at: u64,
    pub is_piece: bool,
    /// A piece other than the first of its line.
    pub is_continuation: bool,
}

impl Lines {
    pub fn new(file: File) -> Self {
        Self { reader: BufReader::new(file), line: Vec::new(), at: 0, is_within: false }
    }

    /// # Errors
    /// When the file cannot be read.
    pub fn read(&mut self) -> io::Result<Option<Line<'_>>> {
        let at = self.at + self.line.len() as u64;
        self.line.clear();
        let read = self.reader.by_ref().take(LETTER_BYTES_MAX as u64).read_until(b'\n', &mut self.line)?;
        let is_continuation = std::mem::replace(&mut self.is_within, self.line.last() != Some(&b'\n'));
        let is_piece = is_continuation || read == LETTER_BYTES_MAX && self.is_within;
        self.at = at;
        Ok((read > 0).then_some(Line { text: &self.line, at, is_piece, is_continuation }))
    }
}

impl<'a> Line<'a> {
    /// The letter's record; `None` if the line is not a letter.
    pub fn record(&self) -> Option<&'a [u8]> {
        let letter = serde_json::from_slice::<Letter<'a>>(self.text).ok().filter(|_| !self.is_piece)?;
        Some(letter.record.get().as_bytes())
    }

    /// Whether the line is blank, or a letter that an earlier version marked as sent.
    pub fn is_empty(&self) -> bool {
        !self.is_piece && (self.text.trim_ascii().is_empty() || self.text.starts_with(b"#\""))
    }
}

/// Deletes a file of letters; returns the number of letters in it.
fn delete(path: &Path) -> io::Result<u64> {
    let mut lines = Lines::new(open_locked(path, false)?);
    let mut letters = 0;
    while let Some(line) = lines.read()? {
        letters += u64::from(line.record().is_some());
    }
    fs::remove_file(path)?;
    Ok(letters)
}

/// Renames the file, so that nothing more is appended to it. `file` is the locked file.
fn retire(path: &Path, file: &File) -> io::Result<()> {
    end_last_line(file, file.metadata()?.len())?;
    let number = backups::numbers(path)?.last().map_or(1, |last| last + 1);
    fs::rename(path, backups::backup(path, number))
}

/// Takes over the letters for a replay. Returns the files, oldest first, to which nothing more is appended.
///
/// # Errors
/// When a file cannot be locked or renamed; `WouldBlock` when another process holds its lock.
pub fn take_over(output: &Path) -> io::Result<Vec<PathBuf>> {
    let path = path_of(output);
    if fs::metadata(&path).is_ok_and(|meta| meta.len() > 0) {
        retire(&path, &open_locked(&path, true)?)?;
        regular::sync_folder(&path)?;
    }
    let mut files = files(output);
    // The collector may have created a new file in the meantime.
    files.retain(|file| *file != path);
    for path in &files {
        let file = regular::open(OpenOptions::new().read(true).append(true), path)?;
        end_last_line(&file, file.metadata()?.len())?;
    }
    Ok(files)
}

/// Appends a letter as a line. A record that is not valid JSON, which only the cluster noticed, is stored as a string.
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

/// Opens a file for appending, and creates it if it does not exist.
///
/// # Errors
/// When the file cannot be opened.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    let file = regular::open(OpenOptions::new().read(true).create(true).append(true).mode(MODE), path)?;
    // After a replay run by root, the collector must still be able to append to the file.
    owner::follow(&file, &path.with_extension(""));
    Ok(file)
}

/// Opens and locks the file with this name, and checks that it was not renamed in between. `append`: opens it for
/// appending, and creates it if it does not exist.
///
/// # Errors
/// When the file cannot be opened; `WouldBlock` when another process has locked it.
pub fn open_locked(path: &Path, append: bool) -> io::Result<File> {
    for _ in 0..OPEN_ATTEMPTS_MAX {
        let file = match append {
            true => open_to_append(path)?,
            false => regular::open(OpenOptions::new().read(true), path)?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let ours = state_of(&file.metadata()?);
        if fs::metadata(path).is_ok_and(|named| (named.dev(), named.ino()) == (ours.0, ours.1)) {
            return Ok(file);
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

fn state_of(meta: &fs::Metadata) -> FileState {
    (meta.dev(), meta.ino(), meta.len())
}

/// Adds a line feed to the last line if it has none, after an editor or a kill. Nothing is truncated.
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

    /// A new folder, and letters with at most 40 bytes per file and 100 in all full files.
    fn letters(name: &str) -> (PathBuf, DeadLetters) {
        let folder = std::env::temp_dir().join(format!("dead-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let output = folder.join("events.jsonl");
        let letters = DeadLetters::new(&output, 40, 100);
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
        let taken = take_over(&output).unwrap();
        assert_eq!((taken.len(), text(&taken[0])), (1, "{\"one\":1}\n".to_owned()));
        fs::remove_dir_all(folder(&output)).unwrap();
    }

    #[test]
    fn full_files_are_retired_and_the_oldest_go_at_the_bound_and_are_counted() {
        let (output, mut letters) = letters("bound");
        let dropped: Vec<u64> =
            (0..7).map(|n| letters.append_lines(format!("{{\"record\":\"{n:018}\"}}\n").as_bytes()).unwrap()).collect();
        assert_eq!(dropped, [0, 0, 0, 0, 1, 1, 1]);
        assert_eq!(files(&output).len(), 4);
        let all: String = files(&output).iter().map(|path| text(path)).collect();
        assert!(!all.contains("\"000000000000000002\"") && all.contains("\"000000000000000003\""), "{all}");
        // A file that a replay is using stays.
        let _replay = open_locked(&files(&output)[0], false).unwrap();
        assert_eq!(letters.append_lines(b"{\"record\":\"999999999999999999\"}\n").unwrap(), 0);
        fs::remove_dir_all(folder(&output)).unwrap();
    }

    #[test]
    fn an_old_file_that_cannot_be_deleted_does_not_keep_new_letters_from_being_kept_once() {
        let (output, mut letters) = letters("undeletable");
        fs::create_dir(with_suffix(letters.path(), ".1")).unwrap();
        std::os::unix::fs::symlink("nowhere", with_suffix(letters.path(), ".2")).unwrap();
        for id in ["a", "b", "c", "d", "e", "f"] {
            assert_eq!(letters.append(0, &[letter(id)]).unwrap().appended, 1);
            assert_eq!(letters.append(0, &[letter(id)]).unwrap().appended, 0);
        }
        fs::remove_dir_all(folder(&output)).unwrap();
    }

    #[test]
    fn a_file_that_the_collector_begins_during_a_replay_is_not_taken_over() {
        let (output, letters) = letters("begun");
        let path = letters.path().to_owned();
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| (0..200).all(|_| !take_over(&output).unwrap_or_default().contains(&path)));
            while !taker.is_finished() {
                let _ = DeadLetters::to_file(&path).append_lines(b"{}\n");
            }
            assert!(taker.join().unwrap());
        });
        fs::remove_dir_all(folder(&output)).unwrap();
    }

    #[test]
    fn only_letters_count_as_dropped() {
        let (output, mut letters) = letters("counted");
        let text = format!("\n#\"done\"\n{{\"record\":{{\"id\":\"a\"}}}}\nnone\n{}\n", "x".repeat(200));
        fs::write(with_suffix(letters.path(), ".1"), text).unwrap();
        letters.append_lines(b"{}\n").unwrap();
        assert_eq!(letters.append_lines(&b"{\"record\":{}}\n".repeat(3)).unwrap(), 1);
        fs::remove_dir_all(folder(&output)).unwrap();
    }

    #[test]
    fn a_letter_that_is_there_is_not_kept_again_until_somebody_takes_it() {
        let (output, _) = letters("known");
        let mut letters = DeadLetters::new(&output, 200, 4000);
        let mut keep = |ids: &[&str]| {
            let all: Vec<NewLetter> = ids.iter().map(|id| letter(id)).collect();
            letters.append(0, &all).unwrap().appended
        };
        assert_eq!(keep(&["a", "b", "a"]), 2);
        assert_eq!(keep(&["b", "c"]), 1);
        let mut later = DeadLetters::new(&output, 4000, 4000);
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
        assert_eq!(take_over(&output).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        letters.append_lines(b"{}\n").unwrap();
        fs::remove_dir_all(folder(&output)).unwrap();
    }
}
