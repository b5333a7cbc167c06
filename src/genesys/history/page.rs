//! One page of the history: the positions of its rows, and the path of the next page. Pure.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The content of a page.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The byte range of each row in the body.
    pub rows: Vec<Range<usize>>,
    /// The path of the next page on the API's host; `None` on the last page.
    pub next: Option<String>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    entities: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default, rename = "nextUri")]
    next_uri: Option<Cow<'a, str>>,
}

/// Parses a page.
///
/// # Errors
/// If it is not a page, or its `nextUri` leads to another host: the token must not be sent there.
pub fn parse(body: &str, api_url: &str) -> Result<Parsed, String> {
    // A list would be accepted as an object without fields.
    if !body.trim_start().starts_with('{') {
        return Err("the answer is not a page of events".to_owned());
    }
    let wire: Wire =
        serde_json::from_str(body).map_err(|error| format!("the answer is not a page of events ({error})"))?;
    let start = body.as_ptr() as usize;
    let rows = wire.entities.unwrap_or_default().into_iter().map(|row| {
        let from = row.get().as_ptr() as usize - start;
        from..from + row.get().len()
    });
    let rows = rows.collect();
    let next = match wire.next_uri.as_deref() {
        None | Some("") => None,
        Some(uri) => Some(path_of(uri, api_url).ok_or("the next page is said to be on another host")?),
    };
    Ok(Parsed { rows, next })
}

/// The path of a relative address, or of an absolute one on the same host.
fn path_of(uri: &str, api_url: &str) -> Option<String> {
    let rest = match uri.get(..api_url.len()) {
        Some(head) if head.eq_ignore_ascii_case(api_url) => &uri[api_url.len()..],
        _ => uri,
    };
    let is_path = rest.starts_with('/') && !rest.starts_with("//") && !rest.starts_with("/\\");
    let is_clean = rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\');
    (is_path && is_clean).then(|| rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = "https://api.usw2.pure.cloud";

    #[test]
    fn rows_are_found_where_they_stand() {
        let body = r#"{ "entities" : [ {"a": 1.0} , {"b":"]"}], "nextUri":"/api/v2/usage/events/query?after=x" }"#;
        let page = parse(body, API).unwrap();
        let rows: Vec<&str> = page.rows.iter().map(|row| &body[row.clone()]).collect();
        assert_eq!(rows, [r#"{"a": 1.0}"#, r#"{"b":"]"}"#]);
        assert_eq!(page.next.as_deref(), Some("/api/v2/usage/events/query?after=x"));
        assert_eq!(parse(r#"{"entities":[],"nextUri":null}"#, API).unwrap().next, None);
    }

    #[test]
    fn a_next_page_on_another_host_is_refused() {
        for next in [
            "https://api.usw2.pure.cloud.evil.example/x",
            "https://evil.example/api/v2/usage",
            "//evil.example/x",
            "/\\evil.example/x",
            "http://api.usw2.pure.cloud/x",
            "@evil.example/x",
            ".evil.example/x",
            "/a b",
        ] {
            let body = serde_json::json!({ "entities": [], "nextUri": next }).to_string();
            assert!(parse(&body, API).is_err(), "{next}");
        }
        let body = r#"{"entities":[],"nextUri":"https://API.usw2.pure.cloud/api/v2/usage/events/query?after=x"}"#;
        assert_eq!(parse(body, API).unwrap().next.as_deref(), Some("/api/v2/usage/events/query?after=x"));
    }

    #[test]
    fn a_page_without_entities_has_no_rows() {
        for body in ["{}", r#"{"entities":null}"#] {
            assert_eq!(parse(body, API), Ok(Parsed { rows: Vec::new(), next: None }), "{body}");
        }
    }

    #[test]
    fn what_is_not_a_page_is_an_error() {
        for body in ["", "<html>", "[]", r#"{"entities":{}}"#, r#"{"entities":[{"a":1}"#] {
            assert!(parse(body, API).is_err(), "{body}");
        }
    }
}
