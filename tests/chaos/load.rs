//! The long load: 5,000 events a second for as long as is asked, and a fault every minute.
//!
//! Tens of millions of events are compared by their numbers alone, one bit each. Must never: keep what it has counted.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use audiohook_collector::simulator::{Event, Route};

use crate::cluster::Cluster;
use crate::plan::{Fault, Kind, Random, Slot, is_wanted, kind, only};
use crate::stage::{Shape, Stage};
use crate::support::{let_pass, poll, records};

/// Events a second, in so many bunches.
const RATE: u64 = 5_000;
const BUNCHES: u64 = 50;
/// A fault begins and ends within each of these.
const MINUTE: Duration = Duration::from_secs(60);
const FAULT_BEGINS: Duration = Duration::from_secs(10);
const FAULT_LASTS_MS: (u64, u64) = (1_000, 15_000);
/// All has come by then.
const COMPLETE: Duration = Duration::from_secs(120);
const HEALTHY_AGAIN: Duration = Duration::from_secs(60);
const MEMORY_KIB: u64 = 24 * 1024;
/// Enough to meet every kind.
const DRAWS_MAX: u32 = 2_000;
/// State files go in the first minutes alone.
const STATE_MINUTES: u64 = 3;

/// Which events were seen, by their numbers.
#[derive(Default)]
pub struct Numbers {
    bits: Vec<u64>,
    seen: u64,
    /// Those that came again.
    again: u64,
}

impl Numbers {
    /// Notes the event of a record or document; whether it is new.
    ///
    /// # Panics
    /// When there is no number in it: it is none of this load's.
    pub fn insert(&mut self, record: &[u8]) -> bool {
        const MARK: &[u8] = b"\"current_value\":\"event ";
        let at = record.windows(MARK.len()).position(|window| window == MARK);
        let digits = at.and_then(|at| record.get(at + MARK.len()..at + MARK.len() + 12));
        let number: usize =
            digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or_else(|| {
                panic!("no number in {}", String::from_utf8_lossy(record));
            });
        if self.bits.len() <= number / 64 {
            self.bits.resize(number / 64 + 1024, 0);
        }
        let bit = 1 << (number % 64);
        let is_new = self.bits[number / 64] & bit == 0;
        self.bits[number / 64] |= bit;
        if is_new {
            self.seen += 1
        } else {
            self.again += 1
        }
        is_new
    }

    /// The first of 1 to this number that was not seen.
    fn missing(&self, last: u64) -> Option<u64> {
        (1..=last).find(|number| {
            let word = self.bits.get((*number / 64) as usize).copied().unwrap_or_default();
            word & (1 << (number % 64)) == 0
        })
    }
}

/// What a load can be judged by, and what it leaves time for.
fn is_fit(kind: Kind, minute: u64) -> bool {
    match kind {
        // What was in the file is gone on purpose; what is refused for good has no number in the index.
        Kind::FileDeleted => false,
        // Without a checkpoint all of the files is read again and looked for: of an hour that takes longer than the load.
        Kind::KilledStateDeleted | Kind::KilledStateDamaged | Kind::KilledStateOld => minute < STATE_MINUTES,
        // Later than the overlap of this load.
        Kind::HistoryLags { ms } => ms <= 4_000,
        Kind::DiskSlow { ms } => ms <= 100,
        Kind::Stopped => true,
        kind => kind.slot() != Slot::Clock,
    }
}

pub fn run(seed: u64, minutes: u64) -> ExitCode {
    let indexed = Arc::new(Mutex::new(Numbers::default()));
    let shape = Shape {
        overlap_s: 10,
        max_file_size: "64MiB",
        backup_count: "2000",
        bulk_size: "1000",
        interval_s: "5",
        log_level: "info",
        clock_steps: false,
        keep_issued: false,
    };
    let mut stage = Stage::start(&shape, Cluster::counting(indexed.clone()));
    let mut random = Random::new(seed);
    let only = only();
    println!("seed {seed}: {RATE} events/s for {minutes} minutes; {}", stage.described());
    let begun = Instant::now();
    let (mut issued, mut faults, mut peak_kib) = (0, 0, 0);
    for minute in 0..minutes {
        let is_drawn = |kind: &Kind| is_fit(*kind, minute) && is_wanted(*kind, &only);
        let Some(kind) = (0..DRAWS_MAX).map(|_| kind(&mut random, false)).find(is_drawn) else {
            println!("none of the faults that ONLY names fits into minute {}", minute + 1);
            return ExitCode::FAILURE;
        };
        let fault = Fault { kind, at: 0, lasts: random.between(FAULT_LASTS_MS.0, FAULT_LASTS_MS.1) };
        let starts = begun + MINUTE * minute as u32 + FAULT_BEGINS;
        let ends = starts + Duration::from_millis(fault.lasts);
        let (mut has_begun, mut has_ended) = (false, false);
        while Instant::now() < begun + MINUTE * (minute as u32 + 1) {
            let now = Instant::now();
            if !has_begun && now >= starts {
                stage.begin_fault(&fault);
                has_begun = true;
            }
            if has_begun && !has_ended && now >= ends {
                peak_kib = peak_kib.max(stage.process("VmHWM"));
                stage.heal(&[fault]);
                has_ended = true;
            }
            issued += issue(&stage, begun, issued);
            let_pass(Duration::from_millis(1_000 / BUNCHES));
        }
        faults += 1;
        stage.heal(&[fault]);
        stage.looks.lock().unwrap().clear();
        peak_kib = peak_kib.max(stage.process("VmHWM"));
        let (indexed, again) = {
            let numbers = indexed.lock().unwrap();
            (numbers.seen, numbers.again)
        };
        let reasons = stage.collector.as_ref().and_then(|collector| collector.reasons());
        println!(
            "minute {}: {issued} issued, {indexed} in the index, {again} sent again, {} KiB now, {peak_kib} KiB at most, {:?}; {reasons:?}",
            minute + 1,
            stage.process("VmRSS"),
            fault
        );
    }
    match verdict(&mut stage, &indexed, issued, peak_kib) {
        Ok(()) => {
            println!("seed {seed}: {faults} faults, {issued} events, 0 lost, 0 twice");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("seed {seed}: WRONG: {why}\n{}\nthe files are in {}", stage.log(), stage.folder.path().display());
            std::mem::forget(stage.folder);
            ExitCode::FAILURE
        }
    }
}

/// Issues what is due by now, a millisecond's worth at most at one time; gives how many.
fn issue(stage: &Stage, begun: Instant, issued: u64) -> u64 {
    let due = begun.elapsed().as_millis() as u64 * RATE / 1_000;
    // After a pause of this process's own the rest follows in bunches.
    let count = due.saturating_sub(issued).min(4 * RATE / BUNCHES);
    let now = stage.sim.now();
    let times: Vec<i64> = (0..count).map(|n| now - 10 + (10 * n / count.max(1)) as i64).collect();
    stage.sim.issue_many(Event::numbered("AUDIOHOOK-0001"), &times, Route::Both);
    count
}

fn verdict(stage: &mut Stage, indexed: &Mutex<Numbers>, issued: u64, peak_kib: u64) -> Result<(), String> {
    let collector = stage.collector.as_ref().ok_or("no collector runs")?;
    let healthy =
        poll(HEALTHY_AGAIN, || collector.reasons()?.iter().all(|code| code == "unreadable_frames").then_some(()));
    healthy.ok_or_else(|| format!("not healthy again: {:?}", collector.reasons()))?;
    let all = poll(COMPLETE, || (indexed.lock().unwrap().seen >= issued).then_some(()));
    let in_index = indexed.lock().unwrap();
    println!("the index: {} of {issued}, {} sent again", in_index.seen, in_index.again);
    all.ok_or_else(|| {
        format!("the index has {} of {issued}; the first missing is {:?}", in_index.seen, in_index.missing(issued))
    })?;
    let mut in_file = Numbers::default();
    for path in records::files(&stage.output_file()) {
        count_lines(&path, &mut in_file);
    }
    println!("the file: {} of {issued}, {} twice", in_file.seen, in_file.again);
    if in_file.again > 0 {
        return Err(format!("{} stand in the file twice", in_file.again));
    }
    if let Some(missing) = in_file.missing(issued) {
        return Err(format!("the file has {} of {issued}; the first missing is {missing}", in_file.seen));
    }
    if peak_kib > MEMORY_KIB {
        return Err(format!("{peak_kib} KiB of memory, more than {MEMORY_KIB}"));
    }
    Ok(())
}

fn count_lines(path: &Path, numbers: &mut Numbers) {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).unwrap());
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line).unwrap() > 0 {
        numbers.insert(&line);
        line.clear();
    }
}
