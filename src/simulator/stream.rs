//! A connection, plain or over TLS, and the TCP connection under it, which another thread may shut.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use native_tls::{TlsAcceptor, TlsStream};
use rustix::net::sockopt::set_socket_linger;

/// What is read and written.
pub(super) trait Bytes: Read + Write {
    /// Says that nothing follows, where there is a word for it.
    fn say_end(&mut self) {}
}

impl Bytes for TcpStream {}

impl Bytes for TlsStream<TcpStream> {
    fn say_end(&mut self) {
        let _ = self.shutdown();
    }
}

pub(super) struct Stream {
    pub bytes: BufReader<Box<dyn Bytes>>,
    pub tcp: Arc<TcpStream>,
}

impl Stream {
    /// `acceptor`: it is to be TLS.
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

    /// Ends our side.
    pub fn finish(&mut self) {
        self.bytes.get_mut().say_end();
        let _ = self.tcp.shutdown(Shutdown::Write);
    }
}

/// Makes the close that follows a reset instead of an end.
pub(super) fn reset_on_close(tcp: &TcpStream) {
    let _ = set_socket_linger(tcp, Some(Duration::ZERO));
}
