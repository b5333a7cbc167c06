//! What is to happen: drawn from a seed alone, so that the same seed draws the same schedule on any machine.
//!
//! Must never: look at a clock, a file or a process.

use std::fmt;

/// Milliseconds from the beginning of a round.
pub type At = u64;

/// A fault that lasts this long must be told in `/health`.
pub const TOLD_AFTER_MS: u64 = 10_000;

/// The clock's steps, in seconds.
const CLOCK_STEPS: [i64; 4] = [3600, -3600, 30, -30];
/// How far a wrong `Date` is off, in seconds.
const DATES_OFF: [i64; 4] = [86_400, -86_400, 3_600, -3_600];

/// A small generator (splitmix64): what it gives must not change with a library's version.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// How the list of definitions fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Definitions {
    Status(u16),
    Hang,
    Reset,
    Half,
    Html,
    Empty,
    Null,
    /// Entries of other shapes among the right ones, and ids that are none.
    Malformed,
    InLowerCase,
}

/// What stands in the place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    Fifo,
    Folder,
    /// A symbolic link to `/dev/null`.
    LinkToDevice,
    /// A symbolic link to itself.
    LinkInACircle,
    /// The null device; a link to it where this user may not make a device.
    Device,
    Socket,
}

/// The files beside OUTPUT_FILE, by their suffixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    State,
    /// The temporary file of the state.
    NewState,
    Unreadable,
    DeadLetters,
}

impl Beside {
    pub fn suffix(self) -> &'static str {
        match self {
            Self::State => ".state",
            Self::NewState => ".state.new",
            Self::Unreadable => ".unreadable",
            Self::DeadLetters => ".dead",
        }
    }
}

/// What somebody has set on the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexFault {
    /// `default_pipeline` names one that does not exist.
    MissingPipeline,
    WriteBlock,
    /// What a full disk sets.
    DiskBlock,
    Closed,
}

/// What ELASTIC_INDEX names. Only a real cluster has other things than indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Index,
    WriteAlias,
    DataStream,
}

/// What is odd about answers that are right otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    /// `Date` is off by so many seconds in every third answer.
    Date {
        seconds: i64,
    },
    /// What is empty is left out, or null.
    WithoutList {
        null: bool,
    },
    /// The last page names the cursor that was just asked for.
    LastPageNamesItself,
    /// Every page has the same cursor, though it leads on.
    OneCursor,
    /// Rows of definitions that were not asked for.
    ForeignRows,
    Gzip,
    ByteOrderMark,
    Interim,
}

/// How a refusal says when to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Date,
    Text,
}

/// How a frame carries its event's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Millis,
    Seconds,
    Micros,
    Nanos,
    Iso,
    None,
    /// One that cannot be right.
    Absurd,
}

/// What goes wrong. Those of one [`Slot`] exclude each other within a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    SocketCut,
    SocketReset,
    SocketHalfOpen,
    SocketStallsInFrame,
    SocketClosing,
    SocketClosedWithCode,
    SocketTakenOver,
    Garbage,
    HandshakeStatus(u16),
    HandshakeSlow,
    TokenRefused,
    TokenUnavailable,
    TokensLiveAMinute,
    TokensExpire,
    TokensRevoked,
    ChannelEvicted,
    ChannelDropped,
    NoLongerSubscribed,
    ChannelsUnavailable,
    SubscriptionRejected,
    HistoryStatus(u16),
    HistoryThrottled {
        retry_after_s: Option<u64>,
    },
    HistoryHangs,
    HistoryHalf,
    HistoryHalfThenHangs,
    HistoryNonsense,
    HistoryReset,
    HistorySlow,
    PagesRepeat(u32),
    CursorsExpire(u32),
    HistoryRefused {
        status: u16,
        asked: Asked,
    },
    HistoryOdd(Odd),
    EverythingUnavailable,
    EverythingHangs,
    DefinitionsFail(Definitions),
    DefinitionAppears,
    DefinitionGoes,
    SubscriptionUnconfirmed,
    HandshakeInterim,
    HistoryLags {
        ms: u64,
    },
    HistoryJitter {
        ms: i64,
    },
    SocketLoses(u32),
    SocketDoubles(u32),
    Terminated,
    Killed,
    KilledInALine,
    KilledStateDamaged,
    KilledStateDeleted,
    KilledStateOld,
    Stopped,
    DiskFull {
        bytes_left: u64,
    },
    DiskSlow {
        ms: u64,
    },
    FileMoved,
    FileDeleted,
    /// As logrotate does with `compress`: renamed, packed and removed.
    FilePacked,
    FileInPlace(Thing),
    BesideInPlace(Beside, Thing),
    ClusterGone,
    ClusterKilled,
    ClusterHangs,
    ClusterBulkHangs,
    ClusterAnswersHalf,
    ClusterRefusesItems,
    ClusterTooLarge {
        most: usize,
    },
    ClusterIndex(IndexFault),
    ClusterRefusesLogin,
    ClusterWrongAnswer,
    ClusterUnavailable,
    ClusterLostItsTemplate,
    NoDescriptors {
        left: u64,
    },
    ClockSteps {
        seconds: i64,
    },
    HttpFlood {
        connections: usize,
    },
    /// Clients that ask for events and do not read the answers.
    SlowReaders {
        connections: usize,
    },
}

/// What a fault takes hold of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Socket,
    Handshake,
    Token,
    Channel,
    History,
    Pages,
    Definitions,
    Lag,
    Jitter,
    Loses,
    Doubles,
    Process,
    Disk,
    Cluster,
    Descriptors,
    Clock,
    Http,
}

impl Kind {
    pub fn slot(self) -> Slot {
        match self {
            Self::SocketCut
            | Self::SocketReset
            | Self::SocketHalfOpen
            | Self::SocketStallsInFrame
            | Self::SocketClosing
            | Self::SocketClosedWithCode
            | Self::SocketTakenOver
            | Self::Garbage => Slot::Socket,
            Self::HandshakeStatus(_) | Self::HandshakeSlow | Self::HandshakeInterim => Slot::Handshake,
            Self::TokenRefused
            | Self::TokenUnavailable
            | Self::TokensLiveAMinute
            | Self::TokensExpire
            | Self::TokensRevoked => Slot::Token,
            Self::ChannelEvicted
            | Self::ChannelDropped
            | Self::NoLongerSubscribed
            | Self::ChannelsUnavailable
            | Self::SubscriptionRejected
            | Self::SubscriptionUnconfirmed => Slot::Channel,
            Self::HistoryStatus(_)
            | Self::HistoryThrottled { .. }
            | Self::HistoryHangs
            | Self::HistoryHalf
            | Self::HistoryHalfThenHangs
            | Self::HistoryNonsense
            | Self::HistoryReset
            | Self::HistorySlow
            | Self::HistoryRefused { .. }
            | Self::HistoryOdd(_)
            | Self::EverythingUnavailable
            | Self::EverythingHangs => Slot::History,
            Self::DefinitionsFail(_) | Self::DefinitionAppears | Self::DefinitionGoes => Slot::Definitions,
            Self::PagesRepeat(_) | Self::CursorsExpire(_) => Slot::Pages,
            Self::HistoryLags { .. } => Slot::Lag,
            Self::HistoryJitter { .. } => Slot::Jitter,
            Self::SocketLoses(_) => Slot::Loses,
            Self::SocketDoubles(_) => Slot::Doubles,
            Self::Terminated
            | Self::Killed
            | Self::KilledInALine
            | Self::KilledStateDamaged
            | Self::KilledStateDeleted
            | Self::KilledStateOld
            | Self::Stopped => Slot::Process,
            Self::DiskFull { .. }
            | Self::DiskSlow { .. }
            | Self::FileMoved
            | Self::FileDeleted
            | Self::FilePacked
            | Self::FileInPlace(_)
            | Self::BesideInPlace(..) => Slot::Disk,
            Self::ClusterGone
            | Self::ClusterKilled
            | Self::ClusterHangs
            | Self::ClusterBulkHangs
            | Self::ClusterAnswersHalf
            | Self::ClusterRefusesItems
            | Self::ClusterTooLarge { .. }
            | Self::ClusterIndex(_)
            | Self::ClusterRefusesLogin
            | Self::ClusterWrongAnswer
            | Self::ClusterUnavailable
            | Self::ClusterLostItsTemplate => Slot::Cluster,
            Self::NoDescriptors { .. } => Slot::Descriptors,
            Self::ClockSteps { .. } => Slot::Clock,
            Self::HttpFlood { .. } | Self::SlowReaders { .. } => Slot::Http,
        }
    }

    /// The codes of which `/health` must show one while this lasts for [`TOLD_AFTER_MS`]; none: nothing is amiss, or
    /// it is over at once.
    pub fn told_by(self) -> &'static [&'static str] {
        match self {
            Self::HandshakeStatus(_) | Self::HandshakeSlow => &["socket_down"],
            Self::TokenRefused => &["credentials_refused"],
            Self::TokenUnavailable => &["history_failing", "not_receiving", "socket_down"],
            Self::ChannelsUnavailable => &["socket_down"],
            Self::SubscriptionRejected | Self::SubscriptionUnconfirmed => &["subscription_rejected", "socket_down"],
            Self::DefinitionsFail(Definitions::InLowerCase | Definitions::Malformed) => &[],
            Self::DefinitionsFail(_) => &["definitions_unconfirmed"],
            Self::HistoryStatus(403) => &["history_forbidden", "not_receiving"],
            Self::HistoryStatus(_)
            | Self::HistoryHangs
            | Self::HistoryHalf
            | Self::HistoryHalfThenHangs
            | Self::HistoryNonsense
            | Self::HistoryReset
            | Self::EverythingUnavailable
            | Self::EverythingHangs
            | Self::HistoryRefused { .. }
            | Self::HistoryThrottled { .. } => &["history_failing", "not_receiving"],
            Self::DiskFull { .. } | Self::FileInPlace(_) => &["disk_write_failed"],
            // A link is only a name, and is replaced by the next state.
            Self::BesideInPlace(Beside::State, Thing::Fifo | Thing::Folder | Thing::Device | Thing::Socket) => {
                &["disk_write_failed"]
            }
            Self::ClusterIndex(IndexFault::WriteBlock | IndexFault::DiskBlock) | Self::ClusterRefusesLogin => {
                &["elastic_refused"]
            }
            Self::ClusterGone
            | Self::ClusterKilled
            | Self::ClusterHangs
            | Self::ClusterBulkHangs
            | Self::ClusterAnswersHalf
            | Self::ClusterIndex(IndexFault::MissingPipeline | IndexFault::Closed)
            | Self::ClusterWrongAnswer
            | Self::ClusterUnavailable => &["elastic_unreachable"],
            _ => &[],
        }
    }
}

/// A fault at its time; `lasts` is 0 for what is over at once.
#[derive(Clone, Copy)]
pub struct Fault {
    pub kind: Kind,
    pub at: At,
    pub lasts: u64,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:5} ms for {:5} ms: {:?}", self.at, self.lasts, self.kind)
    }
}

/// How an event gets out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Both,
    /// Never on the socket.
    HistoryOnly,
    /// On the socket only this long after the history could have it.
    SocketLater(u64),
}

/// Events issued together.
#[derive(Clone, Copy, Debug)]
pub struct Issue {
    pub at: At,
    pub count: u32,
    pub way: Way,
    /// Their content is that of others: they differ in their time alone.
    pub equal: bool,
    /// Those that are alike are alike with those of all rounds.
    pub chain: bool,
    /// One of many that follow each other closely: see `chain()`.
    pub link: bool,
    /// The cluster refuses them for good.
    pub poison: bool,
    pub unit: Unit,
}

/// What happens until everything is healed and compared.
#[derive(Clone, Debug)]
pub struct Round {
    pub number: u32,
    pub lasts: u64,
    pub faults: Vec<Fault>,
    pub issues: Vec<Issue>,
}

impl Round {
    /// Draws the round of this number. `long`: with what takes minutes; `only`: beginnings of the names of the faults that
    /// are wanted, none for all.
    pub fn draw(seed: u64, number: u32, long: bool, only: &[String]) -> Self {
        /// Enough to meet every kind, so that a narrow choice ends too.
        const DRAWS_MAX: u32 = 2_000;
        let mut random = Random::new(seed.wrapping_mul(0x1_0000_01b3) ^ u64::from(number) << 32);
        let slow = random.chance(35);
        let lasts = if slow { random.between(13_000, 17_000) } else { random.between(2_500, 6_000) };
        let mut faults: Vec<Fault> = Vec::new();
        let wanted = random.between(2, 5);
        // A slow round is there to see what lasts being told: nothing in it takes the teller away.
        for _ in 0..DRAWS_MAX {
            if faults.len() as u64 == wanted {
                break;
            }
            let kind = kind(&mut random, long);
            if !is_wanted(kind, only) {
                continue;
            }
            let taken = faults.iter().any(|fault| excludes(fault.kind, kind));
            let silences = matches!(kind.slot(), Slot::Process | Slot::Descriptors | Slot::Http | Slot::Clock) && slow;
            if taken || silences {
                continue;
            }
            let at = random.between(0, if slow { 1_000 } else { lasts * 2 / 3 });
            let most = lasts - at;
            let lasts = match kind {
                Kind::Stopped if long && random.chance(10) => 20_000,
                _ if slow => most,
                _ => random.between(200, most),
            };
            faults.push(Fault { kind, at, lasts });
        }
        faults.sort_by_key(|fault| fault.at);
        Self { number, lasts, faults, issues: issues(&mut random, lasts) }
    }
}

/// Whether two faults cannot be in one round: they take hold of the same thing, or one needs a start that the other
/// keeps from happening.
fn excludes(one: Kind, other: Kind) -> bool {
    let is_in_the_way = |kind| matches!(kind, Kind::FileInPlace(_) | Kind::BesideInPlace(..));
    let starts_anew = |kind: Kind| kind.slot() == Slot::Definitions;
    one.slot() == other.slot() || is_in_the_way(one) && starts_anew(other) || is_in_the_way(other) && starts_anew(one)
}

/// What `ONLY=` names: beginnings of the names of faults, with commas between.
pub fn only() -> Vec<String> {
    let only = std::env::var("ONLY").unwrap_or_default();
    only.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Whether a fault is among those that are wanted: where none is named, all are.
pub fn is_wanted(kind: Kind, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|name| format!("{kind:?}").starts_with(name))
}

/// Draws a fault.
pub fn kind(random: &mut Random, long: bool) -> Kind {
    match random.below(18) {
        0 | 1 => random.pick(&[
            Kind::SocketCut,
            Kind::SocketReset,
            Kind::SocketHalfOpen,
            Kind::SocketStallsInFrame,
            Kind::SocketClosing,
            Kind::SocketClosedWithCode,
            Kind::SocketTakenOver,
            Kind::Garbage,
        ]),
        2 => random.pick(&[
            Kind::HandshakeStatus(404),
            Kind::HandshakeStatus(401),
            Kind::HandshakeStatus(503),
            Kind::HandshakeSlow,
            Kind::HandshakeInterim,
        ]),
        3 => random.pick(&[
            Kind::TokenRefused,
            Kind::TokenUnavailable,
            Kind::TokensLiveAMinute,
            Kind::TokensExpire,
            Kind::TokensRevoked,
        ]),
        4 => random.pick(&[
            Kind::ChannelEvicted,
            Kind::ChannelDropped,
            Kind::NoLongerSubscribed,
            Kind::ChannelsUnavailable,
            Kind::SubscriptionRejected,
            Kind::SubscriptionUnconfirmed,
        ]),
        5 | 6 => random.pick(&[
            Kind::HistoryStatus(500),
            Kind::HistoryStatus(403),
            Kind::HistoryThrottled { retry_after_s: None },
            Kind::HistoryThrottled { retry_after_s: Some(1) },
            Kind::HistoryThrottled { retry_after_s: Some(8) },
            Kind::HistoryHangs,
            Kind::HistoryHalf,
            Kind::HistoryHalfThenHangs,
            Kind::HistoryNonsense,
            Kind::HistoryReset,
            Kind::HistorySlow,
            Kind::HistoryRefused { status: 429, asked: Asked::Text },
            Kind::HistoryRefused { status: 503, asked: Asked::Date },
            Kind::EverythingUnavailable,
            Kind::EverythingHangs,
        ]),
        7 => {
            let count = random.between(1, 4) as u32;
            random.pick(&[Kind::PagesRepeat(count), Kind::CursorsExpire(count)])
        }
        8 => Kind::HistoryLags { ms: random.between(500, if long { 120_000 } else { 4_000 }) },
        9 => Kind::HistoryJitter { ms: random.pick(&[1, 100, 500, 900, 1_500]) },
        10 => {
            let count = random.between(1, 60) as u32;
            random.pick(&[Kind::SocketLoses(count), Kind::SocketDoubles(count)])
        }
        11 | 12 => random.pick(&[
            Kind::Terminated,
            Kind::Killed,
            Kind::Killed,
            Kind::KilledInALine,
            Kind::KilledStateDamaged,
            Kind::KilledStateDeleted,
            Kind::KilledStateOld,
            Kind::Stopped,
        ]),
        13 => {
            let (bytes_left, ms) = (random.between(0, 3_000), random.between(20, 400));
            let thing = random.pick(&[
                Thing::Fifo,
                Thing::Folder,
                Thing::LinkToDevice,
                Thing::LinkInACircle,
                Thing::Device,
                Thing::Socket,
            ]);
            let beside = random.pick(&[Beside::State, Beside::NewState, Beside::Unreadable, Beside::DeadLetters]);
            random.pick(&[
                Kind::DiskFull { bytes_left },
                Kind::DiskSlow { ms },
                Kind::FileMoved,
                Kind::FileDeleted,
                Kind::FilePacked,
                Kind::FileInPlace(thing),
                Kind::BesideInPlace(beside, thing),
            ])
        }
        14 => {
            let most = random.between(1, 6) as usize;
            let index_fault = random.pick(&[
                IndexFault::MissingPipeline,
                IndexFault::WriteBlock,
                IndexFault::DiskBlock,
                IndexFault::Closed,
            ]);
            random.pick(&[
                Kind::ClusterGone,
                Kind::ClusterKilled,
                Kind::ClusterHangs,
                Kind::ClusterBulkHangs,
                Kind::ClusterAnswersHalf,
                Kind::ClusterRefusesItems,
                Kind::ClusterTooLarge { most },
                Kind::ClusterIndex(index_fault),
                Kind::ClusterIndex(index_fault),
                Kind::ClusterRefusesLogin,
                Kind::ClusterWrongAnswer,
                Kind::ClusterUnavailable,
                Kind::ClusterLostItsTemplate,
            ])
        }
        15 => {
            let seconds = random.pick(&DATES_OFF);
            let null = random.chance(50);
            Kind::HistoryOdd(random.pick(&[
                Odd::Date { seconds },
                Odd::Date { seconds },
                Odd::WithoutList { null },
                Odd::LastPageNamesItself,
                Odd::OneCursor,
                Odd::ForeignRows,
                Odd::Gzip,
                Odd::ByteOrderMark,
                Odd::Interim,
            ]))
        }
        16 => {
            let how = random.pick(&[
                Definitions::Status(503),
                Definitions::Status(404),
                Definitions::Status(500),
                Definitions::Status(429),
                Definitions::Hang,
                Definitions::Reset,
                Definitions::Half,
                Definitions::Html,
                Definitions::Empty,
                Definitions::Null,
                Definitions::Malformed,
                Definitions::InLowerCase,
            ]);
            random.pick(&[Kind::DefinitionsFail(how), Kind::DefinitionAppears, Kind::DefinitionGoes])
        }
        _ => {
            let (left, seconds) = (random.below(3), random.pick(&CLOCK_STEPS));
            random.pick(&[
                Kind::NoDescriptors { left },
                Kind::ClockSteps { seconds },
                Kind::HttpFlood { connections: 300 },
                Kind::SlowReaders { connections: 24 },
            ])
        }
    }
}

/// Bunches and pauses.
fn issues(random: &mut Random, lasts: u64) -> Vec<Issue> {
    let mut issues = Vec::new();
    let mut at = random.between(0, 300);
    while at < lasts {
        let way = match random.below(10) {
            0 | 1 => Way::HistoryOnly,
            2 => Way::SocketLater(random.between(300, 3_000)),
            _ => Way::Both,
        };
        let count = match random.below(12) {
            0 => random.between(100, 300),
            1..=3 => random.between(5, 20),
            _ => random.between(1, 3),
        };
        let (equal, poison) = (random.chance(25), random.chance(6));
        let count = if equal { count.min(30) } else { count };
        let chain = random.chance(50);
        let unit = match random.below(20) {
            0 => Unit::Seconds,
            1 => Unit::Micros,
            2 => Unit::Nanos,
            3 => Unit::Iso,
            4 => Unit::None,
            5 => Unit::Absurd,
            _ => Unit::Millis,
        };
        issues.push(Issue { at, count: count as u32, way, equal, chain, link: false, poison, unit });
        // Within a bunch a few milliseconds, between bunches up to two seconds.
        at += if random.chance(70) { random.between(0, 30) } else { random.between(200, 2_000) };
    }
    if random.chance(30) {
        issues.append(&mut chain(random, lasts));
    }
    issues.sort_by_key(|issue| issue.at);
    issues
}

/// Like events one after the other, about as far apart as the two sources' times may differ: a chain as long as the
/// round. With those of the other rounds, like events spread over minutes.
fn chain(random: &mut Random, lasts: u64) -> Vec<Issue> {
    let step = random.between(600, 3_000);
    let at = (0..).map(|n| n * step).take_while(|at| *at < lasts);
    let issue = |at| {
        let way = if random.chance(30) { Way::HistoryOnly } else { Way::Both };
        Issue { at, count: 1, way, equal: true, chain: true, link: true, poison: false, unit: Unit::Millis }
    };
    at.map(issue).collect()
}
