//! The reader: one thread per open socket, which passes on frames and reports when the socket opens and closes.
//!
//! Must never: parse a text, delay frames to build larger batches, or decide where to connect next.

mod for_check;
mod liveness;
#[cfg(test)]
mod tests;
mod ws;

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, select};

pub use self::for_check::ping;
use self::liveness::Liveness;
pub use self::liveness::{PONG_LIMIT, SILENCE_LIMIT};
pub(crate) use self::ws::random;
use self::ws::{Incoming, WsConnection};
use crate::clock::Clock;
use crate::message::{Address, Batch, Closed, Frames, SessionEvent};
use crate::net::Dialer;
use crate::status::{Beat, Status};

/// Limit for connecting: all steps up to and including TLS.
pub const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// Limit for the WebSocket handshake. One that hangs is abandoned, so that once the service answers again, a new one
/// succeeds within ten seconds.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(8);
/// How long the last batch waits for room in the queue during shutdown.
const LAST_BATCH_LIMIT: Duration = Duration::from_secs(1);
/// A retired socket is closed after this long without input…
const RETIRE_QUIET: Duration = Duration::from_secs(1);
/// …and at the latest after this.
const RETIRE_LIMIT: Duration = Duration::from_secs(10);
/// Text bytes after which a batch is full; the last text may exceed them.
const BATCH_BYTES_MAX: usize = 128 * 1024;
/// Maximum number of messages in a batch, so that many small ones do not make it large.
const BATCH_FRAMES_MAX: usize = 4096;

/// Controls a reader. Dropping it closes the socket at once; a retired reader ends by itself instead.
#[derive(Debug)]
pub struct ReaderHandle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    retired: AtomicBool,
    closed: AtomicBool,
    tcp: Mutex<Option<Arc<TcpStream>>>,
}

impl ReaderHandle {
    /// A newer socket has taken over: keep reading until this one is quiet or closed, then close it.
    pub fn retire(&self) {
        self.0.retired.store(true, Ordering::SeqCst);
    }
}

impl Drop for ReaderHandle {
    fn drop(&mut self) {
        if self.0.retired.load(Ordering::SeqCst) {
            return;
        }
        self.0.closed.store(true, Ordering::SeqCst);
        if let Some(tcp) = self.0.tcp.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // This fails only if the connection is already closed.
            let _ = tcp.shutdown(Shutdown::Both);
        }
    }
}

/// What all readers share.
#[derive(Clone)]
pub struct Context {
    pub dialer: Arc<Dialer>,
    pub out: Sender<Batch>,
    pub session: Sender<SessionEvent>,
    pub status: Arc<Status>,
    pub clock: Clock,
    /// Disconnected at shutdown.
    pub stop: Receiver<()>,
}

/// Starts a reader for this address. It sends [`SessionEvent::Opened`] when the socket is open, and
/// [`SessionEvent::Closed`] exactly once.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(address: Address, context: Context) -> io::Result<ReaderHandle> {
    let shared = Arc::<Shared>::default();
    let handle = ReaderHandle(shared.clone());
    let beat = context.status.beats.register("reader");
    crate::thread::spawn("reader", move || {
        let channel = address.channel.masked().into();
        Reader { channel, address, context, shared, beat, pending: Frames::default() }.run();
    })?;
    Ok(handle)
}

struct Reader {
    address: Address,
    /// The channel's id, masked.
    channel: Arc<str>,
    context: Context,
    shared: Arc<Shared>,
    beat: Beat,
    /// Messages received but not passed on yet.
    pending: Frames,
}

/// When the socket was retired, and when it last received something.
struct Retiring {
    since: Instant,
    heard: Instant,
}

impl Reader {
    fn run(mut self) {
        self.beat.busy();
        let why = match self.open() {
            Ok(ws) => {
                self.context.status.counters.socket_connects.add(1);
                self.context.status.gauges.socket_connected.set(1);
                self.send(SessionEvent::Opened(self.address.connection));
                let why = self.read(ws);
                // A retired socket has a successor, whose state the gauge shows.
                if !self.is_retired() {
                    self.context.status.gauges.socket_connected.set(0);
                }
                why
            }
            Err(why) => why,
        };
        self.beat.waiting();
        self.send(SessionEvent::Closed { connection: self.address.connection, why, at: self.context.clock.now() });
    }

    /// Sends an event, unless the program stops.
    fn send(&self, event: SessionEvent) {
        select! {
            send(self.context.session, event) -> _ => {}
            recv(self.context.stop) -> _ => {}
        }
    }

    fn open(&self) -> Result<WsConnection, Closed> {
        let _timed = self.beat.timed();
        let now = self.address.service.receipt(&self.context.clock);
        let ws = WsConnection::open(&self.address.uri, &self.context.dialer, DIAL_LIMIT, now, |tcp| {
            *self.shared.tcp.lock().unwrap_or_else(PoisonError::into_inner) = Some(tcp);
        })?;
        if self.is_closed() { Err(Closed::ByUs) } else { Ok(ws) }
    }

    fn read(&mut self, mut ws: WsConnection) -> Closed {
        let mut liveness = Liveness::new(self.context.clock.now());
        let mut retiring = None;
        self.beat.waiting();
        let why = loop {
            let mut is_idle = false;
            match ws.read() {
                Ok(Incoming::Text(text)) => self.pending.push_text(&text),
                Ok(Incoming::Unreadable { reason, head }) => self.pending.push_unreadable(reason, head),
                Ok(Incoming::Nothing) => {}
                Ok(Incoming::Wait) => is_idle = true,
                Ok(Incoming::Close { code, reason }) => {
                    // These stand for the absence of a code, and are never sent.
                    ws.send_close(if matches!(code, 1005 | 1006) { 1000 } else { code });
                    break Closed::ByServer { code, reason };
                }
                Err(error) => break Closed::Broken(error),
            }
            if is_idle || self.is_full() {
                if self.flush().is_err() || self.is_closed() {
                    ws.send_close(1001);
                    return Closed::ByUs;
                }
                let heard = ws.take_heard();
                if let Err(why) = liveness.check(&mut ws, heard, self.context.clock.now()) {
                    break why;
                }
                if self.is_retired() && is_quiet(&mut retiring, heard) {
                    ws.send_close(1000);
                    return Closed::ByUs;
                }
            } else if self.pending.len() == 1 {
                self.beat.busy();
            }
            // A read must not wait while received messages have not been passed on.
            ws.set_waits(self.pending.is_empty());
        };
        // Passes on what came before the end. The result does not matter: the reader ends either way.
        let _ = self.flush();
        if self.is_closed() { Closed::ByUs } else { why }
    }

    fn is_full(&self) -> bool {
        self.pending.text_bytes() >= BATCH_BYTES_MAX || self.pending.len() >= BATCH_FRAMES_MAX
    }

    /// Passes on the pending messages.
    ///
    /// # Errors
    /// When the program stops.
    fn flush(&mut self) -> Result<(), ()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // The next batch is likely to be as large: small for single events, full in a flood.
        let next = Frames::with_capacity(self.pending.len(), self.pending.text_bytes());
        let batch = Batch {
            connection: self.address.connection,
            channel: self.channel.clone(),
            received: self.address.service.receipt(&self.context.clock),
            frames: std::mem::replace(&mut self.pending, next),
        };
        let outcome = match self.context.out.try_send(batch) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(batch)) => {
                // The queue is full: the socket is not read, so that its peer has to wait.
                self.beat.waiting();
                select! {
                    send(self.context.out, batch) -> sent => sent.map_err(drop),
                    recv(self.context.stop) -> _ => {
                        // Received messages must reach the file; the writer still accepts batches while it stops.
                        let _ = self.context.out.send_timeout(batch, LAST_BATCH_LIMIT);
                        Err(())
                    }
                }
            }
            Err(TrySendError::Disconnected(_)) => Err(()),
        };
        self.beat.waiting();
        outcome
    }

    fn is_retired(&self) -> bool {
        self.shared.retired.load(Ordering::Relaxed)
    }

    /// Whether to close the socket at once: the handle was dropped, or the program stops.
    fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Relaxed)
            || matches!(self.context.stop.try_recv(), Err(TryRecvError::Disconnected))
    }
}

/// Whether the socket was quiet for long enough, or the limit has passed. By then, everything sent before the newer
/// socket took over has arrived.
fn is_quiet(retiring: &mut Option<Retiring>, heard: bool) -> bool {
    let now = Instant::now();
    let retiring = retiring.get_or_insert(Retiring { since: now, heard: now });
    if heard {
        retiring.heard = now;
    }
    now.duration_since(retiring.heard) >= RETIRE_QUIET || now.duration_since(retiring.since) >= RETIRE_LIMIT
}
