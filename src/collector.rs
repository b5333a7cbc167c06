//! The only module that knows all stages: it starts the threads, connects their channels, and stops them.
//!
//! Deals with: the start order (local resources first, so that errors appear before any network traffic), the stop, and
//! notifying systemd. Must never: wait for a thread that may hang in the network.

use std::convert::identity;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, after, bounded, select};
use log::Level;

use crate::clock::Clock;
use crate::config::Config;
use crate::event::Redaction;
use crate::genesys::session;
use crate::http::Bound;
use crate::message::Address;
use crate::net::Dialer;
use crate::output::{Lock, regular};
use crate::signals::Signal;
use crate::status::{Problem, Status, backfill};
use crate::writer::{Inbox, Writer};
use crate::{http, reader, systemd, thread};

/// Maximum number of batches waiting for the writer. Each holds one or two reads of the socket, at most about 256 KiB.
const BATCHES_MAX: usize = 4;
/// Maximum number of history pages waiting for the writer.
const PAGES_MAX: usize = 2;
/// Maximum number of events waiting for the session. Their senders never wait for room.
const SESSION_EVENTS_MAX: usize = 64;
/// How long a stop waits for the writer, which has shorter limits of its own.
const STOP_MAX: Duration = Duration::from_millis(4500);
/// How often systemd's status line is updated and the threads' heartbeats are checked.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Why the collector could not start.
enum Fault {
    /// A wrong setting: nothing was started.
    Setting(Problem),
    Other(Problem),
}

/// A stage that has ended.
struct Ended {
    stage: &'static str,
    result: Result<(), Problem>,
}

/// Runs the collector until a signal stops it, or a stage ends early.
pub fn run(config: Config, signals: Receiver<Signal>) -> ExitCode {
    run_on(config, None, signals)
}

/// The same on an already bound port: HTTP_PORT of this configuration.
pub fn run_on(config: Config, bound: Option<Bound>, signals: Receiver<Signal>) -> ExitCode {
    match Collector::start(config, bound) {
        Ok(collector) => collector.watch(signals),
        Err(Fault::Setting(problem)) => {
            problem.log(Level::Error, &problem.what);
            ExitCode::from(2)
        }
        Err(Fault::Other(problem)) => {
            problem.log(Level::Error, &problem.what);
            ExitCode::FAILURE
        }
    }
}

const BUG: &str = "Report this: it is a bug in the collector.";

struct Collector {
    status: Arc<Status>,
    /// Dropped to stop every stage.
    stop: Sender<()>,
    reopen: Sender<()>,
    ended: Receiver<Ended>,
}

impl Collector {
    fn start(config: Config, bound: Option<Bound>) -> Result<Self, Fault> {
        let clock = Clock::system();
        let config = Arc::new(config);
        let status = Arc::new(Status::new(clock.clone(), config.elastic.is_some()).named(&config.instance));
        regular::check_replaceable(&config.output.state_file).map_err(|error| {
            Fault::Setting(Problem::new(
                format!(
                    "STATE_FILE={}: can be neither replaced nor written: {error}",
                    config.output.state_file.display()
                ),
                "Set STATE_FILE to a file in a folder that the user that runs the collector may write to.",
            ))
        })?;
        let dialer = Dialer::new(&config.network).map_err(Fault::Setting)?;
        let dialer = Arc::new(dialer);
        let (session_in, session) = bounded(SESSION_EVENTS_MAX);
        // Bind before creating any file, so that a port in use leaves none behind. But if a second collector has the
        // first one's settings, report the file instead: the two must not share it.
        let bound = bound.map_or_else(|| http::bind(&config.http), Ok);
        if let Err(error) = &bound
            && !matches!(Lock::holder(&config.output.file), Ok(Some(_)))
        {
            return Err(Fault::Other(error.clone()));
        }
        let (mut writer, start) =
            Writer::open(config.clone(), status.clone(), clock.clone(), session_in.clone()).map_err(Fault::Other)?;
        let bound = bound.map_err(Fault::Other)?;

        let (stop, stopped) = bounded::<()>(0);
        let (reopen, reopened) = bounded(1);
        let (frames_in, frames) = bounded(BATCHES_MAX);
        let (pages_in, pages) = bounded(PAGES_MAX);
        let (ended_in, ended) = bounded(4);
        let refused = |stage: &str, error| {
            let what = format!("cannot start the {stage} thread: {error}");
            Fault::Other(Problem::new(what, "Check the limits on threads, memory and open files."))
        };

        if let Some(thread) = writer.start_indexer().map_err(Fault::Other)? {
            watch("indexer", thread, Ok, ended_in.clone()).map_err(|e| refused("indexer", e))?;
        }
        let inbox = Inbox { frames, session: pages, reopen: reopened, stop: stopped.clone() };
        let handle = thread::spawn("writer", move || writer.run(inbox)).map_err(|e| refused("writer", e))?;
        watch("writer", handle, identity, ended_in.clone()).map_err(|e| refused("writer", e))?;

        let handle = http::start(bound, status.clone(), clock.clone(), config.http.token.clone(), stopped.clone())
            .map_err(|e| refused("http", e))?;
        watch("http", handle, Ok, ended_in.clone()).map_err(|e| refused("http", e))?;

        let redaction = Redaction::new(&config.output.redact_fields);
        backfill::start(status.clone(), config.output.file.clone(), redaction, stopped.clone())
            .map_err(|e| refused("counts", e))?;

        let open = {
            let context = reader::Context {
                dialer: dialer.clone(),
                out: frames_in,
                session: session_in,
                status: status.clone(),
                clock: clock.clone(),
                stop: stopped.clone(),
            };
            Box::new(move |address: Address| reader::start(address, context.clone()))
        };
        let handle = session::start(session::Setup {
            config: config.clone(),
            start,
            dialer,
            to_writer: pages_in,
            inbox: session,
            open,
            status: status.clone(),
            clock,
            stop: stopped,
        })
        .map_err(|e| refused("session", e))?;
        watch("session", handle, Ok, ended_in).map_err(|e| refused("session", e))?;

        log::info!(
            "collecting into {}; health at http://{}:{}/health",
            config.output.file.display(),
            config.http.host,
            config.http.port
        );
        systemd::ready(&status.line());
        Ok(Self { status, stop, reopen, ended })
    }

    /// Forwards signals, notifies systemd, and waits for a stage to end.
    fn watch(self, signals: Receiver<Signal>) -> ExitCode {
        let watchdog = systemd::watchdog_interval();
        let tell_every = watchdog.map_or(TELL_EVERY, |watchdog| watchdog.min(TELL_EVERY));
        loop {
            let tell = after(tell_every);
            select! {
                recv(signals) -> signal => match signal {
                    Ok(Signal::Reopen) => {
                        systemd::reloading();
                        let _ = self.reopen.try_send(());
                        systemd::ready(&self.status.line());
                    }
                    Ok(Signal::Stop) | Err(_) => return self.stop(),
                },
                recv(self.ended) -> ended => return self.fail(ended.ok()),
                recv(tell) -> _ => {
                    // Check for stalled threads even without systemd, because the check also logs them.
                    systemd::status(&self.status.line());
                    if self.status.beats.stalled().is_none() {
                        systemd::watchdog();
                    }
                }
            }
        }
    }

    /// Stops after everything received is in the file. A stage that hangs in the network is abandoned.
    fn stop(self) -> ExitCode {
        log::info!("stopping");
        systemd::stopping("writing what was received");
        drop(self.stop);
        match wait_for_writer(&self.ended) {
            Ok(()) => {
                log::info!("stopped: everything received is in the file");
                ExitCode::SUCCESS
            }
            Err(problem) => {
                problem.log(Level::Error, &problem.what);
                ExitCode::FAILURE
            }
        }
    }

    /// A stage ended early: exits the program, so that its supervisor restarts it.
    fn fail(self, ended: Option<Ended>) -> ExitCode {
        let (stage, result) = ended.map_or(("unknown", Ok(())), |ended| (ended.stage, ended.result));
        match result {
            Err(problem) => problem.log(Level::Error, format_args!("the {stage} thread ended: {}", problem.what)),
            Ok(()) => Problem::new("", BUG).log(Level::Error, format_args!("the {stage} thread ended early")),
        }
        systemd::stopping("a thread ended early");
        drop(self.stop);
        if stage != "writer"
            && let Err(problem) = wait_for_writer(&self.ended)
        {
            problem.log(Level::Error, &problem.what);
        }
        ExitCode::FAILURE
    }
}

fn wait_for_writer(ended: &Receiver<Ended>) -> Result<(), Problem> {
    let deadline = std::time::Instant::now() + STOP_MAX;
    loop {
        match ended.recv_deadline(deadline) {
            Ok(Ended { stage: "writer", result }) => return result,
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => {
                let what = "the writer did not stop in time; events that it held are read from the history after the next start";
                return Err(Problem::new(what, "Check for a hung disk or network file system."));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(Problem::new("the writer thread ended early", BUG)),
        }
    }
}

/// Reports the end of a stage's thread, even by a panic. `outcome` converts the thread's result.
fn watch<T: Send + 'static>(
    stage: &'static str,
    handle: JoinHandle<T>,
    outcome: fn(T) -> Result<(), Problem>,
    ended: Sender<Ended>,
) -> std::io::Result<()> {
    thread::spawn(&format!("{stage}-end"), move || {
        let result = match handle.join() {
            Ok(value) => outcome(value),
            Err(_) => Err(Problem::new("it panicked", BUG)),
        };
        let _ = ended.send(Ended { stage, result });
    })
    .map(drop)
}
