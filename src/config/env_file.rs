//! Parses the settings file, which has `NAME=value` lines.
//!
//! Blank lines and `#` lines are skipped. An optional `export ` is removed, and so are ` # comment` after an unquoted
//! value and one pair of quotes around a value. Nothing is expanded: `$`, `\`, `%`, and `#` without a blank before it
//! are literal. Any other line is an error, which never shows a value.

use std::collections::BTreeMap;

/// A line that cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Counted from 1.
    pub number: usize,
    pub message: String,
}

/// Returns the names and values of a settings file, and the lines that cannot be parsed. The last value of a name
/// counts.
pub fn parse(bytes: &[u8]) -> (BTreeMap<String, String>, Vec<BadLine>) {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut values = BTreeMap::new();
    let mut bad = Vec::new();
    for (index, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let parsed = std::str::from_utf8(line).map_err(|_| "not UTF-8 text".to_owned()).and_then(parse_line);
        match parsed {
            Ok(Some((name, value))) => {
                values.insert(name.to_owned(), value.to_owned());
            }
            Ok(None) => {}
            Err(message) => bad.push(BadLine { number: index + 1, message }),
        }
    }
    (values, bad)
}

fn parse_line(line: &str) -> Result<Option<(&str, &str)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let assignment = match line.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
        _ => line,
    };
    let Some((name, value)) = assignment.split_once('=') else {
        return Err("not NAME=value".to_owned());
    };
    if !is_name(name) {
        return Err("not NAME=value: a name has letters, digits and _ only, and no blank before the =".to_owned());
    }
    if value.contains(|c: char| c.is_control() && c != '\t') {
        return Err(format!("the value of {name} contains a control character"));
    }
    unquote(value).map(|value| Some((name, value))).map_err(|message| format!("the value of {name} {message}"))
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Removes the quotes or the comment of a value.
fn unquote(value: &str) -> Result<&str, &'static str> {
    let Some(quote) = value.trim_start().chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return Ok(without_comment(value));
    };
    let inner = &value.trim()[1..];
    let whole = inner.strip_suffix(quote);
    let commented = closing_quote_before_comment(inner, quote);
    match (whole, commented) {
        // `"a" # "b"` can be read in two ways. Neither must a password be cut, nor a comment become part of it.
        (Some(_), Some(_)) => {
            Err("is ambiguous: it has a quote before a # and one at the end; put the comment on its own line")
        }
        (Some(text), None) | (None, Some(text)) => Ok(text),
        (None, None) => Err("begins with a quote but does not end with it"),
    }
}

/// The text before a closing quote that is followed only by a comment.
fn closing_quote_before_comment(inner: &str, quote: char) -> Option<&str> {
    inner.match_indices(quote).find_map(|(at, _)| {
        let rest = &inner[at + 1..];
        let comment = rest.trim_start();
        (rest.len() > comment.len() && comment.starts_with('#')).then(|| &inner[..at])
    })
}

fn without_comment(value: &str) -> &str {
    let comment = value
        .char_indices()
        .zip(value.chars().skip(1))
        .find(|((_, before), c)| matches!(before, ' ' | '\t') && *c == '#')
        .map(|((at, _), _)| at);
    value[..comment.unwrap_or(value.len())].trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(line: &str) -> String {
        let (mut values, bad) = parse(line.as_bytes());
        assert_eq!(bad, [], "{line}");
        values.remove("X").expect(line)
    }

    #[test]
    fn nothing_is_expanded() {
        for (line, expected) in [
            ("X=plain", "plain"),
            ("X=a$b${c}\\n%d`e`", "a$b${c}\\n%d`e`"),
            ("X=a#b", "a#b"),
            ("X=#b", "#b"),
            ("X=a=b==", "a=b=="),
            ("X=10485760  # 10MB", "10485760"),
            ("X=a\t# c", "a"),
            ("X= # nothing", ""),
            ("X=", ""),
            ("X=''", ""),
            ("X=  a b  ", "a b"),
            ("X=\"a # b\"", "a # b"),
            ("X=' a '", " a "),
            ("X=\"it's\"", "it's"),
            ("X='a'b'", "a'b"),
            ("X=\"\\\"", "\\"),
            ("X='a' # c", "a"),
            ("X=a\"b\"", "a\"b\""),
            ("export X=a", "a"),
            ("export\t X=a", "a"),
            ("  X=a\r", "a"),
            ("X=1\nX=2", "2"),
            ("\u{feff}X=a", "a"),
            ("X=ü", "ü"),
        ] {
            assert_eq!(value(line), expected, "{line}");
        }
    }

    #[test]
    fn any_other_line_is_reported_with_its_number_and_without_its_value() {
        let text =
            b"# fine\n\nSECRETWORD\nX = 1\nexport\n=1\n1X=1\nX='abc\nX=\"\nX='a' # 'b'\nX=\xff\nA-B=1\nX=a\x00b\nY=1\n";
        let (values, bad) = parse(text);
        let numbers: Vec<usize> = bad.iter().map(|line| line.number).collect();
        assert_eq!(numbers, [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
        assert_eq!(values.into_iter().collect::<Vec<_>>(), [("Y".to_owned(), "1".to_owned())]);
        assert!(
            bad.iter().all(|line| !line.message.contains("SECRETWORD") && !line.message.contains("abc")),
            "{bad:?}"
        );
    }
}
