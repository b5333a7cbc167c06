//! Which documents stand among the dead letters already, so that none is buried twice.
//!
//! A document is sent again when a kill came before its cursor was kept, when the cursor is gone, or when its file was
//! deleted and the history brought it again: what the cluster has it answers with 409, what it refuses it refuses again.
//! Deals with: the ids of the letters that stood in the file before this process buried any, and of the newest that it
//! buried. Must never: pass over a document whose letter is gone: whoever takes the letters away (a replay, a person)
//! takes their ids along.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;
use twox_hash::XxHash3_64;

use crate::elastic::lines;

/// Bytes of letters that are looked through, the newest: what is older than that is buried twice if the cursor is lost.
const BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Letters of this process that are remembered, at most: half a MiB, and from a half of it on the newest.
const OWN_MAX: usize = 20_000;

/// The ids, hashed, of the letters in one file.
#[derive(Debug, Default)]
pub struct Buried {
    ids: HashSet<u64>,
    /// Those that this process buried: the newest, and as many before them.
    own: [HashSet<u64>; 2],
    /// Device and inode of the file that they are in.
    file: Option<(u64, u64)>,
    is_loaded: bool,
}

#[derive(Deserialize)]
struct Letter<'a> {
    #[serde(borrow)]
    record: &'a RawValue,
}

impl Buried {
    /// Whether a letter of this id stands in the file at `letters`.
    pub fn has(&mut self, letters: &Path, id: &[u8]) -> bool {
        let now = fs::metadata(letters).ok().map(|meta| (meta.dev(), meta.ino()));
        if !self.is_loaded {
            self.is_loaded = true;
            self.file = now;
            if let Err(error) = self.load(letters) {
                log::debug!("cannot read {}: {error}", letters.display());
            }
        }
        if now != self.file {
            // It was taken away: its letters are somebody else's now.
            self.forget();
        }
        let id = XxHash3_64::oneshot(id);
        self.ids.contains(&id) || self.own.iter().any(|own| own.contains(&id))
    }

    /// Letters of these ids were appended to the file of this device and inode.
    pub fn note<'a>(&mut self, file: (u64, u64), ids: impl IntoIterator<Item = &'a [u8]>) {
        if self.file.replace(file) != Some(file) {
            self.forget();
        }
        for id in ids {
            if self.own[0].len() >= OWN_MAX / 2 {
                self.own.swap(0, 1);
                self.own[0].clear();
            }
            self.own[0].insert(XxHash3_64::oneshot(id));
        }
    }

    fn forget(&mut self) {
        self.ids = HashSet::new();
        self.own = Default::default();
    }

    fn load(&mut self, letters: &Path) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let mut file = File::open(letters)?;
        let from = file.metadata()?.len().saturating_sub(BYTES_MAX);
        file.seek(SeekFrom::Start(from))?;
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        while file.read_until(b'\n', &mut line)? > 0 {
            // A line that was cut, at the beginning or by a kill, is no letter.
            if let Ok(Letter { record }) = serde_json::from_slice(&line) {
                let record = record.get().as_bytes();
                let id = lines::fields(record).map(|fields| fields.id_or_computed(record));
                self.ids.extend(id.map(|id| XxHash3_64::oneshot(&id)));
            }
            line.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elastic::dead;

    #[test]
    fn a_letter_is_known_as_long_as_its_file_is_there() {
        let folder = std::env::temp_dir().join(format!("buried-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let letters = folder.join("events.jsonl.dead");
        fs::write(
            &letters,
            "torn\"}\n{\"at\":\"\",\"status\":400,\"record\":{\"n\":1e400,\"id\":\"ab\"}}\n{\"record\":{}}\n{\"rec",
        )
        .unwrap();
        let mut buried = Buried::default();
        assert_eq!([buried.has(&letters, b"ab"), buried.has(&letters, b"cd")], [true, false]);
        fs::rename(&letters, folder.join("taken")).unwrap();
        assert!(!buried.has(&letters, b"ab"), "a document without a letter is buried");
        fs::write(&letters, "").unwrap();
        assert!(!buried.has(&letters, b"ab"));
        assert!(!Buried::default().has(&folder.join("none"), b"ab"));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_this_process_buried_is_known_too_the_newest_of_it() {
        let folder = std::env::temp_dir().join(format!("buried-own-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let output = folder.join("events.jsonl");
        let letters = dead::letters_path(&output);
        let mut buried = Buried::default();
        assert!(!buried.has(&letters, b"ab"));
        let ids: Vec<Vec<u8>> = (0..OWN_MAX).map(|n| n.to_string().into_bytes()).collect();
        buried.note(dead::append(&output, b"{}\n").unwrap(), [b"ab".as_slice()]);
        assert!(buried.has(&letters, b"ab") && !buried.has(&letters, b"cd"));
        buried.note(dead::append(&output, b"{}\n").unwrap(), ids.iter().map(Vec::as_slice));
        assert!(ids[OWN_MAX / 2..].iter().all(|id| buried.has(&letters, id)) && !buried.has(&letters, b"ab"));
        assert!(buried.own.iter().all(|own| own.len() <= OWN_MAX / 2));
        fs::rename(&letters, folder.join("taken")).unwrap();
        buried.note(dead::append(&output, b"{}\n").unwrap(), [b"cd".as_slice()]);
        assert!(buried.has(&letters, b"cd") && !buried.has(&letters, &ids[OWN_MAX - 1]));
        fs::remove_dir_all(&folder).unwrap();
    }
}
