//! The channel's socket: opened, handed over, given up.
//!
//! A socket is opened beside the current one and takes its place once it is open: so a start, a reconnect and a handover
//! are one and the same. Must never: give up a socket before its successor is open.

use std::time::{Duration, Instant};

use super::subscribing::Prepare;
use super::{DEFINITIONS_INTERVAL, Rejections, Session, draw, in_a_while};
use crate::config::Delivery;
use crate::genesys::backoff::Backoff;
use crate::message::{Address, ChannelState, Closed, Connection, Control, News};
use crate::reader::ReaderHandle;
use crate::secret::Secret;

/// A socket that somebody else's puts out sooner than this after it was opened (and twice RECONNECT_DELAY, which the
/// other one waits too), two or three times in a row, is being fought over.
const SHORT_LIFE: Duration = Duration::from_secs(10);
/// A channel of one's own is made for that reason no more often than this: a network that cuts every socket must not
/// make channels, of which the client has only twenty.
const OWN_CHANNEL_INTERVAL: Duration = Duration::from_secs(600);
/// A channel that could not be connected to so many times in a row is asked for.
const FAILURES_BEFORE_CHECK: u32 = 3;

/// A socket, opening or open.
#[derive(Debug)]
pub(super) struct Live {
    pub connection: Connection,
    pub handle: ReaderHandle,
    pub opened: Option<Instant>,
    pub channel: ChannelState,
    /// The server said that it would close it.
    pub closing: bool,
}

/// What is known of the channel and its sockets.
#[derive(Debug)]
pub(super) struct Socket {
    pub prepare: Prepare,
    pub prepare_at: Instant,
    pub prepare_backoff: Backoff,
    /// The channel that is subscribed.
    pub channel: Option<ChannelState>,
    pub topics: Vec<String>,
    pub rejected: Rejections,
    pub resubscribe_at: Instant,
    pub handover_at: Option<Instant>,
    pub current: Option<Live>,
    pub next: Option<Live>,
    pub connections: Connection,
    pub backoff: Backoff,
    pub open_at: Instant,
    /// Since when nothing can come: no socket is open, or its channel is gone.
    pub lost: Option<Instant>,
    pub why_lost: String,
    /// Whether the writer has put the newest channel on the disk.
    pub kept: bool,
    short_lives: u32,
    own_channel_made: Option<Instant>,
    pub created: Option<Instant>,
}

impl Socket {
    pub fn new(remembered: Option<ChannelState>, backoff: Backoff, now: Instant) -> Self {
        Self {
            prepare: remembered.map_or(Prepare::Create, Prepare::Check),
            prepare_at: now,
            prepare_backoff: backoff.clone(),
            channel: None,
            topics: Vec::new(),
            rejected: Rejections::new(),
            resubscribe_at: now + DEFINITIONS_INTERVAL,
            handover_at: None,
            current: None,
            next: None,
            connections: 0,
            backoff,
            open_at: now,
            lost: Some(now),
            why_lost: "it is being opened".to_owned(),
            kept: true,
            short_lives: 0,
            own_channel_made: None,
            created: None,
        }
    }
}

impl Session {
    /// Whether a socket is to be open.
    pub(super) fn wants_socket(&self) -> bool {
        self.may_subscribe() && !self.all_rejected()
    }

    /// Whether a subscription is to be tried: the transports allow it, or a topic is none of theirs.
    pub(super) fn may_subscribe(&self) -> bool {
        let may = match self.config.genesys.delivery {
            Delivery::History => false,
            Delivery::Websocket => true,
            Delivery::Auto => self.transport_allowed || self.has_other_topics(),
        };
        may && !self.plan.topics.is_empty()
    }

    /// Whether a topic is none of the operational events'.
    fn has_other_topics(&self) -> bool {
        self.plan.ids.len() < self.plan.topics.len()
    }

    /// Whether the socket is tried against what the service says of it, and no event came that proved it wrong.
    pub(super) fn is_unproven(&self) -> bool {
        let counters = &self.status.counters;
        self.config.genesys.delivery == Delivery::Websocket
            && !self.transport_allowed
            && !self.has_other_topics()
            && counters.written.get() + counters.duplicate.get() == 0
    }

    pub(super) fn all_rejected(&self) -> bool {
        self.socket.channel.is_some() && self.socket.topics.is_empty() && !self.socket.rejected.is_empty()
    }

    // ----- what is due -----

    pub(super) fn socket_due(&self) -> Option<Instant> {
        if self.socket.next.is_some() {
            return None;
        }
        let idle = self.socket.current.is_none();
        match self.socket.prepare {
            Prepare::Open(_) => Some(self.socket.open_at),
            Prepare::Nothing if idle && self.wants_socket() => Some(self.socket.open_at),
            _ => None,
        }
    }

    // ----- duties -----

    /// Opens a socket: a new channel's, or again the current channel's.
    pub(super) fn open_if_due(&mut self, now: Instant) -> bool {
        let Some(due) = self.socket_due() else { return false };
        if now < due {
            return false;
        }
        match std::mem::replace(&mut self.socket.prepare, Prepare::Nothing) {
            Prepare::Open(state) => self.open_socket(state),
            _ => match self.socket.channel.clone() {
                Some(state) => self.open_socket(state),
                None => self.prepare(Prepare::Create),
            },
        }
        true
    }

    fn open_socket(&mut self, state: ChannelState) {
        self.update_doing("opening the socket");
        let connection = self.next_connection();
        let uri = Secret::new(state.connect_uri.clone());
        let address =
            Address { connection, uri, channel: Secret::new(state.id.clone()), service: self.service_time.clone() };
        match (self.open)(address) {
            Ok(handle) => {
                self.socket.next = Some(Live { connection, handle, opened: None, channel: state, closing: false });
            }
            Err(error) => {
                let wait = self.socket.backoff.next(draw());
                log::error!("cannot open a socket: {error}; trying again {}", in_a_while(wait));
                self.status.counters.errors.add(1);
                self.socket.why_lost = error.to_string();
                self.socket.open_at = self.clock.now() + wait;
            }
        }
    }

    /// From now on a socket is to be open, and was not until now.
    pub(super) fn socket_is_wanted(&mut self) {
        let now = self.clock.now();
        self.socket.open_at = now;
        if self.socket.current.is_none() {
            self.socket.lost = Some(now);
        }
    }

    // ----- news -----

    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Opened(connection) => self.opened(connection),
            News::Closed { connection, why, at } => self.closed(connection, why, at),
            News::Control { connection, control } => self.control(connection, control),
            News::ChannelKept => {
                self.socket.kept = true;
                if matches!(self.socket.prepare, Prepare::Open(_)) {
                    self.socket.open_at = self.clock.now();
                }
            }
            News::Loaded { has_receipts } => self.reading.loaded(has_receipts),
            News::Checkpoint(ms) => {
                self.reading.checkpoint = ms;
                self.repair_is_written();
                self.nothing_is_unsure();
            }
            News::Unsure { from, to, up_to } => {
                self.repair_is_written();
                self.hear_unsure(from, to, up_to);
            }
        }
        let open = self.socket.current.is_some();
        self.status.gauges.socket_connected.set(i64::from(open));
    }

    fn opened(&mut self, connection: Connection) {
        let Some(mut live) = self.socket.next.take_if(|next| next.connection == connection) else { return };
        let now = self.clock.now();
        live.opened = Some(now);
        if let Some(old) = self.socket.current.take() {
            old.handle.retire();
        }
        log::info!("the socket of the channel {} is open", crate::secret::mask(&live.channel.id));
        self.socket.current = Some(live);
        self.socket.lost = None;
        // What came while no socket was open is in the history.
        self.read_again();
        self.publish();
    }

    fn closed(&mut self, connection: Connection, why: Closed, at: Instant) {
        let now = self.clock.now();
        if let Some(live) = self.socket.next.take_if(|next| next.connection == connection) {
            self.not_opened(live, why);
            return;
        }
        let Some(live) = self.socket.current.take_if(|current| current.connection == connection) else { return };
        self.socket.lost.get_or_insert(at);
        self.socket.why_lost = describe(&why, &live.channel.id);
        self.read_instead();
        if self.socket.next.is_some() || live.closing {
            // Its successor is on its way: that is what put it out.
            self.socket.open_at = now;
            return;
        }
        let life = now.duration_since(live.opened.unwrap_or(now));
        log::warn!("the socket was lost after {} s: {}", life.as_secs(), self.socket.why_lost);
        let is_short = life < SHORT_LIFE + 2 * self.config.reconnect.delay;
        let enough = short_lives_of_a_fight(&why).filter(|_| is_short);
        self.socket.short_lives = if enough.is_some() { self.socket.short_lives + 1 } else { 0 };
        if !is_short {
            self.socket.backoff.reset();
        }
        let may_make = self.socket.own_channel_made.is_none_or(|made| now.duration_since(made) >= OWN_CHANNEL_INTERVAL);
        if enough.is_some_and(|enough| self.socket.short_lives >= enough) && may_make {
            log::warn!(
                "something else takes this channel's socket over, as a copy of this collector would: it gets a channel of its own"
            );
            self.socket.short_lives = 0;
            self.socket.own_channel_made = Some(now);
            self.replace_channel();
            return;
        }
        let wait = if is_short { self.socket.backoff.next(draw()) } else { Duration::ZERO };
        self.socket.open_at = now + wait;
    }

    fn not_opened(&mut self, live: Live, why: Closed) {
        let now = self.clock.now();
        if self.socket.current.is_none() {
            self.socket.lost.get_or_insert(now);
        }
        self.socket.why_lost = describe(&why, &live.channel.id);
        let wait = self.socket.backoff.next(draw());
        self.socket.open_at = now + wait;
        if matches!(why, Closed::Refused(401 | 404 | 410)) {
            log::warn!("the channel is gone ({}): a new one is made", self.socket.why_lost);
            self.replace_channel();
            if self.socket.backoff.failures() > 1 {
                // Channels are few: a service that refuses each new one's socket is not given the next at once.
                self.socket.prepare_at = self.socket.prepare_at.max(self.socket.open_at);
            }
            return;
        }
        self.status.counters.errors.add(1);
        log::warn!("cannot open the socket: {}; trying again {}", self.socket.why_lost, in_a_while(wait));
        if !matches!(self.socket.prepare, Prepare::Nothing) {
            return;
        }
        if self.socket.backoff.failures().is_multiple_of(FAILURES_BEFORE_CHECK) {
            self.prepare(Prepare::Check(live.channel));
            self.socket.prepare_at = self.socket.open_at;
        } else if self.socket.current.is_some() {
            // A handover that failed is tried again; the socket before it goes on meanwhile.
            self.socket.prepare = Prepare::Open(live.channel);
        }
    }

    fn control(&mut self, connection: Connection, control: Control) {
        let Some(current) = self.socket.current.as_mut().filter(|current| current.connection == connection) else {
            return;
        };
        match control {
            Control::SocketClosing => {
                current.closing = true;
                log::info!("the server is about to close the socket: another one to the same channel takes over");
                if self.socket.next.is_none() && matches!(self.socket.prepare, Prepare::Nothing) {
                    self.socket.open_at = self.clock.now();
                    self.socket.prepare = Prepare::Open(current.channel.clone());
                }
            }
            Control::Revoked => {
                log::warn!("the server ended the subscription or the token: a new token and a new channel follow");
                self.api.forget_token();
                self.channel_lost("the server ended the subscription or the token");
            }
            Control::ChannelGone => {
                log::warn!("the server says that the channel is gone: a new one is made");
                self.channel_lost("the server says that the channel is gone");
            }
        }
    }
}

/// How many short lives in a row tell that somebody else connects to the channel, where the last one ended like this.
fn short_lives_of_a_fight(why: &Closed) -> Option<u32> {
    match why {
        // The server restarts or is overloaded.
        Closed::ByServer { code: 1012 | 1013, .. } => None,
        // The server goes away, perhaps; who is put out may be told the same.
        Closed::ByServer { code: 1001, .. } => Some(3),
        Closed::ByServer { .. } => Some(2),
        _ => None,
    }
}

/// What happened to the socket, for a person; the service's words may name the channel.
fn describe(why: &Closed, channel: &str) -> String {
    match why {
        Closed::Refused(status @ (200..=399 | 407)) => {
            format!("the handshake was answered with {status}: check for a proxy in the way (HTTPS_PROXY, NO_PROXY)")
        }
        Closed::Refused(status) => format!("the handshake was refused with {status}"),
        Closed::Unreachable(text) => text.clone(),
        Closed::ByServer { code, reason } if reason.is_empty() => format!("the server closed it ({code})"),
        Closed::ByServer { code, reason } => {
            let reason = crate::secret::hide(reason, channel);
            let reason: String = reason.chars().filter(|c| !c.is_control()).take(120).collect();
            format!("the server closed it ({code} {reason})")
        }
        Closed::Silent => "it was silent, and a ping was not answered".to_owned(),
        Closed::Broken(text) => format!("the connection broke: {text}"),
        Closed::ByUs => "it was closed from here".to_owned(),
    }
}
