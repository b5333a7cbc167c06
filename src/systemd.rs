//! Notifications to systemd: ready, status line, reloading, stopping, watchdog.
//!
//! Without NOTIFY_SOCKET these functions do nothing. A failed notification is logged once and never stops the program.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

/// Maximum bytes of a status line: systemd truncates longer ones.
const STATUS_BYTES_MAX: usize = 400;

/// Local startup is complete: settings, file, lock, port. Also ends a reload.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// Sets the status line that `systemctl status` shows.
pub fn status(text: &str) {
    notify(&[NotifyState::Status(&one_line(text))]);
}

/// A reload has started; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// Shutdown has started.
pub fn stopping(text: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(&one_line(text))]);
}

/// Sends the watchdog keep-alive. Call it only while no thread is stalled.
pub fn watchdog() {
    notify(&[NotifyState::Watchdog]);
}

/// How often to call [`watchdog`]: half of systemd's limit. `None` if systemd's watchdog is off.
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

fn notify(state: &[NotifyState<'_>]) {
    static LOGGED: AtomicBool = AtomicBool::new(false);
    if let Err(error) = sd_notify::notify(state)
        && error.kind() != io::ErrorKind::WouldBlock
        && !LOGGED.swap(true, Ordering::Relaxed)
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
