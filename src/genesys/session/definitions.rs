//! The known definitions, and the plan that follows from them.
//!
//! The last fetched definitions are kept in the state and used until newer definitions arrive. Before the first fetch,
//! the built-in list is used.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{DEFINITIONS_INTERVAL, Session, draw, shorten};
use crate::genesys::backoff::Backoff;
use crate::genesys::error::{ApiError, Kind};
use crate::genesys::topics::{self, Plan};
use crate::message::{Definition, WriterCommand};
use crate::status::Problem;

pub(super) struct Definitions {
    /// The entries of TOPICS_FILE.
    file: Option<Vec<String>>,
    /// The last fetched definitions; empty before the first fetch.
    fetched: Vec<Definition>,
    /// Whether they were fetched since the start.
    is_confirmed: bool,
    pub at: Instant,
    backoff: Backoff,
    /// Why the list is not confirmed, if it is not.
    pub unconfirmed: Option<Problem>,
}

impl Definitions {
    pub fn new(file: Option<Vec<String>>, fetched: Vec<Definition>, backoff: Backoff, now: Instant) -> Self {
        Self { file, fetched, is_confirmed: false, at: now, backoff, unconfirmed: None }
    }

    /// The topics to subscribe to and the definitions to request, as far as is known.
    pub fn plan(&self) -> Plan {
        topics::plan(self.file.as_deref(), Some(self.fetched.as_slice()).filter(|fetched| !fetched.is_empty()))
    }

    /// The plan's definitions whose history is read: those whose rows are known to be AudioHook's. Others may turn out
    /// to be AudioHook's once their names are known; until then their rows would be left out, but count as read.
    pub fn read_ids(&self, plan: &Plan) -> Vec<String> {
        let known = crate::event::Definitions::new(&self.fetched);
        plan.ids.iter().filter(|id| known.is_audiohook(id)).cloned().collect()
    }

    /// Whether TOPICS_FILE names definitions, but none that the service has.
    pub fn unknown_only(&self, plan: &Plan) -> bool {
        self.is_confirmed && plan.ids.len() == plan.topics.len() && !plan.ids.iter().any(|id| self.is_known(id))
    }

    /// Whether the service has this definition, as far as is known.
    pub fn is_known(&self, id: &str) -> bool {
        self.fetched.iter().any(|definition| definition.id == id)
    }

    fn failed(&mut self, error: &ApiError) {
        let problem = error.problem();
        let used = if self.fetched.is_empty() { "the built-in list" } else { "the last known list" };
        let impact = format!("{used} of definitions is used, and events of definitions not in it are late");
        self.unconfirmed = Some(Problem { what: format!("{}; {impact}", problem.what), ..problem });
    }
}

impl Session {
    /// Fetches the definitions at the start and every few hours, and makes the plan from them.
    pub(super) fn ask_definitions_if_due(&mut self, now: Instant) -> bool {
        if now < self.definitions.at {
            return false;
        }
        let answer = self.api.definitions().and_then(|definitions| {
            let has_audiohook = definitions.iter().any(|definition| topics::is_audiohook_id(&definition.id));
            if has_audiohook { Ok(definitions) } else { Err(self.api.no_audiohook_definitions()) }
        });
        match answer {
            Ok(definitions) => {
                self.definitions.backoff.reset();
                self.throttle_backoff.reset();
                self.definitions.unconfirmed = None;
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
                self.definitions.failed(&error);
                self.definitions.at = self.clock.now() + wait;
            }
        }
        let confirmed = self.definitions.unconfirmed.is_none();
        self.status.gauges.definitions_confirmed.set(i64::from(confirmed));
        true
    }

    fn take_definitions(&mut self, definitions: Vec<Definition>) {
        let was_confirmed = std::mem::replace(&mut self.definitions.is_confirmed, true);
        self.definitions.fetched = definitions;
        // Names and descriptions for the rows of the history.
        self.outbox.send(WriterCommand::Definitions(Arc::from(self.definitions.fetched.as_slice())));
        let plan = self.definitions.plan();
        if !was_confirmed || plan.notices != self.plan.notices {
            plan.notices.iter().for_each(|notice| log::warn!("{notice}"));
        }
        self.read_ids = self.definitions.read_ids(&plan);
        self.reading.left_out.retain(|id, _| self.read_ids.contains(id));
        if plan != self.plan {
            log::info!("collecting {} topics: {}", plan.topics.len(), shorten(&plan.topics));
            self.plan = plan;
        }
    }
}
