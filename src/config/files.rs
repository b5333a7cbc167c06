//! The paths among the settings: that each file serves one purpose.
//!
//! Must never: make, open for writing or remove a file.

use std::path::{Path, PathBuf};

use super::Output;
use super::reader::Reader;
use super::settings::default_of;

/// The path with this text behind it.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(suffix);
    PathBuf::from(text)
}

/// No file may serve two purposes: the one would be written over by the other.
pub fn check(reader: &mut Reader<'_>, output: &Output, env_file: Option<&Path>) {
    let file = place(&output.file);
    let state = place(&output.state_file);
    let default_state = place(&with_suffix(&output.file, ".state"));
    if let Some(owner) = taken_by_output(&state, &file) {
        reader.fault("STATE_FILE", format!("must be a file of its own: this one is {owner}"));
    }
    for name in [
        "TOPICS_FILE",
        "ELASTIC_CA_FILE",
        "SSL_CERT_FILE",
        "GENESYS_CLIENT_SECRET_FILE",
        "ELASTIC_AUTH_FILE",
        "HTTP_TOKEN_FILE",
    ] {
        let Some(path) = reader.text(name).map(|path| place(Path::new(&path))) else { continue };
        if let Some(owner) = taken_by_output(&path, &file) {
            reader.fault(name, format!("must be a file of its own: this one is {owner}"));
        } else if path == state || path == default_state {
            reader.fault(name, "must be a file of its own: this one is STATE_FILE");
        }
    }
    let env_file = place(env_file.unwrap_or(Path::new("./.env")));
    for (name, path) in [("OUTPUT_FILE", &file), ("STATE_FILE", &state)] {
        if *path == env_file {
            reader.fault(name, "must be a file of its own: this one holds the settings");
        }
    }
    let topics = place(Path::new(default_of("TOPICS_FILE")));
    if reader.text("TOPICS_FILE").is_none() && (file == topics || state == topics) {
        reader.fault("OUTPUT_FILE", "and STATE_FILE must not be TOPICS_FILE");
    }
}

/// What of OUTPUT_FILE's family this path is, if it is one of it.
fn taken_by_output(path: &Path, output: &Path) -> Option<String> {
    if path == output {
        return Some("OUTPUT_FILE".to_owned());
    }
    if path.parent() != output.parent() {
        return None;
    }
    let (name, output_name) = (path.file_name()?.to_str()?, output.file_name()?.to_str()?);
    let suffix = name.strip_prefix(output_name)?.strip_prefix('.')?;
    if matches!(suffix, "dead" | "unreadable" | "lock") {
        return Some(format!("OUTPUT_FILE.{suffix}"));
    }
    (!suffix.is_empty() && suffix.bytes().all(|b| b.is_ascii_digit())).then(|| "a backup of OUTPUT_FILE".to_owned())
}

/// Where a path leads, so that two ways of writing it are equal: symbolic links followed as far as there are folders.
fn place(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => absolute,
    }
}
