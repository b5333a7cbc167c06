//! Which definitions there are, and the plan that follows from them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{DEFINITIONS_INTERVAL, Session, draw, shorten};
use crate::clock::Millis;
use crate::genesys::backoff::Backoff;
use crate::genesys::error::Kind;
use crate::genesys::topics::{self, Plan};
use crate::message::{Definition, FromSession};
use crate::status::Problem;

pub(super) struct Definitions {
    /// What TOPICS_FILE names.
    file: Option<Vec<String>>,
    known: Option<Vec<Definition>>,
    /// The service's time when they were last asked for with success.
    known_at: Option<Millis>,
    pub at: Instant,
    backoff: Backoff,
    /// Why the list is not confirmed, while it is not.
    pub unconfirmed: Option<Problem>,
}

impl Definitions {
    pub fn new(file: Option<Vec<String>>, backoff: Backoff, now: Instant) -> Self {
        Self { file, known: None, known_at: None, at: now, backoff, unconfirmed: None }
    }

    /// What to subscribe to and to ask for, as far as is known.
    pub fn plan(&self) -> Plan {
        topics::plan(self.file.as_deref(), self.known.as_deref())
    }
}

impl Session {
    /// Asks for the definitions at the start and every few hours, and makes the plan from them.
    pub(super) fn ask_definitions_if_due(&mut self, now: Instant) -> bool {
        if now < self.definitions.at {
            return false;
        }
        match self.api.definitions() {
            Ok(definitions) => {
                self.definitions.backoff.reset();
                self.definitions.unconfirmed = None;
                self.throttle_backoff.reset();
                self.definitions.at = self.clock.now() + DEFINITIONS_INTERVAL;
                self.take_definitions(definitions);
            }
            Err(error) => {
                let wait = self.failed(&error).unwrap_or_else(|| {
                    if error.kind == Kind::Forbidden {
                        self.config.catch_up.interval.max(Duration::from_secs(60))
                    } else {
                        self.definitions.backoff.next(draw())
                    }
                });
                let Problem { what, cure } = error.problem();
                if self.definitions.known.is_none() && self.definitions.backoff.failures() <= 1 {
                    log::warn!("{what}; using the built-in list. {cure}");
                }
                let what = format!("{what}; the last known or built-in list is used, and events of other ids are late");
                self.definitions.unconfirmed = Some(Problem { what, cure });
                self.definitions.at = self.clock.now() + wait;
                if self.definitions.known.is_none() {
                    self.tell_definitions();
                }
            }
        }
        true
    }

    fn take_definitions(&mut self, definitions: Vec<Definition>) {
        let first = self.definitions.known.is_none();
        self.definitions.known = Some(definitions);
        let plan = self.definitions.plan();
        self.tell_definitions();
        let known_before = self.definitions.known_at.replace(self.api.service().now());
        if first || plan.notices != self.plan.notices {
            for notice in &plan.notices {
                log::warn!("{notice}");
            }
        }
        if plan == self.plan {
            return;
        }
        let new_ids: Vec<String> = plan.ids.iter().filter(|id| !self.plan.ids.contains(id)).cloned().collect();
        log::info!("collecting {} topics: {}", plan.topics.len(), shorten(&plan.topics));
        self.plan = plan;
        self.reading.history.forget_refusals();
        if let Some(known_before) = known_before {
            // The new ids may have had events since the definitions were last looked at.
            let from = known_before - self.overlap_ms();
            let to = self.api.service().now();
            self.reading.history.add(new_ids, from, to, false, self.clock.now());
        }
    }

    fn tell_definitions(&mut self) {
        let known = self.known_definitions();
        self.tell(FromSession::Definitions(Arc::new(known)));
    }

    /// What the writer is told of the definitions.
    pub(super) fn known_definitions(&self) -> Vec<Definition> {
        self.definitions.known.clone().unwrap_or_else(topics::built_in)
    }
}
