//! `audit`: compares the files with Genesys Cloud's own counts.

use std::process::ExitCode;

use super::{load, log_to_stderr};
use crate::audit;
use crate::cli::{Audit, Command, Error, Given, Opt, Value};
use crate::config::Need;

pub const COMMAND: Command = Command {
    name: "audit",
    summary: "compare the collected files with Genesys Cloud's own counts",
    about: "\
Compares the collected files with Genesys Cloud's own counts, and prints the verdict and the missing or extra events.
Exit status: 0 if nothing is missing, or all of it was repaired; else 1.",
    word: "",
    options: &[
        Opt {
            name: "from",
            value: Value::Text("TIME"),
            help: "the beginning, such as 2026-11-23T10:00:00Z; default: 24 hours before the end",
        },
        Opt {
            name: "to",
            value: Value::Text("TIME"),
            help: "the end; default and maximum: the time up to which the history is final",
        },
        Opt {
            name: "repair",
            value: Value::None,
            help: "append missing events to the file; refused while a collector is running on it",
        },
        Opt { name: "all", value: Value::None, help: "list all missing and extra events, not only the first 20" },
        Opt { name: "json", value: Value::None, help: "print one JSON document instead of lines" },
    ],
    run,
};

fn run(given: &Given) -> Result<ExitCode, Error> {
    let options = Audit {
        from: given.instant("from")?,
        to: given.instant("to")?,
        json: given.has("json"),
        repair: given.has("repair"),
        all: given.has("all"),
    };
    if let (Some(from), Some(to)) = (options.from, options.to)
        && from >= to
    {
        return Err(Error::Usage("--from must be before --to".to_owned()));
    }
    let config = load(given, Need::Credentials)?;
    let _flush = log_to_stderr(&config.log, &config.notices)?;
    Ok(audit::run(&config, &options)?)
}
