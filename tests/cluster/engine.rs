//! A real OpenSearch or Elasticsearch, started by `tests/search-engine`.

#[path = "../support/port.rs"]
#[allow(dead_code, clippy::duplicate_mod, reason = "not all who start an engine have the tests' support")]
mod port;

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::after;
use serde_json::Value;
use ureq::Agent;
use ureq::http::Request;

/// From an empty folder to the first answer, packages fetched.
const START_WITHIN: Duration = Duration::from_secs(120);

pub struct Engine {
    pub url: String,
    kind: &'static str,
    port: u16,
    folder: PathBuf,
    settings: Vec<&'static str>,
    process: Option<Child>,
    agent: Agent,
}

/// Whether real servers can be started here. Where Java or Maven is missing the reason is printed; in CI that is a fault.
pub fn available() -> bool {
    let missing: Vec<&str> = ["java", "javac", "mvn"]
        .into_iter()
        .filter(|tool| Command::new(tool).arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err())
        .collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "cannot start a search engine in CI: no {missing:?}");
    eprintln!("skipped: no {missing:?} here; install a Java 17 development kit and Maven to run the cluster tests");
    false
}

impl Engine {
    pub fn start(kind: &'static str, name: &str, settings: &[&'static str]) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("engine-{}-{kind}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .proxy(None)
            .build()
            .new_agent();
        let url = format!("http://127.0.0.1:{port}");
        let mut engine = Self { url, kind, port, folder, settings: settings.to_vec(), process: None, agent };
        engine.run();
        engine.wait();
        engine
    }

    /// Kills it, as a power cut does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again with the data that it had.
    pub fn run(&mut self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/search-engine");
        let log = File::create(self.folder.join("out")).unwrap();
        let process = Command::new(script)
            .arg(self.kind)
            .arg(self.port.to_string())
            .arg(self.folder.join("server"))
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    /// The same, if it was killed.
    pub fn run_if_ended(&mut self) {
        if self.process.is_none() {
            self.run();
        }
    }

    pub fn with_settings(&mut self, settings: &[&'static str]) {
        self.settings = settings.to_vec();
    }

    pub fn wait(&mut self) {
        let deadline = Instant::now() + START_WITHIN;
        while !self.is_up() {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            let out = || fs::read_to_string(self.folder.join("out")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "{} does not start: {}", self.kind, out());
            let _ = after(Duration::from_millis(200)).recv();
        }
    }

    fn is_up(&self) -> bool {
        // Yellow: every document that it had can be reached, and written beside.
        let url = format!("{}/_cluster/health?wait_for_status=yellow&timeout=1s", self.url);
        self.agent.get(url).call().is_ok_and(|answer| answer.status() == 200)
    }

    /// A request; the status and the document.
    pub fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", "application/json");
        let answer = if body.is_empty() {
            self.agent.run(request.body(()).unwrap())
        } else {
            self.agent.run(request.body(body.to_owned()).unwrap())
        };
        let mut answer = answer.unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// The same, which must succeed.
    pub fn must(&self, method: &str, path: &str, body: &str) -> Value {
        let (status, document) = self.call(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {document}");
        document
    }

    /// How many documents a search finds.
    pub fn found(&self, index: &str, query: &str) -> u64 {
        self.must("POST", &format!("/{index}/_refresh"), "");
        let body = format!(r#"{{"size":0,"track_total_hits":true,"query":{query}}}"#);
        self.must("POST", &format!("/{index}/_search"), &body)["hits"]["total"]["value"].as_u64().unwrap()
    }

    pub fn count(&self, index: &str) -> u64 {
        self.found(index, r#"{"match_all":{}}"#)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A port that is free, with the one 100 above it.
fn free_port() -> u16 {
    loop {
        let port = port::free_port(port::ENGINES);
        if TcpListener::bind(("127.0.0.1", port + 100)).is_ok() {
            return port;
        }
    }
}
