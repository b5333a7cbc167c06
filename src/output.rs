//! The output file and what stands beside it.
//!
//! Deals with: the rotated files and what tells one file from another. Must never: know what an event is.

pub mod backups;
pub mod identity;
