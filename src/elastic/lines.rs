//! A line of the file as the cluster needs it: where its time and its id stand.
//!
//! Deals with: finding top-level fields in a JSON object without parsing what is only carried. Must never: change a byte
//! of a record.

use std::borrow::Cow;

use twox_hash::XxHash3_128;

use crate::event::read_line;

/// What the cluster needs of a line. The texts are the line's own bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    /// The value of `timestamp`, quotes and all.
    pub timestamp: Option<&'a [u8]>,
    /// The text of `id`, between its quotes.
    pub id: Option<&'a [u8]>,
    /// Whether the line brings an `@timestamp` of its own.
    pub has_at_timestamp: bool,
}

impl<'a> Fields<'a> {
    /// The id, or for a record that has none, the predecessor's, one that is the same in every run: its event's.
    pub fn id_or_computed(&self, line: &[u8]) -> Cow<'a, [u8]> {
        self.id.map_or_else(|| Cow::Owned(computed_id(line).into_bytes()), Cow::Borrowed)
    }
}

fn computed_id(line: &[u8]) -> String {
    let read = std::str::from_utf8(line).ok().and_then(|text| read_line(text, &mut Vec::new()).ok());
    // What is no record in all strictness has an id of its text.
    read.map_or_else(|| format!("{:032x}", XxHash3_128::oneshot(line)), |record| record.id.to_string())
}

/// The fields of a line without its line feed; `None` for a line that is no JSON object: torn, or somebody else's.
///
/// A record's large part, `raw_event`, comes last and is not looked into; what is wrong in there, the cluster says.
pub fn fields(line: &[u8]) -> Option<Fields<'_>> {
    if line.first() != Some(&b'{') || line.last() != Some(&b'}') {
        return None;
    }
    let mut found = Fields::default();
    let mut at = skip_blanks(line, 1);
    if line[at] == b'}' {
        return (at + 1 == line.len()).then_some(found);
    }
    loop {
        let key_end = skip_string(line, at)?;
        let key = &line[at + 1..key_end - 1];
        at = skip_blanks(line, key_end);
        if line.get(at) != Some(&b':') {
            return None;
        }
        at = skip_blanks(line, at + 1);
        if key == b"raw_event" && found.id.is_some() {
            return Some(found);
        }
        let value_end = skip_value(line, at)?;
        let value = &line[at..value_end];
        match key {
            b"timestamp" => found.timestamp = Some(value).filter(|value| value.len() > 2 && value[0] == b'"'),
            b"id" => found.id = plain_text(value),
            b"@timestamp" => found.has_at_timestamp = true,
            _ => {}
        }
        at = skip_blanks(line, value_end);
        match line.get(at) {
            Some(b',') => at = skip_blanks(line, at + 1),
            Some(b'}') => return (at + 1 == line.len()).then_some(found),
            _ => return None,
        }
    }
}

/// The text of a JSON string that stands for itself and is fit for an `_id`.
fn plain_text(value: &[u8]) -> Option<&[u8]> {
    /// Bytes of an `_id` that every cluster takes.
    const ID_BYTES_MAX: usize = 512;
    let text = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    ((1..=ID_BYTES_MAX).contains(&text.len()) && text.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'\\'))
        .then_some(text)
}

fn skip_blanks(line: &[u8], mut at: usize) -> usize {
    while matches!(line.get(at), Some(b' ' | b'\t' | b'\r')) {
        at += 1;
    }
    at
}

/// The place behind the string that begins here.
fn skip_string(line: &[u8], at: usize) -> Option<usize> {
    if line.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        at += find_quote_or_backslash(line.get(at..)?)?;
        if line[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Eight bytes at a time: every document goes through here.
fn find_quote_or_backslash(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    /// The highest bit of the first byte that is this one is set; above it, bits may be set that mean nothing.
    fn equal(word: u64, byte: u8) -> u64 {
        let differing = word ^ (ONES * u64::from(byte));
        differing.wrapping_sub(ONES) & !differing & HIGHS
    }
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = equal(word, b'"') | equal(word, b'\\');
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).map(|at| words.len() * 8 + at)
}

/// The place behind the value that begins here.
fn skip_value(line: &[u8], at: usize) -> Option<usize> {
    match line.get(at)? {
        b'"' => skip_string(line, at),
        b'{' | b'[' => skip_nested(line, at),
        _ => {
            let length = line[at..].iter().position(|byte| matches!(byte, b',' | b'}' | b' ' | b'\t' | b'\r'))?;
            let scalar = &line[at..at + length];
            let is_scalar = matches!(scalar, b"null" | b"true" | b"false")
                || scalar.first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'-');
            is_scalar.then_some(at + length)
        }
    }
}

/// The place behind the object or array that begins here, however deep it goes.
fn skip_nested(line: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0usize;
    loop {
        match line.get(at)? {
            b'"' => {
                at = skip_string(line, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_and_the_id_are_found_wherever_they_stand() {
        let ours =
            br#"{"timestamp":"2026-11-20T10:30:45.123Z","event_id":"x \" } \\","id":"abc","raw_event":{"id":"no"}}"#;
        let found = fields(ours).unwrap();
        assert_eq!(found.timestamp, Some(&br#""2026-11-20T10:30:45.123Z""#[..]));
        assert_eq!((found.id, found.has_at_timestamp), (Some(&b"abc"[..]), false));
        let legacy = br#"{"timestamp": "t", "version": "1.0", "n": -1.5e3, "raw_event": {"a": [1, {"id": "}"}]}}"#;
        assert_eq!(fields(legacy).unwrap().timestamp, Some(&br#""t""#[..]));
        assert_eq!(fields(legacy).unwrap().id, None);
        let late = br#"{"raw_event":{"id":"no"},"id":"yes","@timestamp":"t"}"#;
        assert_eq!(fields(late), Some(Fields { timestamp: None, id: Some(b"yes"), has_at_timestamp: true }));
        assert_eq!(fields(b"{}"), Some(Fields::default()));
    }

    #[test]
    fn an_id_that_no_cluster_takes_is_none() {
        for id in [r#""""#, "null", "7", r#""with blank""#, r#""esc\u0041""#] {
            let line = format!(r#"{{"timestamp":null,"id":{id}}}"#);
            assert_eq!(fields(line.as_bytes()), Some(Fields::default()), "{line}");
        }
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(513));
        assert_eq!(fields(long.as_bytes()).unwrap().id, None);
    }

    #[test]
    fn torn_and_foreign_lines_are_no_objects() {
        for line in [
            "",
            "{",
            "}",
            "plain text",
            "[1,2]",
            r#"{"timestamp":"2026"#,
            r#"{"a":1,"raw_event":{"b":2}"#,
            r#"{"a":1}{"b":2}"#,
            r#"{"timestamp":"20{"timestamp":"2026","id":"a"}"#,
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            r#"{"a":nope}"#,
            r#"{"a":"\}"#,
        ] {
            assert_eq!(fields(line.as_bytes()), None, "{line}");
        }
    }
}
