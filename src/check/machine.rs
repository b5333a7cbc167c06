//! Checks this machine: the folder, its free space, the lock and the port. Does not write to the output file, and
//! leaves no file behind.

use std::fs::OpenOptions;
use std::io;
use std::net::TcpListener;
use std::path::Path;

use super::Findings;
use crate::commands::health;
use crate::config::{Config, Http};
use crate::http;
use crate::output::backups::folder as folder_of;
use crate::output::{Lock, records, regular};
use crate::status::Problem;

const MIB: u64 = 1024 * 1024;

pub(super) fn check(config: &Config, out: &Findings) {
    match folders(config) {
        Ok(found) => {
            out.ok("folder", found);
            space(config, out);
        }
        Err(problem) => out.problem("folder", &problem),
    }
    let holder = lock(config, out);
    port(&config.http, holder.as_deref(), out);
}

/// The folder, or its nearest parent that exists, since the collector creates missing folders.
fn existing(folder: &Path) -> &Path {
    folder
        .ancestors()
        .map(|one| if one.as_os_str().is_empty() { Path::new(".") } else { one })
        .find(|one| one.exists())
        .unwrap_or(Path::new("/"))
}

/// Checks that the output file and the state file can be written and renamed in their folders.
fn folders(config: &Config) -> Result<String, Problem> {
    let (file, state_file) = (&config.output.file, &config.output.state_file);
    // A state file next to the output file is there because of OUTPUT_FILE.
    let state_setting = if folder_of(state_file) == folder_of(file) { "OUTPUT_FILE" } else { "STATE_FILE" };
    let mut found: Vec<String> = Vec::new();
    for (setting, path) in [("OUTPUT_FILE", file), (state_setting, state_file)] {
        let folder = folder_of(path);
        let there = existing(folder);
        let tried = match try_folder(there).and_then(|()| try_file(path)) {
            // A state file that is a mount point is overwritten instead of replaced.
            Err(_) if path == state_file && path.exists() => regular::check_replaceable(path),
            tried => tried,
        };
        tried.map_err(|error| {
            let cure = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    format!("Free space on the disk of {}, or set {setting} to another disk.", there.display())
                }
                io::ErrorKind::ReadOnlyFilesystem => {
                    format!("Mount {} for writing, or set {setting} to another folder.", there.display())
                }
                _ => {
                    let (make, give) =
                        if there == folder { ("", "Give") } else { ("Create the folder (mkdir -p) and ", "give") };
                    format!(
                        "{make}{give} the user that runs the collector the right to write to {} (chown, chmod), or set \
                         {setting} to another folder.",
                        folder.display()
                    )
                }
            };
            Problem::new(format!("{setting}: {} cannot be written: {error}", path.display()), cure)
        })?;
        let will = if there == folder { "is writable" } else { "will be created at the start" };
        let line = format!("{} {will}", folder.display());
        if !found.contains(&line) {
            found.push(line);
        }
    }
    Ok(found.join("; "))
}

fn try_folder(folder: &Path) -> io::Result<()> {
    let from = folder.join(format!(".audiohook-collector-check-{}", std::process::id()));
    let to = from.with_extension("renamed");
    let tried = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&from)
        .and_then(|mut file| io::Write::write_all(&mut file, b"check\n").and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&from, &to));
    for left in [&from, &to] {
        let _ = std::fs::remove_file(left);
    }
    tried
}

/// Opens an existing file as the collector would, without changing it.
fn try_file(path: &Path) -> io::Result<()> {
    match regular::open(OpenOptions::new().read(true).append(true), path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Checks that the disk has space for the growth of the files.
fn space(config: &Config, out: &Findings) {
    let folder = folder_of(&config.output.file);
    let stat = match rustix::fs::statvfs(existing(folder)) {
        Ok(stat) => stat,
        Err(error) => {
            let error = io::Error::from(error);
            return out.bad(
                "space",
                format_args!("cannot read the free space of {}: {error}", folder.display()),
                "Check that OUTPUT_FILE is on a local disk or a mounted volume.",
            );
        }
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let whole = config.output.max_file_size.saturating_mul(u64::from(config.output.backup_count) + 1);
    let files = records::files(&config.output.file);
    let used: u64 = files.iter().filter_map(|file| std::fs::metadata(file).ok()).map(|meta| meta.len()).sum();
    let need = whole.saturating_sub(used);
    let room = format!("{} free; the files may grow by {}", size(free), size(need));
    if free < need {
        return out.bad(
            "space",
            room,
            "Free some space, lower MAX_FILE_SIZE or BACKUP_COUNT, or set OUTPUT_FILE to a larger disk.",
        );
    }
    if stat.f_files > 0 && stat.f_favail == 0 {
        return out.bad(
            "space",
            format_args!("{room}, but the disk has no free inode for a new file"),
            "Remove unneeded files from the disk.",
        );
    }
    let backlog = config.elastic.as_ref().map_or(0, |elastic| elastic.backlog_max);
    let backlog = if backlog > 0 {
        format!(", and by {} while the cluster is down (ELASTIC_BACKLOG_MAX)", size(backlog))
    } else {
        String::new()
    };
    out.ok("space", room + &backlog);
}

fn size(bytes: u64) -> String {
    match bytes / MIB {
        0 => format!("{} KiB", bytes / 1024),
        mib @ 1..10_240 => format!("{mib} MiB"),
        mib => format!("{} GiB", mib / 1024),
    }
}

/// Reports whether a collector holds the lock, and returns its process id.
fn lock(config: &Config, out: &Findings) -> Option<String> {
    match Lock::holder(&config.output.file) {
        Ok(Some(pid)) => {
            out.ok("lock", format_args!("a collector is running on this file: process {pid}"));
            Some(pid)
        }
        Ok(None) => {
            out.ok("lock", "no collector is running on this file");
            None
        }
        // The check of the folder reports a wrong path.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => None,
        Err(error) => {
            let path = Lock::path(&config.output.file);
            out.bad(
                "lock",
                format_args!("cannot read {}: {error}", path.display()),
                "Run the check as the user that runs the collector, or give that user the right to read and write it.",
            );
            None
        }
    }
}

fn port(settings: &Http, holder: Option<&str>, out: &Findings) {
    let Http { host, port, .. } = settings;
    match http::bind(settings) {
        Ok(_) => {
            let elsewhere = holder.map_or_else(String::new, |pid| format!("; process {pid} listens elsewhere"));
            out.ok("port", format_args!("{port} is free{elsewhere}"));
        }
        Err(_) if TcpListener::bind((host.as_str(), *port)).is_err_and(|e| e.kind() == io::ErrorKind::AddrInUse) => {
            used_port(settings, holder, out);
        }
        Err(problem) => out.problem("port", &problem),
    }
}

fn used_port(http: &Http, holder: Option<&str>, out: &Findings) {
    let port = http.port;
    let answers = || {
        let body = health::answer_at(http, "/livez").unwrap_or_default();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        ["alive", "stalled"].iter().any(|status| body["status"] == *status)
    };
    let by = match holder {
        // If the process cannot be inspected, rely on the response on the port.
        Some(pid) if listens(pid, port).unwrap_or_else(answers) => {
            return out.ok("port", format_args!("{port} is in use by the running collector, process {pid}"));
        }
        Some(pid) => format!(", but not by the running collector (process {pid})"),
        None if answers() => " by another collector with another OUTPUT_FILE".to_owned(),
        None => String::new(),
    };
    let cure = format!(
        "Set HTTP_PORT to a free port, or stop the program that uses it (ss -ltnp 'sport = :{port}' shows it)."
    );
    out.bad("port", format_args!("{port} is in use{by}"), cure);
}

/// Whether this process listens on this TCP port, from `/proc`; `None` if that is unknown.
fn listens(pid: &str, port: u16) -> Option<bool> {
    /// The state TCP_LISTEN.
    const LISTENING: &str = "0A";
    let mut inodes = Vec::new();
    for table in ["tcp", "tcp6"] {
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")) else { continue };
        for row in text.lines().skip(1) {
            let fields: Vec<&str> = row.split_ascii_whitespace().collect();
            let local = fields.get(1).and_then(|local| local.rsplit_once(':')).map(|(_, port)| port);
            let is_port = local.and_then(|hex| u16::from_str_radix(hex, 16).ok()) == Some(port);
            if is_port && fields.get(3) == Some(&LISTENING) {
                inodes.extend(fields.get(9).map(|inode| format!("socket:[{inode}]")));
            }
        }
    }
    if inodes.is_empty() {
        return None;
    }
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let mut links = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    Some(links.any(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_tried_without_a_trace() {
        let folder = std::env::temp_dir().join(format!("audiohook-machine-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        try_folder(&folder).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        assert!(try_file(&folder.join("none")).is_ok() && try_file(Path::new("/dev/null")).is_err());
        assert_eq!(existing(&folder.join("a/b")), folder);
        std::fs::remove_dir(&folder).unwrap();
        assert!(try_folder(&folder).is_err());
    }

    #[test]
    fn a_listening_port_is_found_by_its_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let pid = std::process::id().to_string();
        assert!(listens(&pid, port).is_none_or(|listens| listens));
        drop(listener);
        assert_ne!(listens(&pid, port), Some(true));
        assert_eq!(listens("0", port), None);
    }

    #[test]
    fn sizes_have_a_unit() {
        assert_eq!([size(2048), size(3 * MIB), size(20 * 1024 * MIB)], ["2 KiB", "3 MiB", "20 GiB"]);
    }
}
