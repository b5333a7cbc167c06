//! The HTTP server through its socket.

mod flood;
mod metrics;
#[path = "../support/port.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod port;
mod requests;
mod stage;
