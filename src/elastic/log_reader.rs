//! The files as one long log of records, oldest first, read from a cursor.
//!
//! Finds the cursor's file under whatever name it has by now, reads whole lines, goes on to the next file, and copes with
//! files that are moved, deleted or cut while they are read. Must never: skip a file or a line that was not read. Where it
//! is not certain what was read, it reads again: the cluster knows what it has.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::elastic::segments::{Folder, Key, Segment, count_lines, find_line_feed, key_of, modified, read_at};
use crate::output::identity::{Cursor, FileIdentity, identity};
use crate::output::regular;

/// Bytes that one read asks for; a longer line makes it more, up to [`LINE_BYTES_MAX`].
const READ_BYTES: usize = 64 * 1024;
/// Bytes of a line, at most; a longer one is no record of this program's.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Files held open because they may lose their names before they are read.
const HELD_MAX: usize = 16;
/// How often a folder that changes while it is looked at is looked at again.
const LOOKS_MAX: usize = 3;

/// The next thing in the files.
#[derive(Debug)]
pub enum Next<'a> {
    /// A whole line without its line feed, and where it begins.
    Line(&'a [u8], Cursor),
    /// A line of more bytes than any record has: it is passed already.
    TooLong,
    /// Bytes without a line feed at the end of a file that was left: they are passed already.
    Torn,
    /// Everything was read.
    End,
}

/// All files, and how far they are read.
pub struct LogReader {
    folder: Folder,
    /// Held while the backups are renamed: a folder that is listed meanwhile may lack a file, and a name may stand for
    /// another file by the time that it is opened.
    rotation: Arc<Mutex<()>>,
    head: Option<Head>,
    /// The newest files that were current, the current one last.
    held: VecDeque<File>,
    current: Option<Key>,
    /// The current file when this was opened, and its length then.
    opened_at: Option<(Key, u64)>,
    /// Bytes in the files between the head's and the current one.
    between_bytes: u64,
    /// Whole lines from the head's offset on.
    chunk: Vec<u8>,
    /// Where the unread part of the chunk begins.
    chunk_at: usize,
    /// Bytes of the line there, once it was looked for.
    line_bytes: Option<usize>,
}

/// The file that is being read.
struct Head {
    file: File,
    key: Key,
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
    pub fn open(
        path: &Path,
        state_file: &Path,
        cursor: Option<Cursor>,
        rotation: Arc<Mutex<()>>,
    ) -> io::Result<(Self, bool)> {
        let mut reader = Self {
            folder: Folder::new(path, state_file),
            rotation,
            head: None,
            held: VecDeque::new(),
            current: None,
            opened_at: None,
            between_bytes: 0,
            chunk: Vec::new(),
            chunk_at: 0,
            line_bytes: None,
        };
        reader.watch()?;
        let length = reader.held.back().map_or(Ok(0), |file| file.metadata().map(|meta| meta.len()))?;
        reader.opened_at = reader.current.map(|key| (key, length));
        let found = match cursor {
            Some(cursor) => reader.seek(cursor, None)?,
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
        let rotation = self.rotation.clone();
        let _held = hold(&rotation);
        let there = match fs::metadata(self.folder.output()) {
            Ok(meta) => key_of(&meta),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // In the middle of a rotation: what was the current file may have others behind it by now.
                self.current = None;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if self.current == Some(there) {
            return Ok(());
        }
        let file = match regular::open(OpenOptions::new().read(true), self.folder.output()) {
            // What is no file holds no records; the writer reports it.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                self.current = None;
                return Ok(());
            }
            file => file?,
        };
        self.current = Some(key_of(&file.metadata()?));
        self.held.push_back(file);
        if self.held.len() > HELD_MAX {
            self.held.pop_front();
        }
        self.count_between()
    }

    /// The oldest files were deleted, and with them what was not read: goes on at the oldest that is left.
    ///
    /// # Errors
    /// When the folder or a file cannot be read.
    pub fn skip_deleted(&mut self) -> io::Result<()> {
        self.held.retain(|file| file.metadata().is_ok_and(|meta| meta.nlink() > 0));
        self.begin_at_oldest()
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

    /// Lines that were there when this was opened and were not given out yet; all of them are read for it.
    ///
    /// # Errors
    /// When the folder or a file cannot be read.
    pub fn count_unread(&self) -> io::Result<u64> {
        let (Some(head), Some((last, length))) = (&self.head, self.opened_at) else { return Ok(0) };
        let end = |key: Key| if key == last { length } else { u64::MAX };
        let mut lines = count_lines(&head.file, head.offset, end(head.key))?;
        let mut behind = self.behind_head()?.into_iter();
        let mut key = head.key;
        while key != last
            && let Some(segment) = behind.next()
        {
            key = segment.key;
            lines += segment.open()?.map_or(Ok(0), |file| count_lines(&file, 0, end(key)))?;
        }
        Ok(lines)
    }

    /// The place up to which everything was given out; `None` before the first whole line.
    pub fn place(&self) -> Option<Cursor> {
        let head = self.head.as_ref()?;
        Some(Cursor { file: head.identity?, offset: head.offset })
    }

    /// The next line, which is given again until [`LogReader::pass`] is called.
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
                Refill::TooLong => return Ok(Next::TooLong),
                Refill::Torn => return Ok(Next::Torn),
                Refill::End => return Ok(Next::End),
            }
        }
    }

    /// The line that [`LogReader::next`] gave is dealt with.
    pub fn pass(&mut self) {
        if let (Some(length), Some(head)) = (self.line_bytes.take(), &mut self.head) {
            self.chunk_at += length + 1;
            head.offset += length as u64 + 1;
        }
    }

    /// Reads on behind what was given out.
    fn refill(&mut self) -> io::Result<Refill> {
        self.forget_chunk();
        if self.head.is_none() {
            self.begin_at_oldest()?;
        }
        let Some(head) = &mut self.head else { return Ok(Refill::End) };
        let length = head.file.metadata()?.len();
        if head.identity.is_none() {
            head.identity = identity(&head.file);
        } else if length < head.offset || identity(&head.file) != head.identity {
            return self.reopen_cut();
        }
        let mut wanted = READ_BYTES;
        while length > head.offset && head.identity.is_some() {
            self.chunk.resize(wanted.min((length - head.offset) as usize), 0);
            let read = read_at(&head.file, &mut self.chunk, head.offset)?;
            // What follows the last line feed may be taken back by the writer, and is read again.
            let whole = self.chunk[..read].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let is_all = read as u64 == length - head.offset;
            self.chunk.truncate(whole);
            if whole > 0 {
                return Ok(Refill::More);
            }
            if wanted >= LINE_BYTES_MAX {
                return self.pass_long_line();
            }
            if is_all || read == 0 {
                break;
            }
            wanted *= 2;
        }
        self.go_on(length)
    }

    /// Passes a line that is longer than any record, once its end is there.
    fn pass_long_line(&mut self) -> io::Result<Refill> {
        let Some(head) = &mut self.head else { return Ok(Refill::End) };
        let mut offset = head.offset;
        self.chunk = vec![0; READ_BYTES];
        loop {
            let read = read_at(&head.file, &mut self.chunk, offset)?;
            if let Some(end) = find_line_feed(&self.chunk[..read]) {
                head.offset = offset + end as u64 + 1;
                self.forget_chunk();
                return Ok(Refill::TooLong);
            }
            offset += read as u64;
            if read == 0 {
                self.forget_chunk();
                return self.go_on(offset);
            }
        }
    }

    /// The head's file holds something else than it did: it was copied and cut (logrotate's `copytruncate`), or begun
    /// anew. What was not read is in the copy, if there is one.
    fn reopen_cut(&mut self) -> io::Result<Refill> {
        let place = self.place();
        let Some(mut head) = self.head.take() else { return Ok(Refill::End) };
        if let Some(place) = place
            && self.seek(place, Some(head.key))?
        {
            log::info!("{} was cut; the rest is read from its copy", self.folder.output().display());
            return Ok(Refill::More);
        }
        log::info!("{} was cut; it is read from its beginning", self.folder.output().display());
        head.offset = 0;
        head.identity = identity(&head.file);
        self.head = Some(head);
        Ok(Refill::More)
    }

    /// The head's file is read up to this length: goes on to the next one that holds a line. Until there is one, the writer
    /// may append to the head's still, under whatever name.
    fn go_on(&mut self, length: u64) -> io::Result<Refill> {
        if self.head.as_ref().is_some_and(|head| Some(head.key) == self.current) {
            return Ok(Refill::End);
        }
        let rotation = self.rotation.clone();
        let _held = hold(&rotation);
        for _ in 0..LOOKS_MAX {
            let next = self.behind_head()?.into_iter().find(|segment| segment.identity().is_some());
            let (Some(next), Some(head)) = (next, &self.head) else { return Ok(Refill::End) };
            if head.file.metadata()?.len() != length {
                return Ok(Refill::More);
            }
            let is_torn = length > head.offset;
            let left = head.key;
            if self.take_up(&next)? {
                self.held.retain(|file| file.metadata().is_ok_and(|meta| key_of(&meta) != left));
                self.count_between()?;
                return Ok(if is_torn { Refill::Torn } else { Refill::More });
            }
        }
        Ok(Refill::End)
    }

    fn begin_at_oldest(&mut self) -> io::Result<()> {
        self.head = None;
        self.forget_chunk();
        let rotation = self.rotation.clone();
        let _held = hold(&rotation);
        for _ in 0..LOOKS_MAX {
            let Some(oldest) = self.folder.segments(&self.held)?.into_iter().next() else { return Ok(()) };
            if self.take_up(&oldest)? {
                break;
            }
        }
        self.count_between()
    }

    /// Makes the file the head; `false` when its name stands for another file by now.
    fn take_up(&mut self, segment: &Segment) -> io::Result<bool> {
        let Some(file) = segment.open()? else { return Ok(false) };
        self.forget_chunk();
        self.head = Some(Head { identity: identity(&file), file, key: segment.key, offset: 0 });
        Ok(true)
    }

    /// Finds the cursor's file, other than `not`, and goes there.
    fn seek(&mut self, cursor: Cursor, not: Option<Key>) -> io::Result<bool> {
        let rotation = self.rotation.clone();
        let _held = hold(&rotation);
        // The newest first: there the cursor nearly always is, and there a copy that is being made is not.
        for segment in self.folder.all(&self.held)?.into_iter().rev() {
            let is_candidate = Some(segment.key) != not && segment.bytes >= cursor.offset;
            if is_candidate && segment.identity() == Some(cursor.file) && self.take_up(&segment)? {
                if let Some(head) = &mut self.head {
                    head.offset = cursor.offset;
                }
                self.count_between()?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The files that come after the head's.
    fn behind_head(&self) -> io::Result<Vec<Segment>> {
        let mut segments = self.folder.segments(&self.held)?;
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
        self.line_bytes = None;
    }
}

/// Keeps the backups' names as they are.
fn hold(rotation: &Mutex<()>) -> MutexGuard<'_, ()> {
    rotation.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Refill {
    More,
    TooLong,
    Torn,
    End,
}
