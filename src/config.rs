//! The settings, read once into a plain validated value.
//!
//! Each is a row in `table.rs`; all errors are reported together. Must never: be read again while the program runs, or
//! show a secret's value.

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

/// Everything that can be set. Made by [`Config::load`]; tests make their own.
#[derive(Clone, Debug)]
pub struct Config {
    /// What this collector is called where there are several.
    pub instance: String,
    pub genesys: Genesys,
    pub catch_up: CatchUp,
    pub output: Output,
    pub log: LogSettings,
    /// `None`: ELASTIC_URL is empty and nothing goes to a cluster.
    pub elastic: Option<Elastic>,
    pub http: Http,
    pub reconnect: Reconnect,
    pub network: Network,
    /// What is allowed and may still be a mistake; for the log, once the program starts.
    pub notices: Vec<String>,
}

/// Who to log in as, and where.
#[derive(Clone, Debug)]
pub struct Genesys {
    /// The region's domain, such as `usw2.pure.cloud`.
    pub env: String,
    pub client_id: String,
    pub client_secret: Secret,
    /// `https://login.{env}`, without a slash at its end.
    pub login_url: String,
    /// `https://api.{env}`, without a slash at its end.
    pub api_url: String,
    pub delivery: Delivery,
    pub topics_file: PathBuf,
    /// What the file lists; `None`: there is no file, and every AudioHook definition is collected.
    pub topics: Option<Vec<String>>,
}

/// Which way events come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Both, whichever works.
    Auto,
    /// The socket alone: what it misses is lost.
    Websocket,
    /// The history alone: events are late by up to CATCH_UP_INTERVAL.
    History,
}

/// How the history is read.
#[derive(Clone, Debug)]
pub struct CatchUp {
    pub interval: Duration,
    /// How far each read goes back before what was already read.
    pub overlap: Duration,
    /// Requests a minute.
    pub rate: u32,
    /// How far the very first start goes back; zero: only from now on.
    pub start: Duration,
}

/// The file and what stands beside it.
#[derive(Clone, Debug)]
pub struct Output {
    pub file: PathBuf,
    /// Bytes.
    pub max_file_size: u64,
    /// Zero: never rotated.
    pub backup_count: u32,
    pub state_file: PathBuf,
    /// Names whose values are replaced; their case counts.
    pub redact_fields: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Whether anything goes to standard output.
    pub console: bool,
    pub level: log::LevelFilter,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

/// The cluster.
#[derive(Clone, Debug)]
pub struct Elastic {
    /// One or more, each without user and password and without a slash at its end; a path prefix stays. None only where
    /// the index template is to be printed ([`Need::Template`]).
    pub urls: Vec<String>,
    /// The whole value of the `Authorization` header.
    pub authorization: Option<Secret>,
    pub index: String,
    /// Documents in a request, at most.
    pub bulk_size: usize,
    pub flush_interval: Duration,
    pub ca_file: Option<PathBuf>,
    /// Whether the index template is put where it is absent.
    pub setup: bool,
    /// How long documents are kept; `None`: the collector sets no lifecycle.
    pub retention: Option<Duration>,
    /// Bytes of backups kept beyond BACKUP_COUNT.
    pub backlog_max: u64,
}

#[derive(Clone, Debug)]
pub struct Http {
    pub host: String,
    pub port: u16,
    pub token: Option<Secret>,
}

/// Bounds of the backoff after a failure.
#[derive(Clone, Debug)]
pub struct Reconnect {
    pub delay: Duration,
    pub max_delay: Duration,
}

/// What every connection that goes out has in common.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// A file of CA certificates instead of the system's.
    pub ssl_cert_file: Option<PathBuf>,
    /// `http://[user:password@]host:port`, the user and the password percent-encoded; used for https and wss by CONNECT.
    pub https_proxy: Option<Secret>,
    /// Hosts, domains and addresses that are reached without the proxy.
    pub no_proxy: Vec<String>,
}
