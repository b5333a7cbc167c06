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

use crate::clock::{Millis, parse_instant};
use crate::json::{Kind, Result, Scanner, Text, Value};

/// What the topics that carry operational events begin with; the definition's id follows.
/// Source: the vendor's list of notification topics, `v2.operations.events.{id}`.
pub const TOPIC_PREFIX: &str = "v2.operations.events.";

/// The ids of AudioHook's definitions begin so.
pub const ID_PREFIX: &str = "AUDIOHOOK-";

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

    /// The instant meant: milliseconds since 1970 as a number or its text, or ISO 8601.
    fn instant(self) -> Option<Millis> {
        let text = self.decoded();
        let text = text.trim();
        if let Ok(ms) = text.parse::<i64>() {
            return (0..=crate::clock::MILLIS_MAX).contains(&ms).then_some(ms);
        }
        if let Some(ms) = parse_instant(text) {
            return Some(ms);
        }
        let ms: f64 = text.parse().ok()?;
        (ms.is_finite() && (0.0..=crate::clock::MILLIS_MAX as f64).contains(&ms)).then_some(ms as i64)
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

impl<'a> Event<'a> {
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
