//! Tokens, permissions and rates.

use std::time::{Duration, Instant};

use audiohook_collector::simulator::{Action, Call, Event, Options, Route, Simulator, http_date};
use serde_json::{Value, json};

use crate::support::collector::credentials;
use crate::support::{Authority, Client, Folder, SOON, Socket};
use crate::{CHANNELS, QUERY, TOPIC, hour_up_to, simulator};

#[test]
fn only_who_proves_to_be_a_client_gets_a_token() {
    let sim = simulator(|knobs| knobs.token_life = Duration::from_secs(60));
    let client = Client::new(&sim);
    let (id, secret) = credentials();
    let good = client.login(&id, &secret, "grant_type=client_credentials").unwrap();
    assert_eq!((good.status, &good.json["token_type"], &good.json["expires_in"]), (200, &json!("bearer"), &json!(60)));
    for (id, secret, form, status, error) in [
        (id.as_str(), "wrong", "grant_type=client_credentials", 401, "invalid_client"),
        ("nobody", &secret, "grant_type=client_credentials", 400, "invalid_client"),
        (&id, &secret, "grant_type=password", 400, "unsupported_grant_type"),
    ] {
        let refused = client.login(id, secret, form).unwrap();
        assert_eq!((refused.status, refused.json["error"].as_str()), (status, Some(error)));
        assert!(refused.json["error_description"].is_string());
    }
}

#[test]
fn a_call_without_a_living_token_is_refused_with_the_services_body() {
    let sim = simulator(|_| {});
    let mut client = Client::new(&sim);
    let code = |client: &Client| {
        let answer = client.call("GET", "/api/v2/usage/events/definitions", "");
        assert_eq!(answer.status, 401);
        for field in ["message", "code", "status", "contextId", "details", "errors"] {
            assert!(answer.json.get(field).is_some(), "{field}");
        }
        assert_eq!(answer.header("ININ-Correlation-Id"), answer.json["contextId"].as_str().unwrap());
        answer.json["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code(&client), "authentication.required");
    client.token = "unknown".to_owned();
    assert_eq!(code(&client), "bad.credentials");
    let client = Client::logged_in(&sim);
    sim.faults().expire_tokens();
    assert_eq!(code(&client), "credentials.expired");
    let client = Client::logged_in(&sim);
    sim.faults().revoke_tokens();
    assert_eq!(code(&client), "bad.credentials");
}

#[test]
fn unknown_paths_and_methods_are_told_apart() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    assert_eq!(client.call("GET", "/api/v2/nothing", "").status, 404);
    let answer = client.call("GET", QUERY, "");
    assert_eq!((answer.status, answer.header("Allow")), (405, "POST"));
    assert_eq!(client.call("PATCH", CHANNELS, "{}").status, 405);
}

#[test]
fn over_300_requests_a_minute_a_client_is_told_how_long_to_wait() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    for _ in 0..300 {
        assert_eq!(client.call("GET", CHANNELS, "").status, 200);
    }
    let answer = client.call("GET", CHANNELS, "");
    let wait: u64 = answer.header("Retry-After").parse().unwrap();
    assert_eq!(answer.status, 429);
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(sim.view(|view| view.most_in_a_minute(Call::Channels)), 301);
    sim.faults().set(|knobs| knobs.requests_per_minute = None);
    assert_eq!(client.call("GET", CHANNELS, "").status, 200);
}

#[test]
fn a_call_goes_wrong_as_often_as_told() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    let faults = sim.faults();
    let get = || client.try_call("GET", CHANNELS, "");
    faults.fail_next(Call::Channels, Action::Status { status: 429, retry_after_s: Some(7) }, 1);
    let answer = get().unwrap();
    assert_eq!((answer.status, answer.header("Retry-After")), (429, "7"));
    faults.fail_next(Call::Channels, Action::Nonsense, 1);
    assert!(get().unwrap().text.contains("<html>"));
    for action in [Action::Half, Action::Reset] {
        faults.fail_next(Call::Channels, action, 1);
        assert!(get().is_err());
    }
    faults.fail_next(Call::Channels, Action::Slow(Duration::from_millis(200)), 1);
    let start = Instant::now();
    assert_eq!(get().unwrap().status, 200);
    assert!(start.elapsed() >= Duration::from_millis(200));
    faults.fail(Call::History, Action::status(403));
    let refused = client.history(QUERY, &hour_up_to(sim.now()));
    assert!(refused.json["message"].as_str().unwrap().contains("usage:events:view"));
    faults.fail(Call::Handshake, Action::status(503));
    assert_eq!(Socket::open(&client.channel().1).err(), Some(503));
    faults.fail_all(&Action::status(502));
    assert_eq!(client.call("GET", "/anything", "").status, 502);
    faults.heal_all();
    assert!(Socket::open(&client.channel().1).is_ok());
}

#[test]
fn an_answer_may_be_whatever_a_test_makes_of_the_right_one() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    let faults = sim.faults();
    let list = || client.call("GET", CHANNELS, "");
    faults.fail_next(Call::Channels, Action::change_json(|_, list| list["more"] = json!(1)), 1);
    assert_eq!((&list().json["more"], &list().json["more"]), (&json!(1), &Value::Null));
    let dated = Action::change(|_, answer| answer.headers.push(("Date", http_date(0))));
    faults.fail_next(Call::Channels, dated, 1);
    assert_eq!(list().headers.get_all("Date").iter().collect::<Vec<_>>(), ["Thu, 01 Jan 1970 00:00:00 GMT"]);
    // Another request than the one that came.
    let made = Action::custom(|request, service| {
        let mut request = request.clone();
        "POST".clone_into(&mut request.method);
        service(&request)
    });
    faults.fail_next(Call::Channels, made, 1);
    assert!(list().json["connectUri"].is_string());
    assert_eq!(sim.view(|view| view.channels_made()), 1);
    faults.fail_next(Call::Handshake, Action::Preceded(b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec()), 1);
    assert_eq!(Socket::open(&client.channel().1).err(), Some(103));
}

#[test]
fn a_hanging_call_ends_when_it_is_healed() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    sim.faults().fail(Call::Channels, Action::Hang);
    let faults = sim.faults();
    let waiting = audiohook_collector::thread::spawn("asks", move || client.try_call("GET", CHANNELS, "").is_err());
    assert!(sim.wait_until(SOON, |view| view.count(Call::Channels) == 1));
    faults.heal(Call::Channels);
    assert!(waiting.unwrap().join().unwrap(), "it ends without an answer");
}

#[test]
fn over_tls_everything_is_on_the_same_port() {
    let folder = Folder::new("sim-tls");
    let authority = Authority::new();
    let identity = authority.identity(&["localhost", "127.0.0.1"]);
    let options = Options { tls: Some(identity), host: Some("localhost".to_owned()), ..Options::default() };
    let sim = Simulator::start(options).unwrap();
    assert!(sim.url().starts_with("https://localhost:"));
    assert!(authority.write(&folder, "ca.pem").exists());
    let ca = native_tls::Certificate::from_pem(&authority.certificate_pem()).unwrap();
    let connector = native_tls::TlsConnector::builder().add_root_certificate(ca).build().unwrap();
    let connect = || {
        let tcp = std::net::TcpStream::connect_timeout(&sim.address(), SOON).unwrap();
        tcp.set_read_timeout(Some(SOON)).unwrap();
        connector.connect("localhost", tcp).unwrap()
    };
    let ask = |head: String, body: &str| {
        use std::io::{Read, Write};
        let mut tls = connect();
        let request =
            format!("{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        tls.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        tls.read_to_string(&mut text).unwrap();
        let body = text.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str::<Value>(body).unwrap()
    };
    let (id, secret) = credentials();
    let basic = data_encoding::BASE64.encode(format!("{id}:{secret}").as_bytes());
    let login = format!("POST /oauth/token HTTP/1.1\r\nAuthorization: Basic {basic}");
    let token = ask(login, "grant_type=client_credentials")["access_token"].as_str().unwrap().to_owned();
    let bearer = format!("Authorization: Bearer {token}");
    let channel = ask(format!("POST {CHANNELS} HTTP/1.1\r\n{bearer}"), "");
    let uri = channel["connectUri"].as_str().unwrap();
    assert!(uri.starts_with("wss://localhost/"), "{uri}");
    let path = format!("{CHANNELS}/{}/subscriptions", channel["id"].as_str().unwrap());
    ask(format!("PUT {path} HTTP/1.1\r\n{bearer}"), &json!([{"id": TOPIC}]).to_string());
    let (mut socket, _) = tungstenite::client(uri, connect()).unwrap();
    let times: Vec<i64> = (0..2000).map(|n| sim.now() + n).collect();
    sim.issue_many(Event::numbered("AUDIOHOOK-0001"), &times, Route::Both);
    for number in 1..=2000 {
        let text = socket.read().unwrap().into_text().unwrap();
        assert!(text.contains(&format!("\"event {number:012}\"")), "{text}");
    }
}
