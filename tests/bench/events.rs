//! The events of the benchmark: as many as are wanted, each of its own content, all of one size.

/// Bytes of an event's text unless a row asks for another size: what the real service's are like.
pub const EVENT_BYTES: usize = 539;

/// An event's time is this far after the one before it.
const STEP_MS: i64 = 1;

/// What events are made to.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Bytes of each text; no shorter than what its fields take.
    pub bytes: usize,
    /// How many definitions they are spread over.
    pub topics: usize,
    /// The time of the event with number 0, in milliseconds since 1970.
    pub from_ms: i64,
}

impl Shape {
    /// Events of the usual size and one definition, of just now.
    pub fn usual() -> Self {
        Self { bytes: EVENT_BYTES, topics: 1, from_ms: now_ms() }
    }

    /// The text of the event with this number.
    pub fn text(&self, number: usize) -> String {
        let definition = number % self.topics + 1;
        let bare = format!(
            concat!(
                r#"{{"topicName":"v2.operations.events.AUDIOHOOK-{d:04}","version":"2","eventBody":{{"eventEntity":"#,
                r#"{{"id":"AUDIOHOOK-{d:04}","name":"AudioHook error","description":""}},"#,
                r#""entityId":"0f8f91f9","entityName":"Hook","entityType":"integration","#,
                r#""conversationId":"34c18827-77a6-4970-ad66-{n:012x}","errorCode":"408","timestamp":{t:013}}},"#,
                r#""metadata":{{"CorrelationId":"{n:012x}"}}}}"#
            ),
            d = definition,
            n = number,
            t = self.from_ms + number as i64 * STEP_MS,
        );
        // The description takes up what is left.
        let at = bare.find(r#""description":""#).unwrap() + r#""description":""#.len();
        let filling = "The provisioned server did not answer in time. ".chars().cycle();
        let filling: String = filling.take(self.bytes.saturating_sub(bare.len())).collect();
        format!("{}{filling}{}", &bare[..at], &bare[at..])
    }

    /// The frames of these events, one behind the other, as a server sends them.
    pub fn frames(&self, numbers: std::ops::Range<usize>) -> Vec<u8> {
        let mut frames = Vec::with_capacity(numbers.len() * (self.bytes + 10));
        for number in numbers {
            push_frame(&mut frames, self.text(number).as_bytes());
        }
        frames
    }
}

/// Appends a whole, unmasked text frame.
fn push_frame(out: &mut Vec<u8>, text: &[u8]) {
    out.push(0x81);
    match text.len() {
        short @ 0..=125 => out.push(short as u8),
        middle @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

/// A row of the history.
pub fn push_row(out: &mut String, number: usize, at_ms: i64) {
    use std::fmt::Write;
    let at = audiohook_collector::clock::format_millis(at_ms);
    let _ = write!(
        out,
        concat!(
            r#"{{"eventDefinition":{{"id":"AUDIOHOOK-0001","selfUri":"/api/v2/usage/events/definitions/AUDIOHOOK-0001"}},"#,
            r#""entityId":"0f8f91f9-a27d-4ddf-9026-7e1e3a8d73a6","entityToken":"audiohook-integration","entityName":"AudioHook Integration","#,
            r#""previousValue":"","currentValue":"","errorCode":"408","parentEntityId":"7c3b1f52-8d24-4a0e-9f86-0d6ea1b5c2f7","#,
            r#""conversation":{{"id":"34c18827-77a6-4970-ad66-{n:012x}","selfUri":"/api/v2/conversations/34c18827-77a6-4970-ad66-{n:012x}"}},"#,
            r#""dateCreated":"{at}","dateModified":"{at}","entityVersion":"1"}}"#
        ),
        n = number,
        at = at,
    );
}

pub fn now_ms() -> i64 {
    audiohook_collector::clock::Clock::system().wall()
}
