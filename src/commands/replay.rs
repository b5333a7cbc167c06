//! `replay`: sends the dead letters to the cluster again.

use std::process::ExitCode;

use super::{load, log_to_stderr};
use crate::cli::{Command, Error, Given};
use crate::clock::Clock;
use crate::config::Need;
use crate::elastic;

pub const COMMAND: Command = Command {
    name: "replay",
    summary: "send the dead letters to the cluster again",
    about: "\
Sends the dead letters (OUTPUT_FILE.dead) to the cluster again, and keeps those that are refused again. It can be run
while the collector is running. Exit status: 1 if some were refused, or the cluster could not be reached for a minute.",
    word: "",
    options: &[],
    run,
};

fn run(given: &Given) -> Result<ExitCode, Error> {
    let config = load(given, Need::Cluster)?;
    let _flush = log_to_stderr(&config.log, &config.notices)?;
    elastic::replay(&config, &Clock::system()).map_err(|error| Error::cannot("replay the dead letters", error))
}
