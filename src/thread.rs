//! The whole policy for threads: each has a name and a small stack, and one that ends by a panic says so.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Bytes of stack: no stage recurses, and a dozen threads stay within a few MiB.
const STACK_BYTES: usize = 512 * 1024;

/// Starts a named thread.
///
/// # Errors
/// When the system refuses one more.
#[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
pub fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(work)
}
