//! `make install` and `make uninstall` in a folder of their own, and what the installed program tells systemd.

#[path = "support/port.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod port;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use audiohook_collector::thread;
use crossbeam_channel::bounded;

/// The binary under test; COLLECTOR_BINARY names another one, such as the static one.
fn binary() -> String {
    std::env::var("COLLECTOR_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_audiohook-collector").to_owned())
}

/// What the README promises of the release binary.
const START_TIME_MAX: Duration = Duration::from_millis(100);
const RESTING_KIB_MAX: u64 = 10 * 1024;

const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

/// A folder that is gone at the end of its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("audiohook-install-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("folder");
        Self(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.0.join(path)).unwrap_or_else(|error| panic!("{path}: {error}")).permissions().mode() & 0o7777
    }

    /// The files below it, sorted.
    fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, base: &Path, files: &mut Vec<String>) {
            for entry in fs::read_dir(folder).expect("folder") {
                let path = entry.expect("entry").path();
                if path.is_dir() {
                    walk(&path, base, files);
                } else {
                    files.push(path.strip_prefix(base).expect("below").to_str().expect("UTF-8").to_owned());
                }
            }
        }
        let mut files = Vec::new();
        walk(&self.0, &self.0, &mut files);
        files.sort();
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn make(target: &str, destination: &Folder, variables: &[&str]) -> String {
    let output = Command::new("make")
        .arg("--no-print-directory")
        .arg(target)
        .arg(format!("DESTDIR={}", destination.0.display()))
        .arg(format!("BIN={}", binary()))
        .args(variables)
        .current_dir(SOURCE)
        // `make test` hands its own flags down.
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .output()
        .expect("make runs");
    assert!(output.status.success(), "{target}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn everything_is_put_in_its_place() {
    let root = Folder::new("place");
    make("install", &root, &[]);
    for (path, mode) in [
        ("usr/local/bin/audiohook-collector", 0o755),
        ("usr/local/lib/systemd/system/audiohook-collector.service", 0o644),
        ("usr/local/lib/systemd/system/audiohook-collector@.service", 0o644),
        ("etc/audiohook-collector/collector.env", 0o640),
        ("etc/audiohook-collector/topics.json", 0o644),
        ("usr/local/share/man/man8/audiohook-collector.8", 0o644),
        ("usr/local/share/bash-completion/completions/audiohook-collector", 0o644),
        ("usr/local/share/zsh/site-functions/_audiohook-collector", 0o644),
        ("usr/local/share/fish/vendor_completions.d/audiohook-collector.fish", 0o644),
        ("usr/local/share/doc/audiohook-collector/LICENSE", 0o644),
        ("usr/local/share/doc/audiohook-collector/docs/health.md", 0o644),
        ("usr/local/share/doc/audiohook-collector/docs/page.png", 0o644),
        ("usr/local/share/doc/audiohook-collector/contrib/monitoring/alerts.yml", 0o644),
        ("usr/local/share/doc/audiohook-collector/contrib/monitoring/grafana-dashboard.json", 0o644),
        ("usr/local/share/doc/audiohook-collector/contrib/monitoring/saved-objects.ndjson", 0o644),
    ] {
        assert_eq!(root.mode(path), mode, "{path}");
    }
    let settings = root.read("etc/audiohook-collector/collector.env");
    assert!(settings.contains("\nTOPICS_FILE=/etc/audiohook-collector/topics.json\n"));
    assert!(settings.contains("\nOUTPUT_FILE=/var/log/audiohook-collector/"));
    assert!(settings.contains("\nSTATE_FILE=/var/lib/audiohook-collector/"));
    let output =
        Command::new(root.0.join("usr/local/bin/audiohook-collector")).arg("--version").output().expect("runs");
    assert!(output.status.success());
}

#[test]
fn the_services_user_reaches_the_topics_whatever_the_umask_is() {
    let root = Folder::new("umask");
    let output = Command::new("sh")
        .args(["-c", "umask 077 && exec make --no-print-directory install \"$@\"", "sh"])
        .arg(format!("DESTDIR={}", root.0.display()))
        .arg(format!("BIN={}", binary()))
        .current_dir(SOURCE)
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .output()
        .expect("sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (path, mode) in [
        ("etc/audiohook-collector", 0o755),
        ("etc/audiohook-collector/topics.json", 0o644),
        ("etc/audiohook-collector/collector.env", 0o640),
        ("usr/local/bin", 0o755),
    ] {
        assert_eq!(root.mode(path), mode, "{path}");
    }
}

#[test]
fn the_gnu_names_are_honoured() {
    let root = Folder::new("names");
    make(
        "install",
        &root,
        &["PREFIX=/opt/ah", "bindir=/opt/bin", "sysconfdir=/opt/etc", "unitdir=/run/units", "mandir=/m"],
    );
    let unit = root.read("run/units/audiohook-collector.service");
    assert!(unit.contains("\nExecStart=/opt/bin/audiohook-collector --env-file "), "{unit}");
    assert!(unit.contains("\nLoadCredential=collector.env:/opt/etc/audiohook-collector/collector.env\n"), "{unit}");
    assert!(unit.contains("\nDocumentation=file:/opt/ah/share/doc/audiohook-collector/README.md\n"), "{unit}");
    assert!(!unit.contains("/usr/local") && !unit.contains(" /etc/") && !unit.contains(":/etc/"), "{unit}");
    let manual = root.read("m/man8/audiohook-collector.8");
    assert!(manual.contains(".I /opt/etc/audiohook\\-collector/topics.json\n"), "{manual}");
    assert!(!manual.contains(" /etc/"), "{manual}");
    assert_eq!(root.mode("opt/bin/audiohook-collector"), 0o755);
    assert_eq!(root.mode("m/man8/audiohook-collector.8"), 0o644);
    assert!(
        root.read("opt/etc/audiohook-collector/collector.env").contains("TOPICS_FILE=/opt/etc/audiohook-collector/")
    );
    make(
        "uninstall",
        &root,
        &["PREFIX=/opt/ah", "bindir=/opt/bin", "sysconfdir=/opt/etc", "unitdir=/run/units", "mandir=/m"],
    );
    assert_eq!(root.files(), [] as [String; 0]);
}

#[test]
fn an_instance_differs_in_its_settings_file_and_folders_alone() {
    let root = Folder::new("instance");
    make("install", &root, &["sysconfdir=/opt/etc"]);
    let units = "usr/local/lib/systemd/system";
    let unit = root.read(&format!("{units}/audiohook-collector.service"));
    let instance = root.read(&format!("{units}/audiohook-collector@.service"));
    let differing = unit.lines().zip(instance.lines()).filter(|(one, other)| one != other);
    let differing: Vec<&str> = differing.map(|(_, other)| other).filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        differing,
        [
            "Description=AudioHook event collector for Genesys Cloud (%i)",
            "WorkingDirectory=%L/audiohook-collector-%i",
            "LoadCredential=collector.env:/opt/etc/audiohook-collector/%i.env",
            "StateDirectory=audiohook-collector-%i",
            "LogsDirectory=audiohook-collector-%i",
        ]
    );
    assert_eq!(unit.lines().count(), instance.lines().count());
    let delay = |unit: &str| root.read(&format!("{units}/{unit}.d/10-growing-delay.conf"));
    assert_eq!(delay("audiohook-collector.service"), delay("audiohook-collector@.service"));
}

#[test]
fn edited_settings_survive_an_upgrade_and_an_uninstall() {
    let root = Folder::new("edited");
    let settings = "etc/audiohook-collector/collector.env";
    make("install", &root, &[]);
    let edited = root.read(settings).replace("GENESYS_ENV=\n", "GENESYS_ENV=mypurecloud.ie\n");
    fs::write(root.0.join(settings), &edited).expect("written");
    let told = make("install", &root, &[]);
    assert!(told.contains("kept the edited /etc/audiohook-collector/collector.env"), "{told}");
    assert_eq!((root.read(settings), root.mode(settings)), (edited, 0o640));
    let told = make("uninstall", &root, &[]);
    assert!(told.contains("kept the edited /etc/audiohook-collector/collector.env"), "{told}");
    assert_eq!(root.files(), [settings]);
}

#[test]
fn untouched_settings_follow_an_upgrade() {
    let root = Folder::new("untouched");
    let settings = "etc/audiohook-collector/collector.env";
    make("install", &root, &[]);
    let newest = root.read(settings);
    // As an older version left it: the live file and its pristine copy are the same, and not today's.
    for path in [settings, "usr/local/share/audiohook-collector/collector.env"] {
        fs::write(root.0.join(path), "# of an older version\n").expect("written");
    }
    make("install", &root, &[]);
    assert_eq!(root.read(settings), newest);
    make("uninstall", &root, &[]);
    assert_eq!(root.files(), [] as [String; 0]);
    assert!(!root.0.join("etc/audiohook-collector").exists());
}

#[test]
fn what_others_put_there_stays() {
    let root = Folder::new("others");
    make("install", &root, &[]);
    for path in ["etc/audiohook-collector/client-secret", "usr/local/bin/other"] {
        fs::write(root.0.join(path), "x").expect("written");
    }
    make("uninstall", &root, &[]);
    assert_eq!(root.files(), ["etc/audiohook-collector/client-secret", "usr/local/bin/other"]);
}

#[test]
fn make_says_which_tool_is_missing_and_how_to_install_it() {
    let folder = Folder::new("tools");
    let shell = Command::new("sh").args(["-c", "command -v sh"]).output().expect("sh");
    let shell = String::from_utf8(shell.stdout).expect("UTF-8");
    let output = Command::new(shell.trim())
        .arg(Path::new(SOURCE).join("src/install/tools.sh"))
        .env_clear()
        .env("PATH", &folder.0)
        .output()
        .expect("sh runs");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    for word in ["cargo", "cc", "perl", "make"] {
        assert!(told.contains(word), "{word} in {told}");
    }
    assert_eq!(told.matches("apt-get install").count(), 4, "{told}");
}

/// `systemd-analyze` with these arguments; none where there is none, which is said.
fn systemd_analyze(args: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").args(args).output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("skipped: no systemd-analyze here ({error}); apt-get install -y systemd shows it");
            None
        }
    }
}

#[test]
fn the_unit_is_understood_and_hardened() {
    let root = Folder::new("unit");
    // Installed without DESTDIR, below a folder: what the unit names is there, so that only the unit is judged.
    let output = Command::new("make")
        .args(["--no-print-directory", "install"])
        .arg(format!("prefix={}", root.0.join("usr").display()))
        .arg(format!("sysconfdir={}", root.0.join("etc").display()))
        .arg(format!("BIN={}", binary()))
        .current_dir(SOURCE)
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .env_remove("DESTDIR")
        .output()
        .expect("make runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let unit = root.0.join("usr/lib/systemd/system/audiohook-collector.service");
    let unit = unit.to_str().expect("UTF-8");
    if let Some(output) = systemd_analyze(&["verify", unit]) {
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert!(output.status.success());
    }
    if let Some(output) = systemd_analyze(&["security", "--offline=true", "--threshold=15", "--no-pager", unit]) {
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{told}");
    }
}

/// The collector, with a Genesys Cloud that does not answer, and a fake systemd. It is killed when dropped.
struct Service {
    child: Child,
    socket: UnixDatagram,
    _folder: Folder,
}

impl Service {
    fn start(name: &str) -> Self {
        let folder = Folder::new(name);
        let socket = UnixDatagram::bind(folder.0.join("notify")).expect("socket");
        let port = port::free_port(port::COLLECTORS).to_string();
        let child = Command::new(binary())
            .env_clear()
            .envs([
                ("GENESYS_ENV", "mypurecloud.com"),
                ("GENESYS_CLIENT_ID", "client"),
                ("GENESYS_CLIENT_SECRET", "hush-hush-hush"),
                // The port of the discard service: refused at once.
                ("GENESYS_LOGIN_URL", "http://127.0.0.1:9"),
                ("GENESYS_API_URL", "http://127.0.0.1:9"),
                ("HTTP_HOST", "127.0.0.1"),
                ("HTTP_PORT", &port),
                ("WATCHDOG_USEC", "1000000"),
            ])
            .env("NOTIFY_SOCKET", folder.0.join("notify"))
            .current_dir(&folder.0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        Self { child, socket, _folder: folder }
    }

    /// Waits for a message that has this line.
    fn wait_for(&self, line: &str, within: Duration) -> String {
        let deadline = Instant::now() + within;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {line} within {within:?}, but {seen:?}");
            self.socket.set_read_timeout(Some(left)).expect("timeout");
            let mut buffer = [0; 4096];
            let Ok(length) = self.socket.recv(&mut buffer) else { continue };
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.lines().any(|each| each.starts_with(line)) {
                return message;
            }
            seen.push(message);
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("signalled");
    }

    /// Its exit status, if it ends in this time.
    fn ends_within(&mut self, limit: Duration) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        let (ended, wait) = bounded(1);
        let waiting = thread::spawn("wait", move || {
            let status = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            let _ = ended.send(status.ok().flatten().and_then(|(_, status)| status.exit_status()));
        });
        drop(waiting);
        wait.recv_timeout(limit).ok().flatten()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs a release binary in COLLECTOR_BINARY"]
fn the_release_binary_starts_at_once_and_rests_small() {
    // The best of three: another process may have the machine for a moment.
    let starts = (0..3).map(|number| {
        let begin = Instant::now();
        let service = Service::start(&format!("start-{number}"));
        service.wait_for("READY=1", Duration::from_secs(5));
        let took = begin.elapsed();
        service.wait_for("WATCHDOG=1", Duration::from_secs(2));
        let status = fs::read_to_string(format!("/proc/{}/status", service.child.id())).expect("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        (took, resident.trim().trim_end_matches(" kB").parse::<u64>().expect("KiB"))
    });
    let (took, resident_kib) = starts.min().expect("three");
    println!("ready after {took:?}, {resident_kib} KiB at rest");
    assert!(took <= START_TIME_MAX, "ready after {took:?}");
    assert!(resident_kib <= RESTING_KIB_MAX, "{resident_kib} KiB at rest");
}

#[test]
fn systemd_hears_of_a_start_a_reload_and_a_stop_while_the_service_is_down() {
    let mut service = Service::start("notify");
    service.wait_for("READY=1", Duration::from_secs(5));
    service.wait_for("STATUS=", Duration::from_secs(5));
    service.wait_for("WATCHDOG=1", Duration::from_secs(2));
    service.signal(rustix::process::Signal::HUP);
    let message = service.wait_for("RELOADING=1", Duration::from_secs(5));
    assert!(message.contains("MONOTONIC_USEC="), "{message}");
    service.wait_for("READY=1", Duration::from_secs(5));
    service.signal(rustix::process::Signal::TERM);
    service.wait_for("STOPPING=1", Duration::from_secs(5));
    assert_eq!(service.ends_within(Duration::from_secs(5)), Some(0));
}
