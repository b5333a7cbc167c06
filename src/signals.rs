//! Signals, delivered as messages on a channel. Must never: do a signal's work in its handler.
//!
//! SIGTERM and SIGINT stop the program; a second one ends the process at once, with status 1. Repeats within 100 ms
//! count as one signal: `timeout` and Ctrl-C under make signal a process and then its whole group. SIGHUP reopens the
//! output file. The standard library ignores SIGPIPE, so writing to a closed pipe returns an error.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, after, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// The action that a signal requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reopen,
}

/// Maximum number of queued signals; more are dropped, since a repeated signal adds nothing.
const WAITING_MAX: usize = 8;

/// Stop signals this soon after the first one count as the same signal.
const SAME_STOP: Duration = Duration::from_millis(100);

/// Exit status after a second stop signal.
const ENDED_AT_ONCE: i32 = 1;

/// Installs the handlers. Call it once, before any slow work.
///
/// # Errors
/// When a handler or the thread cannot be set up.
pub fn listen() -> io::Result<Receiver<Signal>> {
    let armed = Arc::new(AtomicBool::new(false));
    // With SIGXFSZ handled, a write beyond the file size limit fails instead of killing the process.
    flag::register(SIGXFSZ, Arc::default())?;
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, ENDED_AT_ONCE, armed.clone())?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (sender, receiver) = bounded(WAITING_MAX);
    crate::thread::spawn("signals", move || {
        let mut unarmed = Some(armed);
        for signal in signals.forever() {
            let request = if signal == SIGHUP { Signal::Reopen } else { Signal::Stop };
            if request == Signal::Stop
                && let Some(armed) = unarmed.take()
            {
                arm(armed);
            }
            if let Err(crossbeam_channel::TrySendError::Disconnected(_)) = sender.try_send(request) {
                break;
            }
        }
    })?;
    Ok(receiver)
}

/// After [`SAME_STOP`], lets one more stop signal end the process, even if its threads hang.
fn arm(armed: Arc<AtomicBool>) {
    let in_time = armed.clone();
    let waiting = crate::thread::spawn("signals-again", move || {
        let _ = after(SAME_STOP).recv();
        in_time.store(true, Ordering::SeqCst);
    });
    if waiting.is_err() {
        armed.store(true, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Sent, getpid, kill_process};

    /// A single test: handlers are process-wide, and a later SIGTERM would end the test process.
    #[test]
    fn signals_arrive_as_messages() {
        let signals = listen().expect("listens");
        for (sent, heard) in [(Sent::HUP, Signal::Reopen), (Sent::HUP, Signal::Reopen), (Sent::TERM, Signal::Stop)] {
            kill_process(getpid(), sent).expect("sent");
            assert_eq!(signals.recv_timeout(Duration::from_secs(5)), Ok(heard));
        }
        kill_process(getpid(), Sent::INT).expect("sent");
        assert_eq!(signals.recv_timeout(Duration::from_secs(5)), Ok(Signal::Stop), "the same stop once more");
    }
}
