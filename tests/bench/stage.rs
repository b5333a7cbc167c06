//! What every row needs: a folder, the peer, the collector, the floor or the limit as a process, and one burst from end to end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use audiohook_collector::writer::state::{self, State};

use super::cluster::Cluster;
use super::events::now_ms;
use super::options::Options;
use super::peer::{Peer, Socket};
use super::port;
use super::process::{Process, pause, wait_until};

/// How long a new process is left alone before it is measured.
const SETTLE: Duration = Duration::from_millis(400);
/// How long a measurement may take, at most.
const LIMIT: Duration = Duration::from_secs(60);

/// What is measured.
#[derive(Clone, PartialEq)]
pub enum Subject {
    Floor,
    Limit,
    Collector,
    /// Another collector's command.
    Other(Vec<String>),
}

/// What one burst showed.
#[derive(Clone, Copy)]
pub struct Burst {
    pub events_per_s: f64,
    /// CPU time of an event, in µs.
    pub cpu_us: f64,
    pub peak_kib: u64,
}

pub struct Stage {
    pub options: Options,
    pub peer: Peer,
    pub cluster: Cluster,
    pub folder: PathBuf,
}

/// A process under measurement, and its file.
pub struct Running {
    pub process: Process,
    pub output: PathBuf,
}

impl Stage {
    pub fn new(options: Options) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let peer = Peer::start(&folder);
        Self { options, peer, cluster: Cluster::start(), folder }
    }

    /// An empty folder of a row's own.
    pub fn fresh(&self) -> PathBuf {
        let folder = self.folder.join("turn");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// What a collector is told, before a row changes it.
    fn settings(&self, output: &Path) -> BTreeMap<String, String> {
        let pairs = [
            ("GENESYS_ENV", "mypurecloud.com"),
            ("GENESYS_CLIENT_ID", "bench"),
            ("GENESYS_CLIENT_SECRET", "bench-secret"),
            ("GENESYS_LOGIN_URL", &self.peer.url),
            ("GENESYS_API_URL", &self.peer.url),
            ("OUTPUT_FILE", &output.display().to_string()),
            ("MAX_FILE_SIZE", "100GiB"),
            ("HTTP_HOST", "127.0.0.1"),
            ("HTTP_PORT", &free_port().to_string()),
            ("CATCH_UP_START", "0"),
            ("CATCH_UP_INTERVAL", "600"),
            ("CATCH_UP_RATE", "1000000"),
            ("SSL_CERT_FILE", &self.peer.ca.display().to_string()),
            ("PATH", &std::env::var("PATH").unwrap_or_default()),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Starts a collector in this folder; these settings are changed.
    pub fn collector(&self, folder: &Path, changed: &[(&str, &str)]) -> Running {
        self.start(&Subject::Collector, folder, changed, false)
    }

    pub fn start(&self, subject: &Subject, folder: &Path, changed: &[(&str, &str)], tls: bool) -> Running {
        let output = folder.join("events.jsonl");
        let mut command = match subject {
            Subject::Floor | Subject::Limit => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                let program = if *subject == Subject::Limit { "limit" } else { "floor" };
                command.args([program, self.peer.address(tls)]).arg(&output);
                if tls {
                    command.arg(&self.peer.ca);
                }
                return Running { process: Process::start(command), output };
            }
            Subject::Collector => Command::new(&self.options.collector),
            Subject::Other(words) => {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]);
                command
            }
        };
        self.peer.set_tls(tls);
        let mut settings = self.settings(&output);
        for (name, value) in changed {
            settings.insert((*name).to_owned(), (*value).to_owned());
        }
        command.env_clear().envs(settings).current_dir(folder);
        Running { process: Process::start(command), output }
    }

    /// A fresh process, its socket open and quiet.
    pub fn connected(&self, subject: &Subject, changed: &[(&str, &str)], tls: bool) -> (Running, Socket) {
        self.connected_in(subject, &self.fresh(), changed, tls)
    }

    /// The same in a folder that holds something already.
    pub fn connected_in(
        &self,
        subject: &Subject,
        folder: &Path,
        changed: &[(&str, &str)],
        tls: bool,
    ) -> (Running, Socket) {
        let running = self.start(subject, folder, changed, tls);
        let socket = self.peer.socket();
        pause(SETTLE);
        (running, socket)
    }

    /// A folder in which a collector has written until now: what stands in its files is not asked for again.
    pub fn collected(&self) -> PathBuf {
        let folder = self.fresh();
        let now = now_ms();
        let state = State { checkpoint_ms: Some(now), origin_ms: Some(now), ..State::default() };
        state::write(&folder.join("events.jsonl.state"), &state).unwrap();
        folder
    }

    /// One burst of these frames into a fresh process.
    pub fn burst(&self, subject: &Subject, tls: bool, frames: &[u8], events: usize, event_bytes: usize) -> Burst {
        let (running, mut socket) = self.connected(subject, &[], tls);
        let lines = match subject {
            Subject::Floor | Subject::Limit => Lines::open(&running.output, Some(event_bytes)),
            Subject::Collector => Lines::open(&running.output, None),
            Subject::Other(_) => Lines::counting(&running.output),
        };
        let burst = measure(&running, &mut socket, frames, events, lines);
        drop(socket);
        running.process.stop();
        burst
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Sends the frames and waits until all of them stand in the file.
pub fn measure(running: &Running, socket: &mut Socket, frames: &[u8], events: usize, mut lines: Lines) -> Burst {
    running.process.reset_peak();
    let cpu = running.process.cpu();
    let begun = Instant::now();
    let all = std::thread::scope(|scope| {
        scope.spawn(|| socket.write_all(frames));
        wait_until(LIMIT, || lines.count() >= events)
    });
    let elapsed = begun.elapsed();
    assert!(all, "{} of {events} events are in the file after {LIMIT:?}", lines.count());
    let cpu = running.process.cpu() - cpu;
    Burst {
        events_per_s: events as f64 / elapsed.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / events as f64,
        peak_kib: running.process.memory_kib().1,
    }
}

/// How many lines a file has got since it was opened. All lines of a burst are of one length, so its size tells; of
/// another collector's file that is not known, and its line feeds are counted.
pub struct Lines {
    path: PathBuf,
    file: Option<File>,
    begun_at: u64,
    line_bytes: Option<usize>,
    /// Up to where line feeds were counted, and how many there are.
    counted: Option<(u64, usize)>,
}

impl Lines {
    pub fn open(path: &Path, line_bytes: Option<usize>) -> Self {
        let begun_at = std::fs::metadata(path).map_or(0, |meta| meta.len());
        Self { path: path.to_owned(), file: None, begun_at, line_bytes, counted: None }
    }

    fn counting(path: &Path) -> Self {
        let lines = Self::open(path, None);
        Self { counted: Some((lines.begun_at, 0)), ..lines }
    }

    pub fn count(&mut self) -> usize {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &self.file else { return 0 };
        if let Some((at, count)) = &mut self.counted {
            let mut chunk = vec![0; 1 << 20];
            while let Some(read) = file.read_at(&mut chunk, *at).ok().filter(|read| *read > 0) {
                *at += read as u64;
                *count += chunk[..read].iter().filter(|byte| **byte == b'\n').count();
            }
            return *count;
        }
        let grown = file.metadata().map_or(0, |meta| meta.len()).saturating_sub(self.begun_at);
        if self.line_bytes.is_none() {
            let mut first = vec![0; 256 * 1024];
            let read = file.read_at(&mut first, self.begun_at).unwrap_or(0);
            self.line_bytes = first[..read].iter().position(|byte| *byte == b'\n').map(|end| end + 1);
        }
        self.line_bytes.map_or(0, |bytes| grown as usize / bytes)
    }
}

pub fn free_port() -> u16 {
    port::free_port(port::COLLECTORS)
}
