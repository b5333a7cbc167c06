//! A simulated Genesys Cloud: login, REST API and streaming on one loopback port, distinguished by path.
//!
//! It implements the public service as its API reference describes it: OAuth client credentials (`/oauth/token`),
//! operational events (`/api/v2/usage/events/…`), notifications (`/api/v2/notifications/…`) and the channels'
//! WebSockets (`/channels/{id}`). The commands `simulate` and `demo` and the tests use it; tests inject faults through
//! [`Faults`]. Of the collector's code it uses only the formatting of instants and [`crate::thread`].
//!
//! Must never: be more lenient than the real service, or be known to the collector, which treats both alike.

mod api;
mod channels;
mod command;
mod definitions;
mod event;
mod fault;
mod faults;
pub mod frame;
mod generator;
mod history;
mod http;
mod outbox;
mod server;
mod socket;
mod state;
mod stream;
mod tokens;
mod topics;
mod view;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

pub use command::command;
pub use definitions::Definition;
pub use event::{Event, SocketTime, content_key};
pub use fault::{Action, Call, Handler, Knobs, Service};
pub use faults::Faults;
pub use generator::{PER_MINUTE_MAX, Pace};
pub use http::{Answer, Request, http_date};
pub use state::Route;
pub use tokens::Client;
pub use view::{Seen, View};

use crate::clock::Millis;
use state::{Shared, State};

/// How long stopping waits for the threads of connections.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// The service's configuration.
pub struct Options {
    /// `HOST:PORT`; port 0 picks a free port.
    pub listen: String,
    /// The host name in [`Simulator::url`]; `None`: the listening address.
    pub host: Option<String>,
    /// The clients that may log in.
    pub clients: Vec<Client>,
    /// The seed of the generated events.
    pub seed: u64,
    /// Certificate and key for https and wss; `None`: no TLS.
    pub tls: Option<native_tls::Identity>,
    pub knobs: Knobs,
    /// Whether to record events for [`Simulator::issued`]. A service that runs for weeks must not.
    pub keep_issued: bool,
}

impl Default for Options {
    /// Any free port on 127.0.0.1, one client, no TLS.
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            host: None,
            clients: vec![Client {
                id: "6a1d3c7e-0b52-4f7c-9e1b-2f6f6d1b7a10".to_owned(),
                secret: "simulated-secret-5Jr8sQ2xWvT0".to_owned(),
            }],
            seed: 1,
            tls: None,
            knobs: Knobs::default(),
            keep_issued: true,
        }
    }
}

/// An issued event, with which a test compares what was collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Counts up from 1.
    pub number: u32,
    pub definition: String,
    /// The event's own time, as on the socket.
    pub time_ms: Millis,
    /// The event's content: see [`content_key`].
    pub key: String,
}

impl From<&event::Stored> for Issued {
    fn from(stored: &event::Stored) -> Self {
        let definition = stored.template.event.definition.clone();
        Self { number: stored.number, definition, time_ms: stored.time_ms, key: stored.key() }
    }
}

/// The running service. Dropping it ends every connection and frees the port.
pub struct Simulator {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
    /// Dropping the sender ends the generator.
    generating: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Simulator {
    /// Starts the service.
    ///
    /// # Errors
    /// When the address cannot be listened on, the TLS identity is invalid, or a thread cannot be started.
    pub fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(&options.listen)
            .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {}: {e}", options.listen)))?;
        let address = reachable(listener.local_addr()?);
        let authority = match options.host {
            Some(host) => format!("{host}:{}", address.port()),
            None => address.to_string(),
        };
        let tls = options.tls.map(native_tls::TlsAcceptor::new).transpose();
        let tls = tls.map_err(|e| io::Error::other(format!("cannot use the server's certificate: {e}")))?;
        let state = State {
            tokens: tokens::Tokens::new(options.clients),
            definitions: definitions::catalogue(),
            knobs: options.knobs,
            issued: options.keep_issued.then(Vec::new),
            ..State::default()
        };
        let shared = Arc::new(Shared::new(state, options.seed, authority, tls));
        let accepting = server::accept(shared.clone(), listener)?;
        Ok(Self { shared, address, accepting: Some(accepting), generating: None })
    }

    /// `http://HOST:PORT` or `https://HOST:PORT`, for both login and API.
    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.shared.authority)
    }

    /// The address at which the service is reachable.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A handle for injecting faults while the service runs.
    pub fn faults(&self) -> Faults {
        Faults(self.shared.clone())
    }

    /// Issues one event, on the sockets and into the history.
    pub fn issue(&self, event: Event) -> Issued {
        self.issue_by(event, Route::Both)
    }

    /// Issues one event on the given route.
    pub fn issue_by(&self, event: Event, route: Route) -> Issued {
        Issued::from(&self.shared.issue(self.shared.template(event), &[None], route)[0])
    }

    /// Issues one event per time from one template, which is fast and uses little memory. Returns the first number.
    pub fn issue_many(&self, event: Event, times: &[Millis], route: Route) -> u32 {
        let times: Vec<Option<Millis>> = times.iter().copied().map(Some).collect();
        self.shared.issue(self.shared.template(event), &times, route).first().map_or(0, |first| first.number)
    }

    /// Sends already issued events on the sockets, again or for the first time, in this order.
    pub fn send_again(&self, numbers: impl IntoIterator<Item = u32>) {
        self.shared.send_again(numbers);
    }

    /// All events issued so far, in order. Empty unless [`Options::keep_issued`] is set.
    pub fn issued(&self) -> Vec<Issued> {
        self.shared.lock().issued.iter().flatten().map(Issued::from).collect()
    }

    /// Adds a definition or replaces the one with the same id.
    pub fn define(&self, definition: Definition) {
        self.shared.change(|state| {
            state.gone.remove(&definition.id);
            state.definitions.insert(definition.id.clone(), definition);
        });
    }

    /// Removes a definition; its events stay in the history.
    pub fn undefine(&self, id: &str) {
        self.shared.change(|state| state.gone.insert(id.to_owned()));
    }

    /// The service's current time.
    pub fn now(&self) -> Millis {
        self.shared.lock().now()
    }

    /// Calls `look` with the service's current state.
    pub fn view<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&View(&self.shared.lock()))
    }

    /// Waits until `look` returns something, at most `limit`.
    pub fn wait_for<T>(&self, limit: Duration, mut look: impl FnMut(&View) -> Option<T>) -> Option<T> {
        self.shared.wait(limit, |state| look(&View(state)))
    }

    /// Waits until `holds` returns true, at most `limit`; returns whether it did.
    pub fn wait_until(&self, limit: Duration, mut holds: impl FnMut(&View) -> bool) -> bool {
        self.wait_for(limit, |view| holds(view).then_some(())).is_some()
    }

    /// Fills the history with realistic incidents and goes on issuing them at this pace.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn generate(&mut self, pace: Pace) -> io::Result<()> {
        let (stop, stopped) = bounded::<()>(0);
        self.generating = Some((stop, generator::start(self.shared.clone(), pace, stopped)?));
        Ok(())
    }
}

/// The address at which this machine reaches a server that listens on `address`.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    address
}

impl Drop for Simulator {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.generating.take() {
            drop(stop);
            let _ = thread.join();
        }
        self.shared.stop();
        // The accepting thread checks for the stop at the next connection.
        let woken = TcpStream::connect_timeout(&self.address, STOP_LIMIT).is_ok();
        if let Some(thread) = self.accepting.take().filter(|_| woken) {
            let _ = thread.join();
        }
        self.shared.wait(STOP_LIMIT, |state| state.connections.is_empty().then_some(()));
    }
}
