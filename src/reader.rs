//! The reader: one thread per open socket. It passes on frames and what happens to the socket.
//!
//! Must never: look into a text, wait to gather more, or decide where to connect next.

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

/// Connecting, all steps up to TLS together.
pub const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// The WebSocket handshake: one that hangs is given up, so that the next one finds a service that answers again within
/// ten seconds.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(8);
/// How long the last batch waits for room while everything stops.
const LAST_BATCH_LIMIT: Duration = Duration::from_secs(1);
/// A retired socket is read until nothing came for this long…
const RETIRE_QUIET: Duration = Duration::from_secs(1);
/// …and no longer than this.
const RETIRE_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of texts in one batch, at most, but for the last text.
const BATCH_BYTES_MAX: usize = 128 * 1024;
/// Messages in one batch, at most: small ones must not make it large.
const BATCH_FRAMES_MAX: usize = 4096;

/// Ends a reader. Dropping it closes the socket at once, unless the reader was retired: then it ends by itself.
#[derive(Debug)]
pub struct ReaderHandle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    retired: AtomicBool,
    closed: AtomicBool,
    tcp: Mutex<Option<Arc<TcpStream>>>,
}

impl ReaderHandle {
    /// A newer socket has taken over: read on until this one is quiet or closed, then close it.
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
            // It fails only where the connection is gone already.
            let _ = tcp.shutdown(Shutdown::Both);
        }
    }
}

/// What every reader is given, whatever socket it reads.
#[derive(Clone)]
pub struct Context {
    pub dialer: Arc<Dialer>,
    pub out: Sender<Batch>,
    pub session: Sender<SessionEvent>,
    pub status: Arc<Status>,
    pub clock: Clock,
    /// Disconnected when everything stops.
    pub stop: Receiver<()>,
}

/// Starts a reader for this address. It sends [`SessionEvent::Opened`] once the socket is open, and [`SessionEvent::Closed`] exactly once.
///
/// # Errors
/// When the system refuses one more thread.
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
    /// What came and was not passed on yet.
    pending: Frames,
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

    /// Sends it, unless everything stops.
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
                    ws.send_close(if code == 1005 { 1000 } else { code });
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
            // What came is passed on before a read waits for more.
            ws.set_waits(self.pending.is_empty());
        };
        // What came before the end counts; a stop that comes meanwhile changes nothing.
        let _ = self.flush();
        if self.is_closed() { Closed::ByUs } else { why }
    }

    fn is_full(&self) -> bool {
        self.pending.text_bytes() >= BATCH_BYTES_MAX || self.pending.len() >= BATCH_FRAMES_MAX
    }

    /// Passes on what is pending.
    ///
    /// # Errors
    /// When everything stops.
    fn flush(&mut self) -> Result<(), ()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // What comes next is likely to be as much again: of single events that is little, of a flood a whole batch.
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
                // The queue is at its limit: the socket is not read, and its peer waits.
                self.beat.waiting();
                select! {
                    send(self.context.out, batch) -> sent => sent.map_err(drop),
                    recv(self.context.stop) -> _ => {
                        // What was received is to be in the file: the writer takes what still comes as it ends.
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

    /// Whether the socket is to be closed at once, because of the handle or because everything stops.
    fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Relaxed)
            || matches!(self.context.stop.try_recv(), Err(TryRecvError::Disconnected))
    }
}

/// Whether nothing came for a while, or it was waited for long enough: what was sent before a newer socket took over has
/// come by then.
fn is_quiet(retiring: &mut Option<Retiring>, heard: bool) -> bool {
    let now = Instant::now();
    let retiring = retiring.get_or_insert(Retiring { since: now, heard: now });
    if heard {
        retiring.heard = now;
    }
    now.duration_since(retiring.heard) >= RETIRE_QUIET || now.duration_since(retiring.since) >= RETIRE_LIMIT
}
