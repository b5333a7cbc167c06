//! This process's resource usage, from `/proc`. Where `/proc` is missing (on another system than Linux, or in a root
//! directory without it), there are no numbers.

use std::fs;

use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, getrlimit};

/// A metric's name, help text and value.
pub type Number = (&'static str, &'static str, f64);

/// Reads `/proc/self`; `None` where it is missing or has another format.
pub fn read() -> Option<Vec<Number>> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    // The name in brackets may contain blanks and brackets, so fields are counted from the last bracket (proc(5)).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let seconds = |field: usize| Some(fields.get(field - 3)?.parse::<f64>().ok()? / clock_ticks_per_second() as f64);
    let booted: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let number = |name: &str| -> Option<f64> {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.split_ascii_whitespace().next()?.parse().ok()
    };
    // Without the descriptor that lists the folder.
    let open = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    let mut numbers = vec![
        ("process_cpu_seconds_total", "User and system CPU time, in seconds.", seconds(14)? + seconds(15)?),
        ("process_start_time_seconds", "When the process started, in seconds since 1970.", booted + seconds(22)?),
        ("process_resident_memory_bytes", "Resident memory, in bytes.", number("VmRSS")? * 1024.0),
        ("process_virtual_memory_bytes", "Virtual memory, in bytes.", number("VmSize")? * 1024.0),
        ("process_threads", "Threads.", number("Threads")?),
        ("process_open_fds", "Open file descriptors.", open as f64),
    ];
    let max = getrlimit(Resource::Nofile).current;
    numbers.extend(max.map(|max| ("process_max_fds", "File descriptors that may be open.", max as f64)));
    Some(numbers)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn linux_has_every_number() {
        let numbers = read().unwrap();
        let value = |name: &str| numbers.iter().find(|(other, ..)| *other == name).unwrap().2;
        let resident = value("process_resident_memory_bytes");
        assert!(resident > 100_000.0 && value("process_virtual_memory_bytes") >= resident, "{numbers:?}");
        assert!(value("process_threads") >= 1.0 && value("process_open_fds") >= 3.0, "{numbers:?}");
        let now = crate::clock::Clock::system().wall() as f64 / 1000.0;
        assert!((now - 86_400.0..=now + 2.0).contains(&value("process_start_time_seconds")), "{numbers:?} at {now}");
    }
}
