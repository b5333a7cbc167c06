//! What the threads say to each other: the one place that more than one of them knows.
//!
//! ```text
//! session ──Order──▶ reader ──Batch──▶ writer ──▶ file ──▶ cluster
//!    ▲  └─────────────WriterCommand──────▲  │
//!    └──────────SessionEvent──────────────┘   (and from the reader)
//! ```
//!
//! Every channel is bounded. Data goes one way; `SessionEvent` is small, and its senders never wait for room.

use std::collections::BTreeMap;
use std::ops::Range as ByteRange;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::clock::{Millis, ServiceTime};
use crate::dedup::Range;
use crate::dedup::index::Index;
use crate::dedup::rows::Span;
use crate::secret::Secret;
use crate::status::Problem;

/// Which socket a thing came from; counts up from 1 in each run.
pub type Connection = u64;

/// Where a socket is to be opened.
#[derive(Clone, Debug)]
pub struct Address {
    pub connection: Connection,
    /// The channel's `connectUri`, which needs no other authorization: a secret.
    pub uri: Secret,
    /// The channel's id, a secret too: it goes into no record but masked.
    pub channel: Secret,
    /// The service's clock, for what has no time of its own.
    pub service: ServiceTime,
}

/// What one read of the socket brought.
#[derive(Debug)]
pub struct Batch {
    pub connection: Connection,
    /// The channel's id, masked, as records carry it.
    pub channel: Arc<str>,
    /// When it was read.
    pub received: Millis,
    pub frames: Frames,
}

/// Messages of the socket, unjudged, in the order in which they came.
///
/// Their texts stand one behind the other in one buffer: a copy costs less than a buffer of the socket's that two
/// threads count the users of, and a queue of batches holds no more than what is in them.
#[derive(Debug, Default)]
pub struct Frames {
    texts: String,
    all: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    /// A text, up to here.
    TextTo(usize),
    Unreadable {
        reason: &'static str,
        head: Vec<u8>,
    },
}

/// One message of the socket, unjudged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    Text(&'a str),
    /// A message that is no text: binary, too long, or in broken UTF-8; its first bytes (4 KiB at most) are kept.
    Unreadable {
        reason: &'static str,
        head: &'a [u8],
    },
}

impl Frames {
    /// With room for so many messages of so many bytes in all.
    pub fn with_capacity(count: usize, bytes: usize) -> Self {
        Self { texts: String::with_capacity(bytes), all: Vec::with_capacity(count) }
    }

    pub fn push_text(&mut self, text: &str) {
        self.texts.push_str(text);
        self.all.push(Piece::TextTo(self.texts.len()));
    }

    pub fn push_unreadable(&mut self, reason: &'static str, head: Vec<u8>) {
        self.all.push(Piece::Unreadable { reason, head });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Bytes of the texts together.
    pub fn text_bytes(&self) -> usize {
        self.texts.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = Frame<'_>> {
        let mut from = 0;
        self.all.iter().map(move |piece| match piece {
            Piece::TextTo(end) => Frame::Text(&self.texts[std::mem::replace(&mut from, *end)..*end]),
            Piece::Unreadable { reason, head } => Frame::Unreadable { reason, head },
        })
    }
}

/// What the session thread gives to the writer, in order.
pub enum WriterCommand {
    /// A read of the history begins: its pages follow, then its end. What was held of another read is dropped.
    Begin {
        span: Span,
        /// Rows up to here follow; those beyond the span are context.
        until: Millis,
        purpose: Purpose,
    },
    /// Records from the files, for rows that are older than the writer's index reaches.
    Records(Box<Index>),
    Page(Page),
    /// All rows of these definitions were given that the read has up to this instant (the service's clock).
    ReadUpTo {
        ids: Arc<[String]>,
        up_to: Millis,
    },
    /// The same, and the read is done.
    End {
        ids: Arc<[String]>,
        up_to: Millis,
    },
    /// Where the very first start begins, by the service's clock: until it was heard, the machine's stood for it.
    Origin(Millis),
    /// The definitions: names and descriptions for rows, and what a later start uses until it has fetched them.
    Definitions(Arc<[Definition]>),
    /// The channel to be remembered across a restart, or none.
    Channel(Option<ChannelState>),
    /// Whether the history can be read: while it cannot, no frame is held back for a row.
    HistoryWorks(bool),
}

/// What a read of the history is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The definitions that the checkpoint covers, from the checkpoint on: its end is the next checkpoint.
    CatchUp,
    /// Definitions that the checkpoint does not cover, a part of what they lack.
    Coverage,
    /// A span that an audit could not prove to be complete.
    Repair,
}

/// Up to when the history of each definition was read: every event before it is in the file.
pub type Coverage = BTreeMap<String, Millis>;

/// These definitions were read up to here. No definition counts as read beyond the checkpoint: one that goes back, because
/// a clock was ahead, takes all of them along.
pub fn extend_coverage(coverage: &mut Coverage, ids: &[String], up_to: Millis, purpose: Purpose) {
    coverage.extend(ids.iter().map(|id| (id.clone(), up_to)));
    if purpose == Purpose::CatchUp {
        coverage.values_mut().for_each(|read| *read = up_to.min(*read));
    }
}

/// Genesys keeps ten days of history. Source: the vendor's help page on operational event queries.
pub const HISTORY_KEPT_MS: Millis = 10 * 24 * 3600 * 1000;

/// Where the last run ended, and this one begins.
#[derive(Clone, Debug)]
pub struct Start {
    /// Everything in the history before this is on the disk, for the definitions that were read so far.
    pub checkpoint: Millis,
    /// Where the very first start began: nothing before it is asked for, or missed.
    pub origin: Millis,
    /// Both are this machine's time: the service's was never heard.
    pub by_wall: bool,
    pub coverage: Coverage,
    /// The definitions as they were last fetched; none before the first time.
    pub definitions: Vec<Definition>,
    /// The channel that the last run remembered.
    pub channel: Option<ChannelState>,
}

/// A page of the history as it came.
#[derive(Debug)]
pub struct Page {
    pub body: String,
    /// Where each of its rows stands in `body`.
    pub rows: Vec<ByteRange<usize>>,
    /// When it was read.
    pub received: Millis,
    /// The definitions that were asked for: no other row is taken.
    pub ids: Arc<[String]>,
    /// What the read asks for: a row without a time of its own happened in it.
    pub asked: Range,
    /// The first page of a piece: rows begin anew.
    pub is_first: bool,
    /// `ids` are all definitions of the read.
    pub is_all: bool,
}

/// A channel that a later start may take up again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelState {
    pub id: String,
    pub connect_uri: String,
    /// When the channel ends, by the service's clock.
    pub expires_ms: Millis,
    /// Whose channel it is: the client's id and the API's address.
    pub owner: String,
}

/// An event definition: `GET /api/v2/usage/events/definitions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    pub id: String,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
}

/// What the session thread is sent.
#[derive(Debug)]
pub enum SessionEvent {
    /// The socket is open: what comes now is received.
    Opened(Connection),
    /// The socket is closed, or could not be opened; since when, for the session may be busy.
    Closed { connection: Connection, why: Closed, at: Instant },
    /// A control frame that the writer met.
    Control { connection: Connection, control: Control },
    /// The channel that was last given to the writer is on the disk.
    ChannelKept,
    /// The index is filled from the files. Before this the history is not read: its rows could not be judged.
    Loaded,
    /// Up to here the history of these definitions was read, and is on the disk: for a catch-up, the checkpoint.
    ReadUpTo { ids: Arc<[String]>, up_to: Millis, purpose: Purpose },
    /// A read is done, and what it brought is on the disk.
    ReadDone {
        purpose: Purpose,
        /// Rows that were appended.
        appended: u64,
        /// From here on records were not known, so that rows could not be judged: they are to be read again, with the
        /// records from the files.
        unjudged_since: Option<Millis>,
    },
}

/// Why a socket is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The handshake was refused with this HTTP status, and perhaps with a wait until the next one (`Retry-After`).
    Refused { status: u16, retry_after: Option<Duration> },
    /// It could not be reached: which step failed, and what to do.
    Unreachable(Problem),
    /// The server closed it with this code and reason; 1005 when it gave none.
    ByServer { code: u16, reason: String },
    /// Nothing came in time, not even the answer to a ping.
    Silent,
    /// The connection broke.
    Broken(String),
    /// We were told to give it up.
    ByUs,
}

/// A frame that is about the socket, not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// `v2.system.socket_closing`: this socket ends within a minute.
    SocketClosing,
    /// `v2.system.no_longer_subscribed` or `v2.system.token_revoked`: new token, new channel.
    Revoked,
    /// `{"result":"404",…}`: the channel is gone.
    ChannelGone,
}
