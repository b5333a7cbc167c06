//! The files on the disk: rotation, other programs that move or cut them, and upgrades.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod file;
#[path = "../support/mod.rs"]
mod support;
mod upgrade;
