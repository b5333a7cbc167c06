//! What the process shows of itself: counters that add up, and no thread, descriptor, socket or memory too many.

use std::time::Duration;

use crate::stage::Stage;
use crate::support::{let_pass, poll};

/// A socket that died in silence is found after 45 s without a word and 10 s without a pong, and opened anew.
const SETTLED: Duration = Duration::from_secs(70);
/// Memory of the release binary, in KiB.
pub const MEMORY_KIB: u64 = 24 * 1024;
/// Threads and descriptors beyond those of the first rest.
const THREADS_MORE: u64 = 2;
const DESCRIPTORS_MORE: u64 = 6;

/// What the process needs at rest.
pub struct Rest {
    threads: u64,
    descriptors: u64,
}

impl Rest {
    pub fn of(stage: &Stage) -> Self {
        Self { threads: stage.process("Threads"), descriptors: stage.descriptors() }
    }
}

/// What was received was written, dropped, filtered or kept aside.
pub fn counters(stage: &Stage) -> Result<(), String> {
    let collector = stage.collector.as_ref().ok_or("no collector runs")?;
    let mut shown = String::new();
    let fits = poll(Duration::from_secs(10), || {
        let (_, text) = collector.get("/metrics")?;
        let value = |name: &str| {
            let name = format!("audiohook_collector_events_{name} ");
            text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap_or(u64::MAX / 8)
        };
        let received = value("received_total{source=\"websocket\"}") + value("received_total{source=\"history\"}");
        let judged =
            value("written_total") + value("duplicate_total") + value("filtered_total") + value("unreadable_total");
        shown = format!("{received} received, {judged} judged");
        (received == judged).then_some(())
    });
    fits.ok_or_else(|| format!("the counters do not add up: {shown}"))
}

/// No thread, no descriptor, no socket too many, and no more memory than promised.
pub fn process(stage: &Stage, rest: &Rest) -> Result<(), String> {
    let mut seen = (0, 0, 0);
    let few = poll(SETTLED, || {
        let sockets = stage.sim.view(|view| view.sockets_open());
        seen = (stage.process("Threads"), stage.descriptors(), sockets);
        let fits =
            seen.0 <= rest.threads + THREADS_MORE && seen.1 <= rest.descriptors + DESCRIPTORS_MORE && seen.2 == 1;
        if !fits {
            let_pass(Duration::from_millis(100));
        }
        fits.then_some(())
    });
    if few.is_none() {
        let (threads, descriptors, sockets) = seen;
        return Err(format!(
            "{threads} threads (at first {}), {descriptors} descriptors (at first {}), {sockets} sockets stay",
            rest.threads, rest.descriptors
        ));
    }
    let peak = stage.process("VmHWM");
    let is_release = std::env::var_os("COLLECTOR_BIN").is_some_and(|bin| bin.to_string_lossy().contains("release"));
    if is_release && peak > MEMORY_KIB {
        return Err(format!("{peak} KiB of memory, more than {MEMORY_KIB}"));
    }
    Ok(())
}
