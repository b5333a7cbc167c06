//! The command `audit`: runs one audit, prints its report as text or JSON, and repairs on request.

use super::{Audit, Report, TakeMissing};
use crate::cli;
use crate::clock::{Clock, Millis, format_millis};
use crate::config::Config;
use crate::genesys::api::Api;
use crate::genesys::history::REACH_MS;
use crate::genesys::topics;
use crate::net::Dialer;
use crate::output::records::Held;
use crate::output::{Lock, Refused};
use crate::status::Problem;
use crate::writer::{Writer, state};
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

/// The default interval: a day.
const SPAN_MS: i64 = 24 * 3_600_000;

/// Maximum number of missing and of extra events that are printed without --all.
const LISTED_MAX: usize = 20;

/// Runs the audit. The exit code is 0 if nothing is missing, or nothing after a repair; otherwise 1.
///
/// # Errors
/// When the files or the service cannot be read.
pub fn run(config: &Config, options: &cli::Audit) -> Result<ExitCode, Problem> {
    let is_complete = audit(config, options, &Clock::system())?;
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn audit(config: &Config, options: &cli::Audit, clock: &Clock) -> Result<bool, Problem> {
    // Take the lock first: otherwise an audit could run for an hour before its repair is refused.
    let lock = if options.repair {
        Some(Lock::take(&config.output.file).map_err(|refused| match refused {
            Refused::Held(Problem { what, .. }) => Problem::new(
                what,
                "Wait an hour: a running collector appends what is missing. Or stop it and try again.",
            ),
            Refused::Broken(problem) => problem,
        })?)
    } else {
        None
    };
    let dialer = Dialer::new(&config.network)?;
    let mut api = Api::new(&config.genesys, Arc::new(dialer), clock.clone());
    let definitions = api.definitions().map_err(|error| error.problem())?;
    let ids = topics::plan(config.genesys.topics.as_deref(), Some(&definitions)).ids;
    let (from, to) = interval(config, options, api.service().now())?;
    let audit = |api: &mut Api, take_missing: &mut TakeMissing<'_>| {
        Audit::new(config, api, clock, ids.clone(), &definitions).run(from, to, take_missing)
    };
    let mut writer = match lock {
        Some(lock) => Some(Writer::for_repair(config, lock, &definitions, clock)?),
        None => None,
    };
    let mut report = audit(&mut api, &mut |rows| {
        let rows = rows.iter().map(|row| (row.text.as_str(), row.received));
        writer.as_mut().map_or(Ok(()), |writer| writer.append_rows(rows))
    })?;
    if writer.is_some() && !report.complete {
        say(&format!("{} missing events were appended to {}", report.missing_count, config.output.file.display()));
        report = audit(&mut api, &mut |_| Ok(()))?;
    }
    let text = if options.json { json(&report) } else { prose(&report, options.all) };
    writeln!(io::stdout(), "{text}").map_err(|error| Problem::new(format!("cannot print the report: {error}"), ""))?;
    Ok(report.complete)
}

/// The requested interval, limited to what is settled, what Genesys keeps, and what the files still hold.
fn interval(config: &Config, options: &cli::Audit, now: Millis) -> Result<(Millis, Millis), Problem> {
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
    let nothing = || {
        let (from, to) = (format_millis(from), format_millis(to));
        let cure = "Choose an earlier --from, or wait until events have been collected for CATCH_UP_OVERLAP.";
        Problem::new(format!("there is nothing to compare between {from} and {to}"), cure)
    };
    let taken_away = state::read_beside(&config.output.state_file).and_then(|state| state.taken_away_ms);
    let (held, to) = Held::of(&config.output, taken_away).cut(from, to).ok_or_else(nothing)?;
    if held > from {
        say(&format!("--from is cut to {}: the files hold nothing older", format_millis(held)));
    }
    Ok((held, to))
}

fn json(report: &Report) -> String {
    serde_json::to_string(report).unwrap_or_default()
}

/// The report as text: the verdict, the counts, then the events.
fn prose(report: &Report, all: bool) -> String {
    let verdict = match (report.missing_count, report.extra_count) {
        (0, 0) => "complete: the files have every event that Genesys Cloud has".to_owned(),
        (0, extra) => {
            format!("complete: nothing is missing; {extra} events are in the files but not in Genesys Cloud's history")
        }
        (missing, _) => format!(
            "INCOMPLETE: {missing} events are missing in the files; a running collector appends them within the hour, or stop it and run audit --repair"
        ),
    };
    let mut text = format!("{verdict}\nfrom {} to {}\n", report.from, report.to);
    for counted in &report.definitions {
        text.push_str(&format!("  {:<20} Genesys {:>9}   files {:>9}\n", counted.id, counted.genesys, counted.file));
    }
    let listed = if all { usize::MAX } else { LISTED_MAX };
    let found = [("missing", &report.missing, report.missing_count), ("extra", &report.extra, report.extra_count)];
    for (what, entries, count) in found {
        for e in entries.iter().take(listed) {
            text.push_str(&format!(
                "  {what}: {} {} conversation {} entity {}\n",
                e.timestamp, e.event_id, e.conversation_id, e.entity_id
            ));
        }
        let shown = entries.len().min(listed) as u64;
        if count > shown {
            let cure = if all { "" } else { " (--all lists them)" };
            text.push_str(&format!("  {what}: {} more{cure}\n", count - shown));
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// Prints a notice to standard error; standard output is only for the report.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "audiohook-collector: {text}");
}
