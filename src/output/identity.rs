//! Identifies an output file independently of its name and inode: by a hash of its first whole line, which appending
//! never changes. Must never: use an inode number across a restart, as inode numbers are reused.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use twox_hash::XxHash3_128;

/// Maximum bytes of the first line that are hashed.
pub const FIRST_LINE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the first read; nearly every first line is shorter.
const FIRST_READ_BYTES: usize = 4 * 1024;

/// XXH3-128 of a file's first whole line; 32 hex digits as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity(u128);

/// A position between two lines of one of the files: everything before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub file: FileIdentity,
    /// Bytes from the start of the file.
    pub offset: u64,
}

/// The identity of an open file; `None` if it has no whole line yet or cannot be read.
pub fn identity(file: &File) -> Option<FileIdentity> {
    let mut buffer = vec![0; FIRST_READ_BYTES];
    loop {
        let length = read_up_to(file, &mut buffer)?;
        let seen = &buffer[..length];
        let begin = seen.iter().position(|byte| !matches!(byte, b'\n' | b'\r')).unwrap_or(length);
        if let Some(end) = seen[begin..].iter().position(|byte| *byte == b'\n') {
            return Some(FileIdentity(XxHash3_128::oneshot(&seen[begin..begin + end])));
        }
        if length < buffer.len() {
            return None;
        }
        if length >= FIRST_LINE_BYTES_MAX {
            return Some(FileIdentity(XxHash3_128::oneshot(seen)));
        }
        buffer.resize(FIRST_LINE_BYTES_MAX, 0);
    }
}

/// Fills the buffer from the start of the file; returns the number of bytes read.
fn read_up_to(file: &File, buffer: &mut [u8]) -> Option<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(length)
}

impl fmt::Display for FileIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for FileIdentity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileIdentity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(&text, 16) {
            Ok(value) if digits => Ok(Self(value)),
            _ => Err(D::Error::invalid_value(Unexpected::Str(&text), &"32 hex digits")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file_with(bytes: &[u8]) -> File {
        let path =
            std::env::temp_dir().join(format!("identity-{}-{:?}", std::process::id(), std::thread::current().id()));
        let mut file = File::options().create(true).read(true).write(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_file_keeps_its_identity_while_it_grows_and_has_none_before_its_first_line() {
        assert_eq!(identity(&file_with(b"")), None);
        assert_eq!(identity(&file_with(b"{\"half\":")), None);
        let one = identity(&file_with(b"{\"a\":1}\n")).unwrap();
        assert_eq!(identity(&file_with(b"{\"a\":1}\n{\"b\":2}\n{")), Some(one));
        assert_ne!(identity(&file_with(b"{\"a\":2}\n")), Some(one));
    }

    #[test]
    fn a_file_with_a_very_long_first_line_has_an_identity() {
        let mut line = vec![b'x'; FIRST_READ_BYTES + 10];
        line.push(b'\n');
        assert!(identity(&file_with(&line)).is_some());
        let long = identity(&file_with(&vec![b'x'; FIRST_LINE_BYTES_MAX]));
        assert!(long.is_some());
        assert_eq!(identity(&file_with(&vec![b'x'; 3 * FIRST_LINE_BYTES_MAX])), long);
    }

    #[test]
    fn a_cursor_is_read_back_as_it_was_written() {
        let cursor = Cursor { file: FileIdentity(0xabc), offset: 7 };
        let text = serde_json::to_string(&cursor).unwrap();
        assert_eq!(text, r#"{"file":"00000000000000000000000000000abc","offset":7}"#);
        assert_eq!(serde_json::from_str::<Cursor>(&text).unwrap(), cursor);
        assert!(serde_json::from_str::<Cursor>(r#"{"file":"+0000000000000000000000000000abc","offset":7}"#).is_err());
    }
}
