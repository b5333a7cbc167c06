//! The files as one long line of records, oldest first, read from a cursor.
//!
//! Deals with: finding the cursor's file under whatever name it has by now, reading whole lines, going on to the next
//! file, and files that are moved, deleted or cut short while they are read. Must never: skip a file or a line that was
//! not read. Where it is not certain what was read, it reads again: the cluster knows what it has.

mod files;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use files::{Entry, Files, Key, Source, find_line_feed, key_of, modified, read_at};

use crate::output::identity::{Cursor, FileIdentity, identity};

/// Bytes that one read asks for; a longer line makes it more, up to [`LINE_BYTES_MAX`].
const READ_BYTES: usize = 64 * 1024;
/// Bytes of a line, at most; a longer one is nobody's record.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Moved files that are held open, at most.
const ORPHANS_MAX: usize = 16;
/// How often a folder that changes while it is looked at is looked at again.
const LOOKS_MAX: usize = 3;
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
    files: Files,
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

impl Chain {
    /// Opens the files at the cursor; where its file is not found, at the oldest there is. The second value says whether
    /// a cursor was given and not found.
    ///
    /// # Errors
    /// When the folder or a file cannot be read.
    pub fn open(path: &Path, state_file: &Path, cursor: Option<Cursor>) -> io::Result<(Self, bool)> {
        let mut chain = Self {
            path: path.to_owned(),
            files: Files::new(path, state_file),
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
        let was_current = self.head_is_current();
        let (old, old_key, old_bytes) = (self.current.take(), self.current_key, self.current_bytes);
        self.open_current();
        if was_current || self.current_key == old_key {
            return;
        }
        self.between_bytes += old_bytes;
        self.orphans.extend(old);
        if self.orphans.len() > ORPHANS_MAX {
            self.orphans.pop_front();
            log::warn!(
                "{} was moved away more than {ORPHANS_MAX} times before the cluster had it: the oldest is read only if it is in the folder still",
                self.path.display()
            );
        }
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
            let entries = self.files.in_order(&self.orphans)?;
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
            let Some(oldest) = self.files.in_order(&self.orphans)?.into_iter().next() else { return Ok(()) };
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
        for entry in self.files.all(&self.orphans)?.into_iter().rev() {
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
        let entries = self.files.in_order(&self.orphans)?;
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
}

enum Refill {
    More,
    Torn,
    End,
}

fn head_offset(head: &Option<Head>) -> u64 {
    head.as_ref().map_or(0, |head| head.offset)
}
