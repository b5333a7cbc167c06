//! Fills the batch from the files, and keeps count: whatever was written and is not found is a loss to report.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config;
use crate::elastic::batch::{Batch, REQUEST_BYTES_MAX};
use crate::elastic::document::Document;
use crate::elastic::handle::{Progress, Shared};
use crate::elastic::log_reader::{LogReader, Next};
use crate::event::Redaction;

/// Bytes that one step looks through, at most, when it finds nothing but lines to be skipped.
const STEP_BYTES_MAX: usize = 2 * REQUEST_BYTES_MAX;

/// The files as the source of documents.
pub struct Source {
    reader: LogReader,
    shared: Arc<Shared>,
    path: PathBuf,
    redaction: Redaction,
    /// Lines that must be in the files behind what was read. Less than 0: lines were read before they were counted.
    ahead: i64,
    /// What it was when [`Source::settle`] was called last.
    ahead_before: i64,
    is_at_end: bool,
    skipped_said: bool,
}

impl Source {
    /// Opens the files at the cursor; where its file is gone, at the oldest that is there. What the last run left behind
    /// and is not there any more, is lost: behind a cursor whose file is there, the end of the files shows it.
    ///
    /// # Errors
    /// When the folder or a file cannot be read.
    pub fn open(output: &config::Output, previous: Option<Progress>, shared: Arc<Shared>) -> io::Result<Self> {
        let cursor = previous.map(|progress| progress.cursor);
        let (reader, found) = LogReader::open(&output.file, cursor, shared.clone())?;
        let pending = previous.map_or(0, |progress| progress.pending);
        let ahead = if found { pending } else { reader.count_unread()? };
        if cursor.is_some() && !found {
            log::warn!(
                "the file that was being sent to the cluster is gone; sending all files of {} again, without duplicates",
                output.file.display()
            );
            shared.report_dropped(&mut shared.lock(), pending.saturating_sub(ahead));
        }
        Ok(Self {
            reader,
            shared,
            path: output.file.clone(),
            redaction: Redaction::new(&output.redact_fields),
            ahead: ahead as i64,
            ahead_before: 0,
            is_at_end: false,
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

    /// Up to where the cluster, or the dead letters, have everything; `None` before the first line.
    pub fn progress(&self, batch: &Batch) -> Option<Progress> {
        let cursor = batch.earliest().or_else(|| self.reader.place())?;
        Some(Progress { cursor, pending: self.ahead.max(0) as u64 + batch.len() as u64 })
    }

    /// Reads documents until the batch is full or everything was read.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn fill(&mut self, batch: &mut Batch, bulk_size: usize) -> io::Result<()> {
        // Before the files are looked at: lines that are counted later may be in a file that is begun meanwhile.
        self.ahead += self.shared.take_written() as i64;
        self.is_at_end = false;
        self.reader.watch()?;
        let filled = self.read(batch, bulk_size);
        let mut published = self.shared.lock();
        self.ahead -= std::mem::take(&mut published.deleted_lines) as i64;
        if self.is_at_end && self.ahead > 0 {
            log::debug!("{} lines are gone from the files", self.ahead);
            self.shared.report_dropped(&mut published, std::mem::take(&mut self.ahead) as u64);
        }
        filled
    }

    /// To be called every few seconds: the writer counts its lines as soon as they are in the file, so what was read and is
    /// not counted by now never is. It was there before the start, or somebody else wrote it.
    pub fn settle(&mut self) {
        if self.is_at_end && self.ahead == self.ahead_before {
            self.ahead = 0;
        }
        self.ahead_before = self.ahead;
    }

    fn read(&mut self, batch: &mut Batch, bulk_size: usize) -> io::Result<()> {
        let mut looked_at = 0;
        while batch.len() < bulk_size && looked_at < STEP_BYTES_MAX {
            let (line, at) = match self.reader.next()? {
                Next::Line(line, at) => (line.trim_ascii(), at),
                Next::Fragment => {
                    self.skip();
                    continue;
                }
                Next::End => {
                    self.is_at_end = true;
                    return Ok(());
                }
            };
            let document = Document::of(line, &self.redaction);
            if !batch.has_room(document.as_ref().map_or(line.len(), |document| document.text.len())) {
                return Ok(());
            }
            looked_at += line.len() + 1;
            self.ahead -= 1;
            match document {
                Some(document) => batch.push(&document, at),
                None if line.is_empty() => {}
                None => self.skip(),
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
