//! The metrics, as Prometheus's own tool judges them.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use audiohook_collector::event::EVENT_CODES;
use audiohook_collector::status::{Code, Problem};

use crate::port;
use crate::stage::Stage;

/// Starts a tool of Prometheus; `None`, with a printed reason, where it is absent; in CI that is a failure.
fn start(command: &mut Command) -> Option<Child> {
    match command.spawn() {
        Ok(child) => Some(child),
        Err(error) => {
            let name = command.get_program();
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "cannot run {name:?}: {error}");
            println!("skipped: no {name:?} here ({error}); it is in Debian's package prometheus");
            None
        }
    }
}

const ALERTS: &str = "contrib/monitoring/alerts.yml";

#[test]
fn every_code_has_an_alert_and_the_rules_pass_their_tests() {
    let rules = std::fs::read_to_string(ALERTS).unwrap();
    for code in Code::ALL {
        assert!(rules.contains(&format!("health_reason{{code=\"{}\"}} == 1", code.name())), "{code:?}");
    }
    // Each code's explanation, wherever an alert names a code.
    let folded = rules.split_whitespace().collect::<Vec<_>>().join(" ");
    for code in EVENT_CODES.iter().filter(|code| !code.recovery) {
        let explained = format!("\"{}\" }}}}{}. {} {}", code.id, code.name, code.means, code.check);
        assert_eq!(folded.matches(&explained).count(), 2, "{}", code.id);
    }
    for code in EVENT_CODES.iter().filter(|code| code.recovery) {
        assert!(rules.contains(&format!("event_id!~\"{}\"", code.id)), "{} is no failure", code.id);
    }
    let mut promtool = Command::new("promtool");
    let tests = ["alerts", "audiohook", "causes"].map(|name| format!("tests/prometheus/{name}_test.yml"));
    promtool.args(["test", "rules"]).args(tests);
    let Some(promtool) = start(promtool.stdout(Stdio::piped()).stderr(Stdio::piped())) else { return };
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A folder and, once it runs, the program that works in it; both go with the test.
struct Server {
    folder: PathBuf,
    child: Option<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_real_prometheus_scrapes_it_with_the_token() {
    let stage = Stage::start(Some("open sesame"));
    stage.status.counters.received_history.add(12);
    stage.status.counts.add("AUDIOHOOK-0003", "e-1", "Voice", stage.status.now(), stage.status.now());
    stage.status.raise(Code::Incomplete, Problem::new("an audit found one event missing", "Fix it."));
    let port = port::free_port(port::COLLECTORS);
    let folder = std::env::temp_dir().join(format!("prometheus-test-{}-{port}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut server = Server { folder: folder.clone(), child: None };
    let rules = std::env::current_dir().unwrap().join(ALERTS);
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n- job_name: audiohook-collector\n  authorization: {{credentials: open sesame}}\n  static_configs: [{{targets: ['{}']}}]\n",
        rules.display(),
        stage.address
    );
    std::fs::write(folder.join("prometheus.yml"), config).unwrap();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    server.child = start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    if server.child.is_none() {
        return;
    }
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build().into();
    let value = |query: &str| -> Option<String> {
        let url = format!("http://127.0.0.1:{port}/api/v1/query");
        let text = agent.get(url).query("query", query).call().ok()?.body_mut().read_to_string().ok()?;
        let answer: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(answer["data"]["result"][0]["value"][1].as_str()?.to_owned())
    };
    let (_never, pause) = crossbeam_channel::bounded::<()>(0);
    for (query, expected) in [
        ("up", "1"),
        ("audiohook_collector_events_received_total{source=\"history\"}", "12"),
        ("audiohook_collector_audiohook_events_total{event_id=\"AUDIOHOOK-0003\",late=\"false\"}", "1"),
        ("count(audiohook_collector_audiohook_events_total)", "2"),
        ("audiohook_collector_health_reason{code=\"incomplete\"}", "1"),
        ("count(audiohook_collector_health_reason)", "16"),
        ("ALERTS{alertname=\"AudioHookCollectorIncomplete\",alertstate=\"pending\"}", "1"),
    ] {
        let deadline = Instant::now() + Duration::from_secs(30);
        while value(query).as_deref() != Some(expected) {
            assert!(Instant::now() < deadline, "{query} is {:?}, not {expected}", value(query));
            let _ = pause.recv_timeout(Duration::from_millis(100));
        }
    }
}

#[test]
fn promtool_finds_nothing_to_say() {
    let stage = Stage::start(None);
    stage.status.counters.received_websocket.add(3);
    stage.status.gauges.last_event.set(1_795_430_645_123);
    stage.status.raise(Code::DeadLetters, Problem::new("a \"quoted\" message", "Fix it."));
    let reply = stage.get("/metrics");
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Some(mut promtool) = start(&mut promtool) else { return };
    promtool.stdin.take().unwrap().write_all(&reply.body).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{}", String::from_utf8_lossy(&reply.body));
}
