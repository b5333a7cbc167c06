//! Reads the output file and its backups from a cursor as one log of records, oldest first.
//!
//! It finds the cursor's file even if it was renamed, reads whole lines, and continues with the next file. Files may be
//! moved, deleted or truncated while they are read. Must never: skip a file or line that was not read. In case of doubt
//! it reads again, since the cluster ignores duplicates.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::elastic::handle::{Published, Shared};
use crate::elastic::segments::{Key, Segment, first_with_lines, key_of, modified, segments};
use crate::output::backups::count_lines;
use crate::output::identity::{Cursor, FileIdentity, identity};
use crate::output::regular;

/// Length of a read. If no line ends within it, [`LINE_BYTES_MAX`] is read.
const READ_BYTES: usize = 64 * 1024;
/// Maximum length of a line. A longer one was not written by this program.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Maximum number of files held open, since they may be deleted before they are read.
const HELD_MAX: usize = 16;

/// The result of [`LogReader::next`].
#[derive(Debug)]
pub enum Next<'a> {
    /// A whole line without its line feed, and the place where it begins.
    Line(&'a [u8], Cursor),
    /// Skipped bytes without a line feed: the end of a file that was left, or more bytes than a line may have.
    Fragment,
    /// Everything was read.
    End,
}

/// The files, and how far they were read.
pub struct LogReader {
    path: PathBuf,
    /// Locked while files are listed and opened. The writer locks it while it renames them. Otherwise the list could lack a
    /// file, or a name could refer to another file when it is opened.
    shared: Arc<Shared>,
    head: Option<Head>,
    /// The place when the head's file was truncated.
    passed: Option<Cursor>,
    /// The files that were current most recently, the current one last.
    held: VecDeque<File>,
    current: Option<Key>,
    /// Bytes in the files between the head and the current one.
    between_bytes: u64,
    /// Whole lines from the head's offset on.
    chunk: Vec<u8>,
    /// Offset of the unread part of the chunk.
    chunk_at: usize,
    /// Length of the line at that offset, with its line feed.
    line_bytes: usize,
}

/// The file that is being read.
struct Head {
    file: File,
    key: Key,
    /// `None` after the file was truncated, until it contains a line.
    identity: Option<FileIdentity>,
    /// Everything before this offset was returned.
    offset: u64,
}

impl LogReader {
    /// Opens the files at the cursor, or at the oldest file if the cursor's file is not found. The second value is
    /// whether it was found.
    ///
    /// # Errors
    /// When the folder or a file cannot be read.
    pub fn open(path: &Path, cursor: Option<Cursor>, shared: Arc<Shared>) -> io::Result<(Self, bool)> {
        let mut reader = Self {
            path: path.to_owned(),
            shared,
            head: None,
            passed: None,
            held: VecDeque::new(),
            current: None,
            between_bytes: 0,
            chunk: Vec::new(),
            chunk_at: 0,
            line_bytes: 0,
        };
        reader.watch()?;
        let found = match cursor {
            Some(cursor) => reader.seek(cursor)?,
            None => false,
        };
        if !found {
            reader.begin_at_oldest()?;
        }
        Ok((reader, found))
    }

    /// Checks whether the output file was replaced, and holds the new one open, since it may be moved and deleted
    /// before it is read.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn watch(&mut self) -> io::Result<()> {
        let shared = self.shared.clone();
        let _names = shared.lock();
        let there = fs::metadata(&self.path).ok().map(|meta| key_of(&meta));
        if there.is_some() && there == self.current {
            return Ok(());
        }
        // If there is none, other files may follow the previous one. The writer reports an output path that is not a
        // regular file; here it counts as no file.
        self.current = None;
        let file = match regular::open(OpenOptions::new().read(true), &self.path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => return Ok(()),
            file => file?,
        };
        self.current = Some(key_of(&file.metadata()?));
        self.held.push_back(file);
        if self.held.len() > HELD_MAX {
            self.held.pop_front();
        }
        self.count_between()
    }

    /// Bytes that were not returned yet.
    pub fn unread_bytes(&self) -> u64 {
        let length = |file: &File| file.metadata().map_or(0, |meta| meta.len());
        let current = self.held.back().map_or(0, length);
        match &self.head {
            Some(head) if Some(head.key) == self.current => current.saturating_sub(head.offset),
            Some(head) => length(&head.file).saturating_sub(head.offset) + self.between_bytes + current,
            None => self.between_bytes + current,
        }
    }

    /// Lines that were not returned yet. To count them, all of them are read.
    ///
    /// # Errors
    /// When the folder or a file cannot be read.
    pub fn count_unread(&self) -> io::Result<u64> {
        let Some(head) = &self.head else { return Ok(0) };
        let mut lines = count_lines(&head.file, head.offset)?;
        for segment in self.after_head()? {
            lines += segment.open()?.map_or(Ok(0), |file| count_lines(&file, 0))?;
        }
        Ok(lines)
    }

    /// The place up to which everything was returned; `None` before the first whole line.
    pub fn place(&self) -> Option<Cursor> {
        let head = self.head.as_ref()?;
        head.identity.map(|file| Cursor { file, offset: head.offset }).or(self.passed)
    }

    /// Returns the next line, and the same line again until [`LogReader::pass`] is called.
    ///
    /// # Errors
    /// When the folder or a file cannot be read.
    pub fn next(&mut self) -> io::Result<Next<'_>> {
        loop {
            let line = memchr::memchr(b'\n', &self.chunk[self.chunk_at..]);
            if let (Some(length), Some(place)) = (line, self.place()) {
                self.line_bytes = length + 1;
                return Ok(Next::Line(&self.chunk[self.chunk_at..self.chunk_at + length], place));
            }
            if let Some(other) = self.refill()? {
                return Ok(other);
            }
        }
    }

    /// Advances past the line that [`LogReader::next`] returned.
    pub fn pass(&mut self) {
        if let Some(head) = &mut self.head {
            self.chunk_at += self.line_bytes;
            head.offset += self.line_bytes as u64;
        }
    }

    /// Reads the next chunk; `None` if there may be lines now.
    fn refill(&mut self) -> io::Result<Option<Next<'static>>> {
        self.forget_chunk();
        if self.head.is_none() {
            self.begin_at_oldest()?;
        }
        let Some(head) = &mut self.head else { return Ok(Some(Next::End)) };
        let (length, identity) = (head.file.metadata()?.len(), identity(&head.file));
        if head.identity.is_some() && (length < head.offset || identity != head.identity) {
            return self.reopen_truncated();
        }
        if head.identity != identity {
            head.identity = identity;
            self.shared.lock().reading = identity;
        }
        let left = identity.map_or(0, |_| length - head.offset);
        for wanted in [READ_BYTES, LINE_BYTES_MAX] {
            self.chunk.resize(wanted.min(left as usize), 0);
            let read = head.file.read_at(&mut self.chunk, head.offset)?;
            // The writer may still undo what follows the last line feed, so that part is read again later.
            let whole = memchr::memrchr(b'\n', &self.chunk[..read]).map_or(0, |end| end + 1);
            self.chunk.truncate(whole);
            if whole > 0 {
                return Ok(None);
            }
            if read == LINE_BYTES_MAX {
                head.offset += read as u64;
                return Ok(Some(Next::Fragment));
            }
        }
        self.next_file(length)
    }

    /// The head's file was truncated or rewritten. If it was copied first (logrotate's `copytruncate`), the unread part
    /// is in the copy.
    fn reopen_truncated(&mut self) -> io::Result<Option<Next<'static>>> {
        self.passed = self.place();
        if let Some(place) = self.passed
            && self.seek(place)?
        {
            log::info!("{} was truncated; reading the rest from its copy", self.path.display());
        } else if let Some(head) = &mut self.head {
            log::info!("{} was truncated; reading it from its beginning", self.path.display());
            (head.offset, head.identity) = (0, None);
        }
        Ok(None)
    }

    /// Continues with the next file that contains a line, after the head's file was read up to this length. Until there
    /// is such a file, the writer may still append to the head's file, whatever its name.
    fn next_file(&mut self, length: u64) -> io::Result<Option<Next<'static>>> {
        let shared = self.shared.clone();
        let mut names = shared.lock();
        self.close_deleted(&mut names);
        let Some(head) = self.head.as_ref().filter(|head| Some(head.key) != self.current) else {
            return Ok(Some(Next::End));
        };
        let Some(next) = first_with_lines(self.after_head()?)? else { return Ok(Some(Next::End)) };
        if head.file.metadata()?.len() != length {
            return Ok(None);
        }
        let (left, is_torn) = (head.key, length > head.offset);
        if !self.set_head(&next, 0, &mut names)? {
            return Ok(None);
        }
        self.held.retain(|file| file.metadata().is_ok_and(|meta| key_of(&meta) != left));
        self.count_between()?;
        Ok(is_torn.then_some(Next::Fragment))
    }

    fn begin_at_oldest(&mut self) -> io::Result<()> {
        let shared = self.shared.clone();
        let mut names = shared.lock();
        self.close_deleted(&mut names);
        while let Some(oldest) = first_with_lines(segments(&self.path, &self.held)?)? {
            if self.set_head(&oldest, 0, &mut names)? {
                break;
            }
        }
        self.count_between()
    }

    /// Closes files that the writer deleted to free space. Their records were already counted as lost.
    fn close_deleted(&mut self, names: &mut Published) {
        if std::mem::take(&mut names.has_deleted) {
            self.held.retain(|file| file.metadata().is_ok_and(|meta| meta.nlink() > 0));
        }
    }

    /// Moves to the cursor; `false` if its file is not found.
    fn seek(&mut self, cursor: Cursor) -> io::Result<bool> {
        let shared = self.shared.clone();
        let mut names = shared.lock();
        // Start with the newest file, since the cursor is nearly always there.
        for segment in segments(&self.path, &self.held)?.into_iter().rev() {
            let is_its = segment.bytes >= cursor.offset && segment.identity()? == Some(cursor.file);
            if is_its && self.set_head(&segment, cursor.offset, &mut names)? {
                self.count_between()?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the file the head; `false` if its name refers to another file by now.
    fn set_head(&mut self, segment: &Segment, offset: u64, names: &mut Published) -> io::Result<bool> {
        let Some(file) = segment.open()? else { return Ok(false) };
        self.forget_chunk();
        names.reading = identity(&file);
        self.head = Some(Head { identity: names.reading, file, key: segment.key, offset });
        Ok(true)
    }

    /// The files after the head.
    fn after_head(&self) -> io::Result<Vec<Segment>> {
        let mut segments = segments(&self.path, &self.held)?;
        let Some(head) = &self.head else { return Ok(segments) };
        let written = modified(&head.file.metadata()?);
        let next = match segments.iter().position(|segment| segment.key == head.key) {
            Some(at) => at + 1,
            // The file was deleted, so the next one is the first that was modified later.
            None => segments.iter().position(|segment| segment.modified >= written).unwrap_or(segments.len()),
        };
        Ok(segments.split_off(next))
    }

    fn count_between(&mut self) -> io::Result<()> {
        let is_between = |segment: &&Segment| Some(segment.key) != self.current;
        self.between_bytes = self.after_head()?.iter().filter(is_between).map(|segment| segment.bytes).sum();
        Ok(())
    }

    fn forget_chunk(&mut self) {
        self.chunk.clear();
        self.chunk.shrink_to(READ_BYTES);
        self.chunk_at = 0;
    }
}
