//! Reads TOPICS_FILE: `{"topics":["v2.operations.events.AUDIOHOOK-*"]}`.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;

use super::file_checks;

/// Maximum length of the file.
const BYTES_MAX: usize = 1024 * 1024;

const EXPECTED: &str = "the file must be an object with a list, such as \
                          {\"topics\":[\"v2.operations.events.AUDIOHOOK-*\"]}";

#[derive(Deserialize)]
struct TopicsFile {
    topics: Vec<String>,
}

/// Reads the topics of the file; `None` if it does not exist and is not `required`.
///
/// # Errors
/// When the file cannot be read or is not valid. The message has the line and column.
pub fn read(path: &Path, required: bool) -> Result<Option<Vec<String>>, String> {
    match file_checks::read(path, BYTES_MAX) {
        Ok(bytes) => parse(&bytes).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => Ok(None),
        Err(error) => Err(format!("cannot read the file: {error}")),
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<String>, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // Parse it as a map first, since serde accepts an array for a struct.
    serde_json::from_slice::<HashMap<String, IgnoredAny>>(bytes)
        .and_then(|_| serde_json::from_slice(bytes))
        .map(|file: TopicsFile| file.topics)
        .map_err(|error| explain(&error))
}

fn explain(error: &serde_json::Error) -> String {
    let place = format!("line {}, column {}", error.line(), error.column());
    match error.classify() {
        Category::Data => format!("not a list of topics at {place}; {EXPECTED}"),
        Category::Eof => format!("invalid JSON: it ends too early, at {place}; {EXPECTED}"),
        _ => format!("invalid JSON at {place} (a comma or quote too many, or too few?); {EXPECTED}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_is_reported_with_line_and_column() {
        let error = parse(b"{\"topics\":[\n  \"a\",,\n]}").unwrap_err();
        assert!(error.starts_with("invalid JSON at line 2, column 7 (a comma "), "{error}");
        assert_eq!(parse(b"\xef\xbb\xbf{\"topics\":[\"a\"]}").unwrap(), ["a"]);
        assert_eq!(read(Path::new("/no/such/topics.json"), false), Ok(None));
        assert!(read(Path::new("/no/such/topics.json"), true).is_err());
    }

    #[test]
    fn whatever_is_not_an_object_with_topics_is_refused_with_the_right_form() {
        for text in [
            "",
            "[]",
            r#"[["v2.operations.events.AUDIOHOOK-*"]]"#,
            "null",
            "7",
            "\"topics\"",
            "topics: [a]",
            "{}",
            r#"{"topics":"a"}"#,
            r#"{"topics":[1]}"#,
            r#"{"topics":null}"#,
            r#"{"topic":["a"]}"#,
            r#"{"topics":["a"]} x"#,
        ] {
            let error = parse(text.as_bytes()).expect_err(text);
            assert!(error.ends_with(EXPECTED) && error.contains("line 1, column"), "{text}: {error}");
        }
        let quoted = parse(format!("\"{}\"", "é".repeat(10_000)).as_bytes()).unwrap_err();
        assert!(quoted.len() < 600, "{quoted}");
    }
}
