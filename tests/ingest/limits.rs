//! How long to wait before a call is made again, when the service says so.

use std::time::Duration;

use audiohook_collector::clock::Clock;
use audiohook_collector::simulator::{Action, Answer, Call, Simulator, http_date};
use serde_json::json;

use crate::support::Collector;
use crate::{Folder, LONG, simulator, started};

/// How long the service asks to wait, and the least that is kept to: an HTTP date has no fraction.
const ASKED_S: i64 = 5;
const KEPT: Duration = Duration::from_millis(3_900);

/// How a service asks for it.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Seconds,
    Date,
    /// In the message alone.
    Text,
}

fn refusal(status: u16, asked: Asked) -> Action {
    Action::custom(move |_, _| {
        let text = match asked {
            Asked::Text => format!("Rate limit exceeded the maximum. Retry the request in [{ASKED_S}] seconds"),
            _ => "Not now.".to_owned(),
        };
        let answer = Answer::json(status, json!({"message": text, "code": "not.now", "status": status}));
        match asked {
            Asked::Seconds => answer.with("Retry-After", ASKED_S),
            Asked::Date => answer.with("Retry-After", http_date(Clock::system().wall() + ASKED_S * 1000)),
            Asked::Text => answer,
        }
    })
}

/// Between the call that was refused and the next one.
fn gap(sim: &Simulator, call: Call, status: u16) -> Duration {
    let found = sim.wait_for(LONG, |view| {
        let seen = view.requests(call);
        let at = seen.iter().position(|seen| seen.status == status)?;
        Some(seen.get(at + 1)?.at.duration_since(seen[at].at))
    });
    found.unwrap_or_else(|| panic!("{call:?} is not tried again"))
}

#[test]
fn the_wait_that_a_refusal_asks_for_is_kept_to() {
    let mut all = Vec::new();
    for (status, asked) in
        [(429, Asked::Seconds), (429, Asked::Date), (429, Asked::Text), (503, Asked::Seconds), (503, Asked::Date)]
    {
        for call in [Call::History, Call::Handshake] {
            if matches!((call, asked), (Call::Handshake, Asked::Text)) {
                continue;
            }
            let sim = simulator(|_| ());
            let (folder, collector) = started("retry-after", &sim, &[]);
            sim.faults().fail_next(call, refusal(status, asked), 1);
            if call == Call::Handshake {
                sim.faults().cut_sockets();
            }
            all.push((call, status, asked, sim, folder, collector));
        }
    }
    for (call, status, asked, sim, _folder, collector) in all {
        let gap = gap(&sim, call, status);
        assert!(gap >= KEPT, "{call:?} after {status}, {asked:?}: again after {gap:?}\n{}", collector.log_text());
        assert!(gap <= KEPT * 4, "{call:?} after {status}, {asked:?}: again after {gap:?}");
    }
}

#[test]
fn the_wait_that_a_refusal_asks_for_is_kept_to_at_the_start() {
    let mut all = Vec::new();
    for (call, asked) in [
        (Call::Token, Asked::Date),
        (Call::Channels, Asked::Date),
        (Call::Subscriptions, Asked::Seconds),
        (Call::Definitions, Asked::Date),
    ] {
        let (sim, folder) = (simulator(|_| ()), Folder::new("retry-after-start"));
        sim.faults().fail_next(call, refusal(503, asked), 1);
        let collector = Collector::start(&sim, &folder, &[]);
        all.push((call, asked, sim, folder, collector));
    }
    for (call, asked, sim, _folder, collector) in all {
        let gap = gap(&sim, call, 503);
        assert!(gap >= KEPT, "{call:?}, {asked:?}: again after {gap:?}\n{}", collector.log_text());
        collector.wait_healthy();
    }
}
