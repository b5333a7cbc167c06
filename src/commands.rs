//! The commands, each in a module of its own.

pub mod events;
