//! A scanner that reads JSON where it stands: it decides in one pass what a value is and where it ends, and copies
//! nothing.
//!
//! Deals with: strict JSON (RFC 8259) in valid UTF-8, in the path that every event takes. Must never: change a value,
//! accept what is not JSON, or recurse: a text may nest as deep as it is long, and a stage's stack is small. Where speed
//! is not the point, serde_json is used.

use std::borrow::Cow;
use std::fmt;

/// Why a text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub what: &'static str,
    /// Bytes from the beginning of the text.
    pub at: usize,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for Fault {}

pub type Result<T> = std::result::Result<T, Fault>;

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

/// A string as it stands between its quotes, escapes and all.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// A string written as JSON, without its quotes.
    pub fn from_raw(raw: &'a str) -> Self {
        Self { raw, escaped: raw.contains('\\') }
    }

    /// The text between the quotes: JSON's own writing, fit to be put between quotes again.
    pub fn raw(self) -> &'a str {
        self.raw
    }

    /// The characters meant. Half a surrogate pair becomes U+FFFD.
    pub fn decoded(self) -> Cow<'a, str> {
        if self.escaped { Cow::Owned(decode(self.raw)) } else { Cow::Borrowed(self.raw) }
    }

    pub fn is(self, other: &str) -> bool {
        if self.escaped { decode(self.raw) == other } else { self.raw == other }
    }
}

/// A whole value, of whatever kind, as it stands.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    pub kind: Kind,
    /// The value's text, a string's quotes included.
    pub raw: &'a str,
    escaped: bool,
}

impl<'a> Value<'a> {
    /// The string it is, if it is one.
    pub fn text(self) -> Option<Text<'a>> {
        (self.kind == Kind::String).then(|| Text { raw: &self.raw[1..self.raw.len() - 1], escaped: self.escaped })
    }
}

/// A part of a value.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// A bracket or a comma.
    Mark(char),
    /// A key, which a colon follows.
    Key(Text<'a>),
    /// A string, a number, a boolean or null; or any value that is handed over as a whole.
    Value(Value<'a>),
}

/// How a key's value is to be handed over; it means nothing for what is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    In,
    Over,
}

/// What brackets are open, a bit each: those beyond the first 64 on the heap.
#[derive(Default)]
struct Nest {
    top: u64,
    depth: u32,
    below: Vec<u64>,
}

impl Nest {
    fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(u64::BITS) {
            self.below.push(self.top);
        }
        self.depth += 1;
        self.top = self.top << 1 | u64::from(is_object);
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.top >>= 1;
        if self.depth.is_multiple_of(u64::BITS)
            && let Some(below) = self.below.pop()
        {
            self.top = below;
        }
    }

    /// Whether the innermost open bracket is an object's.
    fn top(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.top & 1 == 1)
    }
}

const NO_COMMA: &str = "a comma or the end of the object or list was expected";

/// A place in a text.
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
    spaced: bool,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, spaced: false }
    }

    /// Whether white space was met outside strings since this was last asked.
    pub fn take_spaced(&mut self) -> bool {
        std::mem::take(&mut self.spaced)
    }

    /// Bytes from the beginning.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The text from an earlier position up to here.
    pub fn since(&self, position: usize) -> &'a str {
        &self.text[position..self.at]
    }

    /// What comes next, after white space.
    pub fn kind(&mut self) -> Result<Kind> {
        self.skip_space();
        match self.peek() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(_) => self.fault("a value was expected"),
            None => self.fault("the text ends too early"),
        }
    }

    /// Reads an object; `field` is called at each key and reads its value by one call on the scanner.
    pub fn object(&mut self, mut field: impl FnMut(&mut Self, Text<'a>) -> Result<()>) -> Result<()> {
        self.skip_space();
        if !self.take(b'{') {
            return self.fault("an object was expected");
        }
        self.skip_space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.key()?;
            field(self, key)?;
            self.skip_space();
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return self.fault(NO_COMMA);
            }
        }
    }

    /// Reads a value of any kind.
    pub fn value(&mut self) -> Result<Value<'a>> {
        let kind = self.kind()?;
        let from = self.at;
        let mut escaped = false;
        match kind {
            Kind::String => escaped = self.string()?.escaped,
            Kind::Number => self.number()?,
            Kind::Bool | Kind::Null => self.literal()?,
            Kind::Object | Kind::Array => self.walk(|_| Step::In)?,
        }
        Ok(Value { kind, raw: self.since(from), escaped })
    }

    /// Reads a value, and hands over each part of it as it comes: together, without the white space, they are its text.
    /// What is answered to a key decides whether the key's value is handed over in parts or as a whole.
    pub fn walk(&mut self, mut each: impl FnMut(Part<'a>) -> Step) -> Result<()> {
        let mut nest = Nest::default();
        loop {
            let kind = self.kind()?;
            let mut inside = match kind {
                Kind::Object | Kind::Array => {
                    self.at += 1;
                    each(Part::Mark(if kind == Kind::Object { '{' } else { '[' }));
                    nest.push(kind == Kind::Object);
                    true
                }
                _ => {
                    each(Part::Value(self.value()?));
                    false
                }
            };
            // What ends here, perhaps with all that it stands in.
            loop {
                let Some(is_object) = nest.top() else { return Ok(()) };
                self.skip_space();
                if self.take(if is_object { b'}' } else { b']' }) {
                    nest.pop();
                    each(Part::Mark(if is_object { '}' } else { ']' }));
                    inside = false;
                    continue;
                }
                if !std::mem::take(&mut inside) {
                    if !self.take(b',') {
                        return self.fault(NO_COMMA);
                    }
                    each(Part::Mark(','));
                }
                if !is_object {
                    break;
                }
                let key = self.key()?;
                if each(Part::Key(key)) == Step::In {
                    break;
                }
                each(Part::Value(self.value()?));
            }
        }
    }

    /// Nothing but white space may be left.
    pub fn end(&mut self) -> Result<()> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { self.fault("something stands behind the value") }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn fault<T>(&self, what: &'static str) -> Result<T> {
        Err(Fault { what, at: self.at })
    }

    /// A key and its colon.
    #[inline]
    fn key(&mut self) -> Result<Text<'a>> {
        self.skip_space();
        let key = self.string()?;
        self.skip_space();
        if self.take(b':') { Ok(key) } else { self.fault("a colon was expected") }
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.spaced = true;
            self.at += 1;
        }
    }

    #[inline]
    fn string(&mut self) -> Result<Text<'a>> {
        if !self.take(b'"') {
            return self.fault("a string was expected");
        }
        let bytes = self.text.as_bytes();
        let from = self.at;
        let mut escaped = false;
        loop {
            self.at = next_special(bytes, self.at);
            match self.peek() {
                Some(b'"') => {
                    let raw = &self.text[from..self.at];
                    self.at += 1;
                    return Ok(Text { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return self.fault("a control character stands in a string"),
                None => return self.fault("a string does not end"),
            }
        }
    }

    fn escape(&mut self) -> Result<()> {
        let bytes = self.text.as_bytes();
        match bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let digits = bytes.get(self.at + 2..self.at + 6);
                if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
                    return self.fault("an escape is not one of JSON's");
                }
                self.at += 6;
            }
            _ => return self.fault("an escape is not one of JSON's"),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<()> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<()> {
        let from = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == from { self.fault("a digit was expected") } else { Ok(()) }
    }

    fn literal(&mut self) -> Result<()> {
        let rest = &self.text.as_bytes()[self.at..];
        for word in ["true", "false", "null"] {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(());
            }
        }
        self.fault("a value was expected")
    }
}

/// Where the next quote, backslash or control character stands, eight bytes at a time.
#[inline]
fn next_special(bytes: &[u8], from: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut at = from;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or([0; 8]));
        let quote = word ^ (ONES * b'"' as u64);
        let slash = word ^ (ONES * b'\\' as u64);
        // The lowest byte flagged is exact; those above it may be false, which is why only the lowest is used.
        let found = (quote.wrapping_sub(ONES) & !quote
            | slash.wrapping_sub(ONES) & !slash
            | word.wrapping_sub(ONES * 0x20) & !word)
            & HIGHS;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(b) = bytes.get(at) {
        if matches!(b, b'"' | b'\\' | 0..=0x1f) {
            break;
        }
        at += 1;
    }
    at
}

/// Appends valid JSON without the white space outside its strings: one line, whatever came.
pub fn push_compact(out: &mut Vec<u8>, json: &str) {
    let bytes = json.as_bytes();
    let (mut from, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b' ' | b'\n' | b'\r' | b'\t' => {
                out.extend_from_slice(&bytes[from..at]);
                at += 1;
                from = at;
            }
            b'"' => {
                at = next_special(bytes, at + 1);
                while bytes.get(at) == Some(&b'\\') {
                    at = next_special(bytes, at + 2);
                }
                at += 1;
            }
            _ => at += 1,
        }
    }
    out.extend_from_slice(&bytes[from..]);
}

/// Appends a text as a JSON string, quotes included.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for &b in text.as_bytes() {
        match b {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..=0x1f => out.extend_from_slice(format!("\\u{b:04x}").as_bytes()),
            _ => out.push(b),
        }
    }
    out.push(b'"');
}

fn decode(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let (meant, length) = match rest.as_bytes().get(at + 1) {
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b't') => ('\t', 2),
            Some(b'u') => decode_unicode(&rest[at..]),
            Some(other) => (char::from(*other), 2),
            None => (char::REPLACEMENT_CHARACTER, 1),
        };
        out.push(meant);
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    out
}

/// The character of `\uXXXX`, or of two of them that make a pair, and how many bytes they take.
fn decode_unicode(escape: &str) -> (char, usize) {
    let unit = |from: usize| escape.get(from..from + 4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let first = unit(2).unwrap_or(0xfffd);
    if (0xd800..0xdc00).contains(&first)
        && escape.get(6..8) == Some("\\u")
        && let Some(second) = unit(8).filter(|unit| (0xdc00..0xe000).contains(unit))
    {
        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 6)
}

#[cfg(test)]
mod tests;
