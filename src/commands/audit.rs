//! `audit`: compares the files with Genesys Cloud's own counts.

use std::process::ExitCode;

use super::{load, log_beside_output};
use crate::audit;
use crate::cli::{Audit, Command, Error, Given, Opt, Value};
use crate::config::Need;

pub const COMMAND: Command = Command {
    name: "audit",
    summary: "compare the collected files with Genesys Cloud's own counts",
    about: "\
Compares the collected files with Genesys Cloud's own counts: first the verdict, then what is missing or extra.
Exit status: 0 if nothing is missing (any more), else 1.",
    word: "",
    options: &[
        Opt {
            name: "from",
            value: Value::Text("TIME"),
            help: "the beginning, such as 2026-11-23T10:00:00Z; default 24 hours before the end",
        },
        Opt {
            name: "to",
            value: Value::Text("TIME"),
            help: "the end; default and latest: the time up to which the history is settled",
        },
        Opt {
            name: "repair",
            value: Value::None,
            help: "append what is missing; refused while a collector runs on the file",
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
    let _flush = log_beside_output(&config.log, &config.notices)?;
    Ok(audit::run(&config, &options)?)
}
