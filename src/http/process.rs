//! The numbers that the system keeps of this process, from `/proc`. Where there is none (anything but Linux, or a root
//! without it), there are no numbers.

use std::fs;

use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, getrlimit};

/// The process, now.
#[derive(Debug)]
pub struct Process {
    pub cpu_seconds: f64,
    /// Seconds since 1970.
    pub started_seconds: f64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub threads: u64,
    pub open_fds: usize,
    /// `None`: without a limit.
    pub max_fds: Option<u64>,
}

/// Reads `/proc/self`; `None` where the system has none, or one that reads otherwise.
pub fn read() -> Option<Process> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    // The name in brackets may hold blanks and brackets of its own: fields count from the last one (proc(5)).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    let second = clock_ticks_per_second() as f64;
    let booted: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let number = |name: &str| -> Option<u64> {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.split_ascii_whitespace().next()?.parse().ok()
    };
    Some(Process {
        cpu_seconds: (ticks(14)? + ticks(15)?) / second,
        started_seconds: booted + ticks(22)? / second,
        resident_bytes: number("VmRSS")? * 1024,
        virtual_bytes: number("VmSize")? * 1024,
        threads: number("Threads")?,
        // Less the one that the listing itself takes.
        open_fds: fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1),
        max_fds: getrlimit(Resource::Nofile).current,
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn linux_has_every_number() {
        let process = read().unwrap();
        assert!(process.resident_bytes > 100_000 && process.virtual_bytes >= process.resident_bytes, "{process:?}");
        assert!(
            process.threads >= 1 && process.open_fds >= 3 && process.max_fds.is_none_or(|max| max > 3),
            "{process:?}"
        );
        let now = crate::clock::Clock::system().wall() as f64 / 1000.0;
        assert!((now - 86_400.0..=now + 2.0).contains(&process.started_seconds), "{process:?} at {now}");
    }
}
