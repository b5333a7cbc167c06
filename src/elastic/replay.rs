//! `audiohook-collector replay`: sends the dead letters to the cluster again.
//!
//! Must never: lose a letter. A file of letters is not changed while it is sent; what is left of it is written beside it
//! and takes its place at the end. A kill at any instant leaves each letter where the next replay finds it, and what is
//! sent again is there already.

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

/// A cluster that takes nothing for this long is not waited for any longer.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// Time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// A lock that another process holds for longer than this is another replay's.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(100);
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What came of all letters.
#[derive(Debug, Default)]
struct Counts {
    total: u64,
    created: u64,
    exists: u64,
    refused: u64,
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
        let taken = patiently(|| take_over(output))?;
        for path in &taken {
            let mut lines = Lines::new(File::open(path)?);
            while let Some(line) = lines.read()? {
                self.counts.total += u64::from(!line.is_empty() && !line.goes_on);
            }
        }
        if self.counts.total == 0 {
            writeln!(shown, "replay: there are no dead letters")?;
        } else {
            writeln!(shown, "replay: {} dead letters", self.counts.total)?;
            self.see_to_template(elastic);
        }
        let mut given_up = None;
        for path in &taken {
            given_up = self.replay_file(path, shown)?;
            if given_up.is_some() {
                break;
            }
        }
        give_name_back(output)?;
        regular::sync_folder(output)?;
        self.report(given_up, output, shown)
    }

    /// As the indexer does before its first document; what the cluster has against it, it says to the collector.
    fn see_to_template(&self, elastic: &config::Elastic) {
        let transport = &self.sender.transport;
        if let Ok(server) = greet(transport, 0, PROBE_TIMEOUT)
            && elastic.setup
        {
            let product = server.map(|server| server.product).unwrap_or_default();
            let setup = Setup { transport, node: 0, index: &elastic.index, product };
            if let Err(held) = setup.put_if_absent(elastic.retention) {
                log::debug!("cannot put the index template: {}", held.why);
            }
        }
    }

    /// Sends what is in one file and leaves there what did not go; returns why no more is sent, if so.
    fn replay_file(&mut self, path: &Path, shown: &mut impl Write) -> io::Result<Option<String>> {
        let letters = match patiently(|| open_locked(path, false)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let rest_path = with_suffix(path, ".new");
        // A replay that was killed may have begun it; and where a link leads is nothing to cut.
        match fs::remove_file(&rest_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut rest = open_to_append(&rest_path)?;
        self.sender.letters = DeadLetters::to_file(&rest_path);
        let given_up = self.send_file(&letters, &mut rest, shown).map_err(|error| {
            // On a full disk it would be in the collector's way. The letters are in their file as before.
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

    /// Sends the letters of one file and writes into another what did not go; returns why no more is sent, if so.
    fn send_file(&mut self, letters: &File, rest: &mut File, shown: &mut impl Write) -> io::Result<Option<String>> {
        let file = identity(letters);
        let (mut given_up, mut read_to) = (None, u64::MAX);
        let mut lines = Lines::new(letters.try_clone()?);
        while let Some(line) = lines.read()? {
            let is_full = !self.sender.batch.has_room(line.text.len()) || self.sender.batch.len() >= self.bulk_size;
            if is_full && !line.goes_on {
                given_up = self.send_all(shown)?;
            }
            if given_up.is_some() {
                read_to = line.at;
                break;
            }
            if !line.is_empty() && !self.take(file, &line) {
                // What cannot be sent stays one, as it is.
                self.counts.refused += u64::from(!line.goes_on);
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

    /// Puts a letter's record into the batch; `false` for a line that holds none.
    fn take(&mut self, file: Option<FileIdentity>, line: &Line<'_>) -> bool {
        let (Some(file), Some(record)) = (file, line.record()) else { return false };
        let Some(document) = Document::of(record, &self.redaction) else { return false };
        self.sender.batch.push(&document, Cursor { file, offset: line.at });
        true
    }

    /// Sends until the batch is empty; returns why no more is sent, if so.
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
                // What a person must fix is not gone within a minute, unless another node works.
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

    /// Keeps what is in the batch still, and everything from this place on.
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
            writeln!(shown, "replay: {sent} sent ({} of them were there already)", c.exists)?;
        }
        let left = files(output).pop().unwrap_or_default();
        let left = left.display();
        if c.refused > 0 {
            let refused = c.refused;
            writeln!(shown, "replay: {refused} refused again. Fix the causes that {left} gives, then replay again.")?;
        }
        if let Some(why) = &given_up {
            let unsent = c.total.saturating_sub(sent + c.refused);
            writeln!(shown, "replay: {unsent} not sent, and back in {left}: {why}")?;
        }
        Ok(c.refused == 0 && given_up.is_none())
    }
}

/// Keeps a line as it is, and ends it.
fn keep(line: &Line<'_>, rest: &mut File) -> io::Result<()> {
    rest.write_all(if line.is_piece { line.text } else { line.text.trim_ascii_end() })?;
    if line.is_piece { Ok(()) } else { rest.write_all(b"\n") }
}

/// What is left is `.dead` again, unless the collector has begun a new one.
fn give_name_back(output: &Path) -> io::Result<()> {
    let path = path_of(output);
    let Some(newest) = files(output).pop().filter(|newest| *newest != path) else { return Ok(()) };
    // One that another replay is at keeps its name.
    let Ok(_locked) = open_locked(&newest, false) else { return Ok(()) };
    match renameat_with(CWD, &newest, CWD, &path, RenameFlags::NOREPLACE) {
        // Nor does it matter to a file system that has no such renaming.
        Ok(()) | Err(rustix::io::Errno::EXIST | rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
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
