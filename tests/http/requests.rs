//! What each path answers, as a client meets it.

use std::io::{Read, Write};
use std::time::Duration;

use audiohook_collector::status::{Code, Problem};

use crate::stage::{Reply, Stage};

#[test]
fn every_path_answers_get_and_head_alike() {
    let stage = Stage::start(None);
    stage.status.recent.extend([&br#"{"id":"1"}"#[..]].into_iter());
    for path in
        ["/", "/health", "/events", "/livez", "/readyz", "/live", "/metrics", "/page.css", "/page.js", "/icon.svg"]
    {
        let get = stage.get(path);
        let head = stage.request(&format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        assert_eq!((get.status, head.status), (200, 200), "{path}");
        assert_eq!(get.header("content-length"), Some(get.body.len().to_string().as_str()), "{path}");
        assert!(head.body.is_empty(), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        // The numbers in a health or a metric may differ in length from one request to the next.
        if !matches!(path, "/health" | "/live" | "/metrics") {
            assert_eq!(head.header("content-length"), get.header("content-length"), "{path}");
        }
        assert_eq!(get.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(get.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
}

#[test]
fn the_health_says_what_is_wrong() {
    let stage = Stage::start(None);
    let healthy = stage.get("/health");
    assert_eq!((healthy.status, &healthy.json()["status"]), (200, &"healthy".into()));
    assert_eq!(healthy.json()["channel_id"], "…abcd");
    stage.status.raise(Code::SocketDown, Problem::new("the socket is down; events come by the history", "Fix it."));
    assert_eq!((stage.get("/health").status, &stage.get("/health").json()["status"]), (200, &"degraded".into()));
    stage.status.raise(Code::DiskWriteFailed, Problem::new("cannot write", "Fix it."));
    let unhealthy = stage.get("/health");
    assert_eq!((unhealthy.status, &unhealthy.json()["status"]), (503, &"unhealthy".into()));
    assert_eq!(unhealthy.json()["reasons"][0]["message"], "cannot write");
    assert_eq!(stage.get("/livez").status, 200);
}

#[test]
fn unknown_paths_and_other_methods_are_refused_in_json() {
    let stage = Stage::start(None);
    for (method, path, status) in
        [("GET", "/nope", 404), ("POST", "/nope", 404), ("POST", "/health", 405), ("BREW", "/", 405)]
    {
        let reply = stage.request(&format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
        ));
        assert_eq!(reply.status, status, "{method} {path}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert!(reply.json()["error"].is_string());
        assert_eq!(reply.header("allow"), (status == 405).then_some("GET, HEAD"));
    }
}

#[test]
fn what_is_no_request_gets_a_reason_and_the_server_goes_on() {
    let stage = Stage::start(None);
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(20_000));
    for (text, status) in [
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nbroken\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        ("GET /\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\n\r\n", 505),
        ("POST /health HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4000\r\n\r\n", 405),
        ("POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 405),
        ("POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 405),
        ("POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999\r\n\r\n", 413),
        (&long, 431),
    ] {
        let reply = stage.request(text);
        assert_eq!(reply.status, status, "{}", &text[..text.len().min(80)]);
        assert_eq!(reply.header("connection"), Some("close"));
    }
    assert_eq!(stage.get("/health").status, 200);
}

#[test]
fn a_connection_serves_one_request_and_says_so() {
    let stage = Stage::start(None);
    for text in [
        "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
        "GET /livez HTTP/1.0\r\n\r\n",
        "GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "GET http://host:8077/livez HTTP/1.1\r\nHost: host\r\n\r\n",
    ] {
        let reply = stage.request(text);
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")), "{text}");
        assert_eq!(reply.json()["status"], "alive");
    }
    // Byte by byte.
    let mut stream = stage.connect();
    for piece in "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n".split_inclusive(|_| true) {
        stream.write_all(piece.as_bytes()).unwrap();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(Reply::parse(&answer).json()["status"], "ready");
}

#[test]
fn long_answers_are_compressed_for_clients_that_accept_it() {
    let stage = Stage::start(None);
    let line = format!(r#"{{"raw_event":"{}"}}"#, "x".repeat(5000));
    stage.status.recent.extend(std::iter::repeat_n(line.as_bytes(), 100));
    let ask = |path: &str, accepted: &str| {
        stage.request(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {accepted}\r\n\r\n"))
    };
    for path in ["/", "/page.js", "/metrics", "/events?limit=100"] {
        let plain = ask(path, "identity");
        assert_eq!(plain.header("content-encoding"), None, "{path}");
        for accepted in ["gzip", "deflate, GZIP;q=0.5, br", "*"] {
            let reply = ask(path, accepted);
            assert_eq!(reply.header("content-encoding"), Some("gzip"), "{path} {accepted}");
            assert!(reply.body.len() * 2 < plain.body.len(), "{path}");
            let mut inflated = Vec::new();
            flate2::read::GzDecoder::new(reply.body.as_slice()).read_to_end(&mut inflated).unwrap();
            assert!(path == "/metrics" || inflated == plain.body, "{path}");
        }
    }
    for (path, accepted) in [("/livez", "gzip"), ("/events", "gzip;q=0"), ("/events", "br")] {
        assert_eq!(ask(path, accepted).header("content-encoding"), None, "{path} {accepted}");
    }
}

#[test]
fn a_client_that_closes_its_half_gets_its_answer() {
    let stage = Stage::start(None);
    let mut stream = stage.connect();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(Reply::parse(&answer).status, 200);
}

#[test]
fn events_come_from_memory_with_filters_and_limits() {
    let stage = Stage::start(None);
    let lines: Vec<String> = (0..1500)
        .map(|n| {
            format!(
                r#"{{"event_id":"AUDIOHOOK-{:04}","conversation_id":"c {}","entity_id":null,"n":{n}}}"#,
                n % 7,
                n % 10
            )
        })
        .collect();
    stage.status.recent.extend(lines.iter().map(String::as_bytes));
    let count = |target: &str| stage.get(target).json()["recent_events"].as_array().unwrap().len();
    assert_eq!(count("/events"), 50);
    assert_eq!(count("/events?limit=1000"), 1000);
    assert_eq!(count("/events?limit=5000"), 1000);
    assert_eq!(count("/events?limit=7&conversation_id=c%203"), 7);
    assert_eq!(count("/events?limit=1000&conversation_id=c+3&event_id=AUDIOHOOK-0006"), 15);
    assert_eq!(count("/events?entity_id=none"), 0);
    let events = stage.get("/events?limit=3").json();
    let numbers: Vec<u64> =
        events["recent_events"].as_array().unwrap().iter().map(|event| event["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1497, 1498, 1499]);
    let error = stage.get("/events?limit=x").json()["error"].clone();
    assert_eq!(error, "limit is not a whole number; at most 1000 records are returned");
    for bad in ["limit=x", "limit=-1", "event_id=%ff"] {
        let reply = stage.get(&format!("/events?{bad}"));
        assert!(reply.status == 400 && reply.json()["error"].is_string(), "{bad}");
    }
}

#[test]
fn data_needs_the_token() {
    let stage = Stage::start(Some("open-sesame"));
    stage.status.recent.extend([&br#"{"secret":"data"}"#[..]].into_iter());
    let with = |path: &str, value: &str| {
        stage.request(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {value}\r\n\r\n"))
    };
    for path in ["/events", "/live", "/metrics"] {
        for reply in [stage.get(path), with(path, "Bearer open-sesam"), with(path, "Basic open-sesame")] {
            assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")), "{path}");
            assert!(!String::from_utf8_lossy(&reply.body).contains("data"));
        }
        assert_eq!(with(path, "Bearer open-sesame").status, 200, "{path}");
    }
    let short = stage.get("/health").json();
    assert_eq!(short.as_object().unwrap().len(), 2, "{short}");
    assert!(with("/health", "Bearer open-sesame").json()["stats"].is_object());
    for path in ["/livez", "/readyz", "/"] {
        assert_eq!(stage.get(path).status, 200, "{path}");
    }
}

#[test]
fn the_stage_stops_at_once_whoever_is_connected() {
    let stage = Stage::start(None);
    let _silent: Vec<_> = (0..20).map(|_| stage.connect()).collect();
    assert_eq!(stage.get("/livez").status, 200);
    assert!(stage.stop() < Duration::from_secs(1));
}
