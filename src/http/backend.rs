//! tiny_http on a private Unix socket. It parses the requests that the guard hands over, and sends the responses.

use std::io;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use tiny_http::Server;

use super::routes::Handler;
use crate::thread;

/// A running tiny_http and the thread that answers its requests.
pub struct Backend {
    address: SocketAddr,
    server: Arc<Server>,
    answering: JoinHandle<()>,
}

impl Backend {
    /// # Errors
    /// When the system refuses a descriptor or a thread.
    pub fn start(handler: Arc<Handler>) -> io::Result<Self> {
        let address = private_address()?;
        let listener = UnixListener::bind_addr(&address)?;
        let server = Arc::new(Server::from_listener(listener, None).map_err(io::Error::other)?);
        // tiny_http panics when a server on a socket without a path is dropped, so one reference is leaked.
        std::mem::forget(server.clone());
        let requests = server.clone();
        let answering = thread::spawn("http-answers", move || {
            while let Ok(request) = requests.recv() {
                handler.serve(request);
            }
        })?;
        Ok(Self { address, server, answering })
    }

    /// Whether tiny_http has stopped, which it does after a failed `accept`.
    pub fn has_ended(&self) -> bool {
        self.answering.is_finished()
    }

    /// # Errors
    /// When no descriptor is left, or when tiny_http has stopped.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect_addr(&self.address)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.server.unblock();
    }
}

/// A name in the abstract namespace, which needs no writable folder and leaves no file behind.
#[cfg(target_os = "linux")]
fn private_address() -> io::Result<SocketAddr> {
    <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(private_name())
}

#[cfg(not(target_os = "linux"))]
fn private_address() -> io::Result<SocketAddr> {
    SocketAddr::from_pathname(std::env::temp_dir().join(private_name()))
}

/// A unique, unguessable name: the standard library seeds `RandomState` from the system's random source.
fn private_name() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    format!("audiohook-collector-{}-{:016x}", std::process::id(), RandomState::new().build_hasher().finish())
}
