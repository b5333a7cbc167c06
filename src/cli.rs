//! The command line: what is to be done, and the help.
//!
//! Must never: do anything but parse; a wrong command line is an error of one line, and nothing was started.

mod help;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

pub use help::{HINT, VERSION, text as help};

use crate::clock::{Millis, parse_rfc3339};
use crate::commands::events;
use crate::config::{address, values};
use crate::simulator::PER_MINUTE_MAX;

/// A command line that is understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Print the help: of one command, or of all.
    Help(Option<Name>),
    Version,
    Run(Invocation),
}

/// A command, and where its settings are.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    /// `--env-file`: must be there; otherwise `./.env`, if there is one.
    pub env_file: Option<PathBuf>,
    pub command: Command,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Collect,
    Demo(Demo),
    Simulate(Simulate),
    Check { json: bool },
    Audit(Audit),
    Events(events::Options),
    Health,
    Replay,
    Template,
}

/// `demo`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demo {
    /// Where its files go; none: a temporary folder.
    pub dir: Option<PathBuf>,
    /// How long it runs; none: until stopped.
    pub run_for: Option<Duration>,
}

/// `simulate`.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulate {
    /// `HOST:PORT`; port 0 lets the system choose.
    pub listen: String,
    /// The same seed issues the same events.
    pub seed: Option<u64>,
    /// Events a minute, on average, more than 0.
    pub rate: Option<f64>,
}

/// `audit`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Audit {
    pub from: Option<Millis>,
    pub to: Option<Millis>,
    pub json: bool,
    pub repair: bool,
}

/// The commands by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Demo,
    Simulate,
    Check,
    Audit,
    Events,
    Health,
    Replay,
    Template,
}

impl Name {
    pub const ALL: [Self; 8] = [
        Self::Demo,
        Self::Simulate,
        Self::Check,
        Self::Audit,
        Self::Events,
        Self::Health,
        Self::Replay,
        Self::Template,
    ];

    pub fn text(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Simulate => "simulate",
            Self::Check => "check",
            Self::Audit => "audit",
            Self::Events => "events",
            Self::Health => "health",
            Self::Replay => "replay",
            Self::Template => "template",
        }
    }
}

/// Where `simulate` listens unless told otherwise.
pub const SIMULATE_LISTEN: &str = "127.0.0.1:8078";

/// Everything that was given, before it is known to which command.
#[derive(Default)]
struct Given {
    name: Option<Name>,
    help: bool,
    version: bool,
    env_file: Option<PathBuf>,
    demo: Demo,
    listen: Option<String>,
    seed: Option<u64>,
    rate: Option<f64>,
    audit: Audit,
    events: events::Options,
    /// Each option that belongs to some commands alone, as it was given.
    options: Vec<&'static str>,
}

/// Parses the arguments behind the program's name.
///
/// # Errors
/// One line that says what is wrong and what is right.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let mut parser = Parser::from_args(args);
    let mut given = Given::default();
    while let Some(arg) = parser.next().map_err(one_line)? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => given.help = true,
            Arg::Short('V') | Arg::Long("version") => given.version = true,
            Arg::Value(word) => command_word(&mut given, &word)?,
            Arg::Long(option) => {
                let option = option.to_owned();
                long_option(&mut given, &option, &mut parser)?;
            }
            Arg::Short(option) => return Err(format!("unknown option '-{}'", option.escape_default())),
        }
    }
    request(given)
}

fn command_word(given: &mut Given, word: &std::ffi::OsStr) -> Result<(), String> {
    let known = Name::ALL.into_iter().find(|name| word == name.text());
    match (known, given.name) {
        (Some(name), None) => {
            given.name = Some(name);
            Ok(())
        }
        (_, Some(name)) => Err(format!("unexpected argument '{}' behind '{}'", printable(word), name.text())),
        (None, None) => {
            let names: Vec<&str> = Name::ALL.iter().map(|name| name.text()).collect();
            Err(format!("unknown command '{}': the commands are {}", printable(word), names.join(", ")))
        }
    }
}

fn long_option(given: &mut Given, option: &str, parser: &mut Parser) -> Result<(), String> {
    if option == "env-file" {
        let path = parser.value().map_err(one_line)?;
        if path.is_empty() {
            return Err("--env-file needs a path".to_owned());
        }
        given.env_file = Some(PathBuf::from(path));
        return Ok(());
    }
    let Some((option, _)) = OPTIONS.iter().find(|(name, _)| *name == option) else {
        return Err(format!("unknown option '--{}'", option.escape_debug()));
    };
    given.options.push(option);
    let mut text = || -> Result<String, String> {
        let value = parser.value().map_err(one_line)?;
        value.string().map_err(|_| format!("--{option} needs UTF-8 text"))
    };
    match *option {
        "dir" => {
            let path = text()?;
            if path.is_empty() {
                return Err("--dir needs a path".to_owned());
            }
            given.demo.dir = Some(PathBuf::from(path));
        }
        "for" => given.demo.run_for = Some(values::seconds(&text()?).map_err(|message| format!("--for {message}"))?),
        "listen" => given.listen = Some(listen(&text()?)?),
        "seed" => given.seed = Some(text()?.parse().map_err(|_| "--seed must be a whole number from 0 up")?),
        "rate" => given.rate = Some(rate(&text()?)?),
        "from" => given.audit.from = Some(instant("from", &text()?)?),
        "to" => given.audit.to = Some(instant("to", &text()?)?),
        "json" => given.audit.json = true,
        "repair" => given.audit.repair = true,
        "since" => given.events.since = Some(when("since", &text()?)?),
        "until" => given.events.until = Some(when("until", &text()?)?),
        "event-id" => given.events.event_id = Some(text()?),
        "entity-id" => given.events.entity_id = Some(text()?),
        "conversation-id" => given.events.conversation_id = Some(text()?),
        "limit" => given.events.limit = Some(text()?.parse().map_err(|_| "--limit must be a whole number")?),
        "follow" => given.events.follow = true,
        "format" => {
            given.events.format = Some(match text()?.as_str() {
                "json" => events::Format::Json,
                "table" => events::Format::Table,
                _ => return Err("--format must be json or table".to_owned()),
            });
        }
        _ => return Err(format!("unknown option '--{option}'")),
    }
    Ok(())
}

/// The options that some commands alone have.
const OPTIONS: [(&str, &[Name]); 17] = [
    ("dir", &[Name::Demo]),
    ("for", &[Name::Demo]),
    ("listen", &[Name::Simulate]),
    ("seed", &[Name::Simulate]),
    ("rate", &[Name::Simulate]),
    ("from", &[Name::Audit]),
    ("to", &[Name::Audit]),
    ("json", &[Name::Check, Name::Audit]),
    ("repair", &[Name::Audit]),
    ("since", &[Name::Events]),
    ("until", &[Name::Events]),
    ("event-id", &[Name::Events]),
    ("entity-id", &[Name::Events]),
    ("conversation-id", &[Name::Events]),
    ("limit", &[Name::Events]),
    ("follow", &[Name::Events]),
    ("format", &[Name::Events]),
];

fn request(given: Given) -> Result<Request, String> {
    if given.help {
        return Ok(Request::Help(given.name));
    }
    if given.version {
        return Ok(Request::Version);
    }
    for option in given.options {
        let commands = OPTIONS.iter().find(|(name, _)| *name == option).map_or(&[][..], |(_, commands)| commands);
        if !given.name.is_some_and(|name| commands.contains(&name)) {
            let names: Vec<String> = commands.iter().map(|name| format!("'{}'", name.text())).collect();
            return Err(format!("--{option} belongs to {}", names.join(" and ")));
        }
    }
    let command = match given.name {
        None => Command::Collect,
        Some(Name::Demo) => Command::Demo(given.demo),
        Some(Name::Simulate) => Command::Simulate(Simulate {
            listen: given.listen.unwrap_or_else(|| SIMULATE_LISTEN.to_owned()),
            seed: given.seed,
            rate: given.rate,
        }),
        Some(Name::Check) => Command::Check { json: given.audit.json },
        Some(Name::Audit) => {
            if let (Some(from), Some(to)) = (given.audit.from, given.audit.to)
                && from >= to
            {
                return Err("--from must be before --to".to_owned());
            }
            Command::Audit(given.audit)
        }
        Some(Name::Events) => Command::Events(given.events),
        Some(Name::Health) => Command::Health,
        Some(Name::Replay) => Command::Replay,
        Some(Name::Template) => Command::Template,
    };
    Ok(Request::Run(Invocation { env_file: given.env_file, command }))
}

fn listen(text: &str) -> Result<String, String> {
    let wrong = || "--listen must be HOST:PORT, such as 127.0.0.1:8078 or [::1]:8078".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    // Port 0, which `host_and_port` refuses, is of use here: the system chooses one.
    port.bytes().all(|b| b.is_ascii_digit()).then_some(()).ok_or_else(wrong)?;
    port.parse::<u16>().map_err(|_| wrong())?;
    address::host_and_port(host).map_err(|_| wrong())?;
    Ok(text.to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| *rate > 0.0 && *rate <= PER_MINUTE_MAX);
    rate.ok_or_else(|| format!("--rate must be a number of events a minute, more than 0 and at most {PER_MINUTE_MAX}"))
}

fn instant(option: &str, text: &str) -> Result<Millis, String> {
    parse_rfc3339(text).filter(|ms| *ms >= 0).ok_or_else(|| {
        format!("--{option} must be an instant with its offset (RFC 3339), such as 2026-11-23T10:00:00Z")
    })
}

fn when(option: &str, text: &str) -> Result<events::When, String> {
    events::When::parse(text).ok_or_else(|| {
        format!(
            "--{option} must be an instant such as 2026-11-23T10:00:00Z, or a span back from now such as 30m, 2h or 3d"
        )
    })
}

fn one_line(error: lexopt::Error) -> String {
    error.to_string().escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\"")
}

fn printable(text: &std::ffi::OsStr) -> String {
    text.to_string_lossy().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Request, String> {
        parse(line.split_ascii_whitespace().map(OsString::from))
    }

    fn command(line: &str) -> Command {
        match parsed(line) {
            Ok(Request::Run(invocation)) => invocation.command,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn each_command_is_understood() {
        assert_eq!(command(""), Command::Collect);
        assert_eq!(command("health"), Command::Health);
        assert_eq!(command("replay"), Command::Replay);
        assert_eq!(command("template"), Command::Template);
        assert_eq!(command("check --json"), Command::Check { json: true });
        assert_eq!(
            command("demo --dir /tmp/x --for 2.5"),
            Command::Demo(Demo { dir: Some("/tmp/x".into()), run_for: Some(Duration::from_millis(2500)) })
        );
        assert_eq!(
            command("simulate --listen=[::1]:0 --seed 7 --rate 0.5"),
            Command::Simulate(Simulate { listen: "[::1]:0".into(), seed: Some(7), rate: Some(0.5) })
        );
        assert_eq!(
            command("audit --from 2026-11-23T10:00:00Z --to 2026-11-23T12:00:00+01:00 --repair"),
            Command::Audit(Audit {
                from: parse_rfc3339("2026-11-23T10:00:00Z"),
                to: parse_rfc3339("2026-11-23T11:00:00Z"),
                json: false,
                repair: true
            })
        );
    }

    #[test]
    fn the_filters_of_events_are_understood() {
        let Command::Events(options) =
            command("events --since 2h --event-id A --limit 5 --follow --format table --until 2026-11-23T10:00:00Z")
        else {
            panic!()
        };
        assert_eq!(options.since, Some(events::When::Ago(7_200_000)));
        assert_eq!((options.event_id.as_deref(), options.limit), (Some("A"), Some(5)));
        assert!(options.follow && options.format == Some(events::Format::Table));
        for line in [
            "events --since yesterday",
            "events --limit -1",
            "events --format xml",
            "check --follow",
            "events --follow=yes",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_settings_file_is_named_before_or_behind_the_command() {
        for line in ["--env-file x check", "check --env-file x", "check --env-file=x"] {
            assert!(matches!(parsed(line), Ok(Request::Run(i)) if i.env_file == Some("x".into())), "{line}");
        }
    }

    #[test]
    fn help_and_version_are_everywhere() {
        assert_eq!(parsed("--help"), Ok(Request::Help(None)));
        assert_eq!(parsed("-V"), Ok(Request::Version));
        for name in Name::ALL {
            assert_eq!(parsed(&format!("{} --help", name.text())), Ok(Request::Help(Some(name))));
            assert_eq!(parsed(&format!("{} --version", name.text())), Ok(Request::Version));
        }
    }

    #[test]
    fn a_wrong_command_line_is_one_line() {
        for line in [
            "chek",
            "check now",
            "--nope",
            "-x",
            "--json",
            "demo --json",
            "demo --for",
            "demo --for 0",
            "demo --for soon",
            "health --from 2026-11-23T10:00:00Z",
            "simulate --listen 8078",
            "simulate --listen localhost:99999",
            "simulate --listen :80",
            "simulate --seed -1",
            "simulate --rate 0",
            "simulate --rate NaN",
            "simulate --rate 60001",
            "audit --from yesterday",
            "audit --from 2026-11-23T10:00:00",
            "audit --from 2026-11-23T10:00:00Z --to 2026-11-23T10:00:00Z",
            "check --json=yes",
            "--env-file",
        ] {
            let message = parsed(line).expect_err(line);
            assert!(!message.is_empty() && message.lines().count() == 1, "{line}: {message}");
        }
    }
}
