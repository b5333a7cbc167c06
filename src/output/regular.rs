//! Regular files and their folders: what stands in their place is left as it is.
//!
//! Must never: rename, remove, truncate or block on anything that is not a regular file.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{Access, OFlags, access};

use super::backups::folder;

/// Opens a regular file. Truncate it only afterwards: with [`OpenOptions::truncate`], whatever stood there would be cut.
///
/// # Errors
/// Those of opening; [`ErrorKind::InvalidInput`] for a device, a FIFO, a socket or a folder.
pub fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // Opening a device may do something already, and opening a FIFO waits for its other end.
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(not_regular());
    }
    let file = options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// Whether a file may be renamed or removed: it is a regular one, or a link, which is only a name.
///
/// # Errors
/// When it is something else, or cannot be looked at.
pub fn check(path: &Path) -> io::Result<()> {
    let kind = std::fs::symlink_metadata(path)?.file_type();
    if kind.is_file() || kind.is_symlink() { Ok(()) } else { Err(not_regular()) }
}

fn not_regular() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "it is not a regular file")
}

/// Makes new names in this path's folder durable. Where the file system cannot do that, it is reported once, and the
/// folder is used all the same.
///
/// # Errors
/// When the disk fails.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    sync_opened(path, &open_folder(path)?)
}

/// The folder of a path, to be synced later; `None` where it cannot be opened for reading, which is reported once.
///
/// # Errors
/// When it is not there.
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
/// When the disk fails.
pub fn sync_opened(path: &Path, opened: &Option<File>) -> io::Result<()> {
    let Some(Err(error)) = opened.as_ref().map(File::sync_all) else { return Ok(()) };
    // EINVAL and ENOTTY: what a file system answers that has no fsync for folders.
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
        "cannot sync the folder {}: {error}; it is used without: after a power failure a new file may be missing there",
        folder.display()
    );
    reported.push(folder.to_owned());
}

/// Whether the file can be replaced by a rename, or written in place where it is mounted by itself.
///
/// # Errors
/// Why neither can be done.
pub fn check_replaceable(path: &Path) -> io::Result<()> {
    let error = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => error,
        // A folder that is not there yet is created at the start.
        _ => return Ok(()),
    };
    // On a read-only mount it is neither: the mount is the file's own, or the folder is read-only too.
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
