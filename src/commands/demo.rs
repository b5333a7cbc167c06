//! `demo`: runs the real collector against the simulated Genesys Cloud, in its own folder. The collector gets only
//! settings that an operator can set, and the socket that is bound to the port in them.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, after, bounded, never, select};

use super::{environment, listen_to_signals, load, log_to_stdout};
use crate::cli::{Command, Error, Given, Opt, Value};
use crate::config::{self, Config, Environment, Http, LogFormat, LogSettings, Need, values};
use crate::http::{self, Bound};
use crate::signals::Signal;
use crate::simulator::{Client, Options, Pace, Simulator};
use crate::{collector, thread};

pub const COMMAND: Command = Command {
    name: "demo",
    summary: "run the collector against a simulated Genesys Cloud, with no account",
    about: "Runs the real collector against a simulated Genesys Cloud on this machine, and prints where to watch it.",
    word: "",
    options: &[
        Opt { name: "dir", value: Value::Folder, help: "keep the files in this folder; default: a temporary one" },
        Opt { name: "for", value: Value::Text("SECONDS"), help: "stop after this time; default: run until stopped" },
    ],
    run,
};

/// The collector's default port, which is tried first.
const HTTP_PORT: u16 = 8077;
const HTTP_HOST: &str = "127.0.0.1";
/// In seconds: short, so that events that only the history has are seen soon.
const CATCH_UP_INTERVAL: &str = "10";
/// Number of names to try for a new folder, since other demos may have left theirs.
const FOLDER_TRIES: u32 = 100;
/// Capacity of the queue of signals.
const SIGNALS_MAX: usize = 8;

fn run(given: &Given) -> Result<ExitCode, Error> {
    let stop_after = given.parsed("for", values::seconds)?;
    let environment = environment();
    // There may be settings for real use. Only those of the log are used.
    let mut log = load(given, Need::Nothing)?.log;
    if !config::is_set("LOG_FORMAT", &environment, given.env_file.as_deref()) {
        log.format = LogFormat::Text;
    }
    // Read it only from the environment: a settings file for real use may open the port to other machines.
    let host = environment.get(std::ffi::OsStr::new("HTTP_HOST")).and_then(|host| host.to_str()).unwrap_or_default();
    let host = if host.is_empty() { HTTP_HOST } else { host };
    let _flush = log_to_stdout(&log, &[])?;
    let demo = Demo { log, host: host.to_owned(), dir: given.path("dir"), stop_after };
    demo.run(listen_to_signals()?, |config, bound, signals| collector::run_on(config, Some(bound), signals))
        .map_err(|error| Error::cannot("run the demo", error))
}

struct Demo {
    log: LogSettings,
    host: String,
    dir: Option<PathBuf>,
    stop_after: Option<Duration>,
}

impl Demo {
    /// Runs the collector against a simulated service until a signal or the end of the time. Returns the collector's
    /// exit status.
    fn run(
        self,
        signals: Receiver<Signal>,
        collector: impl FnOnce(Config, Bound, Receiver<Signal>) -> ExitCode,
    ) -> io::Result<ExitCode> {
        let folder = Folder::make(self.dir)?;
        let service = Options { keep_issued: false, ..Options::default() };
        let client = service.clients.first().cloned().ok_or_else(|| io::Error::other("the service has no client"))?;
        let mut simulator = Simulator::start(service)?;
        simulator.generate(Pace::default())?;
        let (bound, port) = bind(&self.host)?;
        let config = Config { log: self.log, ..settings(&simulator.url(), &client, &folder.path, &self.host, port)? };
        announce(&mut io::stdout().lock(), &config, &folder)?;
        // Dropped after the collector has ended, to stop the forwarding thread.
        let (ended, end) = bounded::<()>(0);
        let (forwarding, forwarded) = forward(signals, self.stop_after, end)?;
        let status = collector(config, bound, forwarded);
        drop(ended);
        let _ = forwarding.join();
        Ok(status)
    }
}

/// Forwards signals, and sends a stop at the end of the time.
fn forward(
    mut signals: Receiver<Signal>,
    limit: Option<Duration>,
    end: Receiver<()>,
) -> io::Result<(JoinHandle<()>, Receiver<Signal>)> {
    let (forward, forwarded) = bounded(SIGNALS_MAX);
    let over = limit.map_or_else(never, after);
    let forwarding = thread::spawn("demo-time", move || {
        loop {
            select! {
                recv(signals) -> signal => match signal {
                    Ok(signal) => { let _ = forward.try_send(signal); }
                    Err(_) => signals = never(),
                },
                recv(over) -> _ => { let _ = forward.try_send(Signal::Stop); }
                recv(end) -> _ => return,
            }
        }
    })?;
    Ok((forwarding, forwarded))
}

/// The folder that the demo writes to.
struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    fn make(dir: Option<PathBuf>) -> io::Result<Self> {
        if let Some(path) = dir {
            fs::create_dir_all(&path).map_err(|e| named(&e, "create", &path))?;
            return Ok(Self { path, temporary: false });
        }
        let base = std::env::temp_dir();
        for try_number in 0..FOLDER_TRIES {
            let path = base.join(format!("audiohook-demo-{}-{try_number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path, temporary: true }),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(named(&e, "create", &path)),
            }
        }
        Err(io::Error::other(format!("no free name for a folder in {}", base.display())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn named(e: &io::Error, verb: &str, path: &Path) -> io::Error {
    io::Error::new(e.kind(), format!("cannot {verb} {}: {e}", path.display()))
}

/// Binds the default port, or any free one if it is in use. The port is bound at once, since another demo may be
/// starting.
fn bind(host: &str) -> io::Result<(Bound, u16)> {
    let at = |port| http::bind(&Http { host: host.to_owned(), port, token: None });
    let bound = at(HTTP_PORT).or_else(|_| at(0)).map_err(io::Error::other)?;
    let port = bound.address().port();
    Ok((bound, port))
}

/// The settings that an operator would set, and defaults for the rest.
fn settings(url: &str, client: &Client, folder: &Path, host: &str, port: u16) -> io::Result<Config> {
    let file = folder.join("audiohook_events.jsonl");
    let settings: Environment = [
        ("GENESYS_ENV", "mypurecloud.com".into()),
        ("GENESYS_CLIENT_ID", client.id.clone().into()),
        ("GENESYS_CLIENT_SECRET", client.secret.clone().into()),
        ("GENESYS_LOGIN_URL", url.into()),
        ("GENESYS_API_URL", url.into()),
        ("INSTANCE_NAME", "demo".into()),
        ("CATCH_UP_INTERVAL", CATCH_UP_INTERVAL.into()),
        ("OUTPUT_FILE", file.into_os_string()),
        ("HTTP_HOST", host.into()),
        ("HTTP_PORT", port.to_string().into()),
    ]
    .map(|(name, value)| (name.into(), value))
    .into();
    // Do not read a `./.env` for real use.
    Config::load(Need::Nothing, &settings, Some(Path::new(config::NO_FILE))).map_err(io::Error::other)
}

/// Prints the addresses and commands to watch the demo.
fn announce(out: &mut impl Write, config: &Config, folder: &Folder) -> io::Result<()> {
    // If the collector listens on all addresses, show the loopback address.
    let host = if matches!(config.http.host.as_str(), "0.0.0.0" | "::") { HTTP_HOST } else { &config.http.host };
    let base = format!("http://{host}:{}", config.http.port);
    let kept = if folder.temporary { "removed at the end" } else { "kept" };
    writeln!(out, "The collector runs against a simulated Genesys Cloud on {}.", config.genesys.api_url)?;
    writeln!(out, "Watch it from another terminal:\n")?;
    writeln!(out, "  {base}/                 the live page, in a browser")?;
    writeln!(out, "  curl -s {base}/health")?;
    writeln!(out, "  curl -s '{base}/events?limit=3'")?;
    writeln!(out, "  curl -s {base}/metrics")?;
    writeln!(out, "  tail -f {}", config.output.file.display())?;
    writeln!(out, "\nThe folder is {kept}. Stop with Ctrl-C.\n")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo(dir: Option<PathBuf>, stop_after: Option<Duration>) -> Demo {
        let log = LogSettings { console: true, level: log::LevelFilter::Info, format: LogFormat::Json };
        Demo { log, host: HTTP_HOST.to_owned(), dir, stop_after }
    }

    #[test]
    fn the_collector_gets_settings_of_a_service_that_answers_and_ends_in_time() {
        let (_keep, signals) = bounded(1);
        let mut seen = None;
        let demo = demo(None, Some(Duration::from_millis(50)));
        let status = demo.run(signals, |config, _, signals| {
            assert!(config.output.file.parent().unwrap().is_dir());
            let address = config.genesys.api_url.strip_prefix("http://").unwrap().parse().unwrap();
            assert!(std::net::TcpStream::connect_timeout(&address, Duration::from_secs(10)).is_ok());
            assert_eq!(signals.recv_timeout(Duration::from_secs(10)), Ok(Signal::Stop));
            seen = Some(config);
            ExitCode::from(7)
        });
        assert_eq!(status.unwrap(), ExitCode::from(7));
        assert!(!seen.unwrap().output.file.parent().unwrap().exists(), "a temporary folder is removed");
    }

    #[test]
    fn a_signal_is_passed_on_and_a_named_folder_stays() {
        let dir = std::env::temp_dir().join(format!("audiohook-demo-test-{}", std::process::id()));
        let (send, signals) = bounded(1);
        send.send(Signal::Reopen).unwrap();
        let status = demo(Some(dir.clone()), None).run(signals, |_, _, signals| {
            assert_eq!(signals.recv_timeout(Duration::from_secs(10)), Ok(Signal::Reopen));
            ExitCode::SUCCESS
        });
        assert_eq!(status.unwrap(), ExitCode::SUCCESS);
        assert!(dir.is_dir());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_is_printed_has_the_real_port_and_file_and_no_secret() {
        let folder = Folder::make(None).unwrap();
        let client = Client { id: "id".to_owned(), secret: "hidden-secret".to_owned() };
        let config = settings("http://127.0.0.1:1", &client, &folder.path, "0.0.0.0", 4242).unwrap();
        let mut out = Vec::new();
        announce(&mut out, &config, &folder).unwrap();
        let text = String::from_utf8(out).unwrap();
        for part in ["curl -s http://127.0.0.1:4242/health", "/audiohook_events.jsonl", "removed at the end"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("hidden-secret"));
    }
}
