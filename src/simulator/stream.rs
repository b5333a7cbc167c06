//! A connection, plain or over TLS, and its TCP connection, which another thread may shut down.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use native_tls::{TlsAcceptor, TlsStream};
use rustix::net::sockopt::set_socket_linger;

/// A byte stream, plain or over TLS.
pub(super) trait Bytes: Read + Write {
    /// Sends TLS's close_notify; does nothing on a plain stream.
    fn close_notify(&mut self) {}
}

impl Bytes for TcpStream {}

impl Bytes for TlsStream<TcpStream> {
    fn close_notify(&mut self) {
        let _ = self.shutdown();
    }
}

pub(super) struct Stream {
    pub bytes: BufReader<Box<dyn Bytes>>,
    pub tcp: Arc<TcpStream>,
}

impl Stream {
    /// With `acceptor`, performs the TLS handshake.
    pub fn accept(tcp: Arc<TcpStream>, acceptor: Option<&TlsAcceptor>) -> io::Result<Self> {
        let plain = tcp.try_clone()?;
        let bytes: Box<dyn Bytes> = match acceptor {
            None => Box::new(plain),
            Some(acceptor) => Box::new(acceptor.accept(plain).map_err(|e| io::Error::other(e.to_string()))?),
        };
        Ok(Self { bytes: BufReader::new(bytes), tcp })
    }

    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.get_mut().write_all(bytes)
    }

    /// Whether the peer has gone.
    pub fn is_lost(&self) -> bool {
        let _ = self.tcp.set_nonblocking(true);
        let peeked = self.tcp.peek(&mut [0; 1]);
        let _ = self.tcp.set_nonblocking(false);
        peeked.map_or_else(|e| e.kind() != ErrorKind::WouldBlock, |bytes| bytes == 0)
    }

    /// Ends the server's side.
    pub fn finish(&mut self) {
        self.bytes.get_mut().close_notify();
        let _ = self.tcp.shutdown(Shutdown::Write);
    }
}

/// Makes the following close reset the connection.
pub(super) fn reset_on_close(tcp: &TcpStream) {
    let _ = set_socket_linger(tcp, Some(Duration::ZERO));
}
