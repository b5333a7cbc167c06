//! The metrics, as Prometheus's own tool judges them.

use std::io::Write;
use std::process::{Command, Stdio};

use audiohook_collector::status::Code;

use crate::stage::Stage;

#[test]
fn promtool_finds_nothing_to_say() {
    let stage = Stage::start(None);
    stage.status.counters.received_websocket.add(3);
    stage.status.gauges.last_event.set(1_795_430_645_123);
    stage.status.raise(Code::DeadLetters, "a \"quoted\" message");
    let reply = stage.get("/metrics");
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = match promtool.spawn() {
        Ok(child) => child,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "cannot run promtool: {error}");
            println!("skipped: promtool is not here ({error}); it is in Debian's package prometheus");
            return;
        }
    };
    promtool.stdin.take().unwrap().write_all(&reply.body).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{}", String::from_utf8_lossy(&reply.body));
}
