//! `audiohook-collector check`: tries everything that a start needs, and says what is wrong and what to do.
//!
//! Deals with: the order of the checks, their report as lines or as one JSON document, and a time limit on the whole.
//! Must never: leave more behind than one channel without topics and socket; disturb a collector that runs; print a
//! secret.

mod cluster;
mod guesses;
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
use crate::config::{Config, Faults};
use crate::genesys::error::{ApiError, Kind};
use crate::genesys::topics;
use crate::net::{DialError, Dialer};
use crate::status::Problem;
use crate::thread;

/// The whole run, at most, even where every peer hangs; each step has a shorter limit of its own.
const RUN_MAX: Duration = Duration::from_secs(55);
/// What only settles a guess is left out past this.
const GUESSES_MAX: Duration = Duration::from_secs(25);
/// Checks that wait to be printed.
const CHECKS_MAX: usize = 16;
/// A wrong setting: nothing was tried.
const WRONG_SETTING: u8 = 2;

/// One thing that was tried.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    found: String,
    /// What to do; none where nothing is wrong.
    cure: Option<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    checks: &'a [Check],
}

/// Where the checks say what they found.
struct Findings {
    checks: Sender<Check>,
    begun: Instant,
}

impl Findings {
    fn ok(&self, name: &'static str, found: impl Display) {
        self.say(Check { name, ok: true, found: one_line(found), cure: None });
    }

    fn bad(&self, name: &'static str, found: impl Display, cure: impl Display) {
        self.say(Check { name, ok: false, found: one_line(found), cure: Some(one_line(cure)) });
    }

    /// An error that brings its cure along.
    fn api_error(&self, name: &'static str, error: &ApiError) {
        let Problem { what, cure } = error.problem();
        self.bad(name, what, api_cure(error.kind, &cure));
    }

    fn dial_error(&self, name: &'static str, error: &DialError) {
        let text = error.to_string();
        let (found, cure) = text.split_once("; ").unwrap_or((&text, "look at the network, the firewall and the proxy"));
        self.bad(name, found, cure);
    }

    /// Whether there is time for what is good to know and no more.
    fn has_time(&self) -> bool {
        self.begun.elapsed() < GUESSES_MAX
    }

    fn say(&self, check: Check) {
        // Whoever prints has left when the time was up: nobody waits for the rest.
        let _ = self.checks.send(check);
    }
}

/// What to do about an error of the API, said to a person who runs a check: it waits for nothing and tries nothing again.
fn api_cure(kind: Kind, cure: &str) -> &str {
    match kind {
        Kind::Throttled(_) => {
            "check again in a minute; if it lasts, see what else uses this OAuth client, for all of its programs share \
             one allowance"
        }
        Kind::Unavailable(_) => "check again in a few minutes; if it lasts, look at Genesys Cloud's status page",
        _ if cure.is_empty() => "check again; if it lasts, look at the network and the proxy",
        _ => cure,
    }
}

/// Prints what is wrong with the settings in the same shape as everything else: one check for each fault. Nothing was
/// tried.
pub fn refuse(faults: &Faults, json: bool) {
    let mut printer = Printer { json, checks: Vec::new() };
    for fault in &faults.0 {
        printer.take(Check {
            name: "settings",
            ok: false,
            found: one_line(fault),
            cure: Some("set right what is named here, in the environment or in the settings file".to_owned()),
        });
    }
    printer.end();
}

/// Runs every check and prints each as it is done, or all as one document. Status 0 when nothing is wrong, 2 when a
/// setting is, else 1.
pub fn run(config: &Config, json: bool) -> ExitCode {
    let (checks, printed) = bounded(CHECKS_MAX);
    let findings = Findings { checks, begun: Instant::now() };
    let deadline = findings.begun + RUN_MAX;
    let mut printer = Printer { json, checks: Vec::new() };
    let (file, dialer) = match begin(config, &findings) {
        Ok(begun) => begun,
        Err(check) => {
            printer.take(check);
            printer.end();
            return ExitCode::from(WRONG_SETTING);
        }
    };
    let config = config.clone();
    let working = thread::spawn("check", move || try_all(&config, file, dialer, &findings));
    let cut_short = |found: String, cure: &str| Check { name: "run", ok: false, found, cure: Some(cure.to_owned()) };
    loop {
        match printed.recv_deadline(deadline) {
            Ok(check) => printer.take(check),
            Err(RecvTimeoutError::Timeout) => {
                printer.take(cut_short(
                    format!(
                        "the next check has no answer {} s after the start; it and those behind it were left out",
                        RUN_MAX.as_secs()
                    ),
                    "look for a hung disk, a silent firewall or a slow proxy at what would come next",
                ));
                break;
            }
            Err(RecvTimeoutError::Disconnected) => {
                if working.is_err() || working.is_ok_and(|working| working.join().is_err()) {
                    printer.take(cut_short(
                        "the checks ended early".to_owned(),
                        "try again; if it lasts, report it: it is a fault of the collector",
                    ));
                }
                break;
            }
        }
    }
    printer.end()
}

type Begun = (Option<Vec<String>>, Arc<Dialer>);

/// The settings: what the loading of the configuration could not tell.
fn begin(config: &Config, findings: &Findings) -> Result<Begun, Check> {
    let wrong = |found: String, cure: &str| Check {
        name: "settings",
        ok: false,
        found: one_line(found),
        cure: Some(cure.to_owned()),
    };
    let file = topics::read_file(&config.genesys.topics_file, config.genesys.topics_file_named).map_err(|error| {
        wrong(
            error,
            "mend the file, or name another with TOPICS_FILE: {\"topics\":[\"v2.operations.events.AUDIOHOOK-*\"]}",
        )
    })?;
    let dialer = Dialer::new(&config.network).map_err(|error| {
        wrong(error.to_string(), "set HTTPS_PROXY to http://[user:password@]host:port, or unset it")
    })?;
    let mut found = format!("region {}", if config.genesys.env.is_empty() { "not named" } else { &config.genesys.env });
    for notice in config.notices() {
        found.push_str(&format!("; {notice}"));
    }
    findings.ok("settings", found);
    Ok((file, Arc::new(dialer)))
}

fn try_all(config: &Config, file: Option<Vec<String>>, dialer: Arc<Dialer>, findings: &Findings) {
    let clock = Clock::system();
    service::check(config, file.as_deref(), &dialer, &clock, findings);
    machine::check(config, findings);
    cluster::check(config, &clock, findings);
}

/// Prints the checks.
struct Printer {
    json: bool,
    checks: Vec<Check>,
}

impl Printer {
    fn take(&mut self, check: Check) {
        if !self.json {
            // A reader that has gone needs no more lines; the status still tells.
            let _ = writeln!(io::stdout(), "{}", line(&check));
        }
        self.checks.push(check);
    }

    fn end(&self) -> ExitCode {
        let wrong = self.checks.iter().filter(|check| !check.ok).count();
        let text = if self.json {
            serde_json::to_string(&Report { ok: wrong == 0, checks: &self.checks }).unwrap_or_default()
        } else if wrong == 0 {
            format!("All of {} checks are well.", self.checks.len())
        } else {
            format!("{wrong} of {} checks need a hand: see ✘.", self.checks.len())
        };
        let _ = writeln!(io::stdout(), "{text}");
        if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn line(check: &Check) -> String {
    let mark = if check.ok { '✔' } else { '✘' };
    let cure = check.cure.as_ref().map_or_else(String::new, |cure| format!(". What to do: {cure}"));
    format!("{mark} {}: {}{cure}", check.name, check.found)
}

/// Texts of others may hold anything; each check is one line.
fn one_line(text: impl Display) -> String {
    text.to_string().split(|c: char| c.is_control()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_one_line_with_its_cure() {
        let (checks, printed) = bounded(2);
        let findings = Findings { checks, begun: Instant::now() };
        findings.ok("token", "fine\nand\r\nwell");
        findings.bad("port", "in use", "choose another");
        assert_eq!(line(&printed.recv().unwrap()), "✔ token: fine and well");
        let bad = printed.recv().unwrap();
        assert_eq!(line(&bad), "✘ port: in use. What to do: choose another");
        assert_eq!(
            serde_json::to_string(&Report { ok: false, checks: &[bad] }).unwrap(),
            r#"{"ok":false,"checks":[{"name":"port","ok":false,"found":"in use","cure":"choose another"}]}"#
        );
    }
}
