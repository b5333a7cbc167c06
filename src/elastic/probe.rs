//! Questions to the cluster: who is there, may we write, what about the template.
//!
//! Deals with: what `check` wants to know, and the greeting that the collector itself begins with. Must never: leave
//! anything behind in the cluster.

use serde_json::Value;
use ureq::http::Method;

use crate::clock::{Clock, Millis, format_millis};
use crate::elastic::carrier::{Carrier, Failure};
use crate::elastic::link::PROBE_TIMEOUT;
use crate::elastic::setup::{self, Found, Setup, encoded};
use crate::elastic::verdict::{Reply, is_blocked, words_of_body};

/// What `GET /` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// Somebody is there; the name and version, as `OpenSearch 2.19.1`, when the login may see it.
    Alive { server: Option<String> },
    /// The login was refused.
    Refused(String),
    /// Nobody is there, or nobody who is a cluster.
    Absent(String),
}

/// Judges the answer to `GET /`.
pub fn greet(outcome: &Result<Reply, Failure>) -> Greeting {
    let reply = match outcome {
        Ok(reply) => reply,
        Err(failure) => return Greeting::Absent(failure.why.clone()),
    };
    match reply.status {
        200..=299 => match serde_json::from_slice::<Value>(&reply.body) {
            Ok(document) if document.is_object() => Greeting::Alive { server: server_of(&document) },
            _ => Greeting::Absent(
                "it answers 200 with something that is no cluster; see whether ELASTIC_URL leads to a proxy's login page"
                    .to_owned(),
            ),
        },
        401 => Greeting::Refused(format!("it refuses our login (401){}", words_of_body(&reply.body))),
        300..=399 => Greeting::Absent(format!(
            "it answers {} and sends us elsewhere; set ELASTIC_URL to the address behind the redirect",
            reply.status
        )),
        408 | 429 | 500.. => Greeting::Absent(format!("it answers {}{}", reply.status, words_of_body(&reply.body))),
        // A login that may only write is kept out here, and a proxy may let nothing but bulk requests through.
        _ => Greeting::Alive { server: None },
    }
}

fn server_of(document: &Value) -> Option<String> {
    let version = document.get("version")?;
    let number = version.get("number")?.as_str()?;
    let is_opensearch = version.get("distribution").and_then(Value::as_str) == Some("opensearch");
    Some(format!("{} {number}", if is_opensearch { "OpenSearch" } else { "Elasticsearch" }))
}

/// Whether each node is there, in the order of ELASTIC_URL, with its address as it may be shown.
pub fn reach(carrier: &Carrier) -> Vec<(String, Greeting)> {
    (0..carrier.nodes())
        .map(|node| {
            let outcome = carrier.call(node, Method::GET, "/", None, 2 * PROBE_TIMEOUT);
            (carrier.shown(node), greet(&outcome))
        })
        .collect()
}

/// What is there of the index template.
///
/// # Errors
/// `Refused` or `Failed` when the cluster does not say.
pub fn template(carrier: &Carrier, node: usize, index: &str) -> Result<Found, Setup> {
    setup::look(carrier, node, index)
}

/// What trying to write showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A document was made and deleted again.
    Allowed,
    /// The index is not there yet, so nothing was tried: the try would have made it.
    NoIndexYet,
    /// A document was made, and could not be deleted again; its id.
    Left {
        id: String,
        why: String,
    },
    Refused(String),
    /// The index takes no writes, whoever asks.
    ReadOnly(String),
    Failed(String),
}

/// Tries the right to write: makes a document and deletes it again.
pub fn write(carrier: &Carrier, node: usize, index: &str, clock: &Clock) -> Write {
    let now = clock.wall();
    match carrier.call(node, Method::HEAD, &format!("/{}", encoded(index)), None, 2 * PROBE_TIMEOUT) {
        Ok(reply) if reply.status == 404 => return Write::NoIndexYet,
        Err(failure) => return Write::Failed(failure.why),
        Ok(_) => {}
    }
    let id = format!("audiohook-collector-check-{now}");
    let path = format!("/{}/_create/{id}", encoded(index));
    let made = match carrier.call(node, Method::PUT, &path, Some(&document(now)), 4 * PROBE_TIMEOUT) {
        Ok(reply) => reply,
        Err(failure) => return Write::Failed(failure.why),
    };
    let told = || format!("it answers {}{}", made.status, words_of_body(&made.body));
    match made.status {
        200..=299 => {}
        403 | 429 if is_blocked(&told()) => return Write::ReadOnly(told()),
        401 | 403 => return Write::Refused(told()),
        _ => return Write::Failed(told()),
    }
    // In a data stream a document is deleted from the index behind it, whose name the answer tells.
    let answer: Value = serde_json::from_slice(&made.body).unwrap_or_default();
    let behind = answer.get("_index").and_then(Value::as_str).unwrap_or(index);
    let path = format!("/{}/_doc/{id}", encoded(behind));
    match carrier.call(node, Method::DELETE, &path, None, 4 * PROBE_TIMEOUT) {
        Ok(reply) if (200..=299).contains(&reply.status) => Write::Allowed,
        Ok(reply) => Write::Left { id, why: format!("it answers {}{}", reply.status, words_of_body(&reply.body)) },
        Err(failure) => Write::Left { id, why: failure.why },
    }
}

fn document(now: Millis) -> String {
    let now = format_millis(now);
    format!(r#"{{"@timestamp":"{now}","timestamp":"{now}","event_type":"audiohook_collector_check"}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(status: u16, body: &str) -> Greeting {
        greet(&Ok(Reply { status, retry_after: None, body: body.as_bytes().to_vec() }))
    }

    #[test]
    fn both_vendors_greet_by_name_and_version() {
        let opensearch = r#"{"name":"one","version":{"distribution":"opensearch","number":"2.19.1","build_type":"tar"},"tagline":"The OpenSearch Project: https://opensearch.org/"}"#;
        assert_eq!(greeting(200, opensearch), Greeting::Alive { server: Some("OpenSearch 2.19.1".into()) });
        let elastic =
            r#"{"name":"one","version":{"number":"8.17.0","build_flavor":"default"},"tagline":"You Know, for Search"}"#;
        assert_eq!(greeting(200, elastic), Greeting::Alive { server: Some("Elasticsearch 8.17.0".into()) });
    }

    #[test]
    fn a_login_page_is_nobody_and_a_closed_door_is_somebody() {
        assert!(matches!(greeting(200, "<html>log in</html>"), Greeting::Absent(_)));
        assert!(matches!(greeting(302, ""), Greeting::Absent(_)));
        assert!(matches!(greeting(503, ""), Greeting::Absent(_)));
        assert!(matches!(greeting(401, ""), Greeting::Refused(_)));
        assert_eq!(greeting(403, ""), Greeting::Alive { server: None });
        assert_eq!(greeting(404, ""), Greeting::Alive { server: None });
    }
}
