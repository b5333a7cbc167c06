//! A connection, plain or over TLS, that can be shut from another thread.
//!
//! Deals with: the two kinds of stream behind one `Read` and `Write`. Must never: outlive its peer's patience; whoever
//! reads sets the time limits.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// A TCP connection that several threads may hold.
#[derive(Debug)]
pub(super) struct Link(pub Arc<TcpStream>);

impl Read for Link {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(out)
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) enum Stream {
    Plain(Link),
    Tls(Box<native_tls::TlsStream<Link>>),
}

impl Stream {
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(link) => &link.0,
            Self::Tls(tls) => &tls.get_ref().0,
        }
    }

    /// Says that nothing follows, as far as the kind of stream has a word for it.
    pub fn finish(&mut self) {
        if let Self::Tls(tls) = self {
            let _ = tls.shutdown();
        }
        let _ = self.tcp().shutdown(std::net::Shutdown::Write);
    }

    /// Makes the close that follows a reset instead of an end.
    pub fn reset_on_close(&self) {
        let _ = rustix::net::sockopt::set_socket_linger(self.tcp(), Some(std::time::Duration::ZERO));
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(link) => link.read(out),
            Self::Tls(tls) => tls.read(out),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(link) => link.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }
}
