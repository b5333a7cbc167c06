//! `events`: prints records from OUTPUT_FILE and its backups, oldest first, whether or not a collector is running.
//!
//! The files are read once from beginning to end. Only one line, or the newest `--limit` lines, are kept in memory.
//! Nothing is written except to standard output.

mod follow;
mod table;

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use memchr::memmem;

use super::{load, log_to_stderr};
use crate::cli::{Command, Error, Given, Opt, Value};
use crate::clock::{Clock, Millis, parse_instant};
use crate::config::{Config, Need, values};
use crate::event::{Fields, Redaction, read_line, text};
use crate::status::Problem;

use follow::Files;
use table::Table;

pub const COMMAND: Command = Command {
    name: "events",
    summary: "print records from the output file and its backups",
    about: "\
Prints the records of OUTPUT_FILE and its backups, oldest first. It needs no credentials and no running collector. The
lines are printed unchanged, or as a table on a terminal.",
    word: "",
    options: &[
        Opt {
            name: "since",
            value: Value::Text("T"),
            help: "only events from this time on: RFC 3339, or an age such as 30m, 2h or 3d",
        },
        Opt { name: "until", value: Value::Text("T"), help: "only events before this time or age" },
        Opt { name: "event-id", value: Value::Text("ID"), help: "only events with this code, such as AUDIOHOOK-0003" },
        Opt { name: "entity-id", value: Value::Text("ID"), help: "only events of this integration" },
        Opt { name: "conversation-id", value: Value::Text("ID"), help: "only events of this conversation" },
        Opt { name: "limit", value: Value::Text("N"), help: "only the newest N events" },
        Opt { name: "follow", value: Value::None, help: "continue with new records, across rotations, until stopped" },
        Opt {
            name: "format",
            value: Value::Word(&["json", "table"]),
            help: "json: the unchanged lines; table: a table",
        },
    ],
    run: command,
};

fn command(given: &Given) -> Result<ExitCode, Error> {
    let options = options(given)?;
    let config = load(given, Need::Nothing)?;
    let _flush = log_to_stderr(&config.log, &config.notices)?;
    run(&config, &options, &Clock::system())?;
    Ok(ExitCode::SUCCESS)
}

fn options(given: &Given) -> Result<Options, Error> {
    let text = |name: &str| given.parsed(name, |text| Ok(text.to_owned()));
    let when = |text: &str| {
        When::parse(text)
            .ok_or_else(|| "must be a time such as 2026-11-23T10:00:00Z, or an age such as 30m, 2h or 3d".to_owned())
    };
    Ok(Options {
        since: given.parsed("since", when)?,
        until: given.parsed("until", when)?,
        event_id: text("event-id")?,
        entity_id: text("entity-id")?,
        conversation_id: text("conversation-id")?,
        limit: given.parsed("limit", |text| text.parse().map_err(|_| "must be a whole number".to_owned()))?,
        follow: given.has("follow"),
        format: given.parsed("format", |text| match text {
            "json" => Ok(Format::Json),
            "table" => Ok(Format::Table),
            _ => Err("must be json or table".to_owned()),
        })?,
    })
}

/// Maximum time by which a file's modification time may be earlier than its newest event, because two clocks differ.
const CLOCK_SLACK_MS: i64 = 3_600_000;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    pub since: Option<When>,
    pub until: Option<When>,
    pub event_id: Option<String>,
    pub entity_id: Option<String>,
    pub conversation_id: Option<String>,
    /// Print only this many of the newest records.
    pub limit: Option<usize>,
    pub follow: bool,
    /// `None`: lines, or a table if standard output is a terminal.
    pub format: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Table,
}

/// A time, or an age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    At(Millis),
    Ago(Millis),
}

impl When {
    /// Parses an RFC 3339 time, or an age such as `30s`, `15m`, `2h` or `3d`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(at) = crate::clock::parse_rfc3339(text) {
            return Some(Self::At(at));
        }
        values::span(text).ok().map(|span| Self::Ago(span.as_millis() as Millis))
    }

    fn instant(self, now: Millis) -> Millis {
        match self {
            Self::At(at) => at,
            Self::Ago(ms) => now.saturating_sub(ms),
        }
    }
}

/// Prints the records; with `follow`, until the program is stopped or the output is closed.
///
/// # Errors
/// When a file cannot be read or standard output cannot be written.
pub fn run(config: &Config, options: &Options, clock: &Clock) -> Result<(), Error> {
    let path = &config.output.file;
    let cannot = |error: io::Error| Error::cannot(&format!("read {}", path.display()), error);
    let mut files = Files::open(path).map_err(cannot)?;
    if files.is_empty() && !options.follow {
        let what = format!("there is neither {} nor a backup of it", path.display());
        return Err(Problem::new(what, "Set OUTPUT_FILE to the collector's value.").into());
    }
    let now = clock.wall();
    let filter = Filter::new(options, now);
    let stdout = io::stdout();
    let format = options.format.unwrap_or(if stdout.is_terminal() { Format::Table } else { Format::Json });
    let mut printer = Printer {
        out: io::BufWriter::with_capacity(64 * 1024, stdout.lock()),
        table: (format == Format::Table).then(Table::new),
        redaction: Redaction::new(&config.output.redact_fields),
        newest: options.limit.map(|limit| (limit, VecDeque::new())),
        scratch: Vec::new(),
    };
    let is_old = |changed: SystemTime| {
        let changed = changed.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as Millis);
        filter.since.is_some_and(|since| changed < since - CLOCK_SLACK_MS)
    };
    let mut print = |line: &[u8]| if filter.takes(line) { printer.take(line) } else { Ok(()) };
    let read = files.read(is_old, &mut print);
    let result = read.and_then(|()| printer.flush_newest()).and_then(|()| {
        if !options.follow {
            return Ok(());
        }
        loop {
            printer.out.flush().map_err(Stopped::Output)?;
            files.wait();
            files.read_new(&mut |line: &[u8]| if filter.takes(line) { printer.take(line) } else { Ok(()) })?;
        }
    });
    match result.and_then(|()| printer.out.flush().map_err(Stopped::Output)) {
        Ok(()) => Ok(()),
        Err(Stopped::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Stopped::Output(error)) => Err(Error::cannot("print", error)),
        Err(Stopped::Input(error)) => Err(cannot(error)),
    }
}

/// Why reading stopped.
#[derive(Debug)]
pub enum Stopped {
    Input(io::Error),
    Output(io::Error),
}

struct Filter {
    since: Option<Millis>,
    until: Option<Millis>,
    /// Names of fields and the values that must match.
    fields: Vec<(&'static str, String)>,
}

impl Filter {
    fn new(options: &Options, now: Millis) -> Self {
        let fields = [
            ("event_id", &options.event_id),
            ("entity_id", &options.entity_id),
            ("conversation_id", &options.conversation_id),
        ];
        Self {
            since: options.since.map(|when| when.instant(now)),
            until: options.until.map(|when| when.instant(now)),
            fields: fields.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect(),
        }
    }

    fn takes(&self, line: &[u8]) -> bool {
        // If a value does not occur in the line, no field has it, unless the line contains escapes.
        let is_there = |value: &str| memmem::find(line, value.as_bytes()).is_some();
        if !self.fields.iter().all(|(_, value)| is_there(value)) && !line.contains(&b'\\') {
            return false;
        }
        let is_by_time = self.since.is_some() || self.until.is_some();
        let mut time = if is_by_time { own_timestamp(line) } else { None };
        if !self.fields.is_empty() || (is_by_time && time.is_none()) {
            let Some(fields) = Fields::read(line) else { return false };
            if !self.fields.iter().all(|(name, value)| text(fields.get(name)) == value.as_str()) {
                return false;
            }
            time = time.or(fields.event_time());
        }
        let fits = |time| self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until);
        !is_by_time || time.is_some_and(fits)
    }
}

/// The time at the beginning of a line that the collector wrote, without parsing the rest.
fn own_timestamp(line: &[u8]) -> Option<Millis> {
    let value = line.strip_prefix(b"{\"timestamp\":\"")?.get(..24)?;
    value.ends_with(b"Z").then(|| std::str::from_utf8(value).ok().and_then(parse_instant))?
}

/// Prints lines, or keeps the newest ones until all are read.
struct Printer<W: Write> {
    out: W,
    table: Option<Table>,
    redaction: Redaction,
    newest: Option<(usize, VecDeque<Vec<u8>>)>,
    scratch: Vec<u8>,
}

impl<W: Write> Printer<W> {
    fn take(&mut self, line: &[u8]) -> Result<(), Stopped> {
        let Some((limit, newest)) = &mut self.newest else { return self.print(line) };
        let mut kept = if newest.len() >= *limit { newest.pop_front().unwrap_or_default() } else { Vec::new() };
        if *limit > 0 {
            kept.clear();
            kept.extend_from_slice(line);
            newest.push_back(kept);
        }
        Ok(())
    }

    /// Prints the newest lines. Later lines are printed at once.
    fn flush_newest(&mut self) -> Result<(), Stopped> {
        let Some((_, newest)) = self.newest.take() else { return Ok(()) };
        newest.iter().try_for_each(|line| self.print(line))
    }

    fn print(&mut self, line: &[u8]) -> Result<(), Stopped> {
        let shown;
        let mut line = line;
        if self.redaction.is_on() {
            // Skip a line that cannot be parsed, since its fields cannot be redacted.
            let Ok(text) = std::str::from_utf8(line) else { return Ok(()) };
            let Ok(id) = read_line(text, &mut self.scratch).map(|line| line.id.to_string()) else { return Ok(()) };
            let Some(redacted) = self.redaction.line(text, &id) else { return Ok(()) };
            shown = redacted.into_owned();
            line = shown.as_bytes();
        }
        match &mut self.table {
            Some(table) => table.print(&mut self.out, line),
            None => self.out.write_all(line).and_then(|()| self.out.write_all(b"\n")),
        }
        .map_err(Stopped::Output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = br#"{"timestamp":"2026-11-23T10:44:05.123Z","event_id":"A-1","entity_id":"\u00e9","conversation_id":null,"raw_event":{"x":"A-2"}}"#;

    fn takes(change: impl FnOnce(&mut Options), line: &[u8]) -> bool {
        let mut options = Options::default();
        change(&mut options);
        Filter::new(&options, parse_instant("2026-11-23T12:00:00Z").unwrap()).takes(line)
    }

    #[test]
    fn instants_and_spans_are_understood() {
        assert_eq!(When::parse("2h"), Some(When::Ago(7_200_000)));
        assert_eq!(When::parse("3d"), Some(When::Ago(3 * 86_400_000)));
        assert_eq!(When::parse("1970-01-01T01:00:00+01:00"), Some(When::At(0)));
        for bad in ["", "h", "2", "2y", "-2h", "1.5h", "+2h", "2026-11-23", "99999999999999999d"] {
            assert_eq!(When::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_record_is_taken_by_its_own_fields_and_time() {
        assert!(takes(|_| (), b"anything"));
        assert!(takes(|o| o.event_id = Some("A-1".into()), LINE));
        assert!(!takes(|o| o.event_id = Some("A-2".into()), LINE), "it stands in another field");
        assert!(takes(|o| o.entity_id = Some("é".into()), LINE), "escaped in the line");
        assert!(takes(|o| o.since = Some(When::Ago(2 * 3_600_000)), LINE));
        assert!(!takes(|o| o.since = Some(When::Ago(3_600_000)), LINE));
        assert!(!takes(|o| o.until = When::parse("2026-11-23T10:44:05.123Z"), LINE), "the end is not included");
        assert!(takes(|o| o.until = When::parse("2026-11-23T10:44:05.124Z"), LINE));
        let predecessors = br#"{"event_id": "A-1", "timestamp": "2026-11-23T10:44:05.123456+00:00"}"#;
        assert!(takes(|o| o.since = Some(When::Ago(2 * 3_600_000)), predecessors));
        assert!(!takes(|o| o.since = Some(When::Ago(1)), b"torn"));
    }
}
