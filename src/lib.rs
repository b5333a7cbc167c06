//! Collects Genesys Cloud AudioHook operational events: every one, once, in a file that stays.
//!
//! See ARCHITECTURE in the README for the picture; each module opens with what it deals with and what it must never do.

pub mod clock;
pub mod config;
pub mod elastic;
pub mod message;
pub mod output;
pub mod secret;
pub mod status;
pub mod thread;

use std::process::ExitCode;

/// The program: parses the command line and runs what it names.
pub fn run() -> ExitCode {
    ExitCode::SUCCESS
}
