//! Whatever comes from outside is taken without a panic, without a hang and without growth: frames, answers of the API
//! and of the cluster, state files, settings, topics files, lines of the file, HTTP requests. Inputs are mutations of real ones.
//!
//! `FUZZ_CASES` sets how many (10,000,000 in the long form), `FUZZ_SEED` what they follow from. A failing case prints
//! its input.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "http/stage.rs"]
mod stage;

use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use audiohook_collector::config::{env_file, topics_file};
use audiohook_collector::dedup::rows::Span;
use audiohook_collector::elastic::document;
use audiohook_collector::elastic::verdict::{self, Held, Reply, Verdict as BulkVerdict};
use audiohook_collector::event::{
    Event, Identity, Origin, RecordWriter, Redaction, Stamps, Verdict, judge_frame, judge_row, read_line,
};
use audiohook_collector::genesys::history::{self, History, Next};
use audiohook_collector::genesys::{channel, topics};
use audiohook_collector::json;
use audiohook_collector::message::Purpose;
use audiohook_collector::writer::state;
use stage::Stage;

/// Cases of `cargo test`: a few seconds' worth.
const CASES: u64 = 60_000;
/// No single input may take longer, on a machine that does other things too.
const CASE_LIMIT: Duration = Duration::from_secs(5);
/// What the process may grow by after the first tenth of the cases.
const GROWTH_KIB: u64 = 48 * 1024;
/// One in so many cases goes over a socket, or through a file: those are slow.
const SLOW_SHARE: u64 = 100;
/// Bytes of one input, at most.
const INPUT_MAX: usize = 64 * 1024;

/// What mutations put in.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\udfff",
    "null",
    "true",
    "-",
    "1e400",
    "-0",
    "0x1",
    "99999999999999999999",
    "9223372036854775807",
    "-9223372036854775808",
    "\u{feff}",
    "\u{2028}",
    "é",
    "\u{1f600}",
    "\r\n",
    "\n",
    "\0",
    " ",
    "\t",
    "eventBody",
    "topicName",
    "timestamp",
    "entities",
    "nextUri",
    "items",
    "create",
    "status",
    "error",
    "checkpoint_ms",
    "AUDIOHOOK-",
    "v2.system.",
    "v2.operations.events.",
    "2026-11-23T10:44:05.123Z",
    "0000-00-00T00:00:00Z",
    "+99999-01-01",
    "export ",
    "=",
    "#",
    "'",
    "$",
    "%",
    "Content-Length: ",
    "HTTP/1.1",
    "GET /",
    "Transfer-Encoding: chunked\r\n",
    "\"\":",
    "{}",
    "[]",
    "[[[[",
    "{\"a\":{\"a\":{\"a\":",
];

const FRAMES: &[&str] = &[
    r#"{"topicName":"v2.operations.events.AUDIOHOOK-0001","version":"2","eventBody":{"eventEntity":{"id":"AUDIOHOOK-0001","name":"AudioHook \"x\"","description":"d"},"entityId":"e","entityName":"n","conversationId":"c","errorCode":"7","previousValue":"a","currentValue":"b","phoneNumber":"+1","timestamp":1795430645123},"metadata":{"CorrelationId":"x"}}"#,
    r#"{"topicName":"v2.operations.events.AUDIOHOOK-0002","eventBody":{"eventEntity":{"id":"AUDIOHOOK-0002"},"timestamp":"2026-11-23T10:44:05.123Z","version":1.0,"extra":[1e400,{"a":null}]}}"#,
    r#"{"topicName":"channel.metadata","eventBody":{"message":"WebSocket Heartbeat"}}"#,
    r#"{"topicName":"v2.system.socket_closing","eventBody":{"message":"closing"}}"#,
    r#"{"result":"404","message":"Channel not found"}"#,
];
const ROWS: &[&str] = &[
    r#"{"eventDefinition":{"id":"AUDIOHOOK-0001","name":"N"},"entityId":"e","entityToken":"t","entityName":"n","previousValue":"a","currentValue":"b","errorCode":"7","parentEntityId":"p","conversation":{"id":"c"},"dateCreated":"2026-11-23T10:44:05.123Z","entityVersion":"1","phoneNumber":"+1"}"#,
    r#"{"eventDefinition":{"id":"AUDIOHOOK-0003"},"dateCreated":null}"#,
];
const PAGES: &[&str] = &[
    r#"{"entities":[{"eventDefinition":{"id":"AUDIOHOOK-0001"},"dateCreated":"2026-11-23T10:44:05.123Z"},{"eventDefinition":{"id":"AUDIOHOOK-0002"},"dateCreated":"2026-11-23T10:44:06.123Z"}],"nextUri":"/api/v2/usage/events/query?after=x&pageSize=200","pageSize":200}"#,
    r#"{"entities":[]}"#,
];
const ANSWERS: &[&str] = &[
    r#"{"id":"streaming-1-abc","connectUri":"wss://streaming.mypurecloud.com/channels/streaming-1-abc","expires":"2026-11-24T10:44:05.123Z"}"#,
    r#"{"entities":[{"id":"v2.operations.events.AUDIOHOOK-0001","state":"Permitted"},{"id":"v2.operations.events.AUDIOHOOK-0002","state":"Rejected","rejectionReason":"no","missingPermissions":["usage:events:view"]}]}"#,
    r#"{"entities":[{"id":"v2.operations.events.{id}","description":"d","transports":["All"]}]}"#,
];
const BULKS: &[&str] = &[
    r#"{"errors":true,"items":[{"create":{"status":201}},{"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"r"}}},{"create":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"r","caused_by":{"reason":"x"}}}}]}"#,
    r#"{"error":{"type":"cluster_block_exception","reason":"index [x] blocked by: [FORBIDDEN/8/index write (api)];"},"status":403}"#,
    "<html>502 Bad Gateway</html>",
];
const STATES: &[&str] = &[
    "{\"format\":1,\"checkpoint_ms\":1795430645123,\"origin_ms\":1794566645123,\"channel\":null,\"cursor\":null}\n0123456789abcdef\n",
];
const SETTINGS: &[&str] = &[
    "# a comment\nGENESYS_ENV=mypurecloud.com\nexport GENESYS_CLIENT_ID='a b' # c\nGENESYS_CLIENT_SECRET=\"$%\\#\"\n\nMAX_FILE_SIZE=10MB\r\n",
];
const TOPICS: &[&str] = &[
    r#"{"topics":["v2.operations.events.AUDIOHOOK-0001","v2.operations.events.AUDIOHOOK-*","v2.operations.events.*"]}"#,
];
const LINES: &[&str] = &[
    r#"{"timestamp":"2026-11-23T10:44:05.123Z","event_type":"audiohook_operational","event_id":"AUDIOHOOK-0001","event_name":"N","description":null,"conversation_id":"c","entity_type":null,"entity_id":"e","received_at":"2026-11-23T10:44:05.500Z","source":"history","id":"00112233445566778899aabbccddeeff","raw_event":{"a":1}}"#,
];
const REQUESTS: &[&str] = &[
    "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "GET /events?limit=3&event_id=AUDIOHOOK-0001 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nConnection: close\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcdGET /metrics HTTP/1.0\r\n\r\n",
    "HEAD http://x/metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
];

/// What is fed.
#[derive(Clone, Copy, Debug)]
enum Target {
    Frame,
    Row,
    Page,
    Answer,
    Bulk,
    State,
    Settings,
    Topics,
    Line,
    Request,
}

const FAST: [Target; 8] = [
    Target::Frame,
    Target::Row,
    Target::Page,
    Target::Answer,
    Target::Bulk,
    Target::State,
    Target::Settings,
    Target::Line,
];

impl Target {
    fn corpus(self) -> &'static [&'static str] {
        match self {
            Self::Frame => FRAMES,
            Self::Row => ROWS,
            Self::Page => PAGES,
            Self::Answer => ANSWERS,
            Self::Bulk => BULKS,
            Self::State => STATES,
            Self::Settings => SETTINGS,
            Self::Topics => TOPICS,
            Self::Line => LINES,
            Self::Request => REQUESTS,
        }
    }
}

/// Splitmix64: the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// A span within so many bytes, mostly short.
    fn span(&mut self, length: usize) -> (usize, usize) {
        let from = self.below(length + 1);
        let most = if self.below(4) == 0 { length - from } else { (length - from).min(16) };
        (from, from + self.below(most + 1))
    }

    fn mutate(&mut self, corpus: &[&str]) -> Vec<u8> {
        let mut bytes = corpus[self.below(corpus.len())].as_bytes().to_vec();
        for _ in 0..self.below(8) {
            let (from, to) = self.span(bytes.len());
            match self.below(9) {
                0 if !bytes.is_empty() => {
                    let at = self.below(bytes.len());
                    bytes[at] ^= 1 << self.below(8);
                }
                1 => bytes.insert(from, self.next() as u8),
                2 => drop(bytes.drain(from..to)),
                3 => bytes.truncate(from),
                4 => {
                    let piece = bytes[from..to].to_vec();
                    let at = self.below(bytes.len() + 1);
                    bytes.splice(at..at, piece);
                }
                5 | 6 => {
                    let word = WORDS[self.below(WORDS.len())];
                    bytes.splice(from..to, word.bytes());
                }
                7 => {
                    // Deep or long: what recursion and repeated copying break at.
                    let times = 1 << self.below(13);
                    let word = WORDS[self.below(WORDS.len())].repeat(times);
                    bytes.splice(from..from, word.bytes());
                }
                _ => {
                    let other = corpus[self.below(corpus.len())].as_bytes();
                    let (a, b) = self.span(other.len());
                    bytes.splice(from..to, other[a..b].iter().copied());
                }
            }
            bytes.truncate(INPUT_MAX);
        }
        bytes
    }
}

/// The record of an event is one line, is JSON, and is read again.
fn record(event: &Event<'_>, redaction: &Redaction, origin: Origin<'_>, scratch: &mut Vec<u8>) {
    let id = Identity::of(event, scratch).at(event.time.unwrap_or(1_795_430_645_500));
    let mut line = Vec::new();
    RecordWriter { redaction, stamps: &mut Stamps::default() }.push(&mut line, event, origin, id, 1_795_430_645_500);
    let text = std::str::from_utf8(&line).expect("a record is UTF-8").strip_suffix('\n').expect("a record is a line");
    assert!(!text.contains('\n'), "a record is one line");
    let known = read_line(text, scratch).map(|_| ());
    assert!(known.is_ok(), "a record can be read again: {text}");
    assert!(document::fields(text.as_bytes()).is_some(), "a record can be sent to a cluster: {text}");
    let hidden = Redaction::new(&["id".to_owned()]).line(text, &id.to_string()).expect("a record can be hidden");
    assert!(document::fields(hidden.as_bytes()).is_some(), "and sent then: {hidden}");
    let mut compact = Vec::new();
    json::push_compact(&mut compact, event.raw);
}

fn feed(target: Target, input: &[u8], scratch: &mut Vec<u8>, redaction: &Redaction) {
    let text = String::from_utf8_lossy(input);
    match target {
        Target::Frame => {
            if let Verdict::Event(event) = judge_frame(&text, 1_795_430_645_500) {
                record(&event, &Redaction::default(), Origin::Websocket { channel: "…abcd" }, scratch);
                let hidden = redaction.apply(event.raw);
                assert!(hidden.is_ok(), "what was judged can be redacted");
            }
        }
        Target::Row => {
            if let Ok(event) = judge_row(&text, 1_795_430_645_500) {
                record(&event, &Redaction::default(), Origin::History, scratch);
                assert!(redaction.apply(event.raw).is_ok(), "what was judged can be redacted");
            }
        }
        Target::Page => page(&text),
        Target::Answer => {
            let asked = ["v2.operations.events.AUDIOHOOK-0001".to_owned()];
            let _ = channel::understand(&text, "owner".to_owned(), 1_795_430_645_500);
            if let Ok(entities) = serde_json::from_str::<Vec<channel::Entity>>(&text) {
                assert_eq!(channel::judge_subscriptions(&entities, &asked).len(), asked.len());
            }
            let _ = topics::understand_transports(&text).map(|found| found.map(|found| topics::allow_socket(&found)));
        }
        Target::Bulk => {
            let documents = 1 + input.len() % 4;
            let status = [200, 200, 200, 400, 401, 403, 413, 429, 503, 302, 404][input.len() % 11];
            let reply = Reply { status, retry_after: None, body: input.to_vec() };
            let verdict = verdict::judge(&reply, documents).map_texts(verdict::shorten);
            match verdict {
                BulkVerdict::Items(items) => assert_eq!(items.len(), documents),
                BulkVerdict::Held(Held { why, .. }) | BulkVerdict::Malformed(why) | BulkVerdict::TooLarge(why) => {
                    assert!(why.len() < 8_000 && !why.contains('\n'), "what is said is one short line: {why:?}");
                }
            }
        }
        Target::State => drop(state::parse(input)),
        Target::Settings => {
            let (known, bad) = env_file::parse(input);
            assert!(known.len() + bad.len() <= input.len() + 1);
        }
        Target::Line => {
            let _ = read_line(&text, scratch).map(|_| ());
            let _ = document::fields(input);
        }
        Target::Topics | Target::Request => unreachable!("these are slow and go their own way"),
    }
}

/// A read of the history that meets this page again and again ends, and never says more than it was given.
fn page(text: &str) {
    const ASKS_MAX: usize = 200;
    let now = Instant::now();
    let to = 1_795_430_700_000;
    let mut history = History::new("http://127.0.0.1:1", u32::MAX);
    let ids = ["AUDIOHOOK-0001".to_owned(), "AUDIOHOOK-0002".to_owned()];
    let span = Span { from: to - 60_000, to };
    history.begin(history::Read { ids: ids.into(), span, until: to, purpose: Purpose::CatchUp }, now);
    for _ in 0..ASKS_MAX {
        match history.next(now, to) {
            Next::Ask { .. } => {
                let taken = history.take(Ok(text.to_owned()), to);
                if let Some(page) = &taken.page {
                    page.rows.iter().for_each(|row| assert!(page.body.get(row.clone()).is_some()));
                }
                assert!(taken.read_up_to.is_none_or(|up_to| up_to <= to));
                if taken.failed.is_some() || taken.done.is_some() {
                    return;
                }
            }
            Next::Wait(_) | Next::Idle => return,
        }
    }
    panic!("{ASKS_MAX} requests, and neither an end nor a failure");
}

/// A topics file is read, or refused in one sentence.
fn topics(input: &[u8], folder: &std::path::Path) {
    let path = folder.join("topics.json");
    std::fs::write(&path, input).unwrap();
    match topics_file::read(&path, true) {
        Ok(Some(list)) => drop(topics::plan(Some(&list), Some(&topics::built_in()))),
        Ok(None) => {}
        Err(why) => assert!(!why.is_empty() && why.len() < 4_000, "{why}"),
    }
}

/// A request is answered or its connection closed; and the next client is served.
fn request(input: &[u8], stage: &Stage) {
    let mut stream = stage.connect();
    let _ = stream.write_all(input);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&answer));
    assert!(!answer.starts_with(b"HTTP/1.1 500"), "{:?}", String::from_utf8_lossy(&answer));
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn from_environment<T: std::str::FromStr<Err: Debug>>(name: &str, default: T) -> T {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn no_input_brings_it_down() {
    let cases = from_environment("FUZZ_CASES", CASES);
    let seed = from_environment("FUZZ_SEED", 1_u64);
    let mut random = Random(seed);
    let (mut scratch, redaction) = (Vec::new(), Redaction::new(&["phoneNumber".to_owned(), "id".to_owned()]));
    let folder = std::env::temp_dir().join(format!("fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let stage = Stage::start(None);
    let mut settled = 0;
    for case in 0..cases {
        let target = match case % SLOW_SHARE {
            0 => Target::Request,
            1 => Target::Topics,
            _ => FAST[random.below(FAST.len())],
        };
        let input = random.mutate(target.corpus());
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| match target {
            Target::Request => request(&input, &stage),
            Target::Topics => topics(&input, &folder),
            _ => feed(target, &input, &mut scratch, &redaction),
        }));
        let shown = || format!("case {case} of seed {seed}, {target:?}: {:?}", String::from_utf8_lossy(&input));
        assert!(outcome.is_ok(), "{}", shown());
        assert!(begun.elapsed() < CASE_LIMIT, "{:?} for {}", begun.elapsed(), shown());
        if case == cases / 10 {
            settled = resident_kib();
        }
    }
    let grown = resident_kib().saturating_sub(settled);
    assert!(grown < GROWTH_KIB, "{grown} KiB more after {cases} cases");
    assert_eq!(stage.get("/health").status, 200, "the server still serves");
    let _ = std::fs::remove_dir_all(&folder);
}
