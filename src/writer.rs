//! The writer.

pub mod window;
