//! The output queue of a socket: any thread adds to it, and the socket's thread writes it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::event::Stored;

/// An entry of the queue.
pub(super) enum Out {
    /// Events, each sent as a text frame. They are formatted only when written, so that a queued burst uses little
    /// memory.
    Events(Arc<[Stored]>),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// Stops reading and writing until the outbox is thawed.
    Freeze,
    /// The end of the stream, after all earlier entries.
    End,
}

/// An immediate end, before all queued entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The connection is closed, even in mid-frame.
    Close,
    /// The connection is reset (RST).
    Reset,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Out>,
    frozen: bool,
    cut: Option<Cut>,
}

pub(super) struct Outbox {
    inner: Mutex<Inner>,
    wake: UnixStream,
}

impl Outbox {
    /// The outbox, and a stream that the socket's thread polls to be woken.
    pub fn pair() -> io::Result<(Arc<Self>, UnixStream)> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        Ok((Arc::new(Self { inner: Mutex::default(), wake }), woken))
    }

    /// Adds an entry to the end of the queue.
    pub fn put(&self, out: Out) {
        self.change(|inner| inner.queue.push_back(out));
    }

    pub fn cut(&self, cut: Cut) {
        self.change(|inner| inner.cut = Some(cut));
    }

    pub fn thaw(&self) {
        self.change(|inner| inner.frozen = false);
    }

    pub fn is_cut(&self) -> Option<Cut> {
        self.lock().cut
    }

    pub fn is_frozen(&self) -> bool {
        self.lock().frozen
    }

    /// Removes the next entry; `None` while frozen.
    pub fn next(&self) -> Option<Out> {
        let mut inner = self.lock();
        if !inner.frozen && matches!(inner.queue.front(), Some(Out::Freeze)) {
            inner.queue.pop_front();
            inner.frozen = true;
        }
        if inner.frozen { None } else { inner.queue.pop_front() }
    }

    /// Changes the outbox and wakes the socket's thread. If the pipe is full, the thread is already awake.
    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.lock());
        let _ = (&self.wake).write(&[1]);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
