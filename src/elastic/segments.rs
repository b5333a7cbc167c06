//! Lists the files with records in the order they were written: the output file, its backups, and files that another
//! program's rotation made of them. Only the beginning of a file is read.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::elastic::document;
use crate::output::backups::{folder, number_of_suffix};
use crate::output::identity::{FileIdentity, identity};

/// Bytes that are read from the beginning of a file to see whether it contains records.
const LOOK_BYTES: usize = 64 * 1024;
/// Prefixes of the suffixes of this program's other files, which are next to the output.
const OWN_SUFFIXES: [&str; 3] = [".state", ".dead", ".unreadable"];

/// Device and inode of a file. They identify it only while it is open, since inode numbers are reused.
pub type Key = (u64, u64);

/// One of the files.
pub struct Segment {
    place: Place,
    pub key: Key,
    /// Modification time in seconds and nanoseconds.
    pub modified: (i64, i64),
    pub bytes: u64,
}

/// How to open a segment.
enum Place {
    Path(PathBuf),
    /// A file that may have been deleted.
    Open(File),
}

impl Segment {
    fn new(place: Place, meta: &Metadata) -> Self {
        Self { place, key: key_of(meta), modified: modified(meta), bytes: meta.len() }
    }

    /// Opens the file; `None` if its name no longer exists or refers to another file.
    ///
    /// # Errors
    /// When the file cannot be opened.
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

    /// The file's identity; `None` until it contains a whole line.
    ///
    /// # Errors
    /// When the file cannot be opened, so that it is unknown whether it contains a line.
    pub fn identity(&self) -> io::Result<Option<FileIdentity>> {
        Ok(self.open()?.and_then(|file| identity(&file)))
    }
}

/// All files of the output, oldest first: the backups in the order of their numbers, and the current file last. Files
/// that were moved are placed among them by their modification time. `held`: open files that may have been deleted.
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
        // Leave out copies of the other files, as logrotate makes them before it truncates a file.
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

/// The first of these files that contains a whole line.
///
/// # Errors
/// When a file before it cannot be opened.
pub fn first_with_lines(segments: Vec<Segment>) -> io::Result<Option<Segment>> {
    for segment in segments {
        if segment.identity()?.is_some() {
            return Ok(Some(segment));
        }
    }
    Ok(None)
}

/// Whether a file that another program named contains records, which means that its first line is an object with a
/// `timestamp`. False for compressed files and for files that this program may not read.
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

/// The part of the file name after the output file's name; `None` if it does not begin with that name.
fn suffix_of(output: &Path, other: &Path) -> Option<String> {
    let name = output.file_name()?.to_str()?;
    other.file_name()?.to_str()?.strip_prefix(name).map(str::to_owned)
}

pub fn key_of(meta: &Metadata) -> Key {
    (meta.dev(), meta.ino())
}

/// The modification time in seconds and nanoseconds.
pub fn modified(meta: &Metadata) -> (i64, i64) {
    (meta.mtime(), meta.mtime_nsec())
}
