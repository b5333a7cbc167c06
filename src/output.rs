//! The output file: appends whole lines and rotates by size.
//!
//! Deals with: opening, appending, removing partly written lines, rotation, syncing, detecting that the file was moved
//! or truncated, and the lock against a second collector. Must never: leave a torn line in the file while the program
//! runs, parse lines, or query the file system for each event.

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

use self::identity::{FileIdentity, identity};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

pub use lines::{Flow, each_line_backwards, first_line};
pub use lock::{Lock, Refused};

/// Maximum number of rotated files held open until they are synced.
const UNSYNCED_MAX: usize = 4;

/// Maximum bytes kept of a torn last line.
const TORN_MAX: u64 = 4 * 1024 * 1024;

/// Bytes per read.
const BLOCK_BYTES: usize = 256 * 1024;

/// Permissions of a new file: readable by the owner and the group.
const MODE: u32 = 0o640;

/// The file to which records are appended.
pub struct OutputFile {
    path: PathBuf,
    /// Maximum size in bytes; the file is rotated before a line would exceed it. `None`: no rotation.
    max_size: Option<u64>,
    file: Option<File>,
    len: u64,
    /// Bytes of a partly written line that could not be removed yet.
    torn: u64,
    dirty: bool,
    /// Bytes of the file known to be durable.
    synced: u64,
    unsynced: Vec<Unsynced>,
    /// The folder, while the file's entry in it may not be durable.
    new_in: Option<File>,
    /// A sync failed: unsynced lines must be written again before another sync can be trusted.
    sync_failed: bool,
    /// A rotated file could not be synced and was given up.
    lost: bool,
    /// The file's length when the path last led to it.
    looked: u64,
    /// Deleted files whose newest lines exist nowhere else.
    deleted: Vec<Deleted>,
    /// After a failed rotation, the file length at which it is retried.
    rotate_at: u64,
}

/// What [`OutputFile::look`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    /// The file was moved or deleted; a new one was started.
    Replaced,
    /// The file was truncated, as logrotate's `copytruncate` does.
    Cut,
}

/// A file that was rotated or moved; its lines from `from` on may not be on disk.
struct Unsynced {
    file: File,
    from: u64,
}

/// A deleted file, with the range of lines written just before or after its deletion. They are written again.
struct Deleted {
    file: File,
    from: u64,
    to: u64,
}

/// The result of an append.
#[derive(Debug)]
pub struct Appended {
    /// Bytes written, in whole lines.
    pub bytes: usize,
    /// Why the append stopped early, if it did.
    pub stopped: Option<Stopped>,
}

/// Why an append stopped early.
#[derive(Debug)]
pub enum Stopped {
    /// The next line would exceed the size: rotate, call [`OutputFile::rotated`], and append the rest.
    Full,
    /// Writing failed.
    Error(io::Error),
}

impl OutputFile {
    /// Opens or creates the file. Removes and returns a torn last line; a complete record that only lacks its line feed
    /// gets one.
    ///
    /// # Errors
    /// When the file cannot be opened, read, written or truncated.
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
        let torn = output.repair_end()?;
        Ok((output, torn))
    }

    /// The identity of the current file; `None` if it has no whole line yet.
    pub fn identity(&self) -> Option<FileIdentity> {
        self.file.as_ref().and_then(identity)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends lines, each with its line feed, until one would exceed the size. Removes a partly written line.
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

    /// Starts a new file after the current one became a backup.
    pub fn rotated(&mut self) {
        self.let_go();
        self.rotate_at = 0;
        if let Err(error) = self.reopen() {
            // The next append tries again and returns the error.
            log::debug!("cannot create {}: {error}", self.path.display());
        }
    }

    /// The rotation failed. To lose no events, the file grows beyond its size and the rotation is retried later.
    pub fn not_rotated(&mut self) {
        self.rotate_at = self.len + self.max_size.unwrap_or(0).max(1024 * 1024) / 8;
    }

    /// Makes everything appended so far durable. After a failed sync the kernel may count unwritten pages as clean, so
    /// the next sync alone proves nothing: everything since the last successful sync is written again first.
    ///
    /// # Errors
    /// When syncing fails. The lines must then not count as durable; the caller may retry, except after
    /// [`io::ErrorKind::InvalidData`]: appended lines cannot be read back.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.lost {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a rotated file could not be written to disk"));
        }
        let again = std::mem::replace(&mut self.sync_failed, true);
        while let Some(Unsynced { file, from }) = self.unsynced.last() {
            sync_from(file, *from, again)?;
            self.unsynced.pop();
        }
        if let (true, Some(file)) = (self.dirty, &self.file) {
            sync_from(file, self.synced, again)?;
            self.dirty = false;
            self.synced = self.len;
        }
        regular::sync_opened(&self.path, &self.new_in)?;
        self.new_in = None;
        self.sync_failed = false;
        Ok(())
    }

    /// Checks whether the path still leads to this file. Called periodically, not for each event.
    ///
    /// # Errors
    /// When the file is gone and a new one cannot be created.
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

    /// How many bytes of whole lines still fit. A line longer than the size limit gets a file of its own.
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

    /// Stops using the current file; it is synced later.
    fn let_go(&mut self) {
        let file = self.file.take();
        if let Some(file) = &file {
            // It is not written to any more, and may be moved back to its path and opened again.
            let _ = file.unlock();
        }
        if let Some(file) = file
            && self.dirty
        {
            if self.unsynced.len() >= UNSYNCED_MAX {
                let Unsynced { file, from } = self.unsynced.remove(0);
                let synced = sync_from(&file, from, self.sync_failed).or_else(|_| sync_from(&file, from, true));
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

    /// Writes the newest lines of deleted files again.
    fn rewrite_deleted(&mut self) -> io::Result<()> {
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
        lock_file(&file)?;
        // An audit run by root may create the file; the collector, which owns the folder, must be able to write to it.
        owner::follow(&file, backups::folder(&self.path));
        self.len = file.metadata()?.len();
        self.looked = self.len;
        self.new_in = regular::open_folder(&self.path)?;
        self.file = Some(file);
        Ok(())
    }

    /// Makes sure that the file is open and ends with a whole line.
    fn make_ready(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        if self.torn > 0 {
            self.remove_torn()?;
        }
        self.rewrite_deleted()
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
            && let Err(error) = self.remove_torn()
        {
            log::debug!("cannot remove a torn line from {}: {error}", self.path.display());
        }
        Appended { bytes: whole, stopped: Some(Stopped::Error(error)) }
    }

    /// Removes a partly written line.
    fn remove_torn(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let len = file.metadata()?.len();
        file.set_len(len.saturating_sub(self.torn))?;
        self.torn = 0;
        Ok(())
    }

    /// Repairs the end of the file after a crash.
    fn repair_end(&mut self) -> io::Result<Option<Vec<u8>>> {
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

/// Syncs a file; with `again`, first rewrites everything from `from` on.
fn sync_from(file: &File, from: u64, again: bool) -> io::Result<()> {
    if again {
        let flags = fcntl_getfl(file)?;
        // With O_APPEND, writes at an offset would go to the end.
        fcntl_setfl(file, flags - OFlags::APPEND)?;
        let written = write_again(file, from);
        fcntl_setfl(file, flags)?;
        written?;
    }
    file.sync_data()
}

/// Writes the file's content from `from` on over itself, so that the kernel has to write it to disk again.
fn write_again(file: &File, mut from: u64) -> io::Result<()> {
    let to = file.metadata()?.len();
    let mut block = vec![0; BLOCK_BYTES];
    while from < to {
        let bytes = &mut block[..(to - from).min(BLOCK_BYTES as u64) as usize];
        file.read_exact_at(bytes, from)?;
        // Dropped pages read as zeros, which a line never contains.
        if bytes.contains(&0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "appended lines did not reach the disk"));
        }
        file.write_all_at(bytes, from)?;
        from += bytes.len() as u64;
    }
    Ok(())
}

/// Locks the file itself, against a collector that reaches it through a link. The `.lock` file only protects one path.
fn lock_file(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another process has locked it, perhaps through a link to it",
        )),
        // On a file system without locks, taking the `.lock` file has already failed.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

/// The offset of an unterminated last line; the file's length if there is none.
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
