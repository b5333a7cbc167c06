//! The cluster: OpenSearch or Elasticsearch, filled from the file by one thread, the indexer.
//!
//! The file is the queue: a document is sent only from what the file holds, and the cursor says what the cluster has.

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
