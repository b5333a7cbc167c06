//! The messages between threads, whose modules know each other only through these.
//!
//! ```text
//! session ──Order──▶ reader ──Batch──▶ writer ──▶ file ──▶ cluster
//!    ▲  └─────────────WriterCommand──────▲  │
//!    └──────────SessionEvent──────────────┘   (and from the reader)
//! ```
//!
//! Every channel is bounded. Data flows one way. `SessionEvent`s are small, and the writer never waits to send one.

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

/// The number of a socket; counts up from 1 in each run.
pub type Connection = u64;

/// The address of a socket to open.
#[derive(Clone, Debug)]
pub struct Address {
    pub connection: Connection,
    /// The channel's `connectUri`: a secret, since it needs no other authorization.
    pub uri: Secret,
    /// The channel's id, also a secret: records contain it masked only.
    pub channel: Secret,
    /// The service's clock, for events without a time of their own.
    pub service: ServiceTime,
}

/// The messages from one read of the socket.
#[derive(Debug)]
pub struct Batch {
    pub connection: Connection,
    /// The channel's id, masked as in records.
    pub channel: Arc<str>,
    /// When the messages were read.
    pub received: Millis,
    pub frames: Frames,
}

/// Messages of the socket, not yet parsed, in order of arrival.
///
/// Their texts are copied into one buffer. A copy costs less than sharing the socket's reference-counted buffers
/// between two threads, and a queue of batches then holds no more memory than their contents.
#[derive(Debug, Default)]
pub struct Frames {
    texts: String,
    all: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    /// A text that ends at this byte of `texts`.
    TextTo(usize),
    Unreadable {
        reason: &'static str,
        head: Vec<u8>,
    },
}

/// One message of the socket, not yet parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    Text(&'a str),
    /// A message that is binary, too long or invalid UTF-8, with its first bytes (at most 4 KiB).
    Unreadable {
        reason: &'static str,
        head: &'a [u8],
    },
}

impl Frames {
    /// With room for `count` messages of `bytes` bytes in total.
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

    /// The number of messages.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Total bytes of the texts.
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

/// What the session thread sends to the writer; the order matters.
pub enum WriterCommand {
    /// A read of the history begins; its pages and its end follow. The writer drops held rows of an earlier read.
    Begin {
        span: Span,
        /// The pages contain rows up to this instant; rows after the span are context.
        until: Millis,
        purpose: Purpose,
    },
    /// Records from the files, for rows older than the writer's index covers.
    Records(Box<Index>),
    Page(Page),
    /// The writer has been sent every row of these definitions up to this instant (the service's clock).
    ReadUpTo {
        ids: Arc<[String]>,
        up_to: Millis,
    },
    /// As `ReadUpTo`, and the read is complete.
    End {
        ids: Arc<[String]>,
        up_to: Millis,
    },
    /// The origin of the very first start by the service's clock. It replaces the one by the machine's clock, which is
    /// used until the service's time is known.
    Origin(Millis),
    /// The definitions: names and descriptions for rows. The next start uses them until it has fetched its own.
    Definitions(Arc<[Definition]>),
    /// The channel to remember across a restart, or none.
    Channel(Option<ChannelState>),
    /// Whether the history can be read. While it cannot, the writer holds back no frame for a row.
    HistoryWorks(bool),
}

/// The purpose of a read of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Reads the definitions that the checkpoint covers, from the checkpoint on. Its end is the next checkpoint.
    CatchUp,
    /// Reads part of the missing history of definitions that the checkpoint does not cover.
    Coverage,
    /// Reads a span that an audit could not prove complete.
    Repair,
}

/// The instant up to which the history of each definition was read: every earlier event is in the file.
pub type Coverage = BTreeMap<String, Millis>;

/// Records that these definitions were read up to `up_to`. No definition counts as read beyond the checkpoint: if the
/// checkpoint moves back, because a clock was ahead, all definitions move back with it.
pub fn extend_coverage(coverage: &mut Coverage, ids: &[String], up_to: Millis, purpose: Purpose) {
    coverage.extend(ids.iter().map(|id| (id.clone(), up_to)));
    if purpose == Purpose::CatchUp {
        coverage.values_mut().for_each(|read| *read = up_to.min(*read));
    }
}

/// Genesys keeps ten days of history. Source: the vendor's help page on operational event queries.
pub const HISTORY_KEPT_MS: Millis = 10 * 24 * 3600 * 1000;

/// The state at the end of the last run, from which this one starts.
#[derive(Clone, Debug)]
pub struct Start {
    /// Everything in the history before this instant is on disk, for the definitions read so far.
    pub checkpoint: Millis,
    /// The time of the very first start. Earlier events are neither requested nor counted as missing.
    pub origin: Millis,
    /// Whether both are by this machine's clock, because the service's time was never known.
    pub by_wall: bool,
    pub coverage: Coverage,
    /// The definitions as last fetched; empty before the first fetch.
    pub definitions: Vec<Definition>,
    /// The channel remembered from the last run.
    pub channel: Option<ChannelState>,
}

/// A page of the history as received.
#[derive(Debug)]
pub struct Page {
    pub body: String,
    /// The byte range of each row in `body`.
    pub rows: Vec<ByteRange<usize>>,
    /// When the page was read.
    pub received: Millis,
    /// The requested definitions; rows of others are ignored.
    pub ids: Arc<[String]>,
    /// The interval requested. A row without a time of its own happened in it.
    pub asked: Range,
    /// Whether this is the first page of a slice, so that its rows start over.
    pub is_first: bool,
    /// Whether `ids` are all definitions of the read.
    pub is_all: bool,
}

/// A channel that a later start may reuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelState {
    pub id: String,
    pub connect_uri: String,
    /// When the channel ends, by the service's clock.
    pub expires_ms: Millis,
    /// The owner: the client's id and the API's address.
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

/// What the reader and the writer send to the session thread.
#[derive(Debug)]
pub enum SessionEvent {
    /// The socket is open and receives events.
    Opened(Connection),
    /// The socket was closed at this instant, or could not be opened. The session may handle this later.
    Closed { connection: Connection, why: Closed, at: Instant },
    /// The writer received a control frame.
    Control { connection: Connection, control: Control },
    /// The channel last sent to the writer is on disk.
    ChannelKept,
    /// The index is loaded from the files. The history is not read before, as its rows could not be matched.
    Loaded,
    /// The history of these definitions was read up to this instant and is on disk. For a catch-up: the checkpoint.
    ReadUpTo { ids: Arc<[String]>, up_to: Millis, purpose: Purpose },
    /// A read is complete and its rows are on disk.
    ReadDone {
        purpose: Purpose,
        /// Number of appended rows.
        appended: u64,
        /// The index lacked records from this instant on, so rows could not be matched. They must be read again, with
        /// the records from the files.
        unjudged_since: Option<Millis>,
    },
}

/// Why a socket is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The server refused the handshake with this HTTP status and perhaps a `Retry-After`.
    Refused { status: u16, retry_after: Option<Duration> },
    /// The server could not be reached: the failed step, and what to check.
    Unreachable(Problem),
    /// The server closed the socket with this code (1005 if it gave none) and reason.
    ByServer { code: u16, reason: String },
    /// Nothing was received in time, not even a pong.
    Silent,
    /// The connection failed.
    Broken(String),
    /// The collector closed it.
    ByUs,
}

/// A frame about the socket itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// `v2.system.socket_closing`: the server closes this socket within a minute.
    SocketClosing,
    /// `v2.system.no_longer_subscribed` or `v2.system.token_revoked`: a new token and a new channel are needed.
    Revoked,
    /// `{"result":"404",…}`: the channel is gone.
    ChannelGone,
}
