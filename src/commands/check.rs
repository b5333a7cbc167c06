//! `check`: tries everything that a start needs.

use std::process::ExitCode;

use super::{load, log_beside_output};
use crate::check;
use crate::cli::{Command, Error, Given, Opt, Value};
use crate::config::Need;

pub const COMMAND: Command = Command {
    name: "check",
    summary: "try everything that a start needs, and say what is wrong and what to do",
    about: "\
Tries everything that a start needs, in order, and prints what was found and what to do about it. It is safe beside a
running collector. Exit status: 0 if every check passed, 2 for a wrong setting, else 1.",
    word: "",
    options: &[
        Opt { name: "json", value: Value::None, help: "print one JSON document instead of lines" },
        Opt { name: "verbose", value: Value::None, help: "also find out how this organization's API behaves" },
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
    let _flush = log_beside_output(&config.log, &[])?;
    Ok(check::run(&config, &how))
}
