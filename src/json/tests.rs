//! The scanner on valid and invalid texts.

use super::*;

fn accepts(text: &str) -> bool {
    let mut scanner = Scanner::new(text);
    scanner.value().and_then(|_| scanner.end()).is_ok()
}

#[test]
fn it_accepts_what_serde_json_accepts() {
    for text in [
        "{}",
        "[]",
        "[1,2]",
        "{\"a\":1,\"a\":2}",
        "1e400",
        "-0.0",
        "-",
        "01",
        "1.",
        ".5",
        "1e",
        "tru",
        "true",
        "null ",
        "[1,]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\x\"",
        "\"a\nb\"",
        "\"\u{7f}é😀\"",
        "",
        " ",
        "[[[]]]",
        "[[[]]",
        "{\"a\":[{\"b\":null}]} x",
        "\"12345678\\\"90\"",
        "\"1234567\u{1}\"",
        "nulll",
        "+1",
        "123456789012345678901234567890",
    ] {
        // serde_json rejects an unpaired surrogate in a string that it decodes, and accepts it in one that it skips.
        let expected = serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
        assert_eq!(accepts(text), expected, "{text:?}");
    }
}

#[test]
fn nesting_has_no_limit_and_takes_no_stack() {
    for depth in [1, 63, 64, 65, 127, 128, 129, 500_000] {
        let open = "[{\"a\":".repeat(depth);
        let close = "}]".repeat(depth);
        assert!(accepts(&format!("{open}1{close}")), "{depth}");
        assert!(!accepts(&format!("{open}1{}", &close[1..])), "{depth}");
        assert!(!accepts(&format!("{open}1{close}]")), "{depth}");
        assert!(!accepts(&open), "{depth}");
    }
}

#[test]
fn the_parts_of_a_walk_make_up_the_whole_text() {
    let text = " { \"a\" : [ 1.0 , { } , [ ] , \"x , y\" ] , \"b\" : { \"c\" : null } , \"d\" : [ { \"e\" : 1 } ] } ";
    let mut out = String::new();
    Scanner::new(text)
        .walk(|part| {
            match part {
                Part::Mark(mark) => out.push(mark),
                Part::Key(key) => out.push_str(&format!("\"{}\":", key.raw())),
                Part::Value(value) => out.push_str(value.raw),
            }
            if matches!(part, Part::Key(key) if key.is("b")) { Step::Over } else { Step::In }
        })
        .unwrap();
    assert_eq!(out, "{\"a\":[1.0,{},[],\"x , y\"],\"b\":{ \"c\" : null },\"d\":[{\"e\":1}]}");
}

#[test]
fn only_white_space_outside_strings_is_removed() {
    let mut out = Vec::new();
    push_compact(&mut out, " { \"a b\\\" c\" :\n[ 1.0 ,\t\"x\\\\\" , 2 ] } ");
    assert_eq!(String::from_utf8_lossy(&out), "{\"a b\\\" c\":[1.0,\"x\\\\\",2]}");
}

#[test]
fn escapes_are_decoded() {
    let mut scanner = Scanner::new(r#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud800x""#);
    let value = scanner.value().unwrap();
    assert_eq!(value.text().unwrap().decoded(), "a\"\\/\u{8}\u{c}\n\r\té😀\u{fffd}x");
}

#[test]
fn a_string_written_is_read_back() {
    let text = "q\" b\\ n\n \u{1} é";
    let mut out = Vec::new();
    push_string(&mut out, text);
    assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
}
