//! Parses a row of the history.
//!
//! Source: the vendor's SDKs, `POST /api/v2/usage/events/query`. A row has no entity type, name or description; the
//! last two are filled in from the definitions.

use super::{Event, Field, object_or_skip};
use crate::clock::Millis;
use crate::json::{Result, Scanner, Text};

/// Parses a row received at `received`, by the service's clock. The caller adds name and description.
///
/// # Errors
/// When the row is not an object.
pub fn judge_row(text: &str, received: Millis) -> Result<Event<'_>> {
    let mut scanner = Scanner::new(text);
    let event = read_row(&mut scanner)?;
    scanner.end()?;
    Ok(event.without_impossible_time(received))
}

pub(super) fn read_row<'a>(scanner: &mut Scanner<'a>) -> Result<Event<'a>> {
    let mut event = Event::default();
    scanner.kind()?;
    scanner.take_spaced();
    let from = scanner.position();
    scanner.object(|scanner, key| row_field(&mut event, scanner, key))?;
    event.raw = scanner.since(from);
    event.raw_spaced = scanner.take_spaced();
    Ok(event)
}

fn row_field<'a>(event: &mut Event<'a>, scanner: &mut Scanner<'a>, key: Text<'a>) -> Result<()> {
    let decoded = key.decoded();
    match &*decoded {
        "eventDefinition" => return inner_id(&mut event.definition, scanner),
        "conversation" => return inner_id(&mut event.conversation_id, scanner),
        _ => {}
    }
    let value = Field::from_value(scanner.value()?);
    match &*decoded {
        "entityId" => event.entity_id = value,
        "entityName" => event.entity_name = value,
        "entityVersion" => event.version = value,
        "errorCode" => event.error_code = value,
        "previousValue" => event.previous_value = value,
        "currentValue" => event.current_value = value,
        "dateCreated" => event.time = value.instant(),
        _ => {}
    }
    Ok(())
}

/// `{"id":…,"selfUri":…}`
fn inner_id<'a>(field: &mut Field<'a>, scanner: &mut Scanner<'a>) -> Result<()> {
    *field = Field::Absent;
    object_or_skip(scanner, |scanner, key| {
        let value = Field::from_value(scanner.value()?);
        if key.is("id") {
            *field = value;
        }
        Ok(())
    })
}
