//! What an event is: a frame of the socket or a row of the history in, a verdict and a record out.
//!
//! Deals with: which fields an event has and where they stand on either way, what makes it AudioHook's, what identifies
//! it, and the line that it becomes. Pure: no clock, no file, no count. Must never: change what Genesys sent.

mod codes;
mod definitions;
mod fields;
mod frame;
mod id;
mod line;
mod record;
mod redact;
mod row;

pub use codes::{EVENT_CODES, EventCode, event_code, event_codes_document};
pub use definitions::Definitions;
pub use fields::{FieldText, Fields, text};
pub use frame::{Verdict, judge_frame};
pub use id::{Id, Identity};
pub use line::{Line, read_line};
pub use record::{Origin, RecordWriter, Stamps};
pub use redact::{REDACTED, Redaction};
pub use row::judge_row;

use crate::clock::{MILLIS_MAX, Millis, parse_instant};
use crate::json::{Kind, Result, Scanner, Text, Value};

/// What the topics that carry operational events begin with; the definition's id follows.
/// Source: the vendor's list of notification topics, `v2.operations.events.{id}`.
pub const TOPIC_PREFIX: &str = "v2.operations.events.";

/// The ids of AudioHook's definitions begin so.
pub const ID_PREFIX: &str = "AUDIOHOOK-";

/// An event is not older: AudioHook is younger than this, 2015-01-01.
const OLDEST_MS: Millis = 1_420_070_400_000;
/// An event is not from a later time than this after its receipt; clocks differ by less.
const FUTURE_MS_MAX: Millis = 24 * 3600 * 1000;
/// Numbers below this are seconds since 1970, those below the next milliseconds, then microseconds and nanoseconds: each
/// unit covers the years up to 5138.
const SECONDS_END: i64 = 100_000_000_000;
const MILLIS_END: i64 = SECONDS_END * 1000;
const MICROS_END: i64 = MILLIS_END * 1000;

/// A field as it came: absent and null are one; so are arrays and objects, which no field of a record can be.
#[derive(Clone, Copy, Debug, Default)]
pub enum Field<'a> {
    #[default]
    Absent,
    Text(Text<'a>),
    /// A number or a boolean: its own text.
    Literal(&'a str),
}

impl<'a> Field<'a> {
    fn from_value(value: Value<'a>) -> Self {
        match value.kind {
            Kind::String => value.text().map_or(Self::Absent, Self::Text),
            Kind::Number | Kind::Bool => Self::Literal(value.raw),
            Kind::Null | Kind::Array | Kind::Object => Self::Absent,
        }
    }

    /// The characters meant, or nothing.
    pub fn decoded(self) -> std::borrow::Cow<'a, str> {
        match self {
            Self::Absent => "".into(),
            Self::Text(text) => text.decoded(),
            Self::Literal(text) => text.into(),
        }
    }

    fn contains_audiohook(self) -> bool {
        contains_ignoring_case(&self.decoded(), "audiohook")
    }

    /// The instant meant: ISO 8601, or a number or its text, whose size tells seconds since 1970 from milliseconds,
    /// microseconds and nanoseconds. The vendor's guide writes milliseconds, its SDKs call the field an integer.
    fn instant(self) -> Option<Millis> {
        let text = self.decoded();
        let text = text.trim();
        if let Ok(number) = text.parse::<i64>() {
            return match number {
                n if n < SECONDS_END => n.checked_mul(1000),
                n if n < MILLIS_END => Some(n),
                n if n < MICROS_END => Some(n / 1000),
                n => Some(n / 1_000_000),
            };
        }
        if let Some(ms) = parse_instant(text) {
            return Some(ms);
        }
        let number: f64 = text.parse().ok()?;
        let ms = match number {
            n if n < SECONDS_END as f64 => n * 1000.0,
            n if n < MILLIS_END as f64 => n,
            n if n < MICROS_END as f64 => n / 1000.0,
            n => n / 1_000_000.0,
        };
        // Seconds with a fraction are not exact: what is short of a millisecond by less than a microsecond is meant whole.
        Some((ms + 0.0005) as Millis)
    }
}

/// An event as it stands in what Genesys sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Event<'a> {
    pub definition: Field<'a>,
    pub name: Field<'a>,
    pub description: Field<'a>,
    pub conversation_id: Field<'a>,
    pub entity_type: Field<'a>,
    pub entity_id: Field<'a>,
    pub entity_name: Field<'a>,
    pub version: Field<'a>,
    pub topic: Field<'a>,
    pub error_code: Field<'a>,
    pub previous_value: Field<'a>,
    pub current_value: Field<'a>,
    /// The event's own time, where it has one.
    pub time: Option<Millis>,
    /// The body or the row, as it came.
    pub raw: &'a str,
    /// Whether `raw` has white space outside its strings, line feeds perhaps.
    pub raw_spaced: bool,
}

impl Event<'_> {
    /// Forgets a time that cannot be right: before 2015, or more than a day after `received`. It is no time of its own.
    fn without_impossible_time(mut self, received: Millis) -> Self {
        let latest = received.saturating_add(FUTURE_MS_MAX).min(MILLIS_MAX);
        self.time = self.time.filter(|time| (OLDEST_MS..=latest).contains(time));
        self
    }

    /// Whether it is one of AudioHook's: by its definition's id, its entity's type or its definition's name, whatever
    /// the case.
    pub fn is_audiohook(&self) -> bool {
        let id = self.definition.decoded();
        id.get(..ID_PREFIX.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(ID_PREFIX))
            || self.entity_type.contains_audiohook()
            || self.name.contains_audiohook()
    }
}

/// Whether `text` has `word` (lower case, ASCII) in it, whatever the case.
fn contains_ignoring_case(text: &str, word: &str) -> bool {
    text.len() >= word.len()
        && text.as_bytes().windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

/// Reads a value that may be an object: its fields one by one, or nothing where it is something else.
fn object_or_skip<'a>(
    scanner: &mut Scanner<'a>,
    field: impl FnMut(&mut Scanner<'a>, Text<'a>) -> Result<()>,
) -> Result<()> {
    if scanner.kind()? == Kind::Object { scanner.object(field) } else { scanner.value().map(drop) }
}
