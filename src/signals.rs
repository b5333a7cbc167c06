//! Signals as messages of a channel.
//!
//! SIGTERM and SIGINT: stop; the second of them ends the process at once, with status 1. SIGHUP: open the file anew.
//! SIGPIPE is ignored, as the standard library arranges it: a closed pipe is an error of a write. Must never: do the work
//! of a signal in its handler.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam_channel::{Receiver, bounded};
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

/// The status of a process that a second signal ended.
const ENDED_AT_ONCE: i32 = 1;

/// Begins to listen; call it once, before anything that takes time.
///
/// # Errors
/// When the system refuses the handlers or the thread.
pub fn listen() -> io::Result<Receiver<Signal>> {
    let stopping = Arc::new(AtomicBool::new(false));
    // Beyond a limit on the size of files a write is to fail, not to kill.
    flag::register(SIGXFSZ, Arc::default())?;
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal finds the flag down and raises it, the second finds it up.
        flag::register_conditional_shutdown(signal, ENDED_AT_ONCE, stopping.clone())?;
        flag::register(signal, stopping.clone())?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (sender, receiver) = bounded(WAITING_MAX);
    crate::thread::spawn("signals", move || {
        for signal in signals.forever() {
            let heard = if signal == SIGHUP { Signal::Reopen } else { Signal::Stop };
            if let Err(crossbeam_channel::TrySendError::Disconnected(_)) = sender.try_send(heard) {
                break;
            }
        }
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Sent, getpid, kill_process};
    use std::time::Duration;

    /// One test for all: the handlers belong to the whole process, and a second SIGTERM would end it.
    #[test]
    fn signals_arrive_as_messages() {
        let signals = listen().expect("listens");
        for (sent, heard) in [(Sent::HUP, Signal::Reopen), (Sent::HUP, Signal::Reopen), (Sent::TERM, Signal::Stop)] {
            kill_process(getpid(), sent).expect("sent");
            assert_eq!(signals.recv_timeout(Duration::from_secs(5)), Ok(heard));
        }
    }
}
