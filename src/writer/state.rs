//! What a later start must know: the state file.
//!
//! Two lines: one JSON object, and the XXH3-64 of that line in hex, so that a half-written or flipped file is recognised.
//! It is replaced as a whole (temporary file, sync, rename, sync of the folder): at any instant, power loss included, one
//! whole state stands there, this one or the one before. Either is right, only more or less of the history is read again.
//! Only a file that cannot be replaced, such as one that is mounted into a container by itself, is written in place:
//! what a power loss leaves of it is then recognised as damaged.
//!
//! - `checkpoint_ms` and the instants of `coverage` move only over events that are in the output file *and* synced. They may
//!   stand too early; never too late. The checkpoint speaks for the definitions that were read so far alone.
//! - `cursor` says what the cluster has. It may stand too early: `create` with the record's id makes a second sending
//!   harmless.
//! - `channel` is used again by the next start, so that a crash loop makes no channels; it is a secret, hence mode 0600.
//!
//! Unknown fields of a later version are dropped; a field that is absent has its default. A damaged file is put aside as
//! `….damaged` and the output file itself shows where to begin.

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

/// Only the owner may read a channel's id.
const MODE: u32 = 0o600;

/// The format this version writes; it reads this and all before.
pub(super) const FORMAT: u32 = 2;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub format: u32,
    /// Everything in the history before this instant (the service's clock) is in the file for certain.
    pub checkpoint_ms: Option<Millis>,
    /// Where the very first start began: nothing before it was ever asked for.
    pub origin_ms: Option<Millis>,
    /// Both are this machine's time: the very first start has not heard the service's yet.
    pub by_wall: bool,
    /// How far each definition was read. None in a state of format 1: they are read again.
    pub coverage: Coverage,
    /// The definitions as they were last fetched; none before the first time.
    pub definitions: Vec<Definition>,
    pub channel: Option<ChannelState>,
    /// The output file as it was at the last save, to notice at a start that it was taken away.
    pub file: Option<FileIdentity>,
    /// When the output file was last moved, deleted or truncated by somebody else, by this machine's clock: the files need
    /// not hold what was received before.
    pub taken_away_ms: Option<Millis>,
    /// What the cluster has: kept as it is while ELASTIC_URL is off.
    pub cursor: Option<Progress>,
    /// What was deleted before the cluster had it, for the hour that it is said.
    pub backlog_dropped: Option<BacklogDropped>,
}

/// What was found at the start.
#[derive(Debug, PartialEq)]
pub enum Found {
    State(Box<State>),
    Absent,
    /// It was put aside under this name.
    Damaged {
        aside: PathBuf,
        why: String,
    },
}

/// Reads the state.
///
/// # Errors
/// When it is there and cannot be read, or is damaged and cannot be put aside.
pub fn read(path: &Path) -> io::Result<Found> {
    let mut bytes = Vec::new();
    match regular::open(OpenOptions::new().read(true), path) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(error) => return Err(error),
    };
    // Made by hand, to be mounted into a container.
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
    // One that is mounted by itself stays where it is, to be written over.
    match std::fs::rename(path, &aside) {
        Err(error) if !cannot_be_replaced(&error) => Err(error),
        _ => Ok(Found::Damaged { aside, why }),
    }
}

/// The state of a collector that may be running: neither an absent nor a damaged one is changed.
pub fn read_beside(path: &Path) -> Option<State> {
    parse(&std::fs::read(path).ok()?).ok()
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// Says what is wrong with it.
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

/// Puts the state in place of the one before, durably.
///
/// # Errors
/// When any step fails; the one before stands then.
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
    // A file that is mounted by itself says so only here.
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

/// Whether nothing but the folder keeps the file from being replaced: a mount point, or a folder that is not writable.
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
            // The last byte is the line feed behind the checksum: without it the state is whole all the same.
            assert!(parse(&bytes).is_err() || at + 1 == bytes.len(), "byte {at}");
            bytes[at] ^= 1;
        }
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let Found::Damaged { aside, .. } = read(&path).unwrap() else { panic!() };
        assert!(!path.exists() && aside.exists());
        std::fs::remove_file(aside).unwrap();
    }
}
