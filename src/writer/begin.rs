//! Starts the writer: takes the lock, opens the file, reads the state, and fills the index from the files.
//!
//! Must never: delay readiness. The files are read afterwards.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use super::intake::Intake;
use super::state::{self, State};
use super::unreadable::Unreadable;
use super::{LOGGED_EVENTS_MAX, Writer};
use crate::clock::{Clock, Millis, format_millis};
use crate::config::{Config, Delivery};
use crate::dedup::RECEIPT_DELAY_MS;
use crate::elastic::Indexer;
use crate::event::{Definitions, Line, Redaction};
use crate::logging::Rate;
use crate::message::{Definition, HISTORY_KEPT_MS, Purpose, SessionEvent, Start};
use crate::output::records::{self, Held};
use crate::output::{Flow, Lock, OutputFile};
use crate::status::{self, Problem, Status};

/// The reason given for a quarantined last line.
const TORN: &str = "the last line of the output file was torn";
/// What to do about a file that cannot be written.
const USER_MUST_WRITE: &str =
    "Check the free space, and that the user that runs the collector may read and write there.";

/// How much further back a very first start reads its predecessor's file: beyond its origin by this machine's clock.
const CLOCK_SLACK_MS: i64 = 3_600_000;

impl Writer {
    /// Takes the lock, opens the file and reads the state. Fast for files of any size, because [`Writer::run`] reads
    /// their records.
    ///
    /// # Errors
    /// When another collector holds the file's lock, or a file cannot be opened.
    pub fn open(
        config: Arc<Config>,
        status: Arc<Status>,
        clock: Clock,
        session: Sender<SessionEvent>,
    ) -> Result<(Self, Start), Problem> {
        make_folder("OUTPUT_FILE", &config.output.file)?;
        make_folder("STATE_FILE", &config.output.state_file)?;
        let lock = Lock::take(&config.output.file)?;
        let (output, unreadable) = open_output(&config, clock.wall())?;
        let mut state = begin_state(&config, clock.wall())?;
        if state.file.is_some_and(|file| !records::is_there(&config.output.file, file)) {
            state.taken_away_ms = Some(clock.wall());
        }
        let checkpoint = state.checkpoint_ms.unwrap_or_else(|| clock.wall());
        let start = Start {
            checkpoint,
            origin: state.origin_ms.unwrap_or(checkpoint),
            by_wall: state.by_wall,
            coverage: state.coverage.clone(),
            definitions: state.definitions.clone(),
            channel: state.channel.clone(),
        };
        if config.genesys.delivery != Delivery::Websocket {
            status.gauges.checkpoint.set(start.checkpoint);
        }
        Ok((Self::new(config, status, clock, session, lock, (output, unreadable), state), start))
    }

    /// Opens the file for an audit that repairs. It holds the lock and writes rows while no collector runs.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn for_repair(config: &Config, lock: Lock, definitions: &[Definition], clock: &Clock) -> Result<Self, Problem> {
        let (output, unreadable) = open_output(config, clock.wall())?;
        // The cluster's cursor keeps a rotation from deleting records that the cluster does not have yet.
        let state = state::read_beside(&config.output.state_file);
        let status = Arc::new(Status::new(clock.clone(), false));
        let (session, _) = bounded(0);
        let state = state.unwrap_or_default();
        let mut writer =
            Self::new(Arc::new(config.clone()), status, clock.clone(), session, lock, (output, unreadable), state);
        writer.intake.definitions = Definitions::new(definitions);
        Ok(writer)
    }

    /// Appends these rows without checking whether the file has them, and makes them durable.
    ///
    /// # Errors
    /// When the file cannot be written or synced.
    pub fn append_rows<'r>(&mut self, rows: impl Iterator<Item = (&'r str, Millis)>) -> Result<(), Problem> {
        // As during a stop: do not wait long for a failing disk.
        let (_, stop) = bounded(0);
        self.intake.append_rows(rows);
        self.flush(&stop)?;
        self.sync(&stop)
    }

    fn new(
        config: Arc<Config>,
        status: Arc<Status>,
        clock: Clock,
        session: Sender<SessionEvent>,
        lock: Lock,
        (output, unreadable): (OutputFile, Unreadable),
        state: State,
    ) -> Self {
        let redaction = Redaction::new(&config.output.redact_fields);
        let beat = status.beats.register("writer");
        let overlap_ms = config.catch_up.overlap.as_millis() as i64;
        let now = clock.now();
        Self {
            intake: Intake::new(redaction, overlap_ms),
            purpose: Purpose::CatchUp,
            until: Millis::MAX,
            config,
            status,
            clock,
            session,
            outbox: VecDeque::new(),
            output,
            lock,
            state,
            state_dirty: false,
            file_refuses: false,
            unreadable,
            unreadable_last: None,
            quarantine_failed: false,
            indexer: None,
            trimmed_at: None,
            cursor_kept: now,
            log_rate: Rate::new(LOGGED_EVENTS_MAX, Duration::from_secs(1)),
            beat,
            ticked: now,
        }
    }

    /// Starts the thread that fills the cluster from the file, at the position in the state. Returns `None` if no
    /// cluster is configured.
    ///
    /// # Errors
    /// When the file or the CA's file cannot be read.
    pub fn start_indexer(&mut self) -> Result<Option<JoinHandle<()>>, Problem> {
        let Some(elastic) = &self.config.elastic else { return Ok(None) };
        let (output, network) = (&self.config.output, &self.config.network);
        let kept = (self.state.cursor, self.state.backlog_dropped);
        let started = Indexer::start(elastic, output, network, kept, self.status.clone(), self.clock.clone());
        let (handle, thread) = started?;
        self.indexer = Some(handle);
        Ok(Some(thread))
    }

    /// Reads the index and the newest records from the files.
    pub(super) fn load(&mut self) -> Result<(), Problem> {
        self.beat.busy();
        // The service's clock may turn out to be slower than this machine's.
        let slack = if self.state.by_wall { CLOCK_SLACK_MS } else { 0 };
        let horizon = self.state.checkpoint_ms.unwrap_or(0) - self.reach_ms() - slack;
        let begun = self.clock.now();
        let index = RefCell::new(&mut self.intake.index);
        let row_delay_ms = self.config.catch_up.overlap.as_millis() as i64 + RECEIPT_DELAY_MS;
        let (newest, newest_bytes) = (RefCell::new(Vec::new()), Cell::new(0));
        let full = || status::is_full(newest.borrow().len(), newest_bytes.get());
        let redaction = &self.intake.redaction;
        let horizon_now = || horizon.max(index.borrow().complete_since());
        let record = |text: &str, line: &Line<'_>| {
            if !full()
                && let Some(shown) = redaction.line(text, &line.id.to_string())
            {
                newest_bytes.set(newest_bytes.get() + shown.len());
                newest.borrow_mut().push(shown.into_owned().into_bytes());
            }
            let (content, record) = records::observation(line, row_delay_ms);
            if record.at >= horizon_now() {
                index.borrow_mut().insert(content, record);
            } else {
                // The files may have older records, which are not indexed.
                index.borrow_mut().filled_since(horizon);
            }
            Flow::On
        };
        // Read as many records as are shown, however old they are.
        let wanted = || if full() { horizon_now() } else { Millis::MIN };
        records::each_since(self.output.path(), wanted, record, || self.beat.busy()).map_err(|error| {
            let what = format!("cannot read {} and its backups: {error}", self.output.path().display());
            Problem::new(what, "Check the disk and the files' permissions, then start the collector again.")
        })?;
        self.status.recent.extend(newest.borrow().iter().rev().map(Vec::as_slice));
        let known = self.intake.index.len();
        if known > 0 {
            let ms = (self.clock.now() - begun).as_millis();
            log::info!("indexed the {known} newest events of the files in {ms} ms");
        }
        self.intake.definitions = Definitions::new(&self.state.definitions);
        self.publish_index();
        Ok(())
    }
}

/// Opens the output file. A last line that a crash left incomplete is quarantined.
fn open_output(config: &Config, now: Millis) -> Result<(OutputFile, Unreadable), Problem> {
    let path = &config.output.file;
    let max_size = (config.output.backup_count > 0).then_some(config.output.max_file_size);
    let (output, torn) = OutputFile::open(path, max_size).map_err(|error| {
        let cure = match error.kind() {
            std::io::ErrorKind::ResourceBusy => "Stop the other collector, or give this one a file of its own.",
            _ => USER_MUST_WRITE,
        };
        Problem::new(format!("cannot open OUTPUT_FILE {}: {error}", path.display()), cure)
    })?;
    let mut unreadable = Unreadable::new(path, config.output.redact_fields.is_empty());
    if let Some(torn) = torn {
        log::warn!(
            "the last line of {} was incomplete and is quarantined; its event is read from the history again",
            path.display()
        );
        if let Err(error) = unreadable.keep(now, TORN, &torn) {
            log::error!("cannot quarantine an incomplete line: {error}");
        }
    }
    Ok((output, unreadable))
}

/// Creates the folder of this setting's file if it does not exist.
fn make_folder(setting: &str, path: &Path) -> Result<(), Problem> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    std::fs::create_dir_all(folder).map_err(|error| {
        let what = format!("cannot create the folder of {setting} {}: {error}", path.display());
        Problem::new(what, "Create the folder, and give the user that runs the collector the right to write to it.")
    })
}

/// A state of format 1 does not record which definitions were read. All of them are read again, from where the files
/// still have what was collected before. The overlap, which any start reads again, is read again in any case.
fn upgraded(state: State, config: &Config) -> State {
    let (true, Some(checkpoint)) = (state.format < state::FORMAT, state.checkpoint_ms) else { return state };
    let begin = state.origin_ms.unwrap_or(checkpoint - HISTORY_KEPT_MS);
    let overlap_from = checkpoint - config.catch_up.overlap.as_millis() as i64;
    let held_from =
        Held::of(&config.output, state.taken_away_ms).cut(begin, checkpoint).map_or(checkpoint, |(from, _)| from);
    State { origin_ms: Some(held_from.min(overlap_from).max(begin)), ..state }
}

/// The initial state. The origin of a first start is saved at once, because it must not move with a restart.
fn begin_state(config: &Config, wall: Millis) -> Result<State, Problem> {
    let path = &config.output.state_file;
    let cannot = |verb: &str, error: std::io::Error| {
        Problem::new(format!("cannot {verb} STATE_FILE {}: {error}", path.display()), USER_MUST_WRITE)
    };
    let found = state::read(path).map_err(|error| cannot("read", error))?;
    let state = match found {
        state::Found::State(state) if state.checkpoint_ms.is_some() => return Ok(upgraded(*state, config)),
        state::Found::State(state) => *state,
        state::Found::Absent => State::default(),
        state::Found::Damaged { aside, why } => {
            log::warn!(
                "STATE_FILE {} is damaged ({why}) and was renamed to {}; the output file shows where to begin",
                path.display(),
                aside.display()
            );
            State::default()
        }
    };
    let first = wall - (config.catch_up.start.as_millis() as i64).min(HISTORY_KEPT_MS);
    let oldest = records::oldest_of_ours(&records::files(&config.output.file));
    let checkpoint = match oldest.map(|oldest| oldest.max(wall - HISTORY_KEPT_MS)) {
        None => first,
        // Nothing was removed from the files, so duplicates are recognized. Read everything again, because a first
        // catch-up may not have completed.
        Some(oldest) if Held::of(&config.output, None) == Held::Everything => oldest.min(first),
        // Removed records must not be written again, but slightly older events may still have been on their way.
        Some(oldest) => {
            let begin = oldest - config.catch_up.overlap.as_millis() as i64;
            log::warn!(
                "there is no checkpoint: the history is read from {} on, CATCH_UP_OVERLAP before the oldest record of the files; older events may have been collected and moved away, and are not read again",
                format_millis(begin)
            );
            begin
        }
    };
    let by_wall = oldest.is_none();
    let state = State { checkpoint_ms: Some(checkpoint), origin_ms: Some(checkpoint), by_wall, ..state };
    state::write(path, &state).map_err(|error| cannot("write", error))?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::config::Need;

    const NOW: Millis = 1_795_430_645_000;

    #[test]
    fn a_state_of_the_first_format_reads_the_overlap_again_whatever_the_files_show() {
        let folder = std::env::temp_dir().join(format!("audiohook-upgrade-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (settings, output) = (folder.join("empty.env"), folder.join("events.jsonl"));
        std::fs::write(&settings, "").unwrap();
        let environment = [("OUTPUT_FILE".into(), OsString::from(&output)), ("BACKUP_COUNT".into(), "0".into())].into();
        let config = Config::load(Need::Nothing, &environment, Some(&settings)).unwrap();
        let overlap_ms = config.catch_up.overlap.as_millis() as i64;
        let begin = NOW - 5 * 24 * 3_600_000;
        let old = |origin_ms| State { format: 1, checkpoint_ms: Some(NOW), origin_ms, ..State::default() };
        // Another program's rotation has just moved the file away.
        assert_eq!(Held::of(&config.output, None), Held::Nothing);
        assert_eq!(upgraded(old(Some(begin)), &config).origin_ms, Some(NOW - overlap_ms));
        assert_eq!(upgraded(old(Some(NOW - 1_000)), &config).origin_ms, Some(NOW - 1_000));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
