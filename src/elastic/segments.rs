//! Which files there are, and in what order they were written: the output file, its backups, and what another program's
//! rotation made of them. No more of a file is read than its beginning.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::elastic::document;
use crate::output::backups::{folder, number_of_suffix};
use crate::output::identity::{FileIdentity, identity};

/// Bytes of a file that are looked at to see whether it holds records.
const LOOK_BYTES: usize = 64 * 1024;
/// Beginnings of suffixes that are this program's own files beside the output.
const OWN_SUFFIXES: [&str; 3] = [".state", ".dead", ".unreadable"];

/// Which file an open one is, for as long as it is held open: only so long is an inode number not used again.
pub type Key = (u64, u64);

/// One of the files.
pub struct Segment {
    place: Place,
    pub key: Key,
    /// Seconds and nanoseconds.
    pub modified: (i64, i64),
    pub bytes: u64,
}

/// Where to get at it.
enum Place {
    Path(PathBuf),
    /// It may have no name any more.
    Open(File),
}

impl Segment {
    fn new(place: Place, meta: &Metadata) -> Self {
        Self { place, key: key_of(meta), modified: modified(meta), bytes: meta.len() }
    }

    /// Opens it; `None` when its name stands for another file by now, or for none.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self) -> io::Result<Option<File>> {
        let file = match &self.place {
            Place::Open(file) => file.try_clone()?,
            Place::Path(path) => match File::open(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                file => file?,
            },
        };
        let is_same = key_of(&file.metadata()?) == self.key;
        Ok(is_same.then_some(file))
    }

    /// `None` as long as it holds no whole line.
    ///
    /// # Errors
    /// When it cannot be opened: it is not known to be empty then.
    pub fn identity(&self) -> io::Result<Option<FileIdentity>> {
        Ok(self.open()?.and_then(|file| identity(&file)))
    }
}

/// All files of the output, oldest first: the backups by their numbers, the current file last, and what was moved away
/// placed among them by when it was last written. `held`: files that may have lost their names.
///
/// # Errors
/// When the folder cannot be read.
pub fn segments(output: &Path, held: &VecDeque<File>) -> io::Result<Vec<Segment>> {
    let (mut numbered, mut others, mut foreign, mut current) = (Vec::new(), Vec::new(), Vec::new(), None);
    for entry in fs::read_dir(folder(output))? {
        let path = folder(output).join(entry?.file_name());
        let Some(suffix) = suffix_of(output, &path) else { continue };
        let Some(meta) = fs::metadata(&path).ok().filter(Metadata::is_file) else { continue };
        let is_foreign = !suffix.is_empty() && number_of_suffix(&suffix).is_none();
        if is_foreign && (OWN_SUFFIXES.iter().any(|own| suffix.starts_with(own)) || !holds_records(&path)?) {
            continue;
        }
        let segment = Segment::new(Place::Path(path), &meta);
        match number_of_suffix(&suffix) {
            Some(number) => numbered.push((number, segment)),
            None if is_foreign => foreign.push(segment),
            None => current = Some(segment),
        }
    }
    numbered.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    let mut segments: Vec<Segment> = numbered.into_iter().map(|(_, segment)| segment).collect();
    for file in held {
        let meta = file.metadata()?;
        let is_known = |segment: &Segment| segment.key == key_of(&meta);
        if !segments.iter().chain(&foreign).chain(&current).any(is_known) {
            others.push(Segment::new(Place::Open(file.try_clone()?), &meta));
        }
    }
    if !foreign.is_empty() {
        // A copy of one that is there, as logrotate makes it before it cuts the file.
        let mut ours = Vec::new();
        for segment in segments.iter().chain(&others).chain(&current) {
            ours.extend(segment.identity()?);
        }
        for segment in foreign {
            if segment.identity()?.is_some_and(|identity| !ours.contains(&identity)) {
                others.push(segment);
            }
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

/// The oldest of these files that holds a whole line.
///
/// # Errors
/// When one before it cannot be opened.
pub fn first_with_lines(segments: Vec<Segment>) -> io::Result<Option<Segment>> {
    for segment in segments {
        if segment.identity()?.is_some() {
            return Ok(Some(segment));
        }
    }
    Ok(None)
}

/// Whether a file that another program named holds records: its first line is an object with a `timestamp`. What is
/// compressed does not, nor what is not for this program to read.
fn holds_records(path: &Path) -> io::Result<bool> {
    let mut begin = vec![0; LOOK_BYTES];
    let length = match File::open(path).and_then(|file| file.read_at(&mut begin, 0)) {
        Ok(length) => length,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => return Ok(false),
        Err(error) => return Err(error),
    };
    let Some(end) = memchr::memchr(b'\n', &begin[..length]) else { return Ok(false) };
    Ok(document::fields(&begin[..end]).is_some_and(|fields| fields.timestamp.is_some()))
}

/// What follows the output file's own name, for a file whose name begins with it.
fn suffix_of(output: &Path, other: &Path) -> Option<String> {
    let name = output.file_name()?.to_str()?;
    other.file_name()?.to_str()?.strip_prefix(name).map(str::to_owned)
}

pub fn key_of(meta: &Metadata) -> Key {
    (meta.dev(), meta.ino())
}

/// When it was last written, in seconds and nanoseconds.
pub fn modified(meta: &Metadata) -> (i64, i64) {
    (meta.mtime(), meta.mtime_nsec())
}
