//! What an operator meets: settings, `check`, the command line, `/health`, the first minute, a stop.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod check;
#[path = "../cluster/mod.rs"]
mod cluster;
mod command_line;
mod events;
mod first_minute;
mod health;
mod health_cluster;
mod secrets;
mod settings;
mod stop;
#[path = "../support/mod.rs"]
mod support;
