//! `audiohook-collector replay`: sends the dead letters to the cluster again.
//!
//! Must never: lose a letter. A file of letters is not changed while it is sent. The remaining letters are written to a
//! new file next to it, which replaces it at the end. So a kill at any time leaves every letter where the next replay
//! finds it. Letters that are sent twice are ignored by the cluster.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crossbeam_channel::after;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::elastic::dead_letters::{
    DeadLetters, Line, Lines, files, open_locked, open_to_append, path_of, take_over, with_suffix,
};
use crate::elastic::document::Document;
use crate::elastic::probe::{PROBE_TIMEOUT, greet};
use crate::elastic::sender::Sender;
use crate::elastic::setup::Setup;
use crate::elastic::transport::Transport;
use crate::event::Redaction;
use crate::output::identity::{Cursor, FileIdentity, identity};
use crate::output::regular;

/// How long to retry while the cluster accepts nothing.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to wait for a lock. If it is held for longer, another replay is running.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(100);
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// The results of all letters.
#[derive(Debug, Default)]
struct Counts {
    total: u64,
    created: u64,
    exists: u64,
    refused: u64,
}

/// Sends the dead letters again and reports on standard output. Exit status 0: all were sent, or there were none; 1:
/// some were refused again, or the cluster could not be reached for a minute; 2: ELASTIC_URL is not set.
///
/// # Errors
/// When a file cannot be read, written or locked. No letter is lost.
pub fn replay(config: &Config, clock: &Clock) -> io::Result<ExitCode> {
    let Some(elastic) = &config.elastic else {
        eprintln!("cannot replay: ELASTIC_URL is not set");
        return Ok(ExitCode::from(2));
    };
    let all_sent = replay_to(elastic, &config.output, &config.network, clock, &mut io::stdout())?;
    Ok(if all_sent { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Like [`replay`], but reports to `shown`; true if every letter was sent.
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
        sender: Sender::for_replay(elastic, DeadLetters::to_file(&path_of(&output.file)), transport, clock.clone()),
        redaction: Redaction::new(&output.redact_fields),
        clock: clock.clone(),
        bulk_size: elastic.bulk_size,
        counts: Counts::default(),
        progressed_at: now,
        shown_at: now,
    };
    replay.run(elastic, &output.file, shown)
}

struct Replay {
    sender: Sender,
    redaction: Redaction,
    clock: Clock,
    bulk_size: usize,
    counts: Counts,
    progressed_at: Instant,
    shown_at: Instant,
}

impl Replay {
    fn run(mut self, elastic: &config::Elastic, output: &Path, shown: &mut impl Write) -> io::Result<bool> {
        let taken = with_lock_retry(|| take_over(output))?;
        for path in &taken {
            let mut lines = Lines::new(File::open(path)?);
            while let Some(line) = lines.read()? {
                self.counts.total += u64::from(!line.is_empty() && !line.is_continuation);
            }
        }
        if self.counts.total == 0 {
            writeln!(shown, "replay: there are no dead letters")?;
        } else {
            writeln!(shown, "replay: {} dead letters", self.counts.total)?;
            self.put_template(elastic);
        }
        let mut given_up = None;
        for path in &taken {
            given_up = self.replay_file(path, shown)?;
            if given_up.is_some() {
                break;
            }
        }
        restore_name(output)?;
        regular::sync_folder(output)?;
        self.report(given_up, output, shown)
    }

    /// Creates the template as the indexer does. Errors are only logged at debug level, since the collector reports
    /// them.
    fn put_template(&self, elastic: &config::Elastic) {
        let transport = &self.sender.transport;
        if let Ok(server) = greet(transport, 0, PROBE_TIMEOUT)
            && elastic.setup
        {
            let product = server.map(|server| server.product).unwrap_or_default();
            let setup = Setup { transport, node: 0, index: &elastic.index, product };
            if let Err(held) = setup.put_if_absent(elastic.retention) {
                log::debug!("cannot create the index template: {}", held.why);
            }
        }
    }

    /// Sends the letters of one file, and keeps in it those that were not sent; returns why the replay gave up, if it
    /// did.
    fn replay_file(&mut self, path: &Path, shown: &mut impl Write) -> io::Result<Option<String>> {
        let letters = match with_lock_retry(|| open_locked(path, false)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let rest_path = with_suffix(path, ".new");
        // Remove what a killed replay left there. Never open it first: it may be a link to another file.
        match fs::remove_file(&rest_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut rest = open_to_append(&rest_path)?;
        self.sender.letters = DeadLetters::to_file(&rest_path);
        let given_up = self.send_file(&letters, &mut rest, shown).map_err(|error| {
            // On a full disk the collector needs the space. The letters are still in their file.
            let _ = fs::remove_file(&rest_path);
            io::Error::new(error.kind(), format!("{}: {error}", rest_path.display()))
        })?;
        if rest.metadata()?.len() > 0 {
            fs::rename(&rest_path, path)?;
        } else {
            fs::remove_file(&rest_path)?;
            fs::remove_file(path)?;
        }
        Ok(given_up)
    }

    /// Sends the letters of one file, and writes those that were not sent to `rest`; returns why the replay gave up, if
    /// it did.
    fn send_file(&mut self, letters: &File, rest: &mut File, shown: &mut impl Write) -> io::Result<Option<String>> {
        let file = identity(letters);
        let (mut given_up, mut read_to) = (None, u64::MAX);
        let mut lines = Lines::new(letters.try_clone()?);
        while let Some(line) = lines.read()? {
            let is_full = !self.sender.batch.has_room(line.text.len()) || self.sender.batch.len() >= self.bulk_size;
            if is_full && !line.is_continuation {
                given_up = self.send_all(shown)?;
            }
            if given_up.is_some() {
                read_to = line.at;
                break;
            }
            if !line.is_empty() && !self.take(file, &line) {
                // A line that cannot be sent stays a dead letter, unchanged.
                self.counts.refused += u64::from(!line.is_continuation);
                keep(&line, rest)?;
            }
        }
        if given_up.is_none() {
            given_up = self.send_all(shown)?;
        }
        if given_up.is_some() {
            self.put_back(letters, read_to, rest)?;
        }
        rest.sync_data()?;
        Ok(given_up)
    }

    /// Adds a letter's record to the batch; `false` if the line has none.
    fn take(&mut self, file: Option<FileIdentity>, line: &Line<'_>) -> bool {
        let (Some(file), Some(record)) = (file, line.record()) else { return false };
        let Some(document) = Document::of(record, &self.redaction) else { return false };
        self.sender.batch.push(&document, Cursor { file, offset: line.at });
        true
    }

    /// Sends until the batch is empty; returns why the replay gave up, if it did.
    fn send_all(&mut self, shown: &mut impl Write) -> io::Result<Option<String>> {
        while !self.sender.batch.is_empty() {
            let (node, ready_at) = self.sender.nodes.next();
            let _ = after(ready_at.saturating_duration_since(self.clock.now())).recv();
            let sent = self.sender.send(node, REQUEST_TIMEOUT);
            self.counts.created += sent.created;
            self.counts.exists += sent.exists;
            self.counts.refused += sent.kept.appended;
            if sent.done > 0 {
                self.progressed_at = self.clock.now();
            }
            if let Some(held) = sent.held {
                let nodes = &self.sender.nodes;
                // Give up at once if only an operator can fix the cause, unless another node works.
                let is_refused = held.is_refusal() && (!sent.failed || nodes.all_down());
                if is_refused || nodes.next().1 >= self.progressed_at + GIVE_UP_AFTER {
                    let url = &self.sender.transport.urls()[node];
                    return Ok(Some(format!("{url}: {}. {}", held.why, held.cure())));
                }
            }
            self.show_progress(shown)?;
        }
        Ok(None)
    }

    /// Writes the unsent letters to `rest`: those still in the batch, and all from `read_to` on.
    fn put_back(&mut self, letters: &File, read_to: u64, rest: &mut File) -> io::Result<()> {
        let unsent: HashSet<u64> = self.sender.batch.places().map(|place| place.offset).collect();
        let mut file = letters.try_clone()?;
        file.rewind()?;
        let mut lines = Lines::new(file);
        while let Some(line) = lines.read()? {
            if !line.is_empty() && (line.at >= read_to || unsent.contains(&line.at)) {
                keep(&line, rest)?;
            }
        }
        Ok(())
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

    fn report(&self, given_up: Option<String>, output: &Path, shown: &mut impl Write) -> io::Result<bool> {
        let c = &self.counts;
        let sent = c.created + c.exists;
        if c.total > 0 {
            writeln!(shown, "replay: {sent} sent ({} of them existed already)", c.exists)?;
        }
        let left = files(output).pop().unwrap_or_default();
        let left = left.display();
        if c.refused > 0 {
            let refused = c.refused;
            writeln!(
                shown,
                "replay: {refused} refused again. Fix the causes recorded in {left}, then run replay again."
            )?;
        }
        if let Some(why) = &given_up {
            let unsent = c.total.saturating_sub(sent + c.refused);
            writeln!(shown, "replay: {unsent} not sent and kept in {left}: {why}")?;
        }
        Ok(c.refused == 0 && given_up.is_none())
    }
}

/// Writes a line unchanged, with a line feed.
fn keep(line: &Line<'_>, rest: &mut File) -> io::Result<()> {
    rest.write_all(if line.is_piece { line.text } else { line.text.trim_ascii_end() })?;
    if line.is_piece { Ok(()) } else { rest.write_all(b"\n") }
}

/// Renames the newest remaining file to `.dead`, unless the collector has created a new one.
fn restore_name(output: &Path) -> io::Result<()> {
    let path = path_of(output);
    let Some(newest) = files(output).pop().filter(|newest| *newest != path) else { return Ok(()) };
    // Leave a file that another replay is using.
    let Ok(_locked) = open_locked(&newest, false) else { return Ok(()) };
    match renameat_with(CWD, &newest, CWD, &path, RenameFlags::NOREPLACE) {
        // Keeping the name is harmless, so a file system without RENAME_NOREPLACE does not matter.
        Ok(()) | Err(rustix::io::Errno::EXIST | rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Retries while another process holds the lock.
fn with_lock_retry<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
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
