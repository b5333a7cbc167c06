//! The output file and its backups as one run of lines, oldest first, while a collector may rotate them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crossbeam_channel::never;

use super::Stopped;
use crate::output::records;

/// How often new lines are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Bytes read at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// Looks at the folder, at most: a rotation during one needs another.
const PASSES_MAX: usize = 20;

/// What a line is given to.
pub trait Print: FnMut(&[u8]) -> Result<(), Stopped> {}
impl<T: FnMut(&[u8]) -> Result<(), Stopped>> Print for T {}

/// The files, each opened once, so that a rotation changes nothing for the reader.
pub struct Files {
    path: PathBuf,
    /// Oldest first; the last is the one that grows.
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

    /// Reads all lines of the files but those that were last changed at an instant for which `is_old` holds.
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

    /// Reads what was added since, over any number of rotations.
    pub fn read_new(&mut self, print: &mut impl Print) -> Result<(), Stopped> {
        let named = std::fs::metadata(&self.path).ok().map(|meta| (meta.dev(), meta.ino()));
        let Some(reader) = self.files.last_mut() else {
            *self = Self::open(&self.path).map_err(Stopped::Input)?;
            return self.read(|_| false, print);
        };
        // After the path names another file, nothing is added to this one: this reading is its last.
        reader.read(print)?;
        if named.is_none() || named == Some(reader.identity) {
            return Ok(());
        }
        let last = reader.identity;
        let mut files = Self::open(&self.path).map_err(Stopped::Input)?.files;
        let newer = match files.iter().position(|reader| reader.identity == last) {
            Some(at) => at + 1,
            // Moved or deleted by somebody else: only the file of that name is known to be newer.
            None => files.len().saturating_sub(1),
        };
        self.files = files.split_off(newer);
        self.read(|_| false, print)
    }
}

/// The files that are there, oldest first.
fn list(path: &Path) -> io::Result<Vec<Reader>> {
    let mut found: Vec<Reader> = Vec::new();
    for path in records::files(path) {
        match File::open(&path) {
            Ok(file) => {
                let reader = Reader::new(file)?;
                // One that a rotation renamed meanwhile is met twice.
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

/// One file, read up to some place.
struct Reader {
    input: BufReader<File>,
    /// Device and inode.
    identity: (u64, u64),
    /// The beginning of a line whose end is not written yet.
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
        self.rewind_if_cut().map_err(Stopped::Input)?;
        while self.input.read_until(b'\n', &mut self.line).map_err(Stopped::Input)? > 0 {
            if self.line.last() == Some(&b'\n') {
                self.line.pop();
                print(&self.line)?;
                self.line.clear();
            }
        }
        Ok(())
    }

    /// A file that is shorter than what was read of it was cut, as logrotate's `copytruncate` does.
    fn rewind_if_cut(&mut self) -> io::Result<()> {
        let read = self.input.stream_position()?;
        if self.input.get_ref().metadata()?.len() < read {
            self.input.rewind()?;
            self.line.clear();
        }
        Ok(())
    }
}
