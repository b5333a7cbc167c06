//! The rotated files: `.1` is the newest, `.BACKUP_COUNT` the oldest; older ones are kept while the cluster needs them.
//!
//! Deals with: renumbering backups and deleting unneeded ones. Must never: overwrite a file. Renames go only to unused
//! numbers: a kill halfway leaves a gap, and the next rotation fills it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::output::identity::{Cursor, identity};
use crate::output::regular;

/// Maximum digits of a backup's number: a longer suffix is a date from another rotation tool.
const NUMBER_DIGITS_MAX: usize = 6;
const READ_BYTES: usize = 64 * 1024;

/// Which backups to keep beyond the count, because the cluster does not have their records yet.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Everything before it is done; `None`: nothing is.
    pub cursor: Option<Cursor>,
    /// Everything before it was read; what is not done of that is in memory.
    pub read: Option<Cursor>,
    /// Maximum bytes of files kept beyond the count.
    pub backlog_max: u64,
}

/// What was deleted before the cluster had it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    pub files: u32,
    pub bytes: u64,
    /// Number of unread lines.
    pub events: u64,
}

/// The path of a backup.
pub fn backup(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// The file's folder; `.` if the path names none.
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The number in a backup's suffix such as `.7`; `None` for `.07` or a date.
pub fn number_of_suffix(suffix: &str) -> Option<u32> {
    let digits = suffix.strip_prefix('.')?;
    let plain = (1..=NUMBER_DIGITS_MAX).contains(&digits.len())
        && !digits.starts_with('0')
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// The numbers of the existing backups, ascending.
///
/// # Errors
/// When the folder cannot be read.
pub fn numbers(path: &Path) -> io::Result<Vec<u32>> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder(path))? {
        let entry_name = entry?.file_name();
        let number = entry_name.to_str().and_then(|other| other.strip_prefix(name)).and_then(number_of_suffix);
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Renames the file to `.1`, renumbering the other backups, and deletes backups beyond the count that `keep` does not
/// cover. Afterwards the file does not exist; the caller creates a new one.
///
/// # Errors
/// When a file cannot be renamed. Nothing is lost: the file may still be at its path, and the next call continues.
pub fn rotate(path: &Path, count: u32, keep: Option<Keep>) -> io::Result<Dropped> {
    // If the file is gone, renumbering would only leave a gap at `.1`.
    regular::check(path)?;
    let there = numbers(path)?;
    let free = (1..).zip(&there).find(|(expected, number)| expected != *number).map(|(expected, _)| expected);
    let free = free.unwrap_or(there.len() as u32 + 1);
    for number in (1..free).rev() {
        regular::check(&backup(path, number))?;
        fs::rename(backup(path, number), backup(path, number + 1))?;
    }
    fs::rename(path, backup(path, 1))?;
    // The rotation itself is done; the next one retries the deletion.
    Ok(trim(path, count, keep).unwrap_or_else(|error| {
        log::warn!("cannot delete the oldest backups of {}: {error}", path.display());
        Dropped::default()
    }))
}

/// Deletes the backups beyond the count that the cluster has, then the oldest ones beyond the backlog limit.
///
/// # Errors
/// When the folder cannot be read or a file cannot be deleted.
pub fn trim(path: &Path, count: u32, keep: Option<Keep>) -> io::Result<Dropped> {
    let mut dropped = Dropped::default();
    let there = numbers(path)?;
    if there.last().is_none_or(|oldest| *oldest <= count) {
        return Ok(dropped);
    }
    let place = |cursor| place_of(path, &there, cursor);
    let (needed_to, read_to) = match keep {
        None => (0, 0),
        Some(Keep { cursor, read, .. }) if cursor.map(|at| at.file) == read.map(|at| at.file) => {
            let number = place(cursor);
            (number, number)
        }
        Some(Keep { cursor, read, .. }) => (place(cursor), place(read)),
    };
    let mut surplus = Vec::new();
    for number in there.iter().copied().filter(|number| *number > count) {
        regular::check(&backup(path, number))?;
        if number > needed_to {
            fs::remove_file(backup(path, number))?;
        } else {
            surplus.push((number, fs::metadata(backup(path, number))?.len()));
        }
    }
    let mut bytes: u64 = surplus.iter().map(|(_, length)| length).sum();
    let limit = keep.map_or(0, |keep| keep.backlog_max);
    while let Some((number, length)) = surplus.pop_if(|_| bytes > limit) {
        let oldest = backup(path, number);
        let from = match keep.and_then(|keep| keep.read) {
            Some(_) if read_to < number => length,
            Some(read) if read_to == number => read.offset.min(length),
            _ => 0,
        };
        let events = count_lines(&File::open(&oldest)?, from)?;
        fs::remove_file(&oldest)?;
        bytes -= length;
        // A file whose every line was read is no loss.
        if events > 0 {
            dropped.files += 1;
            dropped.bytes += length.saturating_sub(from);
            dropped.events += events;
        }
    }
    Ok(dropped)
}

/// The number of the backup that the cursor points into: 0 for the file itself, [`u32::MAX`] if no file matches. The
/// newest and the oldest files are checked first, as the cursor is nearly always in one of them.
fn place_of(path: &Path, there: &[u32], cursor: Option<Cursor>) -> u32 {
    let Some(cursor) = cursor else { return u32::MAX };
    let is_here = |path: &Path| File::open(path).is_ok_and(|file| identity(&file) == Some(cursor.file));
    if is_here(path) {
        return 0;
    }
    let newest = there.first().copied();
    newest
        .into_iter()
        .chain(there.iter().copied().skip(1).rev())
        .find(|number| is_here(&backup(path, *number)))
        .unwrap_or(u32::MAX)
}

/// Counts the lines of a file from an offset to its end.
///
/// # Errors
/// When it cannot be read.
pub fn count_lines(mut file: &File, from: u64) -> io::Result<u64> {
    file.seek(SeekFrom::Start(from))?;
    let mut buffer = vec![0; READ_BYTES];
    let mut lines = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(lines),
            Ok(length) => lines += memchr::memchr_iter(b'\n', &buffer[..length]).count() as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("backups-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("events.jsonl")
        }

        fn write(&self, suffix: &str, text: &str) {
            fs::write(self.0.join(format!("events.jsonl{suffix}")), text).unwrap();
        }

        /// Every file's suffix and content, sorted.
        fn shown(&self) -> Vec<String> {
            let mut all: Vec<String> = fs::read_dir(&self.0)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .map(|path| {
                    let name = path.file_name().unwrap().to_str().unwrap().replace("events.jsonl", "");
                    format!("{name}={}", fs::read_to_string(&path).unwrap().trim())
                })
                .collect();
            all.sort();
            all
        }

        fn cursor(&self, suffix: &str, offset: u64) -> Cursor {
            let file = File::open(self.0.join(format!("events.jsonl{suffix}"))).unwrap();
            Cursor { file: identity(&file).unwrap(), offset }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_file_becomes_the_first_backup_and_the_one_beyond_the_count_is_deleted() {
        let folder = Folder::new("shift");
        for n in 0..5 {
            folder.write("", &format!("line {n}\n"));
            rotate(&folder.file(), 3, None).unwrap();
        }
        assert_eq!(folder.shown(), [".1=line 4", ".2=line 3", ".3=line 2"]);
    }

    #[test]
    fn a_gap_left_by_a_kill_is_filled_and_nothing_is_deleted_for_it() {
        let folder = Folder::new("gap");
        for (suffix, text) in [("", "new"), (".1", "a"), (".2", "b"), (".4", "c")] {
            folder.write(suffix, text);
        }
        rotate(&folder.file(), 4, None).unwrap();
        assert_eq!(folder.shown(), [".1=new", ".2=a", ".3=b", ".4=c"]);
        fs::rename(folder.0.join("events.jsonl.1"), folder.file()).unwrap();
        rotate(&folder.file(), 4, None).unwrap();
        assert_eq!(folder.shown(), [".1=new", ".2=a", ".3=b", ".4=c"]);
    }

    #[test]
    fn backups_beyond_the_count_are_kept_until_the_cluster_has_them() {
        let folder = Folder::new("keep");
        folder.write("", "line 0\n");
        let keep = Keep { cursor: Some(folder.cursor("", 0)), read: None, backlog_max: 1000 };
        for n in 1..=4 {
            assert_eq!(rotate(&folder.file(), 2, Some(keep)).unwrap(), Dropped::default());
            folder.write("", &format!("line {n}\n"));
        }
        assert_eq!(folder.shown(), [".1=line 3", ".2=line 2", ".3=line 1", ".4=line 0", "=line 4"]);
        let keep = Keep { cursor: Some(folder.cursor(".3", 7)), ..keep };
        assert_eq!(trim(&folder.file(), 2, Some(keep)).unwrap(), Dropped::default());
        assert_eq!(folder.shown(), [".1=line 3", ".2=line 2", ".3=line 1", "=line 4"]);
        let keep = Keep { cursor: Some(folder.cursor("", 0)), ..keep };
        trim(&folder.file(), 2, Some(keep)).unwrap();
        assert_eq!(folder.shown(), [".1=line 3", ".2=line 2", "=line 4"]);
    }

    #[test]
    fn beyond_the_backlog_limit_the_oldest_is_deleted_and_its_unread_lines_are_counted() {
        let folder = Folder::new("limit");
        folder.write("", "now\n");
        folder.write(".1", "x\n");
        folder.write(".2", "one\ntwo\nthree\n");
        folder.write(".3", "1\n2\n3\n4\n");
        let keep = Keep { cursor: Some(folder.cursor(".3", 2)), read: Some(folder.cursor(".3", 4)), backlog_max: 14 };
        let dropped = trim(&folder.file(), 1, Some(keep)).unwrap();
        assert_eq!(dropped, Dropped { files: 1, bytes: 4, events: 2 });
        assert_eq!(folder.shown(), [".1=x", ".2=one\ntwo\nthree", "=now"]);
        let nothing_had = Keep { cursor: None, read: None, backlog_max: 0 };
        assert_eq!(trim(&folder.file(), 1, Some(nothing_had)).unwrap().events, 3);
    }

    #[test]
    fn files_of_another_rotation_tool_are_left_alone() {
        let folder = Folder::new("dates");
        for suffix in ["", ".20260101", ".1.gz", ".01", "-20260101", ".state"] {
            folder.write(suffix, "x");
        }
        rotate(&folder.file(), 1, None).unwrap();
        assert_eq!(folder.shown(), ["-20260101=x", ".01=x", ".1.gz=x", ".1=x", ".20260101=x", ".state=x"]);
    }
}
