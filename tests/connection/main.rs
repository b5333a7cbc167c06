//! The connection to Genesys Cloud: login, channel, WebSocket, network, and answers of every kind.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod answers;
#[path = "../cluster/mod.rs"]
mod cluster;
mod errors;
mod login;
mod login_and_channel;
mod network;
mod socket;
#[path = "../support/mod.rs"]
mod support;
mod transport;
