//! A real Chromium, driven through chromedriver's WebDriver interface.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, never};
use serde_json::{Value, json};

/// How long the page may take to show a thing.
const SHOWN_WITHIN: Duration = Duration::from_secs(15);

const STARTS_MAX: usize = 5;

/// A browser with one empty profile and one window; it ends when dropped.
pub struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
    profile: std::path::PathBuf,
    pause: Receiver<()>,
}

impl Browser {
    /// `None`, with a printed reason, where there is no chromedriver; in CI that is a failure.
    pub fn start() -> Option<Self> {
        // It ends at once where the port that it was given for IPv4 is taken for IPv6.
        let mut tries = (0..STARTS_MAX).map(|_| start_driver());
        let (driver, port) = match tries.find_map(Result::transpose).expect("chromedriver starts") {
            Ok(started) => started,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "cannot run chromedriver: {error}");
                println!("skipped: no chromedriver ({error}); Debian's packages are chromium and chromium-driver");
                return None;
            }
        };
        let profile = std::env::temp_dir().join(format!("page-test-{}-{port}", std::process::id()));
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            .build()
            .into();
        let mut browser =
            Self { driver, session: format!("http://127.0.0.1:{port}/session"), agent, profile, pause: never() };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1280,1000",
            &format!("--user-data-dir={}", browser.profile.display()),
        ];
        let made = browser.post(
            "",
            &json!({"capabilities": {"alwaysMatch": {
                "goog:chromeOptions": {"args": arguments},
                "goog:loggingPrefs": {"browser": "ALL"},
            }}}),
        );
        let id = made["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {made}")).to_owned();
        browser.session = format!("{}/{id}", browser.session);
        Some(browser)
    }

    pub fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// What this function's body returns.
    pub fn run(&self, body: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": body, "args": [] }))
    }

    /// The text of the first element of this selector, as a reader sees it.
    pub fn text(&self, selector: &str) -> String {
        let body = format!("const e = document.querySelector({}); return e ? e.innerText : '';", json!(selector));
        self.run(&body).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until this expression is true.
    pub fn wait(&self, expression: &str) {
        let started = Instant::now();
        while self.run(&format!("return Boolean({expression});")) != true {
            assert!(started.elapsed() < SHOWN_WITHIN, "never true: {expression}\n{}", self.text("body"));
            let _ = self.pause.recv_timeout(Duration::from_millis(50));
        }
    }

    /// Waits until this text can be read in the element.
    pub fn wait_for(&self, selector: &str, text: &str) {
        self.wait(&format!(
            "(document.querySelector({}) || {{innerText: ''}}).innerText.includes({})",
            json!(selector),
            json!(text)
        ));
    }

    /// Types into the element, then presses these keys' characters as given.
    pub fn type_into(&self, selector: &str, text: &str) {
        let found = self.post("/element", &json!({ "using": "css selector", "value": selector }));
        let id = found.as_object().and_then(|o| o.values().next()).and_then(Value::as_str).unwrap().to_owned();
        self.post(&format!("/element/{id}/value"), &json!({ "text": text }));
    }

    /// Presses these keys, one after the other, wherever the focus is.
    pub fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|stroke| json!({ "type": stroke, "value": key.to_string() })))
            .collect();
        self.post("/actions", &json!({ "actions": [{ "type": "key", "id": "keys", "actions": strokes }] }));
    }

    pub fn click(&self, selector: &str) {
        self.run(&format!("document.querySelector({}).click();", json!(selector)));
    }

    /// A command of the developer tools' protocol.
    pub fn tools(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// What stands in the console since it was last asked for: warnings and errors.
    pub fn console(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({ "type": "browser" }));
        let grave = |entry: &&Value| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING"));
        entries.as_array().into_iter().flatten().filter(grave).map(|entry| entry["message"].to_string()).collect()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let mut answer = self
            .agent
            .post(format!("{}{path}", self.session))
            .header("Content-Type", "application/json")
            .send(serde_json::to_vec(body).unwrap())
            .unwrap();
        let text = answer.body_mut().with_config().limit(64 * 1024 * 1024).read_to_string().unwrap();
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        assert!(answer["value"].get("error").is_none_or(Value::is_null), "{path}: {text}");
        answer["value"].take()
    }
}

/// A driver and its port; `None` when it ended before it listened.
fn start_driver() -> std::io::Result<Option<(Child, String)>> {
    let mut driver = Command::new("chromedriver");
    let mut driver = driver.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
        line.split_once("successfully on port ").map(|(_, port)| port.trim_end_matches('.').to_owned())
    });
    let Some(port) = port else {
        driver.wait()?;
        return Ok(None);
    };
    // chromedriver must not block on what it says later.
    audiohook_collector::thread::spawn("driver-output", move || lines.map_while(Result::ok).for_each(drop))?;
    Ok(Some((driver, port)))
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; what cannot be ended so goes with its driver.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        let (_never, pause) = bounded::<()>(0);
        for _ in 0..20 {
            if std::fs::remove_dir_all(&self.profile).is_ok() {
                return;
            }
            let _ = pause.recv_timeout(Duration::from_millis(100));
        }
    }
}
