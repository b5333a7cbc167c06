//! The channel's socket: opening, handover and closing.
//!
//! A new socket is opened beside the current one and replaces it once open, so that a start, a reconnect and a handover
//! work the same way. Must never: give up a socket before its successor is open.

use std::io;
use std::time::{Duration, Instant};

use log::Level;

use super::{Open, draw, in_a_while};
use crate::clock::ServiceTime;
use crate::genesys::backoff::Backoff;
use crate::message::{Address, ChannelState, Closed, Connection};
use crate::reader::ReaderHandle;
use crate::secret::{Secret, hide, mask};
use crate::status::Problem;

/// Another client is assumed to use the channel after SHORT_LIVES_MAX sockets in a row that the server closed within
/// this time of their opening (plus twice RECONNECT_DELAY, which the other client would wait too).
const SHORT_LIFE: Duration = Duration::from_secs(10);
const SHORT_LIVES_MAX: u32 = 3;
/// Minimum interval between channels made for that reason: a network that cuts every socket must not use up the
/// client's channels, of which there are only twenty.
const OWN_CHANNEL_INTERVAL: Duration = Duration::from_secs(600);
/// After this many consecutive failures to open a socket, its channel is subscribed again to check that it exists.
const FAILURES_BEFORE_CHECK: u32 = 3;
/// A shorter outage of the socket is not reported.
const DOWN_AFTER: Duration = Duration::from_secs(3);
/// How long the first socket may take to open.
const FIRST_AFTER: Duration = Duration::from_secs(6);

/// A socket, opening or open.
struct WsConnection {
    number: Connection,
    handle: ReaderHandle,
    opened: Option<Instant>,
    channel: ChannelState,
    /// The server announced the close, or the socket may be dead: another socket is opened.
    is_closing: bool,
}

pub(super) struct Connections {
    current: Option<WsConnection>,
    next: Option<WsConnection>,
    /// The channel that a socket should be open to.
    target: Option<ChannelState>,
    /// Whether a socket is wanted at all.
    is_wanted: bool,
    count: Connection,
    backoff: Backoff,
    open_at: Instant,
    /// When events stopped arriving: no socket is open, or its channel is gone.
    down_since: Option<Instant>,
    why_down: Problem,
    short_lives: u32,
    own_channel_made: Option<Instant>,
    /// RECONNECT_DELAY.
    reconnect_delay: Duration,
}

/// What the session must do after a socket has ended.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Nothing: another socket is opened anyway, or this one was no longer needed.
    Nothing,
    /// Subscribe again at this time: the channel may be gone.
    Check(Instant),
    /// Make another channel.
    Replace,
    /// Get another token, and make another channel with it.
    Renew,
}

impl Connections {
    pub fn new(backoff: Backoff, reconnect_delay: Duration, now: Instant) -> Self {
        Self {
            current: None,
            next: None,
            target: None,
            is_wanted: false,
            count: 0,
            backoff,
            open_at: now,
            down_since: Some(now),
            why_down: Problem::new("it is being opened", "Wait a few seconds."),
            short_lives: 0,
            own_channel_made: None,
            reconnect_delay,
        }
    }

    /// Whether a socket is open and its channel exists.
    pub fn is_open(&self) -> bool {
        self.current.is_some() && self.down_since.is_none()
    }

    /// Whether a socket is open, even if its channel is gone.
    pub fn has_socket(&self) -> bool {
        self.current.is_some()
    }

    /// When the current socket was opened.
    pub fn opened_at(&self) -> Option<Instant> {
        self.current.as_ref().and_then(|current| current.opened)
    }

    pub fn why_down(&self) -> &Problem {
        &self.why_down
    }

    /// When the socket counts as down, unless one opens before.
    pub fn down_at(&self) -> Option<Instant> {
        let is_first = self.count <= 1 && self.current.is_none();
        let grace = if is_first { FIRST_AFTER } else { DOWN_AFTER };
        self.down_since.filter(|_| self.is_wanted).map(|since| since + grace)
    }

    pub fn set_wanted(&mut self, is_wanted: bool, now: Instant) {
        if is_wanted && !self.is_wanted {
            self.open_at = now;
            if self.current.is_none() {
                self.down_since = Some(now);
            }
        }
        self.is_wanted = is_wanted;
    }

    /// Opens a socket to this channel, at this time, unless one is open or being opened.
    pub fn aim_at(&mut self, channel: &ChannelState, at: Instant) {
        if self.target.as_ref().is_none_or(|target| target.id != channel.id) {
            self.target = Some(channel.clone());
            self.open_at = at;
        }
    }

    /// The channel is saved to disk: its first socket need not wait longer.
    pub fn remembered(&mut self, now: Instant) {
        if self.is_due() {
            self.open_at = now;
        }
    }

    /// Closes every socket, because nothing is subscribed.
    pub fn close(&mut self) {
        (self.current, self.next, self.target) = (None, None, None);
    }

    /// The channel is gone. Nothing arrives on its socket, which stays open until another channel's socket is open.
    pub fn channel_lost(&mut self, why: Problem, now: Instant) {
        self.down_since.get_or_insert(now);
        self.why_down = why;
        self.target = None;
    }

    /// The current socket may be dead or about to close: opens another one beside it.
    pub fn reopen(&mut self, now: Instant) {
        if let Some(current) = &mut self.current {
            current.is_closing = true;
        }
        self.open_at = now;
    }

    /// Records the failure of a request that is needed to open a socket.
    pub fn set_cause(&mut self, why: Problem) {
        if self.current.is_none() {
            self.why_down = why;
        }
    }

    fn is_due(&self) -> bool {
        let Some(target) = self.target.as_ref().filter(|_| self.is_wanted && self.next.is_none()) else { return false };
        self.current.as_ref().is_none_or(|current| current.is_closing || current.channel.id != target.id)
    }

    pub fn due(&self) -> Option<Instant> {
        self.is_due().then_some(self.open_at)
    }

    pub fn open(&mut self, open: &mut Open, service: &ServiceTime, now: Instant) -> io::Result<()> {
        let Some(channel) = self.target.clone() else { return Ok(()) };
        self.count += 1;
        let address = Address {
            connection: self.count,
            uri: Secret::new(channel.connect_uri.clone()),
            channel: Secret::new(channel.id.clone()),
            service: service.clone(),
        };
        match open(address) {
            Ok(handle) => {
                self.next = Some(WsConnection { number: self.count, handle, opened: None, channel, is_closing: false });
                Ok(())
            }
            Err(error) => {
                let wait = self.backoff.next(draw());
                self.open_at = now + wait;
                let problem = Problem::new(error.to_string(), "Check the limit of threads (systemd: TasksMax).");
                let sentence = format!("cannot open a WebSocket: {error}; retrying {}", in_a_while(wait));
                problem.log(Level::Error, sentence);
                self.set_cause(problem);
                Err(error)
            }
        }
    }

    /// Marks a socket as open; returns whether it was expected.
    pub fn opened(&mut self, number: Connection, now: Instant) -> bool {
        let Some(mut opened) = self.next.take_if(|next| next.number == number) else { return false };
        opened.opened = Some(now);
        log::info!("WebSocket open (channel {})", mask(&opened.channel.id));
        if let Some(old) = self.current.replace(opened) {
            old.handle.retire();
        }
        self.down_since = None;
        true
    }

    /// Handles a socket that closed at `at` or could not be opened.
    pub fn closed(&mut self, number: Connection, why: &Closed, at: Instant, now: Instant) -> Next {
        if let Some(failed) = self.next.take_if(|next| next.number == number) {
            return self.not_opened(failed, why, now);
        }
        let Some(lost) = self.current.take_if(|current| current.number == number) else { return Next::Nothing };
        self.down_since.get_or_insert(at);
        self.why_down = describe(why, &lost.channel.id);
        self.open_at = now;
        if self.next.is_some() || lost.is_closing {
            return Next::Nothing;
        }
        let life = now.duration_since(lost.opened.unwrap_or(now));
        log::warn!("the WebSocket was lost after {} s: {}", life.as_secs(), self.why_down.what);
        if is_revoked(why) {
            self.target = None;
            return Next::Renew;
        }
        let is_short = life < SHORT_LIFE + 2 * self.reconnect_delay;
        self.short_lives = if is_short && may_be_contested(why) { self.short_lives + 1 } else { 0 };
        let may_make = self.own_channel_made.is_none_or(|made| now.duration_since(made) >= OWN_CHANNEL_INTERVAL);
        if self.short_lives >= SHORT_LIVES_MAX && may_make {
            log::warn!("another client connects to this channel (a copy of this collector?); creating a new channel");
            self.short_lives = 0;
            self.own_channel_made = Some(now);
            self.target = None;
            return Next::Replace;
        }
        if is_short {
            self.open_at = now + self.backoff.next(draw());
        } else {
            self.backoff.reset();
        }
        Next::Nothing
    }

    fn not_opened(&mut self, failed: WsConnection, why: &Closed, now: Instant) -> Next {
        let problem = describe(why, &failed.channel.id);
        let asked = if let Closed::Refused { retry_after, .. } = why { *retry_after } else { None };
        let wait = self.backoff.next(draw()).max(asked.unwrap_or_default());
        self.open_at = now + wait;
        if self.current.is_none() {
            self.down_since.get_or_insert(now);
        }
        let is_target = self.target.as_ref().is_some_and(|target| target.id == failed.channel.id);
        let next = match why {
            _ if !is_target => Next::Nothing,
            Closed::Refused { status: 401 | 404 | 410, .. } => {
                log::warn!("the channel is gone ({}); creating a new one", problem.what);
                Next::Replace
            }
            _ => {
                let sentence = format!("cannot open the WebSocket: {}; retrying {}", problem.what, in_a_while(wait));
                problem.log(Level::Warn, sentence);
                let is_check = self.backoff.failures().is_multiple_of(FAILURES_BEFORE_CHECK);
                if is_check { Next::Check(self.open_at) } else { Next::Nothing }
            }
        };
        if next == Next::Replace {
            self.target = None;
        }
        self.why_down = problem;
        next
    }

    /// Whether this is the open socket.
    pub fn is_current(&self, number: Connection) -> bool {
        self.current.as_ref().is_some_and(|current| current.number == number)
    }

    /// Whether this socket is being opened.
    pub fn is_opening(&self, number: Connection) -> bool {
        self.next.as_ref().is_some_and(|next| next.number == number)
    }
}

/// Whether the server closed the socket because its token is no longer valid. The API documents no code for this;
/// 4003, 1008 (policy) and the registered 3000 and 3003 are seen elsewhere.
fn is_revoked(why: &Closed) -> bool {
    let Closed::ByServer { code, reason } = why else { return false };
    let reason = reason.to_ascii_lowercase();
    matches!(code, 1008 | 3000 | 3003 | 4001 | 4003 | 4401 | 4403)
        || ["token", "auth", "credential"].iter().any(|word| reason.contains(word))
}

/// Whether another client's connection may be the cause; not if the server restarts or is overloaded.
fn may_be_contested(why: &Closed) -> bool {
    matches!(why, Closed::ByServer { code, .. } if !matches!(code, 1012 | 1013))
}

/// Describes what happened to the socket. The server's text may name the channel.
fn describe(why: &Closed, channel: &str) -> Problem {
    const LASTS: &str = "Check the network and Genesys Cloud's status page if this lasts: the collector reconnects.";
    let what = match why {
        Closed::Refused { status: status @ (200..=399 | 407), .. } => {
            return Problem::new(
                format!("the handshake was answered with {status}"),
                "Check for a proxy in the way (HTTPS_PROXY, NO_PROXY).",
            );
        }
        Closed::Refused { status, .. } => format!("the handshake was refused with {status}"),
        Closed::Unreachable(problem) => return problem.clone(),
        Closed::ByServer { code, reason } => {
            let reason = hide(reason, channel);
            let reason: String = reason.chars().filter(|c| !c.is_control()).take(120).collect();
            format!("the server closed it ({})", format!("{code} {reason}").trim_end())
        }
        Closed::Silent => "it was silent, and a ping was not answered".to_owned(),
        Closed::Broken(text) => format!("the connection broke: {text}"),
        Closed::ByUs => "the collector closed it".to_owned(),
    };
    Problem::new(what, LASTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_for_a_revoked_token_is_told_from_other_closes() {
        let closed = |code, reason: &str| Closed::ByServer { code, reason: reason.to_owned() };
        for why in [
            closed(4003, ""),
            closed(1008, "policy"),
            closed(1000, "Token revoked"),
            closed(1001, "Unauthorized"),
            closed(4000, "authentication required"),
        ] {
            assert!(is_revoked(&why), "{why:?}");
        }
        for why in [closed(1000, ""), closed(1001, "idle timeout"), closed(1012, "restart"), Closed::Silent] {
            assert!(!is_revoked(&why), "{why:?}");
        }
    }

    #[test]
    fn a_close_is_described_on_one_line_without_the_channel() {
        let why = Closed::ByServer { code: 1000, reason: "bye\nsecret-channel-1".to_owned() };
        assert_eq!(describe(&why, "secret-channel-1").what, "the server closed it (1000 bye…el-1)");
        let bare = Closed::ByServer { code: 1005, reason: String::new() };
        assert_eq!(describe(&bare, "").what, "the server closed it (1005)");
    }
}
