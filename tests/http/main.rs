//! The HTTP server through its socket.

mod flood;
mod metrics;
mod requests;
mod stage;
