//! What is to go out on one socket, said by any thread and written by the socket's own.
//!
//! Deals with: the queue, and what overtakes it (a cut, a thaw). Must never: block who puts something in.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::event::Stored;

/// One thing to be written, in turn.
pub(super) enum Out {
    /// Each as a text frame of its own. They are kept as events: a burst costs no frames until it is written.
    Events(Arc<[Stored]>),
    /// These bytes as they are.
    Bytes(Vec<u8>),
    /// These bytes, so many at a time, with a pause between.
    Pieces { bytes: Vec<u8>, size: usize, pause: Duration },
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
    wake: Option<UnixStream>,
}

impl Outbox {
    /// The outbox, and what its socket's thread polls to be woken.
    pub fn pair() -> io::Result<(Arc<Self>, UnixStream)> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        Ok((Arc::new(Self { inner: Mutex::default(), wake: Some(wake) }), woken))
    }

    /// One without a socket: it stands for somebody else's connection.
    pub fn detached() -> Self {
        Self { inner: Mutex::default(), wake: None }
    }

    /// Whether it belongs to a socket of this service.
    pub fn is_attached(&self) -> bool {
        self.wake.is_some()
    }

    /// Lost without a socket, like everything that is sent while none is open.
    pub fn put(&self, out: Out) {
        if self.is_attached() {
            self.lock().queue.push_back(out);
            self.wake();
        }
    }

    pub fn cut(&self, cut: Cut) {
        self.lock().cut = Some(cut);
        self.wake();
    }

    pub fn freeze_now(&self) {
        self.lock().frozen = true;
        self.wake();
    }

    pub fn thaw(&self) {
        self.lock().frozen = false;
        self.wake();
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
        if inner.frozen {
            return None;
        }
        match inner.queue.pop_front()? {
            Out::Freeze => {
                inner.frozen = true;
                None
            }
            out => Some(out),
        }
    }

    /// A full pipe has woken the thread already.
    fn wake(&self) {
        if let Some(mut wake) = self.wake.as_ref() {
            let _ = wake.write(&[1]);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
