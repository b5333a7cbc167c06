//! `audiohook-collector check`: tries everything that the collector needs, and reports problems with their fixes.
//!
//! Must never: leave behind more than one channel without topics and socket, disturb a running collector, or print a
//! secret.

mod api_facts;
mod cluster;
mod index;
mod machine;
mod notifications;
mod service;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use serde::Serialize;

use crate::clock::Clock;
use crate::config::{Config, Errors};
use crate::net::Dialer;
use crate::status::Problem;
use crate::thread;

/// Time limit of the whole run, even if every peer hangs. Each step has its own shorter limit.
const RUN_MAX: Duration = Duration::from_secs(55);
/// After this time, no more facts about the API are collected.
const FACTS_MAX: Duration = Duration::from_secs(25);
/// Capacity of the queue of checks to print.
const CHECKS_MAX: usize = 16;

/// The command's options.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// One JSON document instead of lines.
    pub json: bool,
    /// Also examine how the API behaves.
    pub verbose: bool,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    found: String,
    /// How to fix the problem; `None` if the check passed.
    cure: Option<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    checks: &'a [Check],
}

/// Collects the results of the checks.
struct Findings {
    checks: Sender<Check>,
    begun: Instant,
    verbose: bool,
}

impl Findings {
    fn ok(&self, name: &'static str, found: impl Display) {
        self.send(Check { name, ok: true, found: one_line(found), cure: None });
    }

    fn bad(&self, name: &'static str, found: impl Display, cure: impl Display) {
        self.send(Check { name, ok: false, found: one_line(found), cure: Some(one_line(cure)) });
    }

    fn problem(&self, name: &'static str, Problem { what, cure, .. }: &Problem) {
        self.bad(name, what, cure);
    }

    /// Whether facts about the API are requested and there is time left for them.
    fn wants_facts(&self) -> bool {
        self.verbose && self.begun.elapsed() < FACTS_MAX
    }

    fn send(&self, check: Check) {
        // The printer stops at the time limit, and later results are dropped.
        let _ = self.checks.send(check);
    }
}

/// Prints errors of the settings as failed checks, when nothing else can be tried.
pub fn report_settings(errors: &Errors, how: &How) {
    let mut printer = Printer { json: how.json, checks: Vec::new() };
    for error in &errors.0 {
        let cure = Some("Fix this setting, in the environment or in the settings file.".to_owned());
        printer.take(Check { name: "settings", ok: false, found: one_line(error), cure });
    }
    printer.end();
}

/// Runs all checks, and prints each when it is done, or all of them as one JSON document. Exit status 0 if all passed,
/// else 1.
pub fn run(config: &Config, how: &How) -> ExitCode {
    let (checks, printed) = bounded(CHECKS_MAX);
    let findings = Findings { checks, begun: Instant::now(), verbose: how.verbose };
    let deadline = findings.begun + RUN_MAX;
    let mut printer = Printer { json: how.json, checks: Vec::new() };
    let config = config.clone();
    let working = thread::spawn("check", move || try_all(&config, &findings));
    let cut_short = |found: String, cure: &str| Check { name: "run", ok: false, found, cure: Some(cure.to_owned()) };
    loop {
        match printed.recv_deadline(deadline) {
            Ok(check) => printer.take(check),
            Err(RecvTimeoutError::Timeout) => {
                let found =
                    format!("the checks did not end within {} s; the remaining ones were skipped", RUN_MAX.as_secs());
                printer.take(cut_short(found, "Check for a hung disk, a silent firewall or a slow proxy."));
                break;
            }
            Err(RecvTimeoutError::Disconnected) => {
                if working.is_err() || working.is_ok_and(|working| working.join().is_err()) {
                    let cure = "Try again. If it happens again, report it: it is a bug in the collector.";
                    printer.take(cut_short("the checks ended early".to_owned(), cure));
                }
                break;
            }
        }
    }
    printer.end()
}

fn try_all(config: &Config, findings: &Findings) {
    let env = &config.genesys.env;
    let region = if env.is_empty() { "region not named".to_owned() } else { format!("region {env}") };
    let found: Vec<&str> = std::iter::once(region.as_str()).chain(config.notices.iter().map(String::as_str)).collect();
    let dialer = match Dialer::new(&config.network) {
        Ok(dialer) => Arc::new(dialer),
        Err(error) => return findings.problem("settings", &error),
    };
    findings.ok("settings", found.join("; "));
    let clock = Clock::system();
    service::check(config, &dialer, &clock, findings);
    machine::check(config, findings);
    cluster::check(config, &clock, findings);
}

struct Printer {
    json: bool,
    checks: Vec<Check>,
}

impl Printer {
    fn take(&mut self, check: Check) {
        if !self.json {
            // Ignore a closed pipe: the exit status still counts.
            let _ = writeln!(io::stdout(), "{}", line(&check));
        }
        self.checks.push(check);
    }

    fn end(&self) -> ExitCode {
        let all = self.checks.len();
        let passed = self.checks.iter().filter(|check| check.ok).count();
        let text = if self.json {
            serde_json::to_string(&Report { ok: passed == all, checks: &self.checks }).unwrap_or_default()
        } else {
            format!("{passed} of {all} checks passed")
        };
        let _ = writeln!(io::stdout(), "{text}");
        if passed == all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn line(check: &Check) -> String {
    let mark = if check.ok { '✔' } else { '✘' };
    let stop = if check.found.ends_with(['.', '?']) { "" } else { "." };
    let cure = check.cure.as_ref().map_or_else(String::new, |cure| format!("{stop} {cure}"));
    format!("{mark} {}: {}{cure}", check.name, check.found)
}

/// Puts a text on one line, since texts from other programs may contain control characters.
fn one_line(text: impl Display) -> String {
    text.to_string().split(|c: char| c.is_control()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_one_line_with_its_cure() {
        let (checks, printed) = bounded(2);
        let findings = Findings { checks, begun: Instant::now(), verbose: false };
        findings.ok("token", "fine\nand\r\nwell");
        findings.bad("port", "in use", "Set HTTP_PORT to another port.");
        assert_eq!(line(&printed.recv().unwrap()), "✔ token: fine and well");
        let bad = printed.recv().unwrap();
        assert_eq!(line(&bad), "✘ port: in use. Set HTTP_PORT to another port.");
        assert_eq!(
            serde_json::to_string(&Report { ok: false, checks: &[bad] }).unwrap(),
            r#"{"ok":false,"checks":[{"name":"port","ok":false,"found":"in use","cure":"Set HTTP_PORT to another port."}]}"#
        );
    }
}
