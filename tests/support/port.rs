//! Ports for servers that are told theirs before they listen on it.
//!
//! They are below those that systems give to whoever asks for any: none becomes somebody's own end of a connection before
//! its server is there.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Of collectors and of what they talk to.
pub const COLLECTORS: Range<u16> = 10_000..20_000;

/// Of search engines.
pub const ENGINES: Range<u16> = 20_000..30_000;

/// A port of these that nobody listens on, and that no other caller in this process is given; other processes begin
/// far from here, also those with the next numbers: by the golden section of 10,000.
pub fn free_port(of: Range<u16>) -> u16 {
    static GIVEN: AtomicUsize = AtomicUsize::new(0);
    let begin = std::process::id() as usize * 6_181;
    loop {
        let place = (begin + GIVEN.fetch_add(1, Relaxed)) % of.len();
        let port = of.start + place as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
