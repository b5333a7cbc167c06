//! Removes all but the last of equal keys from a record, at any depth: the last counts.
//!
//! Clusters refuse a document in which a key is given twice, in parts too that they only store. Used only after the
//! cluster has refused the document; the file keeps both.

use twox_hash::XxHash3_128;

use crate::json::{Part, Scanner, Step};

/// A key with its value, by its place in the text without white space.
struct Member {
    /// The object that it is of, counted as they begin.
    object: u32,
    key: u128,
    from: usize,
    to: usize,
}

/// What is open around a place.
struct Open {
    /// `None`: an array.
    object: Option<u32>,
    /// The member that was begun last.
    member: usize,
}

/// The text without the members that a later one of the same object and key stands for, and without white space; `None`
/// when there are none, or the text is no JSON.
pub fn without_duplicate_keys(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let members = read_members(text, &mut out)?;
    let duplicates = duplicates(members);
    if duplicates.is_empty() {
        return None;
    }
    let (mut kept_to, mut passed_to) = (0, 0);
    for (from, to) in duplicates {
        // What stands within one that is gone is gone with it.
        if from >= passed_to {
            let kept = from - passed_to;
            out.copy_within(passed_to..from, kept_to);
            kept_to += kept;
            // The comma behind it too: there is a later one.
            passed_to = to + 1;
        }
    }
    let rest = out.len() - passed_to;
    out.copy_within(passed_to.., kept_to);
    out.truncate(kept_to + rest);
    Some(out)
}

/// Copies the text without its white space, and notes each member.
fn read_members(text: &str, out: &mut Vec<u8>) -> Option<Vec<Member>> {
    let mut members: Vec<Member> = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut objects = 0;
    let end_member = |open: &[Open], members: &mut [Member], at: usize| {
        if let Some(Open { object: Some(_), member }) = open.last()
            && let Some(member) = members.get_mut(*member)
        {
            member.to = at;
        }
    };
    let mut scanner = Scanner::new(text);
    let walked = scanner.walk(|part| {
        match part {
            Part::Mark(mark) => {
                match mark {
                    '{' => {
                        open.push(Open { object: Some(objects), member: usize::MAX });
                        objects += 1;
                    }
                    '[' => open.push(Open { object: None, member: usize::MAX }),
                    ',' => end_member(&open, &mut members, out.len()),
                    _ => {
                        end_member(&open, &mut members, out.len());
                        open.pop();
                    }
                }
                out.extend_from_slice(mark.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Part::Key(key) => {
                if let Some(Open { object: Some(object), member }) = open.last_mut() {
                    *member = members.len();
                    let hash = XxHash3_128::oneshot(key.decoded().as_bytes());
                    members.push(Member { object: *object, key: hash, from: out.len(), to: out.len() });
                }
                out.push(b'"');
                out.extend_from_slice(key.raw().as_bytes());
                out.extend_from_slice(b"\":");
            }
            Part::Value(value) => out.extend_from_slice(value.raw.as_bytes()),
        }
        Step::In
    });
    walked.and_then(|()| scanner.end()).ok().map(|()| members)
}

/// Where those members stand that have a later equal, in the order of the text.
fn duplicates(mut members: Vec<Member>) -> Vec<(usize, usize)> {
    members.sort_unstable_by_key(|member| (member.object, member.key, member.from));
    let pairs = members.iter().zip(members.iter().skip(1));
    let earlier = pairs.filter(|(one, next)| (one.object, one.key) == (next.object, next.key));
    let mut duplicates: Vec<_> = earlier.map(|(one, _)| (one.from, one.to)).collect();
    duplicates.sort_unstable();
    duplicates
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
