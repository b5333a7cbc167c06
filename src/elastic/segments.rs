//! Which files there are, and in what order they were written: the output file, its backups, and what another program's
//! rotation made of them. No more of a file is read than its beginning.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::elastic::document;
use crate::output::backups::{folder, number_of_suffix};
use crate::output::identity::{FileIdentity, identity};

/// Bytes of a file that are read at once.
const LOOK_BYTES: usize = 64 * 1024;
/// Ends of names that are no rotated output, wherever they come from.
const OTHER_ENDS: [&str; 8] = [".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".tmp", ".lock"];
/// Beginnings of suffixes that are this program's own files beside the output.
const OWN_SUFFIXES: [&str; 4] = [".state", ".dead", ".unreadable", ".lock"];

/// Which file an open one is, for as long as it is held open: only so long is an inode number not used again.
pub type Key = (u64, u64);

/// One of the files.
pub struct Segment {
    source: Source,
    pub key: Key,
    /// Seconds and nanoseconds.
    pub modified: (i64, i64),
    pub bytes: u64,
    /// Neither the output file nor one of its backups, by its name.
    is_foreign: bool,
}

/// Where to get at it.
enum Source {
    Path(PathBuf),
    /// It may have no name any more.
    Open(File),
}

impl Segment {
    fn new(source: Source, meta: &Metadata) -> Self {
        Self { source, key: key_of(meta), modified: modified(meta), bytes: meta.len(), is_foreign: false }
    }

    /// Opens it; `None` when its name stands for another file by now, or for none.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self) -> io::Result<Option<File>> {
        let file = match &self.source {
            Source::Open(file) => file.try_clone()?,
            Source::Path(path) => match File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file?,
            },
        };
        let is_same = key_of(&file.metadata()?) == self.key;
        Ok(is_same.then_some(file))
    }

    pub fn identity(&self) -> Option<FileIdentity> {
        identity(&self.open().ok()??)
    }
}

/// The folder, as far as it is the output's.
pub struct Folder {
    path: PathBuf,
    /// Not one of the files, however it is named.
    state_file: PathBuf,
}

impl Folder {
    pub fn new(path: &Path, state_file: &Path) -> Self {
        Self { path: path.to_owned(), state_file: state_file.to_owned() }
    }

    /// The output file.
    pub fn output(&self) -> &Path {
        &self.path
    }

    /// All files, oldest first, without copies of one that is there already. `held`: files that may have lost their names.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn segments(&self, held: &VecDeque<File>) -> io::Result<Vec<Segment>> {
        let mut segments = self.all(held)?;
        if segments.iter().any(|segment| segment.is_foreign) {
            let ours: Vec<_> =
                segments.iter().filter(|other| !other.is_foreign).filter_map(Segment::identity).collect();
            let is_copy = |segment: &Segment| segment.identity().is_none_or(|identity| ours.contains(&identity));
            segments.retain(|segment| !segment.is_foreign || !is_copy(segment));
        }
        Ok(segments)
    }

    /// The same with the copies: the backups by their numbers, the current file last, and what was moved away placed among
    /// them by when it was last written.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn all(&self, held: &VecDeque<File>) -> io::Result<Vec<Segment>> {
        let mut numbered = Vec::new();
        let mut others = Vec::new();
        let mut current = None;
        for entry in fs::read_dir(folder(&self.path))? {
            let path = folder(&self.path).join(entry?.file_name());
            let Some(suffix) = suffix_of(&self.path, &path) else { continue };
            let Some(meta) = fs::metadata(&path).ok().filter(Metadata::is_file) else { continue };
            let segment = Segment::new(Source::Path(path.clone()), &meta);
            if suffix.is_empty() {
                current = Some(segment);
            } else if let Some(number) = number_of_suffix(&suffix) {
                numbered.push((number, segment));
            } else if path != self.state_file && is_rotated_output(&path, &suffix) {
                others.push(Segment { is_foreign: true, ..segment });
            }
        }
        numbered.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        let mut segments: Vec<Segment> = numbered.into_iter().map(|(_, segment)| segment).collect();
        for file in held {
            let meta = file.metadata()?;
            let is_known = |segment: &Segment| segment.key == key_of(&meta);
            if !segments.iter().chain(&others).chain(&current).any(is_known) {
                others.push(Segment::new(Source::Open(file.try_clone()?), &meta));
            }
        }
        others.sort_by_key(|segment| segment.modified);
        for other in others {
            let at = segments.iter().position(|segment| segment.modified > other.modified).unwrap_or(segments.len());
            segments.insert(at, other);
        }
        segments.extend(current);
        Ok(segments)
    }
}

/// Whether a file of another program's rotation holds records: its first line is an object with a `timestamp`.
fn is_rotated_output(path: &Path, suffix: &str) -> bool {
    let is_other =
        OWN_SUFFIXES.iter().any(|own| suffix.starts_with(own)) || OTHER_ENDS.iter().any(|end| suffix.ends_with(end));
    let mut head = vec![0; if is_other { 0 } else { LOOK_BYTES }];
    let Ok(length) = File::open(path).and_then(|file| read_at(&file, &mut head, 0)) else { return false };
    let Some(end) = find_line_feed(&head[..length]) else { return false };
    document::fields(&head[..end]).is_some_and(|fields| fields.timestamp.is_some())
}

/// What follows the output file's own name, for a file whose name begins with it.
fn suffix_of(path: &Path, other: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    other.file_name()?.to_str()?.strip_prefix(name).map(str::to_owned)
}

pub fn key_of(meta: &Metadata) -> Key {
    (meta.dev(), meta.ino())
}

/// When it was last written, in seconds and nanoseconds.
pub fn modified(meta: &Metadata) -> (i64, i64) {
    (meta.mtime(), meta.mtime_nsec())
}

/// Lines in a file between two offsets.
///
/// # Errors
/// When it cannot be read.
pub fn count_lines(file: &File, mut offset: u64, end: u64) -> io::Result<u64> {
    let mut buffer = vec![0; LOOK_BYTES];
    let mut lines = 0;
    loop {
        let wanted = end.saturating_sub(offset).min(LOOK_BYTES as u64) as usize;
        match read_at(file, &mut buffer[..wanted], offset)? {
            0 => return Ok(lines),
            read => {
                // In sums of a byte, which the compiler makes fast.
                let in_few = |few: &[u8]| few.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>();
                lines += buffer[..read].chunks(255).map(|few| u64::from(in_few(few))).sum::<u64>();
                offset += read as u64;
            }
        }
    }
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
