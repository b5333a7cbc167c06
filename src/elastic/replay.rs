//! `audiohook-collector replay`: sends the dead letters to the cluster again.
//!
//! Must never: lose a letter. A letter that is done is marked in its place, and one that is refused again is kept anew
//! before that, so that a kill at any instant leaves each one where the next replay finds it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crossbeam_channel::after;

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::elastic::batch::REQUEST_BYTES_MAX;
use crate::elastic::dead_letters::{Letter, files, open_locked};
use crate::elastic::document::Document;
use crate::elastic::nodes::Nodes;
use crate::elastic::probe::{Greeting, PROBE_TIMEOUT, greet};
use crate::elastic::sender::{Attempt, Sender, letters_of};
use crate::elastic::setup::Setup;
use crate::elastic::transport::Transport;
use crate::elastic::verdict::Held;
use crate::event::Redaction;
use crate::output::identity::{Cursor, FileIdentity, identity};
use crate::output::regular;

/// A cluster that takes nothing for this long is not waited for any longer.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// Time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// A lock that another process holds for longer than this is another replay's.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(100);
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// What stands in the place of a letter's brace once it is done. A line that merely begins with it is somebody else's.
const DONE: u8 = b'#';
const DONE_BEGIN: &[u8] = b"#\"";

/// What came of all letters.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    total: u64,
    created: u64,
    exists: u64,
    refused: u64,
    left: u64,
}

/// Sends the dead letters again and reports on standard output. Status 0 when all went or there were none, 1 when some
/// were refused again or the cluster could not be reached for a minute, 2 when no cluster is set.
///
/// # Errors
/// When a file cannot be read, written or locked: no letter is lost then.
pub fn replay(config: &Config, clock: &Clock) -> io::Result<ExitCode> {
    let Some(elastic) = &config.elastic else {
        eprintln!("cannot replay: ELASTIC_URL is not set");
        return Ok(ExitCode::from(2));
    };
    let went = replay_to(elastic, &config.output, &config.network, clock, &mut io::stdout())?;
    Ok(if went { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The same with any place to report to; whether every letter went.
///
/// # Errors
/// As [`replay`].
pub fn replay_to(
    elastic: &config::Elastic,
    output: &config::Output,
    network: &config::Network,
    clock: &Clock,
    shown: &mut impl Write,
) -> io::Result<bool> {
    let transport = Transport::new(elastic, network, clock.clone()).map_err(io::Error::other)?;
    let now = clock.now();
    let replay = Replay {
        nodes: Nodes::new(transport.urls().len(), 1, now),
        sender: Sender::for_replay(elastic, letters_of(output, u64::MAX, false), transport, clock.clone()),
        redaction: Redaction::new(&output.redact_fields),
        clock: clock.clone(),
        bulk_size: elastic.bulk_size,
        counts: Counts::default(),
        progressed_at: now,
        shown_at: now,
    };
    replay.run(elastic, output, shown)
}

struct Replay {
    sender: Sender,
    nodes: Nodes,
    redaction: Redaction,
    clock: Clock,
    bulk_size: usize,
    counts: Counts,
    progressed_at: Instant,
    shown_at: Instant,
}

/// Why no more is sent.
struct GivenUp(String);

impl Replay {
    fn run(mut self, elastic: &config::Elastic, output: &config::Output, shown: &mut impl Write) -> io::Result<bool> {
        let taken = patiently(|| self.sender.letters.take_over())?;
        for path in &taken {
            self.counts.total += Lines::open(path)?.count()?;
        }
        if self.counts.total == 0 {
            writeln!(shown, "replay: there are no dead letters")?;
        } else {
            writeln!(shown, "replay: {} dead letters", self.counts.total)?;
            self.see_to_template(elastic);
        }
        let mut given_up = None;
        for path in taken {
            let file = match patiently(|| open_locked(&path, false)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            if given_up.is_none() {
                given_up = self.replay_file(&path, &file, shown)?;
            }
            if given_up.is_some() {
                self.put_back(&path, &file)?;
            }
            fs::remove_file(&path)?;
        }
        regular::sync_folder(&output.file)?;
        self.report(given_up, output, shown)
    }

    /// As the indexer does before its first document; what the cluster has against it, it says to the collector.
    fn see_to_template(&self, elastic: &config::Elastic) {
        let transport = &self.sender.transport;
        let greeting = greet(transport, 0, PROBE_TIMEOUT);
        if let Greeting::Alive(server) = greeting
            && elastic.setup
        {
            let product = server.map(|server| server.product).unwrap_or_default();
            let setup = Setup { transport, node: 0, index: &elastic.index, product };
            if let Err(held) = setup.put_if_absent(elastic.retention) {
                log::debug!("cannot put the index template: {}", held.why);
            }
        }
    }

    /// Sends what is in one file; returns why no more is sent, if so.
    fn replay_file(&mut self, path: &Path, letters: &File, shown: &mut impl Write) -> io::Result<Option<GivenUp>> {
        let file = identity(letters);
        let mut lines = Lines::open(path)?;
        while let Some((place, line)) = lines.next()? {
            let file = file.ok_or_else(|| io::Error::other(format!("cannot read {}", path.display())))?;
            let is_full = !self.sender.batch.has_room(line.len()) || self.sender.batch.len() >= self.bulk_size;
            if is_full && let Some(given_up) = self.send_all(letters, shown)? {
                return Ok(Some(given_up));
            }
            if !self.take(file, place, line) {
                // What cannot be sent stays one, as it is.
                self.counts.refused += 1;
                patiently(|| self.sender.letters.append_lines(&[line, b"\n"].concat()))?;
                mark(letters, &[place])?;
            }
        }
        self.send_all(letters, shown)
    }

    /// Puts a letter's record into the batch; `false` for a line that holds none.
    fn take(&mut self, file: FileIdentity, place: u64, line: &[u8]) -> bool {
        let Ok(letter) = serde_json::from_slice::<Letter<'_>>(line) else { return false };
        let Some(document) = Document::of(letter.record.get().as_bytes(), &self.redaction) else { return false };
        self.sender.batch.push(&document, Cursor { file, offset: place });
        true
    }

    /// Sends until the batch is empty; returns why no more is sent, if so.
    fn send_all(&mut self, letters: &File, shown: &mut impl Write) -> io::Result<Option<GivenUp>> {
        while !self.sender.batch.is_empty() {
            let (node, ready_at) = self.nodes.next();
            let _ = after(ready_at.saturating_duration_since(self.clock.now())).recv();
            let begun = self.clock.now();
            self.nodes.trying(node, begun);
            let held = match self.sender.send(node, REQUEST_TIMEOUT, self.nodes.is_trial()) {
                Attempt::Smaller => None,
                Attempt::Failed { held, timed_out, retry_after } => {
                    self.nodes.failed(node, timed_out, retry_after, self.clock.now());
                    Some(held)
                }
                Attempt::Judged(judged) => {
                    self.nodes.answered(node, begun);
                    self.counts.created += judged.created;
                    self.counts.exists += judged.exists;
                    self.counts.refused += judged.kept.appended;
                    mark(letters, &judged.done.iter().map(|at| at.offset).collect::<Vec<_>>())?;
                    match (judged.done.is_empty(), &judged.held) {
                        (true, Some(_)) => self.nodes.back_off(self.clock.now()),
                        _ => {
                            self.nodes.succeeded(self.clock.now());
                            self.progressed_at = self.clock.now();
                        }
                    }
                    judged.held
                }
            };
            if let Some(given_up) = held.and_then(|held| self.gives_up(node, &held)) {
                return Ok(Some(given_up));
            }
            self.show_progress(shown)?;
        }
        Ok(None)
    }

    /// What a person must fix is not gone within a minute.
    fn gives_up(&self, node: usize, held: &Held) -> Option<GivenUp> {
        let is_late = self.nodes.next().1 >= self.progressed_at + GIVE_UP_AFTER;
        let url = &self.sender.transport.urls()[node];
        (held.is_refusal() || is_late).then(|| GivenUp(format!("{url}: {}. {}", held.why, held.cure())))
    }

    fn show_progress(&mut self, shown: &mut impl Write) -> io::Result<()> {
        if self.clock.now() < self.shown_at + PROGRESS_EVERY {
            return Ok(());
        }
        self.shown_at = self.clock.now();
        let c = &self.counts;
        writeln!(shown, "replay: {} of {}", c.created + c.exists + c.refused, c.total)?;
        shown.flush()
    }

    /// Gives back what was not sent.
    fn put_back(&mut self, path: &Path, letters: &File) -> io::Result<()> {
        let mut reader = Lines::open(path)?;
        let (mut lines, mut places) = (Vec::new(), Vec::new());
        loop {
            let next = reader.next()?;
            if !lines.is_empty() && (next.is_none() || lines.len() >= REQUEST_BYTES_MAX) {
                patiently(|| self.sender.letters.append_lines(&lines))?;
                mark(letters, &places)?;
                lines.clear();
                places.clear();
            }
            let Some((place, line)) = next else { return Ok(()) };
            self.counts.left += 1;
            lines.extend_from_slice(line);
            lines.push(b'\n');
            places.push(place);
        }
    }

    fn report(&self, given_up: Option<GivenUp>, output: &config::Output, shown: &mut impl Write) -> io::Result<bool> {
        let c = &self.counts;
        if c.total > 0 {
            writeln!(shown, "replay: {} sent ({} of them were there already)", c.created + c.exists, c.exists)?;
        }
        let left = files(&output.file).pop().unwrap_or_default();
        if c.refused > 0 {
            let path = left.display();
            writeln!(
                shown,
                "replay: {} refused again. Fix the causes that {path} gives, then replay again.",
                c.refused
            )?;
        }
        if let Some(GivenUp(why)) = given_up {
            writeln!(shown, "replay: {} not sent, and back in {}: {why}", c.left, left.display())?;
        }
        Ok(c.refused == 0 && c.left == 0)
    }
}

/// Marks letters as done, on the disk.
fn mark(letters: &File, places: &[u64]) -> io::Result<()> {
    for place in places {
        letters.write_all_at(&[DONE], *place)?;
    }
    if places.is_empty() { Ok(()) } else { letters.sync_data() }
}

/// The letters that are not done, and where each begins.
struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
    at: u64,
}

impl Lines {
    fn open(letters: &Path) -> io::Result<Self> {
        Ok(Self { reader: BufReader::new(File::open(letters)?), line: Vec::new(), at: 0 })
    }

    fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        loop {
            self.line.clear();
            let read = self.reader.read_until(b'\n', &mut self.line)?;
            if read == 0 {
                return Ok(None);
            }
            self.at += read as u64;
            if !self.line.starts_with(DONE_BEGIN) && !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        let place = self.at - self.line.len() as u64;
        Ok(Some((place, self.line.trim_ascii_end())))
    }

    fn count(mut self) -> io::Result<u64> {
        let mut count = 0;
        while self.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

/// Does it again while another process holds the lock.
fn patiently<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                let _ = after(LOCK_RETRY).recv();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::other("cannot take the dead letters: another replay is at work"));
            }
            other => return other,
        }
    }
}
