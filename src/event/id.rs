//! An event's identity and id.
//!
//! The API has no event id. Socket and history both contain an event's content (definition id, entity id, conversation
//! id, error code, previous and current value; absent, null and "" are equal) and its time. The id is derived from
//! these alone, so that every collector gives the same event the same id:
//!
//! ```text
//! content = for each of the six fields: length as u32 (little endian), UTF-8 bytes
//! hash    = XXH3-128(content)
//! id      = hex(upper 64 bits of hash) hex(XXH3-64(time in ms as i64, little endian; seed = lower 64 bits of hash))
//! ```
//!
//! The first half identifies the content: it finds records with equal content and different times, even if
//! REDACT_FIELDS removed the content from the file. This must never change: files and clusters contain ids.

use std::fmt;

use twox_hash::{XxHash3_64, XxHash3_128};

use super::Event;
use crate::clock::Millis;

/// Identifies an event's content, independent of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The first half of the ids.
    pub content: u64,
    seed: u64,
}

/// An event's id: 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id {
    pub content: u64,
    time_hash: u64,
}

impl Identity {
    /// `buffer` is scratch space, reused between events.
    pub fn of(event: &Event<'_>, buffer: &mut Vec<u8>) -> Self {
        buffer.clear();
        for field in [
            event.definition,
            event.entity_id,
            event.conversation_id,
            event.error_code,
            event.previous_value,
            event.current_value,
        ] {
            let text = field.decoded();
            buffer.extend_from_slice(&(text.len() as u32).to_le_bytes());
            buffer.extend_from_slice(text.as_bytes());
        }
        let hash = XxHash3_128::oneshot(buffer);
        Self { content: (hash >> 64) as u64, seed: hash as u64 }
    }

    /// The id of the event with this content at this time.
    pub fn at(self, time: Millis) -> Id {
        Id { content: self.content, time_hash: XxHash3_64::oneshot_with_seed(self.seed, &time.to_le_bytes()) }
    }
}

impl Id {
    /// Appends the 32 digits.
    pub fn push(self, out: &mut Vec<u8>) {
        for half in [self.content, self.time_hash] {
            for shift in (0..16).rev() {
                out.push(b"0123456789abcdef"[(half >> (shift * 4) & 15) as usize]);
            }
        }
    }

    /// Reads the 32 digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let half = |digits| u64::from_str_radix(digits, 16).ok();
        Some(Self { content: half(&text[..16])?, time_hash: half(&text[16..])? })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.content, self.time_hash)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Verdict, judge_frame, judge_row};
    use super::*;

    fn socket(body: &str) -> Id {
        let frame = format!(r#"{{"eventBody":{body}}}"#);
        let Verdict::Event(event) = judge_frame(&frame, 1_795_430_645_500) else { panic!("{body}") };
        Identity::of(&event, &mut Vec::new()).at(event.time.unwrap())
    }

    #[test]
    fn socket_and_history_give_the_same_id() {
        let from_socket = socket(
            r#"{"eventEntity":{"id":"AUDIOHOOK-0002","name":"n"},"entityId":"e","conversationId":"c","errorCode":"",
            "currentValue":"\u0061/b","timestamp":1795430645123,"version":"1"}"#,
        );
        let row = r#"{"eventDefinition":{"id":"AUDIOHOOK-0002","selfUri":"/x"},"entityId":"e","conversation":{"id":"c"},
            "previousValue":null,"currentValue":"a\/b","dateCreated":"2026-11-23T10:44:05.123Z"}"#;
        let event = judge_row(row, 1_795_430_645_500).unwrap();
        assert_eq!(Identity::of(&event, &mut Vec::new()).at(event.time.unwrap()), from_socket);
    }

    #[test]
    fn an_id_never_changes_from_version_to_version() {
        let id = socket(
            r#"{"eventEntity":{"id":"AUDIOHOOK-0001"},"entityId":"e","conversationId":"c","errorCode":7,"timestamp":1795430645123}"#,
        );
        assert_eq!(id.to_string(), "743b21aa79c6ee3cae6106e465a92a49");
        let mut digits = Vec::new();
        id.push(&mut digits);
        assert_eq!(String::from_utf8(digits).unwrap(), id.to_string());
        assert_eq!(Id::parse(&id.to_string()), Some(id));
    }

    #[test]
    fn the_id_depends_on_content_and_time() {
        let base = r#"{"eventEntity":{"id":"AUDIOHOOK-1"},"entityId":"ab","timestamp":1795430645000}"#;
        for other in [
            r#"{"eventEntity":{"id":"AUDIOHOOK-1"},"entityId":"ab","timestamp":1795430645001}"#,
            r#"{"eventEntity":{"id":"AUDIOHOOK-1"},"entityId":"a","conversationId":"b","timestamp":1795430645000}"#,
            r#"{"eventEntity":{"id":"AUDIOHOOK-1a"},"entityId":"b","timestamp":1795430645000}"#,
        ] {
            assert_ne!(socket(base), socket(other), "{other}");
        }
        assert_eq!(
            socket(base).content,
            socket(r#"{"eventEntity":{"id":"AUDIOHOOK-1"},"entityId":"ab","timestamp":1795430645009}"#).content
        );
    }
}
