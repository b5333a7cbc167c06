//! What the benchmark is asked for.

pub struct Options {
    /// Turns of each row; the median is shown.
    pub turns: usize,
    /// Events of a burst.
    pub events: usize,
    /// Events of the history that is caught up.
    pub history: usize,
    /// MiB that wait through the cluster's outage.
    pub backlog_mib: u64,
    /// Seconds that the process at rest is watched.
    pub rest_s: u64,
    pub short: bool,
    pub growth: bool,
    /// The rows that are wanted; none: all.
    pub only: Vec<String>,
    /// The collector that is measured.
    pub collector: String,
    /// Another collector's command.
    pub compare: Vec<String>,
}

impl Options {
    pub fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == row)
    }
}

/// # Errors
/// In one sentence, on what is not understood.
pub fn parse(arguments: Vec<String>) -> Result<Options, String> {
    let mut options = Options {
        turns: 5,
        events: 200_000,
        history: 1_000_000,
        backlog_mib: 1024,
        rest_s: 20,
        short: false,
        growth: false,
        only: Vec::new(),
        collector: env!("CARGO_BIN_EXE_audiohook-collector").to_owned(),
        compare: Vec::new(),
    };
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--short" => {
                options = Options {
                    turns: 1,
                    events: 5_000,
                    history: 5_000,
                    backlog_mib: 16,
                    rest_s: 2,
                    short: true,
                    ..options
                };
            }
            "--growth" => options.growth = true,
            "--turns" => {
                let turns = rest.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                options.turns = turns.ok_or("--turns needs a number")?;
            }
            "--only" => {
                let names = rest.next().ok_or("--only needs rows: burst,cluster,latency,…")?;
                options.only = names.split(',').map(str::to_owned).collect();
            }
            "--collector" => options.collector = rest.next().ok_or("--collector needs a binary")?,
            "--compare" => {
                options.compare = rest.by_ref().collect();
                if options.compare.is_empty() {
                    return Err("--compare needs a command".to_owned());
                }
            }
            other => {
                let known = "--short, --growth, --turns, --only, --collector, --compare";
                return Err(format!("unknown argument {other}: {known}"));
            }
        }
    }
    Ok(options)
}
