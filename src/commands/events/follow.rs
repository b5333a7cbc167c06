//! Reads the output file and its backups as one sequence of lines, oldest first, while a collector may rotate them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crossbeam_channel::never;

use super::Stopped;
use crate::output::records;

/// Interval for checking for new lines.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Size of a read.
const BUFFER_BYTES: usize = 256 * 1024;
/// Maximum number of listings of the folder. If a rotation happens during a listing, another one is needed.
const PASSES_MAX: usize = 20;

/// A function that receives each line.
pub trait Print: FnMut(&[u8]) -> Result<(), Stopped> {}
impl<T: FnMut(&[u8]) -> Result<(), Stopped>> Print for T {}

/// The files. Each is opened only once, so that a rotation does not affect the reader.
pub struct Files {
    path: PathBuf,
    /// Oldest first. The last one is the current file.
    files: Vec<Reader>,
}

impl Files {
    /// # Errors
    /// When the folder or a file cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut files: Vec<Reader> = Vec::new();
        for _ in 0..PASSES_MAX {
            let there = list(path)?;
            let is_known = there.iter().all(|reader| files.iter().any(|known| known.identity == reader.identity));
            files = there;
            if is_known {
                break;
            }
        }
        Ok(Self { path: path.to_owned(), files })
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Reads all lines of the files, except files whose modification time `is_old`.
    pub fn read(&mut self, is_old: impl Fn(SystemTime) -> bool, print: &mut impl Print) -> Result<(), Stopped> {
        let newest = self.files.pop();
        for mut reader in self.files.drain(..) {
            let changed = reader.input.get_ref().metadata().and_then(|meta| meta.modified()).map_err(Stopped::Input)?;
            if !is_old(changed) {
                reader.read(print)?;
            }
        }
        self.files.extend(newest);
        self.files.iter_mut().try_for_each(|reader| reader.read(print))
    }

    pub fn wait(&self) {
        let _ = never::<()>().recv_timeout(LOOK_EVERY);
    }

    /// Reads new lines, across any number of rotations.
    pub fn read_new(&mut self, print: &mut impl Print) -> Result<(), Stopped> {
        let named = std::fs::metadata(&self.path).ok().map(|meta| (meta.dev(), meta.ino()));
        let Some(reader) = self.files.last_mut() else {
            *self = Self::open(&self.path).map_err(Stopped::Input)?;
            return self.read(|_| false, print);
        };
        // Once the path refers to another file, this file does not grow any more, so this is its last read.
        reader.read(print)?;
        if named.is_none() || named == Some(reader.identity) {
            return Ok(());
        }
        let last = reader.identity;
        let mut files = Self::open(&self.path).map_err(Stopped::Input)?.files;
        let newer = match files.iter().position(|reader| reader.identity == last) {
            Some(at) => at + 1,
            // Another program moved or deleted the file, so only the current file is known to be newer.
            None => files.len().saturating_sub(1),
        };
        self.files = files.split_off(newer);
        self.read(|_| false, print)
    }
}

/// Opens the existing files, oldest first.
fn list(path: &Path) -> io::Result<Vec<Reader>> {
    let mut found: Vec<Reader> = Vec::new();
    for path in records::files(path) {
        match File::open(&path) {
            Ok(file) => {
                let reader = Reader::new(file)?;
                // A file that was renamed during the listing is found twice.
                if !found.iter().any(|other| other.identity == reader.identity) {
                    found.push(reader);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.reverse();
    Ok(found)
}

/// A file and the position up to which it was read.
struct Reader {
    input: BufReader<File>,
    /// Device and inode.
    identity: (u64, u64),
    /// A partial line at the end, whose rest is not written yet.
    line: Vec<u8>,
}

impl Reader {
    fn new(file: File) -> io::Result<Self> {
        let meta = file.metadata()?;
        let input = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(Self { input, identity: (meta.dev(), meta.ino()), line: Vec::new() })
    }

    /// Reads whole lines up to the end.
    fn read(&mut self, print: &mut impl Print) -> Result<(), Stopped> {
        self.rewind_if_truncated().map_err(Stopped::Input)?;
        while self.input.read_until(b'\n', &mut self.line).map_err(Stopped::Input)? > 0 {
            if self.line.last() == Some(&b'\n') {
                self.line.pop();
                print(&self.line)?;
                self.line.clear();
            }
        }
        Ok(())
    }

    /// Starts again at the beginning if the file was truncated, as logrotate's `copytruncate` does.
    fn rewind_if_truncated(&mut self) -> io::Result<()> {
        let read = self.input.stream_position()?;
        if self.input.get_ref().metadata()?.len() < read {
            self.input.rewind()?;
            self.line.clear();
        }
        Ok(())
    }
}
