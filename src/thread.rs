//! The only place that spawns threads. Each has a name and a small stack; `logging` logs a panic with the thread's
//! name.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Stack size in bytes. No stage recurses, and a dozen threads stay within a few MiB.
const STACK_BYTES: usize = 512 * 1024;

/// Starts a named thread.
///
/// # Errors
/// When the system cannot start another thread.
#[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
pub fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(work)
}
