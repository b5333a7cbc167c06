//! A TCP connection, with or without TLS on top: deadlines, read-ahead and non-blocking reads.
//!
//! Must never: block longer than its deadline or its tick.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use native_tls::TlsStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Bytes read ahead under TLS: one system call then reads several records, instead of two calls per record.
const TLS_READ_AHEAD_BYTES: usize = 32 * 1024;

/// A TCP connection with a deadline.
#[derive(Debug)]
pub struct Socket {
    /// Shared, so that another thread can shut the connection down.
    tcp: Arc<TcpStream>,
    deadline: Option<Instant>,
    ahead: Vec<u8>,
    at: usize,
    end: usize,
    /// Whether a read may wait for input.
    waits: bool,
    heard: bool,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp: Arc::new(tcp), deadline: None, ahead: Vec::new(), at: 0, end: 0, waits: true, heard: false }
    }

    /// Sets the time after which reads and writes fail with `TimedOut`.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    pub(super) fn read_ahead(&mut self) {
        self.ahead.resize(TLS_READ_AHEAD_BYTES, 0);
    }

    /// From now on each read waits at most `tick`, then returns `WouldBlock`; each write waits at most `write`.
    ///
    /// # Errors
    /// When the socket option cannot be set.
    pub fn set_tick(&mut self, tick: Duration, write: Duration) -> io::Result<()> {
        self.deadline = None;
        self.tcp.set_read_timeout(Some(tick))?;
        self.tcp.set_write_timeout(Some(write))
    }

    /// Sets whether a read may wait for input. If not, a read without input returns `WouldBlock` at once, so that the
    /// caller can first pass on what it has.
    pub fn set_waits(&mut self, waits: bool) {
        self.waits = waits;
    }

    /// Whether anything was received since the last call.
    pub fn take_heard(&mut self) -> bool {
        std::mem::take(&mut self.heard)
    }

    /// Whether there is input to read, which includes the end of the connection.
    pub(super) fn has_input(&self) -> bool {
        if self.at < self.end {
            return true;
        }
        let mut fds = [PollFd::from_borrowed_fd(self.tcp.as_fd(), PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&at_once)), Ok(ready) if ready > 0)
    }

    /// The connection, for shutting it down from another thread.
    pub fn tcp(&self) -> Arc<TcpStream> {
        self.tcp.clone()
    }

    fn remaining(&self) -> io::Result<Option<Duration>> {
        let Some(deadline) = self.deadline else { return Ok(None) };
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() { Err(timed_out()) } else { Ok(Some(remaining)) }
    }

    fn read_tcp(&mut self, into_ahead: bool, buffer: &mut [u8]) -> io::Result<usize> {
        let remaining = self.remaining()?;
        if remaining.is_some() {
            self.tcp.set_read_timeout(remaining)?;
        }
        loop {
            let read = if into_ahead { (&*self.tcp).read(&mut self.ahead) } else { (&*self.tcp).read(buffer) };
            match read {
                // A signal: the kernel does not restart reads with a timeout.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) && remaining.is_some() => return Err(timed_out()),
                Err(error) if is_timeout(&error) => return Err(io::ErrorKind::WouldBlock.into()),
                read => {
                    self.heard |= read.as_ref().is_ok_and(|count| *count > 0);
                    return read;
                }
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end {
            if !self.waits && !self.has_input() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if buffer.len() >= self.ahead.len() {
                return self.read_tcp(false, buffer);
            }
            (self.at, self.end) = (0, 0);
            self.end = self.read_tcp(true, &mut [])?;
        }
        let count = buffer.len().min(self.end - self.at);
        buffer[..count].copy_from_slice(&self.ahead[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let remaining = self.remaining()?;
        if remaining.is_some() {
            self.tcp.set_write_timeout(remaining)?;
        }
        match (&*self.tcp).write(bytes) {
            // `TimedOut` ends the connection, as the frame may be half sent.
            Err(error) if is_timeout(&error) => Err(timed_out()),
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection to a peer, with or without TLS.
pub trait Stream: Read + Write + Send + Sync + fmt::Debug {
    /// The TCP connection, below TLS if there is TLS.
    fn socket(&mut self) -> &mut Socket;
    fn is_tls(&self) -> bool;
}

impl Stream for Socket {
    fn socket(&mut self) -> &mut Socket {
        self
    }

    fn is_tls(&self) -> bool {
        false
    }
}

impl Stream for TlsStream<Socket> {
    fn socket(&mut self) -> &mut Socket {
        self.get_mut()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
