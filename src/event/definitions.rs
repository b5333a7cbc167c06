//! The definitions: what a row of the history does not say itself.

use std::collections::HashMap;

use super::{Event, Field};
use crate::json::{Text, push_string};
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

    /// Fills in the row's name and description.
    pub fn fill<'a>(&'a self, event: &mut Event<'a>) {
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
