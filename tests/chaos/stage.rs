//! A service, a cluster and the real binary, and each fault carried out on them.
//!
//! Must never: judge; it brings faults about, takes them away, and gives what there is to see.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use audiohook_collector::simulator::{Action, Call, Definition, Event, Knobs, Options, Route, Simulator, SocketTime};
use audiohook_collector::thread;
use crossbeam_channel::{Sender, bounded};
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use crate::cluster::Cluster;
use crate::odd;
use crate::plan::{Fault, Issue, Kind, Random, Slot, Target, Thing, Unit, Way};
use crate::support::collector::{binary, settings};
use crate::support::records::{self, Record};
use crate::support::{Collector, Folder, SOON, let_pass};
use crate::verdict::{Evidence, POISON, dead_letters, documents, of_file};

/// How far each read of the history goes back, in seconds. Nothing comes later than two fifths of it; the shorter it is,
/// the less it makes good what is wrong.
const OVERLAPS: [u64; 3] = [8, 8, 60];
const OVERLAPS_LONG: [u64; 4] = [8, 8, 60, 300];
/// As many as never come together.
pub const BACKUPS_KEPT: &str = "500";
/// An unbroken chain of like events is shorter: no read of a shorter overlap sees both its ends.
const CHAIN_S: u64 = 30;
/// The two ways' times of one event differ by less.
const TOLERANCE_MS: i64 = 2_000;
/// A definition that goes for a while.
const GOING: &str = "AUDIOHOOK-0003";
/// How old the events are that happened before the first start, or before their definition appeared: all of them older
/// than any overlap.
const AGES_MS: [i64; 4] = [3_600_000, 3 * 3_600_000, 2 * 86_400_000, 9 * 86_400_000];
/// How far a row may be moved beyond its jitter, for one like it stands there.
const JITTER_MORE_MS: i64 = 200;
const SETTINGS_FILE: &str = "collector.env";
/// Requests of a client that reads no answer.
const REQUESTS_UNREAD: usize = 50;
/// How long packing a file takes.
const PACKING: Duration = Duration::from_millis(100);
/// Between two looks at `/health`.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// When `/health` was looked at, and the codes it showed; `None`: nobody answered.
pub type Look = (Instant, Option<Vec<String>>);

/// Everything of one act.
pub struct Stage {
    /// The state file, where it is a mount of its own. Before the folder, which cannot go while it is mounted.
    mount: Option<Mount>,
    pub sim: Simulator,
    pub folder: Folder,
    pub collector: Option<Collector>,
    pub looks: Arc<Mutex<Vec<Look>>>,
    /// How far a record of like events may be from its event, by what the two ways' times differed so far.
    pub tolerance_ms: i64,
    /// What came of the binary's starts.
    pub starts: u32,
    overlap_s: u64,
    /// All settings, and those that the environment holds: the others are in a file.
    settings: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    cluster: Cluster,
    /// Slows the process's writes down while it runs.
    slowing: Option<Child>,
    /// The clock's steps are written there; none: libfaketime is missing or not wanted.
    clock: Option<PathBuf>,
    flood: Vec<TcpStream>,
    /// Copies of the files that were deleted.
    pub deleted: Vec<PathBuf>,
    /// The files that were moved away, and how long each was once that must have been noticed.
    moved: Vec<(fs::File, Option<u64>)>,
    /// What stands in the place of a file, and where that file is meanwhile.
    in_place: Option<(PathBuf, PathBuf)>,
    old_state: Option<Vec<u8>>,
    later: Vec<(Instant, Vec<u32>)>,
    equal_time: i64,
    jitter_ms: i64,
    /// Frames are sent twice: those without a time cannot be told from two events.
    doubles: bool,
    /// Definitions that appeared so far, and whether the collector was started since the last one came or went.
    appeared: u32,
    is_unseen: bool,
    round: u32,
    _looking: Sender<()>,
}

/// What varies from act to act.
pub struct Shape {
    pub overlap_s: u64,
    pub max_file_size: &'static str,
    pub backup_count: &'static str,
    pub bulk_size: &'static str,
    pub interval_s: &'static str,
    pub log_level: &'static str,
    pub clock_steps: bool,
    /// Whether the settings are in a file, with quotes, a byte-order mark and the line ends of another system.
    pub settings_file: bool,
    /// Whether OUTPUT_FILE is a symbolic link.
    pub is_linked: bool,
    /// Whether there were events before the first start.
    pub past: bool,
    /// So many times the list of definitions fails at the first start.
    pub definitions_fail: u32,
    /// Whether the service keeps what it issued, to be compared.
    pub keep_issued: bool,
    /// What ELASTIC_INDEX names, and whether ELASTIC_RETENTION is set.
    pub target: Target,
    pub retention: bool,
    /// Whether the state file is a mount of its own, as containers have it: it cannot be replaced then.
    pub is_state_mounted: bool,
}

impl Shape {
    pub fn draw(random: &mut Random, long: bool) -> Self {
        Self {
            overlap_s: if long { random.pick(&OVERLAPS_LONG) } else { random.pick(&OVERLAPS) },
            max_file_size: random.pick(&["20KB", "100KB", "1GB"]),
            backup_count: if random.chance(30) { "0" } else { BACKUPS_KEPT },
            bulk_size: random.pick(&["1", "7", "50"]),
            interval_s: "1",
            log_level: "debug",
            clock_steps: random.chance(50),
            settings_file: random.chance(50),
            is_linked: random.chance(25),
            past: random.chance(50),
            definitions_fail: random.below(3) as u32,
            keep_issued: true,
            target: random.pick(&[Target::Index, Target::Index, Target::WriteAlias, Target::DataStream]),
            retention: random.chance(20),
            is_state_mounted: random.chance(25),
        }
    }
}

impl Stage {
    /// Sets up a service and a collector before this cluster.
    pub fn start(shape: &Shape, cluster: Cluster) -> Self {
        let knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
        let options = Options { knobs, keep_issued: shape.keep_issued, ..Options::default() };
        let sim = Simulator::start(options).unwrap();
        let folder = Folder::new("chaos");
        let mut settings = settings(&sim, &folder);
        for (name, value) in [
            ("CATCH_UP_OVERLAP", shape.overlap_s.to_string()),
            ("CATCH_UP_INTERVAL", shape.interval_s.to_owned()),
            ("CATCH_UP_RATE", "100000".to_owned()),
            ("MAX_FILE_SIZE", shape.max_file_size.to_owned()),
            ("BACKUP_COUNT", shape.backup_count.to_owned()),
            ("ELASTIC_URL", cluster.url().to_owned()),
            ("ELASTIC_FLUSH_INTERVAL", "0.2".to_owned()),
            ("BULK_SIZE", shape.bulk_size.to_owned()),
            ("LOG_LEVEL", shape.log_level.to_owned()),
        ] {
            settings.insert(name.to_owned(), value);
        }
        let clock = faketime().filter(|_| shape.clock_steps).map(|library| {
            let file = folder.write("faketime", "+0");
            for (name, value) in [
                ("LD_PRELOAD", library.display().to_string()),
                ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
                ("FAKETIME_NO_CACHE", "1".to_owned()),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ] {
                settings.insert(name.to_owned(), value);
            }
            file
        });
        if shape.is_linked {
            let link = folder.join("link.jsonl");
            symlink("events.jsonl", &link).unwrap();
            settings.insert("OUTPUT_FILE".to_owned(), link.display().to_string());
            let state = folder.join("events.jsonl.state");
            settings.insert("STATE_FILE".to_owned(), state.display().to_string());
        }
        // Where something else has made the target there is nothing for a policy to manage.
        if shape.retention && cluster.target() == Target::Index {
            settings.insert("ELASTIC_RETENTION".to_owned(), "90d".to_owned());
        }
        let mount = shape.is_state_mounted.then(|| Mount::bind(&folder)).flatten();
        let environment = if shape.settings_file { into_file(&folder, &settings) } else { settings.clone() };
        let (looking, stopped) = bounded::<()>(0);
        let looks = Arc::new(Mutex::new(Vec::new()));
        let (taken, port) = (looks.clone(), settings["HTTP_PORT"].clone());
        let look = move || {
            while stopped.recv_timeout(LOOK_EVERY) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                let at = Instant::now();
                taken.lock().unwrap().push((at, look_at(&port)));
            }
        };
        thread::spawn("looking", look).unwrap();
        let mut stage = Self {
            mount,
            sim,
            folder,
            collector: None,
            looks,
            tolerance_ms: 0,
            starts: 0,
            overlap_s: shape.overlap_s,
            settings,
            environment,
            cluster,
            slowing: None,
            clock,
            flood: Vec::new(),
            deleted: Vec::new(),
            moved: Vec::new(),
            in_place: None,
            old_state: None,
            later: Vec::new(),
            equal_time: 0,
            jitter_ms: 0,
            doubles: false,
            appeared: 0,
            is_unseen: false,
            round: 0,
            _looking: looking,
        };
        if shape.past {
            for definition in ["AUDIOHOOK-0001", "AUDIOHOOK-0004", "AUDIOHOOK-0040"] {
                stage.issue_past(definition);
            }
        }
        stage.sim.faults().fail_next(Call::Definitions, Action::status(503), shape.definitions_fail);
        stage.run();
        stage
    }

    /// Issues events of this definition that are older than any overlap, in the history alone.
    fn issue_past(&self, definition: &str) {
        let now = self.sim.now();
        let times: Vec<i64> = AGES_MS.iter().flat_map(|age_ms| (0..5).map(move |n| now - age_ms + n * 1_700)).collect();
        // What is that old is there at once, however late the history is now.
        let (faults, mut lag) = (self.sim.faults(), Duration::ZERO);
        faults.set(|k| lag = std::mem::take(&mut k.history_lag));
        self.sim.issue_many(Event::numbered(definition), &times, Route::HistoryOnly);
        faults.set(|k| k.history_lag = lag);
    }

    /// Ends the collector, if it runs, and starts it: it looks at the definitions.
    fn start_anew(&mut self) {
        if self.collector.is_some() {
            self.kill();
            self.run();
        }
    }

    pub fn described(&self) -> String {
        let of = |name: &str| self.settings.get(name).map_or("", String::as_str);
        format!(
            "MAX_FILE_SIZE={} BACKUP_COUNT={} BULK_SIZE={} CATCH_UP_OVERLAP={} clock steps: {}, settings in a file: {}, OUTPUT_FILE is a link: {}, STATE_FILE is mounted: {}, ELASTIC_INDEX: {:?}{}, events before the start: {}",
            of("MAX_FILE_SIZE"),
            of("BACKUP_COUNT"),
            of("BULK_SIZE"),
            of("CATCH_UP_OVERLAP"),
            self.clock.is_some(),
            file_is_used(&self.environment, &self.settings),
            of("OUTPUT_FILE").contains("link"),
            self.mount.is_some(),
            self.cluster.target(),
            if of("ELASTIC_RETENTION").is_empty() { "" } else { " with a retention" },
            self.sim.issued().first().is_some_and(|first| first.time_ms < self.sim.now() - AGES_MS[0])
        )
    }

    /// A new round begins: what it needs of the one before is kept.
    pub fn begin(&mut self, round: u32) {
        self.round = round;
        self.looks.lock().unwrap().clear();
        if round.is_multiple_of(2) {
            self.old_state = fs::read(self.state_file()).ok();
        }
    }

    /// Starts the collector if it does not run, and if there is not what it refuses to start with.
    pub fn run(&mut self) {
        if self.collector.is_none() && self.in_place.is_none() {
            let file = self.folder.join(SETTINGS_FILE).display().to_string();
            let arguments: &[&str] =
                if file_is_used(&self.environment, &self.settings) { &["--env-file", &file] } else { &[] };
            let command = binary(self.folder.path(), arguments, &self.environment);
            self.collector = Some(Collector::run_command(command, self.folder.path(), &self.settings));
            self.starts += 1;
            self.is_unseen = false;
        }
    }

    pub fn output_file(&self) -> PathBuf {
        self.folder.join("events.jsonl")
    }

    fn state_file(&self) -> PathBuf {
        self.folder.join("events.jsonl.state")
    }

    fn signal(&self, signal: Signal) {
        if let Some(collector) = &self.collector {
            collector.signal(signal);
        }
    }

    fn limit(&self, resource: Resource, most: Option<u64>) {
        if let Some(collector) = &self.collector {
            let maximum = match resource {
                Resource::Nofile => getrlimit(Resource::Nofile).maximum,
                _ => None,
            };
            let _ = prlimit(Pid::from_raw(collector.pid() as i32), resource, Rlimit { current: most, maximum });
        }
    }

    /// Every write to a file, and every wait for the disk, takes so much longer. Sockets are written to by another call.
    fn slow_down(&mut self, ms: u64) {
        let Some(collector) = &self.collector else { return };
        let calls = "write,writev,pwrite64,fsync,fdatasync";
        let command = Command::new("strace")
            .args(["-f", "-q", "-o", "/dev/null", "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:delay_enter={}", ms * 1_000)])
            .args(["-p", &collector.pid().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match command {
            Ok(child) => self.slowing = Some(child),
            Err(error) => println!("  the disk is not slow: no strace here ({error})"),
        }
    }

    /// The disk is as fast as ever. Ended by a signal, strace lets the process go on.
    fn let_go(&mut self) {
        if let Some(mut child) = self.slowing.take() {
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
            let _ = child.wait();
        }
    }

    /// Ends it by `kill -9`.
    fn kill(&mut self) {
        if let Some(mut collector) = self.collector.take() {
            collector.kill9();
        }
    }

    /// Brings a fault about.
    #[expect(clippy::too_many_lines, reason = "a table: one line for each fault")]
    pub fn begin_fault(&mut self, fault: &Fault) {
        let faults = self.sim.faults();
        let fail = |call, action| faults.fail(call, action);
        match fault.kind {
            Kind::SocketCut => faults.cut_sockets(),
            Kind::SocketReset => faults.reset_sockets(),
            Kind::SocketHalfOpen => faults.half_open_sockets(),
            Kind::SocketStallsInFrame => faults.stall_sockets_in("{\"topicName\":\"channel.metadata\"}"),
            Kind::SocketClosing => faults.announce_closing(),
            Kind::SocketClosedWithCode => faults.close_sockets(1011, "told to"),
            Kind::SocketTakenOver => faults.take_over_channels(),
            Kind::Garbage => faults.send_text("{\"topicName\":\"v2.operations.events.AUDIOHOOK-0001\",\"eventBo"),
            Kind::HandshakeStatus(status) => {
                fail(Call::Handshake, Action::status(status));
                faults.cut_sockets();
            }
            Kind::HandshakeSlow => {
                fail(Call::Handshake, Action::Slow(Duration::from_secs(30)));
                faults.cut_sockets();
            }
            Kind::TokenRefused => {
                fail(Call::Token, Action::status(401));
                faults.revoke_tokens();
            }
            Kind::TokenUnavailable => {
                fail(Call::Token, Action::status(503));
                faults.revoke_tokens();
                faults.cut_sockets();
            }
            Kind::TokensLiveAMinute => {
                faults.set(|k| k.token_life = Duration::from_secs(60));
                faults.expire_tokens();
            }
            Kind::TokensExpire => faults.expire_tokens(),
            Kind::TokensRevoked => faults.announce_token_revoked(),
            Kind::ChannelEvicted => faults.evict_channels(),
            Kind::ChannelDropped => faults.drop_channels(),
            Kind::NoLongerSubscribed => faults.announce_no_longer_subscribed(),
            Kind::ChannelsUnavailable => {
                fail(Call::Channels, Action::status(503));
                faults.evict_channels();
            }
            Kind::SubscriptionRejected => {
                faults.reject_topics("v2.operations", "not permitted", &["usage:events:view"]);
                faults.evict_channels();
            }
            Kind::HistoryStatus(status) => fail(Call::History, Action::status(status)),
            Kind::HistoryThrottled { retry_after_s } => {
                fail(Call::History, Action::Status { status: 429, retry_after_s });
            }
            Kind::HistoryHangs => fail(Call::History, Action::Hang),
            Kind::HistoryHalf => fail(Call::History, Action::Half),
            Kind::HistoryHalfThenHangs => fail(Call::History, Action::HalfThenHang),
            Kind::HistoryNonsense => fail(Call::History, Action::Nonsense),
            Kind::HistoryReset => fail(Call::History, Action::Reset),
            Kind::HistorySlow => fail(Call::History, Action::Slow(Duration::from_millis(1500))),
            Kind::PagesRepeat(count) => faults.set(|k| k.pages_to_repeat = count),
            Kind::CursorsExpire(count) => faults.set(|k| k.cursors_to_expire = count),
            Kind::HistoryRefused { status, asked } => fail(Call::History, odd::refusal(status, asked)),
            Kind::HistoryOdd(how) => {
                odd::actions(how).into_iter().for_each(|(call, action)| fail(call, action));
            }
            Kind::HandshakeInterim => {
                fail(Call::Handshake, Action::Preceded(odd::INTERIM.to_vec()));
                faults.cut_sockets();
            }
            Kind::SubscriptionUnconfirmed => {
                fail(Call::Subscriptions, odd::unconfirmed("AUDIOHOOK-0002"));
                faults.evict_channels();
            }
            Kind::DefinitionsFail(how) => {
                fail(Call::Definitions, odd::definitions(how));
                self.start_anew();
            }
            Kind::DefinitionAppears => {
                self.appeared += 1;
                self.issue_past(&format!("AUDIOHOOK-1{:03}", self.appeared));
                self.is_unseen = true;
                self.start_anew();
            }
            Kind::DefinitionGoes => {
                self.sim.undefine(GOING);
                self.start_anew();
            }
            Kind::EverythingUnavailable => {
                faults.fail_all(&Action::status(503));
                faults.cut_sockets();
            }
            Kind::EverythingHangs => {
                faults.fail_all(&Action::Hang);
                faults.half_open_sockets();
            }
            Kind::HistoryLags { ms } => {
                let most = self.overlap_s * 1_000 * 2 / 5;
                faults.set(|k| k.history_lag = Duration::from_millis(ms.min(most)));
            }
            Kind::HistoryJitter { ms } => {
                // The service moves rows that would be alike in all by some milliseconds more.
                self.tolerance_ms = self.tolerance_ms.max(TOLERANCE_MS + ms + JITTER_MORE_MS);
                self.jitter_ms = ms;
                faults.set(|k| k.history_jitter_ms = ms);
            }
            Kind::SocketLoses(count) => faults.set(|k| k.socket_to_drop = count),
            Kind::SocketDoubles(count) => {
                self.doubles = true;
                faults.set(|k| k.socket_to_double = count);
            }
            Kind::Terminated => {
                if let Some(mut collector) = self.collector.take() {
                    let status = collector.term();
                    // What a full disk did not take is not in the file, and that is said.
                    let is_told = || {
                        collector
                            .log_text()
                            .contains("that waited in memory are read from the history after the next start")
                    };
                    assert!(
                        status.success() || is_told(),
                        "stopped by TERM it says {status}\n{}",
                        collector.log_text()
                    );
                }
            }
            Kind::Killed => self.kill(),
            Kind::KilledInALine => {
                self.kill();
                tear(&self.output_file());
            }
            Kind::KilledStateDamaged => {
                self.kill();
                fs::write(self.state_file(), "{\"format\":1,\"checkpoint").unwrap();
            }
            Kind::KilledStateDeleted => {
                self.kill();
                // What is mounted cannot be deleted: it is begun anew, empty.
                if self.mount.is_some() {
                    fs::write(self.state_file(), "").unwrap();
                } else {
                    let _ = fs::remove_file(self.state_file());
                }
            }
            Kind::KilledStateOld => {
                self.kill();
                if let Some(old) = &self.old_state {
                    fs::write(self.state_file(), old).unwrap();
                }
            }
            Kind::Stopped => self.signal(Signal::STOP),
            Kind::DiskFull { bytes_left } => self.limit(Resource::Fsize, Some(bytes_left)),
            Kind::FileMoved => self.between_writes(|stage| {
                let path = stage.output_file();
                let file = fs::File::open(&path);
                shift(&path);
                // As logrotate does with `create`, and without.
                if stage.moved.len() % 2 == 1 {
                    fs::write(&path, "").unwrap();
                }
                stage.moved.extend(file.ok().map(|file| (file, None)));
            }),
            Kind::FileDeleted => self.between_writes(|stage| {
                // A copy, not a link: what is written into it after this belongs to the new file.
                let kept = stage.folder.join(&format!("deleted-{}", stage.deleted.len()));
                if fs::copy(stage.output_file(), &kept).is_ok() {
                    fs::remove_file(stage.output_file()).unwrap();
                    stage.deleted.push(kept);
                }
            }),
            Kind::FilePacked => self.pack(),
            Kind::FileInPlace(thing) => {
                let (output, kept) = (self.output_file(), self.folder.join("events.jsonl.1"));
                self.between_writes(|stage| {
                    shift(&output);
                    put(thing, &output);
                    stage.in_place = Some((output, kept));
                });
            }
            Kind::BesideInPlace(beside, thing) => {
                let path = self.folder.join(&format!("events.jsonl{}", beside.suffix()));
                let kept = self.folder.join("kept-aside");
                self.between_writes(|stage| {
                    let _ = fs::rename(&path, &kept);
                    put(thing, &path);
                    stage.in_place = Some((path, kept));
                });
                faults.send_text("{\"topicName\":\"v2.operations.events.AUDIOHOOK-0001\",\"eventBo");
            }
            Kind::DiskSlow { ms } => self.slow_down(ms),
            Kind::ClusterGone
            | Kind::ClusterKilled
            | Kind::ClusterHangs
            | Kind::ClusterBulkHangs
            | Kind::ClusterAnswersHalf
            | Kind::ClusterRefusesItems
            | Kind::ClusterTooLarge { .. }
            | Kind::ClusterIndex(_)
            | Kind::ClusterRefusesLogin
            | Kind::ClusterWrongAnswer
            | Kind::ClusterUnavailable
            | Kind::ClusterLostItsTemplate => self.cluster.begin(fault.kind),
            Kind::NoDescriptors { left } => {
                let open = self.descriptors();
                self.limit(Resource::Nofile, Some(open + left));
            }
            Kind::ClockSteps { seconds } => self.set_clock(seconds),
            Kind::HttpFlood { connections } => {
                let address = format!("127.0.0.1:{}", self.settings["HTTP_PORT"]).parse().unwrap();
                let connect = || TcpStream::connect_timeout(&address, SOON).ok();
                self.flood = (0..connections).map_while(|_| connect()).collect();
            }
            Kind::SlowReaders { connections } => {
                let address = format!("127.0.0.1:{}", self.settings["HTTP_PORT"]).parse().unwrap();
                let ask = || {
                    let mut client = TcpStream::connect_timeout(&address, SOON).ok()?;
                    let request = "GET /events?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
                    client.write_all(request.repeat(REQUESTS_UNREAD).as_bytes()).ok()?;
                    Some(client)
                };
                self.flood = (0..connections).map_while(|_| ask()).collect();
            }
        }
    }

    /// Takes a fault away.
    pub fn end_fault(&mut self, fault: &Fault) {
        let faults = self.sim.faults();
        match fault.kind.slot() {
            Slot::Socket => {
                faults.thaw_sockets();
                if fault.kind == Kind::SocketClosing {
                    faults.close_sockets(1001, "closing");
                }
            }
            Slot::Handshake => faults.heal(Call::Handshake),
            Slot::Token => {
                faults.heal(Call::Token);
                faults.set(|k| k.token_life = Knobs::default().token_life);
            }
            Slot::Channel => {
                faults.heal(Call::Channels);
                faults.heal(Call::Subscriptions);
                faults.permit_topics();
            }
            Slot::History => match fault.kind {
                Kind::EverythingUnavailable | Kind::EverythingHangs => faults.heal_all(),
                Kind::HistoryOdd(how) => odd::calls(how).into_iter().for_each(|call| faults.heal(call)),
                _ => faults.heal(Call::History),
            },
            Slot::Pages => faults.set(|k| (k.pages_to_repeat, k.cursors_to_expire) = (0, 0)),
            Slot::Definitions => {
                faults.heal(Call::Definitions);
                if fault.kind == Kind::DefinitionGoes {
                    self.sim.define(Definition::new(GOING, "AudioHook authentication failed", "It is back."));
                    self.is_unseen = true;
                }
            }
            Slot::Lag => faults.set(|k| k.history_lag = Duration::ZERO),
            Slot::Jitter => {
                self.jitter_ms = 0;
                faults.set(|k| k.history_jitter_ms = 0);
            }
            Slot::Loses => faults.set(|k| k.socket_to_drop = 0),
            Slot::Doubles => {
                self.doubles = false;
                faults.set(|k| k.socket_to_double = 0);
            }
            Slot::Process => {
                self.signal(Signal::CONT);
                self.run();
            }
            Slot::Disk => {
                self.limit(Resource::Fsize, None);
                self.let_go();
                self.take_away();
            }
            Slot::Cluster => self.cluster.end(),
            Slot::Descriptors => self.limit(Resource::Nofile, Some(1024)),
            Slot::Clock => self.set_clock(0),
            Slot::Http => self.flood.clear(),
        }
    }

    fn set_clock(&self, seconds: i64) {
        if let Some(file) = &self.clock {
            fs::write(file, format!("{seconds:+}")).unwrap();
        }
    }

    /// Does something to the files while the collector holds still, so that what is deleted is known.
    fn between_writes(&mut self, act: impl FnOnce(&mut Self)) {
        self.signal(Signal::STOP);
        let_pass(Duration::from_millis(20));
        act(self);
        self.signal(Signal::CONT);
    }

    /// Renames the file, packs it and removes it. What is written meanwhile, or was just before, only the collector has.
    fn pack(&mut self) {
        let number = self.deleted.len();
        let (moved, kept) =
            (self.folder.join(&format!("events.jsonl-{number}")), self.folder.join(&format!("deleted-{number}")));
        if fs::rename(self.output_file(), &moved).is_err() {
            return;
        }
        // With a `postrotate` that says so, and without.
        if number.is_multiple_of(2) {
            self.signal(Signal::HUP);
        }
        let_pass(PACKING);
        let text = fs::read(&moved).unwrap();
        let packed = fs::File::create(self.folder.join(&format!("events.jsonl-{number}.gz"))).unwrap();
        let mut encoder = GzEncoder::new(packed, Compression::fast());
        encoder.write_all(&text).and_then(|()| encoder.finish()).unwrap();
        fs::remove_file(&moved).unwrap();
        fs::write(&kept, text).unwrap();
        self.deleted.push(kept);
    }

    /// What stands in the place of a file goes, and the file comes back.
    fn take_away(&mut self) {
        let Some((path, kept)) = self.in_place.take() else { return };
        self.between_writes(|_| {
            // The collector may have replaced it: a link is only a name.
            match fs::symlink_metadata(&path) {
                Ok(there) if there.is_dir() => fs::remove_dir(&path).unwrap(),
                Ok(there) if !there.is_file() => fs::remove_file(&path).unwrap(),
                _ => {}
            }
            if kept.ends_with("kept-aside") && !path.exists() {
                let _ = fs::rename(&kept, &path);
            }
        });
        self.run();
    }

    /// Issues events.
    pub fn issue(&mut self, issue: &Issue) {
        let route = if issue.way == Way::Both { Route::Both } else { Route::HistoryOnly };
        let mut numbers = Vec::new();
        for n in 0..issue.count {
            let definition = ["AUDIOHOOK-0001", "AUDIOHOOK-0002", "AUDIOHOOK-0003"][n as usize % 3];
            let mut event = Event::numbered(definition);
            // One alone: many in a row would be the index's fault, and wait.
            let poison = issue.poison && n == 0;
            if issue.equal {
                let mark = if poison { POISON } else { "same" };
                self.equal_time = self.sim.now().max(self.equal_time + 1);
                event = Event {
                    definition: "AUDIOHOOK-0002".to_owned(),
                    conversation_id: Some("one".to_owned()),
                    current_value: Some(if issue.link && self.overlap_s < CHAIN_S {
                        format!("{mark} {{n}}")
                    } else if issue.chain {
                        mark.to_owned()
                    } else {
                        format!("{mark} in round {}", self.round)
                    }),
                    ..Event::default()
                }
                .at(self.equal_time);
            } else if poison {
                event.current_value = Some(format!("{POISON} {{n}}"));
            }
            let time_ms = event.time_ms.unwrap_or_else(|| self.sim.now());
            event = self.in_unit(event, issue).at(time_ms);
            numbers.push(self.sim.issue_by(event, route).number);
        }
        if let Way::SocketLater(ms) = issue.way {
            self.later.push((Instant::now() + Duration::from_millis(ms), numbers));
        }
    }

    /// The event with its time in this unit. Like events keep a time of their own: of those without one nobody can tell
    /// which row is whose. So do those whose frame comes twice, or may: it cannot be told from another event's.
    fn in_unit(&mut self, event: Event, issue: &Issue) -> Event {
        let time_ms = event.time_ms.unwrap_or_else(|| self.sim.now());
        let is_sent_once = !matches!(issue.way, Way::SocketLater(_))
            && !self.doubles
            && self.sim.view(|view| view.sockets_open()) <= 1;
        let is_known = !issue.equal && is_sent_once;
        let json = match issue.unit {
            Unit::Seconds if self.jitter_ms == 0 => {
                self.tolerance_ms = self.tolerance_ms.max(TOLERANCE_MS + 1_000);
                (time_ms / 1_000).to_string()
            }
            Unit::Micros => (time_ms * 1_000).to_string(),
            Unit::Nanos => (time_ms * 1_000_000).to_string(),
            Unit::Iso => return Event { socket_time: SocketTime::Iso, ..event },
            Unit::None if is_known => return Event { socket_time: SocketTime::Absent, ..event },
            Unit::Absurd if is_known => "1234567890".to_owned(),
            _ => return event,
        };
        Event { socket_time: SocketTime::Absent, extra: vec![("timestamp".to_owned(), json)], ..event }
    }

    /// Sends on the socket what is due there; all of it at the end.
    pub fn send_later(&mut self, all: bool) {
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) = self.later.drain(..).partition(|(at, _)| all || *at <= now);
        self.later = later;
        for (_, numbers) in due {
            self.sim.send_again(numbers);
        }
    }

    /// Everything works again.
    pub fn heal(&mut self, faults: &[Fault]) {
        for fault in faults {
            self.end_fault(fault);
        }
        self.sim.faults().heal_all();
        self.cluster.wait();
        if self.is_unseen {
            self.start_anew();
        }
        self.run();
        self.send_later(true);
    }

    /// The reasons that stay, with what was done so far.
    pub fn stays(&self, code: &str) -> bool {
        // What was packed or deleted before the cluster had it is reported for an hour.
        let is_deleted = code == "elastic_backlog_dropped" && !self.deleted.is_empty();
        is_deleted || matches!(code, "dead_letters" | "unreadable_frames")
    }

    /// Whose login was refused, and not tried since: a try comes no sooner than 30 s later.
    pub fn refused_login(&self) -> Option<&'static str> {
        let last = self.sim.view(|view| view.all_requests().rfind(|seen| seen.call == Call::Token).cloned());
        if last.is_some_and(|login| login.status == 401) {
            return Some("Genesys Cloud");
        }
        let is_told = || self.collector.as_ref()?.reasons()?.iter().any(|code| code == "elastic_refused").then_some(());
        (self.cluster.has_refused_login() && is_told().is_some()).then_some("the cluster")
    }

    pub fn evidence(&self) -> Evidence {
        let index = documents(&self.cluster.documents());
        Evidence {
            issued: self.sim.issued(),
            records: records::read(&self.output_file()),
            index,
            dead: dead_letters(&self.output_file()),
            gone: self.deleted.iter().flat_map(|path| of_file(path)).collect::<Vec<Record>>(),
            tolerance_ms: self.tolerance_ms,
        }
    }

    /// Whether nothing more came into a file that was moved away: whoever moved it may have packed it meanwhile.
    pub fn moved_files_rest(&mut self) -> Result<(), String> {
        for (file, rests_at) in &mut self.moved {
            let bytes = file.metadata().map_err(|error| error.to_string())?.len();
            let at = *rests_at.get_or_insert(bytes);
            if bytes != at {
                return Err(format!("a file that was moved away grew from {at} to {bytes} bytes"));
            }
        }
        Ok(())
    }

    pub fn descriptors(&self) -> u64 {
        let folder = self.collector.as_ref().map(|collector| format!("/proc/{}/fd", collector.pid()));
        folder.and_then(|folder| fs::read_dir(folder).ok()).map_or(0, |all| all.count() as u64)
    }

    /// A field of `/proc/…/status`: threads, or KiB.
    pub fn process(&self, name: &str) -> u64 {
        let file = self.collector.as_ref().map(|collector| format!("/proc/{}/status", collector.pid()));
        let text = file.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_matches([':', ' ', '\t']).split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    /// The newest lines of the log, answers that are well left out; all of it is put beside the other files.
    pub fn log(&self) -> String {
        const SHOWN: usize = 60;
        let lines = self.collector.as_ref().map(Collector::log_lines).unwrap_or_default();
        self.folder.write("log", lines.join("\n"));
        let telling: Vec<&String> = lines.iter().filter(|line| !line.contains(": 200, ")).collect();
        telling[telling.len().saturating_sub(SHOWN)..].iter().map(|line| format!("{line}\n")).collect()
    }
}

/// The codes that `/health` shows.
fn look_at(port: &str) -> Option<Vec<String>> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(2)))
        .build();
    let url = format!("http://127.0.0.1:{port}/health");
    let body = ureq::Agent::new_with_config(config).get(&url).call().ok()?.body_mut().read_to_string().ok()?;
    let health: serde_json::Value = serde_json::from_str(&body).ok()?;
    let reasons = health["reasons"].as_array()?.iter();
    Some(reasons.filter_map(|reason| reason["code"].as_str().map(str::to_owned)).collect())
}

/// Writes the settings into a file as people do: with a byte-order mark, quotes, comments and the line ends of another
/// system. Gives what the environment keeps.
fn into_file(folder: &Folder, settings: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_of_loader = |name: &str| name.starts_with("FAKETIME") || name == "LD_PRELOAD";
    let (loader, own): (BTreeMap<_, _>, BTreeMap<_, _>) =
        settings.clone().into_iter().partition(|(name, _)| is_of_loader(name));
    let mut text = String::from("\u{feff}# settings\r\n\r\n");
    for (number, (name, value)) in own.iter().enumerate() {
        text.push_str(&match number % 4 {
            0 => format!("{name}=\"{value}\"\r\n"),
            1 => format!("export {name}='{value}'\r\n"),
            2 => format!("{name}={value} # as it is\r\n"),
            _ => format!("{name}={value}\r\n"),
        });
    }
    folder.write(SETTINGS_FILE, text);
    loader
}

fn file_is_used(environment: &BTreeMap<String, String>, settings: &BTreeMap<String, String>) -> bool {
    environment.len() < settings.len()
}

/// A mounted file; unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    /// Mounts a file in the place of the state file; none where this user may not mount.
    fn bind(folder: &Folder) -> Option<Self> {
        let (file, place) = (folder.write("mounted.state", ""), folder.write("events.jsonl.state", ""));
        let mounted = Command::new("mount").arg("--bind").args([&file, &place]).stderr(Stdio::null()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(place));
        }
        println!("  the state file is not mounted: this user may not mount");
        let _ = fs::remove_file(place);
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Puts something in the place of a file.
fn put(thing: Thing, path: &Path) {
    match thing {
        Thing::Fifo => mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap(),
        Thing::Folder => fs::create_dir(path).unwrap(),
        Thing::LinkToDevice => symlink("/dev/null", path).unwrap(),
        Thing::LinkInACircle => symlink(path.file_name().unwrap(), path).unwrap(),
        Thing::Device => {
            let null = makedev(1, 3);
            if mknodat(CWD, path, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, null).is_err() {
                symlink("/dev/null", path).unwrap();
            }
        }
        Thing::Socket => drop(UnixListener::bind(path).unwrap()),
    }
}

/// What a kill in the middle of a write leaves: the first half of a line.
fn tear(file: &Path) {
    let Ok(text) = fs::read(file) else { return };
    let Some(last) = text.split(|byte| *byte == b'\n').rfind(|line| line.len() > 2) else { return };
    let mut torn = text.clone();
    torn.extend_from_slice(&last[..last.len() / 2]);
    fs::write(file, torn).unwrap();
}

/// What logrotate does.
fn shift(file: &Path) {
    let backup = |number: usize| PathBuf::from(format!("{}.{number}", file.display()));
    let count = (1..).take_while(|number| backup(*number).exists()).count();
    for number in (1..=count).rev() {
        fs::rename(backup(number), backup(number + 1)).unwrap();
    }
    if file.exists() {
        fs::rename(file, backup(1)).unwrap();
    }
}

/// Where Debian's package libfaketime puts its library.
fn faketime() -> Option<PathBuf> {
    let path = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
    Some(PathBuf::from(path)).filter(|path| path.exists())
}
