//! What systemd is told of the process: ready, its state in a line, reloading, stopping, alive.
//!
//! Without NOTIFY_SOCKET all of it does nothing. Must never: fail the program; a supervisor that does not listen is its
//! own fault, told once in the log.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

/// Bytes of a state's line: systemd cuts what is longer.
const STATUS_BYTES_MAX: usize = 400;

/// The local parts stand: settings, file, lock, port. Also said when a reload is done.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// The state in one line, as `systemctl status` shows it.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(&one_line(text))]);
}

/// A reload begins; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The end begins.
pub fn stopping(text: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(&one_line(text))]);
}

/// A sign of life; to be given only while no thread is stalled.
pub fn watchdog() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`watchdog`] is to be called: half of what systemd allows. `None`: it does not watch this process.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()).map(|limit| limit / 2)
}

fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    while line.len() > STATUS_BYTES_MAX {
        line.pop();
    }
    line
}

fn tell(state: &[NotifyState<'_>]) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if let Err(error) = sd_notify::notify(state)
        && error.kind() != io::ErrorKind::WouldBlock
        && !TOLD.swap(true, Ordering::Relaxed)
    {
        log::warn!("cannot notify systemd: {error}; systemctl status may be out of date");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_one_line_of_bounded_length() {
        assert_eq!(one_line("a\nREADY=1"), "a READY=1");
        assert_eq!(one_line(&"ü".repeat(400)).len(), STATUS_BYTES_MAX);
    }
}
