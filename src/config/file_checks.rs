//! Checks the files that settings name, and reads them without hanging. Never creates, writes, renames or removes a
//! file.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use super::reader::Reader;
use super::table::row_of;
use super::values::Parsed;

/// Timeout for reading a whole file from a pipe.
const PIPE_TIME_MAX: Duration = Duration::from_secs(10);
/// Maximum number of symbolic links in a row, as in the kernel.
const LINKS_MAX: usize = 40;

/// The path with this text appended.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(suffix);
    PathBuf::from(text)
}

/// Reads a file, or a pipe such as `<(command)`.
///
/// # Errors
/// When it cannot be opened or read, has more than `bytes_max` bytes, or is a pipe that times out.
pub fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    let mut bytes = Vec::new();
    let whole = |bytes: Vec<u8>| {
        let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {bytes_max} bytes"));
        if bytes.len() > bytes_max { Err(too_large()) } else { Ok(bytes) }
    };
    if !file.metadata()?.file_type().is_fifo() {
        file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
        return whole(bytes);
    }
    let deadline = Instant::now() + PIPE_TIME_MAX;
    let mut chunk = [0; 4096];
    while bytes.len() <= bytes_max {
        // Poll first: while the pipe has no writer, a read would report the end.
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        if poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&timeout))? == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it is a pipe, and nothing is written to it"));
        }
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    whole(bytes)
}

/// Checks the path of a file to write: it must be a regular file or not exist. Symbolic links are followed, and the
/// target is returned.
pub fn writable(text: &str) -> Parsed<PathBuf> {
    const FOLDER: &str = "must name a file: this is a folder";
    let given = PathBuf::from(text);
    if text.ends_with('/') || given.file_name().is_none() {
        return Err(FOLDER.to_owned());
    }
    let mut path = given;
    for _ in 0..LINKS_MAX {
        let kind = match fs::symlink_metadata(&path) {
            Ok(there) => there.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err("must be in a folder: a part of its path is a file, not a folder".to_owned());
            }
            // The file is missing or cannot be read. Opening it later will report an error.
            Err(_) => return Ok(path),
        };
        if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(|error| format!("cannot follow the symbolic link: {error}"))?;
            path = path.parent().unwrap_or(Path::new("")).join(target);
            continue;
        }
        let what = match kind {
            kind if kind.is_file() => return Ok(path),
            kind if kind.is_dir() => return Err(FOLDER.to_owned()),
            kind if kind.is_fifo() => "a FIFO",
            kind if kind.is_socket() => "a socket",
            _ => "a device",
        };
        return Err(format!("must be a regular file: this is {what}"));
    }
    Err("must name a file: its symbolic links form a loop".to_owned())
}

/// Checks that no file serves two purposes, since one would overwrite the other. The error names the setting that was
/// set; if both were, the file that is only read.
pub fn check_purposes(reader: &mut Reader<'_>, output: &Path, state: &Path, env_file: Option<&Path>) {
    let (file, state) = (canonical(output), canonical(state));
    let states = [state.clone(), canonical(&with_suffix(output, ".state"))];
    let settings = canonical(env_file.unwrap_or(Path::new("./.env")));
    let topics = reader.is_unset("TOPICS_FILE").then(|| canonical(Path::new(row_of("TOPICS_FILE").default)));
    let is_read = |path: &Path| {
        if path == settings {
            return Some("the settings file".to_owned());
        }
        (topics.as_deref() == Some(path)).then(|| "TOPICS_FILE".to_owned())
    };
    let mut uses =
        vec![("OUTPUT_FILE", is_read(&file)), ("STATE_FILE", family_member(&state, &file).or_else(|| is_read(&state)))];
    for name in [
        "TOPICS_FILE",
        "ELASTIC_CA_FILE",
        "SSL_CERT_FILE",
        "GENESYS_CLIENT_SECRET_FILE",
        "ELASTIC_AUTH_FILE",
        "HTTP_TOKEN_FILE",
    ] {
        let Some(path) = reader.text(name).map(|path| canonical(Path::new(&path))) else { continue };
        let used = family_member(&path, &file).or_else(|| states.contains(&path).then(|| "STATE_FILE".to_owned()));
        if !reader.is_unset(name) {
            uses.push((name, used));
        }
    }
    for (name, used) in uses {
        if let Some(used) = used
            && !reader.is_wrong(name)
        {
            reader.error(name, format!("must be a separate file: this one is {used}"));
        }
    }
}

/// The role of a path that is OUTPUT_FILE itself, one of its backups or one of the files next to it.
fn family_member(path: &Path, output: &Path) -> Option<String> {
    if path == output {
        return Some("OUTPUT_FILE".to_owned());
    }
    if path.parent() != output.parent() {
        return None;
    }
    let (name, output_name) = (path.file_name()?.to_str()?, output.file_name()?.to_str()?);
    let suffix = name.strip_prefix(output_name)?.strip_prefix('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match suffix {
        "dead" | "unreadable" | "lock" => Some(format!("OUTPUT_FILE.{suffix}")),
        _ if suffix.strip_prefix("dead.").is_some_and(is_number) => Some("a backup of OUTPUT_FILE.dead".to_owned()),
        _ => is_number(suffix).then(|| "a backup of OUTPUT_FILE".to_owned()),
    }
}

/// The canonical path, so that two spellings of a path are equal.
fn canonical(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => absolute,
    }
}

/// Checks that the file can be read and contains a certificate (PEM).
pub fn holds_certificate(path: &Path) -> Parsed<()> {
    /// The end of the line that begins a certificate. OpenSSL also writes `TRUSTED CERTIFICATE`.
    const MARK: &[u8] = b"CERTIFICATE-----";
    /// Ten times the size of a system's whole list.
    const BYTES_MAX: usize = 4 * 1024 * 1024;
    let bytes = read(path, BYTES_MAX).map_err(|error| format!("cannot read the file: {error}"))?;
    if bytes.windows(MARK.len()).any(|window| window == MARK) {
        return Ok(());
    }
    Err("contains no certificate in PEM form (-----BEGIN CERTIFICATE-----)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn only_a_regular_file_or_none_is_written_to() {
        let folder = std::env::temp_dir().join(format!("audiohook-writable-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = |name: &str| folder.join(name).display().to_string();
        File::create(path("file")).unwrap();
        let links = [("link", "file"), ("dangling", "absent"), ("null", "/dev/null"), ("loop", "loop"), ("dir", ".")];
        for (name, target) in links {
            std::os::unix::fs::symlink(target, path(name)).unwrap();
        }
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        for (name, expected) in [("file", "file"), ("absent", "absent"), ("link", "file"), ("dangling", "absent")] {
            assert_eq!(writable(&path(name)), Ok(folder.join(expected)), "{name}");
        }
        for (text, part) in [
            ("/dev/null".to_owned(), "a device"),
            (path("null"), "a device"),
            (path("socket"), "a socket"),
            (path("dir"), "a folder"),
            (path("loop"), "loop"),
            (path("file/below"), "must be in a folder"),
            (path("absent/"), "a folder"),
            ("..".to_owned(), "a folder"),
        ] {
            let error = writable(&text).expect_err(&text);
            assert!(error.contains(part), "{text}: {error}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_pipe_is_read_to_its_end() {
        let (out, mut into) = io::pipe().unwrap();
        io::Write::write_all(&mut into, b"A=1\n").unwrap();
        drop(into);
        use std::os::fd::AsRawFd;
        let path = format!("/dev/fd/{}", out.as_raw_fd());
        assert_eq!(read(Path::new(&path), 100).unwrap(), b"A=1\n");
    }
}
