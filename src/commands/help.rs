//! `help` and `version`: the same as `--help` and `--version`.

use std::process::ExitCode;

use super::print;
use crate::COMMANDS;
use crate::cli::{self, Command, Error, Given};
use crate::nearest::nearest;

pub const HELP: Command = Command {
    name: "help",
    summary: "print this help, or the help of a command",
    about: "Prints the help of a command, or the list of commands.",
    word: "[COMMAND]",
    options: &[],
    run: help,
};

pub const VERSION: Command = Command {
    name: "version",
    summary: "print the version",
    about: "Prints the version.",
    word: "",
    options: &[],
    run: |_| version(),
};

fn help(given: &Given) -> Result<ExitCode, Error> {
    let name = given.word.as_deref().unwrap_or_default();
    let command = COMMANDS.iter().find(|command| command.name == name).ok_or_else(|| {
        let meant = nearest(name, COMMANDS.iter().map(|command| command.name));
        let hint = meant.map_or_else(String::new, |meant| format!("; did you mean '{meant}'?"));
        Error::Usage(format!("unknown command '{}'{hint}", name.escape_debug()))
    })?;
    of(command)
}

/// Prints the help of one command.
pub fn of(command: &Command) -> Result<ExitCode, Error> {
    print(cli::help(&COMMANDS, command).trim_end())
}

pub fn version() -> Result<ExitCode, Error> {
    print(cli::VERSION)
}
