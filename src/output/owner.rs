//! Whose a file is that root makes beside the output file.
//!
//! A `replay` or an `audit --repair` is run by root while the service has a user of its own: a file that root keeps
//! would be one that the collector cannot write. Must never: change a file that was there before, or whose it is when
//! the program does not run as root.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

/// Gives a file to the owner of another one, or of that one's folder if it is not there. What cannot be given stays
/// root's: the collector then says which file it cannot write.
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
    fn what_root_makes_belongs_to_whom_the_output_file_belongs() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can give a file away");
            return;
        }
        let folder = std::env::temp_dir().join(format!("audiohook-owner-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (output, other) = (folder.join("events.jsonl"), folder.join("events.jsonl.dead"));
        chown(&folder, Some(7), Some(8)).unwrap();
        let owner = |path: &Path| fs::metadata(path).map(|meta| (meta.uid(), meta.gid())).unwrap();

        follow(&File::create(&other).unwrap(), &output);
        assert_eq!(owner(&other), (7, 8), "without an output file its folder tells");
        fs::write(&output, "x").unwrap();
        chown(&output, Some(9), Some(10)).unwrap();
        fs::remove_file(&other).unwrap();
        follow(&File::create(&other).unwrap(), &output);
        assert_eq!(owner(&other), (9, 10));
        fs::write(&other, "x").unwrap();
        chown(&other, Some(0), Some(0)).unwrap();
        follow(&File::options().append(true).open(&other).unwrap(), &output);
        assert_eq!(owner(&other), (0, 0), "what holds something is left as it is");
        fs::remove_dir_all(&folder).unwrap();
    }
}
