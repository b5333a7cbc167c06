//! `check`: tries everything that the collector needs.

use std::process::ExitCode;

use super::{load, log_to_stderr};
use crate::check;
use crate::cli::{Command, Error, Given, Opt, Value};
use crate::config::Need;

pub const COMMAND: Command = Command {
    name: "check",
    summary: "try everything that the collector needs, and report problems and fixes",
    about: "\
Tries everything that the collector needs, in order, and prints the results and how to fix problems. It can be run
while the collector is running. Exit status: 0 if all checks passed, 2 for a wrong setting, else 1.",
    word: "",
    options: &[
        Opt { name: "json", value: Value::None, help: "print one JSON document instead of lines" },
        Opt {
            name: "verbose",
            value: Value::None,
            help: "also examine undocumented behaviour of this organization's API",
        },
    ],
    run,
};

fn run(given: &Given) -> Result<ExitCode, Error> {
    let how = check::How { json: given.has("json"), verbose: given.has("verbose") };
    let config = load(given, Need::Credentials).inspect_err(|error| {
        if let Error::Settings(errors) = error {
            check::report_settings(errors, &how);
        }
    })?;
    let _flush = log_to_stderr(&config.log, &[])?;
    Ok(check::run(&config, &how))
}
