//! The cluster: OpenSearch or Elasticsearch, filled from the file.
//!
//! Deals with: reading the file behind a cursor, batches, verdicts, dead letters, the index template. The file is the
//! queue: a document is sent only from what the file holds, and the cursor says what the cluster has. Must never: delay
//! the file, hold more of it in memory than one batch, or move the cursor past a document that is neither in the cluster
//! nor among the dead letters.

mod buried;
pub mod carrier;
mod chain;
pub mod dead;
mod document;
pub mod lines;
mod link;
mod mend;
pub mod probe;
pub mod queue;
mod replay;
pub mod setup;
mod sink;
pub mod template;
pub mod verdict;

pub use carrier::Answer;
pub use replay::{replay, replay_to};
pub use sink::{BacklogDropped, Sink};

pub use crate::output::backups::{Dropped, Keep};
pub use crate::output::identity::{Cursor, FileIdentity};
