//! The live page in a real Chromium.
#![allow(clippy::unwrap_used, reason = "a test's help fails by a panic, as the test does")]

mod browser;
mod incident;
#[path = "../http/stage.rs"]
mod stage;

use audiohook_collector::clock::Clock;
use audiohook_collector::status::{Code, Problem};
use browser::Browser;
use serde_json::{Value, json};
use stage::Stage;

fn add(stage: &Stage, records: &[Value]) {
    let lines: Vec<String> = records.iter().map(Value::to_string).collect();
    for line in &lines {
        stage.status.counts.add_line(line.as_bytes(), now());
    }
    stage.status.recent.extend(lines.iter().map(String::as_bytes));
    stage.status.counters.received_websocket.add(lines.len() as u64);
    stage.status.counters.written.add(lines.len() as u64);
}

fn page(stage: &Stage) -> String {
    format!("http://{}/", stage.address)
}

fn now() -> i64 {
    Clock::system().wall()
}

#[test]
fn the_page_shows_what_arrives_and_what_is_wrong() {
    let Some(browser) = Browser::start() else { return };
    let stage = Stage::start(None);
    browser.open(&page(&stage));
    browser.wait_for("h1", "All events are being collected");
    browser.wait_for("#none", "No events yet");
    browser.wait("document.querySelector('#chart').textContent.includes('No events in this time range')");
    browser.run("window.same = true;");

    // An event that arrives, on a page that is not loaded anew.
    add(&stage, &[incident::record(now() - 400, 1, 1, 0)]);
    browser.wait_for("#rows", "AUDIOHOOK-0002");
    assert!(browser.text("#integrations").contains("Agent Assist EU"));
    assert!(browser.text("#legend").contains("0002"));
    assert_eq!(browser.text("#hour-big"), "1");
    assert_eq!(browser.run("return document.querySelectorAll('#chart .bar-part').length;"), 1);

    // A fault that comes and goes; the page's own requests stay free of errors even while the health is 503.
    stage.status.raise(Code::DiskWriteFailed, Problem::new("cannot write ./events.jsonl: no space left", "Free some."));
    browser.wait_for("h1", "not being collected");
    assert_eq!(browser.text("#word"), "Unhealthy");
    assert_eq!(browser.text(".reason.bad .message"), "Cannot write ./events.jsonl: no space left.");
    assert_eq!(browser.text(".reason.bad .cure"), "What to do Free some.");
    stage.status.clear(Code::DiskWriteFailed);
    browser.wait_for("h1", "All events are being collected");
    assert_eq!(browser.text("#reasons"), "");
    stage.status.raise(Code::SocketDown, Problem::new("the WebSocket is down", "Check the network."));
    browser.wait_for("#word", "Degraded");
    // The history is named as the source only while it works.
    browser.wait_for("#source-big", "Nothing");
    stage.status.gauges.checkpoint.set(now() - 20_000);
    browser.wait_for("#source-big", "History");
    stage.status.raise(Code::HistoryFailing, Problem::new("the history cannot be read", "Check the network."));
    browser.wait_for("#source-big", "Nothing");

    assert_eq!(browser.run("return window.same;"), true);
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn whatever_an_event_contains_is_shown_as_text() {
    let Some(browser) = Browser::start() else { return };
    let stage = Stage::start(None);
    let markup = "<script>window.owned = true</script><img src=x onerror=\"window.owned = true\">";
    let mut bad = incident::record(now(), 1, 0, 0);
    for field in ["event_id", "event_name", "description", "conversation_id", "entity_id", "entity_name", "source"] {
        bad[field] = json!(markup);
    }
    let mut odd = incident::record(now(), 2, 0, 0);
    odd["event_id"] = json!(null);
    odd["entity_name"] = json!("quote \" brace } bracket ] backslash \\");
    odd["raw_event"] = json!({"a": "}]\\\"", "empty": {}, "list": []});
    let exact = r#"{"id":"exact","event_id":"AUDIOHOOK-0009","timestamp":"never","raw_event":{"n":1.0,"long":12345678901234567890,"big":1e400,"a":1,"a":2}}"#;
    add(&stage, &[bad, odd]);
    stage.status.recent.extend([exact.as_bytes()].into_iter());
    stage.status.raise(Code::SubscriptionRejected, Problem::new(markup, markup));
    browser.open(&page(&stage));
    browser.wait("document.querySelectorAll('#rows tr').length === 3");
    for part in ["#rows", "#reasons", "#integrations", "#legend"] {
        assert!(browser.text(part).contains("<script>window.owned = true</script>"), "{part}: {}", browser.text(part));
    }
    assert!(browser.text("#rows").contains(r#"quote " brace } bracket ] backslash \"#));
    // The whole record, value for value.
    browser.click("#rows tr:first-child");
    browser.wait_for("#record-json", "12345678901234567890");
    let shown: String = browser.text("#record-json").split_whitespace().collect();
    assert_eq!(shown, exact);
    browser.click("#record-close");
    browser.click("#rows tr:last-child");
    assert!(browser.text("#record").contains(markup));
    assert_eq!(browser.run("return window.owned === undefined && document.querySelectorAll('img').length;"), 1);
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn a_thousand_events_are_held_filtered_and_copied() {
    let Some(browser) = Browser::start() else { return };
    let stage = Stage::start(None);
    let all: Vec<Value> =
        (0..1000).map(|n| incident::record(now() - 500_000 + n * 500, n as u64, n as usize, n as usize / 7)).collect();
    add(&stage, &all);
    browser.open(&page(&stage));
    browser.wait("document.querySelectorAll('#rows tr').length === 1000");
    browser.type_into("#filter", "biometrics audiohook-0003");
    let wanted =
        all.iter().filter(|r| r["entity_name"] == "Voice Biometrics" && r["event_id"] == "AUDIOHOOK-0003").count();
    browser.wait_for("#shown", &format!("{wanted} of 1,000 match"));
    assert_eq!(browser.run("return document.querySelectorAll('#rows tr:not([hidden])').length;"), wanted);
    // A flood: the newest thousand stay, the filter holds, and a turn takes less than a frame or two of time.
    let more: Vec<Value> = (0..1000).map(|n| incident::record(now(), 5000 + n, 2, 1)).collect();
    add(&stage, &more);
    browser.wait_for("#shown", "1,000 of 1,000 match");
    let spent =
        browser.run("const t = performance.now(); show([], false); return performance.now() - t;").as_f64().unwrap();
    assert!(spent < 500.0, "one turn takes {spent} ms");
    // On a phone nothing stands beyond the edge.
    let phone = json!({"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true});
    browser.tools("Emulation.setDeviceMetricsOverride", phone);
    browser.wait("document.documentElement.clientWidth === 360");
    assert_eq!(browser.run("return document.documentElement.scrollWidth;"), 360);
    browser.tools("Emulation.clearDeviceMetricsOverride", json!({}));
    // The copies, as the clipboard gets them.
    browser.run("window.copied = []; navigator.clipboard.writeText = async (text) => { window.copied.push(text); };");
    browser.click("#rows tr:first-child");
    browser.wait_for("#record-json", "raw_event");
    browser.click("#copy-curl");
    browser.wait_for("#copied", "curl copied");
    browser.click("#copy-json");
    browser.wait_for("#copied", "JSON copied");
    let copied = browser.run("return window.copied;");
    let curl = copied[0].as_str().unwrap();
    assert!(curl.starts_with(&format!("curl -s '{}events?id=", page(&stage))), "{curl}");
    let record: Value = serde_json::from_str(copied[1].as_str().unwrap()).unwrap();
    assert_eq!(record["id"], more[999]["id"]);
    let found = stage.get(
        curl.split('\'').nth(1).unwrap().split_once("/events").map(|(_, q)| format!("/events{q}")).unwrap().as_str(),
    );
    assert!(found.json()["recent_events"].as_array().unwrap().iter().any(|r| r["id"] == record["id"]));
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn who_reads_further_down_keeps_what_is_under_their_eyes() {
    let Some(browser) = Browser::start() else { return };
    let stage = Stage::start(None);
    let all: Vec<Value> = (0..1000).map(|n| incident::record(now() - 500_000 + n * 500, n as u64, 0, 0)).collect();
    add(&stage, &all);
    browser.open(&page(&stage));
    browser.wait("document.querySelectorAll('#rows tr').length === 1000");
    browser.run("window.read = document.querySelector('#rows tr:nth-child(125)');");
    browser.run("document.querySelector('#scroll').scrollTop = 4000;");
    let place = || browser.run("return read.getBoundingClientRect().top;").as_f64().unwrap();
    let before = place();
    add(&stage, &(0..7).map(|n| incident::record(now(), 5000 + n, 2, 1)).collect::<Vec<_>>());
    browser.wait("document.querySelector('#rows tr').innerText.includes('AUDIOHOOK-0003')");
    assert_eq!(browser.run("return document.querySelectorAll('#rows tr').length;"), 1000, "the oldest went");
    // A browser scrolls by whole pixels, and rows need not be as high.
    assert!((place() - before).abs() <= 1.0, "{} is not {before}", place());
}

#[test]
fn the_filter_looks_at_values_and_a_click_picks_by_its_field_alone() {
    let Some(browser) = Browser::start() else { return };
    let stage = Stage::start(None);
    let mut nameless = incident::record(now(), 1, 0, 0);
    nameless["event_id"] = json!(null);
    let mut other = incident::record(now(), 2, 1, 1);
    other["description"] = json!("It says \"no code\", in Zürich.");
    let half = format!("{}", incident::record(now(), 8, 2, 2)).replace("Call Recording", r"Caf\u00e9 Recording");
    let half = half.replacen(r#""entity_id":""#, r#""entity_id":"\ud800"#, 1);
    add(&stage, &[nameless, other]);
    stage.status.counts.add_line(half.as_bytes(), now());
    stage.status.recent.extend([half.as_bytes()].into_iter());
    browser.open(&page(&stage));
    browser.wait("document.querySelectorAll('#rows tr').length === 3");
    let matching = |text: &str| {
        browser.run(&format!(
            "const f = document.querySelector('#filter'); f.value = {}; f.dispatchEvent(new Event('input'));",
            json!(text)
        ));
        browser.run("return document.querySelectorAll('#rows tr:not([hidden])').length;")
    };
    for (text, count) in [("entity_name", 0), ("\"no", 1), ("zürich", 1), ("CAFÉ", 1), ("", 3)] {
        assert_eq!(matching(text), count, "{text}");
    }
    // The event that only speaks of it is not among them.
    browser.run("[...document.querySelectorAll('#legend button')].find((b) => b.dataset.what === 'no code').click();");
    browser.wait_for("#shown", "1 of 3 match");
    browser.wait_for("#picks", "code no code");
    browser.click("#picks button");
    browser.wait("document.querySelectorAll('#rows tr:not([hidden])').length === 3");
    browser.click("#integrations button");
    browser.wait_for("#shown", "1 of 3 match");
    browser.wait_for("#readout", "1 event of this integration");
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn the_address_holds_what_is_shown() {
    let Some(browser) = Browser::start() else { return };
    let stage = Stage::start(None);
    let all: Vec<Value> = (0..20).map(|n| incident::record(now() - 90_000, n, n as usize, n as usize)).collect();
    add(&stage, &all);
    browser.open(&page(&stage));
    browser.wait("document.querySelectorAll('#rows tr').length === 20");
    browser.click("#spans button:last-child");
    browser.run(
        "[...document.querySelectorAll('#legend button')].find((b) => b.dataset.what === 'AUDIOHOOK-0003').click();",
    );
    // The code's explanation, with what to check.
    browser.wait_for("#meaning", "What 0003 means");
    browser.wait_for("#meaning", "Compare the API key");
    browser.wait_for("#meaning", "inferred");
    browser.type_into("#filter", "archive");
    browser.click("#rows tr:not([hidden])");
    browser.wait("location.search.includes('event=')");
    let address = browser.run("return location.href;");
    let address = address.as_str().unwrap();
    for part in ["range=10d", "code=AUDIOHOOK-0003", "q=archive"] {
        assert!(address.contains(part), "{address}");
    }
    let title = browser.text("#record-title");
    browser.open("about:blank");
    browser.open(address);
    browser.wait("document.querySelector('#record').open");
    assert_eq!(browser.text("#record-title"), title);
    browser.wait_for("#record-meaning", "What to check");
    browser.click("#record-close");
    browser.wait("!location.search.includes('event=')");
    assert_eq!(browser.text("#spans [aria-pressed=true]"), "10 d");
    browser.wait_for("#shown", "of 20 match");
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn the_charts_know_more_than_the_newest_thousand_events() {
    let Some(browser) = Browser::start() else { return };
    let stage = Stage::start(None);
    for (days, count) in [(9, 700), (5, 800), (0, 1500)] {
        for n in 0..count {
            let at = now() - days * 86_400_000 - 600_000;
            let line = incident::record(at, n, if days == 0 { 2 } else { 0 }, 1).to_string();
            stage.status.counts.load_line(line.as_bytes(), now());
        }
    }
    let recovered = json!({"event_id": "AUDIOHOOK-0008", "event_name": "AudioHook session recovered", "id": "r"});
    add(&stage, &[recovered]);
    browser.open(&page(&stage));
    browser.wait_for("#readout", "1,501 events in the last 24 hours");
    assert_eq!(browser.text("#hour-big"), "1,500", "a recovery is no failure");
    assert!(!browser.text("#integrations").contains("0008"));
    let colour = "return getComputedStyle([...document.querySelectorAll('#legend button')].find((b) => b.dataset.what === 'AUDIOHOOK-0003').firstElementChild).backgroundColor;";
    let before = browser.run(colour);
    browser.click("#spans button:last-child");
    browser.wait_for("#readout", "3,001 events in the last 10 days");
    assert_eq!(browser.run(colour), before, "a code keeps its colour");
    browser.click("#spans button:first-child");
    browser.wait_for("#readout", "1,501 events in the last hour");
    // An event that comes is counted once, by the page and by the server.
    add(&stage, &[incident::record(now() - 400, 1, 1, 0)]);
    browser.wait_for("#readout", "1,502 events");
    browser.run("window.polls = 0; const old = take; take = (live) => { window.polls += 1; window.whole = Boolean(live.whole); old(live); };");
    browser.wait("window.polls >= 3");
    assert_eq!(browser.run("return window.whole;"), false, "nothing is asked for anew");
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn the_page_is_complete_within_three_seconds_on_a_slow_line() {
    let Some(browser) = Browser::start() else { return };
    let stage = Stage::start(None);
    let all: Vec<Value> = (0..1000)
        .map(|n| {
            let mut record = incident::record(now() - 500_000 + n * 500, n as u64, n as usize, n as usize / 7);
            record["raw_event"]["more"] = json!("x".repeat(3000));
            record
        })
        .collect();
    add(&stage, &all);
    let slow = json!({"offline": false, "latency": 50, "downloadThroughput": 200_000, "uploadThroughput": 200_000});
    browser.tools("Network.enable", json!({}));
    browser.tools("Network.emulateNetworkConditions", slow);
    browser.open(&page(&stage));
    browser.wait("document.querySelectorAll('#rows tr').length === 1000");
    let sizes = "return performance.getEntriesByType('resource').map((e) => [e.name.split('/').pop(), e.transferSize, e.responseEnd]);";
    let loaded = browser.run(sizes);
    let first = loaded.as_array().unwrap().iter().find(|entry| entry[0] == "live").unwrap();
    let (bytes, at_ms) = (first[1].as_f64().unwrap(), first[2].as_f64().unwrap());
    assert!(bytes < 150_000.0 && at_ms < 3000.0, "{loaded}");
    browser.wait("performance.getEntriesByType('resource').some((e) => e.name.includes('since='))");
    let later = browser.run(sizes);
    let later = later.as_array().unwrap().iter().find(|e| e[0].as_str().is_some_and(|n| n.contains("since="))).unwrap();
    assert!(later[1].as_f64().unwrap() < 3000.0, "{later}");
}

#[test]
fn long_values_and_turned_ones_stay_in_their_place() {
    let Some(browser) = Browser::start() else { return };
    let stage = Stage::start(None);
    let mut bad = incident::record(now(), 1, 0, 0);
    for field in ["event_id", "event_name", "description", "conversation_id", "entity_id", "entity_name", "source"] {
        bad[field] = json!("Long".repeat(100));
    }
    let mut turned = incident::record(now(), 2, 1, 1);
    turned["event_name"] = json!("\u{202e}turned");
    add(&stage, &[bad, turned]);
    stage.status.gauges.socket_connected.set(1);
    stage.status.gauges.elastic_backlog_bytes.set(36_000_000);
    browser.open(&page(&stage));
    browser.wait("document.querySelectorAll('#rows tr').length === 2");
    let order = "const [what, more] = document.querySelectorAll('#rows tr:first-child .c-what bdi');
        return what.getBoundingClientRect().right <= more.getBoundingClientRect().left + 1;";
    assert_eq!(browser.run(order), true, "a value that turns the direction turns its own alone");
    for width in [1280, 1100, 700, 320] {
        let size = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600});
        browser.tools("Emulation.setDeviceMetricsOverride", size);
        browser.wait(&format!("innerWidth === {width}"));
        let beyond = "const e = document.documentElement; return e.scrollWidth - e.clientWidth;";
        assert_eq!(browser.run(beyond), 0, "something stands beyond the edge at {width}");
        let cut = "return [...document.querySelectorAll('.figure .big')]
            .filter((e) => e.scrollWidth > e.clientWidth || getComputedStyle(e).textOverflow !== 'clip').length;";
        assert_eq!(browser.run(cut), 0, "a figure is cut at {width}");
        browser.click("#rows tr:last-child");
        let drawer = browser.run("const e = document.querySelector('#record'); return e.scrollWidth - e.clientWidth;");
        assert_eq!(drawer, 0, "the drawer at {width}");
        browser.click("#record-close");
    }
}

#[test]
fn the_delay_is_that_of_the_way_events_come_now() {
    let Some(browser) = Browser::start() else { return };
    let stage = Stage::start(None);
    // Every eleventh came by the history.
    add(&stage, &(0..22).map(|n| incident::record(now() - 90_000, n, 1, 0)).collect::<Vec<_>>());
    stage.status.gauges.socket_connected.set(1);
    browser.open(&page(&stage));
    browser.wait_for("#delay-small", "by WebSocket");
    assert!(browser.text("#delay-big").starts_with("0."), "{}", browser.text("#delay-big"));
    stage.status.gauges.socket_connected.set(0);
    browser.wait_for("#delay-small", "by history");
    assert!(!browser.text("#delay-big").starts_with("0."), "{}", browser.text("#delay-big"));
}

#[test]
fn several_problems_leave_no_gap_and_nothing_of_a_code_is_cut() {
    let Some(browser) = Browser::start() else { return };
    let stage = Stage::start(None);
    add(&stage, &(0..200).map(|n| incident::record(now() - 90_000, n, n as usize, n as usize / 5)).collect::<Vec<_>>());
    for code in [Code::Incomplete, Code::DiskWriteFailed, Code::DeadLetters] {
        stage.status.raise(code, Problem::new("a problem that takes some words to tell", "Do what it takes."));
    }
    browser.open(&page(&stage));
    browser.wait("document.querySelectorAll('.reason').length === 3");
    for width in [1440, 1280, 390, 320] {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600});
        browser.tools("Emulation.setDeviceMetricsOverride", size);
        browser.wait(&format!("innerWidth === {width}"));
        let edge = "const right = (e) => Math.round(e.getBoundingClientRect().right);
            return right(document.querySelector('#reasons')) - right(document.querySelector('.reason:last-child'));";
        assert_eq!(browser.run(edge), 0, "an empty cell beside the last problem at {width}");
        let cut = "return [...document.querySelectorAll('.c-code, .c-late, .tops .detail, .legend b')]
            .filter((e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible').map((e) => e.textContent);";
        assert_eq!(browser.run(cut), json!([]), "cut at {width}");
        let wide = "const e = document.documentElement; return e.scrollWidth - e.clientWidth;";
        assert_eq!(browser.run(wide), 0, "something stands beyond the edge at {width}");
    }
    // With forced colours, what is picked is readable as a whole.
    let forced = json!({"features": [{"name": "forced-colors", "value": "active"}]});
    browser.tools("Emulation.setEmulatedMedia", forced);
    browser.click("#legend button");
    browser.wait("document.querySelector('#legend button[aria-pressed=true] .detail')");
    let colours = "const button = document.querySelector('#legend button');
        return [...button.querySelectorAll('.detail, .sum')].every((e) => getComputedStyle(e).color === getComputedStyle(button).color);";
    assert_eq!(browser.run(colours), true);
    browser.click("#legend button");
    browser.tools("Emulation.setEmulatedMedia", json!({"features": []}));
    // At a glance on a laptop: the state, the figures, the chart and the first rows.
    for code in [Code::DiskWriteFailed, Code::DeadLetters] {
        stage.status.clear(code);
    }
    browser.tools(
        "Emulation.setDeviceMetricsOverride",
        json!({"width": 1440, "height": 900, "deviceScaleFactor": 1, "mobile": false}),
    );
    browser.wait("document.querySelectorAll('.reason').length === 1");
    let seen = "return ['#headline', '.figures', '#chart', '#rows tr:nth-child(3)']
        .every((e) => document.querySelector(e).getBoundingClientRect().bottom <= 900);";
    assert_eq!(browser.run(seen), true);
}

#[test]
fn everything_is_reached_with_the_keyboard() {
    let Some(browser) = Browser::start() else { return };
    let stage = Stage::start(None);
    add(&stage, &(0..300).map(|n| incident::record(now() - 90_000, n, 1, 0)).collect::<Vec<_>>());
    browser.open(&page(&stage));
    browser.wait("document.querySelectorAll('#rows tr').length === 300");
    // One stop of the Tab key for all rows; the arrow keys lead from row to row, and over new ones.
    let stops = "return document.querySelectorAll('#rows button[tabindex=\"0\"]').length;";
    assert_eq!(browser.run(stops), 1);
    browser.run("document.querySelector('#rows button[tabindex=\"0\"]').focus();");
    browser.press("\u{e015}\u{e015}\u{e013}");
    let at = "[...document.querySelectorAll('#rows button')].indexOf(document.activeElement)";
    browser.wait(&format!("{at} === 1"));
    add(&stage, &[incident::record(now(), 500, 2, 1)]);
    browser.wait("document.querySelectorAll('#rows tr').length === 301");
    browser.wait(&format!("{at} === 2"));
    browser.press("\u{e010}");
    browser.wait(&format!("{at} === 300"));
    assert_eq!(browser.run(stops), 1);
    // The chart says its bars one by one.
    browser.run("document.querySelector('#chart').focus();");
    browser.wait_for("#readout", "in the last 24 hours");
    browser.press("\u{e010}\u{e012}\u{e012}");
    browser.wait_for("#readout", ":");
    let said = "return document.querySelector('#chart').getAttribute('aria-valuetext');";
    assert_eq!(browser.run(said), json!(browser.text("#readout")));
    browser.press("\u{e00c}");
    browser.wait_for("#readout", "in the last 24");
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn the_clusters_tile_says_what_is_wrong_with_it() {
    let Some(browser) = Browser::start() else { return };
    let stage = Stage::start(None);
    browser.open(&page(&stage));
    browser.wait_for("#cluster-big", "Up to date");
    stage.status.raise(Code::ElasticUnreachable, Problem::new("the cluster cannot be reached", "Check the cluster."));
    browser.wait_for("#cluster-big", "Unreachable");
    stage.status.gauges.elastic_backlog_bytes.set(36_000_000);
    browser.wait_for("#cluster-small", "34 MiB waiting");
    stage.status.clear(Code::ElasticUnreachable);
    browser.wait_for("#cluster-big", "34 MiB waiting");
}

#[test]
fn the_token_is_asked_for_once() {
    let Some(browser) = Browser::start() else { return };
    let stage = Stage::start(Some("open sesame"));
    add(&stage, &[incident::record(now(), 1, 0, 0)]);
    browser.open(&page(&stage));
    browser.wait_for("h1", "Access token required");
    assert_eq!(browser.console(), [""; 0]);
    browser.type_into("#token-text", "wrong\u{e007}");
    browser.wait_for("#token-note", "That token is wrong");
    // The browser itself tells of the refusal.
    assert!(browser.console().iter().all(|line| line.contains("401")));
    // What no header can carry is a wrong token too, and the page goes on asking.
    browser.type_into("#token-text", "пароль\u{e007}");
    browser.wait("document.querySelector('#token-text').value === ''");
    browser.wait_for("#token-note", "That token is wrong");
    browser.wait_for("h1", "Access token required");
    assert_eq!(browser.console(), [""; 0]);
    browser.type_into("#token-text", "open sesame\u{e007}");
    browser.wait_for("#rows", "AUDIOHOOK-0001");
    browser.open(&page(&stage));
    browser.wait_for("#rows", "AUDIOHOOK-0001");
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn a_collector_that_does_not_answer_is_said_and_its_return_is_noticed() {
    let Some(browser) = Browser::start() else { return };
    let stage = Stage::start(None);
    let address = stage.address;
    add(&stage, &[incident::record(now(), 1, 0, 0), incident::record(now(), 2, 0, 0)]);
    browser.open(&page(&stage));
    browser.wait("document.querySelectorAll('#rows tr').length === 2");
    stage.stop();
    browser.wait_for("h1", "does not answer");
    assert!(browser.text("#rows").contains("AUDIOHOOK-0001"), "what was known is still shown");
    // Another run of it, which numbers its events anew.
    let clock = Clock::system();
    let status = std::sync::Arc::new(audiohook_collector::status::Status::new(clock.clone(), false));
    status.clear(Code::Starting);
    status.counts.set_loaded();
    let again = Stage::serve("127.0.0.1", address.port(), status, clock, None);
    add(&again, &[incident::record(now(), 3, 4, 2)]);
    browser.wait_for("h1", "All events are being collected");
    browser.wait_for("#rows", "AUDIOHOOK-0005");
    assert_eq!(browser.run("return document.querySelectorAll('#rows tr').length;"), 1);
}

/// Not a test: `PICTURES=folder cargo test --test page -- --ignored` takes the pictures that a person looks at.
#[test]
#[ignore = "takes pictures for a person to look at"]
fn pictures() {
    let folder = std::path::PathBuf::from(std::env::var_os("PICTURES").unwrap());
    let Some(browser) = Browser::start() else { return };
    // A collector that has been running for three hours.
    let (clock, hand) = Clock::manual(now() - 3 * 3_600_000);
    let status =
        std::sync::Arc::new(audiohook_collector::status::Status::new(clock.clone(), true).named("usw2.pure.cloud"));
    hand.advance(std::time::Duration::from_secs(3 * 3600));
    status.clear(Code::Starting);
    status.counts.set_loaded();
    let stage = Stage::serve("127.0.0.1", 0, status.clone(), clock.clone(), None);
    add(&stage, &incident::hours(&clock));
    status.gauges.socket_connected.set(1);
    status.gauges.checkpoint.set(now() - 21_000);
    status.gauges.last_event.set(now() - 14_000);
    status.counters.written.add(18_204);
    status.counters.duplicate.add(31);
    status.counters.filtered.add(2);
    status.counters.elastic_created.add(18_190);
    status.gauges.elastic_backlog_bytes.set(0);
    status.update_elastic(|elastic| elastic.server = Some("OpenSearch 2.19.1".into()));
    let take = |name: &str, width: u64, height: u64, scheme: &str| {
        browser.tools(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        );
        browser.tools(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}),
        );
        browser.open(&page(&stage));
        browser.wait("document.querySelectorAll('#rows tr').length > 100 && document.querySelector('#chart rect')");
        let picture = browser.tools("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": false}));
        std::fs::write(folder.join(format!("{name}.base64")), picture["data"].as_str().unwrap()).unwrap();
    };
    take("light", 1280, 1500, "light");
    browser.tools("Emulation.setScrollbarsHidden", json!({"hidden": true}));
    // The README's.
    take("page", 1100, 768, "light");
    take("dark", 1280, 1500, "dark");
    take("narrow", 390, 1900, "light");
    browser.run("document.querySelector('#events-title').scrollIntoView();");
    let picture = browser.tools("Page.captureScreenshot", json!({"format": "png"}));
    std::fs::write(folder.join("narrow-table.base64"), picture["data"].as_str().unwrap()).unwrap();
    status.raise(
        Code::SocketDown,
        Problem::new(
            "cannot open the WebSocket to streaming.usw2.pure.cloud: the handshake was refused with 503; events are read from the history, delayed by up to 60 s",
            "Check Genesys Cloud's status page if it lasts.",
        ),
    );
    status.raise(
        Code::DiskWriteFailed,
        Problem::new(
            "cannot write /var/log/audiohook-collector/events.jsonl: no space left on device; events are delayed, Genesys Cloud keeps them for ten days",
            "Free space on the disk, or move OUTPUT_FILE.",
        ),
    );
    status.gauges.socket_connected.set(0);
    status.gauges.elastic_backlog_bytes.set(36_000_000);
    take("fault-light", 1280, 1500, "light");
    take("fault-dark", 1280, 1500, "dark");
    take("fault-narrow", 390, 1900, "dark");
    browser.tools(
        "Emulation.setDeviceMetricsOverride",
        json!({"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": false}),
    );
    browser.click("#rows tr:nth-child(3)");
    let picture = browser.tools("Page.captureScreenshot", json!({"format": "png"}));
    std::fs::write(folder.join("record.base64"), picture["data"].as_str().unwrap()).unwrap();
}
