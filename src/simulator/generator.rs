//! Events that look like real incidents: an integration fails for a while, in bursts, recovers, and it is quiet.
//!
//! Deals with: what happens, and when, from a seed. Must never: send or keep an event itself; it issues what a test
//! would issue by hand.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::event::{Event, Template, mix};
use super::state::{Route, Shared};
use crate::clock::Millis;
use crate::thread;

/// The first live event comes at the latest after this.
const FIRST_EVENT_MS_MAX: f64 = 2_000.0;
/// Events a minute, unless something else is wished.
pub const PER_MINUTE_DEFAULT: f64 = 30.0;
/// Events a minute, at most: a pace that is kept on any machine, and whose history fits into its memory for a while.
pub const PER_MINUTE_MAX: f64 = 60_000.0;
/// The longest mean gap: a year.
const GAP_MS_MAX: f64 = 3.2e10;
/// Between two events of AudioHook's, at most: whoever connects sees one within ten seconds. At a slower pace than the
/// default it is longer by as much.
const QUIET_MS_MAX: f64 = 9_500.0;
/// Between two events of one incident, at most, in mean gaps.
const GAP_IN_BURST_MAX: f64 = 0.8;
/// Events a minute that the past is filled with, at most: a fast present must not make the start slow.
const PAST_PER_MINUTE_MAX: f64 = 1_200.0;
/// Events of one incident of AudioHook's, at most.
const BURST_MAX: u64 = 7;
/// Events of one incident of another feature, at most.
const OTHER_BURST_MAX: u64 = 3;
/// An incident of so many events or more ends with a recovery.
const BURST_WITH_RECOVERY: u64 = 3;
/// An event that is late by more is not made up for: a process that was stopped for an hour must not flood anybody.
const LATE_MAX: Duration = Duration::from_secs(1);

/// How much happens.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Events a minute, in the mean: 60,000 at most.
    pub per_minute: f64,
    /// How far back the history is filled at the start.
    pub past: Duration,
}

impl Default for Pace {
    /// Thirty events a minute (lively enough to watch, and calm enough to read), and an hour of history.
    fn default() -> Self {
        Self { per_minute: PER_MINUTE_DEFAULT, past: Duration::from_secs(3600) }
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
    let past_ms = pace.past.as_millis() as f64;
    let mut at_ms = 0.0;
    loop {
        let (gap_ms, template) = incidents.next();
        at_ms += gap_ms;
        if at_ms >= past_ms {
            break;
        }
        shared.issue_template(template, &[Some(now - (past_ms - at_ms) as Millis)], Route::HistoryOnly);
    }
    incidents.set_pace(pace.per_minute);
    thread::spawn("sim-events", move || go_on(&shared, incidents, &stopped))
}

/// Issues what happens from now on, each event at its time.
fn go_on(shared: &Shared, mut incidents: Incidents, stopped: &Receiver<()>) {
    // Each event is due so long after the one before it was due, not after it was issued: else what the issuing takes
    // would slow the pace.
    let mut due = Instant::now();
    let (mut gap_ms, mut template) = incidents.first_live();
    loop {
        due += Duration::from_secs_f64(gap_ms / 1000.0);
        let wait = due.saturating_duration_since(Instant::now());
        if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        shared.issue_template(template, &[None], Route::Both);
        due = Instant::now().checked_sub(LATE_MAX).map_or(due, |earliest| due.max(earliest));
        (gap_ms, template) = incidents.next();
    }
}

/// What happens next, for ever.
struct Incidents {
    random: u64,
    mean_gap_ms: f64,
    /// One template for each integration and kind, recoveries last: the texts of all events are these.
    templates: Vec<Vec<Arc<Template>>>,
    integration: usize,
    kind: usize,
    /// Events of this incident, and how many of them are still to come.
    size: u64,
    left: u64,
    /// How far the events so far are ahead of the pace: what the quiet after an incident makes up for.
    ahead_ms: f64,
    /// Since when there was no event of AudioHook's.
    unheard_ms: f64,
}

impl Incidents {
    fn new(shared: &Shared, per_minute: f64) -> Self {
        let kinds = || KINDS.iter().chain([&RECOVERED]);
        let templates = INTEGRATIONS
            .iter()
            .map(|integration| kinds().map(|kind| shared.template(event(integration, kind), true)).collect())
            .collect();
        let mut incidents = Self {
            random: mix(shared.seed),
            mean_gap_ms: 0.0,
            templates,
            integration: 0,
            kind: 0,
            size: 0,
            left: 0,
            ahead_ms: 0.0,
            unheard_ms: 0.0,
        };
        incidents.set_pace(per_minute);
        incidents
    }

    /// Events a minute, in the mean, from now on.
    fn set_pace(&mut self, per_minute: f64) {
        self.ahead_ms = 0.0;
        self.mean_gap_ms = (60_000.0 / per_minute.clamp(f64::MIN_POSITIVE, PER_MINUTE_MAX)).min(GAP_MS_MAX);
    }

    /// Milliseconds until the next event, and the event.
    fn next(&mut self) -> (f64, Arc<Template>) {
        let gap_ms = if self.left == 0 {
            let kind = self.pick_kind();
            self.begin(kind);
            // The quiet is as long as makes the mean come out, half as much more or less.
            self.ahead_ms.max(0.0) * (0.5 + self.fraction())
        } else {
            self.mean_gap_ms * GAP_IN_BURST_MAX * self.fraction()
        };
        self.event_after(gap_ms)
    }

    /// The same for the first event that is issued live: it is AudioHook's, and comes soon.
    fn first_live(&mut self) -> (f64, Arc<Template>) {
        let kind = loop {
            let kind = self.pick_kind();
            if is_audiohooks(kind) {
                break kind;
            }
        };
        self.begin(kind);
        self.unheard_ms = 0.0;
        let gap_ms = self.mean_gap_ms.min(FIRST_EVENT_MS_MAX) * self.fraction();
        self.event_after(gap_ms)
    }

    /// Begins an incident of this kind.
    fn begin(&mut self, kind: usize) {
        self.integration = self.below(INTEGRATIONS.len() as u64) as usize;
        self.kind = kind;
        self.size = 1 + self.below(if is_audiohooks(kind) { BURST_MAX } else { OTHER_BURST_MAX });
        self.left = self.size;
    }

    /// The incident's next event, after so long a time or what is left of the longest quiet.
    fn event_after(&mut self, wished_ms: f64) -> (f64, Arc<Template>) {
        self.left -= 1;
        let audiohooks = is_audiohooks(self.kind);
        let left_ms = (self.quiet_ms_max() - self.unheard_ms).max(0.0);
        // Half of it is left to those of AudioHook's that follow, however many of the others come before them.
        let gap_ms = wished_ms.min(if audiohooks { left_ms } else { left_ms / 2.0 });
        self.unheard_ms = if audiohooks { 0.0 } else { self.unheard_ms + gap_ms };
        self.ahead_ms += self.mean_gap_ms - gap_ms;
        let recovered = audiohooks && self.left == 0 && self.size >= BURST_WITH_RECOVERY;
        let kind = if recovered { KINDS.len() } else { self.kind };
        (gap_ms, self.templates[self.integration][kind].clone())
    }

    fn quiet_ms_max(&self) -> f64 {
        QUIET_MS_MAX * (self.mean_gap_ms * PER_MINUTE_DEFAULT / 60_000.0).max(1.0)
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

/// Whether an incident of this kind is one of AudioHook's.
fn is_audiohooks(kind: usize) -> bool {
    KINDS[kind].0.starts_with("AUDIOHOOK")
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

#[cfg(test)]
mod tests {
    use super::super::{Options, Simulator};
    use super::*;

    /// Each gap before an event, live and from this seed, and whether the event is AudioHook's.
    fn hour(shared: &Shared, seed: u64, per_minute: f64) -> Vec<(f64, bool)> {
        let mut incidents = Incidents::new(shared, per_minute);
        incidents.random = mix(seed);
        let (mut at_ms, mut events, mut next) = (0.0, Vec::new(), incidents.first_live());
        loop {
            at_ms += next.0;
            if at_ms >= 3_600_000.0 {
                return events;
            }
            events.push((next.0, next.1.event.definition.starts_with("AUDIOHOOK")));
            next = incidents.next();
        }
    }

    #[test]
    fn whoever_connects_sees_an_event_of_audiohooks_within_ten_seconds_and_incidents_come_in_bursts() {
        let sim = Simulator::start(Options::default()).unwrap();
        for seed in 1..=50 {
            let events = hour(&sim.shared, seed, PER_MINUTE_DEFAULT);
            assert!(events[0].0 <= FIRST_EVENT_MS_MAX && events[0].1, "{seed}");
            let mut unheard_ms = 0.0;
            for (gap_ms, audiohooks) in &events {
                unheard_ms += gap_ms;
                assert!(unheard_ms < 9_900.0, "{seed}: {unheard_ms}");
                unheard_ms = if *audiohooks { 0.0 } else { unheard_ms };
            }
            let count = |holds: fn(&(f64, bool)) -> bool| events.iter().filter(|event| holds(event)).count();
            assert!(count(|(gap_ms, _)| *gap_ms < 1_600.0) > events.len() / 2, "{seed}: bursts");
            assert!(count(|(gap_ms, _)| *gap_ms > 6_000.0) > 60, "{seed}: quiet");
            assert!(count(|(_, audiohooks)| !audiohooks) > 30, "{seed}: other features have incidents too");
        }
    }

    #[test]
    fn the_pace_is_kept_in_the_mean() {
        let sim = Simulator::start(Options::default()).unwrap();
        for (per_minute, tolerance) in [(5.0, 0.1), (PER_MINUTE_DEFAULT, 0.03), (600.0, 0.03), (6_000.0, 0.03)] {
            for seed in 1..=10 {
                let count = hour(&sim.shared, seed, per_minute).len() as f64 / 60.0;
                assert!((count / per_minute - 1.0).abs() < tolerance, "{count} instead of {per_minute} from {seed}");
            }
        }
    }
}
