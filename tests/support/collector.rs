//! The real binary as a child process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use audiohook_collector::simulator::{Knobs, Options, Simulator};
use audiohook_collector::thread;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Folder, Record, SOON, free_port, poll, records};

/// Who the simulated service lets in when nothing else is said.
pub fn credentials() -> (String, String) {
    let options = audiohook_collector::simulator::Options::default();
    options.clients.into_iter().next().map(|client| (client.id, client.secret)).unwrap()
}

/// A running collector; killed when dropped.
pub struct Collector {
    child: Child,
    port: u16,
    output_file: PathBuf,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

/// A collector that has the socket alone: what it writes is what it was sent, in that order.
pub fn on_socket(name: &str, changed: &[(&str, &str)]) -> (Simulator, Folder, Collector) {
    let knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    let (sim, folder) = (Simulator::start(Options { knobs, ..Options::default() }).unwrap(), Folder::new(name));
    let mut all = vec![("GENESYS_DELIVERY", "websocket")];
    all.extend_from_slice(changed);
    let collector = Collector::start(&sim, &folder, &all);
    collector.wait_healthy();
    (sim, folder, collector)
}

/// The settings of a collector in this folder against this service: quick to reconnect and to read the history, so
/// that tests are quick too.
pub fn settings(sim: &Simulator, folder: &Folder) -> BTreeMap<String, String> {
    let (id, secret) = credentials();
    let pairs = [
        ("GENESYS_ENV", "mypurecloud.com".to_owned()),
        ("GENESYS_CLIENT_ID", id),
        ("GENESYS_CLIENT_SECRET", secret),
        ("GENESYS_LOGIN_URL", sim.url()),
        ("GENESYS_API_URL", sim.url()),
        ("OUTPUT_FILE", folder.join("events.jsonl").display().to_string()),
        ("HTTP_HOST", "127.0.0.1".to_owned()),
        ("HTTP_PORT", free_port().to_string()),
        ("RECONNECT_DELAY", "0.1".to_owned()),
        ("MAX_RECONNECT_DELAY", "1".to_owned()),
        ("CATCH_UP_INTERVAL", "1".to_owned()),
        ("LOG_LEVEL", "debug".to_owned()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The binary with these arguments and this environment alone, in this folder: the one that was built with the tests, or
/// the one that COLLECTOR_BIN names.
pub fn binary(folder: &Path, arguments: &[&str], settings: &BTreeMap<String, String>) -> Command {
    let chosen = std::env::var_os("COLLECTOR_BIN").filter(|path| !path.is_empty());
    let mut command = Command::new(chosen.unwrap_or_else(|| env!("CARGO_BIN_EXE_audiohook-collector").into()));
    command.args(arguments).current_dir(folder).env_clear().envs(settings).stdin(Stdio::null());
    command
}

impl Collector {
    /// Starts it with [`settings`], changed by these; an empty value takes a setting away.
    pub fn start(sim: &Simulator, folder: &Folder, changed: &[(&str, &str)]) -> Self {
        let mut all = settings(sim, folder);
        for (name, value) in changed {
            if value.is_empty() {
                all.remove(*name);
            } else {
                all.insert((*name).to_owned(), (*value).to_owned());
            }
        }
        Self::start_with(folder.path(), &all)
    }

    /// Starts it with exactly these settings.
    pub fn start_with(folder: &Path, settings: &BTreeMap<String, String>) -> Self {
        Self::run(folder, &[], settings)
    }

    /// Starts the binary with these arguments: any of its commands.
    pub fn run(folder: &Path, arguments: &[&str], settings: &BTreeMap<String, String>) -> Self {
        Self::run_command(binary(folder, arguments, settings), folder, settings)
    }

    /// Starts this command, which has these settings: the installed binary, or one with something around it.
    pub fn run_command(mut command: Command, folder: &Path, settings: &BTreeMap<String, String>) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Log::default());
        read_lines(child.stdout.take().unwrap(), log.clone());
        read_lines(child.stderr.take().unwrap(), log.clone());
        let output_file = settings.get("OUTPUT_FILE").map_or("audiohook_events.jsonl", String::as_str);
        let port = settings.get("HTTP_PORT").and_then(|port| port.parse().ok()).unwrap_or(8077);
        Self { child, port, output_file: folder.join(output_file), log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn output_file(&self) -> &Path {
        &self.output_file
    }

    /// Status and body of a GET; `None` when nobody answers within two seconds.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(2)))
            .build();
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut answer = ureq::Agent::new_with_config(config).get(&url).call().ok()?;
        let body = answer.body_mut().read_to_string().ok()?;
        Some((answer.status().as_u16(), body))
    }

    /// The document of `/health`, whatever its HTTP status.
    pub fn health(&self) -> Option<Value> {
        serde_json::from_str(&self.get("/health")?.1).ok()
    }

    /// The codes of `/health`'s reasons.
    pub fn reasons(&self) -> Option<Vec<String>> {
        let health = self.health()?;
        let reasons = health["reasons"].as_array()?.iter();
        Some(reasons.filter_map(|reason| reason["code"].as_str().map(str::to_owned)).collect())
    }

    /// A value of `/metrics`: the name with its labels, as it stands there.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics")?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// Waits until `/health` says `healthy`.
    pub fn wait_healthy(&self) {
        self.wait_status("healthy", SOON * 2);
    }

    /// Waits until `/health` has this status.
    pub fn wait_status(&self, status: &str, limit: Duration) {
        let seen = poll(limit, || self.health().filter(|health| health["status"] == status));
        assert!(seen.is_some(), "not {status} in {limit:?}: {:?}\n{}", self.health(), self.log_text());
    }

    /// Waits until this code is (or is not) among the reasons; gives how long it took.
    pub fn wait_reason(&self, code: &str, raised: bool, limit: Duration) -> Duration {
        let start = Instant::now();
        let is = |codes: Vec<String>| codes.iter().any(|c| c == code) == raised;
        let seen = poll(limit, || self.reasons().filter(|codes| is(codes.clone())));
        assert!(seen.is_some(), "{code} raised={raised} not in {limit:?}: {:?}\n{}", self.health(), self.log_text());
        start.elapsed()
    }

    /// What the file and its backups hold, oldest first, whole lines only.
    pub fn records(&self) -> Vec<Record> {
        records::read(&self.output_file)
    }

    /// Waits until so many records stand in the files, and gives all.
    pub fn wait_lines(&self, count: usize, limit: Duration) -> Vec<Record> {
        let enough = poll(limit, || (records::count_lines(&self.output_file) >= count).then_some(()));
        let found = self.records();
        assert!(enough.is_some(), "{} of {count} lines in {limit:?}\n{}", found.len(), self.log_text());
        found
    }

    /// What it has printed so far, on both outputs.
    pub fn log_lines(&self) -> Vec<String> {
        self.log.lines.lock().unwrap().clone()
    }

    /// The newest lines, for the message of a failed test.
    pub fn log_text(&self) -> String {
        let lines = self.log_lines();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Waits for a printed line with this text.
    pub fn wait_log(&self, text: &str, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no line with {text:?} in {limit:?}:\n{}", lines.join("\n"));
            lines = self.log.more.wait_timeout(lines, left).unwrap().0;
        }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// `kill -9`, and its end.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and its end within 10 s.
    pub fn term(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_exit(SOON)
    }

    /// Waits for its end.
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let child = &mut self.child;
        let status = poll(limit, || child.try_wait().unwrap());
        status.unwrap_or_else(|| panic!("it runs on after {limit:?}\n{}", self.log_text()))
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Takes every line until the output is closed.
fn read_lines(output: impl Read + Send + 'static, log: Arc<Log>) {
    let read = move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            log.lines.lock().unwrap().push(text);
            log.more.notify_all();
            line.clear();
        }
    };
    thread::spawn("child-output", read).unwrap();
}
