//! The quarantine: keeps the newest frames that are not events, with the reason, up to a size limit.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::clock::{Millis, format_millis};
use crate::json::push_string;
use crate::output::{backups, owner, regular};

/// Maximum size of the file in bytes; above it, the older half is dropped.
pub const FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// Maximum number of reasons logged once each; further reasons are not logged.
const LOGGED_MAX: usize = 64;

/// The file named OUTPUT_FILE plus `.unreadable`.
pub struct Unreadable {
    path: PathBuf,
    /// False with REDACT_FIELDS, because the values to hide cannot be located in such a frame.
    keep_frames: bool,
    logged: HashSet<String>,
}

impl Unreadable {
    pub fn new(output: &Path, keep_frames: bool) -> Self {
        let mut path = output.as_os_str().to_owned();
        path.push(".unreadable");
        Self { path: path.into(), keep_frames, logged: HashSet::new() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the frames themselves are kept, not only the reasons.
    pub fn keeps_frames(&self) -> bool {
        self.keep_frames
    }

    /// Keeps a frame. Logs the first one for each reason.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&mut self, at: Millis, reason: &str, frame: &[u8]) -> io::Result<()> {
        if self.logged.len() < LOGGED_MAX && self.logged.insert(reason.to_owned()) {
            let what = if self.keep_frames { "it is kept" } else { "only the reason is kept (REDACT_FIELDS)" };
            log::warn!("a frame is not an event ({reason}); {what} in {}", self.path.display());
        }
        let mut line = format!("{{\"at\":\"{}\",\"reason\":", format_millis(at)).into_bytes();
        push_string(&mut line, reason);
        line.extend_from_slice(b",\"frame\":");
        if self.keep_frames {
            push_string(&mut line, &String::from_utf8_lossy(frame));
        } else {
            line.extend_from_slice(b"null");
        }
        line.extend_from_slice(b"}\n");
        self.make_room(line.len() as u64)?;
        let mut file = regular::open(OpenOptions::new().append(true).create(true).mode(0o640), &self.path)?;
        owner::follow(&file, backups::folder(&self.path));
        let len = file.metadata()?.len();
        // Remove an incomplete line, which would corrupt the next one.
        file.write_all(&line).inspect_err(|_| drop(file.set_len(len)))
    }

    /// Drops the older half if the file would exceed its limit.
    fn make_room(&self, more: u64) -> io::Result<()> {
        let len = std::fs::metadata(&self.path).map_or(0, |m| m.len());
        if len + more <= FILE_BYTES_MAX {
            return Ok(());
        }
        let half = (len / 2).max((len + more).saturating_sub(FILE_BYTES_MAX)).min(len);
        let mut newer = BufReader::new(regular::open(OpenOptions::new().read(true), &self.path)?);
        newer.seek(SeekFrom::Start(half))?;
        newer.skip_until(b'\n')?;
        let mut temporary = self.path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = Path::new(&temporary);
        let mut file = regular::open(OpenOptions::new().write(true).create(true).mode(0o640), temporary)?;
        file.set_len(0)?;
        io::copy(&mut newer, &mut file)?;
        std::fs::rename(temporary, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_within_the_bound() {
        let output = std::env::temp_dir().join(format!("audiohook-aside-{}", std::process::id()));
        let mut unreadable = Unreadable::new(&output, true);
        let frame = vec![b'"'; 1024 * 1024];
        for n in 0..9 {
            unreadable.keep(n, "it is not JSON: a string does not end at byte 5", &frame).unwrap();
        }
        unreadable.keep(9, "last", b"\xff\x00").unwrap();
        let text = std::fs::read_to_string(&unreadable.path).unwrap();
        assert!(text.len() as u64 <= FILE_BYTES_MAX);
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(
            (last["at"].as_str(), last["frame"].as_str()),
            (Some("1970-01-01T00:00:00.009Z"), Some("\u{fffd}\0"))
        );
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
        std::fs::remove_file(&unreadable.path).unwrap();
        let mut silent = Unreadable::new(&output, false);
        silent.keep(1, "r", b"secret").unwrap();
        assert!(std::fs::read_to_string(&silent.path).unwrap().contains("\"frame\":null"));
        std::fs::remove_file(&silent.path).unwrap();
    }
}
