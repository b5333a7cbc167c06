//! Fills the batch from the files, and keeps count: whatever was written and is not found is a loss to report.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::config;
use crate::elastic::batch::{Batch, REQUEST_BYTES_MAX};
use crate::elastic::document::Document;
use crate::elastic::handle::{Progress, Shared};
use crate::elastic::log_reader::{LogReader, Next};
use crate::event::Redaction;
use crate::output::identity::Cursor;

/// Bytes that one step looks through, at most, when it finds nothing but lines to be skipped.
const STEP_BYTES_MAX: usize = 2 * REQUEST_BYTES_MAX;

/// The files as the source of documents.
pub struct Source {
    reader: LogReader,
    path: PathBuf,
    redaction: Redaction,
    /// Lines that must be in the files behind what was read. Less than 0: lines were read before they were counted.
    ahead: i64,
    /// Where the last run was, until the files were counted.
    previous: Option<Progress>,
    /// Whether the cursor's file was found.
    found: bool,
    is_at_end: bool,
    /// The cursor while the file that comes next has no line yet.
    passed: Option<Cursor>,
    /// Deletions of files that are known.
    deletions: u32,
    skipped_said: bool,
}

impl Source {
    /// Opens the files at the cursor; where its file is gone, at the oldest that is there.
    ///
    /// # Errors
    /// When the folder or a file cannot be read.
    pub fn open(output: &config::Output, previous: Option<Progress>, rotation: Arc<Mutex<()>>) -> io::Result<Self> {
        let cursor = previous.map(|progress| progress.cursor);
        let (reader, found) = LogReader::open(&output.file, &output.state_file, cursor, rotation)?;
        if cursor.is_some() && !found {
            log::warn!(
                "the file that was being sent to the cluster is gone; sending all files of {} again, without duplicates",
                output.file.display()
            );
        }
        Ok(Self {
            reader,
            path: output.file.clone(),
            redaction: Redaction::new(&output.redact_fields),
            ahead: 0,
            previous,
            found,
            is_at_end: false,
            passed: None,
            deletions: 0,
            skipped_said: false,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether everything that is in the files was read.
    pub fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    pub fn unread_bytes(&self) -> u64 {
        self.reader.unread_bytes()
    }

    /// Counts what is in the files, unless the state says it. What the last run left behind and is not there any more, is
    /// lost: behind a cursor whose file is there, the end of the files shows it.
    pub fn count(&mut self, shared: &Shared) {
        let pending = self.previous.take().map_or(0, |progress| progress.pending);
        if self.found && pending > 0 {
            self.ahead += pending as i64;
            return;
        }
        match self.reader.count_unread() {
            Ok(lines) => {
                shared.report_dropped(&mut shared.lock(), pending.saturating_sub(lines));
                self.ahead += lines as i64;
            }
            Err(error) => log::error!("cannot read {}: {error}", self.path.display()),
        }
    }

    /// Up to where the cluster, or the dead letters, have everything; `None` before the first line.
    pub fn progress(&self, batch: &Batch) -> Option<Progress> {
        let cursor = batch.earliest().or_else(|| self.reader.place()).or(self.passed)?;
        let pending = self.previous.map(|progress| progress.pending);
        let counted = u64::try_from(self.ahead).unwrap_or(0) + batch.len() as u64;
        Some(Progress { cursor, pending: pending.unwrap_or(counted) })
    }

    /// Reads documents until the batch is full or everything was read.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn fill(&mut self, batch: &mut Batch, bulk_size: usize, shared: &Shared) -> io::Result<()> {
        let (before, ahead_before) = (batch.len(), self.ahead);
        // Before the files are looked at: lines that are counted later may be in a file that is begun meanwhile.
        let written = shared.take_written() as i64;
        self.ahead += written;
        self.reader.watch()?;
        let filled = self.read(batch, bulk_size);
        let mut published = shared.lock();
        if published.deletions != self.deletions {
            // Files were deleted for their size. Whatever was read from them since the last time was counted as lost with
            // them, and is let go.
            self.deletions = published.deletions;
            self.ahead = ahead_before + written - std::mem::take(&mut published.deleted_lines) as i64;
            drop(published);
            batch.truncate(before);
            self.is_at_end = false;
            return self.reader.skip_deleted();
        }
        if self.is_at_end && self.ahead > 0 {
            log::debug!("{} lines are gone from the files", self.ahead);
            shared.report_dropped(&mut published, std::mem::take(&mut self.ahead) as u64);
        } else if self.is_at_end && written == 0 && self.ahead == ahead_before {
            self.ahead = 0;
        }
        self.passed = self.reader.place().or(self.passed);
        published.read = self.passed;
        filled
    }

    fn read(&mut self, batch: &mut Batch, bulk_size: usize) -> io::Result<()> {
        self.is_at_end = false;
        let mut looked_at = 0;
        while batch.len() < bulk_size && looked_at < STEP_BYTES_MAX {
            let (line, at) = match self.reader.next()? {
                Next::Line(line, at) => (line.trim_ascii(), at),
                Next::End => {
                    self.is_at_end = true;
                    return Ok(());
                }
                Next::Torn => {
                    self.skip();
                    continue;
                }
                Next::TooLong => {
                    self.ahead -= 1;
                    self.skip();
                    continue;
                }
            };
            let document = Document::of(line, &self.redaction);
            if !batch.has_room(document.as_ref().map_or(line.len(), |document| document.text.len())) {
                return Ok(());
            }
            looked_at += line.len() + 1;
            self.ahead -= 1;
            let is_record = document.is_some() || line.is_empty();
            if let Some(document) = document {
                batch.push(&document, at);
            }
            if !is_record {
                self.skip();
            }
            self.reader.pass();
        }
        Ok(())
    }

    /// A line that is no record is never the cluster's.
    fn skip(&mut self) {
        if !std::mem::replace(&mut self.skipped_said, true) {
            log::warn!(
                "{} contains a line that is not a JSON object; such lines are not sent to the cluster",
                self.path.display()
            );
        }
    }
}
