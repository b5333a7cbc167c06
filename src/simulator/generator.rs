//! Events that look like real incidents: an integration fails for a while, in bursts, recovers, and it is quiet.
//!
//! Deals with: what happens, and when, from a seed. Must never: send or keep an event itself; it issues what a test
//! would issue by hand.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::event::{Event, Template, mix};
use super::state::{Route, Shared};
use crate::clock::Millis;
use crate::thread;

/// The first event comes at the latest after this.
const FIRST_EVENT_MS_MAX: u64 = 2_000;
/// Events a minute at which a gap is still a millisecond.
const PER_MINUTE_MAX: f64 = 60_000.0;
/// The longest mean gap: a year.
const GAP_MS_MAX: f64 = 3.2e10;
/// Events a minute that the past is filled with, at most: a fast present must not make the start slow.
const PAST_PER_MINUTE_MAX: f64 = 1_200.0;
/// Events of one incident, at most.
const BURST_MAX: u64 = 9;

/// How much happens.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Events a minute, in the mean.
    pub per_minute: f64,
    /// How far back the history is filled at the start.
    pub past: Duration,
}

impl Default for Pace {
    /// Twelve events a minute, and an hour of history.
    fn default() -> Self {
        Self { per_minute: 12.0, past: Duration::from_secs(3600) }
    }
}

/// An integration: its id, its name, the host of its server.
const INTEGRATIONS: [(&str, &str, &str); 5] = [
    ("0f8f91f9-a27d-4ddf-9026-7e1e3a8d73a6", "Live Transcription EU", "transcribe.example.com"),
    ("7c9e2b14-51d6-4c1f-8a35-d20b6c1f9e02", "Agent Assist", "assist.example.net"),
    ("b3d04a6e-8f27-4e9a-b1c8-45f7a90e6d13", "Fraud Detection", "voiceprint.example.org"),
    ("e1a7c5d8-3b90-4f62-9d4e-86c2f01b7a54", "Call Recording Archive", "archive.example.com"),
    ("29f6b8c3-d415-47ea-a0b7-1c5e93d8f675", "Sentiment Pilot", "sentiment.example.net"),
];

/// What the definitions of other features speak of: the beginning of their ids, type, id and name.
const OTHERS: [(&str, &str, &str, &str); 3] = [
    ("DATAACTIONS", "integration", "5d7e0c92-6a41-4b8f-b3c7-0e94d1a2f586", "CRM lookup"),
    ("TELEPHONY", "trunk", "a84c1f37-92d0-4e6b-8b15-63f0e7d9c2a1", "SIP trunk Frankfurt 2"),
    ("ARCHITECT", "flow", "f3b9d6a0-1c58-47e2-9a7d-b41e08c5d273", "Inbound service line"),
];

/// What goes wrong with an integration: definition, how often, error code, values before and after, and whether a
/// conversation is hit. `@` stands for the host.
type Kind = (&'static str, u64, Option<&'static str>, Option<&'static str>, Option<&'static str>, bool);

const KINDS: [Kind; 11] = [
    ("AUDIOHOOK-0001", 2, Some("invalid.uri"), Some("wss://@/audiohook"), Some("http://@/audiohook"), false),
    ("AUDIOHOOK-0002", 6, Some("504"), None, Some("no answer from wss://@/audiohook within 5000 ms"), true),
    ("AUDIOHOOK-0003", 4, Some("401"), None, Some("wss://@/audiohook answered 401 to the upgrade"), true),
    ("AUDIOHOOK-0004", 3, Some("4400"), None, Some("message \"opened\" came with an unknown media format"), true),
    ("AUDIOHOOK-0005", 5, Some("1006"), Some("STREAMING"), Some("DISCONNECTED"), true),
    ("AUDIOHOOK-0006", 2, Some("certificate_expired"), None, Some("certificate of @ has expired"), true),
    ("AUDIOHOOK-0007", 3, Some("429"), None, Some("wss://@/audiohook refused the session: 200 are open"), true),
    ("DATAACTIONS-0001", 1, Some("timeout"), None, Some("no answer within 60 s"), true),
    ("TELEPHONY-0001", 1, Some("408"), Some("IN_SERVICE"), Some("OUT_OF_SERVICE"), false),
    ("TELEPHONY-0002", 1, None, Some("OUT_OF_SERVICE"), Some("IN_SERVICE"), false),
    ("ARCHITECT-0001", 1, Some("flow.error"), None, Some("left through error handling"), true),
];

/// The end of each incident of AudioHook's.
const RECOVERED: Kind = ("AUDIOHOOK-0008", 0, None, Some("DISCONNECTED"), Some("STREAMING"), true);

/// Fills the past, and goes on until `stopped`.
pub(super) fn start(shared: Arc<Shared>, pace: Pace, stopped: Receiver<()>) -> io::Result<JoinHandle<()>> {
    let mut incidents = Incidents::new(&shared, pace.per_minute.min(PAST_PER_MINUTE_MAX));
    let now = shared.service_now(&shared.lock());
    let mut at = now - pace.past.as_millis() as Millis;
    loop {
        let (gap_ms, template) = incidents.next();
        at += gap_ms as Millis;
        if at >= now {
            break;
        }
        shared.issue_template(template, &[Some(at)], Route::HistoryOnly);
    }
    incidents.set_pace(pace.per_minute);
    thread::spawn("sim-events", move || {
        let (first_gap_ms, mut template) = incidents.next();
        let mut gap_ms = first_gap_ms.min(FIRST_EVENT_MS_MAX);
        while stopped.recv_timeout(Duration::from_millis(gap_ms)) == Err(RecvTimeoutError::Timeout) {
            shared.issue_template(template, &[None], Route::Both);
            (gap_ms, template) = incidents.next();
        }
    })
}

/// What happens next, for ever.
struct Incidents {
    random: u64,
    mean_gap_ms: f64,
    /// One template for each integration and kind, recoveries last: the texts of all events are these.
    templates: Vec<Vec<Arc<Template>>>,
    integration: usize,
    kind: usize,
    left: u64,
    quiet_ms: f64,
}

impl Incidents {
    fn new(shared: &Shared, per_minute: f64) -> Self {
        let kinds = || KINDS.iter().chain([&RECOVERED]);
        let templates = INTEGRATIONS
            .iter()
            .map(|integration| kinds().map(|kind| shared.template(event(integration, kind), true)).collect())
            .collect();
        let random = mix(shared.seed);
        let mut incidents =
            Self { random, mean_gap_ms: 0.0, templates, integration: 0, kind: 0, left: 0, quiet_ms: 0.0 };
        incidents.set_pace(per_minute);
        incidents
    }

    /// Events a minute, in the mean, from the next burst on.
    fn set_pace(&mut self, per_minute: f64) {
        self.mean_gap_ms = (60_000.0 / per_minute.clamp(f64::MIN_POSITIVE, PER_MINUTE_MAX)).min(GAP_MS_MAX);
    }

    /// Milliseconds until the next event, and the event.
    fn next(&mut self) -> (u64, Arc<Template>) {
        let gap_ms;
        if self.left == 0 {
            // The quiet after a burst is as long as makes the mean come out, half as much more or less.
            gap_ms = self.quiet_ms * (0.5 + self.fraction());
            self.integration = self.below(INTEGRATIONS.len() as u64) as usize;
            self.kind = self.pick_kind();
            self.left = 1 + self.below(BURST_MAX);
            self.quiet_ms = self.mean_gap_ms * (self.left as f64 - 0.2 * (self.left - 1) as f64);
        } else {
            gap_ms = self.mean_gap_ms * 0.4 * self.fraction();
        }
        self.left -= 1;
        let recovered =
            self.left == 0 && self.quiet_ms > 2.0 * self.mean_gap_ms && KINDS[self.kind].0.starts_with("AUDIOHOOK");
        let kind = if recovered { KINDS.len() } else { self.kind };
        (gap_ms as u64, self.templates[self.integration][kind].clone())
    }

    fn pick_kind(&mut self) -> usize {
        let all: u64 = KINDS.iter().map(|kind| kind.1).sum();
        let mut at = self.below(all);
        KINDS
            .iter()
            .position(|kind| {
                at < kind.1 || {
                    at -= kind.1;
                    false
                }
            })
            .unwrap_or(0)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random = mix(self.random);
        self.random % limit
    }

    fn fraction(&mut self) -> f64 {
        self.below(1_000_000) as f64 / 1e6
    }
}

fn event(integration: &(&str, &str, &str), kind: &Kind) -> Event {
    let (id, name, host) = *integration;
    let (definition, _, error_code, before, after, conversation) = *kind;
    let text = |text: Option<&str>| text.map(|text| text.replace('@', host));
    let other = OTHERS.iter().find(|other| definition.starts_with(other.0));
    let (entity_type, id, name) = other.map_or(("integration", id, name), |other| (other.1, other.2, other.3));
    Event {
        definition: definition.to_owned(),
        entity_id: Some(id.to_owned()),
        entity_name: Some(name.to_owned()),
        entity_type: Some(entity_type.to_owned()),
        previous_value: text(before),
        current_value: text(after),
        error_code: text(error_code),
        conversation_id: conversation.then(|| "{uuid}".to_owned()),
        version: Some("1".to_owned()),
        ..Event::default()
    }
}
