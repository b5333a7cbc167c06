//! Collects Genesys Cloud AudioHook operational events: writes each event exactly once to a rotated file of JSON lines.
//!
//! docs/architecture.md has an overview.

pub mod audit;
pub mod check;
pub mod cli;
pub mod clock;
pub mod collector;
pub mod commands;
pub mod config;
pub mod dedup;
pub mod elastic;
pub mod event;
pub mod genesys;
pub mod http;
pub mod json;
pub mod logging;
pub mod message;
pub mod nearest;
pub mod net;
pub mod output;
pub mod reader;
pub mod secret;
pub mod signals;
pub mod simulator;
pub mod status;
pub mod systemd;
pub mod thread;
pub mod writer;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use cli::{Command, Error};
use commands::help;

/// All commands. The first is the default.
pub static COMMANDS: [&Command; 11] = [
    &commands::collect::COMMAND,
    &commands::demo::COMMAND,
    &commands::simulate::COMMAND,
    &commands::check::COMMAND,
    &commands::audit::COMMAND,
    &commands::events::COMMAND,
    &commands::health::COMMAND,
    &commands::replay::COMMAND,
    &commands::template::COMMAND,
    &help::HELP,
    &help::VERSION,
];

/// Exit status for an invalid command line or setting; nothing was started.
const WRONG_USE: u8 = 2;

/// The program: parses the command line and runs the command.
pub fn run() -> ExitCode {
    let given = cli::parse(&COMMANDS, std::env::args_os().skip(1)).map_err(Error::Usage);
    let result = given.and_then(|given| match &given {
        given if given.help => help::of(given.command),
        given if given.version => help::version(),
        given => (given.command.run)(given),
    });
    match result {
        Ok(status) => status,
        Err(Error::Usage(message)) => {
            report(format_args!("{message} (see audiohook-collector --help)"));
            ExitCode::from(WRONG_USE)
        }
        Err(Error::Settings(errors)) => {
            report(errors);
            ExitCode::from(WRONG_USE)
        }
        Err(Error::Failed(problem)) => {
            report(problem);
            ExitCode::FAILURE
        }
    }
}

/// Prints each line of an error on standard error.
fn report(what: impl Display) {
    let mark = logging::error_mark();
    let mut out = io::stderr().lock();
    for line in what.to_string().lines() {
        let _ = writeln!(out, "{mark}audiohook-collector: {line}");
    }
}
