//! `audiohook-collector health`: asks the collector that runs here how it is.
//!
//! For containers, whose image has no curl. Must never: need more than the HTTP_* settings, go through a proxy, or wait
//! longer than a health check may.

use std::io::Write;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::Http;

/// The whole question and answer, at most.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Bytes of an answer that are printed, at most.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Prints the answer of `/health`. Status 0 for 200, else 1.
pub fn run(http: &Http) -> ExitCode {
    let mut failure = String::new();
    let answer = urls(http, "/health").into_iter().find_map(|url| match ask(&url, http) {
        Ok(answer) => Some(answer),
        Err(error) => {
            failure = format!("cannot ask {url}: {error}; is the collector running on this port?");
            None
        }
    });
    let Some(answer) = answer else {
        let _ = writeln!(std::io::stderr(), "audiohook-collector: {failure}");
        return ExitCode::FAILURE;
    };
    let _ = writeln!(std::io::stdout(), "{}", answer.body.trim_end());
    if answer.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The body of a collector's answer at this path, whatever its status; none when nobody answers.
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

/// Where a collector with these settings may answer, the likeliest last: one that listens everywhere is asked on the
/// loopback, and `localhost` is known even where nothing can look names up.
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
    fn one_that_listens_everywhere_is_asked_on_the_loopback() {
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
    fn the_token_is_sent_and_the_status_is_judged() {
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
