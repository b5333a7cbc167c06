//! Signals as messages of a channel.
//!
//! SIGTERM and SIGINT: stop; a second one ends the process at once, with status 1. Those that follow the first closely are
//! the same one: `timeout` and Ctrl-C under make signal a process and then its whole group. SIGHUP: open the file anew.
//! SIGPIPE is ignored, as the standard library arranges it: a closed pipe is an error of a write. Must never: do the work
//! of a signal in its handler.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, after, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reopen,
}

/// Signals that wait to be heard, at most; the same one twice says nothing more than once.
const WAITING_MAX: usize = 8;

/// What comes so soon after the first stop is the same one.
const SAME_STOP: Duration = Duration::from_millis(100);

/// The status of a process that a second signal ended.
const ENDED_AT_ONCE: i32 = 1;

/// Begins to listen; call it once, before anything that takes time.
///
/// # Errors
/// When the system refuses the handlers or the thread.
pub fn listen() -> io::Result<Receiver<Signal>> {
    let armed = Arc::new(AtomicBool::new(false));
    // Beyond a limit on the size of files a write is to fail, not to kill.
    flag::register(SIGXFSZ, Arc::default())?;
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, ENDED_AT_ONCE, armed.clone())?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (sender, receiver) = bounded(WAITING_MAX);
    crate::thread::spawn("signals", move || {
        let mut unarmed = Some(armed);
        for signal in signals.forever() {
            let heard = if signal == SIGHUP { Signal::Reopen } else { Signal::Stop };
            if heard == Signal::Stop
                && let Some(armed) = unarmed.take()
            {
                arm(armed);
            }
            if let Err(crossbeam_channel::TrySendError::Disconnected(_)) = sender.try_send(heard) {
                break;
            }
        }
    })?;
    Ok(receiver)
}

/// From a moment on, one more signal ends the process, whatever its threads do.
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

    /// One test for all: the handlers belong to the whole process, and a SIGTERM some time later would end it.
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
