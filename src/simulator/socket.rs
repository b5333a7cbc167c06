//! One open WebSocket: the thread that writes what its outbox says and answers what the client sends.
//!
//! Deals with: heartbeats, pongs, the order of what goes out, faults in mid-frame. Must never: block in a write, or a
//! client that does not read could not be cut.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::event::Stored;
use super::frame::{self, ClientFrame, take_client_frame};
use super::outbox::{Cut, Out, Outbox};
use super::state::Shared;
use super::stream::Stream;

/// Rendered frames that are gathered before a write.
const GATHERED_BYTES: usize = 64 * 1024;
/// How long a client may take to end its side after we ended ours.
const FAREWELL: Duration = Duration::from_secs(1);
/// At the latest after this the channel's end is looked at.
const CHANNEL_LOOK: Duration = Duration::from_secs(1);

const HEARTBEAT: &str = "{\"topicName\":\"channel.metadata\",\"eventBody\":{\"message\":\"WebSocket Heartbeat\"}}";
const PONG: &str = "{\"topicName\":\"channel.metadata\",\"eventBody\":{\"message\":\"pong\"}}";

pub(super) struct Session<'a> {
    shared: &'a Shared,
    stream: Stream,
    outbox: Arc<Outbox>,
    woken: UnixStream,
    /// Bytes that are to be written next; whole frames, unless a fault put others there.
    pending: Vec<u8>,
    written: usize,
    /// What is being written: a batch of events with the next of them, or bytes in pieces with the next instant.
    batch: Option<(Arc<[Stored]>, usize)>,
    pieces: Option<Pieces>,
    received: Vec<u8>,
    heartbeat_due: Instant,
    look_due: Instant,
    /// Set once our side is ended: until then the client may end its own.
    farewell: Option<Instant>,
}

struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    size: usize,
    pause: Duration,
    due: Instant,
}

impl<'a> Session<'a> {
    /// `received`: what the client sent behind its handshake.
    pub fn new(shared: &'a Shared, stream: Stream, outbox: Arc<Outbox>, woken: UnixStream, received: Vec<u8>) -> Self {
        let now = Instant::now();
        Self {
            shared,
            stream,
            outbox,
            woken,
            pending: Vec::new(),
            written: 0,
            batch: None,
            pieces: None,
            received,
            heartbeat_due: now + shared.lock().faults.knobs.heartbeat,
            look_due: now + CHANNEL_LOOK,
            farewell: None,
        }
    }

    /// Serves the socket until either side ends it.
    pub fn run(mut self) {
        if self.stream.tcp().set_nonblocking(true).is_err() {
            return;
        }
        while matches!(self.turn(), Ok(true)) {}
        if self.outbox.is_cut() == Some(Cut::Reset) {
            self.stream.reset_on_close();
        }
    }

    /// Writes and reads what can be, then waits for more; `false`: the end.
    fn turn(&mut self) -> io::Result<bool> {
        if self.outbox.is_cut().is_some() {
            return Ok(false);
        }
        let now = Instant::now();
        if self.farewell.is_some_and(|until| now >= until) {
            return Ok(false);
        }
        if now >= self.look_due {
            self.look_due = now + CHANNEL_LOOK;
            self.shared.change(|state| self.shared.expire_channels(state));
        }
        if !self.outbox.is_frozen() {
            if now >= self.heartbeat_due {
                self.heartbeat_due = now + self.shared.lock().faults.knobs.heartbeat;
                self.answer(&frame::text(HEARTBEAT));
            }
            self.write(now)?;
            if !self.read()? {
                return Ok(false);
            }
        }
        self.wait()?;
        Ok(true)
    }

    /// Puts a whole frame behind what is pending, unless bytes of a frame are under way in pieces.
    fn answer(&mut self, frame: &[u8]) {
        if self.pieces.is_none() && self.farewell.is_none() {
            self.pending.extend_from_slice(frame);
        }
    }

    fn write(&mut self, now: Instant) -> io::Result<()> {
        loop {
            if self.written == self.pending.len() {
                self.pending.clear();
                self.written = 0;
                if self.farewell.is_some() || !self.gather(now) {
                    return Ok(());
                }
                continue;
            }
            match self.stream.write(&self.pending[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => self.written += bytes,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Fills `pending` with what comes next; `false`: nothing does, now.
    fn gather(&mut self, now: Instant) -> bool {
        if let Some((batch, next)) = self.batch.take() {
            let end = self.render(&batch, next);
            if end < batch.len() {
                self.batch = Some((batch, end));
            }
            return true;
        }
        if let Some(pieces) = &mut self.pieces {
            if now < pieces.due {
                return false;
            }
            let end = (pieces.at + pieces.size).min(pieces.bytes.len());
            self.pending.extend_from_slice(&pieces.bytes[pieces.at..end]);
            pieces.at = end;
            pieces.due = now + pieces.pause;
            if end == pieces.bytes.len() {
                self.pieces = None;
            }
            return true;
        }
        match self.outbox.next() {
            None => false,
            Some(Out::Events(batch)) => {
                self.batch = Some((batch, 0));
                true
            }
            Some(Out::Bytes(bytes)) => {
                self.pending = bytes;
                true
            }
            Some(Out::Pieces { bytes, size, pause }) => {
                self.pieces = Some(Pieces { bytes, at: 0, size: size.max(1), pause, due: now });
                true
            }
            Some(Out::Freeze) => false,
            Some(Out::End) => {
                self.stream.finish();
                self.farewell = Some(now + FAREWELL);
                false
            }
        }
    }

    /// Renders events from `next` on until a write is worth it; gives the next one.
    fn render(&mut self, batch: &[Stored], next: usize) -> usize {
        let mut text = Vec::with_capacity(1024);
        let mut at = next;
        while at < batch.len() && self.pending.len() < GATHERED_BYTES {
            text.clear();
            batch[at].push_frame(&mut text);
            frame::push_header(frame::TEXT, true, text.len(), &mut self.pending);
            self.pending.extend_from_slice(&text);
            at += 1;
        }
        self.shared.change(|state| state.counts.frames_sent += (at - next) as u64);
        at
    }

    /// Takes what the client sent; `false`: it ended its side.
    fn read(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(false),
                Ok(read) => self.received.extend_from_slice(&bytes[..read]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if self.farewell.is_some() {
            self.received.clear();
            return Ok(true);
        }
        loop {
            match take_client_frame(&mut self.received) {
                Ok(Some(frame)) => self.hear(&frame),
                Ok(None) => break,
                Err(reason) => {
                    self.outbox.put(Out::Bytes(frame::close(1002, reason)));
                    self.outbox.put(Out::End);
                    self.received.clear();
                    break;
                }
            }
        }
        // What was heard is answered at once, not at the next turn.
        self.write(Instant::now())?;
        Ok(true)
    }

    fn hear(&mut self, frame: &ClientFrame) {
        let is_text_ping = || {
            let text: Option<serde_json::Value> = serde_json::from_slice(&frame.payload).ok();
            text.is_some_and(|text| text["message"] == "ping")
        };
        let answer = match frame.opcode {
            frame::PING => frame::encode(frame::PONG, true, &frame.payload),
            frame::TEXT if is_text_ping() => frame::text(PONG),
            frame::CLOSE => {
                // The close is answered in its turn, and everything before it is still written.
                self.outbox.put(Out::Bytes(frame::encode(frame::CLOSE, true, &frame.payload)));
                self.outbox.put(Out::End);
                return;
            }
            _ => return,
        };
        let answers = self.shared.change(|state| {
            state.counts.pings += 1;
            state.faults.knobs.pongs
        });
        if answers {
            self.answer(&answer);
        }
    }

    /// Waits for the network, the outbox or the next instant that something is due.
    fn wait(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let frozen = self.outbox.is_frozen();
        let unwritten = !frozen && self.written < self.pending.len();
        let mut due = self.look_due;
        if !frozen {
            due = due.min(self.heartbeat_due);
        }
        for other in [self.farewell, self.pieces.as_ref().filter(|_| !frozen).map(|pieces| pieces.due)] {
            due = other.map_or(due, |other| due.min(other));
        }
        let mut wanted = PollFlags::empty();
        if !frozen {
            wanted |= PollFlags::IN;
        }
        if unwritten {
            wanted |= PollFlags::OUT;
        }
        let (network, woken) = {
            let mut ready = [PollFd::new(self.stream.tcp(), wanted), PollFd::new(&self.woken, PollFlags::IN)];
            let limit = Timespec::try_from(due.saturating_duration_since(now)).ok();
            match poll(&mut ready, limit.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            (ready[0].revents(), !ready[1].revents().is_empty())
        };
        if woken {
            let mut bytes = [0; 64];
            while matches!((&self.woken).read(&mut bytes), Ok(read) if read > 0) {}
        }
        if frozen && network.intersects(PollFlags::HUP | PollFlags::ERR) {
            return Err(ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}
