//! How the cost of an event grows: with its size, with topics, with lines in the file, with the backlog.

use std::fs;
use std::time::Duration;

use super::events::{EVENT_BYTES, Shape, now_ms};
use super::process::pause;
use super::rows::records;
use super::stage::{Lines, Stage, Subject, measure};
use super::table::{Samples, machine};

const DAY_MS: i64 = 86_400_000;
const BURST_BYTES: usize = 64 << 20;

pub fn run(stage: &Stage) {
    println!("{}; {} turns", machine(), stage.options.turns);
    sizes(stage);
    topics(stage);
    lines(stage);
    backlog(stage);
}

fn told(name: &str, cpu: &Samples, beside: &str) {
    println!("{name:<44} {:>9.2} µs an event {:>18} {beside}", cpu.median(), cpu.spread());
}

fn sizes(stage: &Stage) {
    let most = if stage.options.short { 200 } else { usize::MAX };
    for bytes in [300, EVENT_BYTES, 2 * 1024, 8 * 1024, 64 * 1024] {
        let events = (BURST_BYTES / bytes).min(most);
        let frames = Shape { bytes, ..Shape::usual() }.frames(0..events);
        let text = Shape { bytes, ..Shape::usual() }.text(0).len();
        let (mut cpu, mut floor) = (Samples::default(), Samples::default());
        for _ in 0..stage.options.turns {
            floor.add(stage.burst(&Subject::Floor, false, &frames, events, text).cpu_us);
            cpu.add(stage.burst(&Subject::Collector, false, &frames, events, text).cpu_us);
        }
        let beside = format!(
            "{:.2} ns a byte; {:.2} × the floor",
            cpu.median() * 1e3 / bytes as f64,
            cpu.median() / floor.median()
        );
        told(&format!("events of {bytes} bytes"), &cpu, &beside);
    }
}

fn topics(stage: &Stage) {
    for topics in [1, 10, 100, 1000] {
        let frames = Shape { topics, ..Shape::usual() }.frames(0..stage.options.events);
        stage.peer.set_topics(topics);
        let mut cpu = Samples::default();
        for _ in 0..stage.options.turns {
            cpu.add(stage.burst(&Subject::Collector, false, &frames, stage.options.events, EVENT_BYTES).cpu_us);
        }
        told(&format!("{topics} topics"), &cpu, "");
    }
    stage.peer.set_topics(1);
}

fn lines(stage: &Stage) {
    let counts: &[usize] = if stage.options.short { &[10, 1000] } else { &[10, 1000, 100_000, 10_000_000] };
    for count in counts {
        let mut cpu = Samples::default();
        let frames = Shape::usual().frames(0..stage.options.events);
        for _ in 0..stage.options.turns {
            let folder = stage.collected();
            let some = records((*count).min(100_000), now_ms() - DAY_MS);
            let mut all = Vec::with_capacity(some.len() * (count / 100_000).max(1));
            for _ in 0..(count / 100_000).max(1) {
                all.extend_from_slice(&some[1..]);
            }
            fs::write(folder.join("events.jsonl"), &all).unwrap();
            drop(all);
            let (running, mut socket) = stage.connected_in(&Subject::Collector, &folder, &[], false);
            cpu.add(
                measure(&running, &mut socket, &frames, stage.options.events, Lines::open(&running.output, None))
                    .cpu_us,
            );
            running.process.stop();
        }
        told(&format!("{count} lines in the file"), &cpu, "");
    }
}

/// The cluster is away; what does the next event cost when so much waits for it?
fn backlog(stage: &Stage) {
    let steps: &[u64] = if stage.options.short { &[0, 16] } else { &[0, 64, 256, 1024] };
    stage.cluster.set_down(true);
    for mib in steps {
        let (mut cpu, mut peak) = (Samples::default(), Samples::default());
        let frames = Shape::usual().frames(0..stage.options.events);
        for _ in 0..stage.options.turns {
            let folder = stage.collected();
            // Files of ten MiB, as a rotation leaves them, with nothing of them sent: there is no cursor.
            let some = records(40_000, now_ms() - DAY_MS);
            let file: Vec<u8> = some[1..].to_vec();
            let count = mib * 1024 * 1024 / file.len() as u64;
            (1..=count).for_each(|n| fs::write(folder.join(format!("events.jsonl.{n}")), &file).unwrap());
            let settings = [
                ("ELASTIC_URL", stage.cluster.url.as_str()),
                ("BULK_SIZE", "1000"),
                ("MAX_FILE_SIZE", "100GiB"),
                ("ELASTIC_BACKLOG_MAX", "8GiB"),
            ];
            let (running, mut socket) = stage.connected_in(&Subject::Collector, &folder, &settings, false);
            let burst =
                measure(&running, &mut socket, &frames, stage.options.events, Lines::open(&running.output, None));
            cpu.add(burst.cpu_us);
            peak.add(burst.peak_kib as f64 / 1024.0);
            running.process.stop();
            pause(Duration::from_millis(50));
        }
        told(&format!("{mib} MiB of backlog"), &cpu, &format!("{:.1} MiB of memory", peak.median()));
    }
    stage.cluster.set_down(false);
}
