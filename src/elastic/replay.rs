//! `audiohook-collector replay`: sends the dead letters to the cluster again.
//!
//! Deals with: taking the letters over from a running collector, sending them, putting back those that are refused again.
//! Must never: lose a letter. A kill at any instant leaves each one in one of the two files; a letter that is done is
//! marked in its place, so that the next replay goes on where this one stopped.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crossbeam_channel::after;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::elastic::carrier::Carrier;
use crate::elastic::dead;
use crate::elastic::document::Document;
use crate::elastic::queue::{Queue, REQUEST_BYTES_MAX};
use crate::elastic::setup::{self, Setup};
use crate::elastic::verdict::{Item, Verdict, judge};
use crate::event::Redaction;
use crate::output::backups::folder;
use crate::output::identity::{Cursor, FileIdentity, identity};

/// A cluster that takes nothing for this long is not waited for any longer.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// Time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two tries.
const RETRY_WAIT: Duration = Duration::from_secs(2);
/// A lock that another process holds for longer than this is another replay's.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(100);
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// What stands in the place of a letter's brace once it is done.
const DONE: u8 = b'#';

/// A line of `OUTPUT_FILE.dead`, as far as it matters here.
#[derive(Deserialize)]
struct Letter<'a> {
    #[serde(borrow)]
    record: &'a RawValue,
}

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
    let carrier = Carrier::new(elastic, network, clock.clone())?;
    let counts = Replay::new(elastic, output, carrier, clock.clone()).run(shown)?;
    Ok(counts.refused == 0 && counts.left == 0)
}

struct Replay {
    output: PathBuf,
    redaction: Redaction,
    carrier: Carrier,
    clock: Clock,
    bulk_size: usize,
    /// The index whose template is to be seen to before the first document makes it.
    setup_due: Option<String>,
    queue: Queue,
    /// Where the letters of the queue's documents begin, in the same order.
    places: Vec<u64>,
    counts: Counts,
    node: usize,
    documents_max: usize,
    bytes_max: usize,
    last_progress: Instant,
    last_shown: Instant,
}

/// Why no more is sent.
struct GivenUp(String);

impl Replay {
    fn new(elastic: &config::Elastic, output: &config::Output, carrier: Carrier, clock: Clock) -> Self {
        let now = clock.now();
        Self {
            output: output.file.clone(),
            redaction: Redaction::new(&output.redact_fields),
            carrier,
            bulk_size: elastic.bulk_size,
            setup_due: elastic.setup.then(|| elastic.index.clone()),
            queue: Queue::new(&elastic.index),
            places: Vec::new(),
            counts: Counts::default(),
            node: 0,
            documents_max: elastic.bulk_size,
            bytes_max: REQUEST_BYTES_MAX,
            last_progress: now,
            last_shown: now,
            clock,
        }
    }

    fn run(mut self, shown: &mut impl Write) -> io::Result<Counts> {
        let Some(letters) = patiently(|| dead::take_over(&self.output))? else {
            writeln!(shown, "replay: there are no dead letters")?;
            return Ok(self.counts);
        };
        self.counts.total = count(&letters)?;
        writeln!(shown, "replay: {} dead letters", self.counts.total)?;
        let file = identity(&letters);
        let mut given_up = None;
        let mut reader = Lines::new(&letters)?;
        while let (Some((place, line)), Some(file)) = (reader.next()?, file) {
            if !self.queue.has_room(line.len()) || self.queue.len() >= self.bulk_size {
                given_up = self.send_all(&letters, shown)?.err();
                if given_up.is_some() {
                    break;
                }
            }
            if !self.take(file, place, line) {
                self.keep(&letters, &[place], [line, b"\n"].concat())?;
            }
        }
        if given_up.is_none() {
            given_up = self.send_all(&letters, shown)?.err();
        }
        if given_up.is_some() {
            self.put_back(&letters)?;
        }
        fs::remove_file(dead::replaying_path(&self.output))?;
        File::open(folder(&self.output))?.sync_all()?;
        self.report(given_up.as_ref(), shown)?;
        Ok(self.counts)
    }

    /// Puts a letter's record into the queue; `false` for a letter that holds none.
    fn take(&mut self, file: FileIdentity, place: u64, line: &[u8]) -> bool {
        let Ok(letter) = serde_json::from_slice::<Letter<'_>>(line) else { return false };
        let Some(document) = Document::of(letter.record.get().as_bytes(), &self.redaction) else { return false };
        self.queue.push(&document.text, &document.fields(), &document.id, Cursor { file, offset: place });
        self.places.push(place);
        true
    }

    /// Sends until the queue is empty.
    fn send_all(&mut self, letters: &File, shown: &mut impl Write) -> io::Result<Result<(), GivenUp>> {
        while !self.queue.is_empty() {
            if let Err(given_up) = self.send_some(letters)? {
                return Ok(Err(given_up));
            }
            if self.clock.now() >= self.last_shown + PROGRESS_EVERY {
                self.last_shown = self.clock.now();
                let c = &self.counts;
                writeln!(shown, "replay: {} of {}", c.created + c.exists + c.refused, c.total)?;
                shown.flush()?;
            }
        }
        Ok(Ok(()))
    }

    fn send_some(&mut self, letters: &File) -> io::Result<Result<(), GivenUp>> {
        let (documents, bytes) = self.queue.fitting(self.documents_max, self.bytes_max);
        let verdict = match self.see_to_template() {
            Err(why) => Verdict::Failed(why),
            Ok(()) => {
                let body = self.queue.take_body();
                let answered = self.carrier.bulk(self.node, &body[..bytes], REQUEST_TIMEOUT);
                self.queue.return_body(body);
                answered.map_or_else(|failure| Verdict::Failed(failure.why), |reply| judge(&reply, documents))
            }
        };
        let (why, wait) = match verdict {
            Verdict::Items(items) => {
                let put_off = items.iter().find_map(|item| match item {
                    Item::Again(why) | Item::Refused(why) | Item::ReadOnly(why) => Some(why.clone()),
                    _ => None,
                });
                let done = self.settle(letters, &items)?;
                match put_off {
                    Some(why) if done == 0 => (why, RETRY_WAIT),
                    _ => return Ok(Ok(())),
                }
            }
            Verdict::TooLarge(reason) if documents == 1 => {
                self.settle(letters, &[Item::Dead { status: 413, reason }])?;
                return Ok(Ok(()));
            }
            Verdict::Malformed(reason) if documents == 1 => {
                self.settle(letters, &[Item::Dead { status: 400, reason }])?;
                return Ok(Ok(()));
            }
            Verdict::TooLarge(_) => {
                self.bytes_max = bytes / 2;
                return Ok(Ok(()));
            }
            Verdict::Malformed(_) => {
                self.documents_max = documents / 2;
                return Ok(Ok(()));
            }
            // What a person must mend does not mend itself within a minute.
            Verdict::Refused(why) | Verdict::ReadOnly(why) => {
                return Ok(Err(GivenUp(format!("{}: {why}", self.carrier.shown(self.node)))));
            }
            Verdict::Busy { why, retry_after } => (why, retry_after.unwrap_or(RETRY_WAIT).max(RETRY_WAIT)),
            Verdict::Failed(why) => (why, RETRY_WAIT),
        };
        let why = format!("{}: {why}", self.carrier.shown(self.node));
        self.node = (self.node + 1) % self.carrier.nodes();
        let deadline = self.last_progress + GIVE_UP_AFTER;
        let now = self.clock.now();
        if now + wait >= deadline {
            return Ok(Err(GivenUp(why)));
        }
        pause(wait);
        Ok(Ok(()))
    }

    /// As the collector does before its first document. What the cluster has against it, it says to the collector.
    fn see_to_template(&mut self) -> Result<(), String> {
        let Some(index) = &self.setup_due else { return Ok(()) };
        if let Setup::Unreachable(why) = setup::put_if_absent(&self.carrier, self.node, index) {
            return Err(why);
        }
        self.setup_due = None;
        Ok(())
    }

    /// Deals with judged letters; returns how many are done.
    fn settle(&mut self, letters: &File, items: &[Item]) -> io::Result<usize> {
        let mut kept = Vec::new();
        let mut done = Vec::new();
        let mut mended = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match item {
                Item::Created => self.counts.created += 1,
                Item::Exists => self.counts.exists += 1,
                item if item.is_refused() && self.queue.mend(index) => {
                    mended.push(index);
                    continue;
                }
                Item::Dead { status, reason } => {
                    self.counts.refused += 1;
                    dead::push_letter(&mut kept, self.clock.wall(), *status, reason, &self.queue.record(index));
                }
                Item::Again(_) | Item::Refused(_) | Item::ReadOnly(_) => continue,
            }
            done.push(self.places[index]);
        }
        let is_done = |index: usize| {
            matches!(items[index], Item::Created | Item::Exists | Item::Dead { .. })
                && mended.binary_search(&index).is_err()
        };
        self.queue.settle(items.len(), self.clock.now(), |index| !is_done(index));
        let mut index = 0;
        self.places.retain(|_| {
            index += 1;
            index > items.len() || !is_done(index - 1)
        });
        if !kept.is_empty() {
            patiently(|| dead::append(&self.output, &kept))?;
        }
        mark(letters, &done)?;
        if !done.is_empty() {
            self.last_progress = self.clock.now();
            self.documents_max = (self.documents_max * 2).min(self.bulk_size);
        }
        Ok(done.len())
    }

    /// A letter that cannot be sent stays one, as it is.
    fn keep(&mut self, letters: &File, places: &[u64], line: Vec<u8>) -> io::Result<()> {
        self.counts.refused += 1;
        patiently(|| dead::append(&self.output, &line))?;
        mark(letters, places)
    }

    /// Gives back what was not sent.
    fn put_back(&mut self, letters: &File) -> io::Result<()> {
        let mut reader = Lines::new(letters)?;
        let (mut lines, mut places) = (Vec::new(), Vec::new());
        loop {
            let next = reader.next()?;
            if next.is_none() || lines.len() >= REQUEST_BYTES_MAX {
                if !lines.is_empty() {
                    patiently(|| dead::append(&self.output, &lines))?;
                    mark(letters, &places)?;
                }
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

    fn report(&self, given_up: Option<&GivenUp>, shown: &mut impl Write) -> io::Result<()> {
        let c = &self.counts;
        writeln!(shown, "replay: {} sent ({} of them were there already)", c.created + c.exists, c.exists)?;
        let letters = dead::letters_path(&self.output);
        if c.refused > 0 {
            writeln!(
                shown,
                "replay: {} refused again: their reasons stand in {}; mend the cause and replay again",
                c.refused,
                letters.display()
            )?;
        }
        if let Some(GivenUp(why)) = given_up {
            writeln!(shown, "replay: {} not sent, and back in {}: {why}", c.left, letters.display())?;
        }
        Ok(())
    }
}

/// Marks letters as done, on the disk.
fn mark(letters: &File, places: &[u64]) -> io::Result<()> {
    for place in places {
        letters.write_all_at(&[DONE], *place)?;
    }
    if places.is_empty() { Ok(()) } else { letters.sync_data() }
}

/// Counts the letters that are not done.
fn count(letters: &File) -> io::Result<u64> {
    let mut reader = Lines::new(letters)?;
    let mut count = 0;
    while reader.next()?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// The letters that are not done, and where each begins.
struct Lines {
    reader: BufReader<Reading>,
    line: Vec<u8>,
    at: u64,
}

/// Reads at its own place: the file's is shared with who appends.
struct Reading {
    file: File,
    at: u64,
}

impl io::Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Lines {
    fn new(letters: &File) -> io::Result<Self> {
        let reading = Reading { file: letters.try_clone()?, at: 0 };
        Ok(Self { reader: BufReader::new(reading), line: Vec::new(), at: 0 })
    }

    fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        loop {
            self.line.clear();
            let read = self.reader.read_until(b'\n', &mut self.line)?;
            if read == 0 {
                return Ok(None);
            }
            self.at += read as u64;
            if !matches!(self.line[0], DONE | b'\n' | b'\r') {
                break;
            }
        }
        let place = self.at - self.line.len() as u64;
        Ok(Some((place, self.line.trim_ascii_end())))
    }
}

/// Does it again while another process holds the lock.
fn patiently<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => pause(LOCK_RETRY),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::other("cannot take the dead letters: another replay is at work"));
            }
            other => return other,
        }
    }
}

fn pause(wait: Duration) {
    let _ = after(wait).recv();
}
