//! Collects Genesys Cloud AudioHook operational events: every one, once, in a file that stays.
//!
//! See ARCHITECTURE in the README for the picture; each module opens with what it deals with and what it must never do.

pub mod audit;
pub mod check;
pub mod cli;
pub mod clock;
pub mod collector;
pub mod commands;
pub mod config;
pub mod demo;
pub mod elastic;
pub mod event;
pub mod genesys;
pub mod health_command;
pub mod http;
pub mod json;
pub mod logging;
pub mod message;
pub mod net;
pub mod output;
pub mod reader;
pub mod records;
pub mod secret;
pub mod signals;
pub mod simulator;
pub mod status;
pub mod systemd;
pub mod thread;
pub mod window;
pub mod writer;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use cli::{Command, Invocation, Request};
use clock::Clock;
use config::{Config, Faults, Need};

/// A wrong command line or setting: nothing was started.
const WRONG_USE: u8 = 2;

/// The program: parses the command line and runs what it names.
pub fn run() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(Request::Help(name)) => print(cli::help(name).trim_end()),
        Ok(Request::Version) => print(cli::VERSION),
        Ok(Request::Run(invocation)) => command(invocation),
        Err(message) => wrong_use(format_args!("{message}; {}", cli::HINT)),
    }
}

/// Loads what the command needs, starts the log, and runs it.
fn command(invocation: Invocation) -> ExitCode {
    let env_file = invocation.env_file.as_deref();
    let environment = |name: &str| -> Option<OsString> { std::env::var_os(name) };
    let load = |need| Config::load_for(need, &environment, env_file);
    match invocation.command {
        Command::Collect => daemon(load(Need::Credentials), collect),
        Command::Demo(options) => {
            let format_given = config::is_asked_for("LOG_FORMAT", &environment, env_file);
            // From the environment alone: a settings file for real use may let others in.
            let host =
                environment("HTTP_HOST").and_then(|host| host.into_string().ok()).filter(|host| !host.is_empty());
            daemon(load(Need::Nothing).map(|config| made_up(config, format_given)), |config| {
                demo(config, host, options)
            })
        }
        Command::Simulate(options) => daemon(load(Need::Nothing), |config| simulate(config, options)),
        Command::Check { json } => {
            let config = load(Need::Credentials);
            if let Err(faults) = &config {
                check::refuse(faults, json);
            }
            tool(config, |config| check(config, json))
        }
        Command::Audit(options) => tool(load(Need::Credentials), |config| audit(config, options)),
        Command::Events(options) => tool(load(Need::Nothing), |config| events(config, options)),
        Command::Replay => tool(load(Need::Cluster), replay),
        Command::Template => tool(load(Need::Template), template),
        Command::Health => match config::load_http(&environment, env_file) {
            Ok(http) => health_command::run(&http),
            Err(faults) => wrong_use(faults),
        },
    }
}

/// The settings of a demo, which may stand beside those of real use: its events are made up and must not reach a cluster,
/// and its log is read by a person unless asked for otherwise.
fn made_up(mut config: Config, format_given: bool) -> Config {
    config.elastic = None;
    if !format_given {
        config.log.format = config::LogFormat::Text;
    }
    config
}

/// Runs what stays: its log is on standard output.
fn daemon(config: Result<Config, Faults>, work: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    let config = match config {
        Ok(config) => config,
        Err(faults) => return wrong_use(faults),
    };
    let _flush = match logging::start(&config.log, Clock::system()) {
        Ok(flush) => flush,
        Err(error) => return failure(format_args!("cannot start the log: {error}")),
    };
    for notice in config.notices() {
        log::warn!("{notice}");
    }
    work(config)
}

/// Runs what answers a question: standard output is for its answer alone.
fn tool(config: Result<Config, Faults>, work: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    let config = match config {
        Ok(config) => config,
        Err(faults) => return wrong_use(faults),
    };
    let _flush = match logging::start_beside_output(&config.log, Clock::system()) {
        Ok(flush) => flush,
        Err(error) => return failure(format_args!("cannot start the log: {error}")),
    };
    for notice in config.notices() {
        log::warn!("{notice}");
    }
    work(config)
}

fn collect(config: Config) -> ExitCode {
    match signals::listen() {
        Ok(signals) => collector::run(config, signals),
        Err(error) => failure(format_args!("cannot listen to signals: {error}")),
    }
}

fn demo(config: Config, host: Option<String>, options: cli::Demo) -> ExitCode {
    match signals::listen() {
        Ok(signals) => demo::run(config.log, host, options, signals, |config, bound, signals| {
            collector::run_on(config, Some(bound), signals)
        }),
        Err(error) => failure(format_args!("cannot listen to signals: {error}")),
    }
}

fn simulate(_config: Config, options: cli::Simulate) -> ExitCode {
    match signals::listen() {
        Ok(signals) => simulator::command(&options.listen, options.seed, options.rate, &signals),
        Err(error) => failure(format_args!("cannot listen to signals: {error}")),
    }
}

fn check(config: Config, json: bool) -> ExitCode {
    check::run(&config, json)
}

fn audit(config: Config, options: cli::Audit) -> ExitCode {
    audit::run(&config, &options)
}

fn events(config: Config, options: commands::events::Options) -> ExitCode {
    match commands::events::run(&config, &options, &Clock::system()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(error),
    }
}

fn replay(config: Config) -> ExitCode {
    match elastic::replay(&config, &Clock::system()) {
        Ok(status) => status,
        Err(error) => failure(format_args!("cannot replay the dead letters: {error}")),
    }
}

fn template(config: Config) -> ExitCode {
    match elastic::setup::text_for(config.elastic.as_ref(), &config.network, &Clock::system()) {
        Ok(text) => print(text),
        Err(error) => failure(format_args!("cannot make the index template: {error}")),
    }
}

/// A closed pipe is no failure of ours: `audiohook-collector --help | head` is well. Whatever else keeps the text from
/// where it should go is one: `audiohook-collector template > FILE` on a full disk.
fn print(text: impl Display) -> ExitCode {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => failure(format_args!("cannot print: {error}")),
        _ => ExitCode::SUCCESS,
    }
}

fn wrong_use(what: impl Display) -> ExitCode {
    say(what);
    ExitCode::from(WRONG_USE)
}

fn failure(what: impl Display) -> ExitCode {
    say(what);
    ExitCode::FAILURE
}

/// One line, or one a fault, on standard error.
fn say(what: impl Display) {
    let mark = logging::error_mark();
    let mut out = io::stderr().lock();
    for line in what.to_string().lines() {
        let _ = writeln!(out, "{mark}audiohook-collector: {line}");
    }
}
