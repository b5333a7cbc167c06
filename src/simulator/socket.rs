//! An open WebSocket: its thread writes the outbox and answers the client's frames.
//!
//! Must never: block in a write, as the connection to a client that does not read must still be cut.

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tungstenite::protocol::frame::{Frame, FrameSocket};

use super::event::Stored;
use super::frame;
use super::outbox::{Cut, Out, Outbox};
use super::state::Shared;
use super::stream::{Bytes, reset_on_close};

/// Maximum bytes of a client's frame; a longer one closes the socket.
const CLIENT_FRAME_BYTES_MAX: usize = 64 * 1024;
/// Frames are combined into writes of about this size.
const GATHERED_BYTES: usize = 64 * 1024;
/// How long a client may take to end its side after the server ended its own.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often expired channels are checked for, at least.
const CHANNEL_LOOK: Duration = Duration::from_secs(1);

const HEARTBEAT: &str = "{\"topicName\":\"channel.metadata\",\"eventBody\":{\"message\":\"WebSocket Heartbeat\"}}";
const PONG: &str = "{\"topicName\":\"channel.metadata\",\"eventBody\":{\"message\":\"pong\"}}";

pub(super) struct Session<'a> {
    pub shared: &'a Shared,
    pub socket: FrameSocket<Box<dyn Bytes>>,
    pub tcp: Arc<TcpStream>,
    pub outbox: Arc<Outbox>,
    pub woken: UnixStream,
}

impl Session<'_> {
    /// Serves the socket until either side ends it.
    pub fn run(mut self) {
        let _ = self.tcp.set_nonblocking(true).and_then(|()| self.serve());
        if self.outbox.is_cut() == Some(Cut::Reset) {
            reset_on_close(&self.tcp);
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut heartbeat = Instant::now() + self.shared.lock().knobs.heartbeat;
        loop {
            while let Some(out) = self.outbox.next() {
                match out {
                    Out::Events(batch) => self.write_events(&batch)?,
                    Out::Bytes(bytes) => self.write(&bytes)?,
                    Out::Freeze => {}
                    Out::End => return self.end(),
                }
            }
            if !self.outbox.is_frozen() {
                if Instant::now() >= heartbeat {
                    heartbeat = Instant::now() + self.shared.lock().knobs.heartbeat;
                    self.write(&frame::text(HEARTBEAT))?;
                }
                self.answer()?;
            }
            self.shared.change(|state| state.expire_channels());
            let heartbeat_in = heartbeat.saturating_duration_since(Instant::now());
            self.wait(
                PollFlags::IN,
                if self.outbox.is_frozen() { CHANNEL_LOOK } else { CHANNEL_LOOK.min(heartbeat_in) },
            )?;
        }
    }

    fn write_events(&mut self, batch: &[Stored]) -> io::Result<()> {
        let (mut gathered, mut text, mut count) = (Vec::new(), Vec::with_capacity(1024), 0);
        for (at, event) in batch.iter().enumerate() {
            text.clear();
            event.push_frame(&mut text);
            frame::push_header(frame::TEXT, true, text.len(), &mut gathered);
            gathered.extend_from_slice(&text);
            count += 1;
            if gathered.len() >= GATHERED_BYTES || at + 1 == batch.len() {
                self.shared.change(|state| state.counts.frames_sent += count);
                self.write(&gathered)?;
                gathered.clear();
                count = 0;
            }
        }
        Ok(())
    }

    /// Writes all bytes, unless the socket is cut meanwhile.
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.outbox.is_cut().is_some() {
                return Err(ErrorKind::ConnectionReset.into());
            }
            match self.socket.get_mut().write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::OUT, CHANNEL_LOOK)?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Ends the server's side and waits a while for the client to end its own.
    fn end(&mut self) -> io::Result<()> {
        self.socket.get_mut().close_notify();
        self.tcp.shutdown(Shutdown::Write)?;
        let until = Instant::now() + FAREWELL;
        while Instant::now() < until {
            while self.read()?.is_some() {}
            self.wait(PollFlags::IN, until.saturating_duration_since(Instant::now()))?;
        }
        Ok(())
    }

    /// The client's next frame, if there is one; the end of the connection is an error.
    fn read(&mut self) -> io::Result<Option<Frame>> {
        match self.socket.read(Some(CLIENT_FRAME_BYTES_MAX)) {
            Ok(Some(frame)) => Ok(Some(frame)),
            Ok(None) => Err(ErrorKind::UnexpectedEof.into()),
            Err(tungstenite::Error::Io(e)) if e.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(io::Error::other(e)),
        }
    }

    /// Answers the client's pings and its close frame.
    fn answer(&mut self) -> io::Result<()> {
        while let Some(frame) = self.read()? {
            let (opcode, payload) = match frame::client_payload(&frame) {
                Some(payload) => (frame.header().opcode.into(), payload),
                None => (frame::CLOSE, 1002_u16.to_be_bytes().to_vec()),
            };
            let text = || serde_json::from_slice::<serde_json::Value>(&payload).unwrap_or_default();
            let pong = match opcode {
                frame::PING => frame::encode(frame::PONG, true, &payload),
                frame::TEXT if text()["message"] == "ping" => frame::text(PONG),
                frame::CLOSE => {
                    self.write(&frame::encode(frame::CLOSE, true, &payload))?;
                    self.outbox.put(Out::End);
                    return Ok(());
                }
                _ => continue,
            };
            let is_answered = self.shared.change(|state| {
                state.counts.pings += 1;
                state.knobs.pongs
            });
            if is_answered {
                self.write(&pong)?;
            }
        }
        Ok(())
    }

    /// Waits for the network or the outbox, at most `limit`. Fails if the socket was cut, or is frozen and the client
    /// is gone.
    fn wait(&mut self, wanted: PollFlags, limit: Duration) -> io::Result<()> {
        let frozen = self.outbox.is_frozen();
        let wanted = if frozen { PollFlags::empty() } else { wanted };
        let mut ready = [PollFd::new(&*self.tcp, wanted), PollFd::new(&self.woken, PollFlags::IN)];
        match poll(&mut ready, Timespec::try_from(limit).ok().as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let lost = ready[0].revents().intersects(PollFlags::HUP | PollFlags::ERR);
        let mut bytes = [0; 64];
        while matches!((&self.woken).read(&mut bytes), Ok(read) if read > 0) {}
        if self.outbox.is_cut().is_some() || (frozen && lost) {
            return Err(ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}
