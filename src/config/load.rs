//! From the texts to the validated [`Config`]: each group of settings, then what must hold between them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::address::{self, Address};
use super::faults::Faults;
use super::reader::Reader;
use super::settings::{PROXY_SETTINGS, default_of};
use super::values::{self, Judged};
use super::{
    CatchUp, Config, Delivery, Elastic, Fault, Genesys, Http, LogFormat, LogSettings, Network, Output, Reconnect,
    authorization, files, region,
};
use crate::genesys::topics;
use crate::secret::Secret;

/// Documents in a request, at most: what a cluster's memory bears.
const BULK_SIZE_MAX: u64 = 100_000;

/// Backups, at most: each rotation renames them all.
const BACKUP_COUNT_MAX: u64 = 10_000;

/// The requests a minute that the service allows one client.
const SERVICE_RATE_MAX: u32 = 300;

/// What the command at hand cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The three credentials: the collector, `check`, `audit`.
    Credentials,
    /// ELASTIC_URL: `replay`.
    Cluster,
    /// The cluster's settings, even without ELASTIC_URL: `template`.
    Template,
    /// Nothing: `demo` and `simulate` bring their own.
    Nothing,
}

impl Config {
    /// The settings of a run of the collector, from this process's environment and the settings file (`./.env` if none
    /// is named).
    ///
    /// # Errors
    /// With every fault there is, one a line.
    pub fn load(env_file: Option<&Path>) -> Result<Self, Faults> {
        Self::load_for(Need::Credentials, &|name| std::env::var_os(name), env_file)
    }

    /// The settings for what needs less, and from any environment.
    ///
    /// # Errors
    /// With every fault there is, one a line.
    pub fn load_for(
        need: Need,
        environment: &dyn Fn(&str) -> Option<OsString>,
        env_file: Option<&Path>,
    ) -> Result<Self, Faults> {
        let mut reader = Reader::new(environment, env_file);
        let genesys = genesys(&mut reader, need);
        let catch_up = catch_up(&mut reader);
        let (written, output) = output(&mut reader);
        let log = log_settings(&mut reader);
        let elastic = elastic(&mut reader, need);
        let http = http(&mut reader);
        let reconnect = reconnect(&mut reader);
        let network = network(&mut reader);
        files::check(&mut reader, &written, env_file);
        let config = || {
            Some(Self {
                genesys: genesys?,
                catch_up: catch_up?,
                output: output?,
                log: log?,
                elastic: elastic?,
                http: http?,
                reconnect: reconnect?,
                network: network?,
            })
        };
        finish(reader, config())
    }

    /// What is allowed and may still be a mistake; for the log, once the program starts.
    pub fn notices(&self) -> Vec<String> {
        let mut notices = Vec::new();
        if !self.genesys.env.is_empty() && !region::is_known(&self.genesys.env) {
            notices.push(format!(
                "GENESYS_ENV={}: not a region that this version knows; fine if it is new, else look at the address that you log in at",
                self.genesys.env
            ));
        }
        if self.catch_up.rate > SERVICE_RATE_MAX {
            notices.push(format!(
                "CATCH_UP_RATE={}: more than the {SERVICE_RATE_MAX} requests a minute that Genesys Cloud allows a client",
                self.catch_up.rate
            ));
        }
        if let Some(elastic) = &self.elastic
            && elastic.authorization.is_some()
        {
            let plain = |url: &&String| address::parse(url).is_ok_and(|url| !url.https && !url.is_loopback());
            notices.extend(elastic.urls.iter().find(plain).map(|url| {
                format!("ELASTIC_URL={url}: the cluster's credentials go over the network in clear; use https")
            }));
        }
        notices
    }
}

/// HTTP_HOST, HTTP_PORT and HTTP_TOKEN alone: asking a running collector for its health must not fail for a setting that
/// has nothing to do with it, nor need the credentials.
///
/// # Errors
/// With every fault of these.
pub fn load_http(environment: &dyn Fn(&str) -> Option<OsString>, env_file: Option<&Path>) -> Result<Http, Faults> {
    let mut reader = Reader::new(environment, env_file);
    let http = http(&mut reader);
    finish(reader, http)
}

/// Whether this setting has a value in the environment or in the settings file that was named: a `./.env` that merely lies
/// there asks for nothing.
pub fn is_asked_for(name: &str, environment: &dyn Fn(&str) -> Option<OsString>, env_file: Option<&Path>) -> bool {
    match env_file {
        Some(_) => Reader::new(environment, env_file).text(name).is_some(),
        None => environment(name).is_some_and(|value| !value.is_empty()),
    }
}

/// What was read, unless anything was wrong.
fn finish<T>(reader: Reader<'_>, read: Option<T>) -> Result<T, Faults> {
    let mut faults = reader.into_faults();
    match read {
        Some(read) if faults.is_empty() => Ok(read),
        _ => {
            if faults.is_empty() {
                faults.push(Fault::new("settings", None, "cannot be read"));
            }
            Err(Faults(faults))
        }
    }
}

fn genesys(reader: &mut Reader<'_>, need: Need) -> Option<Genesys> {
    let login_url = reader.optional("GENESYS_LOGIN_URL", service_url);
    let api_url = reader.optional("GENESYS_API_URL", service_url);
    // A bad one is given too: it has a fault of its own.
    let addresses_given = login_url != Some(None) && api_url != Some(None);
    let env = reader.optional("GENESYS_ENV", |text| region::domain(text, addresses_given));
    let client_id = reader.optional("GENESYS_CLIENT_ID", client_id);
    let client_secret = reader.secret("GENESYS_CLIENT_SECRET");
    let delivery = reader.judged("GENESYS_DELIVERY", |text| {
        let words = [("auto", Delivery::Auto), ("websocket", Delivery::Websocket), ("history", Delivery::History)];
        values::word(text, &words)
    });
    if need == Need::Credentials {
        if env == Some(None) {
            reader
                .fault("GENESYS_ENV", "not set: give the region's domain, such as mypurecloud.com or usw2.pure.cloud");
        }
        if client_id == Some(None) {
            reader.fault(
                "GENESYS_CLIENT_ID",
                "not set: give the id of an OAuth client with the grant type client credentials",
            );
        }
        if client_secret == Some(None) {
            reader.fault(
                "GENESYS_CLIENT_SECRET",
                "not set: give the client's secret, or its file in GENESYS_CLIENT_SECRET_FILE",
            );
        }
    }
    let topics_file = reader.path("TOPICS_FILE");
    let topics_file_named = reader.text("TOPICS_FILE").is_some_and(|path| path != default_of("TOPICS_FILE"));
    if need == Need::Credentials
        && let Some(path) = &topics_file
        && let Err(message) = topics::read_file(path, topics_file_named)
    {
        reader.fault("TOPICS_FILE", message);
    }
    let env = env?.unwrap_or_default();
    let url_of = |service: &str| if env.is_empty() { String::new() } else { format!("https://{service}.{env}") };
    Some(Genesys {
        client_id: client_id?.unwrap_or_default(),
        client_secret: client_secret?.unwrap_or_else(|| Secret::new("")),
        login_url: login_url?.unwrap_or_else(|| url_of("login")),
        api_url: api_url?.unwrap_or_else(|| url_of("api")),
        delivery: delivery?,
        topics_file: topics_file?,
        topics_file_named,
        env,
    })
}

fn client_id(text: &str) -> Judged<String> {
    let id = text.trim();
    if id.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
        Ok(id.to_owned())
    } else {
        Err("must be the OAuth client's id: letters, digits and -, without blanks".to_owned())
    }
}

/// An address of the service: https, or http on this machine.
fn service_url(text: &str) -> Judged<String> {
    let address = address::parse(text)?;
    if address.user_info.is_some() {
        return Err("must not hold a user or a password".to_owned());
    }
    if !address.https && !address.is_loopback() {
        return Err("must begin with https://: http is for localhost, 127.0.0.0/8 and [::1] alone".to_owned());
    }
    Ok(address.without_user_info())
}

fn catch_up(reader: &mut Reader<'_>) -> Option<CatchUp> {
    let interval = reader.judged("CATCH_UP_INTERVAL", values::seconds);
    let overlap = reader.judged("CATCH_UP_OVERLAP", values::seconds);
    let rate = reader.judged("CATCH_UP_RATE", |text| values::number(text, 1, u64::from(u32::MAX)));
    let start = reader.judged("CATCH_UP_START", values::seconds_or_zero);
    Some(CatchUp { interval: interval?, overlap: overlap?, rate: rate? as u32, start: start? })
}

/// The files that it writes, whatever else is at fault, and the whole group.
fn output(reader: &mut Reader<'_>) -> (files::Written, Option<Output>) {
    let file = reader.judged("OUTPUT_FILE", file_path);
    let max_file_size = reader.judged("MAX_FILE_SIZE", values::size);
    let backup_count = reader.judged("BACKUP_COUNT", |text| values::number(text, 0, BACKUP_COUNT_MAX));
    let state_file = reader.optional("STATE_FILE", file_path);
    let redact_fields = reader.judged("REDACT_FIELDS", |text| Ok(values::list(text)));
    let state_file = match (state_file, &file) {
        (Some(None), Some(file)) => Some(files::with_suffix(file, ".state")),
        (given, _) => given.flatten(),
    };
    let written = files::Written { file, state_file };
    let output = || {
        Some(Output {
            file: written.file.clone()?,
            max_file_size: max_file_size?,
            backup_count: backup_count? as u32,
            state_file: written.state_file.clone()?,
            redact_fields: redact_fields?,
        })
    };
    let output = output();
    (written, output)
}

fn file_path(text: &str) -> Judged<PathBuf> {
    let path = PathBuf::from(text);
    if text.ends_with('/') || path.file_name().is_none() || path.is_dir() {
        return Err("must name a file: this is a folder".to_owned());
    }
    Ok(path)
}

fn log_settings(reader: &mut Reader<'_>) -> Option<LogSettings> {
    use log::LevelFilter::{Debug, Error, Info, Trace, Warn};
    let console = reader.judged("CONSOLE_OUTPUT", values::boolean);
    let level = reader.judged("LOG_LEVEL", |text| {
        let words =
            [("error", Error), ("warning", Warn), ("warn", Warn), ("info", Info), ("debug", Debug), ("trace", Trace)];
        values::word(text, &words)
    });
    let format =
        reader.judged("LOG_FORMAT", |text| values::word(text, &[("json", LogFormat::Json), ("text", LogFormat::Text)]));
    Some(LogSettings { console: console?, level: level?, format: format? })
}

/// The outer `None` is a fault, the inner one a cluster that is off. Everything is judged either way.
fn elastic(reader: &mut Reader<'_>, need: Need) -> Option<Option<Elastic>> {
    let addresses = reader.judged("ELASTIC_URL", |text| {
        values::list(text).iter().map(|url| address::parse(url)).collect::<Judged<Vec<Address>>>()
    });
    let given = reader.secret("ELASTIC_AUTH");
    let authorization = given.and_then(|given| cluster_authorization(reader, given, addresses.as_deref()));
    let index = reader.judged("ELASTIC_INDEX", values::index_name);
    let bulk_size = reader.judged("BULK_SIZE", |text| values::number(text, 1, BULK_SIZE_MAX));
    let flush_interval = reader.judged("ELASTIC_FLUSH_INTERVAL", values::seconds);
    let ca_file = reader.certificate_file("ELASTIC_CA_FILE");
    let setup = reader.judged("ELASTIC_SETUP", values::boolean);
    let backlog_max = reader.judged("ELASTIC_BACKLOG_MAX", values::size);
    let retention = reader.judged("ELASTIC_RETENTION", values::retention);
    let mut urls: Vec<String> = addresses?.iter().map(Address::without_user_info).collect();
    let mut known = std::collections::BTreeSet::new();
    urls.retain(|url| known.insert(url.clone()));
    let off = urls.is_empty();
    if off && need == Need::Cluster {
        reader.fault("ELASTIC_URL", "not set: give the cluster's address, such as https://search.example:9200");
    }
    let elastic = Elastic {
        urls,
        authorization: authorization?,
        index: index?,
        bulk_size: bulk_size? as usize,
        flush_interval: flush_interval?,
        ca_file: ca_file?,
        setup: setup?,
        backlog_max: backlog_max?,
        retention: retention?,
    };
    Some((!off || need == Need::Template).then_some(elastic))
}

/// From ELASTIC_AUTH, or from the user and the password in the addresses (`None`: they are at fault already): one header
/// serves them all.
fn cluster_authorization(
    reader: &mut Reader<'_>,
    given: Option<Secret>,
    addresses: Option<&[Address]>,
) -> Option<Option<Secret>> {
    let is_given = given.is_some();
    let given = match given.map(|text| authorization::header(text.expose())).transpose() {
        Ok(header) => Some(header),
        Err(message) => {
            reader.fault("ELASTIC_AUTH", message);
            None
        }
    };
    let from_addresses = addresses_authorization(reader, addresses?)?;
    if is_given && from_addresses.is_some() {
        reader.fault("ELASTIC_URL", "holds a user and a password while ELASTIC_AUTH is set: keep one of the two");
        return None;
    }
    Some(given?.or(from_addresses))
}

/// The user and the password in the addresses, which must be the same in all that have them.
fn addresses_authorization(reader: &mut Reader<'_>, addresses: &[Address]) -> Option<Option<Secret>> {
    let mut from_addresses: Option<Secret> = None;
    for user_info in addresses.iter().filter_map(|address| address.user_info.as_deref()) {
        let header = match authorization::from_user_info(user_info) {
            Ok(header) => header,
            Err(message) => {
                reader.fault("ELASTIC_URL", message);
                return None;
            }
        };
        if from_addresses.as_ref().is_some_and(|known| *known != header) {
            reader.fault("ELASTIC_URL", "holds different users or passwords: use one for all, in ELASTIC_AUTH");
            return None;
        }
        from_addresses = Some(header);
    }
    Some(from_addresses)
}

fn http(reader: &mut Reader<'_>) -> Option<Http> {
    let host = reader.judged("HTTP_HOST", values::listen_host);
    let port = reader.judged("HTTP_PORT", |text| values::number(text, 1, 65_535));
    let token = reader.secret("HTTP_TOKEN");
    if let Some(Some(token)) = &token
        && !token.expose().bytes().all(|b| b.is_ascii_graphic())
    {
        reader.fault("HTTP_TOKEN", "must be one word of ASCII letters, digits and signs: it travels in a header");
        return None;
    }
    Some(Http { host: host?, port: port? as u16, token: token? })
}

fn reconnect(reader: &mut Reader<'_>) -> Option<Reconnect> {
    let delay = reader.judged("RECONNECT_DELAY", values::seconds);
    let max_delay = reader.judged("MAX_RECONNECT_DELAY", values::seconds);
    let (delay, max_delay) = (delay?, max_delay?);
    if delay > max_delay {
        let (low, high) = (delay.as_secs_f64(), max_delay.as_secs_f64());
        // Shown with the value that was set; the other one may be a default.
        let (name, message) = if reader.text("RECONNECT_DELAY").is_some() {
            ("RECONNECT_DELAY", format!("must not be more than MAX_RECONNECT_DELAY, which is {high}"))
        } else {
            ("MAX_RECONNECT_DELAY", format!("must not be less than RECONNECT_DELAY, which is {low}"))
        };
        reader.fault(name, message);
        return None;
    }
    Some(Reconnect { delay, max_delay })
}

fn network(reader: &mut Reader<'_>) -> Option<Network> {
    let ssl_cert_file = reader.certificate_file("SSL_CERT_FILE");
    let [https, no] = PROXY_SETTINGS.map(|name| (name, name.to_ascii_lowercase()));
    let https_proxy = match reader.text_of(&[https.0, &https.1]).map(|text| proxy(&text)) {
        Some(Ok(proxy)) => Some(proxy),
        Some(Err(message)) => {
            reader.fault(https.0, message);
            None
        }
        None => None,
    };
    let no_proxy = reader.text_of(&[no.0, &no.1]).unwrap_or_default();
    let no_proxy = values::list(&no_proxy.replace(char::is_whitespace, ","));
    Some(Network { ssl_cert_file: ssl_cert_file?, https_proxy, no_proxy })
}

/// A proxy's address; `http://` may be left out, as everywhere.
fn proxy(text: &str) -> Judged<Secret> {
    let text = text.trim();
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    if !whole.to_ascii_lowercase().starts_with("http://") {
        return Err(
            "must begin with http://: the proxy itself is spoken to in clear, the https goes through it".to_owned()
        );
    }
    let address = address::parse(&whole)?;
    if !address.path.is_empty() {
        return Err("must be http://host:port, with user:password@ before the host if need be".to_owned());
    }
    let user_info = address.user_info.map(|user_info| format!("{user_info}@")).unwrap_or_default();
    Ok(Secret::new(format!("http://{user_info}{}:{}", address.host, address.port.unwrap_or(80))))
}

#[cfg(test)]
mod tests;
