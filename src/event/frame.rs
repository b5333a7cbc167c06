//! Parses and classifies a message of the socket.
//!
//! Source of the formats: the vendor's SDKs (`topicName`, `version`, `eventBody`, `metadata`; the operational event's
//! body with its `eventEntity`) and its guide to notifications (heartbeats, pongs, `v2.system.*`, `{"result":…}`).

use super::{Event, Field, object_or_skip};
use crate::clock::Millis;
use crate::json::{Kind, Result, Scanner, Text};
use crate::message::Control;

/// The classification of a message.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most are events; a box would cost each of them an allocation")]
pub enum Verdict<'a> {
    /// An AudioHook event.
    Event(Event<'a>),
    /// An event of another feature.
    Filtered,
    /// A message about the socket itself; not counted.
    Control(Option<Control>),
    /// Any other message, with the reason.
    Unreadable(String),
}

/// Classifies a message received at `received`, by the service's clock. The body decides, so that an event with an
/// unexpected topic is not lost.
pub fn judge_frame(text: &str, received: Millis) -> Verdict<'_> {
    match read(text) {
        Ok(envelope) => envelope.judge(received),
        Err(fault) => Verdict::Unreadable(format!("invalid JSON: {fault}")),
    }
}

/// The top-level fields of a message.
#[derive(Default)]
struct Envelope<'a> {
    topic: Field<'a>,
    body: Body<'a>,
    result: Option<Field<'a>>,
    message: Field<'a>,
    object: bool,
}

#[derive(Default)]
#[expect(clippy::large_enum_variant, reason = "most are events; a box would cost each of them an allocation")]
enum Body<'a> {
    #[default]
    Absent,
    NoObject,
    Event(Event<'a>),
}

fn read(text: &str) -> Result<Envelope<'_>> {
    let mut scanner = Scanner::new(text);
    let mut envelope = Envelope { object: true, ..Envelope::default() };
    if scanner.kind()? != Kind::Object {
        scanner.value()?;
        scanner.end()?;
        return Ok(Envelope::default());
    }
    scanner.object(|scanner, key| {
        if key.is("topicName") {
            envelope.topic = Field::from_value(scanner.value()?);
        } else if key.is("eventBody") {
            envelope.body = match scanner.kind()? {
                Kind::Object => Body::Event(read_body(scanner)?),
                Kind::Null => {
                    scanner.value()?;
                    Body::Absent
                }
                _ => {
                    scanner.value()?;
                    Body::NoObject
                }
            };
        } else if key.is("result") {
            envelope.result = Some(Field::from_value(scanner.value()?));
        } else if key.is("message") {
            envelope.message = Field::from_value(scanner.value()?);
        } else {
            scanner.value()?;
        }
        Ok(())
    })?;
    scanner.end()?;
    Ok(envelope)
}

/// Reads an operational event's body. Of duplicate keys, the last one counts.
pub(super) fn read_body<'a>(scanner: &mut Scanner<'a>) -> Result<Event<'a>> {
    let mut event = Event::default();
    scanner.kind()?;
    scanner.take_spaced();
    let from = scanner.position();
    scanner.object(|scanner, key| body_field(&mut event, scanner, key))?;
    event.raw = scanner.since(from);
    event.raw_spaced = scanner.take_spaced();
    Ok(event)
}

fn body_field<'a>(event: &mut Event<'a>, scanner: &mut Scanner<'a>, key: Text<'a>) -> Result<()> {
    let decoded = key.decoded();
    if decoded == "eventEntity" {
        (event.definition, event.name, event.description) = Default::default();
        return object_or_skip(scanner, |scanner, key| {
            let value = Field::from_value(scanner.value()?);
            match &*key.decoded() {
                "id" => event.definition = value,
                "name" => event.name = value,
                "description" => event.description = value,
                _ => {}
            }
            Ok(())
        });
    }
    let value = Field::from_value(scanner.value()?);
    match &*decoded {
        "conversationId" => event.conversation_id = value,
        "entityType" => event.entity_type = value,
        "entityId" => event.entity_id = value,
        "entityName" => event.entity_name = value,
        "version" => event.version = value,
        "errorCode" => event.error_code = value,
        "previousValue" => event.previous_value = value,
        "currentValue" => event.current_value = value,
        "timestamp" => event.time = value.instant(),
        _ => {}
    }
    Ok(())
}

impl<'a> Envelope<'a> {
    fn judge(self, received: Millis) -> Verdict<'a> {
        if !self.object {
            return Verdict::Unreadable("not an object".into());
        }
        let body = match self.body {
            Body::Event(mut event) if event.is_audiohook() => {
                event.topic = self.topic;
                return Verdict::Event(event.without_impossible_time(received));
            }
            body => body,
        };
        let topic = self.topic.decoded();
        if topic == "channel.metadata" {
            return Verdict::Control(None);
        }
        if let Some(system) = topic.strip_prefix("v2.system.") {
            return Verdict::Control(system_control(system));
        }
        match (body, self.result) {
            (Body::Event(_), _) => Verdict::Filtered,
            (_, Some(result)) => Verdict::Control((result.decoded() == "404").then_some(Control::ChannelGone)),
            (Body::Absent, None) if topic.is_empty() && self.message.decoded() == "pong" => Verdict::Control(None),
            (Body::Absent, None) => Verdict::Unreadable("no eventBody".into()),
            (Body::NoObject, None) => Verdict::Unreadable("eventBody is not an object".into()),
        }
    }
}

fn system_control(topic: &str) -> Option<Control> {
    if topic.starts_with("socket_closing") {
        Some(Control::SocketClosing)
    } else if topic.starts_with("no_longer_subscribed") || topic.starts_with("token_revoked") {
        Some(Control::Revoked)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_795_430_645_500;

    fn event(text: &str) -> Event<'_> {
        match judge_frame(text, NOW) {
            Verdict::Event(event) => event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_field_is_found_in_any_order() {
        let text = r#"{"eventBody":{"timestamp":1795430645123,"eventEntity":{"description":"d","id":"AUDIOHOOK-0001","name":"n"},
            "entityId":"e","version":1.0,"errorCode":7,"conversationId":"c","entityType":"t","entityName":"m","previousValue":null,
            "currentValue":["x"],"other":1e400},"topicName":"v2.operations.events.AUDIOHOOK-0001"}"#;
        let event = event(text);
        let fields =
            [event.definition, event.name, event.description, event.entity_id, event.version, event.error_code];
        assert_eq!(fields.map(|f| f.decoded().into_owned()), ["AUDIOHOOK-0001", "n", "d", "e", "1.0", "7"]);
        assert!(matches!(event.current_value, Field::Absent));
        assert_eq!(event.time, Some(1_795_430_645_123));
        assert!(event.raw_spaced && event.raw.starts_with("{\"timestamp") && event.raw.ends_with("1e400}"));
    }

    #[test]
    fn the_body_and_not_the_topic_makes_an_audiohook_event() {
        for text in [
            r#"{"topicName":"v2.users.x","eventBody":{"eventEntity":{"id":"audiohook-9"}}}"#,
            r#"{"topicName":"channel.metadata","eventBody":{"entityType":"my AudioHOOK thing"}}"#,
            r#"{"eventBody":{"eventEntity":{"name":"\u0061udiohook trouble"}}}"#,
            r#"{"topicName":5,"eventBody":{"event\u0045ntity":{"id":"AUDIOHOOK-1"}}}"#,
        ] {
            event(text);
        }
        for text in [
            r#"{"topicName":"v2.operations.events.AUDIOHOOK-0001","eventBody":{"eventEntity":{"id":"OTHER-1"}}}"#,
            r#"{"topicName":"x","eventBody":{}}"#,
            r#"{"topicName":"x","eventBody":{"eventEntity":{"id":"AUDIOHOOK-1"},"eventEntity":{"id":"X-1"}}}"#,
            r#"{"topicName":"x","eventBody":{"eventEntity":{"id":"AUDIOHOOK-1"}},"eventBody":{}}"#,
        ] {
            assert!(matches!(judge_frame(text, NOW), Verdict::Filtered), "{text}");
        }
    }

    #[test]
    fn messages_about_the_socket_are_not_events() {
        let control = |text| match judge_frame(text, NOW) {
            Verdict::Control(control) => control,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(control(r#"{"topicName":"channel.metadata","eventBody":{"message":"WebSocket Heartbeat"}}"#), None);
        assert_eq!(control(r#"{"result":"200","status":"subscribed"}"#), None);
        assert_eq!(control(r#"{"result":"404","message":"gone"}"#), Some(Control::ChannelGone));
        assert_eq!(control(r#"{"topicName":"v2.system.socket_closing","eventBody":{}}"#), Some(Control::SocketClosing));
        assert_eq!(control(r#"{"topicName":"v2.system.token_revoked.abc"}"#), Some(Control::Revoked));
        assert_eq!(
            control(r#"{"topicName":"v2.system.no_longer_subscribed","eventBody":null}"#),
            Some(Control::Revoked)
        );
        assert_eq!(control(r#"{"topicName":"v2.system.something_new","eventBody":"x"}"#), None);
    }

    #[test]
    fn malformed_messages_are_unreadable() {
        for text in [
            "",
            "5",
            "[]",
            "{}",
            "nonsense",
            r#"{"topicName":"x"}"#,
            r#"{"topicName":"x","eventBody":"y"}"#,
            r#"{"eventBody":{}} x"#,
            "{\"eventBody\":{\"a\":\"\n\"}}",
        ] {
            assert!(matches!(judge_frame(text, NOW), Verdict::Unreadable(_)), "{text}");
        }
    }

    #[test]
    fn instants_are_read_in_several_formats() {
        for (time, expected) in [
            ("1795430645123", Some(1_795_430_645_123)),
            ("\"1795430645123\"", Some(1_795_430_645_123)),
            ("1795430645123.9", Some(1_795_430_645_123)),
            ("1.795430645123e12", Some(1_795_430_645_123)),
            ("\"2026-11-23T10:44:05.123Z\"", Some(1_795_430_645_123)),
            ("\"2026-11-23T11:44:05.123456789+0100\"", Some(1_795_430_645_123)),
            ("1795430645123000", Some(1_795_430_645_123)),
            ("1795430645123999999", Some(1_795_430_645_123)),
            ("\"1795430645123999\"", Some(1_795_430_645_123)),
            ("1795430645", Some(1_795_430_645_000)),
            ("1795430645.123", Some(1_795_430_645_123)),
            ("1.795430645123e15", Some(1_795_430_645_123)),
            ("1420070400", Some(1_420_070_400_000)),
            ("1420070399999", None),
            ("0", None),
            ("\"2014-12-31T23:59:59.999Z\"", None),
            ("1795517045500", Some(NOW + 24 * 3600 * 1000)),
            ("1795517045501", None),
            ("\"2126-11-23T10:04:05Z\"", None),
            ("9223372036854775807", None),
            ("123456789012345678901234567890", None),
            ("-9223372036854775808", None),
            ("null", None),
            ("-5", None),
            ("1e400", None),
            ("\"soon\"", None),
            ("{}", None),
        ] {
            let text = format!(r#"{{"eventBody":{{"eventEntity":{{"id":"AUDIOHOOK-1"}},"timestamp":{time}}}}}"#);
            assert_eq!(event(&text).time, expected, "{time}");
        }
    }
}
