//! The Genesys Cloud client: REST, and the session thread that uses it.
//!
//! Handles the token, definitions, topics, channel, subscriptions and history, and decides where the socket connects.
//! Must never: know what an event is, or show a secret, a token or a channel's id.

pub mod api;
pub mod backoff;
pub mod channel;
pub mod error;
pub mod history;
pub mod rest;
pub mod service_clock;
pub mod session;
pub mod token;
pub mod topics;
