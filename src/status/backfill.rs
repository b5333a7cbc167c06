//! The counts of earlier runs, read from the files once, on a thread of its own: the start does not wait for it.

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

/// The charts go back so far.
const TEN_DAYS_MS: Millis = 10 * 86_400_000;

/// Reads the records of the last ten days that were received before this run began; those of this run are counted as
/// they are written. A file that cannot be read leaves the charts incomplete, and the log says so.
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
            log::warn!("cannot read {} for the charts: {error}; they begin with this run", path.display());
        }
        counts.set_loaded();
    })
    .map(drop)
}
