//! `health`: requests `/health` from the collector on this machine. For containers without curl, and for monitoring
//! systems that run plugins. It needs only the HTTP_* settings, uses no proxy, and has a short timeout.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value as Json;

use super::{environment, print};
use crate::cli::{Command, Error, Given, Opt, Value};
use crate::config::{Http, load_http};
use crate::status::Problem;

pub const COMMAND: Command = Command {
    name: "health",
    summary: "print the health of the running collector",
    about: "\
Requests /health from the collector on HTTP_HOST and HTTP_PORT and prints the response. Exit status: 0 for healthy or
degraded, else 1. With --plugin, as in the Monitoring Plugins guidelines: 0 OK, 1 WARNING (degraded), 2 CRITICAL
(unhealthy, or no response), 3 UNKNOWN.",
    word: "",
    options: &[Opt {
        name: "plugin",
        value: Value::None,
        help: "print one line and exit as a plugin for Nagios, Icinga, Checkmk or Zabbix",
    }],
    run,
};

/// Timeout of the whole request.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Maximum length of a response.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

fn run(given: &Given) -> Result<ExitCode, Error> {
    let http = load_http(&environment(), given.env_file.as_deref());
    if given.has("plugin") {
        let (state, text) = match http {
            Ok(http) => plugin(ask_all(&http)),
            Err(errors) => (State::Unknown, errors.to_string()),
        };
        // Print one line. Text after a `|` would be performance data.
        print(format_args!("AUDIOHOOK {}: {}", state.name(), text.replace('\n', ", ")))?;
        return Ok(ExitCode::from(state as u8));
    }
    let answer = ask_all(&http?)?;
    print(answer.body.trim_end())?;
    Ok(if answer.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A plugin's exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// The plugin's state and text for a response, with performance data.
fn plugin(answer: Result<Answer, Problem>) -> (State, String) {
    let plain = |text: &str| text.replace('|', "/");
    let answer = match answer {
        Ok(answer) => answer,
        Err(problem) => return (State::Critical, plain(&problem.to_string())),
    };
    let health: Json = serde_json::from_str(&answer.body).unwrap_or_default();
    let state = match health["status"].as_str() {
        Some("healthy") => State::Ok,
        Some("degraded") => State::Warning,
        Some("unhealthy") => State::Critical,
        _ => return (State::Unknown, "the response is not the /health of a collector; check HTTP_PORT".to_owned()),
    };
    let reasons = health["reasons"].as_array().map(Vec::as_slice).unwrap_or_default();
    let reasons = reasons.iter().map(|reason| {
        let text = |key: &str| reason[key].as_str().unwrap_or_default();
        format!("{}: {}", text("code"), text("message"))
    });
    let reasons: Vec<String> = reasons.collect();
    let what =
        if reasons.is_empty() { health["status"].as_str().unwrap_or_default().to_owned() } else { reasons.join("; ") };
    let stats = &health["stats"];
    let mut text = plain(&what);
    if let (Some(written), Some(errors)) = (stats["audiohook_events"].as_u64(), stats["errors"].as_u64()) {
        text.push_str(&format!(" | events={written}c errors={errors}c"));
    }
    if let Some(backlog) = health["elastic"]["backlog_bytes"].as_u64() {
        text.push_str(&format!(" backlog={backlog}B"));
    }
    (state, text)
}

/// The response of `/health` from the first address that responds.
fn ask_all(http: &Http) -> Result<Answer, Problem> {
    let mut failure = Problem::default();
    for url in urls(http, "/health") {
        match ask(&url, http) {
            Ok(answer) => return Ok(answer),
            Err(error) => {
                let cure = "Check that the collector is running, and that HTTP_HOST and HTTP_PORT have the collector's values.";
                failure = Problem::new(format!("no response from {url}: {error}"), cure);
            }
        }
    }
    Err(failure)
}

/// The body of a collector's response for this path, with any status; `None` if there is no response.
pub fn answer_at(http: &Http, path: &str) -> Option<String> {
    urls(http, path).into_iter().find_map(|url| ask(&url, http).ok()).map(|answer| answer.body)
}

struct Answer {
    ok: bool,
    body: String,
}

fn ask(url: &str, http: &Http) -> Result<Answer, ureq::Error> {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(TIME_MAX))
            .build(),
    );
    let mut request = agent.get(url);
    if let Some(token) = &http.token {
        request = request.header("Authorization", format!("Bearer {}", token.expose()));
    }
    let mut response = request.call()?;
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).lossy_utf8(true).read_to_string()?;
    Ok(Answer { ok: response.status() == 200, body })
}

/// The URLs to try for a collector with these settings, the most likely last. For all addresses, this is the loopback
/// address. `localhost` is not looked up, so that it works without a resolver.
fn urls(http: &Http, path: &str) -> Vec<String> {
    let hosts = match http.host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => vec!["127.0.0.1".to_owned()],
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => vec!["[::1]".to_owned()],
        Ok(IpAddr::V6(ip)) => vec![format!("[{ip}]")],
        _ if http.host.eq_ignore_ascii_case("localhost") => vec!["[::1]".to_owned(), "127.0.0.1".to_owned()],
        _ => vec![http.host.clone()],
    };
    hosts.into_iter().map(|host| format!("http://{host}:{}{path}", http.port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use crate::secret::Secret;

    #[test]
    fn a_collector_that_listens_everywhere_is_asked_on_the_loopback() {
        for (host, expected) in [
            ("0.0.0.0", "http://127.0.0.1:8077/health"),
            ("::", "http://[::1]:8077/health"),
            ("10.1.2.3", "http://10.1.2.3:8077/health"),
            ("fe80::1", "http://[fe80::1]:8077/health"),
            ("collector", "http://collector:8077/health"),
            ("localhost", "http://127.0.0.1:8077/health"),
        ] {
            let urls = urls(&Http { host: host.into(), port: 8077, token: None }, "/health");
            assert_eq!(urls.last().map(String::as_str), Some(expected));
        }
    }

    #[test]
    fn a_plugin_prints_one_line_with_its_state() {
        let run = |body: &str| plugin(Ok(Answer { ok: true, body: body.to_owned() }));
        let healthy = r#"{"status":"healthy","reasons":[],"stats":{"audiohook_events":7,"errors":1},"elastic":{"backlog_bytes":5}}"#;
        assert_eq!(run(healthy), (State::Ok, "healthy | events=7c errors=1c backlog=5B".to_owned()));
        let degraded = r#"{"status":"degraded","reasons":[{"code":"socket_down","message":"a|b"}]}"#;
        assert_eq!(run(degraded), (State::Warning, "socket_down: a/b".to_owned()));
        assert_eq!(run(r#"{"status":"unhealthy","timestamp":"t"}"#), (State::Critical, "unhealthy".to_owned()));
        assert_eq!(run("<html>").0, State::Unknown);
        assert_eq!(plugin(Err(Problem::new("no answer", ""))).0, State::Critical);
        let states = [State::Ok, State::Warning, State::Critical, State::Unknown];
        assert_eq!(states.map(|state| state as u8), [0, 1, 2, 3]);
    }

    #[test]
    fn the_token_is_sent_and_the_status_decides() {
        for (line, ok) in [("200 OK", true), ("503 Service Unavailable", false), ("302 Found\r\nLocation: /", false)] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("port");
            let port = listener.local_addr().expect("address").port();
            let server = crate::thread::spawn("server", move || {
                let (mut stream, _) = listener.accept().expect("connection");
                let mut request = [0; 2048];
                let read = stream.read(&mut request).expect("request");
                write!(stream, "HTTP/1.1 {line}\r\nContent-Length: 2\r\n\r\n{{}}").expect("answer");
                String::from_utf8_lossy(&request[..read]).into_owned()
            })
            .expect("thread");
            let http = Http { host: "127.0.0.1".into(), port, token: Some(Secret::new("t0k3n")) };
            let answer = ask(&urls(&http, "/health")[0], &http).expect("answer");
            assert_eq!((answer.ok, answer.body.as_str()), (ok, "{}"));
            let request = server.join().expect("server");
            assert!(request.to_ascii_lowercase().contains("authorization: bearer t0k3n"), "{request}");
        }
    }
}
