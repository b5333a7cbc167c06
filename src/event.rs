//! Events: parses a socket frame or a history row, decides whether it is an AudioHook event, and writes its record.
//!
//! Deals with: the fields of both formats, detecting AudioHook events, their ids, and the record line. Pure
//! functions: no clock, files or counters. Must never: change what Genesys sent.

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

/// Prefix of the topics of operational events; the definition's id follows.
/// Source: the vendor's list of notification topics, `v2.operations.events.{id}`.
pub const TOPIC_PREFIX: &str = "v2.operations.events.";

/// Prefix of the ids of AudioHook definitions.
pub const ID_PREFIX: &str = "AUDIOHOOK-";

/// Earliest plausible event time, 2015-01-01: AudioHook is younger.
const OLDEST_MS: Millis = 1_420_070_400_000;
/// How far an event's time may be after its receipt; clocks differ by less.
const FUTURE_MS_MAX: Millis = 24 * 3600 * 1000;
/// Numbers below `SECONDS_END` are seconds since 1970, then come milliseconds, microseconds and nanoseconds. Each unit
/// covers the years up to 5138.
const SECONDS_END: i64 = 100_000_000_000;
const MILLIS_END: i64 = SECONDS_END * 1000;
const MICROS_END: i64 = MILLIS_END * 1000;

/// A field of an event. Null, arrays and objects count as absent: no field of a record can hold them.
#[derive(Clone, Copy, Debug, Default)]
pub enum Field<'a> {
    #[default]
    Absent,
    Text(Text<'a>),
    /// The source text of a number or boolean.
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

    /// The decoded characters; empty if the field is absent.
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

    /// Parses an instant: ISO 8601, or a number (or its text), whose size decides between seconds, milliseconds,
    /// microseconds and nanoseconds since 1970. The vendor's guide shows milliseconds; its SDKs declare an integer.
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
        // Fractional seconds are inexact as f64: less than a microsecond short of a millisecond rounds up to it.
        Some((ms + 0.0005) as Millis)
    }
}

/// An event as Genesys sent it.
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
    /// The event's own time, if it has one.
    pub time: Option<Millis>,
    /// The source text of the body or row.
    pub raw: &'a str,
    /// Whether `raw` has white space outside its strings, possibly line feeds.
    pub raw_spaced: bool,
}

impl Event<'_> {
    /// Drops an implausible time: before 2015, or more than a day after `received`. The event then has no own time.
    fn without_impossible_time(mut self, received: Millis) -> Self {
        let latest = received.saturating_add(FUTURE_MS_MAX).min(MILLIS_MAX);
        self.time = self.time.filter(|time| (OLDEST_MS..=latest).contains(time));
        self
    }

    /// Whether this is an AudioHook event, judged by the definition's id, the entity's type or the definition's name,
    /// ignoring case.
    pub fn is_audiohook(&self) -> bool {
        let id = self.definition.decoded();
        id.get(..ID_PREFIX.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(ID_PREFIX))
            || self.entity_type.contains_audiohook()
            || self.name.contains_audiohook()
    }
}

/// Whether `text` contains `word` (lower case, ASCII), ignoring case.
fn contains_ignoring_case(text: &str, word: &str) -> bool {
    text.len() >= word.len()
        && text.as_bytes().windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

/// Reads the fields of an object; skips a value of another kind.
fn object_or_skip<'a>(
    scanner: &mut Scanner<'a>,
    field: impl FnMut(&mut Scanner<'a>, Text<'a>) -> Result<()>,
) -> Result<()> {
    if scanner.kind()? == Kind::Object { scanner.object(field) } else { scanner.value().map(drop) }
}
