//! One collector per output file: a `.lock` file, locked until the process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{owner, regular};
use crate::status::Problem;

/// Why the lock cannot be taken.
#[derive(Debug)]
pub enum Refused {
    /// Another collector holds it.
    Held(Problem),
    /// The lock file cannot be created, locked or written.
    Broken(Problem),
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let (Refused::Held(problem) | Refused::Broken(problem)) = refused;
        problem
    }
}

/// Held as long as the collector runs.
pub struct Lock {
    output: PathBuf,
    file: File,
}

impl Lock {
    /// The path of this output file's lock.
    pub fn path(output: &Path) -> PathBuf {
        let mut name = output.as_os_str().to_owned();
        name.push(".lock");
        name.into()
    }

    /// The id of the process that holds the lock, as written in it; `None` if the lock is free. Writes nothing.
    ///
    /// # Errors
    /// When the lock file cannot be opened, locked or read.
    pub fn holder(output: &Path) -> io::Result<Option<String>> {
        let mut file = match regular::open(OpenOptions::new().read(true), &Self::path(output)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::holder_by_link(output)),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Self::holder_by_link(output)),
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid)?;
                Ok(Some(pid.trim().to_owned()))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Detects a process that writes to the file through a link and therefore holds a lock under another name.
    fn holder_by_link(output: &Path) -> Option<String> {
        let file = regular::open(OpenOptions::new().read(true), output).ok()?;
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
            .then(|| "of unknown id, through a link to the file".to_owned())
    }

    /// Takes the lock and writes this process's id into it.
    ///
    /// # Errors
    /// When another collector holds it, or the lock file cannot be written.
    pub fn take(output: &Path) -> Result<Self, Refused> {
        let path = Self::path(output);
        let cannot = |error: io::Error| {
            Refused::Broken(Problem::new(
                format!("cannot lock {}: {error}", path.display()),
                "Check that OUTPUT_FILE's folder exists, and that the user that runs the collector may write to it.",
            ))
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o640);
        let mut file = regular::open(&mut options, &path).map_err(cannot)?;
        owner::follow(&file, output);
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                return Err(Refused::Held(Problem::new(
                    format!("another collector (process {}) writes to OUTPUT_FILE {}", pid.trim(), output.display()),
                    "Stop that collector, or set OUTPUT_FILE to another file.",
                )));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        file.set_len(0).map_err(cannot)?;
        file.seek(SeekFrom::Start(0)).map_err(cannot)?;
        writeln!(file, "{}", std::process::id()).map_err(cannot)?;
        Ok(Self { output: output.to_owned(), file })
    }

    /// Takes the lock again if its file was deleted or moved, so that other collectors no longer see it.
    ///
    /// # Errors
    /// When another collector has taken it meanwhile: this one must stop.
    pub fn look(&mut self) -> Result<(), Problem> {
        let there = std::fs::metadata(Self::path(&self.output)).map(|there| (there.dev(), there.ino()));
        let ours = self.file.metadata().map(|ours| (ours.dev(), ours.ino()));
        if there.is_ok() && there.ok() == ours.ok() {
            return Ok(());
        }
        match Self::take(&self.output) {
            Ok(taken) => *self = taken,
            Err(Refused::Held(problem)) => return Err(problem),
            // The folder is missing or not writable; writing the output file reports that.
            Err(Refused::Broken(problem)) => log::debug!("{problem}"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_collector_is_refused_with_the_firsts_process_id() {
        let output = std::env::temp_dir().join(format!("audiohook-lock-{}", std::process::id()));
        let first = Lock::take(&output).unwrap();
        let refusal = Problem::from(Lock::take(&output).err().unwrap()).what;
        assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
        assert_eq!(Lock::holder(&output).unwrap(), Some(std::process::id().to_string()));
        drop(first);
        assert_eq!(Lock::holder(&output).unwrap(), None);
        let mut third = Lock::take(&output).unwrap();
        std::fs::remove_file(Lock::path(&output)).unwrap();
        third.look().unwrap();
        assert!(Lock::take(&output).is_err(), "a lock that was deleted is taken again");
        std::fs::remove_file(Lock::path(&output)).unwrap();
        let _fourth = Lock::take(&output).unwrap();
        assert!(third.look().is_err(), "another collector has taken it meanwhile");
        std::fs::remove_file(Lock::path(&output)).unwrap();
    }
}
