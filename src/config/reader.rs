//! Where settings come from: the environment, then the settings file.
//!
//! Deals with: which source wins, `X` and `X_FILE`, what empty means, and gathering every fault. Must never: stop at the
//! first fault, or keep a secret's value in one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::env_file;
use super::faults::{Fault, shown};
use super::settings::default_of;
use super::values::Judged;
use crate::secret::Secret;

/// Bytes of a secret's file, at most: a larger one is not a secret's file.
const SECRET_FILE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a certificates' file that are looked at; a system's whole list has a tenth of this.
const CERTIFICATE_FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How a certificate begins in PEM, but for its first dashes: OpenSSL's own kind says `TRUSTED CERTIFICATE`.
const CERTIFICATE_MARK: &[u8] = b"CERTIFICATE-----";

/// The settings that hold a secret: their values are never shown.
const SECRETS: [&str; 3] = ["GENESYS_CLIENT_SECRET", "ELASTIC_AUTH", "HTTP_TOKEN"];

/// The same settings in files of these names, which may be empty: systemd's credentials, as the unit names them, or what
/// these are made of, beside the settings file.
const CREDENTIALS: [(&str, &str); 3] =
    [("GENESYS_CLIENT_SECRET", "client-secret"), ("ELASTIC_AUTH", "elastic-auth"), ("HTTP_TOKEN", "http-token")];

/// Reads settings by their names, and keeps what is wrong with them.
pub struct Reader<'a> {
    environment: &'a dyn Fn(&str) -> Option<OsString>,
    file: BTreeMap<String, String>,
    /// Folders that may hold the [`CREDENTIALS`], the first one that does before the others.
    credential_folders: Vec<PathBuf>,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    /// With the settings file at `env_file`, which must be there, and the secrets' own files beside it; or `./.env`, if
    /// there is one, and no such files.
    pub fn new(environment: &'a dyn Fn(&str) -> Option<OsString>, env_file: Option<&Path>) -> Self {
        let systemds = environment("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let beside = env_file.and_then(Path::parent).map(Path::to_owned);
        let credential_folders = systemds.into_iter().chain(beside).collect();
        let mut reader = Self { environment, file: BTreeMap::new(), credential_folders, faults: Vec::new() };
        let path = env_file.unwrap_or(Path::new("./.env"));
        match std::fs::read(path) {
            Ok(bytes) => {
                let (values, bad) = env_file::parse(&bytes);
                reader.file = values;
                for line in bad {
                    let subject = format!("{} line {}", path.display(), line.number);
                    reader.faults.push(Fault::new(subject, None, line.message));
                }
            }
            Err(error) if env_file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let message = format!("cannot read the settings file: {error}");
                reader.faults.push(Fault::new(path.display().to_string(), None, message));
            }
        }
        reader
    }

    /// Everything that was wrong so far.
    pub fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    /// Says that the value of this setting is wrong.
    pub fn fault(&mut self, name: &str, message: impl Into<String>) {
        let value = if SECRETS.contains(&name) { None } else { self.peek(&[name]).map(|value| shown(&value)) };
        self.faults.push(Fault::new(name, value, message));
    }

    /// The value of the first of these names that has one, the environment's before the file's; empty counts as none.
    fn peek(&self, names: &[&str]) -> Option<String> {
        let from_environment = names
            .iter()
            .filter_map(|name| (self.environment)(name))
            .map(|value| value.to_string_lossy().into_owned())
            .find(|value| !value.is_empty());
        from_environment
            .or_else(|| names.iter().filter_map(|name| self.file.get(*name)).find(|v| !v.is_empty()).cloned())
    }

    /// The value of this setting, if it has one.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.text_of(&[name])
    }

    /// The same for a setting with several names.
    pub fn text_of(&mut self, names: &[&str]) -> Option<String> {
        for name in names {
            if (self.environment)(name).is_some_and(|value| value.to_str().is_none()) {
                self.fault(name, "must be UTF-8 text");
                return None;
            }
        }
        let value = self.peek(names)?;
        if value.contains(|c: char| c.is_control() && c != '\t') {
            self.fault(names[0], "must not hold a line break or another control character");
            return None;
        }
        Some(value)
    }

    /// The value of this setting or its default, judged; `None` after a fault.
    pub fn judged<T>(&mut self, name: &str, judge: impl FnOnce(&str) -> Judged<T>) -> Option<T> {
        let before = self.faults.len();
        let value = self.text(name);
        if self.faults.len() > before {
            return None;
        }
        let value = value.unwrap_or_else(|| default_of(name).to_owned());
        judge(&value).map_err(|message| self.fault(name, message)).ok()
    }

    /// The same for a setting without a default: the inner `None` is unset.
    pub fn optional<T>(&mut self, name: &str, judge: impl FnOnce(&str) -> Judged<T>) -> Option<Option<T>> {
        let before = self.faults.len();
        match self.text(name) {
            Some(value) => judge(&value).map_err(|message| self.fault(name, message)).ok().map(Some),
            None if self.faults.len() > before => None,
            None => Some(None),
        }
    }

    /// A path, or its default.
    pub fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.judged(name, |text| Ok(PathBuf::from(text)))
    }

    /// A file that is there and can be read.
    pub fn readable_file(&mut self, name: &str) -> Option<Option<PathBuf>> {
        let path = self.optional(name, |text| Ok(PathBuf::from(text)))?;
        if let Some(path) = &path
            && let Err(error) = read_some(path, 1)
        {
            self.fault(name, format!("cannot read the file: {error}"));
            return None;
        }
        Some(path)
    }

    /// A file of CA certificates: there, readable, and with at least one in it, so that a mistake is told now and not by
    /// the first connection.
    pub fn certificate_file(&mut self, name: &str) -> Option<Option<PathBuf>> {
        let path = self.readable_file(name)?;
        let holds_one = |path: &PathBuf| {
            read_some(path, CERTIFICATE_FILE_BYTES_MAX)
                .is_ok_and(|bytes| bytes.windows(CERTIFICATE_MARK.len()).any(|window| window == CERTIFICATE_MARK))
        };
        if path.as_ref().is_some_and(|path| !holds_one(path)) {
            self.fault(
                name,
                "names a file without a certificate: it must hold them as PEM (-----BEGIN CERTIFICATE-----)",
            );
            return None;
        }
        Some(path)
    }

    /// A secret, from the setting of this name or from the file that `NAME_FILE` names; the inner `None` is unset. Of a
    /// file's text the line breaks at its end go; an empty file is unset, like an empty value.
    pub fn secret(&mut self, name: &str) -> Option<Option<Secret>> {
        let file_name = format!("{name}_FILE");
        let before = self.faults.len();
        let (value, path) = (self.text(name), self.text(&file_name));
        if self.faults.len() > before {
            return None;
        }
        let Some(path) = path else {
            return if value.is_some() { Some(value.map(Secret::new)) } else { self.credential(name) };
        };
        let read = read_secret_file(Path::new(&path));
        if let Err(message) = &read {
            self.fault(&file_name, message);
        }
        if value.is_some() {
            self.fault(name, format!("is set together with {file_name}: keep one of the two"));
            return None;
        }
        let text = read.ok()?;
        Some((!text.is_empty()).then(|| Secret::new(text)))
    }
}

impl Reader<'_> {
    /// What a file of a [`CREDENTIALS`]' name holds, for a secret that is set nowhere else.
    fn credential(&mut self, name: &str) -> Option<Option<Secret>> {
        let file = CREDENTIALS.iter().find(|(setting, _)| *setting == name).map(|(_, file)| *file);
        let mut paths = file.into_iter().flat_map(|file| self.credential_folders.iter().map(move |one| one.join(file)));
        let Some(path) = paths.find(|path| path.exists()) else {
            return Some(None);
        };
        match read_secret_file(&path) {
            Ok(text) => Some((!text.is_empty()).then(|| Secret::new(text))),
            Err(message) => {
                self.fault(name, format!("is to come from {}: {message}", path.display()));
                None
            }
        }
    }
}

fn read_secret_file(path: &Path) -> Result<String, String> {
    let bytes = read_some(path, SECRET_FILE_BYTES_MAX + 1).map_err(|error| format!("cannot read the file: {error}"))?;
    if bytes.len() > SECRET_FILE_BYTES_MAX {
        return Err(format!("names a file of more than {SECRET_FILE_BYTES_MAX} bytes: that is no secret"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "names a file that is not UTF-8 text".to_owned())?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.contains(|c: char| c.is_control() && c != '\t') {
        return Err("names a file with more than one line or with control characters".to_owned());
    }
    Ok(text.to_owned())
}

/// The file's first bytes.
fn read_some(path: &Path, bytes_max: usize) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(bytes_max as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
