//! The files as one long line of records, oldest first, read from a cursor.
//!
//! Deals with: finding the cursor's file under whatever name it has by now, reading whole lines, going on to the next
//! file, and files that are moved, deleted or cut short while they are read. Must never: skip a file or a line that was
//! not read. Where it is not certain what was read, it reads again: the cluster knows what it has.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::elastic::lines;
use crate::output::backups::{folder, number_of_suffix};
use crate::output::identity::{Cursor, FileIdentity, identity};

/// Bytes that one read asks for; a longer line makes it more, up to [`LINE_BYTES_MAX`].
const READ_BYTES: usize = 64 * 1024;
/// Bytes of a line, at most; a longer one is nobody's record.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Moved files that are held open, at most.
const ORPHANS_MAX: usize = 16;
/// How often a folder that changes while it is looked at is looked at again.
const LOOKS_MAX: usize = 3;
/// Ends of names that are no rotated output, wherever they come from.
const OTHER_ENDS: [&str; 8] = [".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".tmp", ".lock"];
/// Beginnings of suffixes that are this program's own files beside the output.
const OWN_SUFFIXES: [&str; 4] = [".state", ".dead", ".unreadable", ".lock"];

/// Which file an open one is, for as long as it is held open: only so long is an inode number not used again.
type Key = (u64, u64);

/// The next thing in the files.
#[derive(Debug)]
pub enum Next<'a> {
    /// A whole line without its line feed, and where it begins.
    Line(&'a [u8], Cursor),
    /// Bytes that are no line: the torn end of a file, or more than a line may have. They are passed already.
    Torn,
    /// Everything was read.
    End,
}

/// All files, and how far they are read.
pub struct Chain {
    path: PathBuf,
    /// Not a part of the chain, however it is named.
    state_file: PathBuf,
    current: Option<File>,
    current_key: Option<Key>,
    current_bytes: u64,
    head: Option<Head>,
    /// Files that were moved away before they were read, oldest first.
    orphans: VecDeque<File>,
    /// Bytes in the files between the head's and the current one.
    between_bytes: u64,
    chunk: Vec<u8>,
    /// Where the unread part of the chunk begins.
    chunk_at: usize,
    /// Bytes of the line there, once it was looked for.
    line_bytes: Option<usize>,
}

struct Head {
    file: File,
    key: Key,
    identity: Option<FileIdentity>,
    /// Everything before it was given out.
    offset: u64,
}

struct Entry {
    source: Source,
    key: Key,
    modified: (i64, i64),
    bytes: u64,
}

enum Source {
    Path(PathBuf),
    Orphan(File),
}

impl Chain {
    /// Opens the files at the cursor; where its file is not found, at the oldest there is. The second value says whether
    /// a cursor was given and not found.
    ///
    /// # Errors
    /// When the folder or a file cannot be read.
    pub fn open(path: &Path, state_file: &Path, cursor: Option<Cursor>) -> io::Result<(Self, bool)> {
        let mut chain = Self {
            path: path.to_owned(),
            state_file: state_file.to_owned(),
            current: None,
            current_key: None,
            current_bytes: 0,
            head: None,
            orphans: VecDeque::new(),
            between_bytes: 0,
            chunk: Vec::new(),
            chunk_at: 0,
            line_bytes: None,
        };
        chain.open_current();
        let found = match cursor {
            Some(cursor) => chain.seek(cursor, None)?,
            None => false,
        };
        if !found {
            chain.begin_at_oldest()?;
        }
        Ok((chain, cursor.is_some() && !found))
    }

    /// The current file has grown, or shrunk, to this length.
    pub fn appended(&mut self, bytes: u64) {
        self.current_bytes = bytes;
        if self.current.is_none() {
            self.open_current();
            self.current_bytes = bytes;
        }
    }

    /// The current file became a backup, and there is a new one.
    pub fn rotated(&mut self) {
        if !self.head_is_current() {
            self.between_bytes += self.current_bytes;
        }
        self.current = None;
        self.open_current();
    }

    /// The current file was moved or deleted by somebody, and there is a new one. The old one is held open until it was
    /// read: it may have no name any more.
    pub fn moved(&mut self) {
        if !self.head_is_current()
            && let Some(old) = self.current.take()
        {
            self.between_bytes += self.current_bytes;
            self.orphans.push_back(old);
            if self.orphans.len() > ORPHANS_MAX {
                self.orphans.pop_front();
                log::warn!(
                    "{} was moved away more than {ORPHANS_MAX} times before the cluster had it: the oldest is read only if it is in the folder still",
                    self.path.display()
                );
            }
        }
        self.current = None;
        self.open_current();
    }

    /// The oldest files were deleted: if the head's was among them, the rest of it is given up.
    ///
    /// # Errors
    /// When the folder or a file cannot be read.
    pub fn dropped(&mut self) -> io::Result<()> {
        let gone = self.head.as_ref().is_some_and(|head| head.file.metadata().is_ok_and(|meta| meta.nlink() == 0));
        if gone && !self.head_is_current() {
            self.begin_at_oldest()?;
        } else {
            self.count_between()?;
        }
        Ok(())
    }

    /// Bytes that were not given out yet.
    pub fn unread_bytes(&self) -> u64 {
        let Some(head) = &self.head else { return self.between_bytes + self.current_bytes };
        if Some(head.key) == self.current_key {
            return self.current_bytes.saturating_sub(head.offset);
        }
        let length = head.file.metadata().map_or(0, |meta| meta.len());
        length.saturating_sub(head.offset) + self.between_bytes + self.current_bytes
    }

    /// Whether all that is left stands in the file that is being written.
    pub fn head_is_current(&self) -> bool {
        self.head.as_ref().is_some_and(|head| Some(head.key) == self.current_key)
    }

    /// The place up to which everything was given out; `None` before the first whole line.
    pub fn place(&self) -> Option<Cursor> {
        let head = self.head.as_ref()?;
        Some(Cursor { file: head.identity?, offset: head.offset })
    }

    /// The next line, which is given again until [`Chain::pass`] is called.
    ///
    /// # Errors
    /// When the folder or a file cannot be read.
    pub fn next(&mut self) -> io::Result<Next<'_>> {
        loop {
            if self.line_bytes.is_none() {
                self.line_bytes = find_line_feed(&self.chunk[self.chunk_at..]);
            }
            if let (Some(length), Some(place)) = (self.line_bytes, self.place()) {
                return Ok(Next::Line(&self.chunk[self.chunk_at..self.chunk_at + length], place));
            }
            match self.refill()? {
                Refill::More => {}
                Refill::Torn => return Ok(Next::Torn),
                Refill::End => return Ok(Next::End),
            }
        }
    }

    /// The line that [`Chain::next`] gave is dealt with.
    pub fn pass(&mut self) {
        if let (Some(length), Some(head)) = (self.line_bytes.take(), &mut self.head) {
            self.chunk_at += length + 1;
            head.offset += length as u64 + 1;
        }
    }

    /// Gives the read buffer back: nothing more is wanted for now.
    pub fn rest(&mut self) {
        if self.chunk_at == self.chunk.len() && self.chunk.capacity() > READ_BYTES {
            self.chunk = Vec::new();
            self.chunk_at = 0;
        }
    }

    fn open_current(&mut self) {
        let opened = File::open(&self.path).and_then(|file| file.metadata().map(|meta| (file, meta)));
        let (file, meta) = match opened {
            Ok((file, meta)) => (Some(file), Some(meta)),
            Err(_) => (None, None),
        };
        self.current = file;
        self.current_key = meta.as_ref().map(key_of);
        self.current_bytes = meta.map_or(0, |meta| meta.len());
    }

    /// Reads on behind what the chunk holds.
    fn refill(&mut self) -> io::Result<Refill> {
        if self.head.is_none() {
            self.begin_at_oldest()?;
        }
        let Some(head) = &mut self.head else { return Ok(Refill::End) };
        let length = head.file.metadata()?.len();
        if head.identity.is_none() {
            head.identity = identity(&head.file);
        } else if length < head.offset || identity(&head.file) != head.identity {
            return self.cut_short();
        }
        self.chunk.drain(..self.chunk_at);
        self.chunk_at = 0;
        let held = self.chunk.len();
        let from = head.offset + held as u64;
        if length > from && head.identity.is_some() {
            if held >= LINE_BYTES_MAX {
                return self.pass_long_line();
            }
            let wanted = held.max(READ_BYTES).min((length - from) as usize);
            self.chunk.resize(held + wanted, 0);
            let read = read_at(&head.file, &mut self.chunk[held..], from);
            self.chunk.truncate(held + *read.as_ref().unwrap_or(&0));
            return match read? {
                0 => Ok(Refill::End),
                _ => Ok(Refill::More),
            };
        }
        if self.head_is_current() {
            return Ok(Refill::End);
        }
        // The head's file is read to its end. A rest without a line feed is torn, for nobody appends there any more.
        let torn = length > head_offset(&self.head);
        if !self.go_on()? {
            return Ok(Refill::End);
        }
        Ok(if torn { Refill::Torn } else { Refill::More })
    }

    /// Passes a line that is longer than any record.
    fn pass_long_line(&mut self) -> io::Result<Refill> {
        let Some(head) = &mut self.head else { return Ok(Refill::End) };
        let mut offset = head.offset + self.chunk.len() as u64;
        self.chunk.clear();
        self.chunk.resize(READ_BYTES, 0);
        loop {
            let read = read_at(&head.file, &mut self.chunk, offset)?;
            let end = find_line_feed(&self.chunk[..read]);
            offset += end.map_or(read as u64, |end| end as u64 + 1);
            if end.is_some() || read == 0 {
                break;
            }
        }
        self.chunk = Vec::new();
        head.offset = offset;
        Ok(Refill::Torn)
    }

    /// The head's file holds something else than it did: it was copied and cut (logrotate's `copytruncate`), or begun
    /// anew. What was not read stands in the copy, if there is one.
    fn cut_short(&mut self) -> io::Result<Refill> {
        let place = self.place();
        let Some(mut head) = self.head.take() else { return Ok(Refill::End) };
        self.forget_chunk();
        if let Some(place) = place
            && self.seek(place, Some(head.key))?
        {
            log::info!("{} was cut short; the rest is read from its copy", self.path.display());
            return Ok(Refill::More);
        }
        log::info!("{} was cut short; it is read from its beginning", self.path.display());
        head.offset = 0;
        head.identity = identity(&head.file);
        self.head = Some(head);
        Ok(Refill::More)
    }

    /// Goes on to the file after the head's; `false` when there is none yet.
    fn go_on(&mut self) -> io::Result<bool> {
        for _ in 0..LOOKS_MAX {
            let Some(head) = &self.head else { return Ok(false) };
            let (key, modified) = (head.key, modified(&head.file.metadata()?));
            let entries = self.entries()?;
            let next = match entries.iter().position(|entry| entry.key == key) {
                Some(at) => at + 1,
                // It has no name any more: what was written after it comes next.
                None => entries.iter().position(|entry| entry.modified >= modified).unwrap_or(entries.len()),
            };
            let between = entries.iter().skip(next + 1).filter(|entry| Some(entry.key) != self.current_key);
            let between_bytes = between.map(|entry| entry.bytes).sum();
            let Some(entry) = entries.into_iter().nth(next) else { return Ok(false) };
            if self.take_up(entry)? {
                self.between_bytes = between_bytes;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn begin_at_oldest(&mut self) -> io::Result<()> {
        self.head = None;
        self.forget_chunk();
        for _ in 0..LOOKS_MAX {
            let Some(oldest) = self.entries()?.into_iter().next() else { return Ok(()) };
            if self.take_up(oldest)? {
                break;
            }
        }
        self.count_between()
    }

    /// Makes the file the head; `false` when its name stands for another file by now.
    fn take_up(&mut self, entry: Entry) -> io::Result<bool> {
        let file = match entry.source {
            Source::Orphan(file) => file,
            Source::Path(path) => match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            },
        };
        if key_of(&file.metadata()?) != entry.key {
            return Ok(false);
        }
        self.orphans.retain(|orphan| orphan.metadata().is_ok_and(|meta| key_of(&meta) != entry.key));
        self.forget_chunk();
        self.head = Some(Head { identity: identity(&file), file, key: entry.key, offset: 0 });
        Ok(true)
    }

    /// Finds the cursor's file, other than `not`, and goes there.
    fn seek(&mut self, cursor: Cursor, not: Option<Key>) -> io::Result<bool> {
        // The newest first: there the cursor nearly always is, and there a copy that is being made is not.
        for entry in self.all_entries()?.into_iter().rev() {
            if Some(entry.key) == not || entry.bytes < cursor.offset {
                continue;
            }
            let Source::Path(path) = &entry.source else { continue };
            let same = File::open(path).is_ok_and(|file| identity(&file) == Some(cursor.file));
            if same && self.take_up(entry)? {
                if let Some(head) = &mut self.head {
                    head.offset = cursor.offset;
                }
                self.count_between()?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn count_between(&mut self) -> io::Result<()> {
        let Some(key) = self.head.as_ref().map(|head| head.key) else { return Ok(()) };
        let entries = self.entries()?;
        let after = entries.iter().position(|entry| entry.key == key).map_or(0, |at| at + 1);
        self.between_bytes = entries[after.min(entries.len())..]
            .iter()
            .filter(|entry| Some(entry.key) != self.current_key && entry.key != key)
            .map(|entry| entry.bytes)
            .sum();
        Ok(())
    }

    fn forget_chunk(&mut self) {
        self.chunk.clear();
        self.chunk_at = 0;
        self.line_bytes = None;
    }

    /// All files oldest first, without copies of one that stands there already.
    fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = self.all_entries()?;
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
    fn all_entries(&self) -> io::Result<Vec<Entry>> {
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
        for orphan in &self.orphans {
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
        let mut head = vec![0; READ_BYTES];
        let Ok(length) = File::open(path).and_then(|file| read_at(&file, &mut head, 0)) else { return false };
        let Some(end) = find_line_feed(&head[..length]) else { return false };
        lines::fields(&head[..end]).is_some_and(|fields| fields.timestamp.is_some())
    }
}

enum Refill {
    More,
    Torn,
    End,
}

fn head_offset(head: &Option<Head>) -> u64 {
    head.as_ref().map_or(0, |head| head.offset)
}

/// What follows the output file's own name, for a file whose name begins with it.
fn suffix_of(path: &Path, other: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    other.file_name()?.to_str()?.strip_prefix(name).map(str::to_owned)
}

fn entry_of(source: Source, meta: &Metadata) -> Entry {
    Entry { source, key: key_of(meta), modified: modified(meta), bytes: meta.len() }
}

fn key_of(meta: &Metadata) -> Key {
    (meta.dev(), meta.ino())
}

fn modified(meta: &Metadata) -> (i64, i64) {
    (meta.mtime(), meta.mtime_nsec())
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// The place of the first line feed; eight bytes at a time, for every document goes through here.
fn find_line_feed(bytes: &[u8]) -> Option<usize> {
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
