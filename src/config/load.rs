//! Loads and validates the [`Config`]: each group of settings, then the rules between them.

use std::path::{Path, PathBuf};

use super::address::{self, Address};
use super::errors::Errors;
use super::reader::{Environment, Reader};
use super::table::row_of;
use super::values::{self, Parsed};
use super::{
    CatchUp, Config, Delivery, Elastic, Genesys, Http, LogFormat, LogSettings, Network, Output, Reconnect,
    authorization, file_checks, region, topics_file,
};
use crate::secret::Secret;

/// The service's limit on requests per minute for one client.
const SERVICE_RATE_MAX: u32 = 300;
/// Maximum length of INSTANCE_NAME, which is part of the page's title.
const INSTANCE_NAME_CHARS_MAX: usize = 100;

/// The settings that a command requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The three credentials: the collector, `check`, `audit`.
    Credentials,
    /// ELASTIC_URL: `replay`.
    Cluster,
    /// The cluster's settings, even without ELASTIC_URL: `template`.
    Template,
    /// Nothing: `demo`, `simulate` and `events`.
    Nothing,
}

impl Config {
    /// Loads the settings from the environment and the settings file, which is `./.env` unless `env_file` names
    /// another.
    ///
    /// # Errors
    /// All errors of the settings.
    pub fn load(need: Need, environment: &Environment, env_file: Option<&Path>) -> Result<Self, Errors> {
        let mut reader = Reader::new(environment, env_file);
        let genesys = genesys(&mut reader, need);
        let catch_up = catch_up(&mut reader);
        let output = output(&mut reader);
        file_checks::check_purposes(&mut reader, &output.file, &output.state_file, env_file);
        let log = log_settings(&mut reader);
        let elastic = elastic(&mut reader, need);
        let http = http(&mut reader);
        let reconnect = reconnect(&mut reader);
        let network = network(&mut reader);
        let instance = reader.parse("INSTANCE_NAME", instance_name).unwrap_or_else(|| genesys.env.clone());
        let notices = reader.check_names();
        let config =
            Self { instance, genesys, catch_up, output, log, elastic, http, reconnect, network, notices: Vec::new() };
        let notices = notices.into_iter().chain(mistakes(&config)).collect();
        finish(reader, Self { notices, ..config })
    }
}

/// Warnings about valid settings that may be mistakes.
fn mistakes(config: &Config) -> Vec<String> {
    let mut notices = Vec::new();
    let env = &config.genesys.env;
    if !env.is_empty() && !region::is_known(env) {
        notices.push(format!(
            "GENESYS_ENV={env}: this version does not know this region; check the value unless the region is new"
        ));
    }
    if config.catch_up.rate > SERVICE_RATE_MAX {
        notices.push(format!(
            "CATCH_UP_RATE={}: Genesys Cloud allows a client only {SERVICE_RATE_MAX} requests per minute",
            config.catch_up.rate
        ));
    }
    if let Some(elastic) = config.elastic.as_ref().filter(|elastic| elastic.authorization.is_some()) {
        let plain = |url: &&String| address::parse(url).is_ok_and(|url| !url.https && !url.is_loopback());
        notices.extend(
            elastic
                .urls
                .iter()
                .find(plain)
                .map(|url| format!("ELASTIC_URL={url}: the cluster's credentials are sent unencrypted; use https")),
        );
    }
    notices
}

/// Loads only HTTP_HOST, HTTP_PORT and HTTP_TOKEN. A health request to a running collector must not need the
/// credentials, nor fail because of an unrelated setting.
///
/// # Errors
/// All errors of these settings.
pub fn load_http(environment: &Environment, env_file: Option<&Path>) -> Result<Http, Errors> {
    let mut reader = Reader::new(environment, env_file);
    let http = http(&mut reader);
    finish(reader, http)
}

/// Whether the setting has a value in the environment or in the file `env_file`. `./.env` does not count.
pub fn is_set(name: &str, environment: &Environment, env_file: Option<&Path>) -> bool {
    match env_file {
        Some(_) => !Reader::new(environment, env_file).is_unset(name),
        None => environment.get(std::ffi::OsStr::new(name)).is_some_and(|value| !value.is_empty()),
    }
}

/// Returns `read`, or the errors if there are any.
fn finish<T>(reader: Reader<'_>, read: T) -> Result<T, Errors> {
    let errors = reader.into_errors();
    if errors.is_empty() { Ok(read) } else { Err(Errors(errors)) }
}

fn genesys(reader: &mut Reader<'_>, need: Need) -> Genesys {
    // An invalid address counts as given, since it has its own error.
    let addresses_given = !reader.is_unset("GENESYS_LOGIN_URL") && !reader.is_unset("GENESYS_API_URL");
    let env = reader.parse("GENESYS_ENV", |text| region::domain(text, addresses_given));
    let client_id = reader.parse("GENESYS_CLIENT_ID", client_id);
    let client_secret = reader.secret("GENESYS_CLIENT_SECRET");
    if need == Need::Credentials {
        let required = [
            ("GENESYS_ENV", env.is_some(), "the region's domain, such as mypurecloud.com or usw2.pure.cloud"),
            ("GENESYS_CLIENT_ID", client_id.is_some(), "the id of an OAuth client (client credentials)"),
            ("GENESYS_CLIENT_SECRET", client_secret.is_some(), "the client's secret (or GENESYS_CLIENT_SECRET_FILE)"),
        ];
        for (name, is_given, what) in required {
            if !is_given && !reader.is_wrong(name) && !reader.is_wrong(&format!("{name}_FILE")) {
                reader.error(name, format!("not set; it must be {what}"));
            }
        }
    }
    let topics_path = PathBuf::from(reader.text("TOPICS_FILE").unwrap_or_default());
    let is_named = topics_path != Path::new(row_of("TOPICS_FILE").default);
    let topics = match need {
        Need::Credentials => topics_file::read(&topics_path, is_named).unwrap_or_else(|message| {
            let path = if is_named { String::new() } else { format!("{}: ", topics_path.display()) };
            reader.error("TOPICS_FILE", path + &message);
            None
        }),
        _ => None,
    };
    let env = env.unwrap_or_default();
    let url_of = |service: &str| if env.is_empty() { String::new() } else { format!("https://{service}.{env}") };
    Genesys {
        client_id: client_id.unwrap_or_default(),
        client_secret: client_secret.unwrap_or_else(|| Secret::new("")),
        login_url: reader.parse("GENESYS_LOGIN_URL", service_url).unwrap_or_else(|| url_of("login")),
        api_url: reader.parse("GENESYS_API_URL", service_url).unwrap_or_else(|| url_of("api")),
        delivery: [Delivery::Auto, Delivery::Websocket, Delivery::History][reader.word("GENESYS_DELIVERY")],
        topics_file: topics_path,
        topics,
        env,
    }
}

fn instance_name(text: &str) -> Parsed<String> {
    let name = text.trim();
    if (1..=INSTANCE_NAME_CHARS_MAX).contains(&name.chars().count()) {
        Ok(name.to_owned())
    } else {
        Err(format!("must have 1 to {INSTANCE_NAME_CHARS_MAX} characters"))
    }
}

fn client_id(text: &str) -> Parsed<String> {
    let id = text.trim();
    if id.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
        Ok(id.to_owned())
    } else {
        Err("must be the OAuth client's id: letters, digits and -, without blanks".to_owned())
    }
}

/// Parses an address of the service: https, or http on this machine.
fn service_url(text: &str) -> Parsed<String> {
    let address = address::parse(text)?;
    if address.user_info.is_some() {
        return Err("must not contain a user or a password".to_owned());
    }
    if !address.https && !address.is_loopback() {
        return Err("must begin with https:// (http:// is for localhost, 127.0.0.0/8 and [::1] only)".to_owned());
    }
    Ok(address.without_user_info())
}

fn catch_up(reader: &mut Reader<'_>) -> CatchUp {
    CatchUp {
        interval: reader.seconds("CATCH_UP_INTERVAL"),
        overlap: reader.seconds("CATCH_UP_OVERLAP"),
        rate: reader.number("CATCH_UP_RATE") as u32,
        start: reader.seconds("CATCH_UP_START"),
    }
}

fn output(reader: &mut Reader<'_>) -> Output {
    let named = PathBuf::from(reader.text("OUTPUT_FILE").unwrap_or_default());
    let file = reader.parse("OUTPUT_FILE", file_checks::writable).unwrap_or_default();
    let state_file = match reader.parse("STATE_FILE", file_checks::writable) {
        Some(state_file) => state_file,
        None => {
            let default =
                file_checks::with_suffix(if reader.is_wrong("OUTPUT_FILE") { &file } else { &named }, ".state");
            file_checks::writable(&default.to_string_lossy()).unwrap_or_else(|message| {
                reader.error("STATE_FILE", format!("{message} ({})", default.display()));
                default
            })
        }
    };
    Output {
        file,
        max_file_size: reader.size("MAX_FILE_SIZE"),
        backup_count: reader.number("BACKUP_COUNT") as u32,
        state_file,
        redact_fields: reader.list("REDACT_FIELDS"),
    }
}

fn log_settings(reader: &mut Reader<'_>) -> LogSettings {
    use log::LevelFilter::{Debug, Error, Info, Trace, Warn};
    const LEVELS: [(&str, log::LevelFilter); 6] =
        [("error", Error), ("warning", Warn), ("info", Info), ("debug", Debug), ("warn", Warn), ("trace", Trace)];
    let level = reader.parse("LOG_LEVEL", |text| values::word(text, &LEVELS.map(|(word, _)| word)));
    LogSettings {
        console: reader.boolean("CONSOLE_OUTPUT"),
        level: LEVELS[level.unwrap_or_default()].1,
        format: [LogFormat::Json, LogFormat::Text][reader.word("LOG_FORMAT")],
    }
}

/// `None` if the cluster is off. All settings are checked in either case.
fn elastic(reader: &mut Reader<'_>, need: Need) -> Option<Elastic> {
    let addresses = reader.parse("ELASTIC_URL", |text| {
        values::list(text).iter().map(|url| address::parse(url)).collect::<Parsed<Vec<Address>>>()
    });
    let addresses = addresses.unwrap_or_default();
    let mut urls: Vec<String> = Vec::new();
    for url in addresses.iter().map(Address::without_user_info) {
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    if urls.is_empty() && need == Need::Cluster && !reader.is_wrong("ELASTIC_URL") {
        reader.error("ELASTIC_URL", "not set; it must be the cluster's address, such as https://search.example:9200");
    }
    let is_on = !urls.is_empty() || need == Need::Template;
    let elastic = Elastic {
        urls,
        authorization: cluster_authorization(reader, &addresses),
        index: reader.parse("ELASTIC_INDEX", values::index_name).unwrap_or_default(),
        bulk_size: reader.number("BULK_SIZE") as usize,
        flush_interval: reader.seconds("ELASTIC_FLUSH_INTERVAL"),
        ca_file: reader.certificate_file("ELASTIC_CA_FILE"),
        setup: reader.boolean("ELASTIC_SETUP"),
        retention: reader.parse("ELASTIC_RETENTION", values::span),
        backlog_max: reader.size("ELASTIC_BACKLOG_MAX"),
    };
    is_on.then_some(elastic)
}

/// The header from ELASTIC_AUTH, or from the credentials in the addresses. All addresses with credentials must have the
/// same ones, since all nodes get the same header.
fn cluster_authorization(reader: &mut Reader<'_>, addresses: &[Address]) -> Option<Secret> {
    let given = reader.secret("ELASTIC_AUTH");
    // An invalid value counts as given, since it has its own error.
    let is_given = !reader.is_unset("ELASTIC_AUTH") || !reader.is_unset("ELASTIC_AUTH_FILE");
    let header = match given.map(|text| authorization::header(text.expose())).transpose() {
        Ok(header) => header,
        Err(message) => {
            reader.error("ELASTIC_AUTH", message);
            None
        }
    };
    let user_infos = addresses.iter().filter_map(|address| address.user_info.as_deref());
    let headers: Parsed<Vec<Secret>> = user_infos.map(authorization::from_user_info).collect();
    let message = match headers.as_deref() {
        Err(message) => message.as_str(),
        Ok([first, rest @ ..]) if rest.iter().any(|other| other != first) => {
            "contains different users or passwords: use one for all, in ELASTIC_AUTH"
        }
        Ok([_, ..]) if is_given => "contains a user and a password while ELASTIC_AUTH is set: remove one of them",
        Ok(_) => return header.or_else(|| headers.ok()?.pop()),
    };
    reader.error("ELASTIC_URL", message);
    None
}

fn http(reader: &mut Reader<'_>) -> Http {
    let token = reader.secret("HTTP_TOKEN");
    if token.as_ref().is_some_and(|token| !token.expose().bytes().all(|b| b.is_ascii_graphic())) {
        reader.error("HTTP_TOKEN", "must be printable ASCII without blanks, since it is sent in a header");
    }
    Http {
        host: reader.parse("HTTP_HOST", values::listen_host).unwrap_or_default(),
        port: reader.number("HTTP_PORT") as u16,
        token,
    }
}

fn reconnect(reader: &mut Reader<'_>) -> Reconnect {
    let (delay, max_delay) = (reader.seconds("RECONNECT_DELAY"), reader.seconds("MAX_RECONNECT_DELAY"));
    if delay > max_delay && !reader.is_wrong("RECONNECT_DELAY") && !reader.is_wrong("MAX_RECONNECT_DELAY") {
        let (low, high) = (delay.as_secs_f64(), max_delay.as_secs_f64());
        // Report the setting that was set, since the other one may be a default.
        if reader.is_unset("RECONNECT_DELAY") {
            reader.error("MAX_RECONNECT_DELAY", format!("must not be less than RECONNECT_DELAY, which is {low}"));
        } else {
            reader.error("RECONNECT_DELAY", format!("must not be more than MAX_RECONNECT_DELAY, which is {high}"));
        }
    }
    Reconnect { delay, max_delay }
}

fn network(reader: &mut Reader<'_>) -> Network {
    let no_proxy = reader.text("NO_PROXY").unwrap_or_default();
    Network {
        ssl_cert_file: reader.certificate_file("SSL_CERT_FILE"),
        https_proxy: reader.parse("HTTPS_PROXY", proxy),
        no_proxy: values::list(&no_proxy.replace(char::is_whitespace, ",")),
    }
}

/// Parses a proxy's address. `http://` may be omitted, as in other programs.
fn proxy(text: &str) -> Parsed<Secret> {
    let text = text.trim();
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    if !whole.to_ascii_lowercase().starts_with("http://") {
        return Err("must begin with http://, also for a proxy that is used for https connections".to_owned());
    }
    let address = address::parse(&whole)?;
    if !address.path.is_empty() {
        return Err("must be http://[user:password@]host:port".to_owned());
    }
    let user_info = address.user_info.map(|user_info| format!("{user_info}@")).unwrap_or_default();
    Ok(Secret::new(format!("http://{user_info}{}:{}", address.host, address.port.unwrap_or(80))))
}

#[cfg(test)]
mod tests;
