//! Genesys Cloud, as this collector meets it: REST, and the session thread that speaks it.
//!
//! Deals with: token, definitions, topics, channel and subscriptions, the history, and where the socket is to be.
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
