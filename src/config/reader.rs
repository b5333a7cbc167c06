//! Reads settings from the environment, then from the settings file.
//!
//! A wrong setting is reported once and then read as its default, so that loading continues and all errors are reported
//! together.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::env_file;
use super::errors::{SettingError, shown};
use super::file_checks;
use super::table::{Kind, row_of, rows};
use super::values::{self, Parsed};
use crate::nearest::nearest;
use crate::secret::Secret;

/// The environment variables of the process.
pub type Environment = BTreeMap<OsString, OsString>;

/// Maximum length of the settings file.
const SETTINGS_FILE_BYTES_MAX: usize = 1024 * 1024;

/// Maximum length of a file that contains a secret.
const SECRET_FILE_BYTES_MAX: usize = 64 * 1024;

/// Secrets and the names of files that may contain them: systemd credentials as named in the unit, or files next to the
/// settings file. The files may be empty.
const CREDENTIALS: [(&str, &str); 3] =
    [("GENESYS_CLIENT_SECRET", "client-secret"), ("ELASTIC_AUTH", "elastic-auth"), ("HTTP_TOKEN", "http-token")];

/// Names that resemble a setting and belong to other programs.
const NAMES_OF_OTHERS: [&str; 9] = [
    "HTTP_PROXY",
    "ALL_PROXY",
    "FTP_PROXY",
    "HTTP_USER_AGENT",
    "HTTP_PORTS",
    "HTTPS_PORT",
    "HTTPS_PORTS",
    "SSL_CERT_DIR",
    "SSL_CERT_FILES",
];

/// As the path of the settings file: no file is read, not even `./.env`.
pub const NO_FILE: &str = "";

/// Reads settings by name and collects their errors.
pub struct Reader<'a> {
    environment: &'a Environment,
    file: BTreeMap<String, String>,
    file_path: PathBuf,
    /// Folders that may hold the [`CREDENTIALS`], in order of precedence.
    credential_folders: Vec<PathBuf>,
    errors: Vec<SettingError>,
}

impl<'a> Reader<'a> {
    /// Reads the settings file at `env_file`, which must exist, or else `./.env`, which need not. Only with `env_file`
    /// are secrets also read from the files next to it.
    pub fn new(environment: &'a Environment, env_file: Option<&Path>) -> Self {
        let systemds = environment.get(&OsString::from("CREDENTIALS_DIRECTORY")).map(PathBuf::from);
        let beside = env_file.and_then(Path::parent).map(Path::to_owned);
        let file_path = env_file.unwrap_or(Path::new("./.env")).to_owned();
        let credential_folders = systemds.into_iter().chain(beside).collect();
        let mut reader = Self { environment, file: BTreeMap::new(), file_path, credential_folders, errors: Vec::new() };
        if reader.file_path == Path::new(NO_FILE) {
            return reader;
        }
        let shown = reader.file_path.display().to_string();
        match file_checks::read(&reader.file_path, SETTINGS_FILE_BYTES_MAX) {
            Ok(bytes) => {
                let (values, bad) = env_file::parse(&bytes);
                reader.file = values;
                for line in bad {
                    reader.errors.push(SettingError::new(format!("{shown} line {}", line.number), None, line.message));
                }
            }
            Err(error) if env_file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let message = format!("cannot read the settings file: {error}");
                reader.errors.push(SettingError::new(shown, None, message));
            }
        }
        reader
    }

    /// All errors so far.
    pub fn into_errors(self) -> Vec<SettingError> {
        self.errors
    }

    /// Reports that the value of this setting is wrong.
    pub fn error(&mut self, name: &str, message: impl Into<String>) {
        let is_shown = row_of(name).kind != Kind::Secret;
        let value = if is_shown { self.given(name).and_then(Result::ok).map(|value| shown(&value)) } else { None };
        self.errors.push(SettingError::new(name, value, message));
    }

    /// Whether an error of this setting was reported.
    pub fn is_wrong(&self, name: &str) -> bool {
        self.errors.iter().any(|error| error.subject == name)
    }

    /// Whether the setting has no value.
    pub fn is_unset(&self, name: &str) -> bool {
        self.given(name).is_none()
    }

    /// The value that was set, in the environment or else in the file. An empty value counts as unset.
    fn given(&self, name: &str) -> Option<Parsed<String>> {
        let lower = name.to_ascii_lowercase();
        // Other programs accept these two in either case, so this one does too.
        let names: &[&str] = if matches!(name, "HTTPS_PROXY" | "NO_PROXY") { &[name, &lower] } else { &[name] };
        let from_environment = names.iter().find_map(|name| {
            let value = self.environment.get(&OsString::from(name)).filter(|value| !value.is_empty())?;
            let Some(text) = value.to_str() else { return Some(Err("must be UTF-8 text".to_owned())) };
            let text = without_bom_and_line_end(text);
            if ['"', '\''].iter().any(|quote| text.len() > 1 && text.starts_with(*quote) && text.ends_with(*quote)) {
                let why = "must not be in quotes: in the environment they are part of the value (docker --env-file keeps \
                           them); remove them";
                return Some(Err(why.to_owned()));
            }
            (!text.is_empty()).then(|| Ok(text.to_owned()))
        });
        let from_file = || names.iter().find_map(|name| self.file.get(*name).filter(|value| !value.is_empty()));
        from_environment.or_else(|| from_file().cloned().map(Ok))
    }

    /// The setting's value or default; `None` if it has neither.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let default = || Some(row_of(name).default.to_owned()).filter(|default| !default.is_empty());
        let value = match self.given(name) {
            Some(Ok(value)) if value.contains(|c: char| c.is_control() && c != '\t') => {
                Err("must not contain a line break or another control character".to_owned())
            }
            Some(given) => given,
            None => return default(),
        };
        match value {
            Ok(value) => Some(value),
            Err(message) => {
                if !self.is_wrong(name) {
                    self.error(name, message);
                }
                default()
            }
        }
    }

    /// The setting's parsed value or default; `None` if it has neither, or is wrong and has no default.
    pub fn parse<T>(&mut self, name: &str, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        let text = self.text(name)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.error(name, message);
                parse(row_of(name).default).ok()
            }
        }
    }

    /// The index of the word of a [`Kind::Word`] setting.
    pub fn word(&mut self, name: &str) -> usize {
        let Kind::Word(words) = row_of(name).kind else { return 0 };
        self.parse(name, |text| values::word(text, words)).unwrap_or_default()
    }

    /// The value of a [`Kind::Number`] setting.
    pub fn number(&mut self, name: &str) -> u64 {
        let Kind::Number(min, max) = row_of(name).kind else { return 0 };
        self.parse(name, |text| values::number(text, min, max)).unwrap_or_default()
    }

    pub fn boolean(&mut self, name: &str) -> bool {
        self.parse(name, values::boolean).unwrap_or_default()
    }

    pub fn size(&mut self, name: &str) -> u64 {
        self.parse(name, values::size).unwrap_or_default()
    }

    pub fn seconds(&mut self, name: &str) -> Duration {
        let parse = if row_of(name).kind == Kind::Seconds { values::seconds } else { values::seconds_or_zero };
        self.parse(name, parse).unwrap_or_default()
    }

    pub fn list(&mut self, name: &str) -> Vec<String> {
        self.text(name).map(|text| values::list(&text)).unwrap_or_default()
    }

    /// The path of a file that contains a certificate. This is checked here, so that a mistake is reported before the
    /// first connection.
    pub fn certificate_file(&mut self, name: &str) -> Option<PathBuf> {
        self.parse(name, |text| file_checks::holds_certificate(Path::new(text)).map(|()| PathBuf::from(text)))
    }

    /// A secret from the setting `name`, or from the file that the setting `name` with `_FILE` names. An empty file
    /// counts as unset, like an empty value.
    pub fn secret(&mut self, name: &str) -> Option<Secret> {
        let file_name = format!("{name}_FILE");
        let value = self.text(name);
        let from_file = self.parse(&file_name, |path| read_secret_file(Path::new(path)));
        if self.is_unset(&file_name) {
            return if self.is_unset(name) { self.credential(name) } else { self.untrimmed(name, value?) };
        }
        if value.is_some() {
            self.error(name, format!("is set together with {file_name}: remove one of them"));
            return None;
        }
        let subject = file_name;
        self.untrimmed(&subject, from_file?)
    }

    /// Makes a secret of a text. White space at its ends is an error, since it is probably a mistake.
    fn untrimmed(&mut self, name: &str, text: String) -> Option<Secret> {
        if text.trim() != text {
            self.error(name, "the secret begins or ends with white space: remove it");
            return None;
        }
        (!text.is_empty()).then(|| Secret::new(text))
    }

    /// A secret from its [`CREDENTIALS`] file.
    fn credential(&mut self, name: &str) -> Option<Secret> {
        let (_, file) = CREDENTIALS.iter().find(|(setting, _)| *setting == name)?;
        let path = self.credential_folders.iter().map(|folder| folder.join(file)).find(|path| path.exists())?;
        match read_secret_file(&path) {
            Ok(text) => self.untrimmed(name, text),
            Err(message) => {
                self.error(name, format!("its file {} {message}", path.display()));
                None
            }
        }
    }

    /// Checks for names that are not settings. A name that resembles a setting is an error. Other names in the settings
    /// file are returned as notices.
    pub fn check_names(&mut self) -> Vec<String> {
        let mut notices = Vec::new();
        let in_environment =
            self.environment.iter().filter(|(_, value)| !value.is_empty()).filter_map(|(name, _)| name.to_str());
        let in_file = self.file.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name.as_str());
        let names: Vec<(String, bool)> = in_environment
            .map(|name| (name.to_owned(), false))
            .chain(in_file.map(|name| (name.to_owned(), true)))
            .filter(|(name, _)| !is_setting(name))
            .collect();
        for (name, is_in_file) in names {
            let meant = nearest(&name, rows().map(|row| row.name)).filter(|_| !is_of_others(&name));
            let file = self.file_path.display();
            if let Some(meant) = meant {
                let subject = if is_in_file { format!("{name} in {file}") } else { name };
                self.errors.push(SettingError::new(subject, None, format!("is not a setting; did you mean {meant}?")));
            } else if is_in_file {
                notices.push(format!("{name} in {file} is not a setting and is ignored"));
            }
        }
        notices
    }
}

fn is_setting(name: &str) -> bool {
    rows().any(|row| row.name == name) || matches!(name, "https_proxy" | "no_proxy")
}

/// Whether a name belongs to another program, or to the variables that Kubernetes sets for services.
fn is_of_others(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    NAMES_OF_OTHERS.contains(&upper.as_str()) || upper.contains("_SERVICE_") || upper.contains("_PORT_")
}

/// Removes an invisible byte order mark and line ends that editors and shells add.
fn without_bom_and_line_end(text: &str) -> &str {
    text.trim_start_matches('\u{feff}').trim_end_matches(['\n', '\r'])
}

fn read_secret_file(path: &Path) -> Parsed<String> {
    let bytes = file_checks::read(path, SECRET_FILE_BYTES_MAX).map_err(|error| format!("cannot be read: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
    let text = without_bom_and_line_end(&text);
    if text.contains(|c: char| c.is_control() && c != '\t') {
        return Err("has more than one line, or control characters".to_owned());
    }
    Ok(text.to_owned())
}
