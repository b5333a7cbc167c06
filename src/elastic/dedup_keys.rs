//! Removes all but the last of duplicate keys from a record, at any depth.
//!
//! Clusters refuse a document with duplicate keys, even in parts that they only store. This is used only after the
//! cluster has refused the document. The file keeps all keys.

use std::collections::HashMap;

use twox_hash::XxHash3_128;

use crate::json::{Part, Scanner, Step};

/// An open object or array.
struct Open {
    /// The object's number, in the order of their beginnings; `None` for an array.
    object: Option<u32>,
    /// The object's last member so far.
    last: Option<usize>,
}

/// The text without the members that a later member of the same object and key replaces, and without white space;
/// `None` if there are no such members, or the text is not JSON.
pub fn without_duplicate_keys(text: &str) -> Option<Vec<u8>> {
    let mut compact = Vec::with_capacity(text.len());
    let mut open: Vec<Open> = Vec::new();
    let mut objects = 0;
    // Where each member begins, and where the next one in the same object begins.
    let mut members: Vec<(usize, usize)> = Vec::new();
    let mut latest = HashMap::new();
    let mut duplicates = Vec::new();
    let mut scanner = Scanner::new(text);
    let walked = scanner.walk(|part| {
        match part {
            Part::Mark('{') => {
                objects += 1;
                open.push(Open { object: Some(objects), last: None });
            }
            Part::Mark('[') => open.push(Open { object: None, last: None }),
            Part::Mark('}' | ']') => drop(open.pop()),
            Part::Key(key) => {
                if let Some(Open { object: Some(object), last }) = open.last_mut() {
                    if let Some(last) = last.replace(members.len()) {
                        members[last].1 = compact.len();
                    }
                    let key = (*object, XxHash3_128::oneshot(key.decoded().as_bytes()));
                    duplicates.extend(latest.insert(key, members.len()));
                    members.push((compact.len(), compact.len()));
                }
            }
            _ => {}
        }
        part.push(&mut compact);
        Step::In
    });
    walked.and_then(|()| scanner.end()).ok()?;
    if duplicates.is_empty() {
        return None;
    }
    duplicates.sort_unstable();
    let (mut out, mut at) = (Vec::with_capacity(compact.len()), 0);
    for (from, to) in duplicates.into_iter().map(|member| members[member]) {
        // A member inside a removed one was removed with it.
        if from >= at {
            out.extend_from_slice(&compact[at..from]);
            at = to;
        }
    }
    out.extend_from_slice(&compact[at..]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str) -> Option<String> {
        without_duplicate_keys(text).map(|out| String::from_utf8(out).unwrap())
    }

    #[test]
    fn of_a_key_given_twice_the_last_stays_at_any_depth() {
        for (text, expected) in [
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":1,"b":2,"a":3,"c":4,"a":5}"#, r#"{"b":2,"c":4,"a":5}"#),
            (r#"{ "x" : [ {"a":1, "a":[1,{"b":0}]} , 1 ] }"#, r#"{"x":[{"a":[1,{"b":0}]},1]}"#),
            (r#"{"a":{"b":1,"b":2},"c":{},"a":{"b":3}}"#, r#"{"c":{},"a":{"b":3}}"#),
            (r#"{"a":1,"\u0061":1e400}"#, r#"{"\u0061":1e400}"#),
            (r#"{"":1,"":"b c"}"#, r#"{"":"b c"}"#),
            (r#"[{"a":1},{"a":2,"a":3}]"#, r#"[{"a":1},{"a":3}]"#),
        ] {
            assert_eq!(changed(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_holds_no_key_twice_is_not_touched() {
        for text in [
            "{}",
            r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}"#,
            r#"{"a":1,"A":2,"a ":3}"#,
            "1",
            r#"{"a":1,"a":"#,
            r#"{"a":1,"a":2}}"#,
        ] {
            assert_eq!(changed(text), None, "{text}");
        }
    }

    #[test]
    fn depth_and_number_are_no_matter() {
        let deep = format!("{}1{}", r#"{"a":0,"a":"#.repeat(100_000), "}".repeat(100_000));
        assert_eq!(changed(&deep), Some(format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000))));
        let wide = format!("{{{}\"a\":7}}", r#""a":1,"#.repeat(100_000));
        assert_eq!(changed(&wide).as_deref(), Some(r#"{"a":7}"#));
    }
}
