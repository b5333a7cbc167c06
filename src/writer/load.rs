//! What the files show at the start: the window, the newest records, and where to begin without a state.

use std::fs::File;
use std::io;
use std::path::Path;

use super::window::{Moment, RECEIPT_DELAY_MS, Sighting, Way, Window};
use crate::clock::Millis;
use crate::event::{Line, read_line};
use crate::output::{Flow, each_line_backwards, first_line};
use crate::status::{Beat, RECENT_BYTES_MAX, RECENT_MAX, Recent};

/// How far beyond the horizon a file is read: a wall clock that jumped an hour back leaves receipts out of order.
const SLACK_MS: i64 = 3_600_000;

/// Reads the files, the newest first, as far back as `horizon`, into the window; the newest records into `recent`.
///
/// # Errors
/// When a file that is there cannot be read.
pub fn window(
    files: &[std::path::PathBuf],
    horizon: Millis,
    window: &mut Window,
    recent: &Recent,
    row_delay_ms: i64,
    beat: &Beat,
) -> io::Result<()> {
    let mut scratch = Vec::new();
    let mut newest = Newest::default();
    let full = std::cell::Cell::new(false);
    for path in files {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        // A file is left when a whole block of it is too old.
        let block_is_old = std::cell::Cell::new(true);
        let mut any_recent = false;
        each_line_backwards(
            &file,
            |text| {
                let Ok(text) = std::str::from_utf8(text) else { return };
                newest.push(text);
                full.set(newest.is_full());
                let Ok(line) = read_line(text, &mut scratch) else { return };
                let sighting = sighting(&line, row_delay_ms);
                if line.received.is_none_or(|received| received >= horizon - SLACK_MS) {
                    block_is_old.set(false);
                    any_recent = true;
                }
                if sighting.moment.nominal() >= horizon {
                    window.note(sighting);
                }
            },
            || {
                beat.busy();
                if block_is_old.replace(true) && full.get() { Flow::Stop } else { Flow::On }
            },
        )?;
        if !any_recent && newest.is_full() {
            break;
        }
    }
    recent.extend(newest.lines.iter().rev().map(Vec::as_slice));
    Ok(())
}

/// The newest lines, the newest first.
#[derive(Default)]
struct Newest {
    lines: Vec<Vec<u8>>,
    bytes: usize,
}

impl Newest {
    fn push(&mut self, line: &str) {
        if !self.is_full() && line.starts_with('{') {
            self.bytes += line.len();
            self.lines.push(line.as_bytes().to_vec());
        }
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= RECENT_MAX || self.bytes >= RECENT_BYTES_MAX
    }
}

/// How a record of the file was seen.
pub fn sighting(line: &Line<'_>, row_delay_ms: i64) -> Sighting {
    let way = if line.from_history { Way::History } else { Way::Socket };
    let delay = if line.from_history { row_delay_ms } else { RECEIPT_DELAY_MS };
    let receipt = line.received.unwrap_or(0);
    let moment = match line.own_time {
        // The predecessor's receipt is certain, the event's own time a guess of ours: taken only where they agree.
        Some(own) if line.legacy && line.received.is_some() && !(receipt - delay..=receipt + 2_000).contains(&own) => {
            Moment::Receipt { at: receipt, delay }
        }
        Some(own) => Moment::Own(own),
        None => Moment::Receipt { at: receipt, delay },
    };
    Sighting { content: line.id.content, way, moment }
}

/// The instant of the oldest record of ours that the files hold; `files` newest first.
pub fn oldest_record(files: &[std::path::PathBuf]) -> Option<Millis> {
    let mut scratch = Vec::new();
    files.iter().rev().find_map(|path| oldest_in(path, &mut scratch))
}

fn oldest_in(path: &Path, scratch: &mut Vec<u8>) -> Option<Millis> {
    let text = String::from_utf8(first_line(&File::open(path).ok()?).ok()??).ok()?;
    let line = read_line(&text, scratch).ok()?;
    if line.legacy {
        return None;
    }
    match (line.own_time, line.received) {
        (Some(own), Some(received)) => Some(own.min(received)),
        (own, received) => own.or(received),
    }
}
