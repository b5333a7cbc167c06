//! The channel and its subscriptions: creating, subscribing, renewing, replacing.
//!
//! Must never: make a channel while one works; count a topic as subscribed if the service does not call it permitted.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use ureq::http::Method;

use super::{DEFINITIONS_INTERVAL, draw, shorten};
use crate::clock::Clock;
use crate::genesys::api::Api;
use crate::genesys::backoff::Backoff;
use crate::genesys::channel::{self, Cause, Rejection};
use crate::genesys::error::{ApiError, Kind};
use crate::message::ChannelState;

/// Requests of a subscription before halving stops: enough to find a few bad topics in a full channel.
const REQUESTS_MAX: u32 = 64;
/// A channel made sooner than this after the last one waits longer each time: the client has only twenty.
const CALM: Duration = Duration::from_secs(600);

/// The next step for the channel.
enum Step {
    Idle,
    Create,
    Subscribe(Box<Attempt>),
}

/// One subscription of all topics. It takes several requests only if a request is refused because of a topic.
struct Attempt {
    channel: ChannelState,
    /// The channel was just made, so the service cannot mean that it is gone.
    is_fresh: bool,
    /// The topics still to request, one request per slice; split before the first request.
    slices: VecDeque<Vec<String>>,
    requests: u32,
    /// Whether the channel's former topics were replaced.
    is_replaced: bool,
    permitted: Vec<String>,
    rejected: BTreeMap<String, Rejection>,
    /// The last request that was refused because of its topics.
    refusal: Option<ApiError>,
}

impl Attempt {
    fn new(channel: ChannelState, is_fresh: bool) -> Box<Self> {
        Box::new(Self {
            channel,
            is_fresh,
            slices: VecDeque::new(),
            requests: 0,
            is_replaced: false,
            permitted: Vec::new(),
            rejected: BTreeMap::new(),
            refusal: None,
        })
    }

    /// Sends one request. A slice that is refused with 400 is halved until the bad topic is found. Topics found bad
    /// before are requested separately.
    fn send(&mut self, api: &mut Api, topics: &[String], before: &BTreeMap<String, Rejection>) -> Result<(), ApiError> {
        if self.requests == 0 {
            let is_bad = |topic: &String| before.get(topic).is_some_and(|no| no.cause == Cause::BadRequest);
            let (bad, good): (Vec<_>, Vec<_>) = topics.iter().cloned().partition(is_bad);
            self.slices = [good, bad].into_iter().filter(|slice| !slice.is_empty()).collect();
        }
        let Some(mut slice) = self.slices.pop_front() else { return Ok(()) };
        let method = if self.is_replaced { Method::POST } else { Method::PUT };
        let outcome = api.subscribe(&self.channel.id, &slice, method);
        match outcome {
            Ok(found) => {
                self.is_replaced = true;
                for one in found {
                    match one.rejected {
                        None => self.permitted.push(one.topic),
                        Some(why) => _ = self.rejected.insert(one.topic, why),
                    }
                }
            }
            Err(error) if error.kind == Kind::Refused(400) => {
                if slice.len() > 1 && self.requests < REQUESTS_MAX {
                    let second = slice.split_off(slice.len() / 2);
                    self.slices.push_front(second);
                    self.slices.push_front(slice);
                } else {
                    self.rejected.extend(slice.into_iter().map(|topic| (topic, Rejection::bad_request(&error))));
                }
                self.refusal = Some(error);
            }
            Err(error) => {
                self.slices.push_front(slice);
                return Err(error);
            }
        }
        self.requests += 1;
        Ok(())
    }
}

/// The result of a step.
pub(super) enum Change {
    Nothing,
    /// A channel was made.
    Made(ChannelState),
    /// The service answered for each topic.
    Subscribed,
}

/// What a failed step means.
#[derive(Debug, PartialEq)]
pub(super) enum Failure {
    /// The step is tried again after this time.
    Retry(Duration),
    /// The service no longer accepts the channel: another one is made.
    Replaced,
}

pub(super) struct Subscription {
    step: Step,
    /// No request before this time.
    at: Instant,
    backoff: Backoff,
    /// The subscribed channel.
    channel: Option<ChannelState>,
    /// The topics that were requested last.
    asked: Vec<String>,
    permitted: Vec<String>,
    rejected: BTreeMap<String, Rejection>,
    renew_at: Instant,
    /// Number of the token that the channel was last subscribed with.
    token: u64,
    handover_at: Option<Instant>,
    made_at: Option<Instant>,
    make_backoff: Backoff,
}

impl Subscription {
    /// Reuses a remembered channel. If the service no longer has it, another one is made.
    pub fn new(remembered: Option<ChannelState>, backoff: Backoff, now: Instant) -> Self {
        Self {
            step: remembered.map_or(Step::Create, |channel| Step::Subscribe(Attempt::new(channel, false))),
            at: now,
            backoff: backoff.clone(),
            channel: None,
            asked: Vec::new(),
            permitted: Vec::new(),
            rejected: BTreeMap::new(),
            renew_at: now,
            token: 0,
            handover_at: None,
            made_at: None,
            make_backoff: backoff,
        }
    }

    pub fn channel(&self) -> Option<&ChannelState> {
        self.channel.as_ref()
    }

    /// The topics that the service called permitted.
    pub fn permitted(&self) -> &[String] {
        &self.permitted
    }

    /// The topics that the service rejected or did not confirm.
    pub fn rejected(&self) -> &BTreeMap<String, Rejection> {
        &self.rejected
    }

    /// Whether no event can arrive. An unconfirmed topic may still deliver events.
    pub fn all_rejected(&self) -> bool {
        let is_certain = |no: &Rejection| no.cause != Cause::Unconfirmed;
        self.permitted.is_empty() && !self.rejected.is_empty() && self.rejected.values().all(is_certain)
    }

    /// Makes another channel.
    pub fn replace(&mut self, now: Instant) {
        let is_making = match &self.step {
            Step::Idle => false,
            Step::Create => true,
            Step::Subscribe(attempt) => !self.is_renewal(attempt),
        };
        if !is_making {
            self.channel = None;
            self.step = Step::Create;
            self.at = now;
        }
    }

    /// Subscribes again at this time, which shows whether the channel still exists.
    pub fn renew(&mut self, at: Instant) {
        self.renew_at = at;
        self.at = self.at.min(at);
    }

    /// When the next step is due; at once if the topics or the token have changed.
    pub fn due(&self, api: &Api, topics: &[String]) -> Instant {
        let is_outdated = self.token != api.token_number() || self.asked != topics;
        if !matches!(self.step, Step::Idle) || is_outdated {
            return self.at;
        }
        self.handover_at.map_or(self.renew_at, |handover| handover.min(self.renew_at)).max(self.at)
    }

    /// Runs one step, at most one request. `retry` is the wait before requesting topics again that were not permitted.
    pub fn run(
        &mut self,
        api: &mut Api,
        topics: &[String],
        clock: &Clock,
        retry: Duration,
    ) -> Result<Change, ApiError> {
        match &mut self.step {
            Step::Idle => self.step = self.begin(clock.now()),
            Step::Create => return self.create(api, clock),
            Step::Subscribe(attempt) => {
                attempt.send(api, topics, &self.rejected)?;
                if attempt.slices.is_empty() {
                    return self.finish(api, topics, clock.now(), retry);
                }
            }
        }
        Ok(Change::Nothing)
    }

    fn begin(&mut self, now: Instant) -> Step {
        let is_near_end = self.handover_at.is_some_and(|at| now >= at);
        match &self.channel {
            Some(channel) if !is_near_end => Step::Subscribe(Attempt::new(channel.clone(), false)),
            _ => {
                log::info!("the channel expires soon; creating the next one");
                self.handover_at = None;
                Step::Create
            }
        }
    }

    fn create(&mut self, api: &mut Api, clock: &Clock) -> Result<Change, ApiError> {
        // Checked once per channel that was made.
        if let Some(made) = self.made_at.take() {
            let now = clock.now();
            if now.duration_since(made) >= CALM {
                self.make_backoff.reset();
            }
            self.at = made + self.make_backoff.next(draw());
            if self.at > now {
                return Ok(Change::Nothing);
            }
        }
        let made = api.create_channel()?;
        log::info!("created channel {}", crate::secret::mask(&made.id));
        self.made_at = Some(clock.now());
        self.step = Step::Subscribe(Attempt::new(made.clone(), true));
        Ok(Change::Made(made))
    }

    fn finish(&mut self, api: &Api, topics: &[String], now: Instant, retry: Duration) -> Result<Change, ApiError> {
        let Step::Subscribe(attempt) = std::mem::replace(&mut self.step, Step::Idle) else {
            return Ok(Change::Nothing);
        };
        if let Some(error) = attempt.refusal.clone().filter(|_| !attempt.is_replaced) {
            // Nothing was accepted. If the channel cannot be the cause, the topics are.
            if !attempt.is_fresh {
                self.step = Step::Subscribe(attempt);
                return Err(error);
            }
            let problem = error.problem();
            problem.log(log::Level::Warn, &problem.what);
        }
        let attempt = *attempt;
        if !self.is_renewal(&attempt) {
            self.handover_at = Some(now + channel::handover_in(&attempt.channel, api.service().now()));
        }
        self.log_changes(&attempt);
        (self.permitted, self.rejected) = (attempt.permitted, attempt.rejected);
        self.channel = Some(attempt.channel);
        self.backoff.reset();
        self.token = api.token_number();
        self.asked = topics.to_vec();
        self.at = now;
        let is_whole = topics.iter().all(|topic| self.permitted.contains(topic) || self.rejected.contains_key(topic));
        let wait = if self.rejected.is_empty() { DEFINITIONS_INTERVAL } else { retry };
        self.renew_at = if is_whole { now + wait } else { now };
        Ok(Change::Subscribed)
    }

    /// Whether the attempt is for the channel that is subscribed.
    fn is_renewal(&self, attempt: &Attempt) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.id == attempt.channel.id)
    }

    fn log_changes(&self, attempt: &Attempt) {
        // Usually all topics have the same reason.
        let mut topics_by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (topic, why) in attempt.rejected.iter().filter(|(topic, why)| self.rejected.get(*topic) != Some(why)) {
            let verb = if why.cause == Cause::Unconfirmed { "did not confirm" } else { "rejected" };
            topics_by_reason.entry(format!("{verb} topics: {why}")).or_default().push(topic.clone());
        }
        for (what, topics) in topics_by_reason {
            log::warn!("Genesys Cloud {what} ({})", shorten(&topics));
        }
        if !attempt.permitted.is_empty() && (attempt.permitted != self.permitted || !self.is_renewal(attempt)) {
            log::info!("subscribed to {} topics: {}", attempt.permitted.len(), shorten(&attempt.permitted));
        }
    }

    /// Handles a failed step. A channel that the service refuses is replaced; everything else is tried again after the
    /// requested wait, or with backoff.
    pub fn failed(&mut self, error: &ApiError, asked: Option<Duration>, now: Instant) -> Failure {
        let is_gone = matches!(error.kind, Kind::Gone | Kind::Unauthorized | Kind::Forbidden);
        if let Step::Subscribe(attempt) = &self.step {
            let serves = self.is_renewal(attempt);
            if is_gone && serves || (is_gone || matches!(error.kind, Kind::Refused(_))) && !serves && !attempt.is_fresh
            {
                let level = if serves { log::Level::Warn } else { log::Level::Info };
                log::log!(level, "{}; making a new channel", error.problem().what);
                self.step = Step::Idle;
                self.replace(now);
                return Failure::Replaced;
            }
            if serves {
                self.step = Step::Idle;
            } else if error.kind == Kind::Gone {
                self.step = Step::Create;
            }
        }
        let wait = asked.unwrap_or_else(|| self.backoff.next(draw()));
        self.at = now + wait;
        Failure::Retry(wait)
    }
}
