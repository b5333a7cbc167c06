//! What the integration tests share: folders, ports, the real binary, what is in its files, a throw-away CA.
//!
//! Every wait has a deadline. Must never: look at the inside of the collector; it is a process like any other.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

pub mod client;
pub mod collector;
pub mod port;
pub mod proxy;
pub mod records;
pub mod tls;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::after;

pub use client::{Client, Socket};
pub use collector::Collector;
pub use records::{Record, assert_same_set, assert_same_set_within};
pub use tls::Authority;

/// What a machine under load may take for anything that happens at once.
pub const SOON: Duration = Duration::from_secs(10);

/// A folder of a test's own, removed when the test succeeded.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join("audiohook-tests").join(unique);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file into it and gives its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what the test left is in {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A port for a collector, or for what it talks to.
pub fn free_port() -> u16 {
    port::free_port(port::COLLECTORS)
}

/// Asks every few milliseconds until there is an answer, at most this long.
pub fn poll<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        let _ = after(Duration::from_millis(10)).recv();
    }
}

/// Runs this for each case, all at once; fails when it fails for any.
pub fn at_once<T: Send>(cases: impl IntoIterator<Item = T>, run: impl Fn(T) + Sync) {
    let run = &run;
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || run(case));
        }
    });
}

/// Lets time pass: for the tests of what must not happen meanwhile.
pub fn let_pass(time: Duration) {
    let _ = after(time).recv();
}
