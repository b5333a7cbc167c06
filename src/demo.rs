//! The command `demo`: the real collector against the simulated Genesys Cloud, in a folder of its own.
//!
//! Deals with: the folder, the settings, what is printed, the time limit. Must never: give the collector anything that
//! an operator could not set; it gets a [`Config`] and the port that stands in it, and learns nothing else.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, after, bounded, never, select};

use crate::cli::Demo;
use crate::config::{CatchUp, Config, Delivery, Genesys, Http, LogSettings, Network, Output, Reconnect};
use crate::http::{self, Bound};
use crate::secret::Secret;
use crate::signals::Signal;
use crate::simulator::{Client, Options, Pace, Simulator};
use crate::thread;

/// The port that is tried first: the one that the collector listens on when nothing is set.
const HTTP_PORT: u16 = 8077;
const HTTP_HOST: &str = "127.0.0.1";
/// The history is read so often, so that what only the history brings is seen too.
const CATCH_UP_INTERVAL: Duration = Duration::from_secs(10);
/// Folders that were left by others are tried so many times to be avoided.
const FOLDER_TRIES: u32 = 100;
/// Signals that wait for the collector, at most.
const SIGNALS_MAX: usize = 8;

/// Runs the collector against a simulated service until a signal comes or the time is over. Its exit status is the
/// collector's, or 1 when the demo cannot be set up. `log`: as the log was started; `host`: where it listens, if not on
/// this machine alone.
pub fn run(
    log: LogSettings,
    host: Option<String>,
    options: Demo,
    signals: Receiver<Signal>,
    collector: impl FnOnce(Config, Bound, Receiver<Signal>) -> ExitCode,
) -> ExitCode {
    match start(log, host, options, signals, collector) {
        Ok(status) => status,
        Err(e) => {
            let _ = writeln!(io::stderr(), "audiohook-collector: cannot run the demo: {e}");
            ExitCode::FAILURE
        }
    }
}

fn start(
    log: LogSettings,
    host: Option<String>,
    options: Demo,
    signals: Receiver<Signal>,
    collector: impl FnOnce(Config, Bound, Receiver<Signal>) -> ExitCode,
) -> io::Result<ExitCode> {
    let folder = Folder::make(options.dir)?;
    let service = Options { keep_issued: false, ..Options::default() };
    let client = service.clients.first().cloned().ok_or_else(|| io::Error::other("the service knows no client"))?;
    let mut simulator = Simulator::start(service)?;
    simulator.generate(Pace::default())?;
    let (bound, http) = bind(host.as_deref().unwrap_or(HTTP_HOST))?;
    let config = settings(&simulator.url(), &client, &folder.path, http, log);
    announce(&mut io::stdout().lock(), &config, &folder)?;
    // Dropped when the collector has ended, which ends the forwarding thread.
    let (ended, end) = bounded::<()>(0);
    let (forwarding, forwarded) = forward(signals, options.run_for, end)?;
    let status = collector(config, bound, forwarded);
    drop(ended);
    let _ = forwarding.join();
    Ok(status)
}

/// Passes signals on, and adds the one that ends the demo in time.
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

/// The usual port, or any other when somebody has it. It is taken at once: another demo may be starting too.
fn bind(host: &str) -> io::Result<(Bound, Http)> {
    let at = |port| {
        let http = Http { host: host.to_owned(), port, token: None };
        http::bind(&http).map(|bound| (bound, http))
    };
    let (bound, http) = at(HTTP_PORT).or_else(|_| at(0)).map_err(io::Error::other)?;
    let port = bound.address().port();
    Ok((bound, Http { port, ..http }))
}

/// What an operator would set, and the defaults for the rest.
fn settings(url: &str, client: &Client, folder: &Path, http: Http, log: LogSettings) -> Config {
    let file = folder.join("audiohook_events.jsonl");
    let mut state_file = file.clone().into_os_string();
    state_file.push(".state");
    Config {
        genesys: Genesys {
            env: "mypurecloud.com".to_owned(),
            client_id: client.id.clone(),
            client_secret: Secret::new(client.secret.clone()),
            login_url: url.to_owned(),
            api_url: url.to_owned(),
            delivery: Delivery::Auto,
            topics_file: folder.join("topics.json"),
            topics_file_named: false,
        },
        catch_up: CatchUp {
            interval: CATCH_UP_INTERVAL,
            overlap: Duration::from_secs(900),
            rate: 150,
            start: Duration::from_secs(864_000),
        },
        output: Output {
            file,
            max_file_size: 10 * 1024 * 1024,
            backup_count: 5,
            state_file: state_file.into(),
            redact_fields: Vec::new(),
        },
        log,
        elastic: None,
        http,
        reconnect: Reconnect { delay: Duration::from_secs(5), max_delay: Duration::from_secs(60) },
        network: Network::default(),
    }
}

/// Says where to look.
fn announce(out: &mut impl Write, config: &Config, folder: &Folder) -> io::Result<()> {
    // Who listens everywhere is reached here too.
    let host = if matches!(config.http.host.as_str(), "0.0.0.0" | "::") { HTTP_HOST } else { &config.http.host };
    let base = format!("http://{host}:{}", config.http.port);
    let kept = if folder.temporary { "removed at the end" } else { "kept" };
    writeln!(out, "The collector runs against a simulated Genesys Cloud on {}.", config.genesys.api_url)?;
    writeln!(out, "Look at it from another terminal:\n")?;
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
    use crate::config::LogFormat;

    fn log() -> LogSettings {
        LogSettings { console: true, level: log::LevelFilter::Info, format: LogFormat::Json }
    }

    #[test]
    fn the_collector_gets_settings_of_a_service_that_answers_and_ends_in_time() {
        let (_keep, signals) = bounded(1);
        let mut seen = None;
        let options = Demo { dir: None, run_for: Some(Duration::from_millis(50)) };
        let status = run(log(), None, options, signals, |config, _, signals| {
            assert!(config.output.file.parent().unwrap().is_dir());
            let address = config.genesys.api_url.strip_prefix("http://").unwrap().parse().unwrap();
            assert!(std::net::TcpStream::connect_timeout(&address, Duration::from_secs(10)).is_ok());
            assert_eq!(signals.recv_timeout(Duration::from_secs(10)), Ok(Signal::Stop));
            seen = Some(config);
            ExitCode::from(7)
        });
        assert_eq!(status, ExitCode::from(7));
        assert!(!seen.unwrap().output.file.parent().unwrap().exists(), "a temporary folder is removed");
    }

    #[test]
    fn a_signal_is_passed_on_and_a_named_folder_stays() {
        let dir = std::env::temp_dir().join(format!("audiohook-demo-test-{}", std::process::id()));
        let (send, signals) = bounded(1);
        send.send(Signal::Reopen).unwrap();
        let options = Demo { dir: Some(dir.clone()), run_for: None };
        let status = run(log(), None, options, signals, |_, _, signals| {
            assert_eq!(signals.recv_timeout(Duration::from_secs(10)), Ok(Signal::Reopen));
            ExitCode::SUCCESS
        });
        assert_eq!(status, ExitCode::SUCCESS);
        assert!(dir.is_dir());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_is_printed_has_the_real_port_and_file_and_no_secret() {
        let folder = Folder { path: PathBuf::from("/tmp/x"), temporary: false };
        let client = Client { id: "id".to_owned(), secret: "hidden-secret".to_owned() };
        let http = Http { host: "0.0.0.0".to_owned(), port: 4242, token: None };
        let config = settings("http://127.0.0.1:1", &client, &folder.path, http, log());
        let mut out = Vec::new();
        announce(&mut out, &config, &folder).unwrap();
        let text = String::from_utf8(out).unwrap();
        for part in ["curl -s http://127.0.0.1:4242/health", "/tmp/x/audiohook_events.jsonl", "kept"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("hidden-secret"));
    }
}
