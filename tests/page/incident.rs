//! Records as the writer makes them: some hours of several integrations' troubles.

use audiohook_collector::clock::{Clock, Millis, format_millis};
use serde_json::{Value, json};

const CODES: [(&str, &str, &str); 5] = [
    ("AUDIOHOOK-0001", "AudioHook invalid server address", "The address of the AudioHook server is invalid."),
    ("AUDIOHOOK-0002", "AudioHook connection timeout", "The AudioHook server did not accept the connection in time."),
    (
        "AUDIOHOOK-0003",
        "AudioHook authentication failure",
        "The AudioHook server refused the API key or the signature.",
    ),
    ("AUDIOHOOK-0004", "AudioHook protocol error", "The AudioHook server sent a message out of sequence."),
    ("AUDIOHOOK-0005", "AudioHook disconnected", "The AudioHook server closed the session before the call ended."),
];

const INTEGRATIONS: [&str; 5] =
    ["Agent Assist EU", "Voice Biometrics", "Call Recording Archive", "Transcription – Sales", "Fraud Screening"];

/// One record; `n` tells it from others of the same moment.
pub fn record(at: Millis, n: u64, code: usize, integration: usize) -> Value {
    let (id, name, description) = CODES[code % CODES.len()];
    let entity = integration % INTEGRATIONS.len();
    let conversation = format!("{:08x}-77a6-4970-ad66-6f2966c85bad", (n / 4).wrapping_mul(2_654_435_761) as u32);
    let late = if n % 11 == 3 { 21_000 + (n % 7) as i64 * 4_000 } else { 250 + (n % 9) as i64 * 90 };
    json!({
        "timestamp": format_millis(at), "event_type": "audiohook_operational", "event_id": id, "event_name": name,
        "description": description, "conversation_id": conversation, "entity_type": "integration",
        "entity_id": format!("{:08x}-a27d-4ddf-9026-7e1e3a8d73a6", 0x0f8f_91f9 + entity), "entity_name": INTEGRATIONS[entity],
        "version": "1", "topic": format!("v2.operations.events.{id}"), "channel": "…abcd", "error_code": null,
        "previous_value": null, "current_value": null, "received_at": format_millis(at + late),
        "source": if n % 11 == 3 { "history" } else { "websocket" }, "id": format!("{n:032x}"),
        "raw_event": {"eventEntity": {"id": id, "name": name}, "entityId": entity, "timestamp": at},
    })
}

/// Six hours up to now: quiet, a burst of one integration, a longer trouble of another.
pub fn hours(clock: &Clock) -> Vec<Value> {
    let now = clock.wall();
    let mut records = Vec::new();
    let mut seed: u64 = 42;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for minute in (1..360_i64).rev() {
        let (count, code, integration) = match minute {
            205..=232 => (4 + random(14), 1, 0),
            60..=118 => (random(5), 2, 1),
            8..=20 => (2 + random(5), 3, 0),
            _ => (u64::from(random(6) == 0), random(5) as usize, random(5) as usize),
        };
        for n in 0..count {
            let other = random(7) == 0;
            let (code, integration) =
                if other { (random(5) as usize, random(5) as usize) } else { (code, integration) };
            let at = now - minute * 60_000 + n as i64 * 3_000;
            records.push(record(at, records.len() as u64, code, integration));
        }
    }
    for (n, seconds) in [52, 31, 14].into_iter().enumerate() {
        records.push(record(now - seconds * 1000, records.len() as u64 + 1, 3 + n % 2, n));
    }
    records
}
