//! What is to go out on one socket: put in by any thread, written by the socket's own.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::event::Stored;

/// One thing to be written, in turn.
pub(super) enum Out {
    /// Each as a text frame of its own. They are kept as events: a burst costs no frames until it is written.
    Events(Arc<[Stored]>),
    /// These bytes as they are.
    Bytes(Vec<u8>),
    /// Nothing further is read or written, until the outbox is thawed.
    Freeze,
    /// The end of the stream, after all that stood before.
    End,
}

/// An end that waits for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The connection is closed, in mid-frame or not.
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
    /// The outbox, and what its socket's thread polls to be woken.
    pub fn pair() -> io::Result<(Arc<Self>, UnixStream)> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        Ok((Arc::new(Self { inner: Mutex::default(), wake }), woken))
    }

    /// Puts something behind what stands there.
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

    /// The next thing in turn; none while frozen.
    pub fn next(&self) -> Option<Out> {
        let mut inner = self.lock();
        if !inner.frozen && matches!(inner.queue.front(), Some(Out::Freeze)) {
            inner.queue.pop_front();
            inner.frozen = true;
        }
        if inner.frozen { None } else { inner.queue.pop_front() }
    }

    /// Changes it and wakes the socket's thread. A full pipe has woken it already.
    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.lock());
        let _ = (&self.wake).write(&[1]);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
