//! The cluster's side through the front door: a real file, a sink, and a cluster that misbehaves.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "../cluster/mod.rs"]
mod cluster;
mod cluster_health;
mod files;
mod outages;
mod refusals;
mod replay;
mod sending;
mod setup;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
