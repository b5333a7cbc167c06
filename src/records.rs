//! The records that the files hold, read back: for the window, the audit and the start.
//!
//! Deals with: the output file and its backups as one run of records, newest first, read no further back than need be.
//! Must never: write.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::clock::Millis;
use crate::event::{Line, read_line};
use crate::output::{Flow, backups, each_line_backwards, first_line};
use crate::window::{Moment, RECEIPT_DELAY_MS, Sighting, Way};

/// How far beyond the horizon a file is read: a wall clock that jumped an hour back leaves receipts out of order.
const SLACK_MS: i64 = 3_600_000;

/// Calls `record` with each line that may be of an event since `horizon`, the newest first, and as many older ones as
/// `more` wants; `pulse` is called now and then. A line that is no record is passed over.
///
/// # Errors
/// When a file that is there cannot be read.
pub fn each_since(
    files: &[PathBuf],
    horizon: Millis,
    mut record: impl FnMut(&str, &Line<'_>),
    more: impl Fn() -> bool,
    pulse: impl Fn(),
) -> io::Result<()> {
    let mut scratch = Vec::new();
    for path in files {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        // A file is left when a whole block of it is too old, and the files before it with it.
        let (block_is_old, file_is_old) = (Cell::new(true), Cell::new(true));
        let line = |text: &[u8]| {
            let Ok(text) = std::str::from_utf8(text) else { return };
            let Ok(line) = read_line(text, &mut scratch) else { return };
            if line.received.is_none_or(|received| received >= horizon - SLACK_MS) {
                block_is_old.set(false);
                file_is_old.set(false);
            }
            record(text, &line);
        };
        each_line_backwards(&file, line, || {
            pulse();
            if block_is_old.replace(true) && !more() { Flow::Stop } else { Flow::On }
        })?;
        if file_is_old.get() && !more() {
            break;
        }
    }
    Ok(())
}

/// How the event of a record was seen. `row_delay_ms`: how long before its receipt a row without a time may have
/// happened.
pub fn sighting(line: &Line<'_>, row_delay_ms: i64) -> Sighting {
    let way = if line.from_history { Way::History } else { Way::Socket };
    let delay = if line.from_history { row_delay_ms } else { RECEIPT_DELAY_MS };
    let receipt = Moment::Receipt { at: line.received.unwrap_or(0), delay };
    let moment = match line.own_time {
        // The predecessor's receipt is certain, the event's own time less so: it is taken only where they agree.
        Some(own) if line.legacy && line.received.is_some() && !receipt.fits(Moment::Own(own)) => receipt,
        Some(own) => Moment::Own(own),
        None => receipt,
    };
    Sighting { content: line.id.content, way, moment }
}

/// The instant of the oldest record of ours that the files hold; the predecessor's do not count.
pub fn oldest_of_ours(files: &[PathBuf]) -> Option<Millis> {
    files.iter().rev().find_map(|path| {
        let line = oldest_line(path)?;
        let line = read_line(&line, &mut Vec::new()).ok().filter(|line| !line.legacy)?;
        line.own_time.into_iter().chain(line.received).min()
    })
}

/// When the oldest record that the files hold was received.
pub fn oldest_receipt(files: &[PathBuf]) -> Option<Millis> {
    files.iter().rev().find_map(|path| read_line(&oldest_line(path)?, &mut Vec::new()).ok()?.received)
}

fn oldest_line(path: &Path) -> Option<String> {
    String::from_utf8(first_line(&File::open(path).ok()?).ok()??).ok()
}

/// The output file and its backups, the newest first.
pub fn files(path: &Path) -> Vec<PathBuf> {
    let numbers = backups::numbers(path).unwrap_or_default();
    std::iter::once(path.to_owned()).chain(numbers.into_iter().map(|n| backups::backup(path, n))).collect()
}
