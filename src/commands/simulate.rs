//! `simulate`: runs only the simulated Genesys Cloud.

use std::process::ExitCode;

use super::{listen_to_signals, load, log_to_stdout};
use crate::cli::{Command, Error, Given, Opt, Value};
use crate::config::{Need, address};
use crate::simulator::{self, PER_MINUTE_MAX};

/// The default of `--listen`.
const LISTEN: &str = "127.0.0.1:8078";

pub const COMMAND: Command = Command {
    name: "simulate",
    summary: "run only the simulated Genesys Cloud, to test a collector",
    about: "\
Runs the simulated Genesys Cloud, to test a collector, alerts or dashboards. It starts with an hour of history
and prints the settings for a collector.",
    word: "",
    options: &[
        Opt {
            name: "listen",
            value: Value::Text("HOST:PORT"),
            help: "the address to listen on; default 127.0.0.1:8078; port 0: any free port",
        },
        Opt { name: "seed", value: Value::Text("N"), help: "issue the same events in each run with this seed" },
        Opt {
            name: "rate",
            value: Value::Text("N"),
            help: "average number of events per minute; default 30, maximum 60000",
        },
    ],
    run,
};

fn run(given: &Given) -> Result<ExitCode, Error> {
    let listen = given.parsed("listen", listen)?.unwrap_or_else(|| LISTEN.to_owned());
    let seed = given.parsed("seed", |text| text.parse().map_err(|_| "must be a whole number".to_owned()))?;
    let rate = given.parsed("rate", rate)?;
    let config = load(given, Need::Nothing)?;
    let _flush = log_to_stdout(&config.log, &config.notices)?;
    Ok(simulator::command(&listen, seed, rate, &listen_to_signals()?))
}

fn listen(text: &str) -> Result<String, String> {
    let is_right = text.rsplit_once(':').is_some_and(|(host, port)| {
        // Port 0, which `host_and_port` refuses, is useful here: the system chooses one.
        let is_port = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
        is_port && address::host_and_port(host).is_ok()
    });
    if is_right {
        Ok(text.to_owned())
    } else {
        Err("must be HOST:PORT, such as 127.0.0.1:8078 or [::1]:8078".to_owned())
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| *rate > 0.0 && *rate <= PER_MINUTE_MAX);
    rate.ok_or_else(|| format!("must be a number of events per minute, more than 0 and at most {PER_MINUTE_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_rates_are_checked() {
        for text in ["127.0.0.1:0", "[::1]:8078", "localhost:1"] {
            assert_eq!(listen(text).as_deref(), Ok(text));
        }
        for text in ["8078", "localhost:99999", ":80", "nowhere", "a:+1"] {
            assert!(listen(text).is_err(), "{text}");
        }
        assert_eq!(rate("0.5"), Ok(0.5));
        for text in ["0", "NaN", "60001", "-1", "x"] {
            assert!(rate(text).is_err(), "{text}");
        }
        let help = COMMAND.options[0].help;
        assert!(help.contains(LISTEN), "{help}");
    }
}
