//! The output file: whole lines, appended, rotated by size.
//!
//! Deals with: opening, appending, taking back what did not fit, rotating, syncing, noticing that someone else moved or
//! cut the file, and the lock that keeps a second collector away. Must never: leave a torn line behind while it runs,
//! look at what a line says, or ask the file system anything for each event.

pub mod backups;
pub mod identity;
mod lines;
mod lock;
pub mod owner;
pub mod records;
pub mod regular;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

pub use lines::{Flow, each_line_backwards, first_line};
pub use lock::{Lock, Refused};

/// Files that were rotated out and are not synced yet are held open, this many at most.
const UNSYNCED_MAX: usize = 4;

/// Bytes of a torn last line that are kept.
const TORN_MAX: u64 = 4 * 1024 * 1024;

/// Bytes that are read at once.
const BLOCK_BYTES: usize = 256 * 1024;

/// What a new file may be read by: the owner and the group.
const MODE: u32 = 0o640;

/// The file that takes the records.
pub struct OutputFile {
    path: PathBuf,
    /// Bytes; a file is rotated before a line would exceed it. `None`: never.
    max_size: Option<u64>,
    file: Option<File>,
    len: u64,
    /// Bytes of a line that did not fit whole and could not be taken back yet.
    torn: u64,
    dirty: bool,
    /// Bytes of the file that are durable for certain.
    synced: u64,
    unsynced: Vec<Unsynced>,
    /// The folder, while the file's name in it may not be durable.
    new_in: Option<File>,
    /// A sync failed: what it was for is to be written again before the next one means anything.
    sync_failed: bool,
    /// A rotated file could not be brought to the disk, and was given up.
    lost: bool,
    /// Bytes that were in the file when the path last named it.
    looked: u64,
    /// Files that were deleted, whose newest lines nobody else can have.
    deleted: Vec<Deleted>,
    /// A rotation failed: it is tried again when this many bytes are in the file.
    rotate_at: u64,
}

/// What was found when the path was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    /// Someone moved or deleted the file: a new one was begun.
    Replaced,
    /// Someone cut it, as logrotate's `copytruncate` does.
    Cut,
}

/// A file that was rotated out or moved, with lines from here on that are not on the disk for certain.
struct Unsynced {
    file: File,
    from: u64,
}

/// Lines that were written into a file after it was deleted, or just before: they are written again.
struct Deleted {
    file: File,
    from: u64,
    to: u64,
}

/// How an append went.
#[derive(Debug)]
pub struct Appended {
    /// Bytes that are in the file now: whole lines.
    pub bytes: usize,
    /// Why not all of them are.
    pub stopped: Option<Stopped>,
}

/// What ended an append early.
#[derive(Debug)]
pub enum Stopped {
    /// The next line would exceed the size: rotate, say [`OutputFile::rotated`], and go on.
    Full,
    /// The disk refuses.
    Error(io::Error),
}

impl OutputFile {
    /// Opens or begins the file. A last line without its end is returned, and is in the file no more; one that only
    /// lacks its line feed gets it.
    ///
    /// # Errors
    /// When the file cannot be opened, read or cut.
    pub fn open(path: &Path, max_size: Option<u64>) -> io::Result<(Self, Option<Vec<u8>>)> {
        let mut output = Self {
            path: path.to_owned(),
            max_size,
            file: None,
            len: 0,
            torn: 0,
            dirty: false,
            synced: 0,
            unsynced: Vec::new(),
            sync_failed: false,
            new_in: None,
            lost: false,
            looked: 0,
            deleted: Vec::new(),
            rotate_at: 0,
        };
        output.reopen()?;
        let torn = output.mend_end()?;
        Ok((output, torn))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends lines, each with its line feed, until one would exceed the size. What does not fit whole is taken back.
    pub fn append(&mut self, lines: &[u8]) -> Appended {
        if let Err(error) = self.make_ready() {
            return Appended { bytes: 0, stopped: Some(Stopped::Error(error)) };
        }
        let fitting = self.fitting(lines);
        let written = self.write(&lines[..fitting]);
        if written.stopped.is_none() && fitting < lines.len() {
            return Appended { stopped: Some(Stopped::Full), ..written };
        }
        written
    }

    /// The file has become a backup: a new one is begun.
    pub fn rotated(&mut self) {
        self.let_go();
        self.rotate_at = 0;
        if let Err(error) = self.reopen() {
            // The next append tries again, and tells.
            log::debug!("cannot begin {}: {error}", self.path.display());
        }
    }

    /// The rotation failed. Events come before tidiness: the file grows, and the rotation is tried again later.
    pub fn not_rotated(&mut self) {
        self.rotate_at = self.len + self.max_size.unwrap_or(0).max(1024 * 1024) / 8;
    }

    /// Makes everything appended so far durable. After a sync that failed the system may take for written what is not, so
    /// that the next one alone would prove nothing: everything since the last good one is written again first.
    ///
    /// # Errors
    /// When the disk says no: nothing may be taken for durable then, and it may be tried again. Not so with
    /// [`io::ErrorKind::InvalidData`]: what was appended cannot be read back.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.lost {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a rotated file did not reach the disk"));
        }
        let again = std::mem::replace(&mut self.sync_failed, true);
        while let Some(Unsynced { file, from }) = self.unsynced.last() {
            bring_to_disk(file, *from, again)?;
            self.unsynced.pop();
        }
        if let (true, Some(file)) = (self.dirty, &self.file) {
            bring_to_disk(file, self.synced, again)?;
            self.dirty = false;
            self.synced = self.len;
        }
        regular::sync_opened(&self.path, &self.new_in)?;
        self.new_in = None;
        self.sync_failed = false;
        Ok(())
    }

    /// Looks whether the path still names this file; called now and then, not for each event.
    ///
    /// # Errors
    /// When the file is gone and a new one cannot be begun.
    pub fn look(&mut self) -> io::Result<Change> {
        let Some(file) = &self.file else {
            self.make_ready()?;
            return Ok(Change::Replaced);
        };
        let ours = file.metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {
                let change = if ours.len() < self.len { Change::Cut } else { Change::None };
                self.len = ours.len();
                self.looked = self.len;
                self.synced = self.synced.min(self.len);
                Ok(change)
            }
            _ => {
                if ours.nlink() == 0 && self.len > self.looked {
                    self.deleted.push(Deleted { file: file.try_clone()?, from: self.looked, to: self.len });
                }
                self.let_go();
                self.make_ready()?;
                Ok(Change::Replaced)
            }
        }
    }

    /// How many bytes of whole lines still fit. A line that is too long for any file gets one of its own.
    fn fitting(&self, lines: &[u8]) -> usize {
        let Some(max) = self.max_size else { return lines.len() };
        let max = max.max(self.rotate_at);
        let room = max.saturating_sub(self.len);
        if lines.len() as u64 <= room {
            return lines.len();
        }
        let within = &lines[..room as usize];
        match within.iter().rposition(|b| *b == b'\n') {
            Some(end) => end + 1,
            None if self.len == 0 => lines.iter().position(|b| *b == b'\n').map_or(lines.len(), |end| end + 1),
            None => 0,
        }
    }

    /// Gives up the file at hand, to be synced later.
    fn let_go(&mut self) {
        let file = self.file.take();
        if let Some(file) = &file {
            // Nothing is written there any more; and it may come back under its name.
            let _ = file.unlock();
        }
        if let Some(file) = file
            && self.dirty
        {
            if self.unsynced.len() >= UNSYNCED_MAX {
                let Unsynced { file, from } = self.unsynced.remove(0);
                let synced = bring_to_disk(&file, from, self.sync_failed).or_else(|_| bring_to_disk(&file, from, true));
                if let Err(error) = synced {
                    log::error!("cannot sync a rotated file of {}: {error}", self.path.display());
                    self.lost = true;
                }
            }
            self.unsynced.push(Unsynced { file, from: self.synced });
        }
        self.synced = 0;
        self.dirty = false;
        self.torn = 0;
        self.len = 0;
        self.looked = 0;
    }

    /// Writes the newest lines of a deleted file again.
    fn bring_back(&mut self) -> io::Result<()> {
        while let Some(Deleted { file, mut from, to }) = self.deleted.pop() {
            let mut wanted = BLOCK_BYTES;
            while from < to {
                let mut lines = vec![0; wanted.min((to - from) as usize)];
                file.read_exact_at(&mut lines, from)?;
                match lines.iter().rposition(|b| *b == b'\n') {
                    Some(end) => lines.truncate(end + 1),
                    None if lines.len() < wanted => break,
                    None => {
                        wanted *= 2;
                        continue;
                    }
                }
                let written = self.write(&lines);
                from += written.bytes as u64;
                if let Some(Stopped::Error(error)) = written.stopped {
                    self.deleted.push(Deleted { file, from, to });
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = regular::open(OpenOptions::new().read(true).append(true).create(true).mode(MODE), &self.path)?;
        take_for_ourselves(&file)?;
        // Root may write to it in the collector's place, to repair: it is the folder's owner who goes on with it.
        owner::follow(&file, backups::folder(&self.path));
        self.len = file.metadata()?.len();
        self.looked = self.len;
        self.new_in = regular::open_folder(&self.path)?;
        self.file = Some(file);
        Ok(())
    }

    /// The file is open and ends with a whole line.
    fn make_ready(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        if self.torn > 0 {
            self.take_back()?;
        }
        self.bring_back()
    }

    fn write(&mut self, lines: &[u8]) -> Appended {
        let Some(mut file) = self.file.as_ref() else { return Appended { bytes: 0, stopped: None } };
        if lines.is_empty() {
            return Appended { bytes: 0, stopped: None };
        }
        self.dirty = true;
        let mut done = 0;
        let error = loop {
            match file.write(&lines[done..]) {
                Ok(0) => break io::ErrorKind::WriteZero.into(),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
            if done == lines.len() {
                self.len += done as u64;
                return Appended { bytes: done, stopped: None };
            }
        };
        let whole = lines[..done].iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        self.torn = (done - whole) as u64;
        self.len += whole as u64;
        if self.torn > 0
            && let Err(error) = self.take_back()
        {
            log::debug!("cannot take back a torn line of {}: {error}", self.path.display());
        }
        Appended { bytes: whole, stopped: Some(Stopped::Error(error)) }
    }

    /// Cuts off the part of a line that did not fit.
    fn take_back(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let len = file.metadata()?.len();
        file.set_len(len.saturating_sub(self.torn))?;
        self.torn = 0;
        Ok(())
    }

    /// Mends the end that a crash left.
    fn mend_end(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(mut file) = self.file.as_ref() else { return Ok(None) };
        let start = last_line_start(file, self.len)?;
        if start == self.len {
            return Ok(None);
        }
        let mut torn = vec![0; (self.len - start).min(TORN_MAX) as usize];
        file.read_exact_at(&mut torn, start)?;
        if serde_json::from_slice::<serde::de::IgnoredAny>(&torn).is_ok() && torn.starts_with(b"{") {
            file.write_all(b"\n")?;
            self.len += 1;
            return Ok(None);
        }
        self.len = start;
        file.set_len(self.len)?;
        file.sync_data()?;
        Ok(Some(torn))
    }
}

/// Syncs a file; `again`: after everything from here on was written once more.
fn bring_to_disk(file: &File, from: u64, again: bool) -> io::Result<()> {
    if again {
        let flags = fcntl_getfl(file)?;
        // A file that is appended to takes no write at a place.
        fcntl_setfl(file, flags - OFlags::APPEND)?;
        let written = write_again(file, from);
        fcntl_setfl(file, flags)?;
        written?;
    }
    file.sync_data()
}

/// Writes onto itself what the file holds from here on, so that the system has it to write once more.
fn write_again(file: &File, mut from: u64) -> io::Result<()> {
    let to = file.metadata()?.len();
    let mut block = vec![0; BLOCK_BYTES];
    while from < to {
        let bytes = &mut block[..(to - from).min(BLOCK_BYTES as u64) as usize];
        file.read_exact_at(bytes, from)?;
        // Where the system forgot what it could not write, it reads zeros; a line has none.
        if bytes.contains(&0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "what was written did not reach the disk"));
        }
        file.write_all_at(bytes, from)?;
        from += bytes.len() as u64;
    }
    Ok(())
}

/// The lock beside the file keeps away who knows the file under the same name; this one, who knows it by a link.
fn take_for_ourselves(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process has locked it, perhaps by a link to it"))
        }
        // Where a file system knows no locks, the one beside it has said so.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

/// Where the last line begins that has no end; the file's length if there is none.
fn last_line_start(file: &File, len: u64) -> io::Result<u64> {
    let mut end = len;
    let mut block = vec![0; BLOCK_BYTES];
    while end > 0 {
        let from = end.saturating_sub(BLOCK_BYTES as u64);
        let bytes = &mut block[..(end - from) as usize];
        file.read_exact_at(bytes, from)?;
        if let Some(at) = bytes.iter().rposition(|b| *b == b'\n') {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}
