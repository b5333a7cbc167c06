//! The table of settings: one row per name, with its default, kind and help.
//!
//! The program's defaults, `.env.example`, `docs/settings.md` and the list in the manual come from it.
//! `tests/generated.rs` generates them and checks that they are current.

use std::fmt;

/// The kind of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// One of these words, in any case.
    Word(&'static [&'static str]),
    Boolean,
    /// A whole number from a minimum to a maximum.
    Number(u64, u64),
    /// A size above 0 in bytes, or with K, M or G.
    Size,
    /// A number of seconds above 0, which may have a fraction.
    Seconds,
    /// The same, or 0.
    SecondsOrZero,
    /// A whole number of days, hours, minutes or seconds, such as `90d`.
    Span,
    /// A list separated by commas.
    List,
    Path,
    Url,
    /// Never shown.
    Secret,
    /// The path of a file that contains the secret of the same name without `_FILE`.
    SecretFile,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Word(words) => f.write_str(&words.join(", ")),
            Self::Boolean => f.write_str("true or false"),
            Self::Number(min, max) => write!(f, "{min} to {max}"),
            Self::Size => f.write_str("bytes, or 10MB, 1GiB"),
            Self::Seconds | Self::SecondsOrZero => f.write_str("seconds"),
            Self::Span => f.write_str("90d, 24h, 30m"),
            Self::List => f.write_str("names separated by commas"),
            Self::Path => f.write_str("path"),
            Self::Url => f.write_str("address"),
            Self::Secret => f.write_str("secret"),
            Self::SecretFile => f.write_str("path of a file"),
        }
    }
}

#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    /// Empty: unset.
    pub default: &'static str,
    pub kind: Kind,
    /// One line, plain text.
    pub help: &'static str,
}

impl Setting {
    const fn help(self, help: &'static str) -> Self {
        Self { help, ..self }
    }
}

pub struct Section {
    pub title: &'static str,
    pub settings: &'static [Setting],
}

const fn row(name: &'static str, default: &'static str, kind: Kind) -> Setting {
    Setting { name, default, kind, help: "" }
}

/// The maximum of CATCH_UP_RATE: what its type can hold.
const RATE_MAX: u64 = u32::MAX as u64;
/// The maximum of BACKUP_COUNT, since each rotation renames all backups.
const BACKUP_COUNT_MAX: u64 = 10_000;
/// The maximum of BULK_SIZE, since a cluster keeps a request in memory.
const BULK_SIZE_MAX: u64 = 100_000;

/// Every setting, in the order of the documentation.
pub const SECTIONS: [Section; 7] = [
    Section {
        title: "Genesys Cloud",
        settings: &[
            row("GENESYS_ENV", "", Kind::Text)
                .help("The region's domain, as in your login address: mypurecloud.com, usw2.pure.cloud, … Required."),
            row("GENESYS_CLIENT_ID", "", Kind::Text)
                .help("An OAuth client with the grant type Client Credentials and the permission usage:events:view. Required."),
            row("GENESYS_CLIENT_SECRET", "", Kind::Secret).help("The client's secret. Required, here or in a file."),
            row("GENESYS_CLIENT_SECRET_FILE", "", Kind::SecretFile).help("The file that holds the client's secret."),
            row("GENESYS_LOGIN_URL", "", Kind::Url)
                .help("The login address; default https://login.GENESYS_ENV. http is allowed only for this machine."),
            row("GENESYS_API_URL", "", Kind::Url)
                .help("The API's address; default https://api.GENESYS_ENV. http is allowed only for this machine."),
            row("GENESYS_DELIVERY", "auto", Kind::Word(&["auto", "websocket", "history"]))
                .help("auto: WebSocket and history. websocket: events that it misses are lost. history: events arrive later."),
            row("TOPICS_FILE", "./topics.json", Kind::Path)
                .help("The topics to collect, {\"topics\":[\"v2.operations.events.AUDIOHOOK-*\"]}; no file: all of AudioHook."),
            row("INSTANCE_NAME", "", Kind::Text)
                .help("The name of this collector on the page, in /health and in the metrics; default GENESYS_ENV."),
        ],
    },
    Section {
        title: "Reading the history",
        settings: &[
            row("CATCH_UP_INTERVAL", "60", Kind::Seconds).help("Seconds between two reads of the history."),
            row("CATCH_UP_OVERLAP", "900", Kind::Seconds)
                .help("Seconds that each read reaches back into what was already read, for events that appear late."),
            row("CATCH_UP_RATE", "150", Kind::Number(1, RATE_MAX))
                .help("Requests per minute that reading may use; Genesys Cloud allows a client 300 in total."),
            row("CATCH_UP_START", "864000", Kind::SecondsOrZero)
                .help("Seconds that the first start reads back; Genesys Cloud keeps 10 days. 0: only new events."),
        ],
    },
    Section {
        title: "The output file",
        settings: &[
            row("OUTPUT_FILE", "./audiohook_events.jsonl", Kind::Path).help("The events, one JSON object per line."),
            row("MAX_FILE_SIZE", "10485760", Kind::Size).help("The file is rotated before a line would exceed this size: bytes, or 10MB, 1GiB."),
            row("BACKUP_COUNT", "5", Kind::Number(0, BACKUP_COUNT_MAX))
                .help("Rotated files to keep; .1 is the newest. 0: never rotate (leave it to logrotate)."),
            row("STATE_FILE", "", Kind::Path)
                .help("What the collector keeps across restarts; default OUTPUT_FILE with .state appended."),
            row("REDACT_FIELDS", "", Kind::List)
                .help("Fields whose values become \"[redacted]\" everywhere, at any depth; names are case-sensitive."),
        ],
    },
    Section {
        title: "The log",
        settings: &[
            row("CONSOLE_OUTPUT", "true", Kind::Boolean).help("Whether the log goes to standard output."),
            row("LOG_LEVEL", "info", Kind::Word(&["error", "warning", "info", "debug"])).help("How much is logged."),
            row("LOG_FORMAT", "json", Kind::Word(&["json", "text"])).help("json: one object per line."),
        ],
    },
    Section {
        title: "Elasticsearch or OpenSearch",
        settings: &[
            row("ELASTIC_URL", "", Kind::Url).help("The cluster's address, or several separated by commas. Empty: off."),
            row("ELASTIC_AUTH", "", Kind::Secret).help("user:pass, \"Bearer TOKEN\", \"ApiKey KEY\", or a bearer token alone."),
            row("ELASTIC_AUTH_FILE", "", Kind::SecretFile).help("The file that holds ELASTIC_AUTH."),
            row("ELASTIC_INDEX", "genesys-audiohook", Kind::Text).help("The index, alias or data stream for the events."),
            row("BULK_SIZE", "50", Kind::Number(1, BULK_SIZE_MAX)).help("Maximum number of documents per request."),
            row("ELASTIC_FLUSH_INTERVAL", "1", Kind::Seconds).help("Maximum seconds that a document waits for others."),
            row("ELASTIC_CA_FILE", "", Kind::Path).help("The CA certificate (PEM) of a cluster with a private CA."),
            row("ELASTIC_SETUP", "true", Kind::Boolean).help("Whether to create the index template if there is none."),
            row("ELASTIC_RETENTION", "", Kind::Span)
                .help("Delete documents after this time, such as 90d or 24h, with a lifecycle policy. Empty: keep them."),
            row("ELASTIC_BACKLOG_MAX", "1GiB", Kind::Size)
                .help("Size of the rotated files kept beyond BACKUP_COUNT while the cluster is down."),
        ],
    },
    Section {
        title: "HTTP: health, events, metrics and the page",
        settings: &[
            row("HTTP_HOST", "0.0.0.0", Kind::Text)
                .help("The address to listen on. 0.0.0.0 lets every machine read the events: set 127.0.0.1 or HTTP_TOKEN."),
            row("HTTP_PORT", "8077", Kind::Number(1, 65_535)).help("The port to listen on."),
            row("HTTP_TOKEN", "", Kind::Secret).help("If set, all data needs \"Authorization: Bearer\" with this token."),
            row("HTTP_TOKEN_FILE", "", Kind::SecretFile).help("The file that holds HTTP_TOKEN."),
        ],
    },
    Section {
        title: "The network",
        settings: &[
            row("RECONNECT_DELAY", "5", Kind::Seconds)
                .help("Seconds before the first retry after a failure; doubled each time, with jitter."),
            row("MAX_RECONNECT_DELAY", "60", Kind::Seconds).help("Maximum seconds between two retries."),
            row("SSL_CERT_FILE", "", Kind::Path).help("CA certificates (PEM) to trust instead of the system's."),
            row("HTTPS_PROXY", "", Kind::Url)
                .help("The proxy for https and wss, http://[user:password@]host:port; also as https_proxy."),
            row("NO_PROXY", "", Kind::List).help("Hosts, domains and addresses reached without the proxy; also as no_proxy."),
        ],
    },
];

/// Every row.
pub fn rows() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|section| section.settings)
}

/// The row of this name. A test checks that every name that the program reads has one.
pub fn row_of(name: &str) -> &'static Setting {
    const NONE: Setting = row("", "", Kind::Text);
    rows().find(|row| row.name == name).unwrap_or(&NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_explained_in_one_line() {
        for row in rows() {
            let length = row.help.chars().count();
            assert!((10..=118).contains(&length) && row.help.ends_with('.'), "{}: {length}", row.name);
        }
    }
}
