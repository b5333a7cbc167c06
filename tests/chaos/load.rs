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
use crate::plan::{Fault, Kind, Random, Target, is_wanted, kind, only};
use crate::stage::{Shape, Stage};
use crate::support::{let_pass, poll, records};
use crate::verdict::dead_letters;
use crate::vitals::{self, MEMORY_KIB, Rest};

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
/// Memory is flat: in the last third of the minutes no more is resident, in the mean, than in the second, but for this.
const MEMORY_GROWS_KIB: u64 = 1_536;
/// One of so many events the cluster refuses for good.
const REFUSED_EVERY: usize = 10_000;
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

/// The number of a record's event.
///
/// # Panics
/// When there is none in it: it is none of this load's.
pub fn number(record: &[u8]) -> usize {
    const MARK: &[u8] = b"\"current_value\":\"event ";
    let at = record.windows(MARK.len()).position(|window| window == MARK);
    let digits = at.and_then(|at| record.get(at + MARK.len()..at + MARK.len() + 12));
    digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or_else(|| {
        panic!("no number in {}", String::from_utf8_lossy(record));
    })
}

/// Whether the cluster refuses this event for good.
pub fn is_refused(number: usize) -> bool {
    number.is_multiple_of(REFUSED_EVERY)
}

impl Numbers {
    /// Notes the event of a record or document; whether it is new.
    pub fn insert(&mut self, record: &[u8]) -> bool {
        let number = number(record);
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

    fn has(&self, number: u64) -> bool {
        self.bits.get((number / 64) as usize).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// The first of these that was not seen.
    fn missing(&self, mut wanted: impl Iterator<Item = u64>) -> Option<u64> {
        wanted.find(|number| !self.has(*number))
    }

    /// All of these were seen, and each once.
    fn are(&self, what: &str, wanted: impl Iterator<Item = u64> + Clone) -> Result<(), String> {
        let count = wanted.clone().count() as u64;
        println!("{what}: {} of {count}, {} twice", self.seen, self.again);
        if let Some(missing) = self.missing(wanted) {
            return Err(format!("{what}: {} of {count}; the first missing is {missing}", self.seen));
        }
        if self.again > 0 || self.seen != count {
            return Err(format!("{what}: {} twice, {} of {count}", self.again, self.seen));
        }
        Ok(())
    }
}

/// What a load can be judged by, and what it leaves time for.
fn is_fit(kind: Kind, minute: u64) -> bool {
    match kind {
        // Without a checkpoint all of the files is read again and looked for: of an hour that takes longer than the load.
        Kind::KilledStateDeleted | Kind::KilledStateDamaged | Kind::KilledStateOld => minute < STATE_MINUTES,
        Kind::DiskSlow { ms } => ms <= 100,
        // Its events would have numbers of their own, or other times.
        Kind::DefinitionAppears | Kind::DefinitionGoes => false,
        // A file without its records is read by numbers too.
        Kind::FilePacked => false,
        _ => true,
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
        clock_steps: true,
        settings_file: false,
        is_linked: false,
        past: false,
        definitions_fail: 0,
        keep_issued: false,
        target: Target::Index,
        retention: false,
        is_state_mounted: false,
    };
    let mut stage = Stage::start(&shape, Cluster::counting(indexed.clone()));
    let mut random = Random::new(seed);
    let only = only();
    poll(HEALTHY_AGAIN, || stage.collector.as_ref()?.reasons()?.is_empty().then_some(()));
    let_pass(Duration::from_secs(1));
    let rest = Rest::of(&stage);
    let mut resident_kib = Vec::new();
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
        resident_kib.push(stage.process("VmRSS"));
        println!(
            "minute {}: {issued} issued, {indexed} in the index, {again} sent again, {} KiB now, {peak_kib} KiB at most, {:?}; {reasons:?}",
            minute + 1,
            resident_kib[minute as usize],
            fault
        );
    }
    let judged = verdict(&stage, &indexed, issued, &rest).and_then(|()| memory(&resident_kib, peak_kib));
    match judged {
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

fn verdict(stage: &Stage, indexed: &Mutex<Numbers>, issued: u64, rest: &Rest) -> Result<(), String> {
    let collector = stage.collector.as_ref().ok_or("no collector runs")?;
    let stays = |code: &String| matches!(code.as_str(), "dead_letters" | "unreadable_frames");
    let healthy = poll(HEALTHY_AGAIN, || collector.reasons()?.iter().all(stays).then_some(()));
    healthy.ok_or_else(|| format!("not healthy again: {:?}", collector.reasons()))?;
    // What stood in a deleted file is gone, and may come again, once.
    let mut gone = Numbers::default();
    stage.deleted.iter().for_each(|path| each_line(path, |line| _ = gone.insert(line)));
    let kept = (1..=issued).filter(|number| !gone.has(*number));
    let (taken, refused): (Vec<u64>, Vec<u64>) = kept.clone().partition(|number| !is_refused(*number as usize));
    let all = poll(COMPLETE, || {
        let is_complete = indexed.lock().unwrap().missing(taken.iter().copied()).is_none();
        if !is_complete {
            let_pass(Duration::from_secs(1));
        }
        is_complete.then_some(())
    });
    let in_index = indexed.lock().unwrap();
    println!("the index: {} of {}, {} sent again", in_index.seen, taken.len(), in_index.again);
    all.ok_or_else(|| {
        let missing = in_index.missing(taken.iter().copied());
        format!("the index has {} of {}; the first missing is {missing:?}", in_index.seen, taken.len())
    })?;
    let (mut in_file, mut dead, mut come_again) = (Numbers::default(), Numbers::default(), Numbers::default());
    for path in records::files(&stage.output_file()) {
        each_line(&path, |line| {
            let is_gone = gone.has(number(line) as u64);
            if is_gone { &mut come_again } else { &mut in_file }.insert(line);
        });
    }
    in_file.are("the file", kept)?;
    if come_again.again > 0 {
        return Err(format!("the file: {} twice, after they were deleted", come_again.again));
    }
    let letters = dead_letters(&stage.output_file());
    for letter in letters.iter().filter(|letter| !gone.has(number(letter.line.as_bytes()) as u64)) {
        dead.insert(letter.line.as_bytes());
    }
    dead.are("the dead letters", refused.iter().copied())?;
    vitals::counters(stage)?;
    vitals::process(stage, rest)
}

/// No more than promised, and flat.
fn memory(resident_kib: &[u64], peak_kib: u64) -> Result<(), String> {
    if peak_kib > MEMORY_KIB {
        return Err(format!("{peak_kib} KiB of memory, more than {MEMORY_KIB}"));
    }
    let third = resident_kib.len() / 3;
    if third < 5 {
        return Ok(());
    }
    let mean = |minutes: &[u64]| minutes.iter().sum::<u64>() / minutes.len() as u64;
    let (second, last) = (mean(&resident_kib[third..2 * third]), mean(&resident_kib[2 * third..]));
    println!("memory: {second} KiB in the second third, {last} KiB in the last");
    if last > second + MEMORY_GROWS_KIB {
        return Err(format!("memory grows: {second} KiB in the second third, {last} KiB in the last"));
    }
    Ok(())
}

fn each_line(path: &Path, mut with: impl FnMut(&[u8])) {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).unwrap());
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line).unwrap() > 0 {
        with(&line);
        line.clear();
    }
}
