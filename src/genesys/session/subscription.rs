//! The channel and its subscriptions: made, subscribed, renewed, replaced.
//!
//! Must never: make a channel while one serves; take a topic for subscribed that the service does not call permitted.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::{DEFINITIONS_INTERVAL, draw, shorten};
use crate::clock::Clock;
use crate::genesys::api::{Api, Put};
use crate::genesys::backoff::Backoff;
use crate::genesys::channel::{self, Cause, Rejection};
use crate::genesys::error::{ApiError, Kind};
use crate::message::ChannelState;

/// Requests of one subscription: enough to find a few bad topics among the most that a channel takes.
const REQUESTS_MAX: u32 = 64;
/// Channels that are made sooner after one another than this wait longer each time: the client has only twenty.
const CALM: Duration = Duration::from_secs(600);

/// What is to happen to the channel next.
enum Step {
    Idle,
    /// Look whether a remembered channel still exists.
    Check(ChannelState),
    Create,
    Subscribe(Attempt),
}

/// One subscription of all topics: more than one request only where a request is refused for a topic in it.
struct Attempt {
    channel: ChannelState,
    /// Just made: the service cannot mean that it is gone.
    is_fresh: bool,
    /// What is still to be asked for, one request each.
    slices: VecDeque<Vec<String>>,
    requests: u32,
    /// Whether the channel's former topics are replaced already.
    is_replaced: bool,
    permitted: Vec<String>,
    rejected: BTreeMap<String, Rejection>,
    /// The last request that was refused for its topics.
    refusal: Option<ApiError>,
}

impl Attempt {
    /// Topics that failed a whole request before are asked for apart from the others.
    fn new(channel: ChannelState, is_fresh: bool, topics: &[String], before: &BTreeMap<String, Rejection>) -> Self {
        let is_bad = |topic: &String| before.get(topic).is_some_and(|no| no.cause == Cause::BadRequest);
        let (bad, good): (Vec<String>, Vec<String>) = topics.iter().cloned().partition(is_bad);
        Self {
            channel,
            is_fresh,
            slices: [good, bad].into_iter().filter(|slice| !slice.is_empty()).collect(),
            requests: 0,
            is_replaced: false,
            permitted: Vec::new(),
            rejected: BTreeMap::new(),
            refusal: None,
        }
    }

    /// One request. A slice that is refused with 400 is halved until the topic that is at fault is found.
    fn send(&mut self, api: &mut Api) -> Result<(), ApiError> {
        let Some(slice) = self.slices.front() else { return Ok(()) };
        let put = if self.is_replaced { Put::Beside } else { Put::Instead };
        let answer = api.subscribe(&self.channel.id, slice, put);
        let answer = match answer {
            Err(error) if error.kind != Kind::Refused(400) => return Err(error),
            answer => answer,
        };
        self.requests += 1;
        let mut slice = self.slices.pop_front().unwrap_or_default();
        match answer {
            Ok(found) => {
                self.is_replaced = true;
                for one in found {
                    match one.rejected {
                        None => self.permitted.push(one.topic),
                        Some(why) => _ = self.rejected.insert(one.topic, why),
                    }
                }
            }
            Err(error) => {
                if slice.len() > 1 && self.requests < REQUESTS_MAX {
                    let second = slice.split_off(slice.len() / 2);
                    self.slices.push_front(second);
                    self.slices.push_front(slice);
                } else {
                    self.rejected.extend(slice.into_iter().map(|topic| (topic, Rejection::bad_request(&error))));
                }
                self.refusal = Some(error);
            }
        }
        Ok(())
    }

    /// Why nothing of it was taken, where that is so.
    fn refused_as_a_whole(&self) -> Option<&ApiError> {
        self.refusal.as_ref().filter(|_| !self.is_replaced)
    }
}

/// What a step led to.
pub(super) enum Change {
    Nothing,
    /// A channel was made.
    Made(ChannelState),
    /// The topics are asked for, and the service said of each what it is.
    Subscribed,
}

/// What a failed step means.
#[derive(Debug, PartialEq)]
pub(super) enum Failure {
    /// It is tried again after this time.
    Retry(Duration),
    /// The service does not take the channel any more: another one follows.
    Replaced,
}

pub(super) struct Subscription {
    step: Step,
    /// No request before this.
    at: Instant,
    backoff: Backoff,
    /// Whose channels they are.
    owner: String,
    /// The channel that is subscribed.
    channel: Option<ChannelState>,
    /// What was asked for last.
    asked: Vec<String>,
    permitted: Vec<String>,
    rejected: BTreeMap<String, Rejection>,
    renew_at: Instant,
    /// The number of the token that it was last subscribed with.
    token: u64,
    handover_at: Option<Instant>,
    made_at: Option<Instant>,
    make_backoff: Backoff,
}

impl Subscription {
    pub fn new(remembered: Option<ChannelState>, owner: String, backoff: Backoff, now: Instant) -> Self {
        Self {
            step: remembered.map_or(Step::Create, Step::Check),
            at: now,
            backoff: backoff.clone(),
            owner,
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

    /// What the service called permitted.
    pub fn permitted(&self) -> &[String] {
        &self.permitted
    }

    /// What it rejected, or did not confirm.
    pub fn rejected(&self) -> &BTreeMap<String, Rejection> {
        &self.rejected
    }

    /// Whether nothing can arrive: a topic that is only not confirmed may.
    pub fn all_rejected(&self) -> bool {
        let is_certain = |no: &Rejection| no.cause != Cause::Unconfirmed;
        self.permitted.is_empty() && !self.rejected.is_empty() && self.rejected.values().all(is_certain)
    }

    /// Looks at this instant whether the channel still exists, unless something is under way.
    pub fn check(&mut self, channel: ChannelState, at: Instant) {
        if matches!(self.step, Step::Idle) {
            self.step = Step::Check(channel);
            self.at = at;
        }
    }

    /// Makes another channel, from this instant on.
    pub fn replace(&mut self, at: Instant) {
        let is_making = match &self.step {
            Step::Create => true,
            Step::Subscribe(attempt) => !self.is_renewal(attempt),
            Step::Idle | Step::Check(_) => false,
        };
        if !is_making {
            self.channel = None;
            self.handover_at = None;
            self.step = Step::Create;
            self.at = at;
        }
    }

    /// Subscribes again now.
    pub fn renew(&mut self, now: Instant) {
        self.renew_at = now;
        self.at = self.at.min(now);
    }

    /// When the next step is due: with other topics or another token than before, at once.
    pub fn due(&self, api: &Api, topics: &[String], wants_socket: bool) -> Instant {
        let next = match &self.step {
            Step::Idle if self.token != api.token_number() || self.asked != topics => None,
            Step::Idle => self.handover_at.filter(|_| wants_socket).into_iter().chain([self.renew_at]).min(),
            _ => None,
        };
        next.map_or(self.at, |next| next.max(self.at))
    }

    /// One step, a request at most.
    pub fn run(
        &mut self,
        api: &mut Api,
        topics: &[String],
        clock: &Clock,
        retry: Duration,
    ) -> Result<Change, ApiError> {
        let now = clock.now();
        match &mut self.step {
            Step::Idle => self.begin(topics, now),
            Step::Check(channel) => {
                if channel::is_usable(channel, &self.owner, api.service().now()) {
                    api.check_channel(&channel.id)?;
                    self.step = Step::Subscribe(Attempt::new(channel.clone(), false, topics, &self.rejected));
                } else {
                    log::info!("the remembered channel has expired or is another client's: making a new one");
                    self.step = Step::Create;
                }
            }
            Step::Create => {
                if let Some(at) = self.next_making(now).filter(|at| *at > now) {
                    self.at = at;
                    return Ok(Change::Nothing);
                }
                let made = api.create_channel()?;
                log::info!("made the channel {}", crate::secret::mask(&made.id));
                self.made_at = Some(clock.now());
                self.step = Step::Subscribe(Attempt::new(made.clone(), true, topics, &self.rejected));
                return Ok(Change::Made(made));
            }
            Step::Subscribe(attempt) => {
                attempt.send(api)?;
                if attempt.slices.is_empty() {
                    return self.finish(api, topics, clock, retry);
                }
            }
        }
        Ok(Change::Nothing)
    }

    fn begin(&mut self, topics: &[String], now: Instant) {
        self.step = match &self.channel {
            Some(channel) if self.handover_at.is_none_or(|at| now < at) => {
                Step::Subscribe(Attempt::new(channel.clone(), false, topics, &self.rejected))
            }
            Some(_) => {
                log::info!("the channel is near its end: making a new one to take over");
                self.handover_at = None;
                Step::Create
            }
            None => Step::Create,
        };
    }

    /// Not before this may a channel be made after the last one; asked once for each.
    fn next_making(&mut self, now: Instant) -> Option<Instant> {
        let made = self.made_at.take()?;
        if now.duration_since(made) >= CALM {
            self.make_backoff.reset();
        }
        Some(made + self.make_backoff.next(draw()))
    }

    fn finish(&mut self, api: &Api, topics: &[String], clock: &Clock, retry: Duration) -> Result<Change, ApiError> {
        let Step::Subscribe(attempt) = std::mem::replace(&mut self.step, Step::Idle) else {
            return Ok(Change::Nothing);
        };
        let now = clock.now();
        if let Some(error) = attempt.refused_as_a_whole() {
            // The topics are to blame only where the channel cannot be, and nothing is known to be subscribed.
            if self.is_renewal(&attempt) || !attempt.is_fresh {
                let error = error.clone();
                self.step = Step::Subscribe(attempt);
                return Err(error);
            }
            log::warn!("{error}");
        }
        self.backoff.reset();
        self.at = now;
        self.token = api.token_number();
        self.asked = topics.to_vec();
        if !self.is_renewal(&attempt) {
            self.handover_at = Some(now + channel::handover_in(&attempt.channel, api.service().now()));
        }
        self.log_changes(&attempt);
        self.permitted = attempt.permitted;
        self.rejected = attempt.rejected;
        let is_whole = topics.iter().all(|topic| self.permitted.contains(topic) || self.rejected.contains_key(topic));
        let wait = if self.rejected.is_empty() { DEFINITIONS_INTERVAL } else { retry };
        self.renew_at = if is_whole { now + wait } else { now };
        self.channel = Some(attempt.channel);
        Ok(Change::Subscribed)
    }

    fn is_renewal(&self, attempt: &Attempt) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.id == attempt.channel.id)
    }

    fn log_changes(&self, attempt: &Attempt) {
        for (topic, why) in &attempt.rejected {
            if self.rejected.get(topic) != Some(why) {
                let verb = if why.cause == Cause::Unconfirmed { "not confirmed" } else { "rejected" };
                log::warn!("the topic {topic} was {verb}: {why}");
            }
        }
        if attempt.permitted.is_empty() {
            if attempt.rejected != self.rejected {
                log::warn!("no topic is confirmed: asking again");
            }
        } else if attempt.permitted != self.permitted || !self.is_renewal(attempt) {
            log::info!("subscribed to {} topics: {}", attempt.permitted.len(), shorten(&attempt.permitted));
        }
    }

    /// A step failed: a channel that the service refuses is replaced, everything else is tried again after the time that
    /// was asked for, or with backoff.
    pub fn failed(&mut self, error: &ApiError, asked: Option<Duration>, now: Instant) -> Failure {
        let is_gone = matches!(error.kind, Kind::Gone | Kind::Unauthorized | Kind::Forbidden);
        let is_refused = is_gone || matches!(error.kind, Kind::Refused(_));
        let is_to_replace = match &self.step {
            Step::Check(_) => is_refused,
            Step::Subscribe(attempt) if self.is_renewal(attempt) => is_gone,
            Step::Subscribe(attempt) => is_refused && !attempt.is_fresh,
            Step::Idle | Step::Create => false,
        };
        if is_to_replace {
            let level = if self.channel.is_some() { log::Level::Warn } else { log::Level::Info };
            log::log!(level, "{}; making a new channel", error.problem().what);
            self.step = Step::Idle;
            self.replace(now);
            return Failure::Replaced;
        }
        match &self.step {
            // The channel serves as it is.
            Step::Subscribe(attempt) if self.is_renewal(attempt) => self.step = Step::Idle,
            Step::Subscribe(_) if error.kind == Kind::Gone => self.step = Step::Create,
            _ => {}
        }
        let wait = asked.unwrap_or_else(|| self.backoff.next(draw()));
        self.at = now + wait;
        Failure::Retry(wait)
    }
}
