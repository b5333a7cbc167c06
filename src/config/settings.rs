//! The table of settings: every name, with its default.
//!
//! The defaults that the program uses are these texts, judged like any other value. Must never: hold a name that the
//! program does not read; a test compares it with `.env.example`.

/// One setting.
pub struct Setting {
    pub name: &'static str,
    /// Empty: unset.
    pub default: &'static str,
}

const fn setting(name: &'static str, default: &'static str) -> Setting {
    Setting { name, default }
}

/// Every setting, in the README's order.
pub const SETTINGS: [Setting; 37] = [
    setting("GENESYS_ENV", ""),
    setting("GENESYS_CLIENT_ID", ""),
    setting("GENESYS_CLIENT_SECRET", ""),
    setting("GENESYS_CLIENT_SECRET_FILE", ""),
    setting("GENESYS_LOGIN_URL", ""),
    setting("GENESYS_API_URL", ""),
    setting("GENESYS_DELIVERY", "auto"),
    setting("TOPICS_FILE", "./topics.json"),
    setting("CATCH_UP_INTERVAL", "60"),
    setting("CATCH_UP_OVERLAP", "900"),
    setting("CATCH_UP_RATE", "150"),
    setting("CATCH_UP_START", "864000"),
    setting("OUTPUT_FILE", "./audiohook_events.jsonl"),
    setting("MAX_FILE_SIZE", "10485760"),
    setting("BACKUP_COUNT", "5"),
    setting("STATE_FILE", ""),
    setting("CONSOLE_OUTPUT", "true"),
    setting("LOG_LEVEL", "info"),
    setting("LOG_FORMAT", "json"),
    setting("ELASTIC_URL", ""),
    setting("ELASTIC_AUTH", ""),
    setting("ELASTIC_AUTH_FILE", ""),
    setting("ELASTIC_INDEX", "genesys-audiohook"),
    setting("BULK_SIZE", "50"),
    setting("ELASTIC_FLUSH_INTERVAL", "1"),
    setting("ELASTIC_CA_FILE", ""),
    setting("ELASTIC_SETUP", "true"),
    setting("ELASTIC_BACKLOG_MAX", "1GiB"),
    setting("ELASTIC_RETENTION", ""),
    setting("REDACT_FIELDS", ""),
    setting("HTTP_HOST", "0.0.0.0"),
    setting("HTTP_PORT", "8077"),
    setting("HTTP_TOKEN", ""),
    setting("HTTP_TOKEN_FILE", ""),
    setting("RECONNECT_DELAY", "5"),
    setting("MAX_RECONNECT_DELAY", "60"),
    setting("SSL_CERT_FILE", ""),
];

/// The two that are written in either case everywhere, so here too.
pub const PROXY_SETTINGS: [&str; 2] = ["HTTPS_PROXY", "NO_PROXY"];

/// The default of the setting of this name; empty where there is none.
pub fn default_of(name: &str) -> &'static str {
    SETTINGS.iter().find(|setting| setting.name == name).map_or("", |setting| setting.default)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `.env.example`: every setting as an active line, with the default that the code has.
    #[test]
    fn the_example_names_every_setting_with_its_default() {
        let text = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example")).expect(".env.example");
        let (mut example, bad) = super::super::env_file::parse(&text);
        assert_eq!(bad, []);
        for setting in &SETTINGS {
            assert_eq!(example.remove(setting.name).as_deref(), Some(setting.default), "{}", setting.name);
        }
        for name in PROXY_SETTINGS {
            assert_eq!(example.remove(name).as_deref(), Some(""), "{name}");
        }
        assert_eq!(example.into_keys().collect::<Vec<_>>(), [] as [String; 0]);
    }

    #[test]
    fn every_setting_of_the_example_is_explained() {
        let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example"));
        let mut explained = false;
        for line in text.lines() {
            if line.starts_with('#') {
                explained = true;
            } else if line.contains('=') {
                assert!(explained, "{line}");
                explained = false;
            }
        }
    }
}
