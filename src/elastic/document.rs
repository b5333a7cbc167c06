//! A record as the cluster may have it.
//!
//! Deals with: the id of a line that has none, and hiding what REDACT_FIELDS names in lines that were written before it
//! was set. Must never: change a byte of a line of which nothing is to be hidden.

use std::borrow::Cow;

use crate::elastic::lines::{self, Fields};
use crate::event::Redaction;

/// The text, and its `_id`.
pub struct Document<'a> {
    pub text: Cow<'a, [u8]>,
    pub id: Cow<'a, [u8]>,
    /// Of a text that is the line's own.
    fields: Option<Fields<'a>>,
}

impl<'a> Document<'a> {
    /// Of a line that stands in a file, from whenever and whomever; `None` for one that is no record.
    pub fn of(line: &'a [u8], redaction: &Redaction) -> Option<Self> {
        let fields = lines::fields(line)?;
        let id = fields.id_or_computed(line);
        if fields.id.is_some() && !redaction.is_on() {
            // Ours, and nothing is to be hidden.
            return Some(Self { text: line.into(), id, fields: Some(fields) });
        }
        let text = match (std::str::from_utf8(line), std::str::from_utf8(&id)) {
            (Ok(line), Ok(id)) => match redaction.line(line, id)? {
                Cow::Borrowed(line) => line.as_bytes().into(),
                Cow::Owned(line) => line.into_bytes().into(),
            },
            _ if redaction.is_on() => return None,
            _ => line.into(),
        };
        Some(Self { text, id, fields: None })
    }

    pub fn fields(&self) -> Fields<'_> {
        self.fields.or_else(|| lines::fields(&self.text)).unwrap_or_default()
    }
}
