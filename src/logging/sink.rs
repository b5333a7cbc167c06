//! Writes lines to standard output or standard error, on the only thread that may wait for them.

use std::io::{self, Write};
use std::os::fd::AsFd;

use crossbeam_channel::{Receiver, Sender};

/// A message to the log's thread.
pub enum Message {
    Line(Vec<u8>),
    /// Requests an answer once everything before it is written.
    Flush(Sender<()>),
}

/// Queued lines are combined into writes of about this many bytes.
const GATHERED_BYTES_MAX: usize = 32 * 1024;

/// Standard output or standard error.
pub struct Sink {
    stdout: bool,
}

impl Sink {
    pub fn stdout() -> Self {
        Self { stdout: true }
    }

    pub fn stderr() -> Self {
        Self { stdout: false }
    }

    /// Whether the stream is the journal: systemd puts the device and inode of its stream into JOURNAL_STREAM.
    pub fn is_journal(&self) -> bool {
        let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
        let stat = if self.stdout { identity(io::stdout()) } else { identity(io::stderr()) };
        stat.is_some_and(|stat| stream.to_str() == Some(&stat))
    }

    /// Writes lines until every sender is gone. Write errors are ignored: there is nowhere to report them.
    pub fn run(&self, inbox: &Receiver<Message>) {
        let mut gathered = Vec::new();
        while let Ok(first) = inbox.recv() {
            let mut next = Some(first);
            let mut answer = None;
            while let Some(message) = next {
                match message {
                    Message::Line(line) => gathered.extend_from_slice(&line),
                    Message::Flush(done) => answer = Some(done),
                }
                let more = answer.is_none() && gathered.len() < GATHERED_BYTES_MAX;
                next = if more { inbox.try_recv().ok() } else { None };
            }
            self.write(&gathered);
            gathered.clear();
            if let Some(done) = answer {
                let _ = done.send(());
            }
        }
    }

    fn write(&self, bytes: &[u8]) {
        let _ = if self.stdout {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        } else {
            io::stderr().lock().write_all(bytes)
        };
    }
}

fn identity(stream: impl AsFd) -> Option<String> {
    let stat = rustix::fs::fstat(stream).ok()?;
    Some(format!("{}:{}", stat.st_dev, stat.st_ino))
}
