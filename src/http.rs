//! The HTTP server: health, recent events, metrics and the live page.
//!
//! ```text
//! clients ⇄ guard (connections, deadlines, byte budgets) ⇄ tiny_http on a private Unix socket ⇄ routes ⇄ status
//! ```
//!
//! tiny_http parses requests and sends answers. By itself it has no time limit and no size limit, a failed `accept` ends
//! it, and a client that does not read its answer blocks a thread: so the guard accepts the clients, hands over complete
//! request heads, one a connection, and carries the answers at each client's pace. Must never: read a file for a request,
//! or wait for another thread than its own.

mod answer;
mod backend;
mod body;
mod connection;
mod events;
mod guard;
mod live;
mod metrics;
mod page;
mod process;
mod query;
mod routes;
mod token;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::Receiver;

use crate::clock::Clock;
use crate::config::Http;
use crate::secret::Secret;
use crate::status::{Problem, Status};
use crate::thread;

/// Connections that wait in the kernel while the guard is busy; the kernel has a limit of its own.
const BACKLOG: i32 = 1024;
/// The cure for a host that cannot be listened on.
const OWN_ADDRESS: &str = "Set HTTP_HOST to an address of this machine, or to 0.0.0.0 or :: for all.";

/// The public port, taken and not yet served.
#[derive(Debug)]
pub struct Bound {
    /// One for each address of the host; one at least.
    listeners: Vec<TcpListener>,
    address: SocketAddr,
}

impl Bound {
    /// Where it listens, the first where a name has several addresses: with the port that the system chose where 0 was
    /// asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Takes the port. HTTP_HOST may be an IPv4 or IPv6 address, in brackets or not, or a name: then all of its addresses
/// that this machine has are listened on, `localhost` in both families.
///
/// # Errors
/// When the port cannot be taken: why, and which setting to change.
pub fn bind(settings: &Http) -> Result<Bound, Problem> {
    let host = settings.host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(&settings.host);
    let addresses: BTreeSet<SocketAddr> = (host, settings.port)
        .to_socket_addrs()
        .map_err(|error| Problem::new(format!("cannot look up HTTP_HOST {host}: {error}"), OWN_ADDRESS))?
        .collect();
    let mut failed = Problem::new(format!("cannot listen on HTTP_HOST {host}: the name has no address"), OWN_ADDRESS);
    let mut bound: Option<Bound> = None;
    for mut address in addresses {
        // Where the system chose the port for the first address, the others have the same one.
        if let Some(bound) = &bound {
            address.set_port(bound.address.port());
        }
        match listen(address) {
            Ok((listener, address)) => {
                bound.get_or_insert(Bound { listeners: Vec::new(), address }).listeners.push(listener);
            }
            // Half of a name's addresses would be a trap: whoever asks the other half meets another program.
            Err(error) if error.kind() == ErrorKind::AddrInUse && settings.port != 0 => {
                return Err(problem(address, &error));
            }
            Err(error) => failed = problem(address, &error),
        }
    }
    bound.ok_or(failed)
}

fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    // A second listen only moves the limit; where it is refused, the first one's stays.
    let _ = rustix::net::listen(&listener, BACKLOG);
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Why an address cannot be listened on, and which setting to change.
pub fn problem(address: SocketAddr, error: &io::Error) -> Problem {
    let port = address.port();
    let (why, cure) = match error.kind() {
        ErrorKind::AddrInUse => (
            "the port is in use".to_owned(),
            format!("Set HTTP_PORT to a free port, or stop what uses it (ss -ltnp 'sport = :{port}' names it)."),
        ),
        ErrorKind::PermissionDenied => {
            (error.to_string(), "Set HTTP_PORT to 1024 or more, or grant the service CAP_NET_BIND_SERVICE.".to_owned())
        }
        ErrorKind::AddrNotAvailable => ("this machine does not have the address".to_owned(), OWN_ADDRESS.to_owned()),
        _ => (error.to_string(), "Check HTTP_HOST and HTTP_PORT.".to_owned()),
    };
    Problem::new(format!("cannot listen on {address}: {why}"), cure)
}

/// Serves the port until `stop` ends. The handle is that of the thread that serves: it returns after a stop, and before
/// one only when something is broken beyond repair.
///
/// # Errors
/// When the system refuses a thread or a descriptor.
pub fn start(
    bound: Bound,
    status: Arc<Status>,
    clock: Clock,
    token: Option<Secret>,
    stop: Receiver<()>,
) -> io::Result<JoinHandle<()>> {
    let (stopped, stopper) = UnixStream::pair()?;
    let guard = guard::Guard::new(bound.listeners, stopped, routes::Site::new(status, token), clock)?;
    // poll(2) cannot wait for a channel: this thread turns the stop into a closed socket.
    thread::spawn("http-stop", move || {
        let _ = stop.recv();
        drop(stopper);
    })?;
    thread::spawn("http", move || guard.run())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Http {
        Http { host: host.into(), port, token: None }
    }

    #[test]
    fn names_and_both_families_can_be_listened_on() {
        for host in ["127.0.0.1", "localhost", "::1", "[::1]"] {
            match bind(&at(host, 0)) {
                Ok(bound) => assert_ne!(bound.address().port(), 0),
                // A machine without IPv6 says so in the same words.
                Err(problem) => assert!(host.contains(':') && problem.cure.contains("HTTP_HOST"), "{host}: {problem}"),
            }
        }
    }

    #[test]
    fn a_name_is_listened_on_in_every_family_it_has() {
        let bound = bind(&at("localhost", 0)).unwrap();
        let mut families: Vec<bool> = ("localhost", 0).to_socket_addrs().unwrap().map(|a| a.is_ipv6()).collect();
        families.sort();
        families.dedup();
        assert!(bound.listeners.len() == families.len() || bind(&at("::1", 0)).is_err());
        for listener in &bound.listeners {
            assert_eq!(listener.local_addr().unwrap().port(), bound.address().port());
        }
    }

    #[test]
    fn a_port_in_use_names_the_setting() {
        let first = bind(&at("127.0.0.1", 0)).unwrap();
        let problem = bind(&at("127.0.0.1", first.address().port())).unwrap_err();
        assert!(problem.cure.contains("HTTP_PORT") && problem.what.ends_with("in use"), "{problem}");
    }

    #[test]
    fn a_host_of_another_machine_names_the_setting() {
        for host in ["192.0.2.1", "no-such-host.invalid"] {
            let problem = bind(&at(host, 0)).unwrap_err();
            assert!(problem.cure.contains("HTTP_HOST"), "{problem}");
        }
    }
}
