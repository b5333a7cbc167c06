//! `make bench`: the collector beside the floor under it, in one run on one machine.
//!
//! The real release binary, a floor (tungstenite reading events, a hundred for each write to a file) and a limit (large
//! pieces, and frames split by hand) take turns against peers on loopback; what counts are ratios within the run, the medians of several turns and how far they spread. No
//! test depends on what is printed here.
//!
//! ```text
//! make bench                                the table
//! make bench ARGS=--short                   every row once, small: that it works, not how fast
//! make bench ARGS=--growth                  how cost grows with sizes, topics, files and backlog
//! make bench ARGS="--only burst,latency"    some of the rows
//! make bench ARGS="--collector PATH"        another build of it
//! make bench ARGS="--compare COMMAND…"      another collector's command beside it: it is given the same settings
//! ```

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to say")]

#[cfg(target_os = "linux")]
mod cluster;
#[cfg(target_os = "linux")]
mod events;
#[cfg(target_os = "linux")]
mod floor;
#[cfg(target_os = "linux")]
mod growth;
#[cfg(target_os = "linux")]
mod latency;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod peer;
#[cfg(target_os = "linux")]
#[path = "../support/port.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod port;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod rows;
#[cfg(target_os = "linux")]
mod stage;
#[cfg(target_os = "linux")]
mod table;
/// The tests' throw-away CA; what it leaves in a folder it leaves in this one.
#[cfg(target_os = "linux")]
#[path = "../support/tls.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod tls;

/// What the CA of the tests writes into.
#[cfg(target_os = "linux")]
pub struct Folder(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl Folder {
    /// Writes a file into it and gives its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> std::path::PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

#[cfg(target_os = "linux")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|first| first == "floor" || first == "limit") {
        return floor::run(&arguments);
    }
    match options::parse(arguments) {
        Ok(options) => {
            let stage = stage::Stage::new(options);
            if stage.options.growth { growth::run(&stage) } else { rows::run(&stage) }
        }
        Err(message) => eprintln!("{message}"),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("the benchmark reads /proc: it needs Linux");
}
