//! The unnamed command: runs the collector.

use std::process::ExitCode;

use super::{listen_to_signals, load, log_to_stdout};
use crate::cli::{Command, Error, Given};
use crate::collector;
use crate::config::Need;

pub const COMMAND: Command = Command {
    name: "",
    summary: "",
    about: "\
Collects Genesys Cloud AudioHook operational events: every one, once, in a rotated file of JSON lines.

Without a command, this runs the collector. Settings come from the environment, then from the settings file;
.env.example lists them all. Try 'audiohook-collector demo' first: it needs no account.

Exit status: 0 if done or stopped by a signal; 2 for a wrong command line or setting (nothing was started); else 1.",
    word: "",
    options: &[],
    run,
};

fn run(given: &Given) -> Result<ExitCode, Error> {
    let config = load(given, Need::Credentials)?;
    let _flush = log_to_stdout(&config.log, &config.notices)?;
    Ok(collector::run(config, listen_to_signals()?))
}
