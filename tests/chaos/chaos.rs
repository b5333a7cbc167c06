//! The oracle: the real binary, a simulated service and a cluster, everything that can go wrong at once, and after each
//! round the question whether every event is there, once.
//!
//! `make chaos` runs it; `SEED=` and `FAULTS=` choose the schedule, which follows from the seed alone. Without a seed a
//! fixed one runs, then one that is drawn and printed. `COLLECTOR_BIN=` names the binary, `ONLY=Killed,History` the
//! faults that are wanted, `JOBS=3` how many acts run at once; `LOAD=60` puts it under load for so many minutes instead.
//! See README.md beside this file.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod cluster;
#[allow(dead_code, reason = "shared with the tests of the cluster")]
#[path = "../cluster/engine.rs"]
mod engine;
#[allow(dead_code, reason = "shared with the tests of the cluster")]
#[path = "../cluster/fake.rs"]
mod fake;
mod load;
mod odd;
mod plan;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod verdict;
mod vitals;

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use audiohook_collector::simulator::Call;
use cluster::Cluster;
use engine::Engine;
use plan::{Beside, Fault, Kind, Random, Round, Slot, TOLD_AFTER_MS};
use stage::{BACKUPS_KEPT, Shape, Stage};
use support::{Collector, let_pass, poll};
use vitals::Rest;

/// Without `SEED`: this one, and one that is drawn.
const FIXED_SEED: u64 = 1;
/// Without `FAULTS`: as many as leave the two seeds together within five minutes.
const FAULTS: u64 = 30;
/// A run of this many takes what lasts minutes.
const FAULTS_LONG: u64 = 500;
/// Rounds of one act; then everything begins anew.
const ROUNDS: usize = 8;

/// `/health` is healthy again within this, on a machine that does other things too.
const HEALTHY_AGAIN: Duration = Duration::from_secs(10);
/// A login that was refused is tried again after 30 s, the cluster's after some 30 s: only that try can tell. It has come
/// by then, and the time above begins with it.
const NEXT_LOGIN: Duration = Duration::from_secs(36);
/// What was late has come by then: the history's longest lag is two minutes. `PATIENCE=` (seconds) shortens it, for a
/// collector that is known to be wrong.
const COMPLETE: Duration = Duration::from_secs(150);

/// What a seed's run came to.
#[derive(Default)]
struct Sum {
    faults: u64,
    events: u64,
    /// Of the slowest return to healthy.
    healthy: Duration,
    memory_kib: u64,
}

fn main() -> ExitCode {
    let number = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse::<u64>());
    let numbers = ["SEED", "FAULTS", "LOAD", "JOBS"].map(|name| number(name).transpose());
    let [Ok(seed), Ok(faults), Ok(load), Ok(jobs)] = numbers else {
        eprintln!("SEED, FAULTS, LOAD and JOBS are whole numbers");
        return ExitCode::from(2);
    };
    let drawn = u64::from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_micros());
    if let Some(minutes) = load {
        return load::run(seed.unwrap_or(FIXED_SEED), minutes);
    }
    let seeds = seed.map_or_else(|| vec![FIXED_SEED, drawn], |seed| vec![seed]);
    let engine = real_cluster();
    for seed in seeds {
        println!("seed {seed}: begins");
        let jobs = if engine.is_some() { 1 } else { jobs.unwrap_or(1) };
        let Some(sum) = run(seed, faults.unwrap_or(FAULTS), jobs, engine.as_ref()) else { return ExitCode::FAILURE };
        println!(
            "seed {seed}: healthy again within {:.1} s, at most {} KiB of memory",
            sum.healthy.as_secs_f64(),
            sum.memory_kib
        );
        println!("seed {seed}: {} faults, {} events, 0 lost, 0 twice", sum.faults, sum.events);
    }
    ExitCode::SUCCESS
}

/// A real search engine, if one can be started and `CLUSTER=fake` does not say otherwise.
fn real_cluster() -> Option<Rc<RefCell<Engine>>> {
    let is_unwanted = std::env::var_os("CLUSTER").is_some_and(|cluster| cluster == "fake");
    if is_unwanted || !engine::available() {
        println!("the cluster is a fake one");
        return None;
    }
    let engine = Engine::start("opensearch", "chaos", &[]);
    println!("the cluster is a real OpenSearch, behind a front that misbehaves");
    Some(Rc::new(RefCell::new(engine)))
}

/// Runs a seed, so many acts at once; `None` when something went wrong, which is printed.
fn run(seed: u64, faults: u64, jobs: u64, engine: Option<&Rc<RefCell<Engine>>>) -> Option<Sum> {
    let acts = acts(seed, faults);
    let (next, is_wrong, sum) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(Sum::default()));
    let work = |engine: Option<&Rc<RefCell<Engine>>>| {
        while !is_wrong.load(Ordering::Relaxed) {
            let Some(act) = acts.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            if !perform(seed, faults, act, engine, &sum) {
                is_wrong.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        // Only the fake cluster can be had more than once.
        (1..jobs).for_each(|_| drop(scope.spawn(|| work(None))));
        work(engine);
    });
    (!is_wrong.into_inner()).then(|| sum.into_inner().unwrap())
}

/// The rounds of each act, until there are as many faults as are wanted.
fn acts(seed: u64, faults: u64) -> Vec<Vec<Round>> {
    let (long, only) = (faults >= FAULTS_LONG, plan::only());
    let mut acts: Vec<Vec<Round>> = Vec::new();
    let mut drawn = 0;
    for number in 0.. {
        if drawn >= faults {
            break;
        }
        let round = Round::draw(seed, number, long, &only);
        drawn += round.faults.len() as u64;
        match acts.last_mut().filter(|act| act.len() < ROUNDS) {
            Some(act) => act.push(round),
            None => acts.push(vec![round]),
        }
    }
    acts
}

/// Performs an act; whether all was right.
fn perform(seed: u64, faults: u64, rounds: &[Round], engine: Option<&Rc<RefCell<Engine>>>, sum: &Mutex<Sum>) -> bool {
    let mut random = Random::new(seed ^ u64::from(rounds[0].number) << 40 ^ 0xac7);
    let mut shape = Shape::draw(&mut random, faults >= FAULTS_LONG);
    // Nothing can be put in the place of what is mounted.
    let is_replaced = |kind| matches!(kind, Kind::BesideInPlace(Beside::State, _));
    shape.is_state_mounted &= !rounds.iter().any(|round| has(round, is_replaced));
    // Without its state, and where files were deleted, it reads nothing older than they are, also of a new definition.
    let any = |is_it: fn(Kind) -> bool| rounds.iter().any(|round| has(round, is_it));
    if any(loses_state) && any(|kind| kind == Kind::DefinitionAppears) {
        shape.backup_count = BACKUPS_KEPT;
    }
    let mut stage = Stage::start(&shape, Cluster::start(engine.cloned(), shape.target));
    println!("seed {seed}: {}", stage.described());
    let outcome = catch_unwind(AssertUnwindSafe(|| act(seed, rounds, &mut stage, sum)));
    let wrong = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why),
        Err(panic) => Some(words(panic.as_ref())),
    };
    let Some(why) = wrong else {
        sum.lock().unwrap().events += stage.sim.issued().len() as u64;
        return true;
    };
    println!("seed {seed}: WRONG: {why}\n\nthe schedule of this act ({}):", stage.described());
    rounds.iter().for_each(show);
    println!("\nthe newest lines of the log:\n{}", stage.log());
    println!("the files are in {}", stage.folder.path().display());
    println!("seed {seed}: again with SEED={seed} FAULTS={faults}");
    std::mem::forget(stage.folder);
    false
}

fn has(round: &Round, is_it: impl Fn(Kind) -> bool) -> bool {
    round.faults.iter().any(|fault| is_it(fault.kind))
}

fn loses_state(kind: Kind) -> bool {
    matches!(kind, Kind::KilledStateDamaged | Kind::KilledStateDeleted)
}

fn show(round: &Round) {
    println!("  round {}, {} ms:", round.number, round.lasts);
    for fault in &round.faults {
        println!("    {fault:?}");
    }
    for issue in &round.issues {
        println!(
            "    at {:5} ms {} events, {:?}, time: {:?}{}{}",
            issue.at,
            issue.count,
            issue.way,
            issue.unit,
            match (issue.equal, issue.chain) {
                (true, true) => ", alike in all rounds",
                (true, false) => ", alike",
                _ => "",
            },
            if issue.poison { ", refused by the cluster" } else { "" }
        );
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}

fn act(seed: u64, rounds: &[Round], stage: &mut Stage, sum: &Mutex<Sum>) -> Result<(), String> {
    healthy(stage)?;
    let_pass(Duration::from_secs(1));
    let rest = Rest::of(stage);
    for round in rounds {
        let begun = Instant::now();
        play(stage, round);
        let took = recover(stage, round, &rest).map_err(|why| format!("round {}: {why}", round.number))?;
        let mut sum = sum.lock().unwrap();
        sum.healthy = sum.healthy.max(took);
        sum.memory_kib = sum.memory_kib.max(stage.process("VmHWM"));
        sum.faults += round.faults.len() as u64;
        println!(
            "seed {seed}: round {} of {} ms right after {:.1} s, healthy in {:.1} s, {} faults, {} events in this act",
            round.number,
            round.lasts,
            begun.elapsed().as_secs_f64(),
            took.as_secs_f64(),
            round.faults.iter().map(|fault| format!("{:?}", fault.kind)).collect::<Vec<_>>().join(" "),
            stage.sim.issued().len()
        );
    }
    Ok(())
}

enum Step<'a> {
    Begin(&'a Fault),
    End(&'a Fault),
    Issue(&'a plan::Issue),
}

/// Carries a round out.
fn play(stage: &mut Stage, round: &Round) {
    stage.begin(round.number);
    let mut steps: Vec<(u64, Step)> = Vec::new();
    for fault in &round.faults {
        steps.push((fault.at, Step::Begin(fault)));
        steps.push((fault.at + fault.lasts, Step::End(fault)));
    }
    steps.extend(round.issues.iter().map(|issue| (issue.at, Step::Issue(issue))));
    steps.sort_by_key(|(at, _)| *at);
    let begun = Instant::now();
    for (at, step) in steps {
        let due = begun + Duration::from_millis(at);
        while Instant::now() < due {
            stage.send_later(false);
            let_pass(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
        }
        match step {
            Step::Begin(fault) => stage.begin_fault(fault),
            Step::End(fault) => stage.end_fault(fault),
            Step::Issue(issue) => stage.issue(issue),
        }
    }
}

/// Heals everything, waits until all has come, and judges.
fn recover(stage: &mut Stage, round: &Round, rest: &Rest) -> Result<Duration, String> {
    let looks = std::mem::take(&mut *stage.looks.lock().unwrap());
    stage.heal(&round.faults);
    let took = healthy(stage)?;
    told(&looks, round)?;
    complete(stage)?;
    stage.moved_files_rest()?;
    vitals::counters(stage)?;
    vitals::process(stage, rest)?;
    Ok(took)
}

/// Waits until `/health` is healthy, apart from what stays told for good.
fn healthy(stage: &mut Stage) -> Result<Duration, String> {
    if let Some(whose) = stage.refused_login() {
        let waited = Instant::now();
        if poll(NEXT_LOGIN, || stage.refused_login().is_none().then_some(())).is_none() {
            return Err(format!("no login at {whose} within {NEXT_LOGIN:?}"));
        }
        println!("  the next login at {whose} came after {:.1} s", waited.elapsed().as_secs_f64());
    }
    let begun = Instant::now();
    let collector = stage.collector.as_ref().ok_or("no collector runs")?;
    let mut last = None;
    let seen = poll(HEALTHY_AGAIN, || {
        let codes = collector.reasons();
        let is_healthy = codes.as_ref().is_some_and(|codes| codes.iter().all(|code| stage.stays(code)));
        if !is_healthy {
            last = codes;
        }
        is_healthy.then_some(())
    });
    if seen.is_none() {
        let health = collector.health().map(|health| health["reasons"].to_string());
        let runs = stage.collector.as_mut().is_some_and(Collector::runs);
        return Err(format!("not healthy again within {HEALTHY_AGAIN:?} (it runs: {runs}): {last:?} {health:?}"));
    }
    Ok(begun.elapsed())
}

/// Each fault that lasted was told while it lasted.
fn told(looks: &[stage::Look], round: &Round) -> Result<(), String> {
    let of_session =
        |slot| matches!(slot, Slot::Handshake | Slot::Token | Slot::Channel | Slot::History | Slot::Definitions);
    let silences =
        |fault: &Fault| matches!(fault.kind.slot(), Slot::Process | Slot::Descriptors | Slot::Clock | Slot::Http);
    let keeps_events_out = |other: &Fault| {
        let slot = other.kind.slot();
        of_session(slot) || slot == Slot::Socket || other.kind.told_by() == ["disk_write_failed"]
    };
    if round.faults.iter().any(silences) {
        return Ok(());
    }
    for fault in round.faults.iter().filter(|fault| fault.lasts >= TOLD_AFTER_MS + 2_000) {
        let slot = fault.kind.slot();
        let mut codes = fault.kind.told_by().to_vec();
        if codes.is_empty() {
            continue;
        }
        let others = round.faults.iter().filter(|other| other.kind.slot() != slot);
        // That the channel is gone is said on its socket.
        let is_deaf = |other: &Fault| matches!(other.kind, Kind::SocketHalfOpen | Kind::SocketStallsInFrame);
        if slot == Slot::Channel && others.clone().any(is_deaf) {
            continue;
        }
        // Of two faults of one call the first answers it, and an odd answer is an answer.
        let is_odd = |other: &Fault| matches!(other.kind, Kind::HistoryOdd(_));
        if of_session(slot) && others.clone().any(is_odd) {
            continue;
        }
        if of_session(slot) {
            // One that keeps the other from being met is told instead of it.
            let others = others.filter(|other| of_session(other.kind.slot()) || other.kind.slot() == Slot::Disk);
            codes.extend(others.flat_map(|other| other.kind.told_by()));
        } else if others.into_iter().any(|other| keeps_events_out(other)) {
            // Nothing came that could be refused.
            continue;
        }
        let was = looks
            .iter()
            .any(|(_, seen)| seen.as_ref().is_some_and(|seen| seen.iter().any(|code| codes.contains(&code.as_str()))));
        if !was {
            let shown: Vec<_> = looks.iter().map(|(_, seen)| seen).collect();
            return Err(format!("/health told none of {codes:?} in {} ms of {:?}: {shown:?}", fault.lasts, fault.kind));
        }
    }
    Ok(())
}

fn patience() -> Duration {
    let chosen = std::env::var("PATIENCE").ok().and_then(|text| text.parse().ok());
    chosen.map_or(COMPLETE, Duration::from_secs)
}

/// Waits until everything has come, and a while for what must not come.
fn complete(stage: &Stage) -> Result<(), String> {
    let (mut last, limit) = (Ok(()), patience());
    let enough = poll(limit, || {
        last = stage.evidence().judge();
        if last.is_err() {
            let_pass(Duration::from_millis(250));
        }
        last.as_ref().ok().copied()
    });
    if enough.is_none() {
        return last.map_err(|why| format!("{limit:?} after everything was healed, {why}"));
    }
    let reads = stage.sim.view(|view| view.count(Call::History));
    if !stage.sim.wait_until(COMPLETE, |view| view.count(Call::History) > reads + 2) {
        return Err("the history is read no more".to_owned());
    }
    let_pass(Duration::from_millis(500));
    stage.evidence().judge()
}
