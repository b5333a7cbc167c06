//! Puts the index template where it is absent.
//!
//! Deals with: asking what is there, and one `PUT`. Must never: overwrite a template, or outrank one of the user's own.

use std::io;
use std::time::Duration;

use serde_json::Value;
use ureq::http::Method;

use crate::clock::Clock;
use crate::config;
use crate::elastic::carrier::{Carrier, Failure};
use crate::elastic::template::{self, PRIORITY};
use crate::elastic::verdict::{self, Reply};

/// Time for each of the few requests.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setup {
    /// It is there now.
    Put { data_stream: bool },
    /// It was there.
    Present,
    /// Another template speaks for the index, and ours would have to outrank it.
    Left(String),
    /// The cluster's user may not.
    Refused(String),
    /// It could not be found out, or the cluster would not have it.
    Failed(String),
    /// Not now: the cluster is busy, or not up yet.
    Busy(String),
    /// Nobody answered.
    Unreachable(String),
}

/// What the cluster holds for the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Present,
    /// Absent; the name of another template may be known that decides instead.
    Absent {
        data_stream: bool,
        decides: Option<String>,
    },
    Left(String),
}

/// Puts the template unless it is there, or another one would be outranked by it.
pub fn put_if_absent(carrier: &Carrier, node: usize, index: &str) -> Setup {
    match look(carrier, node, index) {
        Ok(Found::Present) => Setup::Present,
        Ok(Found::Left(why)) => Setup::Left(why),
        Ok(Found::Absent { data_stream, .. }) => {
            let path = template_path(index);
            // `create=true`: should it be there by now, it is left as it is.
            let text = template::text(index, data_stream);
            let put = carrier.call(node, Method::PUT, &format!("{path}?create=true"), Some(&text), REQUEST_TIMEOUT);
            match put {
                Err(failure) => Setup::Unreachable(failure.why),
                Ok(reply) => match reply.status {
                    200..=299 => Setup::Put { data_stream },
                    401 | 403 => Setup::Refused(told(&reply)),
                    400 if told(&reply).contains("already exists") => Setup::Present,
                    _ => trouble(&reply),
                },
            }
        }
        Err(trouble) => trouble,
    }
}

/// Asks what is there.
///
/// # Errors
/// Why the cluster does not say.
pub fn look(carrier: &Carrier, node: usize, index: &str) -> Result<Found, Setup> {
    // Names that the cluster computes from the date have no template of their own.
    if index.starts_with('<') {
        return Ok(Found::Left("the index name is computed from the date".to_owned()));
    }
    let ask = |path: &str| answer_of(carrier.call(node, Method::GET, path, None, REQUEST_TIMEOUT));
    if ask(&format!("{}?filter_path=index_templates.name", template_path(index)))?.is_some() {
        return Ok(Found::Present);
    }
    let old = ask("/_template?filter_path=*.index_patterns")?.unwrap_or_default();
    if let Some(name) = template::legacy(&old, index) {
        return Ok(Found::Left(format!(
            "the older template {name:?} matches the index, and any new one would put it out of force"
        )));
    }
    let all = ask(
        "/_index_template?filter_path=index_templates.name,index_templates.index_template.index_patterns,index_templates.index_template.priority,index_templates.index_template.data_stream",
    )?
    .unwrap_or_default();
    if let Some(name) = template::any_with_priority(&all, index, PRIORITY) {
        return Ok(Found::Left(format!("the template {name:?} matches the index")));
    }
    let decides = template::deciding(&all, index);
    let data_stream = decides.as_ref().is_some_and(|other| other.data_stream) || is_data_stream(carrier, node, index)?;
    Ok(Found::Absent { data_stream, decides: decides.map(|other| other.name) })
}

/// Whether the index is there and is a data stream.
///
/// # Errors
/// Why the cluster does not say.
pub fn is_data_stream(carrier: &Carrier, node: usize, index: &str) -> Result<bool, Setup> {
    let path = format!("/{}?filter_path=*.data_stream", encoded(index));
    let there = answer_of(carrier.call(node, Method::GET, &path, None, REQUEST_TIMEOUT))?.unwrap_or_default();
    Ok(there.as_object().is_some_and(|indexes| indexes.values().any(|index| index.get("data_stream").is_some())))
}

/// The template's text as this cluster would get it; where it does not answer, or none is set, that of an index.
///
/// # Errors
/// When ELASTIC_CA_FILE or HTTPS_PROXY cannot be used.
pub fn text_for(elastic: Option<&config::Elastic>, network: &config::Network, clock: &Clock) -> io::Result<String> {
    /// What ELASTIC_INDEX is unless set.
    const INDEX: &str = "genesys-audiohook";
    let Some(elastic) = elastic else { return Ok(template::text(INDEX, false)) };
    let carrier = Carrier::new(elastic, network, clock.clone())?;
    let data_stream = (0..carrier.nodes()).find_map(|node| match look(&carrier, node, &elastic.index) {
        Ok(Found::Absent { data_stream, .. }) => Some(data_stream),
        Ok(_) => is_data_stream(&carrier, node, &elastic.index).ok(),
        Err(_) => None,
    });
    Ok(template::text(&elastic.index, data_stream.unwrap_or(false)))
}

fn template_path(index: &str) -> String {
    format!("/_index_template/{}", encoded(&template::name(index)))
}

/// An answer's document; `None` for 404.
fn answer_of(answered: Result<Reply, Failure>) -> Result<Option<Value>, Setup> {
    let reply = answered.map_err(|failure| Setup::Unreachable(failure.why))?;
    match reply.status {
        200 => match serde_json::from_slice::<Value>(&reply.body) {
            Ok(document) if document.is_object() => Ok(Some(document)),
            _ => Err(Setup::Failed("it answers 200 with something that is no cluster's answer".to_owned())),
        },
        404 => Ok(None),
        401 | 403 => Err(Setup::Refused(told(&reply))),
        _ => Err(trouble(&reply)),
    }
}

/// What another status means.
fn trouble(reply: &Reply) -> Setup {
    match reply.status {
        408 | 429 | 500..=599 => Setup::Busy(told(reply)),
        _ => Setup::Failed(told(reply)),
    }
}

fn told(reply: &Reply) -> String {
    format!("it answers {}{}", reply.status, verdict::words_of_body(&reply.body))
}

/// A name as a part of a path.
pub fn encoded(name: &str) -> String {
    use std::fmt::Write;
    let mut path = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            path.push(char::from(byte));
        } else {
            // Writing into a text does not fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_in_a_path() {
        assert_eq!(encoded("genesys-audiohook_1.x"), "genesys-audiohook_1.x");
        assert_eq!(encoded("a/b?c d"), "a%2Fb%3Fc%20d");
    }

    #[test]
    fn answers_are_told_apart() {
        let reply = |status, body: &str| Ok(Reply { status, retry_after: None, body: body.as_bytes().to_vec() });
        assert_eq!(answer_of(reply(404, "{}")), Ok(None));
        assert_eq!(answer_of(reply(200, "{}")), Ok(Some(serde_json::json!({}))));
        assert!(matches!(answer_of(reply(200, "<html>")), Err(Setup::Failed(_))));
        assert!(matches!(answer_of(reply(403, "{}")), Err(Setup::Refused(_))));
        assert!(matches!(answer_of(reply(503, "{}")), Err(Setup::Busy(_))));
        assert!(matches!(answer_of(reply(405, "{}")), Err(Setup::Failed(_))));
    }
}
