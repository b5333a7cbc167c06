//! Settings through the real binary: every fault at once, no secret shown, nothing started; and what users have works.

use std::collections::BTreeMap;
use std::process::Output;

use crate::support::collector::{binary, credentials, settings};
use crate::support::{Collector, Folder, SOON, free_port, poll};
use audiohook_collector::simulator::{Event, Knobs, Options, Simulator};
use serde_json::Value;

fn simulator() -> Simulator {
    let knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    Simulator::start(Options { knobs, ..Options::default() }).unwrap()
}

type Settings = BTreeMap<String, String>;

fn of(pairs: &[(&str, &str)]) -> Settings {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The three that are required, and an address that nobody reaches should it start after all.
fn minimal() -> Settings {
    of(&[
        ("GENESYS_ENV", "mypurecloud.com"),
        ("GENESYS_CLIENT_ID", "id"),
        ("GENESYS_CLIENT_SECRET", "HUSHclient"),
        ("GENESYS_LOGIN_URL", "https://127.0.0.1:1"),
        ("GENESYS_API_URL", "https://127.0.0.1:1"),
    ])
}

fn run(folder: &Folder, arguments: &[&str], all: &Settings) -> Output {
    binary(folder.path(), arguments, all).output().unwrap()
}

/// What it says on standard error as it refuses to start: one line a fault.
fn faults(folder: &Folder, arguments: &[&str], all: &Settings) -> Vec<String> {
    let before = names(folder);
    let output = run(folder, arguments, all);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{all:?}: {said}{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(names(folder), before, "nothing was started");
    assert!(!said.contains("HUSH"), "{said}");
    said.lines().map(str::to_owned).collect()
}

fn names(folder: &Folder) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn every_fault_is_told_at_once_with_its_value_and_what_is_right() {
    let folder = Folder::new("faults");
    folder.write("topics.json", "{\n  \"topics\": [\"a\",,]\n}");
    folder.write("empty.pem", "no certificate");
    let bad = [
        ("GENESYS_ENV", "https://login.mypurecloud.com/"),
        ("GENESYS_CLIENT_ID", "an id"),
        ("GENESYS_LOGIN_URL", "http://login.example.com"),
        ("GENESYS_API_URL", "ftp://127.0.0.1"),
        ("GENESYS_DELIVERY", "sockets"),
        ("CATCH_UP_INTERVAL", "0"),
        ("CATCH_UP_OVERLAP", "-1"),
        ("CATCH_UP_RATE", "0"),
        ("CATCH_UP_START", "ten days"),
        ("MAX_FILE_SIZE", "10 parsecs"),
        ("BACKUP_COUNT", "-1"),
        ("CONSOLE_OUTPUT", "maybe"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("ELASTIC_INDEX", "Upper"),
        ("BULK_SIZE", "0"),
        ("ELASTIC_FLUSH_INTERVAL", "0"),
        ("ELASTIC_CA_FILE", "nowhere.pem"),
        ("ELASTIC_SETUP", "2"),
        ("ELASTIC_BACKLOG_MAX", "0"),
        ("HTTP_HOST", "127.0.0.1:8077"),
        ("HTTP_PORT", "0"),
        ("RECONNECT_DELAY", "0"),
        ("MAX_RECONNECT_DELAY", "1e9"),
        ("SSL_CERT_FILE", "empty.pem"),
        ("HTTPS_PROXY", "socks5://proxy:1080"),
    ];
    let lines = faults(&folder, &[], &of(&bad));
    for (name, value) in bad {
        let line = lines.iter().find(|line| line.contains(&format!("{name}={value}:")));
        assert!(line.is_some(), "no line for {name}: {lines:#?}");
    }
    let topics = lines.iter().find(|line| line.contains("TOPICS_FILE")).unwrap();
    assert!(topics.contains("line 2, column 18"), "{topics}");
    assert!(lines.iter().any(|line| line.contains("GENESYS_CLIENT_SECRET:")), "the one that is missing");
    assert_eq!(lines.len(), bad.len() + 2, "one line each: {lines:#?}");
    // What is required and absent, empty included.
    let lines = faults(&folder, &[], &of(&[("GENESYS_ENV", ""), ("TOPICS_FILE", "none.json")]));
    assert_eq!(lines.len(), 4, "{lines:#?}");
}

#[test]
fn a_value_is_wrong_also_where_it_would_not_be_used() {
    let folder = Folder::new("unused");
    for (name, value) in [
        ("BULK_SIZE", "many"),
        ("ELASTIC_AUTH", "Bearer HUSH two"),
        ("ELASTIC_URL", "search:9200"),
        ("CATCH_UP_RATE", "-5"),
        ("MAX_FILE_SIZE", "-1"),
        ("MAX_FILE_SIZE", "1.5MB"),
        ("BACKUP_COUNT", "1.0"),
        ("HTTP_PORT", "65536"),
        ("RECONNECT_DELAY", "100"),
        ("MAX_RECONNECT_DELAY", "1"),
        ("OUTPUT_FILE", "."),
        ("STATE_FILE", "audiohook_events.jsonl"),
    ] {
        let mut all = minimal();
        all.extend(of(&[(name, value), ("GENESYS_DELIVERY", "websocket"), ("BACKUP_COUNT", "0")]));
        all.insert(name.to_owned(), value.to_owned());
        let lines = faults(&folder, &[], &all);
        assert!(lines.len() == 1 && lines[0].contains(name), "{name}={value}: {lines:?}");
    }
}

#[test]
fn no_secret_is_shown_whatever_is_wrong_with_it() {
    let folder = Folder::new("secrets");
    folder.write("two-lines", "HUSHone\nHUSHtwo\n");
    folder.write("fine", "HUSHfile\n");
    folder.write("empty", "\n");
    let cases: [&[(&str, &str)]; 11] = [
        &[("HTTP_TOKEN", "HUSHa"), ("HTTP_TOKEN_FILE", "empty")],
        &[("GENESYS_CLIENT_SECRET", "HUSH\u{1}x")],
        &[("GENESYS_CLIENT_SECRET_FILE", "fine")],
        &[("GENESYS_CLIENT_SECRET", ""), ("GENESYS_CLIENT_SECRET_FILE", "two-lines")],
        &[("HTTP_TOKEN", "HUSH with blanks")],
        &[("HTTP_TOKEN", "HUSHa"), ("HTTP_TOKEN_FILE", "fine")],
        &[("ELASTIC_AUTH", ":HUSH")],
        &[("ELASTIC_AUTH", "u:HUSH"), ("ELASTIC_AUTH_FILE", "fine")],
        &[("ELASTIC_URL", "https://u:HUSH@host:99999")],
        &[("ELASTIC_URL", "https://u:HUSH@a:1,https://u:HUSH2@b:1")],
        &[("HTTPS_PROXY", "https://u:HUSH@proxy")],
    ];
    for case in cases {
        let mut all = minimal();
        all.extend(of(case));
        let lines = faults(&folder, &[], &all);
        let name = case.last().unwrap().0.trim_end_matches("_FILE");
        assert!(lines.len() == 1 && lines[0].contains(name), "{case:?}: {lines:?}");
    }
    // A line of the file that cannot be understood may hold one too.
    folder.write("bad.env", "GENESYS_ENV=mypurecloud.com\n\nHUSHword\nHTTP_TOKEN='HUSH\nPASS WORD=HUSH\n");
    let lines = faults(&folder, &["--env-file", "bad.env"], &minimal());
    for number in [3, 4, 5] {
        assert!(lines.iter().any(|line| line.contains(&format!("line {number}"))), "{lines:?}");
    }
    assert_eq!(lines.len(), 3);
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
    let (sim, folder) = (simulator(), Folder::new("sources"));
    folder.write("secret", format!("{}\n", credentials().1));
    let port = free_port();
    let file = format!(
        "# comment\n\nexport GENESYS_ENV=\"mypurecloud.de\"  # quoted\nGENESYS_CLIENT_ID={}\nGENESYS_CLIENT_SECRET_FILE='secret'\n\
         GENESYS_LOGIN_URL={url}\nGENESYS_API_URL={url}\nHTTP_HOST=127.0.0.1\nHTTP_PORT=1\nOUTPUT_FILE=a $b#c%d\\e.jsonl # the file\n\
         MAX_FILE_SIZE=1GiB\nLOG_LEVEL=\n",
        credentials().0,
        url = sim.url()
    );
    for (name, arguments) in [(".env", &[][..]), ("other.env", &["--env-file", "other.env"][..])] {
        let path = folder.write(name, &file);
        let all = of(&[("HTTP_PORT", &port.to_string()), ("GENESYS_CLIENT_ID", "")]);
        let mut command = binary(folder.path(), arguments, &all);
        let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        let output = folder.join("a $b#c%d\\e.jsonl");
        let lives = poll(SOON, || output.exists().then_some(()).filter(|()| sim.view(|view| view.sockets_open()) == 1));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(lives.is_some(), "{name}");
        assert!(sim.wait_until(SOON, |view| view.sockets_open() == 0));
        std::fs::remove_file(&output).unwrap();
        std::fs::remove_file(path).unwrap();
    }
    let lines = faults(&folder, &["--env-file", "absent.env"], &minimal());
    assert!(lines.len() == 1 && lines[0].contains("absent.env"), "{lines:?}");
}

#[test]
fn the_example_starts_as_it_stands_once_the_credentials_are_filled_in() {
    let (sim, folder) = (simulator(), Folder::new("example"));
    let example = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example")).unwrap();
    let (id, secret) = credentials();
    let filled = example
        .replace("\nGENESYS_ENV=\n", "\nGENESYS_ENV=mypurecloud.com\n")
        .replace("\nGENESYS_CLIENT_ID=\n", &format!("\nGENESYS_CLIENT_ID={id}\n"))
        .replace("\nGENESYS_CLIENT_SECRET=\n", &format!("\nGENESYS_CLIENT_SECRET={secret}\n"));
    folder.write(".env", filled);
    // Only where the service is, and a port that other tests leave alone.
    let all = of(&[
        ("GENESYS_LOGIN_URL", &sim.url()),
        ("GENESYS_API_URL", &sim.url()),
        ("HTTP_PORT", &free_port().to_string()),
    ]);
    let mut collector = Collector::start_with(folder.path(), &all);
    collector.wait_healthy();
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    collector.wait_lines(1, SOON);
    assert!(folder.join("audiohook_events.jsonl").exists());
    assert!(collector.term().success());
    let listed: Vec<&str> = example.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    assert!(listed.contains(&"ELASTIC_BACKLOG_MAX"), "{}", listed.len());
}

#[test]
fn the_predecessors_settings_and_topics_work_unchanged() {
    let (sim, folder) = (simulator(), Folder::new("predecessor"));
    let (id, secret) = credentials();
    folder.write(
        ".env",
        format!(
            "# Genesys Cloud\nGENESYS_ENV=usw2.pure.cloud\nGENESYS_CLIENT_ID={id}\nGENESYS_CLIENT_SECRET={secret}\n\n\
             OUTPUT_FILE=./audiohook_events.jsonl\nMAX_FILE_SIZE=10485760  # 10MB\nBACKUP_COUNT=5\nCONSOLE_OUTPUT=true\n\n\
             ELASTIC_URL=\nELASTIC_AUTH=\nELASTIC_INDEX=genesys-audiohook\nBULK_SIZE=50\n\nTOPICS_FILE=./topics.json\n\n\
             HTTP_HOST=0.0.0.0\nHTTP_PORT={}\nRECONNECT_DELAY=5.0\nMAX_RECONNECT_DELAY=60.0\n",
            free_port()
        ),
    );
    folder.write(
        "topics.json",
        "{\n  \"topics\": [\n    \"platform.integration.audiohook\",\n    \"platform.operations.audiohook\",\n    \
         \"v2.auditing.integration.audiohook\",\n    \"channel.metadata\",\n    \"v2.system.anything\"\n  ]\n}\n",
    );
    let mut all = of(&[("GENESYS_LOGIN_URL", &sim.url()), ("GENESYS_API_URL", &sim.url())]);
    all.insert("HTTP_PORT".into(), free_port().to_string());
    let collector = Collector::start_with(folder.path(), &all);
    collector.wait_healthy();
    let subscribed = sim.view(|view| view.subscribed());
    assert!(
        subscribed.len() >= 3 && subscribed.iter().all(|topic| topic.starts_with("v2.operations.events.AUDIOHOOK-"))
    );
    for topic in [
        "platform.integration.audiohook",
        "platform.operations.audiohook",
        "v2.auditing.integration.audiohook",
        "channel.metadata",
        "v2.system.anything",
    ] {
        collector.wait_log(topic, SOON);
    }
    sim.issue(Event::numbered("AUDIOHOOK-0002"));
    collector.wait_lines(1, SOON);
    let lines = collector.log_lines();
    for line in &lines {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    let processed: Value = serde_json::from_str(&collector.wait_log("AudioHook event processed", SOON)).unwrap();
    assert_eq!((&processed["level"], &processed["event_id"]), (&"INFO".into(), &"AUDIOHOOK-0002".into()));
    assert!(processed["event_name"].is_string() && processed["conversation_id"].is_string());
    let health = collector.health().unwrap();
    for field in ["status", "timestamp", "channel_id", "topics"] {
        assert!(!health[field].is_null(), "{field}");
    }
    for field in ["events_total", "audiohook_events", "errors", "last_event", "started_at", "reconnects"] {
        assert!(!health["stats"][field].is_null(), "{field}: {health}");
    }
}

#[test]
fn a_topics_file_that_is_broken_or_named_and_absent_stops_the_start() {
    let folder = Folder::new("topics");
    for (content, place) in [
        ("{\"topics\": [\"a\" \"b\"]}", "line 1, column 17"),
        ("", "line 1, column 0"),
        ("[]", "line 1"),
        ("{\"topics\": \"x\"}", "line 1, column 14"),
        ("{\"topics\": [1]}", "line 1, column 13"),
        ("{\n\"topic\": []}", "line 2"),
    ] {
        folder.write("topics.json", content);
        let lines = faults(&folder, &[], &minimal());
        assert!(
            lines.len() == 1 && lines[0].contains("TOPICS_FILE") && lines[0].contains(place),
            "{content}: {lines:?}"
        );
    }
    std::fs::remove_file(folder.join("topics.json")).unwrap();
    let mut all = minimal();
    all.insert("TOPICS_FILE".into(), "mine.json".into());
    let lines = faults(&folder, &[], &all);
    assert!(lines.len() == 1 && lines[0].contains("TOPICS_FILE=mine.json"), "{lines:?}");
}

#[test]
fn a_name_that_resembles_a_setting_stops_the_start_and_others_do_not() {
    let folder = Folder::new("names");
    for (name, meant) in [("HTPP_PORT", "HTTP_PORT"), ("REDACT_FIELD", "REDACT_FIELDS"), ("GENESYS_EMV", "GENESYS_ENV")]
    {
        let mut all = minimal();
        all.insert(name.into(), "x".into());
        let lines = faults(&folder, &[], &all);
        assert!(lines.len() == 1 && lines[0].contains(&format!("did you mean {meant}?")), "{lines:?}");
        folder.write("near.env", format!("{name}=x\n"));
        let lines = faults(&folder, &["--env-file", "near.env"], &minimal());
        assert!(lines.len() == 1 && lines[0].contains(&format!("did you mean {meant}?")), "{lines:?}");
    }
    // Started, with a notice, and stopped by what cannot be bound.
    folder.write("other.env", "GREETING=hello\nHTTP_PROXY=http://127.0.0.1:1\n");
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut all = minimal();
    all.extend(of(&[
        ("HTTP_USER_AGENT", "x"),
        ("HTTP_SERVICE_HOST", "10.0.0.1"),
        ("HTTP_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("ALL_PROXY", "http://127.0.0.1:1"),
        ("HTTP_HOST", "127.0.0.1"),
        ("HTTP_PORT", &held.local_addr().unwrap().port().to_string()),
    ]));
    let output = run(&folder, &["--env-file", "other.env"], &all);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("GREETING in other.env is not a setting and is ignored"), "{said}");
}

#[test]
fn quotes_marks_and_line_ends_around_a_value_are_reported_or_go() {
    let folder = Folder::new("quotes");
    for (name, value) in [
        ("GENESYS_CLIENT_SECRET", "\"HUSH\""),
        ("GENESYS_ENV", "'mypurecloud.com'"),
        ("HTTP_TOKEN", "\"HUSH\""),
        ("OUTPUT_FILE", "\"events.jsonl\""),
    ] {
        let mut all = minimal();
        all.insert(name.into(), value.into());
        let lines = faults(&folder, &[], &all);
        assert!(lines.len() == 1 && lines[0].contains(name) && lines[0].contains("docker --env-file"), "{lines:?}");
    }
    folder.write("padded", "HUSH \n");
    for pair in [("HTTP_TOKEN", " HUSH"), ("HTTP_TOKEN_FILE", "padded")] {
        let mut all = minimal();
        all.extend(of(&[pair]));
        let lines = faults(&folder, &[], &all);
        assert!(lines.len() == 1 && lines[0].contains("white space"), "{lines:?}");
    }
    let sim = simulator();
    let secret = folder.write("secret", format!("\u{feff}{}\r\n", credentials().1));
    let mut all = settings(&sim, &folder);
    all.remove("GENESYS_CLIENT_SECRET");
    all.insert("GENESYS_CLIENT_SECRET_FILE".into(), secret.display().to_string());
    all.insert("GENESYS_ENV".into(), "mypurecloud.com\r".into());
    Collector::start_with(folder.path(), &all).wait_healthy();
}

#[test]
fn what_is_not_a_regular_file_is_refused_and_left_as_it_is() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let folder = Folder::new("special");
    mknodat(CWD, folder.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    std::fs::create_dir(folder.join("dir")).unwrap();
    folder.write("file", "");
    for (name, target) in [("to-fifo", "fifo"), ("to-device", "/dev/null"), ("loop", "loop"), ("to-dir", "dir")] {
        std::os::unix::fs::symlink(target, folder.join(name)).unwrap();
    }
    let device = std::fs::metadata("/dev/null").unwrap().rdev();
    for setting in ["OUTPUT_FILE", "STATE_FILE"] {
        for path in
            ["fifo", "socket", "dir", "to-fifo", "to-device", "to-dir", "loop", "/dev/null", "file/below", "new/"]
        {
            let mut all = minimal();
            all.insert(setting.into(), path.into());
            let begun = std::time::Instant::now();
            let lines = faults(&folder, &[], &all);
            assert!(lines.len() == 1 && lines[0].contains(&format!("{setting}={path}: must ")), "{lines:?}");
            let output = run(&folder, &["check"], &all);
            let said = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.starts_with("✘ settings: ") && said.ends_with("0 of 1 checks passed\n"), "{said}");
            assert!(begun.elapsed() < SOON, "{setting}={path}: {:?}", begun.elapsed());
        }
    }
    assert!(std::fs::symlink_metadata(folder.join("fifo")).unwrap().file_type().is_fifo());
    let null = std::fs::symlink_metadata("/dev/null").unwrap();
    assert!(null.file_type().is_char_device() && null.rdev() == device);
}

#[test]
fn a_file_of_its_own_is_asked_for_the_state_and_an_endless_file_is_not_read_for_ever() {
    let folder = Folder::new("purposes");
    for name in ["e.jsonl", "e.jsonl.1", "e.jsonl.dead", "e.jsonl.dead.1", "e.jsonl.unreadable", "e.jsonl.lock"] {
        let mut all = minimal();
        all.extend([("OUTPUT_FILE".into(), "e.jsonl".into()), ("STATE_FILE".into(), name.into())]);
        let lines = faults(&folder, &[], &all);
        assert!(
            lines.len() == 1 && lines[0].contains(&format!("STATE_FILE={name}: must be a separate file")),
            "{lines:?}"
        );
    }
    for setting in ["TOPICS_FILE", "ELASTIC_CA_FILE", "SSL_CERT_FILE", "HTTP_TOKEN_FILE"] {
        for (path, why) in [("/dev/zero", "it has more than"), (".", "directory")] {
            let mut all = minimal();
            all.insert(setting.into(), path.into());
            let lines = faults(&folder, &[], &all);
            assert!(lines.len() == 1 && lines[0].contains(&format!("{setting}={path}: ")), "{lines:?}");
            assert!(lines[0].contains(why), "{lines:?}");
        }
    }
    assert!(names(&folder).is_empty(), "nothing was made: {:?}", names(&folder));
}

#[test]
fn a_link_is_followed_once_at_the_start_and_an_empty_state_is_no_state() {
    let (sim, folder) = (simulator(), Folder::new("links"));
    std::fs::create_dir(folder.join("disk")).unwrap();
    std::os::unix::fs::symlink("disk/real.jsonl", folder.join("events.jsonl")).unwrap();
    folder.write("events.jsonl.state", "");
    let mut collector = Collector::start(&sim, &folder, &[("MAX_FILE_SIZE", "3000")]);
    collector.wait_healthy();
    for _ in 0..8 {
        sim.issue(Event::numbered("AUDIOHOOK-0001"));
    }
    let backup = folder.join("disk/real.jsonl.1");
    assert!(poll(SOON, || backup.exists().then_some(())).is_some(), "{}", collector.log_text());
    assert!(std::fs::symlink_metadata(folder.join("events.jsonl")).unwrap().is_symlink(), "the link is left");
    assert!(!collector.log_text().contains("damaged"), "{}", collector.log_text());
    assert!(collector.term().success());
    assert!(std::fs::metadata(folder.join("events.jsonl.state")).unwrap().len() > 0);
}

/// The collector with its state file mounted by itself, in a mount namespace of its own; none where that is not allowed.
fn with_mounted_state(folder: &Folder, all: &Settings, options: &str) -> Option<std::process::Command> {
    folder.write("host-state", "");
    folder.write("events.jsonl.state", "");
    let mount = format!("mount --bind {options} host-state events.jsonl.state");
    let unshare = |script: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).current_dir(folder.path()).env_clear().envs(all);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    };
    if !unshare(&mount).output().is_ok_and(|tried| tried.status.success()) {
        println!("skipped: no mount namespace of its own here; run it as root to see it");
        return None;
    }
    let program = binary(folder.path(), &[], all).get_program().to_string_lossy().into_owned();
    Some(unshare(&format!("{mount} && exec {program}")))
}

#[test]
fn a_state_file_that_is_mounted_by_itself_is_written_in_place() {
    let (sim, folder) = (simulator(), Folder::new("mounted"));
    let all = settings(&sim, &folder);
    let Some(command) = with_mounted_state(&folder, &all, "") else { return };
    let mut collector = Collector::run_command(command, folder.path(), &all);
    collector.wait_healthy();
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    collector.wait_lines(1, SOON);
    let state = || std::fs::read_to_string(folder.join("host-state")).unwrap_or_default();
    assert!(poll(SOON, || state().contains("checkpoint_ms").then_some(())).is_some(), "{}", collector.log_text());
    assert!(!collector.log_text().contains("STATE_FILE"), "{}", collector.log_text());
    assert!(collector.term().success());
    assert!(!folder.join("events.jsonl.state.new").exists());
}

#[test]
fn a_state_file_that_can_be_neither_replaced_nor_written_stops_the_start() {
    let (sim, folder) = (simulator(), Folder::new("mounted-read-only"));
    let all = settings(&sim, &folder);
    let Some(mut command) = with_mounted_state(&folder, &all, "-o ro") else { return };
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("STATE_FILE=") && said.contains("neither replaced nor written"), "{said}");
    assert!(!folder.join("events.jsonl").exists() && !folder.join("events.jsonl.lock").exists());
}

#[test]
fn a_wrong_command_line_is_told_and_starts_nothing() {
    let folder = Folder::new("command-line");
    for arguments in [
        &["colect"][..],
        &["--verbose"],
        &["demo", "extra"],
        &["--for", "8"],
        &["demo", "--for", "0"],
        &["simulate", "--listen", "nowhere"],
        &["--env-file"],
        &["audit", "--from", "yesterday"],
        &["audit", "--from", "2026-11-23T10:00:00Z", "--to", "2026-11-23T09:00:00Z"],
        &["health", "--json"],
        &["-x"],
    ] {
        let lines = faults(&folder, arguments, &minimal());
        assert_eq!(lines.len(), 1, "{arguments:?}: {lines:?}");
    }
    for command in [
        None,
        Some("demo"),
        Some("simulate"),
        Some("check"),
        Some("audit"),
        Some("health"),
        Some("replay"),
        Some("template"),
    ] {
        for option in ["--help", "--version"] {
            let arguments: Vec<&str> = command.into_iter().chain([option]).collect();
            let output = run(&folder, &arguments, &Settings::new());
            assert!(output.status.success() && !output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
        }
    }
}

#[test]
fn the_health_command_says_what_the_collector_says() {
    let (sim, folder) = (simulator(), Folder::new("health"));
    let all = settings(&sim, &folder);
    assert_eq!(run(&folder, &["health"], &all).status.code(), Some(1), "nobody answers");
    let collector = Collector::start_with(folder.path(), &all);
    collector.wait_healthy();
    let output = run(&folder, &["health"], &of(&[("HTTP_PORT", &collector.port().to_string())]));
    assert!(output.status.success());
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["status"], "healthy");
}
