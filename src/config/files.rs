//! The paths among the settings: that each file serves one purpose.
//!
//! Must never: make, open for writing or remove a file.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::settings::default_of;

/// The path with this text behind it.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(suffix);
    PathBuf::from(text)
}

/// The files that are written; `None`: its setting is at fault already.
pub struct Written {
    pub file: Option<PathBuf>,
    pub state_file: Option<PathBuf>,
}

/// No file may serve two purposes: the one would be written over by the other. Of two settings that name one file the one
/// is told that was set, and rather the one that is read than the one that is written.
pub fn check(reader: &mut Reader<'_>, written: &Written, env_file: Option<&Path>) {
    let file = written.file.as_deref().map(place);
    let state = written.state_file.as_deref().map(place);
    let default_state = written.file.as_deref().map(|file| place(&with_suffix(file, ".state")));
    let of_output = |path: &Path| taken_by_output(path, file.as_deref()?);
    let is_state = |path: &Path| [&state, &default_state].into_iter().flatten().any(|state| state == path);

    let settings = place(env_file.unwrap_or(Path::new("./.env")));
    // Where TOPICS_FILE is set, it is the one that is told.
    let topics = reader.text("TOPICS_FILE").is_none().then(|| place(Path::new(default_of("TOPICS_FILE"))));
    let is_read = |path: &Path| {
        if path == settings {
            return Some("the file with the settings".to_owned());
        }
        (topics.as_deref() == Some(path)).then(|| "TOPICS_FILE".to_owned())
    };

    let mut owners: Vec<(&str, Option<String>)> = vec![
        ("OUTPUT_FILE", file.as_deref().and_then(is_read)),
        ("STATE_FILE", state.as_deref().and_then(|state| of_output(state).or_else(|| is_read(state)))),
    ];
    for name in [
        "TOPICS_FILE",
        "ELASTIC_CA_FILE",
        "SSL_CERT_FILE",
        "GENESYS_CLIENT_SECRET_FILE",
        "ELASTIC_AUTH_FILE",
        "HTTP_TOKEN_FILE",
    ] {
        let Some(path) = reader.text(name).map(|path| place(Path::new(&path))) else { continue };
        let owner = of_output(&path).or_else(|| is_state(&path).then(|| "STATE_FILE".to_owned()));
        owners.push((name, owner));
    }
    for (name, owner) in owners {
        if let Some(owner) = owner {
            reader.fault(name, format!("must be a file of its own: this one is {owner}"));
        }
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
