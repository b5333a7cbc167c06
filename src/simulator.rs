//! A simulated Genesys Cloud: login, REST API and streaming on one loopback port, told apart by path.
//!
//! It stands in for the public service as its API reference describes it: OAuth client credentials (`/oauth/token`),
//! operational events (`/api/v2/usage/events/…`), notifications (`/api/v2/notifications/…`) and the channels' WebSockets
//! (`/channels/{id}`). The commands `simulate` and `demo` and the tests use it; tests switch faults on through
//! [`Faults`]. Of the collector it uses the texts of instants and the one way to start a thread.
//!
//! Must never be known to the collector, which meets it as it meets the real service; nor be more lenient than that.

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

/// How long stopping waits for the connections' threads.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// How the service is set up.
pub struct Options {
    /// `HOST:PORT`; port 0: any that is free.
    pub listen: String,
    /// The host's name in [`Simulator::url`]; `None`: the address that is listened on.
    pub host: Option<String>,
    /// Who may log in.
    pub clients: Vec<Client>,
    /// What the generated events follow from.
    pub seed: u64,
    /// Its certificate and key: https and wss.
    pub tls: Option<native_tls::Identity>,
    pub knobs: Knobs,
    /// Whether [`Simulator::issued`] is kept; a service that runs for weeks must not.
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

/// An event that was issued: what a collection is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Counts up from 1.
    pub number: u32,
    pub definition: String,
    /// The event's own time, as the socket gives it.
    pub time_ms: Millis,
    /// Its content: see [`content_key`].
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
    /// Listens and serves.
    ///
    /// # Errors
    /// An address that cannot be listened on, an identity that TLS does not take, a thread that the system refuses.
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

    /// `http://HOST:PORT`, or https: login and API alike.
    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.shared.authority)
    }

    /// Where it is reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The faults, to be switched on and off while the service runs.
    pub fn faults(&self) -> Faults {
        Faults(self.shared.clone())
    }

    /// Issues one event, on the sockets and into the history.
    pub fn issue(&self, event: Event) -> Issued {
        self.issue_by(event, Route::Both)
    }

    /// Issues one event on the ways that `route` names.
    pub fn issue_by(&self, event: Event, route: Route) -> Issued {
        Issued::from(&self.shared.issue(self.shared.template(event), &[None], route)[0])
    }

    /// Issues many events of one template at these times: cheap in memory, and fast. Gives the first one's number.
    pub fn issue_many(&self, event: Event, times: &[Millis], route: Route) -> u32 {
        let times: Vec<Option<Millis>> = times.iter().copied().map(Some).collect();
        self.shared.issue(self.shared.template(event), &times, route).first().map_or(0, |first| first.number)
    }

    /// Sends events that were issued before on the sockets, once more or for the first time, in this order.
    pub fn send_again(&self, numbers: impl IntoIterator<Item = u32>) {
        self.shared.send_again(numbers);
    }

    /// Everything issued so far, in its order. Empty when it is not kept.
    pub fn issued(&self) -> Vec<Issued> {
        self.shared.lock().issued.iter().flatten().map(Issued::from).collect()
    }

    /// Adds a definition, or replaces the one with its id.
    pub fn define(&self, definition: Definition) {
        self.shared.change(|state| {
            state.gone.remove(&definition.id);
            state.definitions.insert(definition.id.clone(), definition);
        });
    }

    /// Takes a definition away; its events stay in the history.
    pub fn undefine(&self, id: &str) {
        self.shared.change(|state| state.gone.insert(id.to_owned()));
    }

    /// Milliseconds since 1970 by the service's clock.
    pub fn now(&self) -> Millis {
        self.shared.lock().now()
    }

    /// A look at what the service has seen.
    pub fn view<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&View(&self.shared.lock()))
    }

    /// Waits until `look` finds something, at most this long.
    pub fn wait_for<T>(&self, limit: Duration, mut look: impl FnMut(&View) -> Option<T>) -> Option<T> {
        self.shared.wait(limit, |state| look(&View(state)))
    }

    /// Waits until `holds`, at most this long; `false`: it did not come to that.
    pub fn wait_until(&self, limit: Duration, mut holds: impl FnMut(&View) -> bool) -> bool {
        self.wait_for(limit, |view| holds(view).then_some(())).is_some()
    }

    /// Fills the past with what looks like incidents, and goes on with them at this pace.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn generate(&mut self, pace: Pace) -> io::Result<()> {
        let (stop, stopped) = bounded::<()>(0);
        self.generating = Some((stop, generator::start(self.shared.clone(), pace, stopped)?));
        Ok(())
    }
}

/// Where this machine reaches a server that listens there.
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
        // The accepting thread notices the stop at the next connection.
        let woken = TcpStream::connect_timeout(&self.address, STOP_LIMIT).is_ok();
        if let Some(thread) = self.accepting.take().filter(|_| woken) {
            let _ = thread.join();
        }
        self.shared.wait(STOP_LIMIT, |state| state.connections.is_empty().then_some(()));
    }
}
