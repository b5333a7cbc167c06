//! The texts of `--help` and `--version`.

use super::Name;

/// `--version`.
pub const VERSION: &str = concat!("audiohook-collector ", env!("CARGO_PKG_VERSION"));

/// What follows an error about the command line.
pub const HINT: &str = "try 'audiohook-collector --help'";

const EVERYWHERE: &str = "
      --env-file PATH   read settings from this file instead of ./.env; the environment wins over it
  -h, --help            print this help
  -V, --version         print the version
";

const OVERVIEW: &str = "\
Collects Genesys Cloud AudioHook operational events: every one, once, in a file that stays.

Usage: audiohook-collector [COMMAND] [OPTIONS]

Without a command it runs the collector. The commands:
  demo       run the collector against a simulated Genesys Cloud, with no account
  simulate   run only the simulated Genesys Cloud, to point a collector at
  check      try everything that a start needs, and say what is wrong and what to do
  audit      compare the collected files with Genesys Cloud's own counts
  events     print records from the output file and its backups
  health     ask the running collector how it is
  replay     send the dead letters to the cluster again
  template   print the index template

Options:";

const EXIT: &str = "
Settings come from the environment, then from the settings file; .env.example lists them all.

Exit status: 0 done, or stopped by a signal; 2 a wrong command line or setting (nothing was started); 1 anything else.
";

const DEMO: &str = "\
Runs the real collector against a simulated Genesys Cloud on this machine, and prints where to look.

Usage: audiohook-collector demo [--dir PATH] [--for SECONDS]

Options:
      --dir PATH        keep its files in this folder; a temporary one otherwise
      --for SECONDS     stop after this time; otherwise it runs until stopped";

const SIMULATE: &str = "\
Runs the simulated Genesys Cloud alone, to point a collector, an alert or a dashboard at.

Usage: audiohook-collector simulate [--listen HOST:PORT] [--seed N] [--rate N]

Options:
      --listen HOST:PORT  where to listen; 127.0.0.1:8078 otherwise, port 0 for any free one
      --seed N            issue the same events in each run
      --rate N            events a minute, on average: 30 otherwise, 60000 at most";

const CHECK: &str = "\
Tries everything that a start needs, in order, and says what was found and what to do. Status 1 if anything is wrong.

Usage: audiohook-collector check [--json]

Options:
      --json            print one JSON document instead of lines";

const AUDIT: &str = "\
Compares the collected files with Genesys Cloud's own counts, and lists what is missing or extra. Status 1 if anything is.

Usage: audiohook-collector audit [--from T] [--to T] [--repair] [--json]

Options:
      --from T          the beginning, such as 2026-11-23T10:00:00Z; 24 hours before the end otherwise
      --to T            the end; otherwise, and at most, the latest instant that the history has settled for
      --repair          append what is missing; refused while a collector runs on the file
      --json            print one JSON document instead of lines";

const EVENTS: &str = "\
Prints records from OUTPUT_FILE and its backups, oldest first. It reads only, needs no credentials, and works beside a
running collector.

Usage: audiohook-collector events [--since WHEN] [--until WHEN] [--event-id ID] [--entity-id ID]
                                  [--conversation-id ID] [--limit N] [--follow] [--format json|table]

Options:
      --since WHEN          only events from this time on: 2026-11-23T10:00:00Z, or a span back from now: 30m, 2h, 3d
      --until WHEN          only events before this time
      --event-id ID         only events with this code, such as AUDIOHOOK-0003
      --entity-id ID        only events of this integration
      --conversation-id ID  only events of this conversation
      --limit N             only the newest N
      --follow              keep printing new events, across rotations, until stopped
      --format json|table   the lines as they are, or a table; a table where standard output is a terminal";

const HEALTH: &str = "\
Asks the collector that runs on HTTP_HOST and HTTP_PORT how it is, and prints its answer. Status 0 if it is healthy or
degraded, else 1: a container's health check.

Usage: audiohook-collector health

Options:";

const REPLAY: &str = "\
Sends the dead letters (OUTPUT_FILE.dead) to the cluster again, and keeps those that it refuses again. Safe while the
collector runs. Status 1 if some were refused, or the cluster could not be reached for a minute.

Usage: audiohook-collector replay

Options:";

const TEMPLATE: &str = "\
Prints the index template that the collector puts where there is none.

Usage: audiohook-collector template

Options:";

/// The help of one command, or of all.
pub fn text(name: Option<Name>) -> String {
    let (own, rest) = match name {
        None => (OVERVIEW, EXIT),
        Some(Name::Demo) => (DEMO, ""),
        Some(Name::Simulate) => (SIMULATE, ""),
        Some(Name::Check) => (CHECK, ""),
        Some(Name::Audit) => (AUDIT, ""),
        Some(Name::Events) => (EVENTS, ""),
        Some(Name::Health) => (HEALTH, ""),
        Some(Name::Replay) => (REPLAY, ""),
        Some(Name::Template) => (TEMPLATE, ""),
    };
    format!("{own}{EVERYWHERE}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_command_and_every_option() {
        let overview = text(None);
        for name in Name::ALL {
            assert!(overview.contains(&format!("\n  {} ", name.text())), "{}", name.text());
            assert!(text(Some(name)).contains(&format!("Usage: audiohook-collector {}", name.text())));
        }
        for (option, commands) in super::super::OPTIONS {
            for name in commands {
                assert!(text(Some(*name)).contains(&format!("--{option}")), "{option}");
            }
        }
    }

    #[test]
    fn the_help_names_where_the_simulator_listens() {
        assert!(SIMULATE.contains(super::super::SIMULATE_LISTEN));
    }
}
