//! No secret stands in any log line, page, record, error or other file, at the level that says most.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::collector::{binary, credentials, settings};
use crate::support::{Collector, Folder, SOON, let_pass, poll};
use audiohook_collector::simulator::{Action, Call, Event, Knobs, Options, Simulator};
use serde_json::Value;

const HTTP_TOKEN: &str = "SECRET-http-token-4711";
const PROXY_PASSWORD: &str = "SECRET-proxy-password";

#[test]
fn nothing_secret_stands_anywhere_but_in_the_state_whatever_goes_wrong() {
    let knobs = Knobs { requests_per_minute: None, token_life: Duration::from_secs(4), ..Knobs::default() };
    let sim = Simulator::start(Options { knobs, ..Options::default() }).unwrap();
    let folder = Folder::new("secrets");
    let proxy = format!("http://user:{PROXY_PASSWORD}@127.0.0.1:9");
    let changed = [
        ("HTTP_TOKEN", HTTP_TOKEN),
        ("LOG_LEVEL", "trace"),
        ("HTTPS_PROXY", proxy.as_str()),
        ("NO_PROXY", "127.0.0.1"),
        ("GENESYS_DELIVERY", "auto"),
    ];
    let mut collector = Collector::start(&sim, &folder, &changed);
    assert!(sim.wait_until(SOON, |view| view.sockets_open() == 1), "{}", collector.log_text());
    let mut channels = sim.view(|view| view.channels());
    let faults = sim.faults();
    let known: Vec<String> = channels.clone();
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    // Whatever may put an address, a channel or a token into a sentence.
    let troubles: [&dyn Fn(); 14] = [
        &|| faults.close_sockets(1000, &format!("gone: {}", known[0])),
        &|| faults.send_text(&format!("{{\"error\":\"no channel {}\"}}", known[0])),
        &|| faults.announce_closing(),
        &|| faults.send_text(&format!("{{\"result\":\"404\",\"message\":\"{}\"}}", known[0])),
        &|| faults.announce_token_revoked(),
        &|| faults.evict_channels(),
        &|| faults.drop_channels(),
        &|| faults.revoke_tokens(),
        &|| faults.close_sockets(1001, "idle timeout"),
        &|| faults.take_over_channels(),
        &|| faults.fail_next(Call::Channel, Action::status(404), 2),
        &|| faults.fail_next(Call::Subscriptions, Action::Nonsense, 1),
        &|| faults.fail_next(Call::Token, Action::Body("{\"access_token\": 5}".into()), 1),
        &|| faults.fail_next(Call::Channels, Action::Body("{\"id\":\"SECRET-channel\",\"connectUri\":7}".into()), 1),
    ];
    for trouble in troubles {
        trouble();
        faults.cut_sockets();
        let_pass(Duration::from_millis(350));
        channels.extend(sim.view(|view| view.channels()));
    }
    faults.fail_next(Call::Handshake, Action::Reset, 1);
    faults.fail_next(Call::Handshake, Action::status(500), 1);
    faults.cut_sockets();
    assert!(sim.wait_until(SOON * 2, |view| view.sockets_open() == 1), "{}", collector.log_text());
    channels.extend(sim.view(|view| view.channels()));
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    collector.wait_lines(2, SOON);
    let mut pages = String::new();
    for path in ["/", "/health", "/events", "/livez", "/readyz", "/metrics", "/nothing"] {
        pages.push_str(&collector.get(path).unwrap().1);
        pages.push_str(&with_token(&collector, path));
    }
    assert!(pages.contains("channel_id") && pages.contains('…'), "{pages:.2000}");
    assert!(collector.term().success());
    let state = std::fs::read_to_string(folder.join("events.jsonl.state")).unwrap();
    let state: Value = serde_json::from_str(state.lines().next().unwrap()).unwrap();
    let connect_uri = state["channel"]["connect_uri"].as_str().unwrap_or_default().to_owned();
    assert!(connect_uri.contains("/channels/"), "{state}");
    let mut files = String::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "state") {
            files.push_str(&String::from_utf8_lossy(&std::fs::read(&path).unwrap()));
        }
    }
    let (_, secret) = credentials();
    channels.sort();
    channels.dedup();
    let secrets: Vec<&str> = [
        secret.as_str(),
        HTTP_TOKEN,
        PROXY_PASSWORD,
        "SECRET",
        connect_uri.as_str(),
        "/channels/",
        "Bearer ",
        "access_token",
    ]
    .into_iter()
    .chain(channels.iter().map(String::as_str))
    .collect();
    let log = collector.log_lines().join("\n");
    for (place, text) in [("log", &log), ("file", &files), ("page", &pages)] {
        for secret in &secrets {
            // The page asks for the token by its header's name, and says where the socket is.
            if place == "page" && matches!(*secret, "Bearer " | "/channels/") {
                continue;
            }
            // The frame that named a channel was the service's own word on it, and control frames are not kept.
            let at = text.find(secret);
            assert!(at.is_none(), "{place} holds {secret}: {:.400}", &text[floor(text, at.unwrap_or(0))..]);
        }
    }
    assert!(log.contains("\"level\":\"DEBUG\""));
}

/// Where to begin to show what stands before this place.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.saturating_sub(200)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn with_token(collector: &Collector, path: &str) -> String {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder().http_status_as_error(false).proxy(None).timeout_global(Some(SOON)).build(),
    );
    let url = format!("http://127.0.0.1:{}{path}", collector.port());
    let mut answer = agent.get(&url).header("Authorization", format!("Bearer {HTTP_TOKEN}")).call().unwrap();
    answer.body_mut().read_to_string().unwrap()
}

#[test]
fn a_channel_that_the_reason_for_a_rejection_names_is_masked() {
    let sim = Simulator::start(Options::default()).unwrap();
    let folder = Folder::new("secret-reason");
    sim.faults().reject_topics("v2.operations.events.AUDIOHOOK-0001", "not for you", &[]);
    let collector = Collector::start(&sim, &folder, &[("LOG_LEVEL", "trace")]);
    collector.wait_reason("subscription_rejected", true, SOON);
    let channel = sim.view(|view| view.channels()).remove(0);
    sim.faults().permit_topics();
    sim.faults().reject_topics(
        "v2.operations.events.AUDIOHOOK-0001",
        &format!("not on channel {channel}"),
        &[&format!("view:{channel}")],
    );
    let told = collector.wait_log("not on channel …", SOON);
    assert!(told.contains("view:…"), "{told}");
    let health = collector.get("/health").unwrap().1;
    assert!(health.contains("not on channel …"), "{health}");
    assert!(!health.contains(&channel) && !collector.log_text().contains(&channel), "{health}");
}

#[test]
fn what_is_printed_by_commands_is_without_secrets_too() {
    let knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    let sim = Simulator::start(Options { knobs, ..Options::default() }).unwrap();
    let folder = Folder::new("commands");
    let mut all = settings(&sim, &folder);
    all.insert("HTTP_TOKEN".into(), HTTP_TOKEN.into());
    all.insert("LOG_LEVEL".into(), "trace".into());
    let collector = Collector::start_with(folder.path(), &all);
    assert!(sim.wait_until(SOON, |view| view.sockets_open() == 1));
    assert!(poll(SOON, || collector.get("/livez")).is_some());
    let mut said = String::new();
    for arguments in [&["health"][..], &["audit"], &["audit", "--json"], &["check"], &["check", "--json"]] {
        let output = binary(folder.path(), arguments, &all).output().unwrap();
        said.push_str(&String::from_utf8_lossy(&output.stdout));
        said.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    let mut secrets = vec![credentials().1, HTTP_TOKEN.to_owned()];
    secrets.extend(sim.view(|view| view.channels()));
    for secret in secrets {
        assert!(!said.contains(&secret), "{secret}: {said}");
    }
}

/// What a hostile or careless peer repeats of a request's `Authorization`: as it came, decoded, and percent-encoded.
fn repeated(authorization: &str) -> String {
    let token = authorization.split_once(' ').map_or(authorization, |(_, token)| token);
    let decoded = data_encoding::BASE64.decode(token.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let plain = decoded.unwrap_or_else(|| token.to_owned());
    let percent: String = plain.bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("{authorization} {plain} {percent}")
}

/// A server that repeats the `Authorization` header in every field of every answer, of an API and of a cluster.
///
/// In some, so many characters stand before it that a text that is cut to its length could end in half a secret.
fn echo(status: u16, seen: Arc<Mutex<Vec<String>>>) -> String {
    use std::io::{BufRead, BufReader, Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = move |stream: std::net::TcpStream, seen: &Mutex<Vec<String>>| -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let (mut authorization, mut length, mut path) = (String::new(), 0, String::new());
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                let line = line.trim_end();
                if line.is_empty() {
                    break;
                }
                match line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value)) {
                    Some((name, value)) if name == "authorization" => authorization = value.to_owned(),
                    Some((name, value)) if name == "content-length" => length = value.parse().unwrap(),
                    Some(_) => {}
                    None => path = line.split(' ').nth(1).unwrap_or_default().to_owned(),
                }
            }
            reader.read_exact(&mut vec![0; length])?;
            let said = repeated(&authorization);
            let padded = |length: usize| format!("{} {said}", "x".repeat(length));
            seen.lock().unwrap().push(authorization.clone());
            let error =
                serde_json::json!({"type": said, "reason": padded(585), "caused_by": {"type": said, "reason": said}});
            let is_api = path.starts_with("/api/") || path.starts_with("/oauth/");
            let mut body = serde_json::json!({"message": padded(285), "code": said, "description": said,
                "error_description": padded(285), "messageWithParams": said, "status": status});
            body["error"] = if is_api { said.clone().into() } else { error };
            let body = body.to_string();
            write!(
                &stream,
                "HTTP/1.1 {status} No\r\nContent-Type: application/json\r\nININ-Correlation-Id: {authorization}\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
        }
    };
    audiohook_collector::thread::spawn("echo", move || {
        for stream in listener.incoming().flatten() {
            let seen = seen.clone();
            let _ = audiohook_collector::thread::spawn("echo-connection", move || drop(serve(stream, &seen)));
        }
    })
    .unwrap();
    url
}

#[test]
fn what_an_api_or_a_cluster_repeats_of_the_authorization_is_masked() {
    const PASSWORD: &str = "p/ss-SECRET+wörd 4711";
    let cluster_auth = format!("elastic:{PASSWORD}");
    let knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    let sim = Simulator::start(Options { knobs, ..Options::default() }).unwrap();
    for status in [400, 401, 403, 500] {
        let folder = Folder::new("secret-echo");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let server = echo(status, seen.clone());
        let mut all = settings(&sim, &folder);
        all.insert("ELASTIC_URL".into(), server.clone());
        all.insert("ELASTIC_AUTH".into(), cluster_auth.clone());
        all.insert("LOG_LEVEL".into(), "debug".into());
        let (login, secret) = (all["GENESYS_LOGIN_URL"].clone(), all["GENESYS_CLIENT_SECRET"].clone());
        let mut said = String::new();
        // The login repeats the client's secret; then the API repeats the token.
        for (login, api) in [(&server, &server), (&login, &server)] {
            all.insert("GENESYS_LOGIN_URL".into(), login.clone());
            all.insert("GENESYS_API_URL".into(), api.clone());
            let collector = Collector::start_with(folder.path(), &all);
            // Where the cluster is asked again and again, it says the most within seconds.
            let _ =
                poll(SOON, || collector.reasons().filter(|codes| codes.iter().any(|code| code.starts_with("elastic"))));
            said.push_str(&collector.get("/health").unwrap().1);
            said.push_str(&collector.log_lines().join("\n"));
            let output = binary(folder.path(), &["check"], &all).output().unwrap();
            said.push_str(&String::from_utf8_lossy(&output.stdout));
            said.push_str(&String::from_utf8_lossy(&output.stderr));
        }
        assert!(said.contains(&status.to_string()), "{said}");
        let seen = seen.lock().unwrap().clone();
        assert!(seen.iter().any(|one| one.starts_with("Bearer ")) && seen.iter().any(|one| one.starts_with("Basic ")));
        let tokens: Vec<String> =
            seen.iter().filter_map(|one| one.strip_prefix("Bearer ")).map(str::to_owned).collect();
        let basic = |pair: &str| data_encoding::BASE64.encode(pair.as_bytes());
        let percent = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
        let client = format!("{}:{secret}", all["GENESYS_CLIENT_ID"]);
        let mut secrets = vec![PASSWORD.to_owned(), secret.clone(), basic(&cluster_auth), basic(&client)];
        secrets.extend([percent(PASSWORD), percent(&secret)]);
        secrets.extend(tokens);
        // A header's beginning, where the text was cut.
        secrets.extend(seen.iter().filter_map(|one| one.split_at_checked(12)).map(|(begin, _)| begin.to_owned()));
        for secret in secrets {
            let at = said.find(&secret);
            assert!(at.is_none(), "{status}: {secret} in {:.400}", &said[floor(&said, at.unwrap_or(0))..]);
        }
    }
}
