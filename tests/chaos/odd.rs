//! Answers that are odd, and how each is made of the right one.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use audiohook_collector::simulator::{Action, Answer, Call, http_date};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::plan::{Asked, Definitions, Odd};

pub const INTERIM: &[u8] =
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
/// A refusal asks to wait so long.
const ASKED_S: i64 = 2;
const QUERY: &str = "/api/v2/usage/events/query";
const ONE_CURSOR: &str = "ALWAYS-THE-SAME";

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// The calls whose answers are odd in this way.
pub fn calls(how: Odd) -> Vec<Call> {
    match how {
        Odd::Date { .. } | Odd::Gzip | Odd::ByteOrderMark | Odd::Interim => {
            Call::ALL.into_iter().filter(|call| *call != Call::Handshake).collect()
        }
        Odd::WithoutList { .. } => vec![Call::History, Call::Counts],
        Odd::LastPageNamesItself | Odd::OneCursor | Odd::ForeignRows => vec![Call::History],
    }
}

/// What becomes of each of these calls.
pub fn actions(how: Odd) -> Vec<(Call, Action)> {
    let answers = Arc::new(AtomicU32::new(0));
    calls(how).into_iter().map(|call| (call, action(how, answers.clone()))).collect()
}

/// `answers`: counts the answers to all calls, so that no two in a row have a wrong `Date`.
fn action(how: Odd, answers: Arc<AtomicU32>) -> Action {
    match how {
        Odd::Date { seconds } => Action::change(move |_, answer| {
            if answers.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
                answer.headers.push(("Date", http_date(now_ms() + seconds * 1_000)));
            }
        }),
        Odd::WithoutList { null } => Action::change_json(move |_, page| {
            for list in ["entities", "eventDefinitionAggregates"] {
                if page[list].as_array().is_some_and(Vec::is_empty) {
                    page.as_object_mut().unwrap().remove(list);
                    if null {
                        page[list] = Value::Null;
                    }
                }
            }
        }),
        Odd::LastPageNamesItself => Action::change_json(|request, page| {
            if page["entities"].is_array() && page["nextUri"].is_null() && request.parameter("after").is_some() {
                page["nextUri"] = json!(request.target());
            }
        }),
        Odd::OneCursor => one_cursor(),
        Odd::ForeignRows => Action::custom(|request, service| {
            let mut request = request.clone();
            if let Ok(mut body) = serde_json::from_slice::<Value>(&request.body) {
                if let Some(ids) = body["eventDefinitionIds"].as_array_mut() {
                    ids.extend(["TELEPHONY-0001", "DATAACTIONS-0001"].map(Value::from));
                }
                request.body = body.to_string().into_bytes();
            }
            service(&request)
        }),
        Odd::Gzip => Action::change(|_, answer| {
            if !answer.body.is_empty() {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(&answer.body).unwrap();
                answer.body = encoder.finish().unwrap();
                answer.headers.push(("Content-Encoding", "gzip".to_owned()));
            }
        }),
        Odd::ByteOrderMark => Action::change(|_, answer| {
            if !answer.body.is_empty() {
                answer.body.splice(0..0, *b"\xef\xbb\xbf");
            }
        }),
        Odd::Interim => Action::Preceded(INTERIM.to_vec()),
    }
}

/// Every page's cursor is the same text, though it leads on: the service remembers where it stands.
fn one_cursor() -> Action {
    let place: Mutex<Option<String>> = Mutex::new(None);
    Action::custom(move |request, service| {
        let mut request = request.clone();
        let mut place = place.lock().unwrap();
        if let Some(at) = place.as_deref().filter(|_| request.parameter("after").as_deref() == Some(ONE_CURSOR)) {
            request.query = at.split_once('?').map_or("", |(_, query)| query).to_owned();
        }
        let mut answer = service(&request);
        if let Ok(mut page) = serde_json::from_slice::<Value>(&answer.body)
            && let Some(next) = page["nextUri"].as_str()
        {
            *place = Some(next.to_owned());
            page["nextUri"] = json!(format!("{QUERY}?after={ONE_CURSOR}&pageSize=200"));
            answer.body = page.to_string().into_bytes();
        }
        answer
    })
}

/// A refusal that says when to ask again, but not in seconds.
pub fn refusal(status: u16, asked: Asked) -> Action {
    Action::custom(move |_, _| {
        let text = format!("Rate limit exceeded the maximum. Retry the request in [{ASKED_S}] seconds");
        let answer = Answer::json(status, json!({"message": text, "code": "refused", "status": status}));
        match asked {
            Asked::Text => answer,
            Asked::Date => answer.with("Retry-After", http_date(now_ms() + ASKED_S * 1_000)),
        }
    })
}

/// The answer to a subscription says nothing of the topics with this text in them.
pub fn unconfirmed(text: &'static str) -> Action {
    Action::change_json(move |_, answer| {
        if let Some(entities) = answer["entities"].as_array_mut() {
            entities.retain(|entity| !entity["id"].as_str().is_some_and(|id| id.contains(text)));
        }
    })
}

pub fn definitions(how: Definitions) -> Action {
    match how {
        Definitions::Status(status) => Action::status(status),
        Definitions::Hang => Action::Hang,
        Definitions::Reset => Action::Reset,
        Definitions::Half => Action::Half,
        Definitions::Html => Action::Nonsense,
        Definitions::Empty => Action::Body(r#"{"entities":[]}"#.to_owned()),
        Definitions::Null => Action::Body(r#"{"entities":null}"#.to_owned()),
        Definitions::Malformed => Action::change_json(|_, answer| {
            if let Some(entities) = answer["entities"].as_array_mut() {
                let odd =
                    [Value::Null, json!(5), json!("AUDIOHOOK-0001"), json!({"id": null}), json!({"id": 7}), json!([])];
                entities.splice(0..0, odd);
            }
        }),
        Definitions::InLowerCase => Action::change(|_, answer| {
            answer.body = String::from_utf8_lossy(&answer.body).replace("AUDIOHOOK-", "audiohook-").into_bytes();
        }),
    }
}
