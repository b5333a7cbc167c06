//! Indexing into a cluster of OpenSearch or Elasticsearch, by one thread, the indexer.
//!
//! The output file is the queue: only documents that are in the file are sent, and the cursor marks how far the cluster
//! has them.

pub mod batch;
pub mod dead_letters;
mod dedup_keys;
pub mod document;
mod handle;
mod indexer;
mod log_reader;
mod nodes;
pub mod probe;
mod replay;
mod segments;
mod sender;
pub mod setup;
mod source;
pub mod template;
pub mod transport;
pub mod verdict;

pub use crate::output::identity::{Cursor, FileIdentity};
pub use handle::{BacklogDropped, IndexerHandle, Progress};
pub use indexer::Indexer;
pub use replay::{replay, replay_to};
