//! Generates realistic incidents: an integration fails with a burst of events, recovers, and a quiet time follows.
//!
//! The seed determines all events and their times.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::event::{Event, Template, mix};
use super::state::{Route, Shared};
use crate::clock::Millis;
use crate::thread;

/// Maximum time until the first live event.
const FIRST_EVENT_MS_MAX: f64 = 2_000.0;
/// Default events per minute.
const PER_MINUTE_DEFAULT: f64 = 30.0;
/// Maximum events per minute: any machine keeps up with them and has memory for their history for a while.
pub const PER_MINUTE_MAX: f64 = 60_000.0;
/// Maximum mean gap: a year.
const GAP_MS_MAX: f64 = 3.2e10;
/// Maximum gap between two events of an incident, in mean gaps.
const GAP_IN_BURST_MAX: f64 = 0.5;
/// Maximum events per minute in the initial history, so that a high pace does not make the start slow.
const PAST_PER_MINUTE_MAX: f64 = 1_200.0;
/// Maximum events of an incident. At the default pace, a new client then sees an event within ten seconds.
const BURST_MAX: u64 = 4;
/// Incidents of at least this many events end with a recovery.
const BURST_WITH_RECOVERY: u64 = 3;
/// Events that are later than this are not caught up: a process suspended for an hour must not cause a flood.
const LATE_MAX: Duration = Duration::from_secs(1);

/// How many events are generated.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Mean events per minute, at most 60,000.
    pub per_minute: f64,
    /// How far back the history is filled at startup.
    pub past: Duration,
}

impl Default for Pace {
    /// Thirty events per minute, which is easy to follow, and an hour of history.
    fn default() -> Self {
        Self { per_minute: PER_MINUTE_DEFAULT, past: Duration::from_secs(3600) }
    }
}

/// Integrations: id, name, host of the server.
const INTEGRATIONS: [(&str, &str, &str); 5] = [
    ("0f8f91f9-a27d-4ddf-9026-7e1e3a8d73a6", "Live Transcription EU", "transcribe.example.com"),
    ("7c9e2b14-51d6-4c1f-8a35-d20b6c1f9e02", "Agent Assist", "assist.example.net"),
    ("b3d04a6e-8f27-4e9a-b1c8-45f7a90e6d13", "Fraud Detection", "voiceprint.example.org"),
    ("e1a7c5d8-3b90-4f62-9d4e-86c2f01b7a54", "Call Recording Archive", "archive.example.com"),
    ("29f6b8c3-d415-47ea-a0b7-1c5e93d8f675", "Sentiment Pilot", "sentiment.example.net"),
];

/// A kind of event: definition, error code, previous and current value, and whether it has a conversation. `@` is
/// replaced by the host.
type Kind = (&'static str, Option<&'static str>, Option<&'static str>, Option<&'static str>, bool);

/// The kinds of events, one for each code in `event::codes`. The last one is the recovery that ends longer incidents.
const KINDS: [Kind; 10] = [
    ("AUDIOHOOK-0001", Some("invalid.uri"), Some("wss://@/audiohook"), Some("http://@/audiohook"), false),
    ("AUDIOHOOK-0002", Some("504"), None, Some("no answer from wss://@/audiohook within 5000 ms"), true),
    ("AUDIOHOOK-0003", Some("401"), None, Some("wss://@/audiohook answered 401 to the upgrade"), true),
    ("AUDIOHOOK-0004", Some("4400"), Some("seq 41"), Some("message \"event\" came with seq 43"), true),
    ("AUDIOHOOK-0005", Some("1006"), Some("STREAMING"), Some("DISCONNECTED"), true),
    ("AUDIOHOOK-0006", Some("408"), None, Some("no pong from wss://@/audiohook within 5000 ms"), true),
    ("AUDIOHOOK-0007", Some("429"), None, Some("wss://@/audiohook refused the session: 200 are open"), true),
    ("AUDIOHOOK-0009", Some("4400"), None, Some("message \"opened\" came with an unknown media format"), true),
    ("AUDIOHOOK-0012", Some("4429"), None, Some("31 messages within a second"), true),
    ("AUDIOHOOK-0008", None, Some("DISCONNECTED"), Some("STREAMING"), true),
];
const RECOVERED: usize = KINDS.len() - 1;

/// Fills the history, then issues events until `stopped`.
pub(super) fn start(shared: Arc<Shared>, pace: Pace, stopped: Receiver<()>) -> io::Result<JoinHandle<()>> {
    let mut incidents = Incidents::new(&shared, pace.per_minute.min(PAST_PER_MINUTE_MAX));
    let now = shared.lock().now();
    let past_ms = pace.past.as_millis() as f64;
    let mut at_ms = 0.0;
    loop {
        let (gap_ms, template) = incidents.next();
        at_ms += gap_ms;
        if at_ms >= past_ms {
            break;
        }
        shared.issue(template, &[Some(now - (past_ms - at_ms) as Millis)], Route::HistoryOnly);
    }
    incidents.go_live(pace.per_minute);
    thread::spawn("sim-events", move || go_on(&shared, incidents, &stopped))
}

/// Issues live events, each at its time.
fn go_on(shared: &Shared, mut incidents: Incidents, stopped: &Receiver<()>) {
    // An event's gap is counted from when the one before was due, not from when it was issued, so that the time to
    // issue does not slow the pace.
    let mut due = Instant::now();
    loop {
        let (gap_ms, template) = incidents.next();
        due += Duration::from_secs_f64(gap_ms / 1000.0);
        let wait = due.saturating_duration_since(Instant::now());
        if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        shared.issue(template, &[None], Route::Both);
        due = Instant::now().checked_sub(LATE_MAX).map_or(due, |earliest| due.max(earliest));
    }
}

/// An endless sequence of incidents.
struct Incidents {
    random: u64,
    mean_gap_ms: f64,
    /// One template for each integration and kind.
    templates: Vec<Vec<Arc<Template>>>,
    /// The remaining events of this incident, each with the gap before it.
    coming: VecDeque<(f64, Arc<Template>)>,
    /// The quiet time after this incident, which keeps the mean pace.
    quiet_ms: f64,
}

impl Incidents {
    fn new(shared: &Shared, per_minute: f64) -> Self {
        let all = |integration| KINDS.iter().map(|kind| shared.template(event(integration, kind))).collect();
        Self {
            random: mix(shared.seed),
            mean_gap_ms: mean_gap_ms(per_minute),
            templates: INTEGRATIONS.iter().map(all).collect(),
            coming: VecDeque::new(),
            quiet_ms: 0.0,
        }
    }

    /// Switches to this mean number of events per minute; the first event comes soon.
    fn go_live(&mut self, per_minute: f64) {
        self.mean_gap_ms = mean_gap_ms(per_minute);
        self.quiet_ms = self.mean_gap_ms.min(FIRST_EVENT_MS_MAX) * self.fraction();
        self.begin();
    }

    /// The next event, with the milliseconds before it.
    fn next(&mut self) -> (f64, Arc<Template>) {
        loop {
            match self.coming.pop_front() {
                Some(next) => return next,
                None => self.begin(),
            }
        }
    }

    /// Starts an incident after the quiet time.
    fn begin(&mut self) {
        let integration = self.below(INTEGRATIONS.len() as u64) as usize;
        let (kind, size) = (self.below(RECOVERED as u64) as usize, 1 + self.below(BURST_MAX));
        self.coming.clear();
        let mut left_ms = self.mean_gap_ms * size as f64;
        for n in 1..=size {
            let gap_ms = if n == 1 { self.quiet_ms } else { self.mean_gap_ms * GAP_IN_BURST_MAX * self.fraction() };
            left_ms -= if n == 1 { 0.0 } else { gap_ms };
            let kind = if n == size && size >= BURST_WITH_RECOVERY { RECOVERED } else { kind };
            self.coming.push_back((gap_ms, self.templates[integration][kind].clone()));
        }
        self.quiet_ms = left_ms;
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random = mix(self.random);
        self.random % limit
    }

    fn fraction(&mut self) -> f64 {
        self.below(1_000_000) as f64 / 1e6
    }
}

fn mean_gap_ms(per_minute: f64) -> f64 {
    (60_000.0 / per_minute.clamp(f64::MIN_POSITIVE, PER_MINUTE_MAX)).min(GAP_MS_MAX)
}

fn event(integration: &(&str, &str, &str), kind: &Kind) -> Event {
    let (id, name, host) = *integration;
    let (definition, error_code, before, after, conversation) = *kind;
    let text = |text: Option<&str>| text.map(|text| text.replace('@', host));
    Event {
        entity_id: Some(id.to_owned()),
        entity_name: Some(name.to_owned()),
        previous_value: text(before),
        current_value: text(after),
        error_code: text(error_code),
        conversation_id: conversation.then(|| "{uuid}".to_owned()),
        ..Event::numbered(definition)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Options, Simulator};
    use super::*;
    use crate::event::{EVENT_CODES, event_code};

    /// The gaps before the live events of one hour, with this seed.
    fn hour(shared: &Shared, seed: u64, per_minute: f64) -> Vec<f64> {
        let mut incidents = Incidents::new(shared, per_minute);
        incidents.random = mix(seed);
        incidents.go_live(per_minute);
        let (mut at_ms, mut events) = (0.0, Vec::new());
        loop {
            let gap_ms = incidents.next().0;
            at_ms += gap_ms;
            if at_ms >= 3_600_000.0 {
                return events;
            }
            events.push(gap_ms);
        }
    }

    #[test]
    fn every_documented_code_occurs() {
        let explained: BTreeSet<&str> = EVENT_CODES.iter().map(|code| code.id).collect();
        assert_eq!(KINDS.iter().map(|kind| kind.0).collect::<BTreeSet<&str>>(), explained);
        assert!(event_code(KINDS[RECOVERED].0).is_some_and(|code| code.recovery));
    }

    #[test]
    fn a_new_client_sees_an_event_within_ten_seconds_and_incidents_come_in_bursts() {
        let sim = Simulator::start(Options::default()).unwrap();
        for seed in 1..=50 {
            let gaps = hour(&sim.shared, seed, PER_MINUTE_DEFAULT);
            assert!(gaps[0] <= FIRST_EVENT_MS_MAX, "{seed}");
            let count = |holds: fn(&f64) -> bool| gaps.iter().filter(|gap_ms| holds(gap_ms)).count();
            assert!(gaps.iter().all(|gap_ms| *gap_ms < 9_000.0), "{seed}");
            assert!(count(|gap_ms| *gap_ms < 1_100.0) > gaps.len() / 2, "{seed}: bursts");
            assert!(count(|gap_ms| *gap_ms > 6_000.0) > 60, "{seed}: quiet");
        }
    }

    #[test]
    fn the_mean_pace_is_kept() {
        let sim = Simulator::start(Options::default()).unwrap();
        for (per_minute, tolerance) in [(5.0, 0.1), (PER_MINUTE_DEFAULT, 0.03), (600.0, 0.03), (6_000.0, 0.03)] {
            for seed in 1..=10 {
                let count = hour(&sim.shared, seed, per_minute).len() as f64 / 60.0;
                assert!((count / per_minute - 1.0).abs() < tolerance, "{count} instead of {per_minute} from {seed}");
            }
        }
    }
}
