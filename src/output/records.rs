//! Reads records back from the output file and its backups, the newest first and no further back than needed.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::identity::{FileIdentity, identity};
use super::{Flow, backups, each_line_backwards, first_line, regular};
use crate::clock::Millis;
use crate::config::Output;
use crate::dedup::{Range, Record, Source, TOLERANCE_MS};
use crate::event::{Line, read_line};

/// How far beyond the horizon reading continues while it finds only rows of the history and no frame: a wall clock that
/// jumped back by an hour leaves receipts out of order.
const SLACK_MS: i64 = 3_600_000;

/// Maximum number of passes over the folder; a rotation during a pass requires another.
const PASSES_MAX: usize = 100;

/// Calls `record` with the lines of the output file and its backups, the newest first, back to events at `horizon`,
/// which may rise meanwhile. `record` may stop the reading; `pulse` is called periodically. Skips lines that are not
/// records. The files may be rotated meanwhile: each is read once, whatever its number is by then.
///
/// # Errors
/// When an existing file cannot be read.
pub fn each_since(
    path: &Path,
    horizon: impl Fn() -> Millis,
    record: impl FnMut(&str, &Line<'_>) -> Flow,
    pulse: impl Fn(),
) -> io::Result<()> {
    let mut reading = Reading { horizon, record, pulse, old: HashMap::new(), scratch: Vec::new() };
    for _ in 0..PASSES_MAX {
        // A file renumbered beyond the listed numbers is found by the next pass.
        if !reading.pass(&files(path))? {
            break;
        }
    }
    Ok(())
}

/// The state while reading files, the newest first.
struct Reading<H, R, P> {
    horizon: H,
    record: R,
    pulse: P,
    /// The files already read, by device and inode, and whether files before them are too old.
    old: HashMap<(u64, u64), bool>,
    scratch: Vec<u8>,
}

impl<H, R, P> Reading<H, R, P>
where
    H: Fn() -> Millis,
    R: FnMut(&str, &Line<'_>) -> Flow,
    P: Fn(),
{
    /// Reads the files not read yet, until one is too old. Returns whether there was any.
    fn pass(&mut self, files: &[PathBuf]) -> io::Result<bool> {
        let mut any = false;
        for path in files {
            let file = match regular::open(OpenOptions::new().read(true), path) {
                Ok(file) => file,
                // Deleted meanwhile, or not a regular file.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => continue,
                Err(error) => return Err(error),
            };
            let meta = file.metadata()?;
            let name = (meta.dev(), meta.ino());
            let is_old = match self.old.get(&name) {
                Some(is_old) => *is_old,
                None => {
                    any = true;
                    let is_old = self.read(&file)?;
                    self.old.insert(name, is_old);
                    is_old
                }
            };
            if is_old {
                break;
            }
        }
        Ok(any)
    }

    /// Reads one file. Returns whether older files are not needed: all its lines are too old, or `record` stopped.
    fn read(&mut self, file: &File) -> io::Result<bool> {
        // If a whole block is too old, the rest of the file and all older files are skipped.
        let (block, whole, is_enough) = (Cell::new(Age::default()), Cell::new(Age::default()), Cell::new(false));
        let Self { horizon, record, pulse, scratch, .. } = self;
        let line = |text: &[u8]| {
            let Ok(text) = std::str::from_utf8(text) else { return };
            let Ok(line) = read_line(text, scratch) else { return };
            let horizon = horizon();
            block.set(block.get().with(&line, horizon));
            whole.set(whole.get().with(&line, horizon));
            if !is_enough.get() && record(text, &line) == Flow::Stop {
                is_enough.set(true);
            }
        };
        each_line_backwards(file, line, || {
            pulse();
            if block.take().is_old() || is_enough.get() { Flow::Stop } else { Flow::On }
        })?;
        Ok(whole.get().is_old() || is_enough.get())
    }
}

/// Judges from some lines whether everything before them is older than the horizon.
#[derive(Clone, Copy, Debug, Default)]
struct Age {
    /// A line is not older than the horizon.
    has_recent: bool,
    /// A frame is older, by the service's clock and by this machine's. Frames are new when they are received, so all
    /// lines before it were written even earlier.
    has_old_frame: bool,
    /// A line is older by far.
    has_old: bool,
    /// A line is older but proves nothing: the wall clock may have been slow, or the history may have returned it late.
    has_doubtful: bool,
}

impl Age {
    fn with(mut self, line: &Line<'_>, horizon: Millis) -> Self {
        match line.own_time.max(line.received) {
            Some(newest) if newest < horizon => {
                let is_frame = !line.from_history && !line.legacy && line.own_time.is_some();
                let is_doubtful = !is_frame && newest >= horizon - SLACK_MS;
                self.has_old_frame |= is_frame;
                self.has_doubtful |= is_doubtful;
                self.has_old |= !is_doubtful;
            }
            _ => self.has_recent = true,
        }
        self
    }

    /// Whether everything before these lines is too old; `false` without any line, as in a new file.
    fn is_old(self) -> bool {
        !self.has_recent && (self.has_old_frame || self.has_old && !self.has_doubtful)
    }
}

/// A record's content, time and source, for deduplication. For `row_delay_ms` see [`Record::range`].
pub fn observation(line: &Line<'_>, row_delay_ms: i64) -> (u64, Record) {
    let source = if line.from_history { Source::History } else { Source::Socket };
    let receipt = Record { at: line.received.unwrap_or(0), timed: false, source };
    let record = match line.own_time {
        // The predecessor's receipt time is more reliable than the event's own time, which is used only if they agree.
        Some(own)
            if line.legacy && line.received.is_some() && !receipt.range(row_delay_ms).overlaps(Range::at(own)) =>
        {
            receipt
        }
        Some(own) => Record { at: own, timed: true, source },
        None => receipt,
    };
    (line.id.content, record)
}

/// The instant of the oldest record in the files, ignoring the predecessor's.
pub fn oldest_of_ours(files: &[PathBuf]) -> Option<Millis> {
    files.iter().rev().find_map(|path| {
        let line = oldest_line(path)?;
        let line = read_line(&line, &mut Vec::new()).ok().filter(|line| !line.legacy)?;
        line.own_time.into_iter().chain(line.received).min()
    })
}

/// Since when the files are complete, apart from deleted backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// No backup was deleted.
    Everything,
    /// Records before this instant may have been deleted and do not count as missing.
    Since(Millis),
    /// All records may be gone: another rotation tool has just moved the file away.
    Nothing,
}

impl Held {
    /// Older records may be gone if all backup numbers are in use, if logrotate rotates the file, or if somebody moved,
    /// deleted or truncated it at `taken_away`.
    pub fn of(output: &Output, taken_away: Option<Millis>) -> Self {
        let files = files(&output.file);
        let taken_away = taken_away.map(|at| at + TOLERANCE_MS + 1);
        if files.len() <= output.backup_count as usize {
            return taken_away.map_or(Self::Everything, Self::Since);
        }
        let since = held_since(&files).map(|since| since.max(taken_away.unwrap_or(since)));
        since.map_or(Self::Nothing, Self::Since)
    }

    /// The part of an interval for which the files are complete; `None` if there is none.
    pub fn cut(self, from: Millis, to: Millis) -> Option<(Millis, Millis)> {
        let from = match self {
            Self::Everything => from,
            Self::Since(since) => from.max(since),
            Self::Nothing => return None,
        };
        (from < to).then_some((from, to))
    }
}

/// Since when the files are complete: the receipt of their oldest record. The wall clock may have been slow, but no
/// event is received before its own time, within the tolerance between two clocks.
fn held_since(files: &[PathBuf]) -> Option<Millis> {
    files.iter().rev().find_map(|path| {
        let line = oldest_line(path)?;
        let line = read_line(&line, &mut Vec::new()).ok()?;
        line.own_time.into_iter().chain(line.received).max().map(|at| at + TOLERANCE_MS + 1)
    })
}

fn oldest_line(path: &Path) -> Option<String> {
    let file = regular::open(OpenOptions::new().read(true), path).ok()?;
    String::from_utf8(first_line(&file).ok()??).ok()
}

/// Whether this file is still the output file or one of its backups.
pub fn is_there(path: &Path, file: FileIdentity) -> bool {
    let is_it =
        |path: &PathBuf| regular::open(OpenOptions::new().read(true), path).is_ok_and(|it| identity(&it) == Some(file));
    files(path).iter().any(is_it)
}

/// The output file and its backups, the newest first.
pub fn files(path: &Path) -> Vec<PathBuf> {
    let numbers = backups::numbers(path).unwrap_or_default();
    std::iter::once(path.to_owned()).chain(numbers.into_iter().map(|n| backups::backup(path, n))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize) -> String {
        format!(
            "{{\"timestamp\":\"2026-11-23T10:44:05.{n:03}Z\",\"event_type\":\"audiohook_operational\",\"event_id\":\"AUDIOHOOK-0001\",\"conversation_id\":\"c{n}\",\"received_at\":\"2026-11-23T10:44:06.{n:03}Z\",\"source\":\"websocket\",\"id\":\"{n:032x}\",\"raw_event\":{{}}}}\n"
        )
    }

    fn count(found: &mut usize) -> Flow {
        *found += 1;
        Flow::On
    }

    #[test]
    fn no_record_is_missed_when_the_wall_clock_was_hours_slow() {
        let path = std::env::temp_dir().join(format!("audiohook-records-slow-{}", std::process::id()));
        // More than one block of events, each received five hours before it happened.
        let lines: String = (0..3_000)
            .map(|n| line(n % 1_000).replace("\"received_at\":\"2026-11-23T10", "\"received_at\":\"2026-11-23T05"))
            .collect();
        std::fs::write(&path, &lines).unwrap();
        assert!(lines.len() > 256 * 1024);
        let horizon = crate::clock::parse_instant("2026-11-23T10:30:00Z").unwrap();
        let mut found = 0;
        each_since(&path, || horizon, |_, _| count(&mut found), || ()).unwrap();
        assert_eq!(found, 3_000);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn old_frames_end_the_reading_and_old_rows_do_not_while_the_clock_may_have_been_slow() {
        let path = std::env::temp_dir().join(format!("audiohook-records-old-{}", std::process::id()));
        let recent: String = (0..10).map(line).collect();
        let old: String = (0..3_000).map(|n| line(n % 1_000).replace("T10:44", "T10:14")).collect();
        let rows = old.replace("websocket", "history");
        let horizon = crate::clock::parse_instant("2026-11-23T10:30:00Z").unwrap();
        let found = |lines: &str| {
            std::fs::write(&path, lines).unwrap();
            let mut found = 0;
            each_since(&path, || horizon, |_, _| count(&mut found), || ()).unwrap();
            found
        };
        assert_eq!(found(&(recent.clone() + &rows)), 3_010);
        assert!(found(&(recent.clone() + &old)) < 1_500, "one block is enough");
        assert!(found(&(recent + &rows.replace("T10:14", "T09:29"))) < 1_500);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_new_file_hides_none_of_the_older_ones() {
        let path = std::env::temp_dir().join(format!("audiohook-records-begun-{}", std::process::id()));
        let before = backups::backup(&path, 1);
        std::fs::write(&before, line(1)).unwrap();
        for begun in ["", "\n\n", "no record\n"] {
            std::fs::write(&path, begun).unwrap();
            let mut found = 0;
            each_since(&path, || 0, |_, _| count(&mut found), || ()).unwrap();
            assert_eq!(found, 1, "{begun:?}");
        }
        std::fs::remove_file(before).unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_rising_horizon_ends_the_reading() {
        let path = std::env::temp_dir().join(format!("audiohook-records-rises-{}", std::process::id()));
        std::fs::write(&path, (0..3_000).map(|n| line(n % 1_000)).collect::<String>()).unwrap();
        let found = Cell::new(0);
        let horizon = || if found.get() < 100 { 0 } else { Millis::MAX };
        let record = |_: &str, _: &Line<'_>| {
            found.set(found.get() + 1);
            Flow::On
        };
        each_since(&path, horizon, record, || ()).unwrap();
        assert!((100..2_500).contains(&found.get()), "{}", found.get());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_rotation_during_the_reading_skips_no_file_and_repeats_none() {
        let folder = std::env::temp_dir().join(format!("audiohook-records-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("events.jsonl");
        for n in 1..=5 {
            std::fs::write(backups::backup(&path, n), line(n as usize)).unwrap();
        }
        std::fs::write(&path, line(0)).unwrap();
        let mut found = Vec::new();
        let mut rotations = 0;
        let record = |text: &str, _: &Line<'_>| {
            found.push(text.to_owned() + "\n");
            if rotations < 3 {
                rotations += 1;
                backups::rotate(&path, 500, None).unwrap();
                std::fs::write(&path, line(5 + rotations)).unwrap();
            }
            Flow::On
        };
        each_since(&path, || 0, record, || ()).unwrap();
        found.sort();
        let mut expected: Vec<String> = (0..=8).map(line).collect();
        expected.sort();
        assert_eq!(found, expected);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_caller_can_stop_the_reading() {
        let path = std::env::temp_dir().join(format!("audiohook-records-enough-{}", std::process::id()));
        std::fs::write(&path, (0..3_000).map(|n| line(n % 1_000)).collect::<String>()).unwrap();
        std::fs::write(backups::backup(&path, 1), line(0)).unwrap();
        let mut found = 0;
        let record = |_: &str, _: &Line<'_>| {
            found += 1;
            if found < 10 { Flow::On } else { Flow::Stop }
        };
        each_since(&path, || 0, record, || ()).unwrap();
        assert_eq!(found, 10);
        std::fs::remove_file(backups::backup(&path, 1)).unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
