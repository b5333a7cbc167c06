//! A child process, and what the kernel counts of it.
//!
//! Deals with: CPU time to the nanosecond (of the threads that live), memory, and how often its threads woke up.
//! Linux only: all of it is read from /proc.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::after;

/// A running child; killed when dropped.
pub struct Process(Child);

impl Process {
    pub fn start(mut command: Command) -> Self {
        let shown = format!("{command:?}");
        let stderr = if std::env::var_os("BENCH_STDERR").is_some() { Stdio::inherit() } else { Stdio::null() };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
        Self(child.unwrap_or_else(|error| panic!("cannot start {shown}: {error}")))
    }

    fn each_thread(&self, file: &str, mut take: impl FnMut(&str)) {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.0.id())) else { return };
        for thread in threads.flatten() {
            if let Ok(text) = fs::read_to_string(thread.path().join(file)) {
                take(&text);
            }
        }
    }

    /// User and system time of its threads so far.
    pub fn cpu(&self) -> Duration {
        let mut ns = 0;
        self.each_thread("schedstat", |text| {
            ns += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
        });
        Duration::from_nanos(ns)
    }

    /// How often its threads waited and were woken.
    pub fn wake_ups(&self) -> u64 {
        let mut count = 0;
        self.each_thread("status", |text| count += field(text, "voluntary_ctxt_switches:"));
        count
    }

    /// Memory in use now, and at the most since [`Process::reset_peak`], in KiB.
    pub fn memory_kib(&self) -> (u64, u64) {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        (field(&text, "VmRSS:"), field(&text, "VmHWM:"))
    }

    pub fn reset_peak(&self) {
        let _ = fs::write(format!("/proc/{}/clear_refs", self.0.id()), "5");
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// SIGTERM, and its end.
    pub fn stop(mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        wait_until(Duration::from_secs(6), || !self.is_running());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The number in a line of a status file.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

pub fn pause(time: Duration) {
    let _ = after(time).recv();
}

/// Looks each half millisecond whether it is so; `false` when it was not in time.
pub fn wait_until(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        pause(Duration::from_micros(500));
    }
    true
}
