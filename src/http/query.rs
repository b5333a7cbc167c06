//! Parses a request's target into its path and query.

use percent_encoding::percent_decode_str;

/// The query's names and values, in order.
pub type Pairs = Vec<(String, Value)>;

/// Splits a target into its path and decoded query. The absolute form that clients send to proxies (`http://host/path`)
/// is accepted too.
///
/// # Errors
/// When a percent escape does not decode to UTF-8.
pub fn split(target: &str) -> Result<(&str, Pairs), String> {
    let target = target.split('#').next().unwrap_or_default();
    let target = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((decode(name)?, Value { text: decode(value)?, spaced: decode(&value.replace('+', " "))? }));
    }
    Ok((path, pairs))
}

/// A value, decoded in two ways: forms encode a space as `+`, and people type a literal `+`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub text: String,
    spaced: String,
}

impl Value {
    /// Whether either decoding is exactly this text.
    pub fn is(&self, text: &str) -> bool {
        self.text == text || self.spaced == text
    }
}

fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| "the query contains an escape that is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded() {
        let (path, pairs) = split("/events?a=%22x%22%20%e2%9c%94&&b=1+1%2B1&c#d").unwrap();
        assert_eq!(path, "/events");
        let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(pairs[0].1.is("\"x\" ✔"));
        assert!(pairs[1].1.is("1+1+1") && pairs[1].1.is("1 1+1") && !pairs[1].1.is("1 1 1"));
        assert!(pairs[2].1.is(""));
        for query in ["/?a=%ff", "/?%ff=1"] {
            assert!(split(query).is_err(), "{query}");
        }
    }

    #[test]
    fn a_target_in_absolute_form_is_its_path() {
        for (target, path) in [("http://h:1/health?x", "/health"), ("HTTP://h", "/"), ("/a://b/c", "/a://b/c")] {
            assert_eq!(split(target).unwrap().0, path);
        }
    }
}
