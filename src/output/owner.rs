//! The owner of files that root creates beside the output file.
//!
//! `replay` and `audit --repair` may run as root while the service has its own user: the collector could not write to
//! files that belong to root. Must never: change the owner of an existing file.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

/// Gives a new file the owner of `like`, or of its folder if `like` does not exist. Does nothing unless run as root. On
/// failure the file stays root's, and the collector reports that it cannot write to it.
pub fn follow(file: &File, like: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = like.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(like) = fs::metadata(like).or_else(|_| fs::metadata(folder)) else { return };
    let is_new = file.metadata().is_ok_and(|meta| meta.uid() == 0 && meta.len() == 0);
    if is_new && like.uid() != 0 {
        let _ = fchown(file, Some(like.uid()), Some(like.gid()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::chown;

    #[test]
    fn a_file_that_root_creates_gets_the_output_files_owner() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can change a file's owner");
            return;
        }
        let folder = std::env::temp_dir().join(format!("audiohook-owner-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (output, other) = (folder.join("events.jsonl"), folder.join("events.jsonl.dead"));
        chown(&folder, Some(7), Some(8)).unwrap();
        let owner = |path: &Path| fs::metadata(path).map(|meta| (meta.uid(), meta.gid())).unwrap();

        follow(&File::create(&other).unwrap(), &output);
        assert_eq!(owner(&other), (7, 8), "without an output file, its folder's owner");
        fs::write(&output, "x").unwrap();
        chown(&output, Some(9), Some(10)).unwrap();
        fs::remove_file(&other).unwrap();
        follow(&File::create(&other).unwrap(), &output);
        assert_eq!(owner(&other), (9, 10));
        fs::write(&other, "x").unwrap();
        chown(&other, Some(0), Some(0)).unwrap();
        follow(&File::options().append(true).open(&other).unwrap(), &output);
        assert_eq!(owner(&other), (0, 0), "a file that is not empty keeps its owner");
        fs::remove_dir_all(&folder).unwrap();
    }
}
