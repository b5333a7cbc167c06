//! Events that look like real incidents: an integration fails for a while, in bursts, recovers, and it is quiet.
//!
//! What happens, and when, follows from the seed.

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

/// The first live event comes at the latest after this.
const FIRST_EVENT_MS_MAX: f64 = 2_000.0;
/// Events a minute, unless something else is wished.
const PER_MINUTE_DEFAULT: f64 = 30.0;
/// Events a minute, at most: a pace that is kept on any machine, and whose history fits into its memory for a while.
pub const PER_MINUTE_MAX: f64 = 60_000.0;
/// The longest mean gap: a year.
const GAP_MS_MAX: f64 = 3.2e10;
/// Between two events of one incident, at most, in mean gaps.
const GAP_IN_BURST_MAX: f64 = 0.5;
/// Events a minute that the past is filled with, at most: a fast present must not make the start slow.
const PAST_PER_MINUTE_MAX: f64 = 1_200.0;
/// Events of one incident, at most: whoever connects sees an event within ten seconds at the usual pace.
const BURST_MAX: u64 = 4;
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

/// What happens to an integration: definition, error code, values before and after, and whether a conversation is hit.
/// `@` stands for the host.
type Kind = (&'static str, Option<&'static str>, Option<&'static str>, Option<&'static str>, bool);

/// What goes wrong, by the codes that `event::codes` explains. The last one is the recovery, with which the longer incidents end.
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

/// Fills the past, and goes on until `stopped`.
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

/// Issues what happens from now on, each event at its time.
fn go_on(shared: &Shared, mut incidents: Incidents, stopped: &Receiver<()>) {
    // Each event is due so long after the one before it was due, not after it was issued: else what the issuing takes
    // would slow the pace.
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

/// What happens next, for ever.
struct Incidents {
    random: u64,
    mean_gap_ms: f64,
    /// One template for each integration and kind: the texts of all events are these.
    templates: Vec<Vec<Arc<Template>>>,
    /// The events of this incident that are still to come, each after its gap.
    coming: VecDeque<(f64, Arc<Template>)>,
    /// The quiet after this incident: what keeps the pace in the mean.
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

    /// From now on so many events a minute, in the mean; the first comes soon.
    fn go_live(&mut self, per_minute: f64) {
        self.mean_gap_ms = mean_gap_ms(per_minute);
        self.quiet_ms = self.mean_gap_ms.min(FIRST_EVENT_MS_MAX) * self.fraction();
        self.begin();
    }

    /// Milliseconds until the next event, and the event.
    fn next(&mut self) -> (f64, Arc<Template>) {
        loop {
            match self.coming.pop_front() {
                Some(next) => return next,
                None => self.begin(),
            }
        }
    }

    /// Begins an incident after the quiet.
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

    /// Each gap before an event, live and from this seed.
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
    fn every_code_that_is_explained_occurs() {
        let explained: BTreeSet<&str> = EVENT_CODES.iter().map(|code| code.id).collect();
        assert_eq!(KINDS.iter().map(|kind| kind.0).collect::<BTreeSet<&str>>(), explained);
        assert!(event_code(KINDS[RECOVERED].0).is_some_and(|code| code.recovery));
    }

    #[test]
    fn whoever_connects_sees_an_event_within_ten_seconds_and_incidents_come_in_bursts() {
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
