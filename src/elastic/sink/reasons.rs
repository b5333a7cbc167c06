//! What the sink says of itself: the reasons for a health that is not `healthy`, and the server's name.
//!
//! Deals with: raising and clearing them in time, in words for a person. Must never: say a secret, or change what is sent.

use std::time::{Duration, Instant};

use super::{BacklogDropped, Sink};
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
/// How often the template is tried before documents go without: where the answer will most likely stay what it is, and
/// where it will not, for some minutes. A cluster that does not answer takes no documents either.
const SETUP_TRIES_MAX: u32 = 3;
const SETUP_TRIES_BUSY_MAX: u32 = 8;

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
                if self.late_since().is_none() {
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
            Setup::Unreachable(why) => return self.setup_failed(node, why, now),
            Setup::Failed(ref why) | Setup::Busy(ref why) => {
                let is_busy = matches!(outcome, Setup::Busy(_));
                self.setup_failures += 1;
                if self.setup_failures < if is_busy { SETUP_TRIES_BUSY_MAX } else { SETUP_TRIES_MAX } {
                    return self.setup_failed(node, why.clone(), now);
                }
                self.setup_failures = 0;
                once(format!("cannot put the index template {name}: {why}; documents go all the same"));
            }
        }
        self.link.set_up(node, now);
    }

    fn setup_failed(&mut self, node: usize, why: String, now: Instant) {
        self.why = format!("{}: {why}", self.nodes[node]);
        log::debug!("{}", self.why);
        self.status.clear(Code::ElasticRefused);
        self.link.setup_failed(node, now);
    }

    pub(super) fn blocked_since(&self) -> Option<Instant> {
        let node = self.in_flight.as_ref().filter(|flight| flight.documents > 0).map(|flight| flight.node);
        self.link.blocked_since(node)
    }

    /// Since when documents do not go, or the one that was put off the longest.
    pub(super) fn late_since(&self) -> Option<Instant> {
        self.blocked_since().into_iter().chain(self.queue.put_off_since()).min()
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.late_since().is_some_and(|since| now >= since + BLOCKED_AFTER)
    }

    /// Raises and clears what time alone changes.
    pub(super) fn watch(&mut self, now: Instant) {
        if self.is_late(now)
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
            self.dropped = None;
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
        let what = if self.blocked_since().is_some() { "takes no documents" } else { "puts some documents off" };
        self.status.raise(
            Code::ElasticUnreachable,
            format!(
                "the cluster {what} ({}): the events are safe in {}, {} bytes of them wait and go by themselves when it is back; look at the cluster and at ELASTIC_URL",
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
        let why = why.trim_end_matches(';');
        let cure = if why.contains("FORBIDDEN/8") || why.contains("index write (api)") {
            "somebody set index.blocks.write: set it to null"
        } else if why.contains("FORBIDDEN/5") {
            "somebody set index.blocks.read_only: set it to null"
        } else {
            "make room on the cluster's disks, then set index.blocks.read_only_allow_delete to null"
        };
        self.status.raise(
            Code::ElasticRefused,
            format!(
                "the index {:?} is read-only: {why}; the events are safe in {} and go when it takes writes; {cure}",
                self.settings.index,
                self.path.display()
            ),
        );
    }

    pub(super) fn say_dead(&mut self, last: Option<(u16, &str)>) {
        let reason = last.map(|(_, reason)| format!(" (the last: {reason})")).unwrap_or_default();
        let cause = match last {
            Some((413, _)) => "the limit on a request's size (http.max_content_length, or a proxy's)",
            _ => "the cause, mostly the index's mapping",
        };
        self.status.raise(
            Code::DeadLetters,
            format!(
                "the cluster will not take some documents as they are{reason}: the events are safe in {} and in {}, and missing in the cluster; mend {cause}, then run `audiohook-collector replay`",
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
        let events = self.dropped.map_or(0, |before| before.events) + dropped.events;
        self.say_dropped(BacklogDropped { at_ms: self.clock.wall(), events });
    }

    /// For an hour after it happened, across restarts.
    pub(super) fn say_dropped(&mut self, dropped: BacklogDropped) {
        let age_ms = u64::try_from(self.clock.wall() - dropped.at_ms).unwrap_or(0);
        let Some(left) = DROPPED_SHOWN.checked_sub(Duration::from_millis(age_ms)) else { return };
        self.dropped = Some(dropped);
        self.dropped_until = Some(self.clock.now() + left);
        self.status.raise(
            Code::ElasticBacklogDropped,
            format!(
                "{} events were deleted with the oldest backups of {} before the cluster had them, for more than ELASTIC_BACKLOG_MAX waited: they are missing there for good; see why it took none, or allow more",
                dropped.events,
                self.path.display()
            ),
        );
    }

    /// What was dropped within the last hour: to be kept.
    pub fn dropped(&self) -> Option<BacklogDropped> {
        self.dropped
    }
}
