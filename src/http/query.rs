//! The query of a request's target.
//!
//! Deals with: splitting and percent-decoding, as browsers and HTTP libraries encode.

/// Names and values, in the order they came.
pub type Pairs = Vec<(String, Value)>;

/// The path, and the query's names and values, decoded.
///
/// # Errors
/// When an escape is broken or what it stands for is no UTF-8.
pub fn split(target: &str) -> Result<(&str, Pairs), String> {
    let target = target.split('#').next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((decode(name, true)?, Value { text: decode(value, false)?, spaced: decode(value, true)? }));
    }
    Ok((path, pairs))
}

/// A value, read both ways: forms write a blank as `+`, people write a `+` as itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub text: String,
    spaced: String,
}

impl Value {
    /// Whether it stands for exactly this text.
    pub fn is(&self, text: &str) -> bool {
        self.text == text || self.spaced == text
    }
}

fn decode(text: &str, plus_is_blank: bool) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'%' => {
                let digit = |at: usize| after.get(at).and_then(|b| char::from(*b).to_digit(16));
                let (Some(high), Some(low)) = (digit(0), digit(1)) else {
                    return Err("the query holds a % that two hex digits do not follow; write it as %25".into());
                };
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            b'+' if plus_is_blank => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).map_err(|_| "the query holds an escape that is no UTF-8".into())
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
    }

    #[test]
    fn broken_escapes_are_refused() {
        for query in ["/?a=%", "/?a=%4", "/?a=%zz", "/?a=%ff", "/?%f=1"] {
            assert!(split(query).is_err(), "{query}");
        }
    }
}
