//! The command line: the types for commands and options, the parser, and the help text. The commands are modules of
//! `commands/`, and `lib.rs` has the table of them.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::{Arg, Parser};

use crate::clock::{Millis, parse_rfc3339};
use crate::config::Errors;
use crate::nearest::nearest;
use crate::status::Problem;

/// `--version`.
pub const VERSION: &str = concat!("audiohook-collector ", env!("CARGO_PKG_VERSION"));

/// A command. The help, the completions and the manual are generated from it.
#[derive(Debug)]
pub struct Command {
    /// Empty for the command that runs if none is given.
    pub name: &'static str,
    /// One line for the list of commands.
    pub summary: &'static str,
    /// The description, in sentences.
    pub about: &'static str,
    /// The placeholder of its argument, such as `[COMMAND]`; empty if it takes none.
    pub word: &'static str,
    pub options: &'static [Opt],
    pub run: fn(&Given) -> Result<ExitCode, Error>,
}

#[derive(Debug)]
pub struct Opt {
    /// The name without dashes.
    pub name: &'static str,
    pub value: Value,
    pub help: &'static str,
}

/// The kind of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    None,
    /// Any text, with its placeholder in the help.
    Text(&'static str),
    File,
    Folder,
    /// One of these words.
    Word(&'static [&'static str]),
}

impl Value {
    /// The placeholder in the help.
    pub fn placeholder(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Text(name) => name.to_owned(),
            Self::File | Self::Folder => "PATH".to_owned(),
            Self::Word(words) => words.join("|"),
        }
    }
}

/// The options of every command.
pub const EVERYWHERE: [Opt; 3] = [
    Opt {
        name: "env-file",
        value: Value::File,
        help: "read settings from this file instead of ./.env; the environment takes precedence",
    },
    Opt { name: "help", value: Value::None, help: "print this help (also -h)" },
    Opt { name: "version", value: Value::None, help: "print the version (also -V)" },
];

/// The options of `audit`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Audit {
    pub from: Option<Millis>,
    pub to: Option<Millis>,
    pub json: bool,
    pub repair: bool,
    /// List all missing and extra events, not only the first ones.
    pub all: bool,
}

#[derive(Debug)]
pub enum Error {
    /// A wrong command line: nothing was started.
    Usage(String),
    /// Wrong settings: nothing was started.
    Settings(Errors),
    /// Anything else.
    Failed(Problem),
}

impl From<Errors> for Error {
    fn from(errors: Errors) -> Self {
        Self::Settings(errors)
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

impl Error {
    /// A failure without a known fix.
    pub fn cannot(verb: &str, error: impl fmt::Display) -> Self {
        Self::Failed(Problem::new(format!("cannot {verb}: {error}"), ""))
    }
}

/// A parsed command line.
#[derive(Debug)]
pub struct Given {
    pub command: &'static Command,
    /// `--env-file`. The file must exist. Without this option, `./.env` is read if it exists.
    pub env_file: Option<PathBuf>,
    pub help: bool,
    pub version: bool,
    /// The command's argument.
    pub word: Option<String>,
    options: Vec<(&'static str, OsString)>,
}

impl Given {
    /// The last value of an option; empty for an option without a value.
    fn value(&self, name: &str) -> Option<&OsStr> {
        self.options.iter().rev().find(|(given, _)| *given == name).map(|(_, value)| value.as_os_str())
    }

    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    /// The parsed value of an option.
    ///
    /// # Errors
    /// When the value is not valid. The message begins with the option's name.
    pub fn parsed<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, Error> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let text = value.to_str().ok_or_else(|| Error::Usage(format!("--{name} must be UTF-8 text")))?;
        parse(text).map(Some).map_err(|message| Error::Usage(format!("--{name} {message}")))
    }

    /// The value of an option that is a time (RFC 3339).
    ///
    /// # Errors
    /// When the value is not valid.
    pub fn instant(&self, name: &str) -> Result<Option<Millis>, Error> {
        self.parsed(name, |text| {
            let instant = parse_rfc3339(text).filter(|ms| *ms >= 0);
            instant.ok_or_else(|| "must be a time with an offset (RFC 3339), such as 2026-11-23T10:00:00Z".to_owned())
        })
    }
}

/// Parses the arguments after the program's name. The first of `commands` is the one without a name.
///
/// # Errors
/// A message of one line.
pub fn parse(commands: &'static [&'static Command], args: impl IntoIterator<Item = OsString>) -> Result<Given, String> {
    let mut parser = Parser::from_args(args);
    let mut given =
        Given { command: commands[0], env_file: None, help: false, version: false, word: None, options: Vec::new() };
    while let Some(arg) = parser.next().map_err(one_line)? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => given.help = true,
            Arg::Short('V') | Arg::Long("version") => given.version = true,
            Arg::Short(option) => return Err(format!("unknown option '-{}'", option.escape_default())),
            Arg::Value(word) => take_word(commands, &mut given, &word)?,
            Arg::Long("env-file") => given.env_file = Some(PathBuf::from(value(&mut parser, "env-file")?)),
            Arg::Long(name) => {
                // The command may not be known yet, but options of the same name are the same in all commands.
                let all = || commands.iter().flat_map(|command| command.options);
                let Some(option) = all().find(|option| option.name == name) else {
                    let names = all().chain(&EVERYWHERE).map(|option| option.name);
                    let hint = did_you_mean("--", nearest(name, names));
                    return Err(format!("unknown option '--{}'{hint}", name.escape_debug()));
                };
                let text = if option.value == Value::None { OsString::new() } else { value(&mut parser, option.name)? };
                given.options.push((option.name, text));
            }
        }
    }
    let known = |name: &str| given.command.options.iter().any(|option| option.name == name);
    match given.options.iter().find(|(name, _)| !known(name)) {
        Some((name, _)) if !given.help && !given.version => {
            let have = |command: &&&Command| command.options.iter().any(|option| option.name == *name);
            let names: Vec<String> =
                commands.iter().filter(have).map(|command| format!("'{}'", command.name)).collect();
            Err(format!("--{name} belongs to {}", names.join(" and ")))
        }
        _ => Ok(given),
    }
}

fn value(parser: &mut Parser, name: &str) -> Result<OsString, String> {
    let value = parser.value().map_err(one_line)?;
    if value.is_empty() { Err(format!("--{name} needs a value")) } else { Ok(value) }
}

fn take_word(commands: &'static [&'static Command], given: &mut Given, word: &OsStr) -> Result<(), String> {
    let text = word.to_string_lossy();
    let shown = text.escape_debug();
    if given.command.name.is_empty() {
        let names = || commands.iter().map(|command| command.name).filter(|name| !name.is_empty());
        given.command = commands.iter().find(|command| !text.is_empty() && command.name == text).ok_or_else(|| {
            let list = || format!("; the commands are {}", names().collect::<Vec<_>>().join(", "));
            let hint = nearest(&text, names()).map_or_else(list, |name| did_you_mean("", Some(name)));
            format!("unknown command '{shown}'{hint}")
        })?;
        return Ok(());
    }
    if given.command.word.is_empty() || given.word.is_some() {
        return Err(format!("unexpected argument '{shown}' after '{}'", given.command.name));
    }
    given.word = Some(text.into_owned());
    Ok(())
}

fn did_you_mean(dashes: &str, name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!("; did you mean '{dashes}{name}'?"))
}

fn one_line(error: lexopt::Error) -> String {
    error.to_string().escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\"")
}

/// The help of a command. The help of the unnamed command lists all commands.
pub fn help(commands: &[&Command], command: &Command) -> String {
    let mut usage = String::from("Usage: audiohook-collector");
    let mut list = String::new();
    if command.name.is_empty() {
        usage.push_str(" [COMMAND]");
        list.push_str("\nCommands:\n");
        for other in commands.iter().filter(|other| !other.name.is_empty()) {
            list.push_str(&format!("  {:<10} {}\n", other.name, other.summary));
        }
    } else {
        let word = if command.word.is_empty() { String::new() } else { format!(" {}", command.word) };
        usage.push_str(&format!(" {}{word}", command.name));
    }
    let options = command.options.iter().chain(&EVERYWHERE).map(|option| {
        let left = format!("--{} {}", option.name, option.value.placeholder());
        format!("  {:<22} {}\n", left.trim_end(), option.help)
    });
    let options: String = options.collect();
    format!("{}\n\n{usage} [OPTIONS]\n{list}\nOptions:\n{options}", command.about)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::COMMANDS;

    fn parsed(line: &str) -> Result<Given, String> {
        parse(&COMMANDS, line.split_ascii_whitespace().map(OsString::from))
    }

    #[test]
    fn the_command_its_options_and_the_settings_file_are_found_in_any_order() {
        for line in ["--env-file x check --json", "check --json --env-file=x", "--json check --env-file x"] {
            let given = parsed(line).expect(line);
            assert_eq!((given.command.name, given.has("json")), ("check", true), "{line}");
            assert_eq!(given.env_file, Some("x".into()));
        }
        assert_eq!(parsed("").unwrap().command.name, "");
        let given = parsed("demo --dir /tmp/x --for 1 --for 2.5").unwrap();
        assert_eq!(given.path("dir"), Some("/tmp/x".into()));
        assert_eq!(given.value("for"), Some(OsStr::new("2.5")), "the last one counts");
        assert_eq!(parsed("help audit").unwrap().word.as_deref(), Some("audit"));
    }

    #[test]
    fn every_command_is_described_and_has_help_and_version() {
        let overview = help(&COMMANDS, COMMANDS[0]);
        for command in COMMANDS {
            let text = help(&COMMANDS, command);
            assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
            assert!(command.name.is_empty() || overview.contains(&format!("\n  {} ", command.name)));
            assert!(text.contains("Usage: audiohook-collector"));
            for option in command.options.iter().chain(&EVERYWHERE) {
                assert!(text.contains(&format!("  --{} ", option.name)), "{}: {}", command.name, option.name);
            }
            for option in ["--help", "-h", "--version", "-V"] {
                let given = parsed(&format!("{} {option}", command.name)).unwrap();
                assert!(given.help || given.version);
            }
        }
    }

    #[test]
    fn options_of_one_name_are_alike_in_every_command() {
        let all: Vec<&Opt> = COMMANDS.iter().flat_map(|command| command.options).collect();
        for one in &all {
            for other in all.iter().filter(|other| other.name == one.name) {
                assert_eq!(one.value == Value::None, other.value == Value::None, "{}", one.name);
            }
        }
    }

    #[test]
    fn a_misspelt_command_or_option_suggests_the_nearest() {
        for (line, expected) in [
            ("chek", "unknown command 'chek'; did you mean 'check'?"),
            ("check --jsno", "unknown option '--jsno'; did you mean '--json'?"),
            ("--vresion", "unknown option '--vresion'; did you mean '--version'?"),
            ("demo --json", "--json belongs to"),
            ("check now", "unexpected argument 'now' after 'check'"),
            ("nothing-like-it", "unknown command 'nothing-like-it'; the commands are "),
            ("--nothing-like-it", "unknown option '--nothing-like-it'"),
            ("-x", "unknown option '-x'"),
            ("--env-file", "missing argument for option '--env-file'"),
            ("--env-file=", "--env-file needs a value"),
            ("check --json=yes", "unexpected argument for option '--json'"),
        ] {
            let message = parsed(line).expect_err(line);
            assert!(message.starts_with(expected) && message.lines().count() == 1, "{line}: {message}");
        }
    }
}
