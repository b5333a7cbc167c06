//! The state file: what a later start must know.
//!
//! It has two lines: a JSON object, and the XXH3-64 of that line in hex, which detects a half-written or corrupt file.
//! It is replaced as a whole (temporary file, sync, rename, sync of the folder), so at any instant, power loss
//! included, it holds one whole state: this one or the previous one. Both are correct; the older one only makes a start
//! read more history again. Only a file that cannot be replaced, such as one mounted into a container by itself, is
//! written in place. If a power loss interrupts that, the file is detected as damaged.
//!
//! - `checkpoint_ms` and the instants of `coverage` move only past events that are in the output file *and* synced.
//!   They may be too early, never too late. The checkpoint applies only to the definitions that were read so far.
//! - `cursor` is the position up to which the cluster has the records. It may be too early: `create` with the record's
//!   id makes sending a record again harmless.
//! - `channel` is reused by the next start, so that a crash loop creates no channels. It is a secret, hence mode 0600.
//!
//! Unknown fields of a later version are dropped; a missing field gets its default. A damaged file is renamed to
//! `….damaged`, and the output file determines where to begin.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::clock::Millis;
use crate::config::file_checks::with_suffix;
use crate::elastic::{BacklogDropped, Progress};
use crate::message::{ChannelState, Coverage, Definition};
use crate::output::identity::FileIdentity;
use crate::output::regular;

/// A channel's id is a secret, so only the owner may read the file.
const MODE: u32 = 0o600;

/// The format that this version writes. It reads this and all earlier formats.
pub(super) const FORMAT: u32 = 2;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub format: u32,
    /// Everything in the history before this instant (the service's clock) is certainly in the file.
    pub checkpoint_ms: Option<Millis>,
    /// Where the very first start began; nothing earlier was ever requested.
    pub origin_ms: Option<Millis>,
    /// Whether both are by this machine's clock, because the service's time was not known yet.
    pub by_wall: bool,
    /// How far each definition was read. Empty in a state of format 1, so all are read again.
    pub coverage: Coverage,
    /// The definitions as last fetched; empty before the first fetch.
    pub definitions: Vec<Definition>,
    pub channel: Option<ChannelState>,
    /// The output file at the last save, so that a start notices if it was moved or deleted.
    pub file: Option<FileIdentity>,
    /// When another program last moved, deleted or truncated the output file, by this machine's clock. The files may
    /// lack what was received before.
    pub taken_away_ms: Option<Millis>,
    /// The cluster's position in the records; unchanged while ELASTIC_URL is off.
    pub cursor: Option<Progress>,
    /// Records deleted before the cluster had them; kept for the hour in which they are reported.
    pub backlog_dropped: Option<BacklogDropped>,
}

/// The result of [`read`].
#[derive(Debug, PartialEq)]
pub enum Found {
    State(Box<State>),
    Absent,
    /// The damaged file was renamed to `aside`.
    Damaged {
        aside: PathBuf,
        why: String,
    },
}

/// Reads the state.
///
/// # Errors
/// When the file exists and cannot be read, or is damaged and cannot be renamed.
pub fn read(path: &Path) -> io::Result<Found> {
    let mut bytes = Vec::new();
    match regular::open(OpenOptions::new().read(true), path) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(error) => return Err(error),
    };
    // An empty file was created by hand, to be mounted into a container.
    if bytes.is_empty() {
        return Ok(Found::Absent);
    }
    let why = match parse(&bytes) {
        Ok(state) => return Ok(Found::State(Box::new(state))),
        Err(why) => why,
    };
    let aside = with_suffix(path, ".damaged");
    match regular::check(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // A file mounted by itself cannot be renamed; it will be overwritten in place.
    match std::fs::rename(path, &aside) {
        Err(error) if !cannot_be_replaced(&error) => Err(error),
        _ => Ok(Found::Damaged { aside, why }),
    }
}

/// Reads the state of a collector that may be running. Never changes or renames the file.
pub fn read_beside(path: &Path) -> Option<State> {
    parse(&std::fs::read(path).ok()?).ok()
}

/// Parses a state written by [`write()`].
///
/// # Errors
/// Describes what is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<State, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    let mut lines = text.lines();
    let (line, sum) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    if sum != checksum(line) {
        return Err("its checksum does not match".into());
    }
    let state: State = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if state.format > FORMAT {
        return Err(format!("it is of format {}, and this version knows formats up to {FORMAT}", state.format));
    }
    Ok(state)
}

/// Replaces the previous state, durably.
///
/// # Errors
/// When any step fails; the previous state then remains.
pub fn write(path: &Path, state: &State) -> io::Result<()> {
    let line = serde_json::to_string(&State { format: FORMAT, ..state.clone() })?;
    let text = format!("{line}\n{}\n", checksum(&line));
    match replace(path, text.as_bytes()) {
        Err(error) if cannot_be_replaced(&error) && path.exists() => write_whole(path, text.as_bytes()),
        done => done,
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match regular::check(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let temporary = with_suffix(path, ".new");
    write_whole(&temporary, bytes)?;
    // Only the rename fails for a file that is mounted by itself.
    std::fs::rename(&temporary, path).inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
    regular::sync_folder(path)
}

/// Writes a file from its beginning, durably.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(MODE);
    let mut file = regular::open(&mut options, path)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()
}

/// Whether only the file's place prevents its replacement: a mount point, or a folder that is not writable.
fn cannot_be_replaced(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ResourceBusy | io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

fn checksum(line: &str) -> String {
    format!("{:016x}", XxHash3_64::oneshot(line.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_empty_state_is_an_absent_one_and_what_is_not_a_file_is_left_alone() {
        let folder = std::env::temp_dir().join(format!("audiohook-state-empty-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("state");
        std::fs::write(&path, "").unwrap();
        assert_eq!(read(&path).unwrap(), Found::Absent);
        std::fs::create_dir(with_suffix(&path, ".new")).unwrap();
        assert!(write(&path, &State::default()).is_err());
        assert!(with_suffix(&path, ".new").is_dir());
        std::fs::create_dir(folder.join("other")).unwrap();
        assert!(write(&folder.join("other"), &State::default()).is_err());
        assert!(!folder.join("other.new").exists(), "nothing was begun");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_state_survives_and_a_damaged_one_is_put_aside() {
        let path = std::env::temp_dir().join(format!("audiohook-state-{}", std::process::id()));
        assert_eq!(read(&path).unwrap(), Found::Absent);
        let state = State {
            format: FORMAT,
            checkpoint_ms: Some(5),
            channel: Some(ChannelState {
                id: "c".into(),
                connect_uri: "wss://x/c".into(),
                expires_ms: 9,
                owner: "o".into(),
            }),
            ..State::default()
        };
        write(&path, &state).unwrap();
        assert_eq!(read(&path).unwrap(), Found::State(Box::new(state)));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            // The last byte is the line feed after the checksum. The state is complete without it.
            assert!(parse(&bytes).is_err() || at + 1 == bytes.len(), "byte {at}");
            bytes[at] ^= 1;
        }
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let Found::Damaged { aside, .. } = read(&path).unwrap() else { panic!() };
        assert!(!path.exists() && aside.exists());
        std::fs::remove_file(aside).unwrap();
    }
}
