//! The session against the simulated service, with the test in the writer's place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crossbeam_channel::bounded;

use super::*;
use crate::config::{self, CatchUp, LogFormat, LogSettings, Network, Reconnect};
use crate::genesys::topics::built_in;
use crate::message::{Batch, Control, Frame, Purpose};
use crate::secret::Secret;
use crate::simulator::{Action, Answer, Call, Client, Event, Options, Request, Route, Simulator};
use crate::status::Code;

/// Rows wait for their frames for ten seconds of it.
const SOON: Duration = Duration::from_secs(30);

struct Stage {
    sim: Simulator,
    status: Arc<Status>,
    frames: Receiver<Batch>,
    told: Receiver<WriterCommand>,
    inbox: Sender<SessionEvent>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    seen: Seen,
}

/// What the stage in the writer's place has seen.
#[derive(Default)]
struct Seen {
    /// Conversations, as both ways name them.
    socket: BTreeSet<String>,
    history: BTreeSet<String>,
    read_up_to: Option<Millis>,
    /// Of the read under way.
    purpose: Option<Purpose>,
    /// Up to where each definition was read.
    covered: BTreeMap<String, Millis>,
    /// How many parts of the coverage were begun.
    coverage_reads: usize,
    /// No part of the coverage can be judged.
    judges_no_coverage: bool,
    channel: Option<ChannelState>,
    definitions: usize,
}

fn simulator() -> Simulator {
    Simulator::start(Options::default()).unwrap()
}

fn config_for(sim: &Simulator) -> Config {
    let Client { id, secret } = Options::default().clients.remove(0);
    Config {
        instance: String::new(),
        notices: Vec::new(),
        genesys: config::Genesys {
            env: "usw2.pure.cloud".to_owned(),
            client_id: id,
            client_secret: Secret::new(secret),
            login_url: sim.url(),
            api_url: sim.url(),
            delivery: Delivery::Auto,
            topics_file: PathBuf::from("/no/such/topics.json"),
            topics: None,
        },
        catch_up: CatchUp {
            interval: Duration::from_secs(1),
            overlap: Duration::from_secs(900),
            rate: 100_000,
            start: Duration::from_secs(86_400),
        },
        output: config::Output {
            file: "unused".into(),
            max_file_size: 0,
            backup_count: 0,
            state_file: "unused".into(),
            redact_fields: Vec::new(),
        },
        log: LogSettings { console: false, level: log::LevelFilter::Off, format: LogFormat::Json },
        elastic: None,
        http: config::Http { host: String::new(), port: 0, token: None },
        reconnect: Reconnect { delay: Duration::from_millis(100), max_delay: Duration::from_millis(400) },
        network: Network::default(),
    }
}

impl Stage {
    fn new(sim: Simulator) -> Self {
        let config = config_for(&sim);
        sim.faults().set(|knobs| knobs.requests_per_minute = None);
        Self::with(sim, config, None, None)
    }

    fn with(sim: Simulator, config: Config, checkpoint: Option<Millis>, channel: Option<ChannelState>) -> Self {
        Self::at(Clock::system(), sim, config, checkpoint, channel)
    }

    fn at(
        clock: Clock,
        sim: Simulator,
        config: Config,
        checkpoint: Option<Millis>,
        channel: Option<ChannelState>,
    ) -> Self {
        let status = Arc::new(Status::new(clock.clone(), false));
        let dialer = Arc::new(Dialer::new(&config.network).unwrap());
        let (to_writer, told) = bounded(2);
        let (session_in, inbox) = bounded(64);
        let (frames_in, frames) = bounded(16);
        let (stop, stopped) = bounded(0);
        let context = crate::reader::Context {
            dialer: dialer.clone(),
            out: frames_in,
            session: session_in.clone(),
            status: status.clone(),
            clock: clock.clone(),
            stop: stopped.clone(),
        };
        let open = Box::new(move |address: Address| crate::reader::start(address, context.clone()));
        let first = sim.now() - config.catch_up.start.as_millis() as Millis;
        let begin = Start {
            checkpoint: checkpoint.unwrap_or(first),
            origin: checkpoint.map_or(first, |_| 0),
            by_wall: false,
            coverage: checkpoint.into_iter().flat_map(|at| built_in().into_iter().map(move |d| (d.id, at))).collect(),
            definitions: Vec::new(),
            channel,
        };
        session_in.send(SessionEvent::Loaded).unwrap();
        let thread = start(Setup {
            config: Arc::new(config),
            start: begin,
            dialer,
            to_writer,
            inbox,
            open,
            status: status.clone(),
            clock,
            stop: stopped,
        })
        .unwrap();
        Self {
            sim,
            status,
            frames,
            told,
            inbox: session_in,
            stop: Some(stop),
            thread: Some(thread),
            seen: Seen::default(),
        }
    }

    /// Does the writer's work until it holds; panics when it does not come to that.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + SOON;
        while !holds(self) {
            assert!(Instant::now() < deadline, "not in time: {what}; reasons {:?}", self.codes());
            crossbeam_channel::select! {
                recv(self.frames) -> batch => self.take(batch.unwrap()),
                recv(self.told) -> told => self.handle(told.unwrap()),
                default(Duration::from_millis(10)) => {}
            }
        }
    }

    fn take(&mut self, batch: Batch) {
        for frame in batch.frames.iter() {
            let Frame::Text(text) = frame else { continue };
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            let control = match value["topicName"].as_str() {
                Some("v2.system.socket_closing") => Some(Control::SocketClosing),
                Some(topic) if topic.starts_with("v2.system.") => Some(Control::Revoked),
                None if value["result"] == "404" => Some(Control::ChannelGone),
                _ => None,
            };
            if let Some(control) = control {
                self.inbox.send(SessionEvent::Control { connection: batch.connection, control }).unwrap();
            }
            if let Some(id) = value["eventBody"]["conversationId"].as_str() {
                self.seen.socket.insert(id.to_owned());
            }
        }
    }

    fn handle(&mut self, told: WriterCommand) {
        match told {
            WriterCommand::Page(page) => {
                for row in page.rows {
                    let row: serde_json::Value = serde_json::from_str(&page.body[row]).unwrap();
                    self.seen.history.insert(row["conversation"]["id"].as_str().unwrap().to_owned());
                }
            }
            WriterCommand::Begin { purpose, .. } => {
                self.seen.purpose = Some(purpose);
                self.seen.coverage_reads += usize::from(purpose == Purpose::Coverage);
            }
            WriterCommand::End { ids, up_to } => {
                let Some(purpose) = self.seen.purpose else { panic!("an end without a beginning") };
                if purpose == Purpose::CatchUp {
                    self.seen.read_up_to = Some(up_to);
                }
                let unjudged_since = (purpose == Purpose::Coverage && self.seen.judges_no_coverage).then_some(0);
                if unjudged_since.is_none() {
                    self.seen.covered.extend(ids.iter().map(|id| (id.clone(), up_to)));
                    let _ = self.inbox.try_send(SessionEvent::ReadUpTo { ids, up_to, purpose });
                }
                let done = SessionEvent::ReadDone { purpose, appended: 0, unjudged_since };
                let _ = self.inbox.try_send(done);
            }
            WriterCommand::Channel(channel) => {
                self.seen.channel = channel;
                let _ = self.inbox.try_send(SessionEvent::ChannelKept);
            }
            WriterCommand::Definitions(definitions) => self.seen.definitions = definitions.len(),
            _ => {}
        }
    }

    fn codes(&self) -> Vec<Code> {
        self.status.reasons().iter().map(|reason| reason.code).collect()
    }

    fn until_raised(&mut self, code: Code) {
        self.until(code.name(), |stage| stage.status.is_raised(code));
    }

    fn until_cleared(&mut self, code: Code) {
        self.until(code.name(), |stage| !stage.status.is_raised(code));
    }

    /// Subscribed, open, and the history read up to now.
    fn until_settled(&mut self) {
        self.until("settled", |stage| {
            stage.sim.view(|view| view.sockets_open()) == 1
                && stage.status.gauges.socket_connected.get() == Some(1)
                && stage.seen.read_up_to.is_some()
                && stage.codes().is_empty()
        });
    }

    /// Issues an event and waits until the socket brings it.
    fn until_received(&mut self) {
        let before = self.seen.socket.len();
        self.sim.issue_by(event(), Route::SocketOnly);
        self.until("an event on the socket", |stage| stage.seen.socket.len() > before);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.take();
        let Some(thread) = self.thread.take() else { return };
        if !std::thread::panicking() {
            thread.join().unwrap();
        }
    }
}

fn event() -> Event {
    Event::numbered("AUDIOHOOK-0001")
}

#[test]
fn it_subscribes_opens_the_socket_and_reads_the_history() {
    let sim = simulator();
    sim.issue_by(event(), Route::HistoryOnly);
    let mut stage = Stage::new(sim);
    stage.until_settled();
    stage.until("the history's event", |stage| stage.seen.history.len() == 1);
    stage.until_received();
    assert!(stage.status.ready() && stage.seen.definitions > 0);
    let view = stage.status.session();
    assert!(view.topics.iter().all(|topic| topic.starts_with("v2.operations.events.AUDIOHOOK-")), "{view:?}");
    assert_eq!(stage.sim.view(|view| view.subscribed()), view.topics);
    assert_eq!(stage.seen.channel.as_ref().map(|c| c.id.clone()), view.channel.map(|id| id.expose().to_owned()));
}

#[test]
fn a_cut_socket_is_back_on_the_same_channel_and_the_history_brings_what_came_meanwhile() {
    let mut stage = Stage::new(simulator());
    stage.until_settled();
    let reads = stage.sim.view(|view| view.count(Call::History));
    stage.sim.faults().cut_sockets();
    stage.sim.issue_by(event(), Route::HistoryOnly);
    stage.until("a second socket", |stage| stage.sim.view(|view| view.sockets_opened() == 2));
    stage.until("the history's event", |stage| stage.seen.history.len() == 1);
    stage.until_received();
    assert_eq!(stage.sim.view(|view| view.channels_made()), 1);
    assert!(stage.sim.view(|view| view.count(Call::History)) > reads);
}

#[test]
fn a_remembered_channel_is_taken_up_again_and_a_dead_one_is_replaced() {
    let mut stage = Stage::new(simulator());
    stage.until_settled();
    let channel = stage.seen.channel.clone();
    let sim = std::mem::replace(&mut stage.sim, simulator());
    drop(stage);
    let config = config_for(&sim);
    let mut stage = Stage::with(sim, config, None, channel.clone());
    stage.until_settled();
    assert_eq!(stage.sim.view(|view| view.channels_made()), 1);
    let sim = std::mem::replace(&mut stage.sim, simulator());
    drop(stage);
    sim.faults().drop_channels();
    let config = config_for(&sim);
    let mut stage = Stage::with(sim, config, None, channel);
    stage.until_settled();
    assert_eq!(stage.sim.view(|view| view.channels_made()), 2);
}

#[test]
fn the_token_is_renewed_without_touching_the_socket() {
    let sim = simulator();
    sim.faults().set(|knobs| knobs.token_life = Duration::from_secs(2));
    let mut stage = Stage::new(sim);
    stage.until_settled();
    stage.until("three tokens", |stage| stage.sim.view(|view| view.tokens_granted()) >= 3);
    stage.until_received();
    assert_eq!(stage.sim.view(|view| view.sockets_opened()), 1);
}

#[test]
fn a_dead_token_is_replaced_once_and_the_call_repeated() {
    let mut stage = Stage::new(simulator());
    stage.until_settled();
    stage.sim.faults().revoke_tokens();
    stage.sim.issue_by(event(), Route::HistoryOnly);
    stage.until("the history's event", |stage| stage.seen.history.len() == 1);
    assert_eq!(stage.sim.view(|view| view.tokens_granted()), 2);
    assert!(stage.codes().is_empty());
}

#[test]
fn a_socket_that_is_to_be_closed_is_handed_over_on_the_same_channel() {
    let mut stage = Stage::new(simulator());
    stage.until_settled();
    stage.sim.faults().announce_closing();
    stage.until("a second socket", |stage| stage.sim.view(|view| view.sockets_opened() == 2));
    stage.until_received();
    assert_eq!(stage.sim.view(|view| view.channels_made()), 1);
    assert!(!stage.status.is_raised(Code::SocketDown));
}

#[test]
fn a_channel_near_its_end_is_handed_over_to_a_new_one() {
    let sim = simulator();
    sim.faults().set(|knobs| knobs.channel_life = Duration::from_secs(6));
    let mut stage = Stage::new(sim);
    stage.until_settled();
    stage.until("a second channel's socket", |stage| stage.sim.view(|view| view.sockets_opened() >= 2));
    assert!(!stage.status.is_raised(Code::SocketDown));
    stage.until_received();
}

#[test]
fn a_revoked_token_brings_a_new_token_and_a_new_channel() {
    let mut stage = Stage::new(simulator());
    stage.until_settled();
    stage.sim.faults().announce_token_revoked();
    stage.until("a second channel's socket", |stage| {
        stage.sim.view(|view| view.channels_made() == 2 && view.sockets_opened() == 2)
    });
    stage.until_settled();
    stage.until_received();
}

#[test]
fn an_evicted_channel_is_replaced() {
    let mut stage = Stage::new(simulator());
    stage.until_settled();
    stage.sim.faults().evict_channels();
    stage.until("a second channel", |stage| stage.sim.view(|view| view.channels_made() == 2));
    stage.until_settled();
    stage.sim.faults().drop_channels();
    stage.until("a third channel", |stage| stage.sim.view(|view| view.channels_made() == 3));
    stage.until_settled();
    stage.until_received();
}

#[test]
fn who_is_put_out_twice_makes_a_channel_of_its_own() {
    let mut stage = Stage::new(simulator());
    stage.until_settled();
    for opened in 1..=3 {
        if stage.sim.view(|view| view.channels_made()) > 1 {
            break;
        }
        stage.until("the socket", |stage| stage.sim.view(|view| view.sockets_opened()) >= opened);
        stage.sim.faults().take_over_channels();
        stage.until("a reaction", |stage| {
            stage.sim.view(|view| view.sockets_opened() > opened || view.channels_made() > 1)
        });
    }
    let opened = stage.sim.view(|view| view.sockets_opened());
    stage.until("a channel of its own", |stage| stage.sim.view(|view| view.channels_made() == 2));
    stage.until("its socket", |stage| stage.sim.view(|view| view.sockets_opened() > opened));
    stage.until_settled();
    stage.until_received();
}

#[test]
fn who_is_put_out_three_times_with_the_words_going_away_makes_a_channel_of_its_own() {
    let mut stage = Stage::new(simulator());
    stage.until_settled();
    for opened in 1..=3 {
        assert_eq!(stage.sim.view(|view| view.channels_made()), 1);
        stage.until("the socket", |stage| {
            stage.sim.view(|view| view.sockets_opened()) >= opened
                && stage.status.gauges.socket_connected.get() == Some(1)
        });
        stage.sim.faults().close_sockets(1001, "");
        stage.until("its end", |stage| stage.status.gauges.socket_connected.get() == Some(0));
    }
    stage.until("a channel of its own", |stage| stage.sim.view(|view| view.channels_made() == 2));
    stage.until_settled();
    stage.until_received();
}

#[test]
fn a_history_that_refuses_every_request_is_failing_all_the_time_and_asked_ever_more_slowly() {
    for (status, requests_max) in [(400, 100), (503, 10), (404, 10)] {
        let sim = simulator();
        let mut config = config_for(&sim);
        config.reconnect = Reconnect { delay: Duration::from_millis(100), max_delay: Duration::from_secs(60) };
        sim.faults().fail(Call::History, Action::status(status));
        sim.faults().set(|knobs| knobs.requests_per_minute = None);
        let mut stage = Stage::with(sim, config, None, None);
        stage.until_raised(Code::HistoryFailing);
        let (begun, requests) = (Instant::now(), stage.sim.view(|view| view.count(Call::History)));
        stage.until("five seconds", |stage| {
            assert!(stage.status.is_raised(Code::HistoryFailing));
            begun.elapsed() > Duration::from_secs(5)
        });
        let more = stage.sim.view(|view| view.count(Call::History)) - requests;
        assert!(more < requests_max, "{status}: {more} requests in five seconds");
        stage.sim.faults().heal_all();
        stage.until_cleared(Code::HistoryFailing);
    }
}

#[test]
fn a_lost_socket_is_said_within_ten_seconds_and_over_when_it_is_back() {
    let mut stage = Stage::new(simulator());
    stage.until_settled();
    stage.sim.faults().fail(Call::Handshake, Action::status(503));
    stage.sim.faults().cut_sockets();
    let lost = Instant::now();
    stage.until_raised(Code::SocketDown);
    assert!(lost.elapsed() < Duration::from_secs(10));
    assert!(stage.status.ready() && !stage.status.is_raised(Code::NotReceiving));
    stage.sim.faults().fail(Call::History, Action::status(503));
    stage.until_raised(Code::HistoryFailing);
    stage.until_raised(Code::NotReceiving);
    stage.sim.faults().heal_all();
    stage.until_settled();
    assert_eq!(stage.sim.view(|view| view.channels_made()), 1);
}

#[test]
fn refused_credentials_are_said_with_the_cure_and_not_tried_again_soon() {
    let sim = simulator();
    let mut config = config_for(&sim);
    config.genesys.client_secret = Secret::new("wrong-wrong-wrong");
    let mut stage = Stage::with(sim, config, None, None);
    stage.until("nothing but the refusal", |stage| stage.codes() == [Code::CredentialsRefused]);
    let reasons = stage.status.reasons();
    let Problem { what, cure, .. } = &reasons[0].problem;
    assert!(cure.contains("GENESYS_CLIENT_SECRET") && !what.contains("wrong-wrong"), "{what} {cure}");
    assert_eq!(stage.sim.view(|view| view.count(Call::Token)), 1);
}

#[test]
fn whatever_waits_for_a_login_that_was_refused_goes_on_with_the_next_one() {
    let sim = simulator();
    let (clock, hand) = Clock::manual(sim.now());
    let config = config_for(&sim);
    let mut stage = Stage::at(clock, sim, config, None, None);
    let tick = || hand.advance(Duration::from_millis(2));
    stage.until("settled", |stage| {
        tick();
        stage.status.gauges.socket_connected.get() == Some(1) && stage.seen.read_up_to.is_some()
    });
    stage.sim.faults().fail(Call::Token, Action::status(401));
    stage.sim.faults().revoke_tokens();
    hand.advance(Duration::from_secs(2));
    stage.until("the refusal", |stage| stage.status.is_raised(Code::CredentialsRefused));
    // Late in the wait for the next login the channel is lost as well.
    hand.advance(Duration::from_secs(20));
    let refused = stage.sim.view(|view| view.sockets_opened());
    stage.sim.faults().drop_channels();
    stage.sim.faults().cut_sockets();
    stage.until("the end of the socket", |stage| {
        tick();
        stage.status.gauges.socket_connected.get() == Some(0)
    });
    assert_eq!(stage.sim.view(|view| view.sockets_opened()), refused);
    stage.sim.faults().heal_all();
    hand.advance(Duration::from_secs(10));
    stage.inbox.send(SessionEvent::ChannelKept).unwrap();
    stage.until("a socket with the next login", |stage| {
        tick();
        stage.sim.view(|view| view.sockets_open()) == 1
    });
}

#[test]
fn without_permission_the_history_is_asked_again_and_the_socket_goes_on() {
    let sim = simulator();
    sim.faults().fail(Call::History, Action::status(403));
    let mut stage = Stage::new(sim);
    stage.until_raised(Code::HistoryForbidden);
    stage.until_cleared(Code::Starting);
    stage.until_received();
    assert!(!stage.status.is_raised(Code::NotReceiving));
    stage.sim.faults().heal_all();
    stage.until_settled();
}

#[test]
fn where_every_topic_is_rejected_it_lives_on_the_history_until_they_are_permitted() {
    let sim = simulator();
    sim.faults().reject_topics("v2.operations.events.", "not for you", &["usage:events:view"]);
    let mut stage = Stage::new(sim);
    stage.until_raised(Code::SubscriptionRejected);
    stage.until_cleared(Code::Starting);
    stage.sim.issue_by(event(), Route::Both);
    stage.until("the history's event", |stage| stage.seen.history.len() == 1);
    assert!(!stage.status.is_raised(Code::NotReceiving) && !stage.status.is_raised(Code::SocketDown));
    stage.sim.faults().permit_topics();
    stage.until_settled();
    stage.until_received();
}

#[test]
fn where_the_transports_allow_no_socket_there_is_none() {
    let sim = simulator();
    sim.faults().set(|knobs| knobs.transports = vec!["EventBridge".to_owned()]);
    let mut stage = Stage::new(sim);
    stage.sim.issue_by(event(), Route::Both);
    stage.until("the history's event", |stage| stage.seen.history.len() == 1);
    stage.until("ready", |stage| stage.status.ready() && stage.codes().is_empty());
    assert_eq!(stage.sim.view(|view| view.channels_made()), 0);
}

#[test]
fn what_the_service_limits_is_learned() {
    let sim = simulator();
    for _ in 0..450 {
        sim.issue_by(event(), Route::HistoryOnly);
    }
    sim.issue_by(Event::numbered("AUDIOHOOK-0002"), Route::HistoryOnly);
    sim.faults().set(|knobs| {
        knobs.history_span_max = Some(Duration::from_secs(5 * 3600));
        knobs.history_ids_max = Some(1);
        knobs.cursors_to_expire = 1;
        knobs.pages_to_repeat = 1;
    });
    let mut stage = Stage::new(sim);
    stage.until("all", |stage| stage.seen.history.len() == 451);
    stage.until_settled();
}

#[test]
fn a_definition_that_the_history_does_not_know_is_left_out() {
    let sim = simulator();
    sim.issue_by(event(), Route::HistoryOnly);
    let mut config = config_for(&sim);
    let topics = ["v2.operations.events.AUDIOHOOK-*", "v2.operations.events.AUDIOHOOK-9999"];
    config.genesys.topics = Some(topics.map(str::to_owned).to_vec());
    sim.faults().set(|knobs| knobs.requests_per_minute = None);
    let mut stage = Stage::with(sim, config, None, None);
    stage.until("the history's event", |stage| stage.seen.history.len() == 1);
    stage.until("read", |stage| stage.seen.read_up_to.is_some() && !stage.status.is_raised(Code::HistoryFailing));
}

#[test]
fn retry_after_is_kept_to() {
    let mut stage = Stage::new(simulator());
    stage.until_settled();
    let action = Action::Status { status: 429, retry_after_s: Some(2) };
    stage.sim.faults().fail_next(Call::History, action, 1);
    let before = stage.sim.view(|view| view.count(Call::History));
    stage.until("the refusal", |stage| stage.sim.view(|view| view.count(Call::History)) > before);
    let refused = Instant::now();
    stage.until("the next try", |stage| stage.sim.view(|view| view.count(Call::History)) > before + 1);
    assert!(refused.elapsed() >= Duration::from_millis(1900), "{:?}", refused.elapsed());
    assert!(!stage.status.is_raised(Code::HistoryFailing));
}

#[test]
fn a_history_that_hangs_is_said_and_does_not_keep_the_thread_from_stopping() {
    let mut stage = Stage::new(simulator());
    stage.until_settled();
    stage.sim.faults().fail(Call::History, Action::Hang);
    let hung = Instant::now();
    stage.until_raised(Code::HistoryFailing);
    assert!(hung.elapsed() < Duration::from_secs(10), "{:?}", hung.elapsed());
    stage.until_received();
    stage.sim.faults().heal_all();
    stage.until_settled();
}

#[test]
fn a_hole_beyond_ten_days_is_said_with_both_its_ends() {
    let sim = simulator();
    let config = config_for(&sim);
    let checkpoint = sim.now() - 11 * 24 * 3_600_000;
    let mut stage = Stage::with(sim, config, Some(checkpoint), None);
    stage.until_raised(Code::Incomplete);
    let reasons = stage.status.reasons();
    let told = reasons.iter().find(|reason| reason.code == Code::Incomplete).unwrap();
    assert!(told.problem.what.contains(&crate::clock::format_millis(checkpoint)), "{told:?}");
}

#[test]
fn spans_end_at_the_services_own_time() {
    let sim = simulator();
    sim.faults().set(|knobs| knobs.clock_offset_ms = -3_600_000);
    let mut stage = Stage::new(sim);
    stage.sim.issue_by(event(), Route::HistoryOnly);
    stage.until("the history's event", |stage| stage.seen.history.len() == 1);
    stage.until("read", |stage| stage.seen.read_up_to.is_some());
    let read_up_to = stage.seen.read_up_to.unwrap();
    // Rows wait for their frames for ten seconds.
    assert!((stage.sim.now() - read_up_to).abs() < 30_000);
}

#[test]
fn two_collectors_with_one_copied_channel_part() {
    let mut first = Stage::new(simulator());
    first.until_settled();
    let config = config_for(&first.sim);
    // The second one's own service is idle: it speaks to the first one's.
    let mut second = Stage::with(simulator(), config, None, first.seen.channel.clone());
    let deadline = Instant::now() + SOON;
    while first.sim.view(|view| view.channels_made() != 2 || view.sockets_open() != 2) {
        assert!(Instant::now() < deadline, "they fight");
        first.until("a look", |_| true);
        second.until("a look", |_| true);
        let _ = crossbeam_channel::after(Duration::from_millis(10)).recv();
    }
    first.until_cleared(Code::SocketDown);
    first.sim.issue_by(event(), Route::SocketOnly);
    first.until("the event", |stage| stage.seen.socket.len() == 1);
    second.until("the event", |stage| stage.seen.socket.len() == 1);
}

#[test]
fn with_the_history_alone_no_channel_is_made() {
    let sim = simulator();
    let mut config = config_for(&sim);
    config.genesys.delivery = Delivery::History;
    let mut stage = Stage::with(sim, config, None, None);
    stage.sim.issue_by(event(), Route::Both);
    stage.until("the history's event", |stage| stage.seen.history.len() == 1);
    stage.until("ready", |stage| stage.status.ready() && stage.codes().is_empty());
    assert_eq!(stage.sim.view(|view| view.channels_made()), 0);
    stage.sim.faults().fail(Call::History, Action::status(500));
    stage.until_raised(Code::NotReceiving);
    stage.sim.faults().heal_all();
    stage.until("well again", |stage| stage.codes().is_empty());
}

#[test]
fn with_the_socket_alone_the_history_is_never_asked() {
    let sim = simulator();
    sim.issue_by(event(), Route::HistoryOnly);
    let mut config = config_for(&sim);
    config.genesys.delivery = Delivery::Websocket;
    let mut stage = Stage::with(sim, config, None, None);
    stage.until("well", |stage| stage.status.ready() && stage.codes().is_empty());
    stage.until_received();
    assert_eq!(stage.sim.view(|view| view.count(Call::History)), 0);
    stage.sim.faults().fail(Call::Handshake, Action::status(503));
    stage.sim.faults().cut_sockets();
    stage.until_raised(Code::NotReceiving);
}

#[test]
fn a_start_from_now_on_brings_nothing_older() {
    let sim = simulator();
    let old = sim.now() - 60_000;
    sim.issue_by(event().at(old), Route::HistoryOnly);
    let mut config = config_for(&sim);
    config.catch_up.start = Duration::ZERO;
    let mut stage = Stage::with(sim, config, None, None);
    stage.until_settled();
    stage.sim.issue_by(event(), Route::HistoryOnly);
    stage.until("the new event", |stage| !stage.seen.history.is_empty());
    assert_eq!(stage.seen.history.len(), 1);
}

#[test]
fn a_new_definition_is_subscribed_without_a_restart_and_what_it_had_before_is_read() {
    let sim = simulator();
    let (clock, hand) = Clock::manual(sim.now());
    let config = config_for(&sim);
    let mut stage = Stage::at(clock, sim, config, None, None);
    stage.until("settled", |stage| stage.seen.read_up_to.is_some() && stage.codes().is_empty());
    let topics = stage.status.session().topics.len();
    stage.sim.define(crate::simulator::Definition {
        id: "AUDIOHOOK-0777".to_owned(),
        name: "New".to_owned(),
        description: "New".to_owned(),
    });
    // Well before what the overlap covers.
    let early = stage.sim.now() - 800_000;
    stage.sim.issue_by(Event::numbered("AUDIOHOOK-0777").at(early), Route::HistoryOnly);
    hand.advance(DEFINITIONS_INTERVAL);
    stage.until("the new topic", |stage| stage.status.session().topics.len() == topics + 1);
    stage.until("its event", |stage| stage.seen.history.len() == 1);
    assert_eq!(stage.sim.view(|view| view.channels_made()), 1);
}

#[test]
fn after_a_suspension_token_and_socket_are_renewed_and_the_history_is_read() {
    let sim = simulator();
    let (clock, hand) = Clock::manual(sim.now());
    let config = config_for(&sim);
    let mut stage = Stage::at(clock, sim, config, None, None);
    stage.until("settled", |stage| stage.seen.read_up_to.is_some() && stage.codes().is_empty());
    let before = stage.sim.view(|view| (view.tokens_granted(), view.sockets_opened(), view.count(Call::History)));
    hand.step_wall(2 * 3600 * 1000);
    for what in ["token", "socket", "read"] {
        stage.until(what, |stage| {
            let (tokens, sockets, reads) =
                stage.sim.view(|view| (view.tokens_granted(), view.sockets_opened(), view.count(Call::History)));
            match what {
                "token" => tokens > before.0,
                "socket" => sockets > before.1,
                _ => reads > before.2,
            }
        });
    }
}

/// A definition that the checkpoint does not cover.
fn define_new(sim: &Simulator, id: &str, name: &str) {
    let [id, name, description] = [id, name, "New"].map(str::to_owned);
    sim.define(crate::simulator::Definition { id, name, description });
}

/// Requests for the history are answered with this status where it holds.
fn refuse_history(sim: &Simulator, status: u16, holds: impl Fn(&str) -> bool + Send + Sync + 'static) {
    let action = Action::change(move |request: &Request, answer: &mut Answer| {
        if holds(&String::from_utf8_lossy(&request.body)) {
            *answer = Answer::json(status, r#"{"message":"no","code":"no"}"#);
        }
    });
    sim.faults().fail(Call::History, action);
}

#[test]
fn a_part_of_the_coverage_that_fails_does_not_keep_the_others_from_being_read() {
    let sim = simulator();
    sim.faults().set(|knobs| knobs.requests_per_minute = None);
    define_new(&sim, "AUDIOHOOK-0777", "New");
    refuse_history(&sim, 500, |body| body.contains(r#"["AUDIOHOOK-0777"]"#));
    let (config, checkpoint) = (config_for(&sim), sim.now() - 60_000);
    let mut stage = Stage::with(sim, config, Some(checkpoint), None);
    stage.until("a part of the coverage", |stage| stage.seen.coverage_reads > 0);
    stage.sim.issue_by(event(), Route::HistoryOnly);
    stage.until("the other's event", |stage| stage.seen.history.len() == 1);
    stage.sim.faults().heal_all();
    stage.until("covered", |stage| stage.seen.covered.contains_key("AUDIOHOOK-0777"));
}

#[test]
fn the_only_definition_that_is_read_on_holds_up_no_other_when_it_fails() {
    let sim = simulator();
    sim.faults().set(|knobs| knobs.requests_per_minute = None);
    define_new(&sim, "AUDIOHOOK-0777", "New");
    refuse_history(&sim, 503, |body| body.contains("AUDIOHOOK-0001"));
    let (mut config, checkpoint) = (config_for(&sim), sim.now() - 60_000);
    config.genesys.topics = Some(["0001", "0777"].map(|n| format!("v2.operations.events.AUDIOHOOK-{n}")).to_vec());
    sim.issue_by(Event::numbered("AUDIOHOOK-0777").at(sim.now() - 3_600_000), Route::HistoryOnly);
    let mut stage = Stage::with(sim, config, Some(checkpoint), None);
    stage.until("the other's event", |stage| stage.seen.history.len() == 1);
    stage.until_raised(Code::HistoryFailing);
    stage.sim.issue_by(Event::numbered("AUDIOHOOK-0777"), Route::HistoryOnly);
    stage.until("its next event", |stage| stage.seen.history.len() == 2);
    stage.sim.issue_by(event(), Route::HistoryOnly);
    stage.sim.faults().heal_all();
    stage.until("the event of the one that failed", |stage| stage.seen.history.len() == 3);
    stage.until_settled();
}

#[test]
fn where_the_service_keeps_less_than_it_says_a_new_definition_is_read_all_the_same() {
    let sim = simulator();
    sim.faults().set(|knobs| knobs.requests_per_minute = None);
    define_new(&sim, "AUDIOHOOK-0777", "New");
    let (clock, hand) = Clock::manual(sim.now());
    let oldest = sim.now() - 9 * 24 * 3_600_000;
    refuse_history(&sim, 400, move |body| {
        let from = body.split(r#""interval":""#).nth(1).and_then(|rest| crate::clock::parse_instant(&rest[..24]));
        from.is_some_and(|from| from < oldest)
    });
    let (mut config, checkpoint) = (config_for(&sim), sim.now() - 60_000);
    config.genesys.topics = Some(vec!["v2.operations.events.AUDIOHOOK-0777".to_owned()]);
    sim.issue_by(Event::numbered("AUDIOHOOK-0777").at(sim.now() - 30_000), Route::HistoryOnly);
    let mut stage = Stage::at(clock, sim, config, Some(checkpoint), None);
    let mut moved = Instant::now();
    stage.until("its event", |stage| {
        if moved.elapsed() > Duration::from_millis(100) {
            hand.advance(Duration::from_secs(601));
            moved = Instant::now();
        }
        !stage.seen.history.is_empty()
    });
    stage.until_raised(Code::Incomplete);
}

#[test]
fn a_definition_that_is_not_known_to_be_audiohooks_does_not_count_as_read() {
    let sim = simulator();
    define_new(&sim, "ACME-0001", "Acme AudioHook event");
    sim.faults().set(|knobs| knobs.requests_per_minute = None);
    sim.faults().fail(Call::Definitions, Action::status(500));
    let mut config = config_for(&sim);
    config.genesys.topics =
        Some(["v2.operations.events.AUDIOHOOK-*", "v2.operations.events.ACME-0001"].map(str::to_owned).to_vec());
    let mut stage = Stage::with(sim, config, None, None);
    stage.until("a read", |stage| stage.seen.read_up_to.is_some());
    assert!(!stage.seen.covered.contains_key("ACME-0001"), "its rows were left out");
    stage.sim.faults().heal_all();
    stage.until("read from the beginning", |stage| {
        stage.seen.coverage_reads > 0 && stage.seen.covered.contains_key("ACME-0001")
    });
}

#[test]
fn a_part_of_the_coverage_that_cannot_be_judged_is_not_repeated_at_once() {
    let sim = simulator();
    sim.faults().set(|knobs| knobs.requests_per_minute = None);
    define_new(&sim, "AUDIOHOOK-0777", "New");
    let (clock, hand) = Clock::manual(sim.now());
    let (config, checkpoint) = (config_for(&sim), sim.now() - 60_000);
    let mut stage = Stage::at(clock, sim, config, Some(checkpoint), None);
    stage.seen.judges_no_coverage = true;
    stage.until("a part of the coverage", |stage| stage.seen.coverage_reads > 0);
    let end = Instant::now() + Duration::from_millis(500);
    stage.until("a while", |_| Instant::now() > end);
    assert_eq!(stage.seen.coverage_reads, 1);
    hand.advance(Duration::from_secs(1));
    stage.until("another try", |stage| stage.seen.coverage_reads == 2);
}
