//! What a later start must know: the state file.
//!
//! Two lines: one JSON object, and the XXH3-64 of that line in hex, so that a half-written or flipped file is told from
//! a whole one. It is replaced as a whole (temporary file, sync, rename, sync of the folder): at any instant, power loss
//! included, one whole state stands there, this one or the one before. Either is right, only more or less of the
//! history is read again:
//!
//! - `checkpoint_ms` moves only over events that are in the output file *and* synced, and speaks for the definitions in
//!   `covered` alone. It may stand too early; never too late.
//! - `cursor` says what the cluster has. It may stand too early: `create` with the record's id makes a second sending
//!   harmless.
//! - `channel` is used again by the next start, so that a crash loop makes no channels; it is a secret, hence mode 0600.
//!
//! Unknown fields of a later version are dropped; a field that is absent has its default. A damaged file is put aside as
//! `….damaged` and the output file itself shows where to begin.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::clock::Millis;
use crate::elastic::BacklogDropped;
use crate::message::{ChannelState, Definition};
use crate::output::identity::Cursor;

/// Only the owner may read a channel's id.
const MODE: u32 = 0o600;

/// The format this version writes; it reads this and all before.
const FORMAT: u32 = 2;

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
    /// The definitions that were read up to the checkpoint. None in a state of format 1: they are read again.
    pub covered: Vec<String>,
    /// The definitions as they were last fetched; none before the first time.
    pub definitions: Vec<Definition>,
    pub channel: Option<ChannelState>,
    /// What the cluster has: kept as it is while ELASTIC_URL is off.
    pub cursor: Option<Cursor>,
    /// What was deleted before the cluster had it, for the hour that it is said.
    pub backlog_dropped: Option<BacklogDropped>,
}

/// What was found at the start.
#[derive(Debug, PartialEq)]
pub enum Found {
    State(State),
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
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(error) => return Err(error),
    };
    let why = match parse(&bytes) {
        Ok(state) => return Ok(Found::State(state)),
        Err(why) => why,
    };
    let aside = with_suffix(path, ".damaged");
    std::fs::rename(path, &aside)?;
    Ok(Found::Damaged { aside, why })
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
    let temporary = with_suffix(path, ".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&temporary)?;
    file.write_all(format!("{line}\n{}\n", checksum(&line)).as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_folder(path)
}

/// Makes renames and new names in this path's folder durable.
///
/// # Errors
/// When the folder cannot be opened or synced.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn checksum(line: &str) -> String {
    format!("{:016x}", XxHash3_64::oneshot(line.as_bytes()))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

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
        assert_eq!(read(&path).unwrap(), Found::State(state));
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
