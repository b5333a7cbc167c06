//! Opening, checking and syncing of regular files. Must never: rename, remove, truncate or block on anything else.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{Access, OFlags, access};

use super::backups::folder;

/// Opens a regular file. Truncate it only afterwards: [`OpenOptions::truncate`] would truncate a file of any type.
///
/// # Errors
/// When opening fails; [`ErrorKind::InvalidInput`] for a device, a FIFO, a socket or a folder.
pub fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // Opening a device may have side effects, and opening a FIFO blocks until its other end is open.
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(not_regular());
    }
    let file = options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// Checks that a path may be renamed or removed: it is a regular file or a symbolic link.
///
/// # Errors
/// When it is something else, or its metadata cannot be read.
pub fn check(path: &Path) -> io::Result<()> {
    let kind = std::fs::symlink_metadata(path)?.file_type();
    if kind.is_file() || kind.is_symlink() { Ok(()) } else { Err(not_regular()) }
}

fn not_regular() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "not a regular file")
}

/// Makes new names in this path's folder durable. If the file system does not support this, logs a warning once per
/// folder and succeeds.
///
/// # Errors
/// When the sync fails.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    sync_opened(path, &open_folder(path)?)
}

/// Opens a path's folder, to be synced later. If reading the folder is not permitted, logs a warning once and returns
/// `None`.
///
/// # Errors
/// When the folder cannot be opened for another reason.
pub fn open_folder(path: &Path) -> io::Result<Option<File>> {
    match File::open(folder(path)) {
        Ok(folder) => Ok(Some(folder)),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            report_once(folder(path), &error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Syncs the folder that [`open_folder`] opened for this path.
///
/// # Errors
/// When the sync fails.
pub fn sync_opened(path: &Path, opened: &Option<File>) -> io::Result<()> {
    let Some(Err(error)) = opened.as_ref().map(File::sync_all) else { return Ok(()) };
    // EINVAL or ENOTTY: the file system has no fsync for folders.
    let is_unsupported = matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported)
        || matches!(error.raw_os_error(), Some(code) if code == rustix::io::Errno::NOTTY.raw_os_error());
    if !is_unsupported {
        return Err(error);
    }
    report_once(folder(path), &error);
    Ok(())
}

fn report_once(folder: &Path, error: &io::Error) {
    static REPORTED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    let mut reported = REPORTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if reported.iter().any(|known| known == folder) {
        return;
    }
    log::warn!(
        "cannot sync the folder {}: {error}; after a power failure a new file may be missing there",
        folder.display()
    );
    reported.push(folder.to_owned());
}

/// Checks that the file can be replaced by a rename, or written in place if it is a mount point itself.
///
/// # Errors
/// When neither is possible.
pub fn check_replaceable(path: &Path) -> io::Result<()> {
    let error = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => error,
        // A missing folder is created at startup.
        _ => return Ok(()),
    };
    // On a read-only mount neither works: either the file itself is mounted, or its folder is read-only too.
    if error.kind() == ErrorKind::ReadOnlyFilesystem {
        return Err(error);
    }
    access(folder(path), Access::WRITE_OK | Access::EXEC_OK).map_err(|_| error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened_renamed_or_removed_and_a_fifo_does_not_block() {
        let place = std::env::temp_dir().join(format!("audiohook-regular-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let (fifo, file) = (place.join("fifo"), place.join("file"));
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for path in [fifo.as_path(), Path::new("/dev/null"), place.as_path()] {
            assert!(open(OpenOptions::new().read(true), path).is_err(), "{}", path.display());
            assert_eq!(check(path).unwrap_err().kind(), ErrorKind::InvalidInput, "{}", path.display());
        }
        open(OpenOptions::new().write(true).create(true), &file).unwrap();
        check(&file).unwrap();
        sync_folder(&file).unwrap();
        check_replaceable(&file).unwrap();
        check_replaceable(&place.join("absent")).unwrap();
        std::fs::remove_dir_all(&place).unwrap();
    }
}
