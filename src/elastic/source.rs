//! Fills the batch from the files. It also counts lines, to report records that were written but are missing from the
//! files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config;
use crate::elastic::batch::{Batch, REQUEST_BYTES_MAX};
use crate::elastic::document::Document;
use crate::elastic::handle::{Progress, Shared};
use crate::elastic::log_reader::{LogReader, Next};
use crate::event::Redaction;

/// Maximum number of bytes that one call reads if all lines are skipped.
const STEP_BYTES_MAX: usize = 2 * REQUEST_BYTES_MAX;

/// The files as the source of documents.
pub struct Source {
    reader: LogReader,
    shared: Arc<Shared>,
    path: PathBuf,
    redaction: Redaction,
    /// Lines that must follow in the files. Negative if lines were read before the writer counted them.
    ahead: i64,
    /// The value of `ahead` at the last call of [`Source::settle`].
    ahead_before: i64,
    is_at_end: bool,
    has_warned: bool,
}

impl Source {
    /// Opens the files at the cursor, or at the oldest file if the cursor's file is gone. Pending records of the last
    /// run that are no longer in the files are reported as lost: here if the cursor's file is gone, otherwise when the
    /// end of the files is reached.
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
            has_warned: false,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether everything in the files was read.
    pub fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    pub fn unread_bytes(&self) -> u64 {
        self.reader.unread_bytes()
    }

    /// The place up to which every record is in the cluster or a dead letter, and the number of records after it;
    /// `None` before the first line.
    pub fn progress(&self, batch: &Batch) -> Option<Progress> {
        let cursor = batch.earliest().or_else(|| self.reader.place())?;
        Some(Progress { cursor, pending: self.ahead.max(0) as u64 + batch.len() as u64 })
    }

    /// Reads documents until the batch is full or the end of the files is reached.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn fill(&mut self, batch: &mut Batch, bulk_size: usize) -> io::Result<()> {
        // Take the count before looking at the files, since lines that are counted later may be in a file that is not
        // known yet.
        self.ahead += self.shared.take_written() as i64;
        self.is_at_end = false;
        self.reader.watch()?;
        let filled = self.read(batch, bulk_size);
        let mut published = self.shared.lock();
        self.ahead -= std::mem::take(&mut published.deleted_lines) as i64;
        if self.is_at_end && self.ahead > 0 {
            log::debug!("{} lines are missing from the files", self.ahead);
            self.shared.report_dropped(&mut published, std::mem::take(&mut self.ahead) as u64);
        }
        filled
    }

    /// To be called every few seconds. The writer counts its lines right after writing them. So lines that were read
    /// but are still not counted by the next call were in the file before the start, or another program wrote them.
    pub fn settle(&mut self) {
        if self.is_at_end && self.ahead == self.ahead_before {
            self.ahead = 0;
        }
        self.ahead_before = self.ahead;
    }

    fn read(&mut self, batch: &mut Batch, bulk_size: usize) -> io::Result<()> {
        let mut read_bytes = 0;
        while batch.len() < bulk_size && read_bytes < STEP_BYTES_MAX {
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
            read_bytes += line.len() + 1;
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

    /// Skips a line that is not a record, and warns about the first one.
    fn skip(&mut self) {
        if !std::mem::replace(&mut self.has_warned, true) {
            log::warn!(
                "{} contains a line that is not a JSON object; such lines are not sent to the cluster",
                self.path.display()
            );
        }
    }
}
