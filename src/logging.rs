//! The log: one line per record, as JSON or text, on standard output.
//!
//! JSON: `{"timestamp":…,"level":"INFO","message":…}` and the record's fields, as in the predecessor; levels are
//! `ERROR`, `WARN`, `INFO`, `DEBUG`. If standard output is the journal, each line begins with its priority
//! (`<3>`…`<7>`). With CONSOLE_OUTPUT=false nothing goes to standard output; errors still go to standard error.
//!
//! Must never: log lines of other crates (they contain requests and frames, hence secrets), split a record over two
//! lines, or make a thread wait for a slow terminal, pipe or journal. A separate thread writes the lines; lines that it
//! cannot write in time are dropped and counted.

mod line;
mod rate;
mod sink;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError, bounded};
use log::{LevelFilter, Log, Metadata, Record};

pub use rate::Rate;

use crate::clock::Clock;
use crate::config::{LogFormat, LogSettings};
use sink::{Message, Sink};

/// Maximum number of lines queued for the sink.
const WAITING_LINES_MAX: usize = 1024;

/// How long the program's exit waits for the last lines.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// The crate whose lines are logged.
const OWN_TARGET: &str = "audiohook_collector";

/// Starts the log for the whole program, including panics. Keep the guard until the end: dropping it writes the last
/// lines.
///
/// # Errors
/// When a log is already running, or the thread cannot be started.
pub fn start(settings: &LogSettings, clock: Clock) -> io::Result<Flush> {
    if settings.console {
        begin(Sink::stdout(), settings.level, settings.format, clock)
    } else {
        // Without console output, only errors go to standard error.
        begin(Sink::stderr(), settings.level.min(LevelFilter::Error), settings.format, clock)
    }
}

/// As [`start`], for a command that prints its results on standard output: logs warnings and errors as text on standard
/// error.
///
/// # Errors
/// Those of [`start`].
pub fn start_beside_output(settings: &LogSettings, clock: Clock) -> io::Result<Flush> {
    begin(Sink::stderr(), settings.level.min(LevelFilter::Warn), LogFormat::Text, clock)
}

/// The prefix for an error line on standard error, printed before the log runs: the journal's priority if standard
/// error is the journal, else nothing.
pub fn error_mark() -> &'static str {
    if Sink::stderr().is_journal() { line::priority(log::Level::Error) } else { "" }
}

fn begin(sink: Sink, level: LevelFilter, format: LogFormat, clock: Clock) -> io::Result<Flush> {
    let (lines, inbox) = bounded(WAITING_LINES_MAX);
    let dropped = AtomicU64::new(0);
    let logger = Logger { level, format, prefix: sink.is_journal(), clock, lines: lines.clone(), dropped };
    crate::thread::spawn("log", move || sink.run(&inbox))?;
    simplelog::CombinedLogger::init(vec![Box::new(logger)]).map_err(io::Error::other)?;
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        log::error!("thread {} panicked: {panic}", thread.name().unwrap_or("without a name"));
    }));
    Ok(Flush { lines })
}

/// Writes the queued lines when dropped; waits for a second at most.
#[must_use = "dropping it at once does not flush later lines"]
pub struct Flush {
    lines: Sender<Message>,
}

impl Drop for Flush {
    fn drop(&mut self) {
        log::logger().flush();
        let (done, wait) = bounded(1);
        if self.lines.send_timeout(Message::Flush(done), FLUSH_TIME).is_ok() {
            let _ = wait.recv_timeout(FLUSH_TIME);
        }
    }
}

struct Logger {
    level: LevelFilter,
    format: LogFormat,
    prefix: bool,
    clock: Clock,
    lines: Sender<Message>,
    dropped: AtomicU64,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level && is_own(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let now = self.clock.wall();
        let line = line::format(self.format, self.prefix, now, record);
        match self.lines.try_send(Message::Line(line)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Err(TrySendError::Disconnected(_)) => {}
        }
        self.log_dropped(now);
    }

    fn flush(&self) {
        self.log_dropped(self.clock.wall());
    }
}

impl Logger {
    /// Logs how many lines were dropped, as soon as there is room.
    fn log_dropped(&self, now: i64) {
        if self.dropped.load(Ordering::Relaxed) == 0 || self.lines.is_full() {
            return;
        }
        let count = self.dropped.swap(0, Ordering::Relaxed);
        if count == 0 {
            return;
        }
        let message = format!("{count} log lines were dropped: their reader is too slow");
        let line = line::format(
            self.format,
            self.prefix,
            now,
            &Record::builder().level(log::Level::Warn).args(format_args!("{message}")).build(),
        );
        if self.lines.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl simplelog::SharedLogger for Logger {
    fn level(&self) -> LevelFilter {
        self.level
    }

    fn config(&self) -> Option<&simplelog::Config> {
        None
    }

    fn as_log(self: Box<Self>) -> Box<dyn Log> {
        self
    }
}

fn is_own(target: &str) -> bool {
    target.strip_prefix(OWN_TARGET).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_lines_are_logged() {
        for target in ["audiohook_collector", "audiohook_collector::session"] {
            assert!(is_own(target), "{target}");
        }
        for target in ["ureq", "tungstenite::protocol", "tiny_http", "audiohook_collector_x", ""] {
            assert!(!is_own(target), "{target}");
        }
    }

    #[test]
    fn a_slow_sink_delays_no_thread_and_dropped_lines_are_counted() {
        let (lines, inbox) = bounded(2);
        let logger = Logger {
            level: LevelFilter::Info,
            format: LogFormat::Json,
            prefix: false,
            clock: Clock::manual(0).0,
            lines,
            dropped: AtomicU64::new(0),
        };
        let log_line = || {
            let args = format_args!("x");
            logger.log(&Record::builder().target(OWN_TARGET).level(log::Level::Info).args(args).build());
        };
        for _ in 0..5 {
            log_line();
        }
        assert_eq!(inbox.try_iter().count(), 2);
        log_line();
        let texts: Vec<String> = inbox
            .try_iter()
            .map(|message| match message {
                Message::Line(line) => String::from_utf8(line).expect("UTF-8"),
                Message::Flush(_) => "flush".to_owned(),
            })
            .collect();
        assert!(texts.iter().any(|text| text.contains("3 log lines were dropped")), "{texts:?}");
    }
}
