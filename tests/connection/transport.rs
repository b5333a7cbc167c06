//! What a proxy, a gateway or a wrong clock makes of the service's answers. Through the real binary, which meets the
//! simulated service behind a front that writes its answers byte for byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{Collector, Folder, SOON, assert_same_set, poll};
use audiohook_collector::clock::{format_millis, parse_instant};
use audiohook_collector::simulator::{Action, Call, Event, Knobs, Options, Route, Simulator};
use audiohook_collector::thread;
use flate2::Compression;
use flate2::write::GzEncoder;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// An answer of the service, before it is written.
struct Answer {
    /// How many there were before it.
    number: usize,
    path: String,
    status: u16,
    /// The service's time.
    now: i64,
    body: Vec<u8>,
}

impl Answer {
    /// The answer with these headers more, and its `Date` that far from the service's time.
    fn bytes(&self, date_off_ms: i64, headers: &str, body: &[u8]) -> Vec<u8> {
        let date = http_date(self.now + date_off_ms);
        let (status, length) = (self.status, body.len());
        let head = format!(
            "HTTP/1.1 {status} X\r\nDate: {date}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        [head.as_bytes(), body].concat()
    }
}

fn http_date(ms: i64) -> String {
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_millis(ms.unsigned_abs()))
}

type Writing = dyn Fn(&Answer) -> Vec<u8> + Send + Sync;

/// When each request came, with its path.
type Seen = Arc<Mutex<Vec<(Instant, String)>>>;

/// A front of the simulated service; gives its address and what it saw.
fn front(sim: &Simulator, write: impl Fn(&Answer) -> Vec<u8> + Send + Sync + 'static) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (seen, service, ahead_ms) = (Seen::default(), sim.url(), sim.now() - wall());
    let (write, met): (Arc<Writing>, _) = (Arc::new(write), seen.clone());
    let work = move || {
        for tcp in listener.incoming() {
            let Ok(tcp) = tcp else { return };
            let (service, write, met) = (service.clone(), write.clone(), met.clone());
            thread::spawn("answer", move || answer(tcp, &service, ahead_ms, &*write, &met)).unwrap();
        }
    };
    thread::spawn("front", work).unwrap();
    (url, seen)
}

fn wall() -> i64 {
    audiohook_collector::clock::Clock::system().wall()
}

fn answer(tcp: TcpStream, service: &str, ahead_ms: i64, write: &Writing, met: &Seen) {
    let mut stream = BufReader::new(tcp);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let value = |name: &str| {
        let found =
            head.iter().filter_map(|line| line.split_once(": ")).find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_owned())
    };
    let mut body = vec![0; value("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    let mut first = head[0].split(' ');
    let (method, path) = (first.next().unwrap(), first.next().unwrap().to_owned());
    let number = {
        let mut met = met.lock().unwrap();
        met.push((Instant::now(), path.clone()));
        met.len() - 1
    };
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
    let mut request = ureq::http::Request::builder().method(method).uri(format!("{service}{path}"));
    for name in ["authorization", "content-type"] {
        if let Some(value) = value(name) {
            request = request.header(name, value);
        }
    }
    let Ok(mut answer) = ureq::Agent::new_with_config(config).run(request.body(body).unwrap()) else { return };
    let (status, body) = (answer.status().as_u16(), answer.body_mut().read_to_vec().unwrap());
    let bytes = write(&Answer { number, path, status, now: wall() + ahead_ms, body });
    // The collector may have been stopped meanwhile.
    let _ = stream.get_mut().write_all(&bytes);
}

fn service(clock_offset_ms: i64) -> Simulator {
    let knobs = Knobs { requests_per_minute: None, clock_offset_ms, ..Knobs::default() };
    Simulator::start(Options { knobs, ..Options::default() }).unwrap()
}

fn start(sim: &Simulator, url: &str, folder: &Folder) -> Collector {
    Collector::start(sim, folder, &[("GENESYS_LOGIN_URL", url), ("GENESYS_API_URL", url)])
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn answers_that_are_announced_compressed_and_marked_are_read() {
    let (sim, folder) = (service(0), Folder::new("gzip"));
    let (url, _) = front(&sim, |answer| {
        let marked = if answer.body.is_empty() { Vec::new() } else { [b"\xef\xbb\xbf", &*answer.body].concat() };
        let early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
        [&early[..], &answer.bytes(0, "Content-Encoding: gzip\r\n", &gzip(&marked))].concat()
    });
    let collector = start(&sim, &url, &folder);
    collector.wait_healthy();
    sim.issue_by(Event::numbered("AUDIOHOOK-0001"), Route::SocketOnly);
    sim.issue_by(Event::numbered("AUDIOHOOK-0002"), Route::HistoryOnly);
    // Rows are read once they are ten seconds old.
    let found = collector.wait_lines(2, SOON * 4);
    assert_same_set(&sim.issued(), &found);
}

#[test]
fn an_answer_that_is_compressed_in_another_way_is_refused_by_name() {
    let (sim, folder) = (service(0), Folder::new("brotli"));
    let (url, _) = front(&sim, |answer| answer.bytes(0, "Content-Encoding: br\r\n", b"\x0b\x02\x80"));
    let collector = start(&sim, &url, &folder);
    collector.wait_log("the answer is compressed with \\\"br\\\"", SOON);
}

#[test]
fn a_wrong_date_in_single_answers_moves_no_checkpoint_past_what_was_not_read() {
    // In an order that lets neither wrong day come twice in a row; the very first answer is wrong too.
    const OFF_MS: [i64; 5] = [DAY_MS, 0, -DAY_MS, 0, 0];
    let (sim, folder) = (service(0), Folder::new("dates"));
    let (url, seen) = front(&sim, |answer| answer.bytes(OFF_MS[answer.number % OFF_MS.len()], "", &answer.body));
    let collector = start(&sim, &url, &folder);
    collector.wait_healthy();
    let mut issued = 0;
    for answers in (0..60).step_by(10) {
        sim.issue_by(Event::numbered("AUDIOHOOK-0002"), Route::HistoryOnly);
        issued += 1;
        let enough = poll(SOON * 2, || {
            let health = collector.health()?;
            let checkpoint = parse_instant(health["stats"]["history_checkpoint"].as_str()?)?;
            assert!(checkpoint < sim.now() + 10_000, "the checkpoint is at {}", format_millis(checkpoint));
            (seen.lock().unwrap().len() > answers && sim.now() - checkpoint < HOUR_MS).then_some(())
        });
        assert!(enough.is_some(), "{}", collector.log_text());
    }
    let found = collector.wait_lines(issued, SOON * 4);
    assert_same_set(&sim.issued(), &found);
}

#[test]
fn a_wait_that_is_given_as_a_date_is_kept_to() {
    let (sim, folder) = (service(0), Folder::new("retry-date"));
    let (url, seen) = front(&sim, |answer| {
        if !answer.path.ends_with("/definitions") || answer.number > 3 {
            return answer.bytes(0, "", &answer.body);
        }
        // Both dates are by a clock an hour ahead: the one counts by the other.
        let until = http_date(answer.now + HOUR_MS + 4_000);
        let unavailable = Answer { status: 503, path: String::new(), body: Vec::new(), ..*answer };
        unavailable.bytes(HOUR_MS, &format!("Retry-After: {until}\r\n"), b"")
    });
    let collector = start(&sim, &url, &folder);
    let asked = poll(SOON * 2, || {
        let seen = seen.lock().unwrap();
        let asked: Vec<Instant> =
            seen.iter().filter(|(_, path)| path.ends_with("/definitions")).map(|one| one.0).collect();
        (asked.len() > 1).then_some(asked)
    });
    let asked = asked.unwrap_or_else(|| panic!("{}", collector.log_text()));
    let wait = asked[1] - asked[0];
    assert!(wait >= Duration::from_secs(3) && wait < Duration::from_secs(30), "{wait:?}");
}

#[test]
fn a_refused_handshake_names_its_wait() {
    let (sim, folder) = (service(0), Folder::new("handshake"));
    sim.faults().fail_next(Call::Handshake, Action::Status { status: 503, retry_after_s: Some(4) }, 1);
    let collector = Collector::start(&sim, &folder, &[]);
    assert!(sim.wait_until(SOON, |view| view.count(Call::Handshake) == 2), "{}", collector.log_text());
    let at: Vec<Instant> = sim.view(|view| view.requests(Call::Handshake).iter().map(|seen| seen.at).collect());
    assert!(at[1] - at[0] >= Duration::from_millis(3_990), "{:?}", at[1] - at[0]);
    collector.wait_healthy();
}

#[test]
fn the_socket_of_a_proxy_that_is_wrong_is_reported_as_what_and_cure_without_its_password() {
    let (sim, folder) = (service(0), Folder::new("proxy-wrong"));
    let proxy = "http://user:hunter2@127.0.0.1:1";
    let all = [
        ("GENESYS_LOGIN_URL", "https://login.example"),
        ("GENESYS_API_URL", "https://api.example"),
        ("HTTPS_PROXY", proxy),
    ];
    let collector = Collector::start(&sim, &folder, &all);
    let reason = poll(SOON, || {
        let health = collector.health()?;
        let reasons = health["reasons"].as_array()?.clone();
        reasons
            .into_iter()
            .find(|reason| reason["message"].as_str().is_some_and(|text| text.contains("the proxy 127.0.0.1:1")))
    });
    let reason = reason.unwrap_or_else(|| panic!("{}\n{:?}", collector.log_text(), collector.health()));
    assert!(reason["cure"].as_str().unwrap().contains("HTTPS_PROXY"), "{reason}");
    assert!(!reason["message"].as_str().unwrap().contains("Check"), "{reason}");
    assert!(!collector.log_text().contains("hunter2"));
}
