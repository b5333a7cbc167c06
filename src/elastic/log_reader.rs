//! The files as one long log of records, oldest first, read from a cursor.
//!
//! Finds the cursor's file under whatever name it has by now, reads whole lines, goes on to the next file, and copes with
//! files that are moved, deleted or cut while they are read. Must never: skip a file or a line that was not read. Where it
//! is not certain what was read, it reads again: the cluster knows what it has.

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

/// Bytes that one read asks for; where no line ends in them, it asks for [`LINE_BYTES_MAX`].
const READ_BYTES: usize = 64 * 1024;
/// Bytes of a line, at most; a longer one is no record of this program's.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Files held open because they may lose their names before they are read.
const HELD_MAX: usize = 16;

/// The next thing in the files.
#[derive(Debug)]
pub enum Next<'a> {
    /// A whole line without its line feed, and where it begins.
    Line(&'a [u8], Cursor),
    /// Bytes without a line feed, at the end of a file that was left or as many as no record has: they are passed already.
    Fragment,
    /// Everything was read.
    End,
}

/// All files, and how far they are read.
pub struct LogReader {
    path: PathBuf,
    /// Locked while files are listed and opened, as it is while the writer renames them: a folder that is listed in a
    /// rotation may lack a file, and a name may stand for another file by the time that it is opened.
    shared: Arc<Shared>,
    head: Option<Head>,
    /// The place before the head's file was cut.
    passed: Option<Cursor>,
    /// The newest files that were current, the current one last.
    held: VecDeque<File>,
    current: Option<Key>,
    /// Bytes in the files between the head's and the current one.
    between_bytes: u64,
    /// Whole lines from the head's offset on.
    chunk: Vec<u8>,
    /// Where the unread part of the chunk begins.
    chunk_at: usize,
    /// Bytes of the line there, with its line feed.
    line_bytes: usize,
}

/// The file that is being read.
struct Head {
    file: File,
    key: Key,
    /// `None` after it was cut, until it holds a line.
    identity: Option<FileIdentity>,
    /// Everything before it was given out.
    offset: u64,
}

impl LogReader {
    /// Opens the files at the cursor; where its file is not found, at the oldest there is. The second value says whether
    /// the cursor's file was found.
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

    /// Notices that the output file is another one by now, and holds the new one open: it may be moved away and deleted
    /// before it is read.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn watch(&mut self) -> io::Result<()> {
        let shared = self.shared.clone();
        let _names = shared.lock();
        let there = fs::metadata(&self.path).ok().map(|meta| key_of(&meta));
        if there.is_some() && there == self.current {
            return Ok(());
        }
        // Without one, what was the current file may have others behind it by now. What is no file holds no records; the
        // writer reports it.
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

    /// Bytes that were not given out yet.
    pub fn unread_bytes(&self) -> u64 {
        let length = |file: &File| file.metadata().map_or(0, |meta| meta.len());
        let current = self.held.back().map_or(0, length);
        match &self.head {
            Some(head) if Some(head.key) == self.current => current.saturating_sub(head.offset),
            Some(head) => length(&head.file).saturating_sub(head.offset) + self.between_bytes + current,
            None => self.between_bytes + current,
        }
    }

    /// Lines that were not given out yet; all of them are read for it.
    ///
    /// # Errors
    /// When the folder or a file cannot be read.
    pub fn count_unread(&self) -> io::Result<u64> {
        let Some(head) = &self.head else { return Ok(0) };
        let mut lines = count_lines(&head.file, head.offset)?;
        for segment in self.behind_head()? {
            lines += segment.open()?.map_or(Ok(0), |file| count_lines(&file, 0))?;
        }
        Ok(lines)
    }

    /// The place up to which everything was given out; `None` before the first whole line.
    pub fn place(&self) -> Option<Cursor> {
        let head = self.head.as_ref()?;
        head.identity.map(|file| Cursor { file, offset: head.offset }).or(self.passed)
    }

    /// The next line, which is given again until [`LogReader::pass`] is called.
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

    /// The line that [`LogReader::next`] gave is dealt with.
    pub fn pass(&mut self) {
        if let Some(head) = &mut self.head {
            self.chunk_at += self.line_bytes;
            head.offset += self.line_bytes as u64;
        }
    }

    /// Reads on behind what was given out; `None` when there may be lines now.
    fn refill(&mut self) -> io::Result<Option<Next<'static>>> {
        self.forget_chunk();
        if self.head.is_none() {
            self.begin_at_oldest()?;
        }
        let Some(head) = &mut self.head else { return Ok(Some(Next::End)) };
        let (length, identity) = (head.file.metadata()?.len(), identity(&head.file));
        if head.identity.is_some() && (length < head.offset || identity != head.identity) {
            return self.reopen_cut();
        }
        if head.identity != identity {
            head.identity = identity;
            self.shared.lock().reading = identity;
        }
        let left = identity.map_or(0, |_| length - head.offset);
        for wanted in [READ_BYTES, LINE_BYTES_MAX] {
            self.chunk.resize(wanted.min(left as usize), 0);
            let read = head.file.read_at(&mut self.chunk, head.offset)?;
            // What follows the last line feed may be taken back by the writer, and is read again.
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
        self.go_on(length)
    }

    /// The head's file holds something else than it did: it was copied and cut (logrotate's `copytruncate`), or begun
    /// anew. What was not read is in the copy, if there is one.
    fn reopen_cut(&mut self) -> io::Result<Option<Next<'static>>> {
        self.passed = self.place();
        if let Some(place) = self.passed
            && self.seek(place)?
        {
            log::info!("{} was cut; the rest is read from its copy", self.path.display());
        } else if let Some(head) = &mut self.head {
            log::info!("{} was cut; it is read from its beginning", self.path.display());
            (head.offset, head.identity) = (0, None);
        }
        Ok(None)
    }

    /// The head's file is read up to this length: goes on to the next one that holds a line. Until there is one, the writer
    /// may append to the head's still, under whatever name.
    fn go_on(&mut self, length: u64) -> io::Result<Option<Next<'static>>> {
        let shared = self.shared.clone();
        let mut names = shared.lock();
        self.let_go_of_deleted(&mut names);
        let Some(head) = self.head.as_ref().filter(|head| Some(head.key) != self.current) else {
            return Ok(Some(Next::End));
        };
        let Some(next) = first_with_lines(self.behind_head()?)? else { return Ok(Some(Next::End)) };
        if head.file.metadata()?.len() != length {
            return Ok(None);
        }
        let (left, is_torn) = (head.key, length > head.offset);
        if !self.take_up(&next, 0, &mut names)? {
            return Ok(None);
        }
        self.held.retain(|file| file.metadata().is_ok_and(|meta| key_of(&meta) != left));
        self.count_between()?;
        Ok(is_torn.then_some(Next::Fragment))
    }

    fn begin_at_oldest(&mut self) -> io::Result<()> {
        let shared = self.shared.clone();
        let mut names = shared.lock();
        self.let_go_of_deleted(&mut names);
        while let Some(oldest) = first_with_lines(segments(&self.path, &self.held)?)? {
            if self.take_up(&oldest, 0, &mut names)? {
                break;
            }
        }
        self.count_between()
    }

    /// What is in files that were deleted for their size counts as lost already.
    fn let_go_of_deleted(&mut self, names: &mut Published) {
        if std::mem::take(&mut names.has_deleted) {
            self.held.retain(|file| file.metadata().is_ok_and(|meta| meta.nlink() > 0));
        }
    }

    /// Finds the cursor's file and goes there.
    fn seek(&mut self, cursor: Cursor) -> io::Result<bool> {
        let shared = self.shared.clone();
        let mut names = shared.lock();
        // The newest first: there the cursor nearly always is.
        for segment in segments(&self.path, &self.held)?.into_iter().rev() {
            let is_its = segment.bytes >= cursor.offset && segment.identity()? == Some(cursor.file);
            if is_its && self.take_up(&segment, cursor.offset, &mut names)? {
                self.count_between()?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the file the head; `false` when its name stands for another file by now.
    fn take_up(&mut self, segment: &Segment, offset: u64, names: &mut Published) -> io::Result<bool> {
        let Some(file) = segment.open()? else { return Ok(false) };
        self.forget_chunk();
        names.reading = identity(&file);
        self.head = Some(Head { identity: names.reading, file, key: segment.key, offset });
        Ok(true)
    }

    /// The files that come after the head's.
    fn behind_head(&self) -> io::Result<Vec<Segment>> {
        let mut segments = segments(&self.path, &self.held)?;
        let Some(head) = &self.head else { return Ok(segments) };
        let written = modified(&head.file.metadata()?);
        let next = match segments.iter().position(|segment| segment.key == head.key) {
            Some(at) => at + 1,
            // It has no name any more: what was written after it comes next.
            None => segments.iter().position(|segment| segment.modified >= written).unwrap_or(segments.len()),
        };
        Ok(segments.split_off(next))
    }

    fn count_between(&mut self) -> io::Result<()> {
        let is_between = |segment: &&Segment| Some(segment.key) != self.current;
        self.between_bytes = self.behind_head()?.iter().filter(is_between).map(|segment| segment.bytes).sum();
        Ok(())
    }

    fn forget_chunk(&mut self) {
        self.chunk.clear();
        self.chunk.shrink_to(READ_BYTES);
        self.chunk_at = 0;
    }
}
