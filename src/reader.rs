//! The reader: one thread per open socket. It passes on frames and what happens to the socket.
//!
//! Deals with: the handshake, what each read brings, pings, silence, and giving a socket up. Must never: look into a
//! text, wait to gather more, or decide where to connect next.

mod assembler;
mod handshake;
mod link;
#[cfg(test)]
mod tests;
mod trial;

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, select};

pub(crate) use self::handshake::random;
use self::handshake::{Failed, shake_hands};
use self::link::{ABNORMAL, Incoming, Link};
pub use self::trial::ping;
use crate::clock::Clock;
use crate::message::{Address, Batch, Closed, Frames, SessionEvent};
use crate::net::{Dialer, Target};
use crate::status::{Beat, Status};

/// Connecting, all steps up to TLS together.
pub const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// How long the last batch waits for room while everything stops.
const LAST_BATCH_LIMIT: Duration = Duration::from_secs(1);
/// The WebSocket handshake: one that hangs is given up, so that the next one finds a service that answers again within
/// ten seconds.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(8);
/// Silence after which a ping asks whether the socket lives; heartbeats come about every 30 s.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(45);
/// How long the answer to a ping may take.
pub const PONG_LIMIT: Duration = Duration::from_secs(10);
/// A socket that is given up is read until nothing came for this long…
const RETIRE_QUIET: Duration = Duration::from_secs(1);
/// …and no longer than this.
const RETIRE_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of texts that are gathered while the writer is behind, at most; then the socket is not read.
const GATHER_BYTES_MAX: usize = 128 * 1024;
/// Messages of one batch, at most: tiny ones must not make it large.
const BATCH_FRAMES_MAX: usize = 4096;

const PING: &str = r#"{"message":"ping"}"#;

/// Says to a reader that its socket is to be given up. Dropping it closes the socket at once.
#[derive(Debug)]
pub struct ReaderHandle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    retired: AtomicBool,
    stopped: AtomicBool,
    tcp: Mutex<Option<Arc<TcpStream>>>,
}

impl ReaderHandle {
    /// A newer socket has taken over: read on until this one is quiet or closed, then close it.
    pub fn retire(&self) {
        self.0.retired.store(true, Ordering::SeqCst);
    }

    /// Closes the socket at once.
    pub fn close(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        if let Some(tcp) = self.0.tcp.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // It fails only where the connection is gone already.
            let _ = tcp.shutdown(Shutdown::Both);
        }
    }
}

/// Closes unless the reader was retired: then it ends by itself.
impl Drop for ReaderHandle {
    fn drop(&mut self) {
        if !self.0.retired.load(Ordering::SeqCst) {
            self.close();
        }
    }
}

/// Starts a reader for this address. It says [`SessionEvent::Opened`] once it is open, and [`SessionEvent::Closed`] exactly once.
///
/// # Errors
/// When the system refuses one more thread.
pub fn start(
    address: Address,
    dialer: Arc<Dialer>,
    out: Sender<Batch>,
    news: Sender<SessionEvent>,
    status: Arc<Status>,
    clock: Clock,
    stop: Receiver<()>,
) -> io::Result<ReaderHandle> {
    let shared = Arc::<Shared>::default();
    let handle = ReaderHandle(shared.clone());
    let beat = status.beats.register("reader");
    crate::thread::spawn("reader", move || {
        let reader = Reader {
            channel: address.channel.masked().into(),
            address,
            dialer,
            out,
            news,
            status,
            clock,
            stop,
            shared,
            beat,
            pending: Frames::default(),
        };
        reader.run();
    })?;
    Ok(handle)
}

struct Reader {
    address: Address,
    channel: Arc<str>,
    dialer: Arc<Dialer>,
    out: Sender<Batch>,
    news: Sender<SessionEvent>,
    status: Arc<Status>,
    clock: Clock,
    stop: Receiver<()>,
    shared: Arc<Shared>,
    beat: Beat,
    /// What came and was not passed on yet.
    pending: Frames,
}

/// When something was last heard, and when a ping was sent.
struct Silence {
    heard: Instant,
    pinged: Option<Instant>,
}

/// Since when the socket is being given up.
struct Retiring {
    since: Instant,
    heard: Instant,
}

impl Reader {
    fn run(mut self) {
        self.beat.busy();
        let why = match self.open() {
            Ok(link) => {
                self.status.counters.socket_connects.add(1);
                self.status.gauges.socket_connected.set(1);
                self.tell(SessionEvent::Opened(self.address.connection));
                let why = self.read(link);
                // A socket that was given up has a successor, whose state the gauge shows.
                if !self.is_retired() {
                    self.status.gauges.socket_connected.set(0);
                }
                why
            }
            Err(why) => why,
        };
        self.beat.waiting();
        self.tell(SessionEvent::Closed { connection: self.address.connection, why, at: self.clock.now() });
    }

    /// Says it, unless everything stops.
    fn tell(&self, news: SessionEvent) {
        select! {
            send(self.news, news) -> _ => {}
            recv(self.stop) -> _ => {}
        }
    }

    fn open(&self) -> Result<Link, Closed> {
        let _timed = self.beat.timed();
        let unreachable = |error: String| Closed::Unreachable(error);
        let uri = self.address.uri.expose();
        let target = Target::parse(uri).map_err(|error| unreachable(error.to_string()))?;
        if !target.tls && !target.is_loopback() {
            return Err(unreachable("cannot use the channel's address: it is not wss".to_owned()));
        }
        let mut stream = self.dialer.dial(&target, DIAL_LIMIT).map_err(|error| unreachable(error.to_string()))?;
        *self.shared.tcp.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream.socket().tcp());
        stream.socket_mut().set_deadline(Instant::now() + HANDSHAKE_LIMIT);
        let rest = shake_hands(&mut stream, &target, path(uri)).map_err(|failed| match failed {
            Failed::Refused(status) => Closed::Refused(status),
            Failed::Broken(text) => unreachable(format!("{text} (host {})", target.host)),
        })?;
        if self.is_stopped() {
            return Err(Closed::ByUs);
        }
        Link::new(stream, rest).map_err(|error| unreachable(error.to_string()))
    }

    fn read(&mut self, mut link: Link) -> Closed {
        let now = self.clock.now();
        let mut silence = Silence { heard: now, pinged: None };
        let mut retiring: Option<Retiring> = None;
        let (mut pausing, mut gathering) = (false, false);
        self.beat.waiting();
        loop {
            match link.read() {
                Ok(Incoming::Text(text)) => self.push(&text),
                Ok(Incoming::Unreadable { reason, head }) => self.push_unreadable(reason, head),
                Ok(Incoming::Nothing) => {}
                Ok(Incoming::Wait) => {
                    pausing = false;
                    let can_gather = self.pending.text_bytes() < GATHER_BYTES_MAX
                        && self.pending.len() < BATCH_FRAMES_MAX
                        && link.socket_mut().is_some_and(|socket| socket.readable_now());
                    let had_pending = !self.pending.is_empty();
                    if self.flush(can_gather).is_err() || self.is_stopped() {
                        return self.close_now(&mut link);
                    }
                    gathering = !self.pending.is_empty();
                    let goes_on = had_pending && retiring.is_none() && !self.is_retired();
                    if goes_on && !gathering {
                        continue;
                    }
                    let heard = link.socket_mut().is_some_and(|socket| socket.take_heard());
                    if let Some(why) = self.tick(&mut link, &mut silence, heard) {
                        return why;
                    }
                    if self.retire_is_over(&mut retiring, heard) {
                        return self.farewell(link);
                    }
                }
                Ok(Incoming::Close { code, reason }) => {
                    if code != ABNORMAL {
                        link.send_close(if code == 1005 { 1000 } else { code });
                    }
                    // The frames before it count; a stop that comes meanwhile changes nothing.
                    let _ = self.flush(false);
                    return if self.is_stopped() { Closed::ByUs } else { Closed::ByServer { code, reason } };
                }
                Err(error) => {
                    let _ = self.flush(false);
                    return if self.is_stopped() { Closed::ByUs } else { Closed::Broken(error) };
                }
            }
            if !self.pending.is_empty() {
                if self.pending.len() >= BATCH_FRAMES_MAX && self.flush(false).is_err() {
                    return self.close_now(&mut link);
                }
                if !pausing {
                    // Nothing waits for more: what one read brought goes on before the next read may block. Where it
                    // could not go on, one more read is known not to block.
                    pausing = true;
                    if let Some(socket) = link.socket_mut() {
                        socket.pause_after(u32::from(gathering));
                    }
                    gathering = false;
                }
            }
        }
    }

    fn push(&mut self, text: &str) {
        if self.pending.is_empty() {
            self.beat.busy();
        }
        self.pending.push_text(text);
    }

    fn push_unreadable(&mut self, reason: &'static str, head: Vec<u8>) {
        if self.pending.is_empty() {
            self.beat.busy();
        }
        self.pending.push_unreadable(reason, head);
    }

    /// Passes on what is pending. While the writer is behind, `can_gather` keeps it for the next time.
    ///
    /// # Errors
    /// When everything stops.
    fn flush(&mut self, can_gather: bool) -> Result<(), ()> {
        if self.pending.is_empty() {
            return if self.must_stop() { Err(()) } else { Ok(()) };
        }
        // What comes next is likely to be as much again: of single events that is little, of a flood a whole read.
        let next = Frames::with_capacity(
            self.pending.len().min(BATCH_FRAMES_MAX),
            self.pending.text_bytes().min(GATHER_BYTES_MAX),
        );
        let batch = Batch {
            connection: self.address.connection,
            channel: self.channel.clone(),
            received: self.address.service.receipt(&self.clock),
            frames: std::mem::replace(&mut self.pending, next),
        };
        let outcome = match self.out.try_send(batch) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(batch)) if can_gather => {
                self.pending = batch.frames;
                return Ok(());
            }
            Err(TrySendError::Full(batch)) => {
                // The queue is at its limit: the socket is not read, and its peer waits.
                self.beat.waiting();
                select! {
                    send(self.out, batch) -> sent => sent.map_err(drop),
                    recv(self.stop) -> _ => {
                        // What was received is to be in the file: the writer takes what still comes as it ends.
                        let _ = self.out.send_timeout(batch, LAST_BATCH_LIMIT);
                        Err(())
                    }
                }
            }
            Err(TrySendError::Disconnected(_)) => Err(()),
        };
        self.beat.waiting();
        outcome
    }

    /// Whether the socket is dead; asks it first.
    fn tick(&self, link: &mut Link, silence: &mut Silence, heard: bool) -> Option<Closed> {
        let now = self.clock.now();
        if heard {
            *silence = Silence { heard: now, pinged: None };
        }
        match silence.pinged {
            Some(pinged) if now.duration_since(pinged) >= PONG_LIMIT => return Some(Closed::Silent),
            None if now.duration_since(silence.heard) >= SILENCE_LIMIT => {
                silence.pinged = Some(now);
                if let Err(error) = link.send_text(PING) {
                    return Some(Closed::Broken(error));
                }
            }
            _ => {}
        }
        None
    }

    fn retire_is_over(&self, retiring: &mut Option<Retiring>, heard: bool) -> bool {
        if !self.is_retired() {
            return false;
        }
        let now = Instant::now();
        let retiring = retiring.get_or_insert(Retiring { since: now, heard: now });
        if heard {
            retiring.heard = now;
        }
        now.duration_since(retiring.heard) >= RETIRE_QUIET || now.duration_since(retiring.since) >= RETIRE_LIMIT
    }

    /// Closes in good order: what comes until the server's close frame is still passed on.
    fn farewell(&mut self, mut link: Link) -> Closed {
        link.send_close(1000);
        let deadline = Instant::now() + RETIRE_QUIET;
        while Instant::now() < deadline && !self.is_stopped() {
            match link.read() {
                Ok(Incoming::Text(text)) => self.push(&text),
                Ok(Incoming::Unreadable { reason, head }) => self.push_unreadable(reason, head),
                Ok(Incoming::Nothing | Incoming::Wait) => {}
                Ok(Incoming::Close { .. }) | Err(_) => break,
            }
            if self.pending.len() >= BATCH_FRAMES_MAX && self.flush(false).is_err() {
                break;
            }
        }
        // Whether everything stops meanwhile changes nothing any more.
        let _ = self.flush(false);
        Closed::ByUs
    }

    fn close_now(&mut self, link: &mut Link) -> Closed {
        link.send_close(1001);
        if let Some(socket) = link.socket_mut() {
            socket.shutdown();
        }
        Closed::ByUs
    }

    fn is_retired(&self) -> bool {
        self.shared.retired.load(Ordering::Relaxed)
    }

    fn must_stop(&self) -> bool {
        matches!(self.stop.try_recv(), Err(TryRecvError::Disconnected))
    }

    fn is_stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::Relaxed) || self.must_stop()
    }
}

/// What stands behind the host.
fn path(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    rest.find('/').map_or("/", |at| &rest[at..])
}
