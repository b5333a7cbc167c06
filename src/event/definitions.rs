//! The event definitions, which supply the names and descriptions that history rows lack.

use std::collections::HashMap;

use super::{Event, Field, judge_row};
use crate::clock::Millis;
use crate::json::{Result, Text, push_string};
use crate::message::Definition;

/// Names and descriptions by id, as JSON strings without their quotes.
#[derive(Debug, Default)]
pub struct Definitions(HashMap<String, (Option<String>, Option<String>)>);

impl Definitions {
    pub fn new(definitions: &[Definition]) -> Self {
        Self(
            definitions
                .iter()
                .map(|d| (d.id.clone(), (d.name.as_deref().map(inner), d.description.as_deref().map(inner))))
                .collect(),
        )
    }

    /// Parses a history row received at `received`, with its name and description. `None` if it is not an AudioHook
    /// event. The writer and the audit both use this, so that they agree on which rows to expect.
    ///
    /// # Errors
    /// When the row is not an object.
    pub fn judge<'a>(&'a self, row: &'a str, received: Millis) -> Result<Option<Event<'a>>> {
        let mut event = judge_row(row, received)?;
        self.fill(&mut event);
        Ok(event.is_audiohook().then_some(event))
    }

    /// Whether rows of this definition are AudioHook events.
    pub fn is_audiohook(&self, id: &str) -> bool {
        let mut event = Event { definition: Field::Literal(id), ..Event::default() };
        self.fill(&mut event);
        event.is_audiohook()
    }

    /// Sets the event's name and description from its definition.
    fn fill<'a>(&'a self, event: &mut Event<'a>) {
        if let Some((name, description)) = self.0.get(&*event.definition.decoded()) {
            let text =
                |text: &'a Option<String>| text.as_deref().map_or(Field::Absent, |t| Field::Text(Text::from_raw(t)));
            (event.name, event.description) = (text(name), text(description));
        }
    }
}

fn inner(text: &str) -> String {
    let mut json = Vec::with_capacity(text.len() + 2);
    push_string(&mut json, text);
    String::from_utf8_lossy(&json[1..json.len() - 1]).into_owned()
}
