//! The one way out: proxies, silent addresses, IPv6, TLS and its trust, for the socket's stream and for REST alike; part
//! by part, and through the installed binary.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::fake::Fake;
use crate::support::collector::settings;
use crate::support::{Authority, Collector, Folder, SOON, assert_same_set, poll};
use audiohook_collector::config::Network;
use audiohook_collector::net::{Dialer, Limits, Target, agent};
use audiohook_collector::secret::Secret;
use audiohook_collector::simulator::{Event, Options, Simulator};
use audiohook_collector::thread;

const LIMITS: Limits =
    Limits { connect: Duration::from_secs(5), read: Duration::from_secs(5), total: Duration::from_secs(8) };

/// Answers each request on each connection with its path, over TLS or not.
fn serve(address: &str, identity: Option<native_tls::Identity>) -> u16 {
    let listener = TcpListener::bind(address).unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = identity.map(|identity| native_tls::TlsAcceptor::new(identity).unwrap());
    let work = move || {
        for tcp in listener.incoming() {
            let Ok(tcp) = tcp else { return };
            let acceptor = acceptor.clone();
            let answer = move || match acceptor {
                None => answer(tcp),
                Some(acceptor) => {
                    if let Ok(tls) = acceptor.accept(tcp) {
                        answer(tls);
                    }
                }
            };
            thread::spawn("peer", answer).unwrap();
        }
    };
    thread::spawn("peers", work).unwrap();
    port
}

fn answer(stream: impl Read + Write) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        let mut line = String::new();
        while stream.read_line(&mut line).is_ok_and(|count| count > 2) {
            line.clear();
        }
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let head =
            if path == "/moved" { "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n" } else { "HTTP/1.1 200 OK\r\n" };
        let text = format!("{head}Content-Length: {}\r\n\r\n{path}", path.len());
        if stream.get_mut().write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

fn trusting(file: PathBuf) -> Network {
    Network { ssl_cert_file: Some(file), ..Network::default() }
}

fn dialer(network: &Network) -> Arc<Dialer> {
    Arc::new(Dialer::new(network).unwrap())
}

fn get(network: &Network, url: &str) -> Result<String, String> {
    let mut answer = agent(dialer(network), LIMITS).get(url).call().map_err(|error| error.to_string())?;
    answer.body_mut().read_to_string().map_err(|error| error.to_string())
}

#[test]
fn rest_goes_plain_and_over_tls_to_ipv4_and_ipv6() {
    let folder = Folder::new("network");
    let authority = Authority::new();
    let network = trusting(authority.write(&folder, "ca.pem"));
    let v4 = serve("127.0.0.1:0", None);
    let v6 = serve("[::1]:0", Some(authority.identity(&["::1"])));
    assert_eq!(get(&network, &format!("http://127.0.0.1:{v4}/a")).unwrap(), "/a");
    assert_eq!(get(&network, &format!("https://[::1]:{v6}/b")).unwrap(), "/b");
    assert_eq!(get(&network, &format!("http://localhost:{v4}/c")).unwrap(), "/c");
}

#[test]
fn a_connection_is_used_again_and_a_redirect_is_not_followed() {
    let port = serve("127.0.0.1:0", None);
    let agent = agent(dialer(&Network::default()), LIMITS);
    for path in ["/one", "/two", "/moved"] {
        let mut answer = agent.get(format!("http://127.0.0.1:{port}{path}")).call().unwrap();
        assert_eq!(answer.status().as_u16(), if path == "/moved" { 302 } else { 200 });
        assert_eq!(answer.body_mut().read_to_string().unwrap(), path);
    }
}

#[test]
fn https_goes_through_the_proxy_with_its_password_and_no_proxy_goes_by() {
    let folder = Folder::new("network");
    let authority = Authority::new();
    let port = serve("127.0.0.1:0", Some(authority.identity(&["127.0.0.1"])));
    // user:p@ss
    let (proxy_port, heads) = crate::support::proxy::start("dXNlcjpwQHNz");
    let mut network = trusting(authority.write(&folder, "ca.pem"));
    network.https_proxy = Some(Secret::new(format!("http://user:p%40ss@127.0.0.1:{proxy_port}")));
    let url = format!("https://127.0.0.1:{port}/through");
    assert_eq!(get(&network, &url).unwrap(), "/through");
    assert!(heads.lock().unwrap()[0].starts_with(&format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n")));
    let target = Target::parse(&format!("wss://127.0.0.1:{port}/x")).unwrap();
    assert!(dialer(&network).dial(&target, SOON).is_ok());
    assert_eq!(heads.lock().unwrap().len(), 2);

    network.no_proxy = vec!["127.0.0.0/8".to_owned()];
    assert_eq!(get(&network, &url).unwrap(), "/through");
    assert_eq!(heads.lock().unwrap().len(), 2);

    network.no_proxy.clear();
    network.https_proxy = Some(Secret::new(format!("http://user:wrong-password@127.0.0.1:{proxy_port}")));
    let error = dialer(&network).dial(&target, SOON).unwrap_err();
    assert!(error.what.ends_with("it refused CONNECT with 407") && error.cure.contains("HTTPS_PROXY"), "{error}");
    assert!(!error.to_string().contains("wrong-password"), "{error}");
    assert!(get(&network, &url).unwrap_err().contains("407"));
}

#[test]
fn a_peer_is_trusted_only_with_the_right_ca_name_and_time() {
    let folder = Folder::new("network");
    let (authority, stranger) = (Authority::new(), Authority::new());
    let trusted = trusting(authority.write(&folder, "ca.pem"));
    let refused = |network: &Network, identity, expected: &str| {
        let port = serve("127.0.0.1:0", Some(identity));
        let target = Target::parse(&format!("wss://127.0.0.1:{port}")).unwrap();
        let error = dialer(network).dial(&target, SOON).unwrap_err();
        assert!(error.what.starts_with("certificate of 127.0.0.1 is not trusted: "), "{error}");
        assert!(error.cure.contains(expected), "{error}");
        let error = get(network, &format!("https://127.0.0.1:{port}/")).unwrap_err();
        assert!(error.contains("is not trusted"), "{error}");
    };
    refused(&trusted, stranger.identity(&["127.0.0.1"]), "SSL_CERT_FILE");
    refused(&trusted, authority.identity(&["another.example"]), "another name");
    refused(&trusted, authority.expired_identity(&["127.0.0.1"]), "clock");
    let port = serve("127.0.0.1:0", Some(authority.identity(&["127.0.0.1"])));
    let target = Target::parse(&format!("wss://127.0.0.1:{port}")).unwrap();
    assert!(dialer(&trusted).dial(&target, SOON).is_ok());
    let cluster = Dialer::for_cluster(&Network::default(), Some(&folder.join("ca.pem"))).unwrap();
    assert!(cluster.dial(&target, SOON).is_ok());
}

#[test]
fn a_peer_that_speaks_no_tls_or_nothing_is_told_within_the_limit() {
    let folder = Folder::new("network");
    let network = trusting(Authority::new().write(&folder, "ca.pem"));
    let plain = serve("127.0.0.1:0", None);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for port in [plain, silent.local_addr().unwrap().port()] {
        let target = Target::parse(&format!("https://127.0.0.1:{port}")).unwrap();
        let began = Instant::now();
        let error = dialer(&network).dial(&target, Duration::from_secs(1)).unwrap_err();
        assert!(error.what.starts_with("cannot set up TLS with 127.0.0.1: "), "{error}");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}

#[test]
fn an_answer_that_hangs_ends_within_the_limits() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let limits = Limits { read: Duration::from_secs(1), ..LIMITS };
    let began = Instant::now();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let error = agent(dialer(&Network::default()), limits).get(url).call().unwrap_err();
    assert!(matches!(error, ureq::Error::Timeout(_)), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3));
}

/// What `make install` puts below this folder, as a command without any environment.
fn installed(folder: &Folder) -> PathBuf {
    let output = Command::new("make")
        .args(["--no-print-directory", "install"])
        .arg(format!("DESTDIR={}", folder.join("root").display()))
        .arg(format!("BIN={}", env!("CARGO_BIN_EXE_audiohook-collector")))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder.join("root/usr/local/bin/audiohook-collector")
}

/// A service behind TLS that is reached under these names.
fn service(authority: &Authority, listen: &str, host: &str) -> Simulator {
    let tls = Some(authority.identity(&[host.trim_matches(['[', ']'])]));
    Simulator::start(Options { listen: listen.to_owned(), host: Some(host.to_owned()), tls, ..Options::default() })
        .unwrap()
}

#[test]
fn the_installed_binary_reaches_login_api_socket_and_cluster_over_ipv6_and_tls_through_a_proxy_with_a_password() {
    let folder = Folder::new("installed");
    let authority = Authority::new();
    let sim = service(&authority, "[::1]:0", "[::1]");
    let fake = Fake::with_tls(authority.identity(&["127.0.0.1"]));
    // user:p@ss
    let (proxy_port, heads) = crate::support::proxy::start("dXNlcjpwQHNz");
    let mut all = settings(&sim, &folder);
    for (name, value) in [
        ("SSL_CERT_FILE", authority.write(&folder, "ca.pem").display().to_string()),
        ("HTTPS_PROXY", format!("http://user:p%40ss@127.0.0.1:{proxy_port}")),
        ("ELASTIC_URL", fake.url.clone()),
    ] {
        all.insert(name.to_owned(), value);
    }
    let mut command = Command::new(installed(&folder));
    command.current_dir(folder.path()).env_clear().envs(&all).stdin(Stdio::null());
    let collector = Collector::run_command(command, folder.path(), &all);
    collector.wait_healthy();
    for _ in 0..20 {
        sim.issue(Event::numbered("AUDIOHOOK-0002"));
    }
    let found = collector.wait_lines(20, SOON);
    assert_same_set(&sim.issued(), &found);
    assert!(found.iter().any(|record| record.text("source") == Some("websocket")));
    assert!(poll(SOON, || (fake.documents() == 20).then_some(())).is_some(), "{}", collector.log_text());
    let places: Vec<String> = heads.lock().unwrap().iter().map(|head| head.split(' ').take(2).collect()).collect();
    let service = sim.url().replace("https://", "CONNECT");
    let cluster = fake.url.replace("https://", "CONNECT");
    assert!(places.iter().all(|place| *place == service || *place == cluster), "{places:?}");
    // A connection for REST and one for the socket at least.
    assert!(places.iter().filter(|place| **place == service).count() >= 2 && places.contains(&cluster), "{places:?}");
    let log = collector.log_lines().join("\n");
    assert!(!log.contains("p%40ss") && !log.contains("p@ss"));
}

#[test]
fn the_installed_binary_takes_the_next_address_of_a_host_when_the_first_is_silent() {
    if !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
        println!("skipped: a mount of its own needs root; sudo cargo test --test connection shows it");
        return;
    }
    let folder = Folder::new("addresses");
    let authority = Authority::new();
    // On one port: an address that answers no SYN, for its backlog is full, and one that serves.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&silent, 0).unwrap();
    let first = silent.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(tcp) = std::net::TcpStream::connect_timeout(&first, Duration::from_millis(300)) {
        held.push(tcp);
    }
    let sim = service(&authority, &format!("127.0.0.2:{}", first.port()), "two-addresses.example");
    let mut all = settings(&sim, &folder);
    all.insert("SSL_CERT_FILE".to_owned(), authority.write(&folder, "ca.pem").display().to_string());
    let hosts = folder.write("hosts", "127.0.0.1 localhost two-addresses.example\n127.0.0.2 two-addresses.example\n");
    // A mount of its own stands for the machine's name look-up.
    let mut command = Command::new("unshare");
    let script = r#"mount --bind "$1" /etc/hosts && exec "$2""#;
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&hosts).arg(installed(&folder));
    command.current_dir(folder.path()).env_clear().envs(&all).env("PATH", std::env::var_os("PATH").unwrap());
    let collector = Collector::run_command(command, folder.path(), &all);
    collector.wait_healthy();
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    assert_same_set(&sim.issued(), &collector.wait_lines(1, SOON));
}
