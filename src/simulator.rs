//! A simulated Genesys Cloud: login, REST API and streaming on one loopback port, told apart by path.
//!
//! It is a test double of the public service as its API reference describes it: OAuth client credentials
//! (`/oauth/token`), operational events (`/api/v2/usage/events/…`), notifications (`/api/v2/notifications/…`) and the
//! channels' WebSockets (`/channels/{id}`). The commands `simulate` and `demo` stand on it, and every test: those switch
//! faults on through [`Faults`].
//!
//! Must never: be known to the collector, which meets it as it meets the real service; be more lenient than that.

mod api;
mod channels;
mod command;
mod definitions;
mod event;
mod fault;
pub mod frame;
mod generator;
mod handle;
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
mod wire;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

pub use command::command;
pub use definitions::Definition;
pub use event::{Event, SocketTime, content_key};
pub use fault::{Action, Call, Custom, Knobs, Service};
pub use generator::{PER_MINUTE_MAX, Pace};
pub use handle::Faults;
pub use http::{Answer, Request, http_date};
pub use state::Route;
pub use tokens::Client;
pub use view::{Seen, View};

use crate::clock::{Clock, Millis};
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
    pub clock: Clock,
    /// What the generated events follow from.
    pub seed: u64,
    /// Its certificate and key: https and wss.
    pub tls: Option<native_tls::Identity>,
    pub knobs: Knobs,
    /// Whether [`Simulator::issued`] is kept; a service that runs for weeks must not.
    pub keep_issued: bool,
}

impl Default for Options {
    /// Any free port on 127.0.0.1, one client, the machine's clock, no TLS.
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            host: None,
            clients: vec![Client {
                id: "6a1d3c7e-0b52-4f7c-9e1b-2f6f6d1b7a10".to_owned(),
                secret: "simulated-secret-5Jr8sQ2xWvT0".to_owned(),
            }],
            clock: Clock::system(),
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

/// The running service. Dropping it ends every connection and frees the port.
pub struct Simulator {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Dropping it ends the accepting thread.
    accepting: Option<(UnixStream, JoinHandle<()>)>,
    /// Dropping it ends the generator.
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
        let address = listener.local_addr()?;
        let host = options.host.unwrap_or_else(|| match address {
            _ if address.ip().is_unspecified() => "127.0.0.1".to_owned(),
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        });
        let tls = options.tls.map(native_tls::TlsAcceptor::new).transpose();
        let tls = tls.map_err(|e| io::Error::other(format!("cannot use the server's certificate: {e}")))?;
        let state = State {
            tokens: tokens::Tokens::new(options.clients),
            channels: channels::Channels::default(),
            definitions: definitions::Definitions::catalogue(),
            history: history::History::default(),
            faults: fault::Faults::new(options.knobs),
            counts: view::Counts::default(),
            number: 0,
            issued: options.keep_issued.then(Vec::new),
            stopped: false,
            connections: HashMap::new(),
            connections_made: 0,
        };
        let authority = format!("{host}:{}", address.port());
        let shared = Shared::new(state, options.clock, options.seed, authority, tls);
        let (ours, theirs) = UnixStream::pair()?;
        let accepting = server::accept(shared.clone(), listener, theirs)?;
        Ok(Self { shared, address, accepting: Some((ours, accepting)), generating: None })
    }

    /// `http://HOST:PORT`, or https: login and API alike.
    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.shared.authority)
    }

    /// Where it listens.
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
        let definition = event.definition.clone();
        let time_ms = event.time_ms.unwrap_or_default();
        let number = self.shared.issue_template(self.shared.template(event, false), &[None], route);
        let issued = self.shared.lock().issued.as_ref().and_then(|all| all.get(number as usize - 1).map(issued));
        issued.unwrap_or(Issued { number, definition, time_ms, key: String::new() })
    }

    /// Issues many events of one template at these times: cheap in memory, and fast. Gives the first one's number.
    pub fn issue_many(&self, event: Event, times: &[Millis], route: Route) -> u32 {
        let times: Vec<Option<Millis>> = times.iter().copied().map(Some).collect();
        self.shared.issue_template(self.shared.template(event, true), &times, route)
    }

    /// Sends events that were issued before on the sockets, once more or for the first time, in this order.
    pub fn send_again(&self, numbers: impl IntoIterator<Item = u32>) {
        self.shared.send_again(numbers);
    }

    /// Everything issued so far, in its order. Empty when it is not kept.
    pub fn issued(&self) -> Vec<Issued> {
        self.shared.lock().issued.as_ref().map(|all| all.iter().map(issued).collect()).unwrap_or_default()
    }

    /// Adds a definition, or replaces the one with its id.
    pub fn define(&self, definition: Definition) {
        self.shared.change(|state| state.definitions.add(definition));
    }

    /// Takes a definition away; its events stay in the history.
    pub fn undefine(&self, id: &str) {
        self.shared.change(|state| state.definitions.remove(id));
    }

    /// Milliseconds since 1970 by the service's clock.
    pub fn now(&self) -> Millis {
        self.shared.service_now(&self.shared.lock())
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
        let thread = generator::start(self.shared.clone(), pace, stopped)?;
        self.generating = Some((stop, thread));
        Ok(())
    }
}

fn issued(stored: &event::Stored) -> Issued {
    Issued {
        number: stored.number,
        definition: stored.template.event.definition.clone(),
        time_ms: stored.time_ms,
        key: stored.key(),
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.generating.take() {
            drop(stop);
            let _ = thread.join();
        }
        self.shared.stop();
        if let Some((stop, thread)) = self.accepting.take() {
            drop(stop);
            let _ = thread.join();
        }
        self.shared.wait(STOP_LIMIT, |state| state.connections.is_empty().then_some(()));
    }
}
