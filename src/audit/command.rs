//! The command `audit`: one audit from beginning to end, told to a person or a machine, and repaired on request.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::never;

use super::{Audit, Report, Step};
use crate::cli;
use crate::clock::{Clock, Millis, format_millis};
use crate::config::Config;
use crate::genesys::api::Api;
use crate::genesys::history::{History, REACH_MS};
use crate::genesys::topics;
use crate::message::Page;
use crate::net::Dialer;
use crate::output::Lock;
use crate::records::Held;
use crate::writer;

/// What is looked at when nothing is said: a day.
const SPAN_MS: i64 = 24 * 3_600_000;

/// How often a request that failed is tried again.
const TRIES: u32 = 5;
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// Runs the audit; 0 when nothing is missing (any more), else 1.
pub fn run(config: &Config, options: &cli::Audit) -> ExitCode {
    match audit(config, options, &Clock::system()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            let _ = writeln!(io::stderr(), "audiohook-collector: {message}");
            ExitCode::FAILURE
        }
    }
}

fn audit(config: &Config, options: &cli::Audit, clock: &Clock) -> Result<bool, String> {
    // Taken first: an audit of an hour is of no use if the repair is refused at its end.
    let lock = if options.repair {
        let refuse = |error| format!("{error}; a running collector repairs by itself, so --repair is refused");
        Some(Lock::take(&config.output.file).map_err(refuse)?)
    } else {
        None
    };
    let dialer = Dialer::new(&config.network).map_err(|error| error.to_string())?;
    let mut api = Api::new(&config.genesys, Arc::new(dialer), clock.clone());
    let definitions = api.definitions().map_err(|error| error.to_string())?;
    let ids = topics::plan(config.genesys.topics.as_deref(), Some(&definitions)).ids;
    let (from, to) = interval(config, options, api.service().now())?;
    let history = History::new(api.api_url(), config.catch_up.rate);
    let new = || Audit::new(config, history.beside(), ids.clone(), &definitions, (from, to));
    let mut appended = 0;
    let mut report = run_one(new(), &mut api, clock, &mut |rows| {
        if lock.is_some() {
            appended += writer::repair(config, &definitions, &rows)?;
        }
        Ok(())
    })?;
    if appended > 0 {
        say(&format!("{appended} missing events were appended to {}", config.output.file.display()));
        report = run_one(new(), &mut api, clock, &mut |_| Ok(()))?;
    }
    if report.from == report.to {
        return Err(format!("there is nothing to compare before {}: the files hold nothing older", report.to));
    }
    let text = if options.json { json(&report) } else { prose(&report) };
    writeln!(io::stdout(), "{text}").map_err(|error| format!("cannot print the report: {error}"))?;
    Ok(report.complete)
}

/// One audit from beginning to end; `take_missing` is handed the rows that are missing.
fn run_one(
    mut audit: Audit,
    api: &mut Api,
    clock: &Clock,
    take_missing: &mut dyn FnMut(Page) -> Result<(), String>,
) -> Result<Report, String> {
    let mut failures = 0;
    loop {
        let wait = match audit.step(api, clock, &|| ()) {
            Ok(Step::Done(report)) => return Ok(report),
            Ok(Step::More) => {
                failures = 0;
                continue;
            }
            Ok(Step::Missing(rows)) => {
                take_missing(rows)?;
                continue;
            }
            Ok(Step::Wait(wait)) => wait,
            Err(error) => {
                failures += 1;
                if failures >= TRIES {
                    return Err(error.to_string());
                }
                TRY_AGAIN
            }
        };
        let _ = never::<()>().recv_timeout(wait);
    }
}

/// The interval that was asked for, cut to what is settled, what Genesys keeps, and what the files still hold.
fn interval(config: &Config, options: &cli::Audit, now: Millis) -> Result<(Millis, Millis), String> {
    let settled = now - config.catch_up.overlap.as_millis() as i64;
    let mut to = options.to.unwrap_or(settled);
    if to > settled {
        say(&format!(
            "--to is cut to {}: what is younger than CATCH_UP_OVERLAP is not settled yet",
            format_millis(settled)
        ));
        to = settled;
    }
    let mut from = options.from.unwrap_or(to - SPAN_MS);
    if from < now - REACH_MS {
        from = now - REACH_MS;
        say(&format!("--from is cut to {}: Genesys keeps ten days", format_millis(from)));
    }
    let nothing = || format!("there is nothing to compare between {} and {}", format_millis(from), format_millis(to));
    let (held, to) = Held::of(&config.output).cut(from, to).ok_or_else(nothing)?;
    if held > from {
        say(&format!("--from is cut to {}: the files hold nothing older", format_millis(held)));
    }
    Ok((held, to))
}

fn json(report: &Report) -> String {
    serde_json::to_string(report).unwrap_or_default()
}

fn prose(report: &Report) -> String {
    let mut text = format!("from {} to {}\n", report.from, report.to);
    for counted in &report.definitions {
        text.push_str(&format!("  {:<20} Genesys {:>9}   file {:>9}\n", counted.id, counted.genesys, counted.file));
    }
    let found = [("missing", &report.missing, report.missing_count), ("extra", &report.extra, report.extra_count)];
    for (what, entries, count) in found {
        for e in entries {
            text.push_str(&format!(
                "  {what}: {} {} conversation {} entity {}\n",
                e.timestamp, e.event_id, e.conversation_id, e.entity_id
            ));
        }
        if count > entries.len() as u64 {
            text.push_str(&format!("  {what}: {} more\n", count - entries.len() as u64));
        }
    }
    text.push_str(&match (report.missing_count, report.extra_count) {
        (0, 0) => "nothing is missing: every event that Genesys has stands in the files".to_owned(),
        (0, extra) => format!("nothing is missing; {extra} events stand in the files and not in Genesys's history"),
        (missing, _) => format!("{missing} events are missing in the files; stop the collector and run audit --repair, or let it repair by itself"),
    });
    text
}

/// A notice: standard output is for the report alone.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "audiohook-collector: {text}");
}
