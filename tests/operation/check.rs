//! The command `check`: the real binary against the simulated service, with each fault that it is to find.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::Output;
use std::time::{Duration, Instant};

use crate::cluster::fake::{Act, Fake};
use crate::support::collector::{binary, credentials, settings};
use crate::support::{Authority, Client, Collector, Folder};
use audiohook_collector::simulator::{Action, Call, Event, Knobs, Options, Simulator};
use serde_json::Value;

/// What the whole run may take, whatever hangs.
const RUN_MAX: Duration = Duration::from_secs(60);

fn simulator(change: impl FnOnce(&mut Knobs)) -> Simulator {
    let mut knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    change(&mut knobs);
    Simulator::start(Options { knobs, ..Options::default() }).unwrap()
}

/// What a run said.
struct Said {
    status: i32,
    document: Value,
    text: String,
}

impl Said {
    fn check(&self, name: &str) -> &Value {
        let checks = self.document["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {}", self.text))
    }

    fn found(&self, name: &str) -> &str {
        self.check(name)["found"].as_str().unwrap()
    }

    /// The names of what is wrong; each with a cure, and the status and the verdict agree.
    fn wrong(&self) -> Vec<&str> {
        let checks = self.document["checks"].as_array().unwrap();
        for check in checks {
            let has_cure = check["cure"].as_str().is_some_and(|cure| !cure.is_empty());
            assert_eq!(has_cure, check["ok"] == false, "{check}");
            assert!(!check["found"].as_str().unwrap().is_empty(), "{check}");
        }
        let wrong: Vec<&str> =
            checks.iter().filter(|check| check["ok"] == false).map(|check| check["name"].as_str().unwrap()).collect();
        assert_eq!(self.document["ok"], wrong.is_empty(), "{}", self.text);
        assert_eq!(self.status, i32::from(!wrong.is_empty()), "{}", self.text);
        wrong
    }

    /// Only this is wrong; its cure holds this text.
    fn assert_wrong(&self, name: &str, cure: &str) {
        assert_eq!(self.wrong(), [name], "{}", self.text);
        let check = self.check(name);
        assert!(check["cure"].as_str().unwrap().contains(cure), "{check}");
    }
}

fn run(folder: &Folder, arguments: &[&str], settings: &BTreeMap<String, String>) -> Output {
    let begun = Instant::now();
    let output = binary(folder.path(), arguments, settings).output().unwrap();
    assert!(begun.elapsed() < RUN_MAX, "{:?}", begun.elapsed());
    let (_, secret) = credentials();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains(&secret), "{text}");
    output
}

fn check_with(folder: &Folder, settings: &BTreeMap<String, String>) -> Said {
    check_how(folder, &["check", "--json"], settings)
}

fn check_how(folder: &Folder, arguments: &[&str], settings: &BTreeMap<String, String>) -> Said {
    let output = run(folder, arguments, settings);
    let text = String::from_utf8(output.stdout).unwrap();
    let document = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text} {:?}", output.stderr));
    Said { status: output.status.code().unwrap(), document, text }
}

fn check(sim: &Simulator, folder: &Folder, changed: &[(&str, &str)]) -> Said {
    let mut all = settings(sim, folder);
    all.extend(changed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let said = check_with(folder, &all);
    for channel in sim.view(|view| view.channels()) {
        assert!(!said.text.contains(&channel), "a channel's id is printed: {}", said.text);
    }
    said
}

/// At most one channel, without topics and socket, is left.
fn assert_nothing_left(sim: &Simulator) {
    assert!(sim.wait_until(crate::support::SOON, |view| view.sockets_open() == 0));
    let client = Client::logged_in(sim);
    let left = client.call("GET", "/api/v2/notifications/channels", "").json;
    let left = left["entities"].as_array().unwrap();
    assert!(left.len() <= 1, "{left:?}");
    for channel in left {
        let path = format!("/api/v2/notifications/channels/{}/subscriptions", channel["id"].as_str().unwrap());
        assert_eq!(client.call("GET", &path, "").json["entities"].as_array().unwrap().len(), 0);
    }
}

#[test]
fn where_all_is_well_every_line_says_so_and_nothing_is_left() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-good"));
    for _ in 0..3 {
        sim.issue(Event::numbered("AUDIOHOOK-0001"));
    }
    let said = check(&sim, &folder, &[]);
    assert_eq!(said.wrong(), [] as [&str; 0], "{}", said.text);
    let names = [
        "settings",
        "time",
        "login host",
        "api host",
        "token",
        "definitions",
        "topics",
        "history",
        "transport",
        "channel",
        "streaming host",
        "subscriptions",
        "socket",
        "folder",
        "space",
        "lock",
        "port",
        "cluster",
    ];
    let at = |name: &str| said.document["checks"].as_array().unwrap().iter().position(|check| check["name"] == name);
    let places: Vec<usize> =
        names.iter().map(|name| at(name).unwrap_or_else(|| panic!("no {name}: {}", said.text))).collect();
    assert!(places.is_sorted(), "{}", said.text);
    assert_eq!(said.found("token"), "logged in; token valid for 24 h");
    assert!(
        said.document["checks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|check| !check["name"].as_str().unwrap().starts_with("api:"))
    );
    assert!(said.found("definitions").contains("AUDIOHOOK-0001"));
    assert_nothing_left(&sim);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the folder is as it was");

    // As lines: the same checks, one each.
    let output = run(&folder, &["check"], &settings(&sim, &folder));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.lines().filter(|line| line.starts_with('✔')).count() >= names.len(),
        "{text}"
    );
    assert!(!text.contains('✘'), "{text}");
    let count = text.lines().count() - 1;
    assert!(text.ends_with(&format!("\n{count} of {count} checks passed\n")), "{text}");
    assert_eq!(sim.view(|view| view.channels_made()), 1, "the empty channel is used again");
    assert_nothing_left(&sim);
}

#[test]
fn how_the_api_behaves_is_learned_with_verbose() {
    for (included, span, told) in
        [(true, None, "the end is included"), (false, Some(3600 * 24), "the end is not included")]
    {
        let sim = simulator(|knobs| {
            knobs.interval_end_included = included;
            knobs.history_span_max = span.map(Duration::from_secs);
            knobs.channels_belong_to_token = included;
        });
        let folder = Folder::new("check-guesses");
        let mut collector = Collector::start(&sim, &folder, &[("CATCH_UP_INTERVAL", "3600")]);
        collector.wait_healthy();
        // No read of the history comes before the frames.
        assert!(sim.wait_until(crate::support::SOON, |view| view.count(Call::History) > 0));
        for _ in 0..3 {
            // Old enough for an interval that ends at the service's whole second.
            sim.issue(Event { time_ms: Some(sim.now() - 5_000), ..Event::numbered("AUDIOHOOK-0002") });
        }
        collector.wait_lines(3, crate::support::SOON);
        collector.term();
        let mut all = settings(&sim, &folder);
        all.insert("OUTPUT_FILE".to_owned(), folder.join("events.jsonl").display().to_string());
        let said = check_how(&folder, &["check", "--json", "--verbose"], &all);
        assert_eq!(said.wrong(), [] as [&str; 0], "{}", said.text);
        let end = said.found("api: interval end");
        assert!(end.contains(told) && end.contains("the start is included"), "{end}");
        assert!(end.contains(if included { "in the counts both ends" } else { "in the counts one end" }), "{end}");
        let longest = said.found("api: longest interval");
        assert!(longest.starts_with(if included { "240 h" } else { "24 h" }), "{longest}");
        assert!(said.found("api: next page").contains("relative, and continues"), "{}", said.text);
        let times = said.found("api: times");
        assert!(
            times.contains("an integer of 13 digits") && times.contains("3 events came from both sources"),
            "{times}"
        );
        let channels = said.found("api: channels");
        assert!(channels.contains(if included { "belongs to the token" } else { "every token" }), "{channels}");
    }
}

#[test]
fn refused_credentials_are_told_at_the_token_with_the_cure() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-credentials"));
    let said = check(&sim, &folder, &[("GENESYS_CLIENT_SECRET", "wrong-secret-wrong")]);
    said.assert_wrong("token", "GENESYS_CLIENT_SECRET");
    assert!(said.found("token").contains("correlation id"), "{}", said.text);
    assert!(!said.text.contains("wrong-secret-wrong"));
    assert_eq!(said.check("folder")["ok"], true, "what does not depend on it is tried");
    let said = check(&sim, &folder, &[("GENESYS_CLIENT_ID", "no-such-client")]);
    said.assert_wrong("token", "GENESYS_CLIENT_ID");
}

#[test]
fn a_forbidden_history_is_told_with_the_permission() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-forbidden"));
    sim.faults().fail(Call::History, Action::status(403));
    let said = check(&sim, &folder, &[]);
    said.assert_wrong("history", "usage:events:view");
    assert_eq!(said.check("socket")["ok"], true);
    assert_nothing_left(&sim);
    sim.faults().fail(Call::Definitions, Action::status(403));
    assert_eq!(check(&sim, &folder, &[]).wrong(), ["definitions", "history"]);
}

#[test]
fn a_rejected_topic_is_told_with_its_missing_permission() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-rejected"));
    sim.faults().reject_topics("v2.operations.events.AUDIOHOOK-0002", "no permission", &["usage:events:edit"]);
    let said = check(&sim, &folder, &[]);
    said.assert_wrong("subscriptions", "role");
    let found = said.found("subscriptions");
    assert!(found.contains("AUDIOHOOK-0002") && found.contains("usage:events:edit"), "{found}");
    assert_nothing_left(&sim);
}

#[test]
fn a_socket_that_the_topic_may_not_use_is_told() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-transport"));
    sim.faults().set(|knobs| knobs.transports = vec!["EventBridge".to_owned()]);
    let said = check(&sim, &folder, &[]);
    assert!(said.wrong().contains(&"transport"), "{}", said.text);
    assert!(said.check("transport")["cure"].as_str().unwrap().contains("GENESYS_DELIVERY=history"));
    assert!(said.found("transport").contains("EventBridge"));
    assert_nothing_left(&sim);
    let said = check(&sim, &folder, &[("GENESYS_DELIVERY", "history")]);
    assert_eq!(said.wrong(), [] as [&str; 0], "{}", said.text);
}

#[test]
fn a_socket_without_a_pong_is_told() {
    let (sim, folder) = (simulator(|knobs| knobs.pongs = false), Folder::new("check-pong"));
    check(&sim, &folder, &[]).assert_wrong("socket", "proxy");
    assert_nothing_left(&sim);
    for (status, cure) in [(403, "WebSocket"), (404, "GENESYS_API_URL"), (503, "status page")] {
        sim.faults().fail(Call::Handshake, Action::status(status));
        check(&sim, &folder, &[]).assert_wrong("socket", cure);
        sim.faults().heal(Call::Handshake);
    }
}

#[test]
fn a_clock_that_is_off_is_told_either_way() {
    let folder = Folder::new("check-clock");
    for (minutes, way) in [(10, "behind"), (-10, "ahead of")] {
        let sim = simulator(|knobs| knobs.clock_offset_ms = minutes * 60_000);
        let said = check(&sim, &folder, &[]);
        said.assert_wrong("time", "time service");
        let found = said.found("time");
        assert!(found.contains(way) && (found.contains(" 600 s") || found.contains(" 599 s")), "{found}");
    }
}

#[test]
fn a_certificate_of_an_unknown_ca_is_told_at_each_host() {
    let (authority, folder) = (Authority::new(), Folder::new("check-tls"));
    let tls = Some(authority.identity(&["127.0.0.1"]));
    let knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    let sim = Simulator::start(Options { tls, knobs, ..Options::default() }).unwrap();
    let other = Authority::new().write(&folder, "other.pem");
    let said = check(&sim, &folder, &[("SSL_CERT_FILE", &other.display().to_string())]);
    assert_eq!(said.wrong(), ["time", "login host", "api host", "token"], "{}", said.text);
    assert!(said.check("login host")["cure"].as_str().unwrap().contains("SSL_CERT_FILE"));
    let right = authority.write(&folder, "ca.pem");
    let said = check(&sim, &folder, &[("SSL_CERT_FILE", &right.display().to_string())]);
    assert_eq!(said.wrong(), [] as [&str; 0], "{}", said.text);
    assert!(said.found("streaming host").contains("trusted"));
}

#[test]
fn a_host_that_does_not_exist_is_told_with_its_name() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-host"));
    let said = check(&sim, &folder, &[("GENESYS_LOGIN_URL", "https://no-such-host.invalid")]);
    assert_eq!(said.wrong(), ["time", "login host", "token"], "{}", said.text);
    assert!(said.found("login host").contains("no-such-host.invalid"));
    assert!(said.check("login host")["cure"].as_str().unwrap().contains("DNS"));
}

#[test]
fn a_folder_that_cannot_be_written_is_told() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-folder"));
    let said = check(&sim, &folder, &[("OUTPUT_FILE", "/proc/audiohook/events.jsonl")]);
    said.assert_wrong("folder", "OUTPUT_FILE");
}

#[test]
fn a_folder_that_the_start_makes_is_no_fault_and_is_made_by_it() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-missing"));
    let output = folder.join("events/new/events.jsonl").display().to_string();
    let state = folder.join("state/new/state").display().to_string();
    let beside: &[(&str, &str)] = &[("OUTPUT_FILE", &output)];
    let apart: &[(&str, &str)] = &[("OUTPUT_FILE", &output), ("STATE_FILE", &state)];
    for settings in [beside, apart] {
        let said = check(&sim, &folder, settings);
        assert_eq!(said.wrong(), [] as [&str; 0], "{}", said.text);
        assert!(said.found("folder").contains("will be created at the start"), "{}", said.text);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the check makes nothing");
    }
    let collector = Collector::start(&sim, &folder, apart);
    collector.wait_healthy();
    assert!(std::path::Path::new(&state).exists() && std::path::Path::new(&output).exists());
}

#[test]
fn the_cure_of_a_folder_names_the_setting_that_chose_it() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-cure"));
    let said = check(&sim, &folder, &[("STATE_FILE", "/proc/audiohook/state")]);
    said.assert_wrong("folder", "mkdir");
    let cure = said.check("folder")["cure"].as_str().unwrap();
    assert!(cure.contains("STATE_FILE") && !cure.contains("OUTPUT_FILE"), "{cure}");
    let said = check(&sim, &folder, &[("OUTPUT_FILE", "/proc/events.jsonl")]);
    said.assert_wrong("folder", "chown");
    let cure = said.check("folder")["cure"].as_str().unwrap();
    assert!(cure.contains("OUTPUT_FILE") && !cure.contains("STATE_FILE"), "{cure}");
}

#[test]
fn secrets_in_files_beside_the_named_settings_file_are_found() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-beside"));
    let mut all = settings(&sim, &folder);
    let secret = all.remove("GENESYS_CLIENT_SECRET").unwrap();
    let text: String = all.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    std::fs::create_dir(folder.join("etc")).unwrap();
    folder.write("etc/collector.env", &text);
    let run_with = |arguments: &[&str], environment: &[(&str, &str)]| {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        run(&folder, arguments, &environment)
    };
    let beside = ["check", "--env-file", "etc/collector.env"];
    assert_eq!(run_with(&beside, &[]).status.code(), Some(2), "no secret anywhere");
    folder.write("etc/client-secret", format!("{secret}\n"));
    let output = run_with(&beside, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    // What the unit hands over goes before it, and a setting before both.
    std::fs::create_dir(folder.join("credentials")).unwrap();
    folder.write("credentials/client-secret", "another-another");
    let systemds = [("CREDENTIALS_DIRECTORY", "credentials")];
    assert_eq!(run_with(&beside, &systemds).status.code(), Some(1), "the login is refused");
    let set = [systemds[0], ("GENESYS_CLIENT_SECRET", secret.as_str())];
    assert!(run_with(&beside, &set).status.success());
    // Only beside a file that was named: nobody means what happens to lie in the folder that a program starts in.
    std::fs::rename(folder.join("etc/collector.env"), folder.join(".env")).unwrap();
    std::fs::rename(folder.join("etc/client-secret"), folder.join("client-secret")).unwrap();
    assert_eq!(run_with(&["check"], &[]).status.code(), Some(2));
    assert!(run_with(&["check", "--env-file", ".env"], &[]).status.success());
}

#[test]
fn a_topics_file_that_matches_nothing_is_told() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-no-topic"));
    folder.write("topics.json", r#"{"topics":["v2.operations.events.NOSUCH-*"]}"#);
    let said = check(&sim, &folder, &[]);
    said.assert_wrong("topics", "TOPICS_FILE");
    assert!(said.found("topics").contains("NOSUCH-*"), "{}", said.text);
    assert_eq!(sim.view(|view| view.channels_made()), 0, "what depends on it is not tried");
}

#[test]
fn a_topics_file_that_names_what_does_not_exist_is_told_with_the_nearest() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-misspelt"));
    for entry in ["AUDIOHOK-0001", "v2.operations.events.AUDIOHOK-0001"] {
        folder.write("topics.json", format!(r#"{{"topics":["{entry}"]}}"#));
        let said = check(&sim, &folder, &[]);
        said.assert_wrong("topics", "TOPICS_FILE");
        let found = said.found("topics");
        assert!(found.contains("AUDIOHOK-0001 is not a definition; did you mean AUDIOHOOK-0001?"), "{found}");
    }
    folder.write("topics.json", r#"{"topics":["AUDIOHOOK-0001","v2.operations.events.NONE-1"]}"#);
    let said = check(&sim, &folder, &[]);
    assert!(
        said.wrong().contains(&"topics") && said.found("topics").contains("NONE-1 is not a definition"),
        "{}",
        said.text
    );
}

#[test]
fn what_is_no_cluster_and_what_keeps_documents_out_of_one_is_told() {
    let (sim, folder, fake) = (simulator(|_| ()), Folder::new("check-no-cluster"), Fake::start());
    let on: [(&str, &str); 2] = [("ELASTIC_URL", &fake.url), ("ELASTIC_AUTH", "me:hunter2-hunter2")];
    // A web server that gives one answer to everything.
    let answers: [(u16, &'static str); 6] = [
        (404, ""),
        (404, "<html>not found</html>"),
        (404, "{\"error\":\"not found\"}"),
        (403, "<html>forbidden</html>"),
        (405, "{\"status\":405,\"error\":\"Method Not Allowed\"}"),
        (200, "{\"ok\":true}"),
    ];
    for (status, body) in answers {
        fake.script(move |_| Act::Answer(status, body));
        let said = check(&sim, &folder, &on);
        said.assert_wrong("cluster", "ELASTIC_URL is the address of Elasticsearch or OpenSearch");
        assert!(!said.text.contains("login accepted"), "{}", said.text);
    }
    let cases: [(&'static str, &'static str, &'static str, &'static str); 3] = [
        (
            "/_cluster/settings",
            r#"{"persistent":{"action.auto_create_index":"false"},"transient":{},"defaults":{"action.auto_create_index":"true"}}"#,
            "action.auto_create_index is false",
            "Create the index",
        ),
        (
            "/_cluster/settings",
            r#"{"persistent":{},"transient":{},"defaults":{"rest.action.multi.allow_explicit_index":"false"}}"#,
            "rest.action.multi.allow_explicit_index is false",
            "true",
        ),
        (
            "/_cluster/health",
            r#"{"status":"red","indices":{"genesys-audiohook":{"status":"red"}}}"#,
            "is red",
            "_cluster/allocation/explain",
        ),
    ];
    for (path, body, found, cure) in cases {
        fake.script(move |request| match request.path.starts_with(path) {
            true => Act::Answer(200, body),
            // The index is absent.
            false if request.method == "HEAD" => Act::Answer(404, ""),
            false => Act::Serve,
        });
        let said = check(&sim, &folder, &on);
        said.assert_wrong("cluster settings", cure);
        assert!(said.found("cluster settings").contains(found), "{}", said.text);
    }
    // A trial document that the server may have made without an answer is deleted.
    fake.script(|request| match request.method.as_str() {
        "HEAD" => Act::Answer(200, ""),
        "PUT" if request.path.contains("_create") => {
            assert!(request.path.ends_with("?timeout=5s"), "{}", request.path);
            Act::Close
        }
        "DELETE" => Act::Answer(200, "{}"),
        _ => Act::Serve,
    });
    check(&sim, &folder, &on).assert_wrong("cluster write", "log");
    assert!(
        fake.state()
            .requests
            .iter()
            .any(|request| request.method == "DELETE" && request.path.contains("collector-check"))
    );
    // So is one after a gateway's error; where it may still be there, its name is given.
    for (deleted, cure) in [(200, "log"), (404, "delete the document audiohook-collector-check-")] {
        let before = fake.state().requests.len();
        fake.script(move |request| match request.method.as_str() {
            "HEAD" => Act::Answer(200, ""),
            "PUT" if request.path.contains("_create") => Act::Answer(504, ""),
            "DELETE" => Act::Answer(deleted, "{}"),
            _ => Act::Serve,
        });
        let said = check(&sim, &folder, &on);
        said.assert_wrong("cluster write", cure);
        assert_eq!(said.text.contains("delete the document"), deleted == 404, "{}", said.text);
        assert!(fake.state().requests[before..].iter().any(|request| request.method == "DELETE"));
    }
}

#[test]
fn topics_that_are_rejected_for_one_reason_are_told_once() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-rejected"));
    sim.faults().reject_topics("v2.operations.events.", "not for you", &["usage:events:view"]);
    let said = check(&sim, &folder, &[]);
    said.assert_wrong("subscriptions", "role");
    assert_eq!(said.found("subscriptions").matches("not for you").count(), 1, "{}", said.text);
}

#[test]
fn a_pipe_in_the_place_of_a_file_does_not_block() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-pipe"));
    let pipe = folder.join("events.jsonl.lock");
    let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, fifo, mode, 0).unwrap();
    let said = check(&sim, &folder, &[]);
    said.assert_wrong("lock", "user");
    assert!(said.found("lock").contains("not a regular file"), "{}", said.text);
}

#[test]
fn the_cure_of_a_service_that_cannot_answer_now_is_for_a_person() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-busy"));
    sim.faults().fail(Call::Definitions, Action::status(429));
    sim.faults().fail(Call::History, Action::status(503));
    let said = check(&sim, &folder, &[]);
    assert_eq!(said.wrong(), ["definitions", "history"], "{}", said.text);
    for (name, cure) in [("definitions", "what else uses"), ("history", "status page")] {
        let check = said.check(name);
        assert!(check["cure"].as_str().unwrap().contains(cure), "{check}");
    }
    for (status, cure) in [(503, "status page"), (407, "HTTPS_PROXY")] {
        sim.faults().fail(Call::Token, Action::status(status));
        check(&sim, &folder, &[]).assert_wrong("token", cure);
        sim.faults().heal(Call::Token);
    }
}

#[test]
fn a_proxy_that_refuses_the_connection_is_told_as_the_proxy() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-no-proxy"));
    let proxy = format!("http://127.0.0.1:{}", crate::support::free_port());
    let said = check(&sim, &folder, &[("GENESYS_LOGIN_URL", "https://login.invalid"), ("HTTPS_PROXY", &proxy)]);
    assert_eq!(said.wrong(), ["time", "login host", "token"], "{}", said.text);
    let cure = said.check("login host")["cure"].as_str().unwrap();
    assert!(cure.starts_with("Check that the proxy runs at the host and port in HTTPS_PROXY"), "{cure}");
}

#[test]
fn a_login_that_tells_no_time_is_no_fault_of_the_clock() {
    let (sim, folder, login) = (simulator(|_| ()), Folder::new("check-no-date"), Fake::start());
    login.script(|_| Act::Answer(200, r#"{"access_token":"unknown-to-the-api","expires_in":600}"#));
    let said = check(&sim, &folder, &[("GENESYS_LOGIN_URL", &login.url)]);
    assert_eq!((&said.check("time")["ok"], &said.check("token")["ok"]), (&Value::Bool(true), &Value::Bool(true)));
    assert!(said.found("time").contains("agrees"), "the API's answers tell the time: {}", said.text);
}

#[test]
fn a_disk_without_room_for_the_files_is_told() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-space"));
    check(&sim, &folder, &[("MAX_FILE_SIZE", "100000GB")]).assert_wrong("space", "MAX_FILE_SIZE");
}

#[test]
fn a_port_that_something_else_holds_is_told() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-port"));
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    check(&sim, &folder, &[("HTTP_PORT", &port)]).assert_wrong("port", "HTTP_PORT");
    // A collector of another file holds it.
    let other = Folder::new("check-port-other");
    let collector = Collector::start(&sim, &other, &[]);
    collector.wait_healthy();
    let said = check(&sim, &folder, &[("HTTP_PORT", &collector.port().to_string())]);
    said.assert_wrong("port", "HTTP_PORT");
    assert!(said.found("port").contains("another collector"), "{}", said.text);
}

#[test]
fn a_collector_that_runs_is_fine_and_is_not_disturbed() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-running"));
    // The most channels there may be: the collector's and others' with topics.
    let client = Client::logged_in(&sim);
    for _ in 0..17 {
        let (channel, _) = client.channel();
        client.subscribe(&channel, &["v2.operations.events.AUDIOHOOK-0001"]);
    }
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    let (channels, sockets) = sim.view(|view| (view.channels(), view.sockets_opened()));
    let mut same = settings(&sim, &folder);
    same.insert("HTTP_PORT".to_owned(), collector.port().to_string());
    for _ in 0..4 {
        let said = check_with(&folder, &same);
        assert_eq!(said.wrong(), [] as [&str; 0], "{}", said.text);
        let pid = collector.pid().to_string();
        assert!(said.found("lock").contains(&pid) && said.found("port").contains(&pid), "{}", said.text);
        sim.issue(Event::numbered("AUDIOHOOK-0003"));
    }
    collector.wait_lines(4, crate::support::SOON);
    assert_eq!(collector.metric("audiohook_collector_socket_connects_total"), Some(1.0));
    assert_eq!(collector.reasons(), Some(vec![]));
    sim.view(|view| {
        assert_eq!(view.sockets_opened(), sockets + 4);
        let now = view.channels();
        assert!(channels.iter().all(|channel| now.contains(channel)), "none was pushed out");
        assert_eq!(now.len(), channels.len() + 1);
    });
    // With every channel in use none is made, and that is said.
    let (channel, _) = client.channel();
    client.subscribe(&channel, &["v2.operations.events.AUDIOHOOK-0001"]);
    let empty: Vec<String> = sim.view(|view| view.channels()).into_iter().filter(|id| !channels.contains(id)).collect();
    for id in empty {
        client.subscribe(&id, &["v2.operations.events.AUDIOHOOK-0001"]);
    }
    let made = sim.view(|view| view.channels_made());
    let said = check_with(&folder, &same);
    said.assert_wrong("channel", "OAuth client");
    assert_eq!(sim.view(|view| view.channels_made()), made);
    assert_eq!(collector.metric("audiohook_collector_socket_connects_total"), Some(1.0));
}

#[test]
fn a_broken_topics_file_is_a_wrong_setting() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-topics"));
    folder.write("topics.json", "{\"topics\":[1]}");
    let said = check(&sim, &folder, &[]);
    assert_eq!((said.status, said.document["ok"].as_bool()), (2, Some(false)), "{}", said.text);
    assert_eq!(said.check("settings")["ok"], false);
    assert_eq!(sim.view(|view| view.all_requests().count()), 0, "nothing was tried");
}

#[test]
fn a_service_that_hangs_is_told_within_the_minute() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("check-hang"));
    sim.faults().fail_all(&Action::Hang);
    let said = check(&sim, &folder, &[]);
    assert!(said.wrong().contains(&"token"), "{}", said.text);
    sim.faults().heal(Call::Token);
    let said = check(&sim, &folder, &[]);
    for name in ["definitions", "history", "transport"] {
        assert!(said.wrong().contains(&name), "{name}: {}", said.text);
    }
}

#[test]
fn the_cluster_is_reached_named_and_written_to_without_a_trace() {
    let (sim, folder, fake) = (simulator(|_| ()), Folder::new("check-cluster"), Fake::start());
    // The index is there: documents can be made and deleted.
    fake.script(|request| match (request.method.as_str(), request.path.split('/').nth(2)) {
        ("HEAD", None) => Act::Answer(200, ""),
        ("PUT", Some("_create")) => Act::Answer(201, r#"{"_index":".ds-behind-000001","result":"created"}"#),
        ("DELETE", Some("_doc")) => Act::Answer(200, r#"{"result":"deleted"}"#),
        _ => Act::Serve,
    });
    let on: [(&str, &str); 2] = [("ELASTIC_URL", &fake.url), ("ELASTIC_AUTH", "me:hunter2-hunter2")];
    let said = check(&sim, &folder, &on);
    assert_eq!(said.wrong(), [] as [&str; 0], "{}", said.text);
    assert!(said.found("cluster").contains("OpenSearch 2.19.1"), "{}", said.text);
    assert!(said.found("cluster write").contains("and deleted"));
    assert!(said.found("cluster template").contains("the collector will create it"));
    assert!(!said.text.contains("hunter2"));
    let state = fake.state();
    assert!(
        state
            .requests
            .iter()
            .any(|request| request.method == "DELETE" && request.path.starts_with("/.ds-behind-000001/_doc/"))
    );
    assert!(state.templates.is_empty() && state.documents.is_empty());
    drop(state);
    fake.script(|request| {
        if request.method == "PUT" {
            Act::Answer(403, "{}")
        } else if request.method == "HEAD" {
            Act::Answer(200, "")
        } else {
            Act::Serve
        }
    });
    check(&sim, &folder, &on).assert_wrong("cluster write", "rights");
    fake.script(|request| match request.method.as_str() {
        "PUT" => Act::Answer(
            403,
            r#"{"error":{"type":"cluster_block_exception","reason":"index [a] blocked by: [FORBIDDEN/5/index read-only (api)];"}}"#,
        ),
        "HEAD" => Act::Answer(200, ""),
        _ => Act::Serve,
    });
    check(&sim, &folder, &on).assert_wrong("cluster write", "index.blocks");
    fake.script(|_| Act::Answer(200, r#"{"version":{"number":"7.7.1"}}"#));
    check(&sim, &folder, &on).assert_wrong("cluster", "7.8");
    fake.script(|_| Act::Answer(302, ""));
    let said = check(&sim, &folder, &on);
    said.assert_wrong("cluster", "ELASTIC_URL");
    fake.script(|_| Act::Answer(401, "{}"));
    check(&sim, &folder, &on).assert_wrong("cluster", "ELASTIC_AUTH");
    fake.script(|_| Act::Close);
    check(&sim, &folder, &on).assert_wrong("cluster", "ELASTIC_URL");
    let nobody = format!("http://127.0.0.1:{}", crate::support::free_port());
    let said = check(&sim, &folder, &[("ELASTIC_URL", &nobody)]);
    said.assert_wrong("cluster", "Check that the cluster is up and that ELASTIC_URL is right.");
}
