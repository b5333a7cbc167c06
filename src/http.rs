//! The HTTP server: health, recent events, metrics and the live page.
//!
//! ```text
//! clients ⇄ guard (connections, deadlines, byte budgets) ⇄ tiny_http on a private Unix socket ⇄ routes ⇄ status
//! ```
//!
//! tiny_http parses requests and sends responses. On its own it has no time or size limits, stops after a failed
//! `accept`, and blocks a thread for each client that does not read its response. So the guard accepts the clients, hands
//! over complete request heads, one per connection, and relays each response at its client's pace. Must never: read a
//! file for a request, or wait for a thread outside this module.

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

/// Length of the kernel's accept queue. The kernel may lower it.
const BACKLOG: i32 = 1024;
/// The fix when the HTTP_HOST address is not one of this machine's.
const OWN_ADDRESS: &str = "Set HTTP_HOST to an address of this machine, or to 0.0.0.0 or :: for all.";

/// The listening sockets, not served yet.
#[derive(Debug)]
pub struct Bound {
    /// One for each address of the host, at least one.
    listeners: Vec<TcpListener>,
    address: SocketAddr,
}

impl Bound {
    /// The address it listens on: the first one where a name has several. If port 0 was requested, the port is the one
    /// that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Binds the port. HTTP_HOST may be an IPv4 or IPv6 address, in brackets or not, or a name. For a name, it listens on
/// each of its addresses that this machine has: on `localhost` for IPv4 and for IPv6.
///
/// # Errors
/// When the port cannot be bound: the reason, and which setting to change.
pub fn bind(settings: &Http) -> Result<Bound, Problem> {
    let host = settings.host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(&settings.host);
    let addresses: BTreeSet<SocketAddr> = (host, settings.port)
        .to_socket_addrs()
        .map_err(|error| Problem::new(format!("cannot look up HTTP_HOST {host}: {error}"), OWN_ADDRESS))?
        .collect();
    let mut failed = Problem::new(format!("cannot listen on HTTP_HOST {host}: the name has no address"), OWN_ADDRESS);
    let mut bound: Option<Bound> = None;
    for mut address in addresses {
        // If the system chose the port of the first address, the other addresses use the same one.
        if let Some(bound) = &bound {
            address.set_port(bound.address.port());
        }
        match listen(address) {
            Ok((listener, address)) => {
                bound.get_or_insert(Bound { listeners: Vec::new(), address }).listeners.push(listener);
            }
            // Do not listen on only some of a name's addresses: a client that connects to another one would reach the
            // program that uses the port there.
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
    // A second listen(2) only changes the queue's length. If it fails, the first length stays.
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
            format!(
                "Set HTTP_PORT to a free port, or stop the program that uses it (ss -ltnp 'sport = :{port}' shows it)."
            ),
        ),
        ErrorKind::PermissionDenied => {
            (error.to_string(), "Set HTTP_PORT to 1024 or more, or grant the service CAP_NET_BIND_SERVICE.".to_owned())
        }
        ErrorKind::AddrNotAvailable => ("this machine does not have the address".to_owned(), OWN_ADDRESS.to_owned()),
        _ => (error.to_string(), "Check HTTP_HOST and HTTP_PORT.".to_owned()),
    };
    Problem::new(format!("cannot listen on {address}: {why}"), cure)
}

/// Serves the port until `stop` is closed. The handle belongs to the serving thread. It returns after a stop, or
/// earlier after a failure that it cannot recover from.
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
    let guard = guard::Guard::new(bound.listeners, stopped, routes::Handler::new(status, token), clock)?;
    // poll(2) cannot wait for a channel, so this thread closes a socket when the stop arrives.
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
                // A machine without IPv6 fails with the same fix.
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
