//! The records that the files hold, read back: the output file and its backups, the newest record first, and no further
//! back than is needed.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Flow, backups, each_line_backwards, first_line, regular};
use crate::clock::Millis;
use crate::config::Output;
use crate::dedup::{Range, Record, Source, TOLERANCE_MS};
use crate::event::{Line, read_line};

/// How far beyond the horizon rows of the history are read where no frame stands among them: a wall clock that jumped an
/// hour back leaves receipts out of order.
const SLACK_MS: i64 = 3_600_000;

/// Passes over the folder, at most: a rotation during a pass needs another.
const PASSES_MAX: usize = 100;

/// Calls `record` with each line of the output file at this path and its backups that may be of an event since `horizon`,
/// which may rise meanwhile, the newest first. `record` may say that it has seen enough; `pulse` is called now and then. A
/// line that is no record is passed over. Another thread or process may rotate the files: each that is there is read once,
/// under whatever number it stands by then.
///
/// # Errors
/// When a file that is there cannot be read.
pub fn each_since(
    path: &Path,
    horizon: impl Fn() -> Millis,
    record: impl FnMut(&str, &Line<'_>) -> Flow,
    pulse: impl Fn(),
) -> io::Result<()> {
    let mut reading = Reading { horizon, record, pulse, old: HashMap::new(), scratch: Vec::new() };
    for _ in 0..PASSES_MAX {
        // A file that moved on to a number beyond those listed is met by the next pass.
        if !reading.pass(&files(path))? {
            break;
        }
    }
    Ok(())
}

/// Reading files, the newest first.
struct Reading<H, R, P> {
    horizon: H,
    record: R,
    pulse: P,
    /// The files that were read, by device and inode, and whether nothing before them is wanted.
    old: HashMap<(u64, u64), bool>,
    scratch: Vec<u8>,
}

impl<H, R, P> Reading<H, R, P>
where
    H: Fn() -> Millis,
    R: FnMut(&str, &Line<'_>) -> Flow,
    P: Fn(),
{
    /// Reads those files that were not read yet, up to one that is too old; says whether there was any.
    fn pass(&mut self, files: &[PathBuf]) -> io::Result<bool> {
        let mut any = false;
        for path in files {
            let file = match regular::open(OpenOptions::new().read(true), path) {
                Ok(file) => file,
                // Gone, or no file: a FIFO holds no records.
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

    /// Reads one file; says whether all that it holds is too old, or enough was seen.
    fn read(&mut self, file: &File) -> io::Result<bool> {
        // A file is left when a whole block of it is too old, and the files before it with it.
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

/// What some lines tell of how old everything before them is.
#[derive(Clone, Copy, Debug, Default)]
struct Age {
    /// There is one that is not older than the horizon.
    has_recent: bool,
    /// There is a frame that is older, by the service's clock and by this machine's. What the socket brings is new, so
    /// that all before it was written before.
    has_old_frame: bool,
    /// There is one that is older by far.
    has_old: bool,
    /// There is one that tells less: the wall clock may have been slow, and what the history brings late is old.
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

    /// Where there is no line, as in a file that was just begun, nothing is told.
    fn is_old(self) -> bool {
        !self.has_recent && (self.has_old_frame || self.has_old && !self.has_doubtful)
    }
}

/// What deduplication needs to know of a record: its content, and when and where it was seen. `row_delay_ms`: see
/// [`Record::range`].
pub fn observation(line: &Line<'_>, row_delay_ms: i64) -> (u64, Record) {
    let source = if line.from_history { Source::History } else { Source::Socket };
    let receipt = Record { at: line.received.unwrap_or(0), timed: false, source };
    let record = match line.own_time {
        // The predecessor's receipt is certain, the event's own time less so: it is taken only where they agree.
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

/// The instant of the oldest record of ours that the files hold; the predecessor's do not count.
pub fn oldest_of_ours(files: &[PathBuf]) -> Option<Millis> {
    files.iter().rev().find_map(|path| {
        let line = oldest_line(path)?;
        let line = read_line(&line, &mut Vec::new()).ok().filter(|line| !line.legacy)?;
        line.own_time.into_iter().chain(line.received).min()
    })
}

/// Since when the files hold every event that they ever held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing has gone.
    Everything,
    /// What is older may have gone, and is not missing then.
    Since(Millis),
    /// All may have gone: somebody else's rotation has just taken the file away.
    Nothing,
}

impl Held {
    /// With every backup there, or with logrotate at work, older records may have gone.
    pub fn of(output: &Output) -> Self {
        let files = files(&output.file);
        if files.len() <= output.backup_count as usize {
            return Self::Everything;
        }
        held_since(&files).map_or(Self::Nothing, Self::Since)
    }

    /// The part of an interval that can be compared; `None`: there is none.
    pub fn cut(self, from: Millis, to: Millis) -> Option<(Millis, Millis)> {
        let from = match self {
            Self::Everything => from,
            Self::Since(since) => from.max(since),
            Self::Nothing => return None,
        };
        (from < to).then_some((from, to))
    }
}

/// Since when the files hold what they ever held, as far as their oldest record tells: it was received then. The wall
/// clock may have been slow, but no event is received before its time, as far as two clocks agree on it.
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
    fn a_wall_clock_that_was_hours_slow_hides_no_record() {
        let path = std::env::temp_dir().join(format!("audiohook-records-slow-{}", std::process::id()));
        // More than is read at once, received five hours before it happened.
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
        assert!(found(&(recent.clone() + &old)) < 1_500, "a block tells enough");
        assert!(found(&(recent + &rows.replace("T10:14", "T09:29"))) < 1_500);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_was_just_begun_hides_none_of_those_before_it() {
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
    fn a_horizon_that_rises_ends_the_reading() {
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
    fn a_rotation_during_the_reading_hides_no_file_and_shows_none_twice() {
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
    fn whoever_has_seen_enough_is_shown_no_more() {
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
