//! The rows of the table, in the order in which they are printed.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use super::events::{EVENT_BYTES, Shape, now_ms};
use super::latency;
use super::peer::{History, drain};
use super::process::{pause, wait_until};
use super::stage::{Burst, Lines, Stage, Subject, measure};
use super::table::{Mark, Samples, head, machine, note, row};

const DAY_MS: i64 = 86_400_000;
/// Documents of a bulk request.
const BULK_SIZE: &str = "1000";

pub fn run(stage: &Stage) {
    let begun = Instant::now();
    println!("{}; {} turns", machine(), stage.options.turns);
    head();
    let floor_cpu_us = bursts(stage);
    let wants = |name: &str| stage.options.wants(name);
    if wants("flood") {
        flood(stage);
    }
    if wants("cluster") {
        cluster(stage, floor_cpu_us);
    }
    if wants("latency") {
        latency_rows(stage);
    }
    if wants("history") {
        history(stage, floor_cpu_us);
    }
    if wants("outage") {
        outage(stage);
    }
    if wants("start") {
        start(stage);
    }
    if wants("files") {
        files(stage);
    }
    if wants("rest") {
        rest(stage);
    }
    println!("{:.0} s in all", begun.elapsed().as_secs_f64());
}

/// What a kind of subject showed over the turns.
#[derive(Default)]
struct Taken {
    events_per_s: Samples,
    cpu_us: Samples,
    peak_mib: Samples,
}

impl Taken {
    fn add(&mut self, burst: Burst) {
        self.events_per_s.add(burst.events_per_s);
        self.cpu_us.add(burst.cpu_us);
        self.peak_mib.add(burst.peak_kib as f64 / 1024.0);
    }

    fn told(&self, name: &str) {
        note(&format!(
            "{name}: {:.0} events/s ({}), {:.2} µs of CPU an event ({}), {:.1} MiB",
            self.events_per_s.median(),
            self.events_per_s.spread(),
            self.cpu_us.median(),
            self.cpu_us.spread(),
            self.peak_mib.median()
        ));
    }
}

/// The bursts, plain and over TLS; gives the floor's CPU an event, on which other rows stand.
fn bursts(stage: &Stage) -> f64 {
    let (events, turns) = (stage.options.events, stage.options.turns);
    let frames = Shape::usual().frames(0..events);
    if stage.options.wants("burst") {
        sender(stage, &frames, events);
    }
    let mut plain_floor = f64::NAN;
    for (name, tls) in [("plain", false), ("TLS", true)] {
        if tls && !stage.options.wants("burst") {
            break;
        }
        let mut subjects = vec![
            (Subject::Floor, Taken::default()),
            (Subject::Collector, Taken::default()),
            (Subject::Limit, Taken::default()),
        ];
        if !stage.options.compare.is_empty() {
            subjects.push((Subject::Other(stage.options.compare.clone()), Taken::default()));
        }
        let (mut rates, mut cpus) = (Samples::default(), Samples::default());
        for _ in 0..turns {
            let mut found = Vec::new();
            for (subject, taken) in &mut subjects {
                let burst = stage.burst(subject, tls, &frames, events, EVENT_BYTES);
                taken.add(burst);
                found.push(burst);
            }
            rates.add(found[1].events_per_s / found[0].events_per_s);
            cpus.add(found[1].cpu_us / found[0].cpu_us);
        }
        if !tls {
            plain_floor = subjects[0].1.cpu_us.median();
        }
        if !stage.options.wants("burst") {
            break;
        }
        let least = if tls { 0.50 } else { 0.45 };
        row(
            &format!("burst, {name}: events/s to the floor's"),
            "",
            rates.median(),
            Mark::AtLeast(least),
            &rates.spread(),
        );
        let most = if tls { Mark::None } else { Mark::AtMost(3.5) };
        row(&format!("burst, {name}: CPU an event to the floor's"), "×", cpus.median(), most, &cpus.spread());
        subjects[0].1.told("the floor");
        subjects[1].1.told("the collector");
        subjects[2].1.told("the limit");
        if let Some((Subject::Other(words), taken)) = subjects.get(3) {
            taken.told(&words.join(" "));
            let cpu = taken.cpu_us.median() / subjects[0].1.cpu_us.median();
            note(&format!("that is {cpu:.1} × the floor's CPU, where the collector takes {:.1} ×", cpus.median()));
        }
    }
    plain_floor
}

/// How fast the sender is when nothing is done with what it sends.
fn sender(stage: &Stage, frames: &[u8], events: usize) {
    let mut rates = Samples::default();
    for _ in 0..stage.options.turns {
        let address = stage.peer.address(false).to_owned();
        let tcp = std::net::TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(5)).unwrap();
        let reader = tcp.try_clone().unwrap();
        let _client = tungstenite::client(format!("ws://{address}/"), tcp).unwrap();
        let mut socket = stage.peer.socket();
        let begun = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| socket.write_all(frames));
            drain(reader, frames.len());
        });
        rates.add(events as f64 / begun.elapsed().as_secs_f64());
    }
    row("the sender alone: events/s", "/s", rates.median(), Mark::None, &rates.spread());
}

/// Memory at full speed, for long enough to fill everything that has a bound.
fn flood(stage: &Stage) {
    const CHUNK: usize = 50_000;
    let events = stage.options.history;
    let (running, mut socket) = stage.connected(&Subject::Collector, &[], true);
    let shape = Shape::usual();
    let mut lines = Lines::open(&running.output, None);
    running.process.reset_peak();
    let all = std::thread::scope(|scope| {
        scope.spawn(|| {
            for from in (0..events).step_by(CHUNK) {
                let _ = socket.write_all(&shape.frames(from..(from + CHUNK).min(events)));
            }
        });
        wait_until(Duration::from_secs(60), || lines.count() >= events)
    });
    assert!(all, "{} of {events} events came", lines.count());
    let peak = running.process.memory_kib().1 as f64 / 1024.0;
    row(&format!("memory at full speed, {events} events over TLS"), "MiB", peak, Mark::AtMost(24.0), "");
    running.process.stop();
}

fn cluster(stage: &Stage, floor_cpu_us: f64) {
    let events = stage.options.events;
    let frames = Shape::usual().frames(0..events);
    let (mut cpus, mut rates, mut peaks) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..stage.options.turns {
        let settings = [("ELASTIC_URL", stage.cluster.url.as_str()), ("BULK_SIZE", BULK_SIZE)];
        let (running, mut socket) = stage.connected(&Subject::Collector, &settings, false);
        stage.cluster.take_documents();
        running.process.reset_peak();
        let (cpu, begun) = (running.process.cpu(), Instant::now());
        let all = std::thread::scope(|scope| {
            scope.spawn(|| socket.write_all(&frames));
            wait_until(Duration::from_secs(60), || stage.cluster.documents() >= events as u64)
        });
        assert!(all, "{} of {events} documents came", stage.cluster.documents());
        rates.add(events as f64 / begun.elapsed().as_secs_f64());
        cpus.add((running.process.cpu() - cpu).as_secs_f64() * 1e6 / events as f64 / floor_cpu_us);
        peaks.add(running.process.memory_kib().1 as f64 / 1024.0);
        running.process.stop();
    }
    row("to the cluster: CPU an event to the floor's", "×", cpus.median(), Mark::AtMost(10.0), &cpus.spread());
    note(&format!("{:.0} events/s, {:.1} MiB", rates.median(), peaks.median()));
}

fn latency_rows(stage: &Stage) {
    let events = stage.options.events / 100;
    let mut found = Vec::new();
    let (mut middle, mut late) = (Samples::default(), Samples::default());
    for _ in 0..stage.options.turns {
        let alone = latency::measure(stage, None, events);
        let through = latency::measure(stage, Some(&Subject::Collector), events);
        middle.add(through.median() - alone.median());
        late.add(through.at(0.99) - alone.at(0.99));
        found.push((alone, through));
    }
    row("1,000/s: sent to written, p50 over the harness", "ms", middle.median(), Mark::AtMost(0.3), &middle.spread());
    row("1,000/s: sent to written, p99 over the harness", "ms", late.median(), Mark::AtMost(1.0), &late.spread());
    if let Some((alone, through)) = found.last() {
        let told = |samples: &Samples| format!("{:.3} and {:.3} ms", samples.median(), samples.at(0.99));
        note(&format!(
            "p50 and p99 of the last turn: the harness alone {}; the collector {}",
            told(alone),
            told(through)
        ));
    }
    if !stage.options.compare.is_empty() {
        let other = latency::measure(stage, Some(&Subject::Other(stage.options.compare.clone())), events);
        note(&format!("{}: {:.3} and {:.3} ms", stage.options.compare.join(" "), other.median(), other.at(0.99)));
    }
}

fn history(stage: &Stage, floor_cpu_us: f64) {
    let count = stage.options.history;
    let (mut cpus, mut peaks, mut rates) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..stage.options.turns.min(3) {
        // Ten days, some minutes apart from either end: what is about to be forgotten is not asked for.
        let span_ms = 10 * DAY_MS - 600_000;
        let from_ms = now_ms() - 10 * DAY_MS + 300_000;
        stage.peer.set_history(Some(History { from_ms, step_ms: span_ms / count as i64, count }));
        let settings = [("GENESYS_DELIVERY", "history"), ("CATCH_UP_START", "864000")];
        let begun = Instant::now();
        let running = stage.collector(&stage.fresh(), &settings);
        let mut lines = Lines::open(&running.output, None);
        let all = wait_until(Duration::from_secs(120), || lines.count() >= count);
        assert!(all, "{} of {count} events of the history came", lines.count());
        rates.add(count as f64 / begun.elapsed().as_secs_f64());
        cpus.add(running.process.cpu().as_secs_f64() * 1e6 / count as f64 / floor_cpu_us);
        peaks.add(running.process.memory_kib().1 as f64 / 1024.0);
        running.process.stop();
        stage.peer.set_history(None);
    }
    let name = format!("catch-up of {count} events: CPU an event to the floor's");
    row(&name, "×", cpus.median(), Mark::AtMost(6.0), &cpus.spread());
    row("catch-up: memory", "MiB", peaks.median(), Mark::AtMost(24.0), &peaks.spread());
    note(&format!("{:.0} events/s", rates.median()));
}

/// Memory while the cluster is away and a backlog grows, and while the cluster takes it.
fn outage(stage: &Stage) {
    const STEPS: usize = 8;
    /// Bytes of a record, about.
    const RECORD_BYTES: u64 = 900;
    let wanted = stage.options.backlog_mib * 1024 * 1024;
    let settings = [
        ("ELASTIC_URL", stage.cluster.url.as_str()),
        ("BULK_SIZE", BULK_SIZE),
        ("MAX_FILE_SIZE", "10MiB"),
        ("ELASTIC_BACKLOG_MAX", "4GiB"),
    ];
    stage.cluster.take_documents();
    stage.cluster.set_down(true);
    let folder = stage.fresh();
    let (running, mut socket) = stage.connected_in(&Subject::Collector, &folder, &settings, false);
    running.process.reset_peak();
    let shape = Shape::usual();
    let size = || files_bytes(&folder);
    let (mut sent, mut seen) = (0, Vec::new());
    for step in 1..=STEPS {
        let target = wanted * step as u64 / STEPS as u64;
        while size() < target {
            let more = ((target - size()) / RECORD_BYTES).clamp(500, 50_000) as usize;
            socket.write_all(&shape.frames(sent..sent + more)).unwrap();
            sent += more;
            pause(Duration::from_millis(20));
        }
        seen.push(format!("{:.1}", running.process.memory_kib().1 as f64 / 1024.0));
    }
    let full = running.process.memory_kib().1 as f64 / 1024.0;
    row(&format!("memory with {} MiB of backlog", stage.options.backlog_mib), "MiB", full, Mark::AtMost(24.0), "");
    note(&format!("at each eighth of it: {} MiB", seen.join(", ")));
    stage.cluster.set_down(false);
    let begun = Instant::now();
    let all = wait_until(Duration::from_secs(120), || stage.cluster.documents() >= sent as u64);
    let drained = running.process.memory_kib().1 as f64 / 1024.0;
    row("memory while the cluster takes the backlog", "MiB", drained, Mark::AtMost(24.0), "");
    let told = if all { "all of it" } else { "NOT all of it" };
    note(&format!("it had {told} after {:.1} s", begun.elapsed().as_secs_f64()));
    running.process.stop();
    let _ = fs::remove_dir_all(folder);
}

fn files_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let outputs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("events.jsonl"));
    outputs.map(|entry| entry.metadata().map_or(0, |meta| meta.len())).sum()
}

/// A file of this size whose last records are these, and whose first is one too; what is between them is a hole that
/// nobody has a reason to read.
fn file_of(path: &Path, bytes: u64, last: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(&records(1, now_ms() - 9 * DAY_MS)[1..]).unwrap();
    file.set_len(bytes).unwrap();
    file.seek(SeekFrom::Start(bytes - last.len() as u64)).unwrap();
    file.write_all(last).unwrap();
}

/// So many lines as the collector writes them, from this time on. They begin with a line feed: behind a hole.
pub fn records(count: usize, from_ms: i64) -> Vec<u8> {
    let mut lines = vec![b'\n'];
    for n in 0..count {
        let at = audiohook_collector::clock::format_millis(from_ms + n as i64);
        let line = format!(
            r#"{{"timestamp":"{at}","event_type":"audiohook_operational","event_id":"AUDIOHOOK-0001","source":"websocket","received_at":"{at}","id":"{n:032x}","raw_event":{{}}}}"#
        );
        lines.extend_from_slice(line.as_bytes());
        lines.push(b'\n');
    }
    lines
}

/// From the start of the process to READY, in ms.
fn ready_ms(stage: &Stage, folder: &Path) -> f64 {
    let path = folder.join("notify");
    let _ = fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let begun = Instant::now();
    let running = stage.collector(folder, &[("NOTIFY_SOCKET", &path.display().to_string()), ("BACKUP_COUNT", "10")]);
    let mut buffer = [0; 4096];
    loop {
        let read = socket.recv(&mut buffer).expect("READY within 20 s");
        if String::from_utf8_lossy(&buffer[..read]).contains("READY=1") {
            break;
        }
    }
    let elapsed = begun.elapsed();
    running.process.stop();
    elapsed.as_secs_f64() * 1e3
}

fn start(stage: &Stage) {
    let size: u64 = if stage.options.short { 1 << 20 } else { 100 << 20 };
    let (mut full, mut empty) = (Samples::default(), Samples::default());
    for _ in 0..stage.options.turns {
        empty.add(ready_ms(stage, &stage.fresh()));
        let folder = stage.collected();
        let line = records(1000, now_ms() - DAY_MS);
        // Real lines, all through: what is not read must not cost anything, hole or not.
        let real: Vec<u8> = line.iter().copied().cycle().take(size as usize / line.len() * line.len()).collect();
        fs::write(folder.join("events.jsonl"), &real).unwrap();
        for n in 1..=10 {
            fs::write(folder.join(format!("events.jsonl.{n}")), &real).unwrap();
        }
        full.add(ready_ms(stage, &folder));
        let _ = fs::remove_dir_all(folder);
    }
    row("start to READY, 10 backups of 100 MiB", "ms", full.median(), Mark::AtMost(200.0), &full.spread());
    note(&format!("with no file at all {:.1} ms ({})", empty.median(), empty.spread()));
}

/// What an event costs beside no files, and beside 10 GiB of them.
fn files(stage: &Stage) {
    let events = stage.options.events;
    let each: u64 = if stage.options.short { 1 << 20 } else { 1 << 30 };
    let frames = Shape::usual().frames(0..events);
    let mut ratios = Samples::default();
    for _ in 0..stage.options.turns {
        let cost = |with_files: bool| {
            let folder = stage.collected();
            if with_files {
                // More than `/events` shows: it is filled from the files at the start.
                let last = records(3000, now_ms() - DAY_MS);
                file_of(&folder.join("events.jsonl"), each, &last);
                (1..10).for_each(|n| file_of(&folder.join(format!("events.jsonl.{n}")), each, &last));
            }
            let (running, mut socket) =
                stage.connected_in(&Subject::Collector, &folder, &[("BACKUP_COUNT", "10")], false);
            let burst = measure(&running, &mut socket, &frames, events, Lines::open(&running.output, None));
            running.process.stop();
            burst.cpu_us
        };
        let none = cost(false);
        ratios.add(cost(true) / none);
    }
    row("CPU an event, 10 GiB of files to none", "×", ratios.median(), Mark::AtMost(1.05), &ratios.spread());
}

/// Nothing happens: memory, CPU, and how often it wakes up.
fn rest(stage: &Stage) {
    let (running, socket) = stage.connected(&Subject::Collector, &[], false);
    pause(Duration::from_secs(if stage.options.short { 1 } else { 5 }));
    let (cpu, wake_ups, begun) = (running.process.cpu(), running.process.wake_ups(), Instant::now());
    pause(Duration::from_secs(stage.options.rest_s));
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = (running.process.cpu() - cpu).as_secs_f64();
    let wake_ups = (running.process.wake_ups() - wake_ups) as f64;
    let memory = running.process.memory_kib().0 as f64 / 1024.0;
    row("at rest: memory", "MiB", memory, Mark::AtMost(10.0), "");
    row("at rest: CPU of a core", "%", 100.0 * cpu / seconds, Mark::AtMost(0.05), "");
    row("at rest: wake-ups a second", "/s", wake_ups / seconds, Mark::AtMost(3.0), "");
    drop(socket);
    running.process.stop();
}
