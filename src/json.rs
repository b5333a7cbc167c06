//! A zero-copy JSON scanner: in one pass it finds what kind a value is and where it ends. With serde_json's raw values,
//! each nesting level of an event needs another pass, which costs 40 % more CPU per event.
//!
//! It reads strict JSON (RFC 8259) in valid UTF-8 and is for the path of every event; elsewhere, serde_json is used.
//! Must never: change a value, accept invalid JSON, or recurse: a text may nest as deep as it is long, and a thread's
//! stack is small.

use std::borrow::Cow;
use std::fmt;

/// Why a text is not valid JSON.
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

pub type Result<T> = std::result::Result<T, Fault>;

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

/// The source text of a string: without its quotes, with its escapes.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// `raw` is the source text of a JSON string, without its quotes.
    pub fn from_raw(raw: &'a str) -> Self {
        Self { raw, escaped: raw.contains('\\') }
    }

    /// The source text, which forms a JSON string when put between quotes.
    pub fn raw(self) -> &'a str {
        self.raw
    }

    /// The characters, with escapes decoded. An unpaired surrogate becomes U+FFFD.
    pub fn decoded(self) -> Cow<'a, str> {
        if self.escaped { Cow::Owned(decode(self.raw)) } else { Cow::Borrowed(self.raw) }
    }

    pub fn is(self, other: &str) -> bool {
        if self.escaped { decode(self.raw) == other } else { self.raw == other }
    }
}

/// A complete value of any kind.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    pub kind: Kind,
    /// The value's source text, including a string's quotes.
    pub raw: &'a str,
    escaped: bool,
}

impl<'a> Value<'a> {
    /// The string, if the value is one.
    pub fn text(self) -> Option<Text<'a>> {
        (self.kind == Kind::String).then(|| Text { raw: &self.raw[1..self.raw.len() - 1], escaped: self.escaped })
    }
}

/// A part of a value.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// A bracket or a comma.
    Mark(char),
    /// A key, with the colon after it.
    Key(Text<'a>),
    /// A string, number, boolean or null, or any value after a key that got [`Step::Over`].
    Value(Value<'a>),
}

impl Part<'_> {
    /// Appends the part's source text.
    pub fn push(self, out: &mut Vec<u8>) {
        match self {
            Self::Mark(mark) => out.push(mark as u8),
            Self::Key(key) => {
                out.push(b'"');
                out.extend_from_slice(key.raw().as_bytes());
                out.extend_from_slice(b"\":");
            }
            Self::Value(value) => out.extend_from_slice(value.raw.as_bytes()),
        }
    }
}

/// How [`Scanner::walk`] passes on the value after a key: in parts or as a whole. Ignored after other parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    In,
    Over,
}

const NO_COMMA: &str = "expected a comma or the end of the object or array";

/// A text and the current position in it.
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
    spaced: bool,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, spaced: false }
    }

    /// Whether white space outside strings was read since the last call.
    pub fn take_spaced(&mut self) -> bool {
        std::mem::take(&mut self.spaced)
    }

    /// The current position, in bytes.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The text from an earlier position up to the current one.
    pub fn since(&self, position: usize) -> &'a str {
        &self.text[position..self.at]
    }

    /// Skips white space and returns the kind of the next value.
    pub fn kind(&mut self) -> Result<Kind> {
        self.skip_space();
        match self.peek() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(_) => self.fault("expected a value"),
            None => self.fault("unexpected end"),
        }
    }

    /// Reads an object. Calls `field` at each key; `field` must read the value with one call on the scanner.
    pub fn object(&mut self, mut field: impl FnMut(&mut Self, Text<'a>) -> Result<()>) -> Result<()> {
        self.skip_space();
        if !self.take(b'{') {
            return self.fault("expected an object");
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

    /// Reads a value and calls `each` with its parts in order. Joined, the parts are the value's text without white
    /// space. The [`Step`] returned for a key decides whether the key's value is passed in parts or as a whole.
    pub fn walk(&mut self, mut each: impl FnMut(Part<'a>) -> Step) -> Result<()> {
        // For each open bracket, whether it opened an object.
        let mut nest = Vec::new();
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
            // Closes every object and array that ends here.
            loop {
                let Some(&is_object) = nest.last() else { return Ok(()) };
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

    /// Checks that only white space is left.
    pub fn end(&mut self) -> Result<()> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { self.fault("unexpected data after the value") }
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

    /// Reads a key and its colon.
    #[inline]
    fn key(&mut self) -> Result<Text<'a>> {
        self.skip_space();
        let key = self.string()?;
        self.skip_space();
        if self.take(b':') { Ok(key) } else { self.fault("expected a colon") }
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
            return self.fault("expected a string");
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
                Some(_) => return self.fault("control character in a string"),
                None => return self.fault("unterminated string"),
            }
        }
    }

    fn escape(&mut self) -> Result<()> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        self.at += match rest {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', digits @ ..] if digits.len() >= 4 && digits[..4].iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return self.fault("invalid escape"),
        };
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
        if self.at == from { self.fault("expected a digit") } else { Ok(()) }
    }

    fn literal(&mut self) -> Result<()> {
        let rest = &self.text[self.at..];
        let Some(word) = ["true", "false", "null"].into_iter().find(|word| rest.starts_with(word)) else {
            return self.fault("expected a value");
        };
        self.at += word.len();
        Ok(())
    }
}

/// The position of the next quote, backslash or control character; checks eight bytes at a time.
#[inline]
fn next_special(bytes: &[u8], from: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut at = from;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or([0; 8]));
        let quote = word ^ (ONES * b'"' as u64);
        let slash = word ^ (ONES * b'\\' as u64);
        // Only the lowest flagged byte is exact; higher flags may be false positives.
        let found = (quote.wrapping_sub(ONES) & !quote
            | slash.wrapping_sub(ONES) & !slash
            | word.wrapping_sub(ONES * 0x20) & !word)
            & HIGHS;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let special = |b: &u8| matches!(b, b'"' | b'\\' | 0..=0x1f);
    bytes[at..].iter().position(special).map_or(bytes.len(), |further| at + further)
}

/// Appends valid JSON without the white space outside its strings, so that it is always one line.
pub fn push_compact(out: &mut Vec<u8>, json: &str) {
    let pushed = Scanner::new(json).walk(|part| {
        part.push(out);
        Step::In
    });
    debug_assert!(pushed.is_ok(), "only valid JSON can be compacted");
}

/// Appends a text as a JSON string, quotes included.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    let written = serde_json::to_writer(out, text);
    debug_assert!(written.is_ok(), "writing a string to a buffer cannot fail");
}

fn decode(raw: &str) -> String {
    let mut units = Vec::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        let meant = match c {
            '\\' => match chars.next() {
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('u') => {
                    let digits = chars.as_str().get(..4).unwrap_or_default();
                    chars = chars.as_str().get(4..).unwrap_or_default().chars();
                    units.push(u16::from_str_radix(digits, 16).unwrap_or(0xfffd));
                    continue;
                }
                other => other.unwrap_or(char::REPLACEMENT_CHARACTER),
            },
            c => c,
        };
        units.extend_from_slice(meant.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests;
