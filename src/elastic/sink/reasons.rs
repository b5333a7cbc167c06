//! What the sink says of itself: the reasons for a health that is not `healthy`, and the server's name.
//!
//! Deals with: raising and clearing them in time, in words for a person. Must never: say a secret, or change what is sent.

use std::time::{Duration, Instant};

use super::Sink;
use crate::elastic::dead;
use crate::elastic::link::BLOCKED_AFTER;
use crate::elastic::probe::Greeting;
use crate::elastic::setup::Setup;
use crate::elastic::template;
use crate::output::backups::Dropped;
use crate::status::Code;

/// How often the dead letters are looked for while there are any: a replay in another process takes them.
const DEAD_CHECK_EVERY: Duration = Duration::from_secs(5);
/// How long the loss of a backlog is shown after the last one.
const DROPPED_SHOWN: Duration = Duration::from_secs(3600);
/// How often the words about a cluster that takes nothing are put anew: they carry the last cause and the backlog.
const SAY_EVERY: Duration = Duration::from_secs(1);
/// How often the template is tried before documents go without.
const SETUP_TRIES_MAX: u32 = 3;

impl Sink {
    pub(super) fn greeted(&mut self, node: usize, greeting: Greeting, now: Instant) {
        match greeting {
            Greeting::Alive { server } => {
                self.link.probed(node, true, now);
                if let Some(server) = server {
                    self.name_server(node, server);
                }
                if std::mem::take(&mut self.refused_by_probe) {
                    self.status.clear(Code::ElasticRefused);
                }
                if self.blocked_since().is_none() {
                    self.status.clear(Code::ElasticUnreachable);
                }
            }
            Greeting::Refused(why) => {
                self.refused_by_probe = true;
                self.link.refused(node, now);
                self.say_refused(node, &why);
            }
            Greeting::Absent(why) => {
                self.why = format!("{}: {why}", self.nodes[node]);
                self.link.probed(node, false, now);
            }
        }
    }

    pub(super) fn name_server(&self, node: usize, server: String) {
        self.status.update_elastic(|view| {
            if view.server.as_ref() != Some(&server) {
                log::info!("the cluster at {} is {server}", self.nodes[node]);
                view.server = Some(server);
            }
        });
    }

    pub(super) fn set_up(&mut self, node: usize, outcome: Setup, now: Instant) {
        let name = template::name(&self.settings.index);
        let mut once = |message: String| {
            if !std::mem::replace(&mut self.template_said, true) {
                log::warn!("{message}");
            }
        };
        match outcome {
            Setup::Put { data_stream } => {
                let kind = if data_stream { "a data stream" } else { "an index" };
                log::info!("put the index template {name} for {}, {kind}", self.settings.index);
            }
            Setup::Present => {}
            Setup::Left(why) => {
                if !std::mem::replace(&mut self.template_said, true) {
                    log::info!(
                        "did not put the index template {name}: {why}; `audiohook-collector template` prints ours"
                    );
                }
            }
            Setup::Refused(why) => once(format!(
                "cannot put the index template {name}: {why}; documents go all the same: give the user the right manage_index_templates, or put what `audiohook-collector template` prints and set ELASTIC_SETUP=false"
            )),
            Setup::Failed(why) => {
                self.setup_failures += 1;
                if !self.setup_failures.is_multiple_of(SETUP_TRIES_MAX) {
                    self.why = format!("{}: {why}", self.nodes[node]);
                    log::debug!("{}", self.why);
                    self.status.clear(Code::ElasticRefused);
                    return self.link.setup_failed(node, now);
                }
                once(format!("cannot put the index template {name}: {why}; documents go all the same"));
            }
        }
        self.link.set_up(now);
    }

    pub(super) fn blocked_since(&self) -> Option<Instant> {
        let node = self.in_flight.as_ref().filter(|flight| flight.documents > 0).map(|flight| flight.node);
        self.link.blocked_since(node)
    }

    /// Raises and clears what time alone changes.
    pub(super) fn watch(&mut self, now: Instant) {
        if self.blocked_since().is_some_and(|since| now >= since + BLOCKED_AFTER)
            && self.said_at.is_none_or(|said| now >= said + SAY_EVERY)
            && !self.status.is_raised(Code::ElasticRefused)
        {
            self.said_at = Some(now);
            self.say_unreachable();
        }
        if self.dead_check.is_some_and(|at| at <= now) {
            self.check_dead(now);
        }
        if self.dropped_until.is_some_and(|until| until <= now) {
            self.dropped_until = None;
            self.dropped_events = 0;
            self.status.clear(Code::ElasticBacklogDropped);
        }
    }

    pub(super) fn say_unreachable(&self) {
        let why = match &self.in_flight {
            // Nothing has failed yet: it hangs.
            Some(flight) if self.why.is_empty() => format!("no answer yet from {}", self.nodes[flight.node]),
            _ if self.why.is_empty() => "it has not answered yet".to_owned(),
            _ => self.why.clone(),
        };
        self.status.raise(
            Code::ElasticUnreachable,
            format!(
                "the cluster takes no documents ({}): the events are safe in {}, {} bytes of them wait and go by themselves when it is back; look at the cluster and at ELASTIC_URL",
                why,
                self.path.display(),
                self.backlog_bytes
            ),
        );
    }

    pub(super) fn say_refused(&self, node: usize, why: &str) {
        self.status.clear(Code::ElasticUnreachable);
        self.status.raise(
            Code::ElasticRefused,
            format!(
                "{} {why}: the events are safe in {} and go when it lets us; look at ELASTIC_AUTH, and at the rights to create documents in {:?}",
                self.nodes[node],
                self.path.display(),
                self.settings.index
            ),
        );
    }

    pub(super) fn say_read_only(&self, why: &str) {
        self.status.clear(Code::ElasticUnreachable);
        self.status.raise(
            Code::ElasticRefused,
            format!(
                "the index {:?} is read-only: {why}; the events are safe in {} and go when it takes writes; make room on the cluster's disks, then set index.blocks.read_only_allow_delete to null",
                self.settings.index,
                self.path.display()
            ),
        );
    }

    pub(super) fn say_dead(&mut self, reason: Option<&str>) {
        let reason = reason.map(|reason| format!(" (the last: {reason})")).unwrap_or_default();
        self.status.raise(
            Code::DeadLetters,
            format!(
                "the cluster will not take some documents as they are{reason}: the events are safe in {} and in {}, and missing in the cluster; mend the cause, mostly the index's mapping, then run `audiohook-collector replay`",
                self.path.display(),
                dead::letters_path(&self.path).display()
            ),
        );
        self.dead_check = Some(self.clock.now() + DEAD_CHECK_EVERY);
    }

    pub(super) fn check_dead(&mut self, now: Instant) {
        if !dead::any(&self.path) {
            self.dead_check = None;
            self.status.clear(Code::DeadLetters);
        } else if self.status.is_raised(Code::DeadLetters) {
            self.dead_check = Some(now + DEAD_CHECK_EVERY);
        } else {
            self.say_dead(None);
        }
    }

    pub(super) fn take_dropped(&mut self, dropped: Dropped) {
        if dropped.files == 0 {
            return;
        }
        if let Err(error) = self.chain.dropped() {
            log::error!("cannot read the folder of {}: {error}", self.path.display());
        }
        self.unread_lines = None;
        self.status.counters.elastic_dropped.add(dropped.events);
        self.dropped_events += dropped.events;
        self.dropped_until = Some(self.clock.now() + DROPPED_SHOWN);
        self.status.raise(
            Code::ElasticBacklogDropped,
            format!(
                "{} events were deleted with the oldest backups of {} before the cluster had them, for more than ELASTIC_BACKLOG_MAX waited: they are missing there for good; see why it took none, or allow more",
                self.dropped_events,
                self.path.display()
            ),
        );
    }
}
