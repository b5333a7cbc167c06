//! The commands, one module each, and their common functions.

pub mod audit;
pub mod check;
pub mod collect;
pub mod demo;
pub mod events;
pub mod health;
pub mod help;
pub mod replay;
pub mod simulate;
pub mod template;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use crossbeam_channel::Receiver;

use crate::cli::{Error, Given};
use crate::clock::Clock;
use crate::config::{Config, Environment, LogSettings, Need};
use crate::logging::{self, Flush};
use crate::signals::{self, Signal};

/// The environment variables of this process.
pub(crate) fn environment() -> Environment {
    std::env::vars_os().collect()
}

pub(crate) fn load(given: &Given, need: Need) -> Result<Config, Error> {
    Ok(Config::load(need, &environment(), given.env_file.as_deref())?)
}

/// Starts the log on standard output, for a command that runs until it is stopped.
pub(crate) fn log_to_stdout(log: &LogSettings, notices: &[String]) -> Result<Flush, Error> {
    started(logging::start(log, Clock::system()), notices)
}

/// Starts the log on standard error, for a command that prints a result on standard output.
pub(crate) fn log_to_stderr(log: &LogSettings, notices: &[String]) -> Result<Flush, Error> {
    started(logging::start_beside_output(log, Clock::system()), notices)
}

fn started(log: io::Result<Flush>, notices: &[String]) -> Result<Flush, Error> {
    let flush = log.map_err(|error| Error::cannot("start the log", error))?;
    for notice in notices {
        log::warn!("{notice}");
    }
    Ok(flush)
}

pub(crate) fn listen_to_signals() -> Result<Receiver<Signal>, Error> {
    signals::listen().map_err(|error| Error::cannot("listen to signals", error))
}

/// Prints the result of a command. A closed pipe is not an error (`audiohook-collector help | head`), but a full disk
/// is.
pub(crate) fn print(text: impl Display) -> Result<ExitCode, Error> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::cannot("print", error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}
