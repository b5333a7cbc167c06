//! The settings, read once at the start into a validated [`Config`].
//!
//! Each setting is a row in `table.rs`. All errors are reported together. A secret's value is never shown.

pub mod address;
mod authorization;
pub mod env_file;
mod errors;
pub mod file_checks;
mod load;
mod reader;
mod region;
pub mod table;
pub mod topics_file;
pub mod values;

use std::path::PathBuf;
use std::time::Duration;

pub use errors::{Errors, SettingError};
pub use load::{Need, is_set, load_http};
pub use reader::{Environment, NO_FILE};

use crate::secret::Secret;

/// All settings, as loaded by [`Config::load`].
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of this collector, to distinguish several.
    pub instance: String,
    pub genesys: Genesys,
    pub catch_up: CatchUp,
    pub output: Output,
    pub log: LogSettings,
    /// `None` if ELASTIC_URL is empty: nothing is sent to a cluster.
    pub elastic: Option<Elastic>,
    pub http: Http,
    pub reconnect: Reconnect,
    pub network: Network,
    /// Warnings about valid settings that may be mistakes, to be logged at the start.
    pub notices: Vec<String>,
}

/// The Genesys Cloud service and the credentials for it.
#[derive(Clone, Debug)]
pub struct Genesys {
    /// The region's domain, such as `usw2.pure.cloud`.
    pub env: String,
    pub client_id: String,
    pub client_secret: Secret,
    /// `https://login.{env}`, without a trailing slash.
    pub login_url: String,
    /// `https://api.{env}`, without a trailing slash.
    pub api_url: String,
    pub delivery: Delivery,
    pub topics_file: PathBuf,
    /// The topics in the file. `None` if there is no file: all AudioHook definitions are collected.
    pub topics: Option<Vec<String>>,
}

/// The sources of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The WebSocket and the history.
    Auto,
    /// Only the WebSocket. Events that it misses are lost.
    Websocket,
    /// Only the history. Events arrive late, by up to CATCH_UP_INTERVAL.
    History,
}

/// How the history is read.
#[derive(Clone, Debug)]
pub struct CatchUp {
    pub interval: Duration,
    /// How far each read reaches back into the time that was already read.
    pub overlap: Duration,
    /// Requests per minute.
    pub rate: u32,
    /// How far the very first start reads back. Zero: only new events.
    pub start: Duration,
}

/// The output file and the state file.
#[derive(Clone, Debug)]
pub struct Output {
    pub file: PathBuf,
    /// In bytes.
    pub max_file_size: u64,
    /// Zero: the file is never rotated.
    pub backup_count: u32,
    pub state_file: PathBuf,
    /// Case-sensitive names of fields whose values are redacted.
    pub redact_fields: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Whether to log to standard output.
    pub console: bool,
    pub level: log::LevelFilter,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

/// The cluster of Elasticsearch or OpenSearch.
#[derive(Clone, Debug)]
pub struct Elastic {
    /// The addresses, with their path prefix but without credentials and trailing slash. Empty only with
    /// [`Need::Template`].
    pub urls: Vec<String>,
    /// The whole value of the `Authorization` header.
    pub authorization: Option<Secret>,
    pub index: String,
    /// Maximum number of documents per request.
    pub bulk_size: usize,
    pub flush_interval: Duration,
    pub ca_file: Option<PathBuf>,
    /// Whether to create a missing index template.
    pub setup: bool,
    /// How long documents are kept. `None`: the collector creates no lifecycle policy.
    pub retention: Option<Duration>,
    /// Maximum bytes of backups kept beyond BACKUP_COUNT.
    pub backlog_max: u64,
}

#[derive(Clone, Debug)]
pub struct Http {
    pub host: String,
    pub port: u16,
    pub token: Option<Secret>,
}

/// The first and the maximum delay of the backoff after a failure.
#[derive(Clone, Debug)]
pub struct Reconnect {
    pub delay: Duration,
    pub max_delay: Duration,
}

/// The settings of all outgoing connections.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// A file of CA certificates instead of the system's.
    pub ssl_cert_file: Option<PathBuf>,
    /// `http://[user:password@]host:port`, with user and password percent-encoded. Used for https and wss by CONNECT.
    pub https_proxy: Option<Secret>,
    /// Hosts, domains and addresses that are connected to without the proxy.
    pub no_proxy: Vec<String>,
}
