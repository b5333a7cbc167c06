//! Which files there are, and in what order they were written.
//!
//! Deals with: the output file, its backups by their numbers, and what somebody else's rotation made of them. Must never:
//! read more of a file than its beginning.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::elastic::lines;
use crate::output::backups::{folder, number_of_suffix};
use crate::output::identity::identity;

/// Bytes of a foreign file that are looked at.
const LOOK_BYTES: usize = 64 * 1024;
/// Ends of names that are no rotated output, wherever they come from.
const OTHER_ENDS: [&str; 8] = [".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".tmp", ".lock"];
/// Beginnings of suffixes that are this program's own files beside the output.
const OWN_SUFFIXES: [&str; 4] = [".state", ".dead", ".unreadable", ".lock"];

/// Which file an open one is, for as long as it is held open: only so long is an inode number not used again.
pub type Key = (u64, u64);

/// One of the files.
pub struct Entry {
    pub source: Source,
    pub key: Key,
    /// Seconds and nanoseconds.
    pub modified: (i64, i64),
    pub bytes: u64,
}

/// Where to get at it.
pub enum Source {
    Path(PathBuf),
    /// It may have no name any more.
    Orphan(File),
}

/// The folder, as far as it is the output's.
pub struct Files {
    path: PathBuf,
    /// Not one of the files, however it is named.
    state_file: PathBuf,
}

impl Files {
    pub fn new(path: &Path, state_file: &Path) -> Self {
        Self { path: path.to_owned(), state_file: state_file.to_owned() }
    }

    /// All files oldest first, without copies of one that stands there already.
    pub fn in_order(&self, orphans: &VecDeque<File>) -> io::Result<Vec<Entry>> {
        let mut entries = self.all(orphans)?;
        let open = |entry: &Entry| match &entry.source {
            Source::Path(path) => File::open(path).ok().and_then(|file| identity(&file)),
            Source::Orphan(file) => identity(file),
        };
        let is_foreign = |entry: &Entry| match &entry.source {
            Source::Path(path) => suffix_of(&self.path, path)
                .is_some_and(|suffix| !suffix.is_empty() && number_of_suffix(&suffix).is_none()),
            Source::Orphan(_) => false,
        };
        if entries.iter().any(is_foreign) {
            let ours: Vec<_> = entries.iter().filter(|entry| !is_foreign(entry)).filter_map(open).collect();
            entries.retain(|entry| !is_foreign(entry) || open(entry).is_some_and(|identity| !ours.contains(&identity)));
        }
        Ok(entries)
    }

    /// All files oldest first: the backups by their numbers, the current one last, and what was moved away placed
    /// among them by when it was last written.
    pub fn all(&self, orphans: &VecDeque<File>) -> io::Result<Vec<Entry>> {
        let mut numbered = Vec::new();
        let mut others = Vec::new();
        let mut current = None;
        for entry in fs::read_dir(folder(&self.path))? {
            let path = folder(&self.path).join(entry?.file_name());
            let Some(suffix) = suffix_of(&self.path, &path) else { continue };
            let Ok(meta) = fs::metadata(&path) else { continue };
            if !meta.is_file() {
                continue;
            }
            let entry = entry_of(Source::Path(path.clone()), &meta);
            if suffix.is_empty() {
                current = Some(entry);
            } else if let Some(number) = number_of_suffix(&suffix) {
                numbered.push((number, entry));
            } else if path != self.state_file && self.is_rotated_output(&path, &suffix) {
                others.push(entry);
            }
        }
        numbered.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        let mut entries: Vec<Entry> = numbered.into_iter().map(|(_, entry)| entry).collect();
        for orphan in orphans {
            let meta = orphan.metadata()?;
            let known = |entry: &Entry| entry.key == key_of(&meta);
            if !entries.iter().any(known) && !others.iter().any(known) {
                others.push(entry_of(Source::Orphan(orphan.try_clone()?), &meta));
            }
        }
        others.sort_by_key(|entry| entry.modified);
        for other in others {
            let at = entries.iter().position(|entry| entry.modified > other.modified).unwrap_or(entries.len());
            entries.insert(at, other);
        }
        entries.extend(current);
        Ok(entries)
    }

    /// Whether a file of another's rotation holds records: its first line is an object with a `timestamp`.
    fn is_rotated_output(&self, path: &Path, suffix: &str) -> bool {
        if OWN_SUFFIXES.iter().any(|own| suffix.starts_with(own)) || OTHER_ENDS.iter().any(|end| suffix.ends_with(end))
        {
            return false;
        }
        let mut head = vec![0; LOOK_BYTES];
        let Ok(length) = File::open(path).and_then(|file| read_at(&file, &mut head, 0)) else { return false };
        let Some(end) = find_line_feed(&head[..length]) else { return false };
        lines::fields(&head[..end]).is_some_and(|fields| fields.timestamp.is_some())
    }
}

/// What follows the output file's own name, for a file whose name begins with it.
fn suffix_of(path: &Path, other: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    other.file_name()?.to_str()?.strip_prefix(name).map(str::to_owned)
}

fn entry_of(source: Source, meta: &Metadata) -> Entry {
    Entry { source, key: key_of(meta), modified: modified(meta), bytes: meta.len() }
}

pub fn key_of(meta: &Metadata) -> Key {
    (meta.dev(), meta.ino())
}

pub fn modified(meta: &Metadata) -> (i64, i64) {
    (meta.mtime(), meta.mtime_nsec())
}

/// Reads at a place, whatever the file's own is.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// The place of the first line feed; eight bytes at a time, for every document goes through here.
pub fn find_line_feed(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = bytes.as_chunks::<8>();
    let has_one = |word: &[u8; 8]| {
        let differing = u64::from_ne_bytes(*word) ^ (ONES * u64::from(b'\n'));
        differing.wrapping_sub(ONES) & !differing & HIGHS != 0
    };
    let (begin, tail) = match words.iter().position(has_one) {
        Some(word) => (word * 8, &words[word][..]),
        None => (words.len() * 8, rest),
    };
    tail.iter().position(|byte| *byte == b'\n').map(|at| begin + at)
}
