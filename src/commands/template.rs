//! `template`: prints the index template.

use std::process::ExitCode;

use super::{load, log_to_stderr, print};
use crate::cli::{Command, Error, Given, Opt, Value};
use crate::clock::Clock;
use crate::config::Need;
use crate::elastic;

pub const COMMAND: Command = Command {
    name: "template",
    summary: "print the index template",
    about: "Prints the index template that the collector creates if there is none.",
    word: "",
    options: &[
        Opt { name: "data-stream", value: Value::None, help: "print the template for a data stream" },
        Opt { name: "lifecycle", value: Value::None, help: "print the lifecycle policy of ELASTIC_RETENTION instead" },
    ],
    run,
};

fn run(given: &Given) -> Result<ExitCode, Error> {
    let config = load(given, Need::Template)?;
    let _flush = log_to_stderr(&config.log, &config.notices)?;
    let printed = elastic::setup::Printed { data_stream: given.has("data-stream"), lifecycle: given.has("lifecycle") };
    let text = elastic::setup::text_for(config.elastic.as_ref(), &config.network, &Clock::system(), printed);
    print(text.map_err(|error| Error::cannot("make the index template", error))?)
}
