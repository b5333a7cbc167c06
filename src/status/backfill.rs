//! Reads the counts of earlier runs from the files, once, in a separate thread, so that the start is not delayed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::{Receiver, TryRecvError};

use super::Status;
use crate::clock::Millis;
use crate::event::Redaction;
use crate::output::Flow;
use crate::output::records;
use crate::thread;

/// The maximum time range of the charts.
const TEN_DAYS_MS: Millis = 10 * 86_400_000;

/// Counts the records of the last ten days that were received before this run. Records of this run are counted when
/// they are written. If a file cannot be read, this is logged, and the charts stay incomplete.
///
/// # Errors
/// When the system refuses a thread.
pub fn start(status: Arc<Status>, path: PathBuf, redaction: Redaction, stop: Receiver<()>) -> io::Result<()> {
    thread::spawn("counts", move || {
        let (started, counts) = (status.started, &status.counts);
        let record = |text: &str, line: &crate::event::Line<'_>| {
            if stop.try_recv() == Err(TryRecvError::Disconnected) {
                return Flow::Stop;
            }
            if line.received.is_none_or(|received| received < started)
                && let Some(shown) = redaction.line(text, "")
            {
                counts.load_line(shown.as_bytes(), started);
            }
            Flow::On
        };
        let read = records::each_since(&path, || started - TEN_DAYS_MS, record, || {});
        if let Err(error) = read {
            log::warn!(
                "cannot read {} for the charts: {error}; the charts may lack events of earlier runs",
                path.display()
            );
        }
        counts.set_loaded();
    })
    .map(drop)
}
