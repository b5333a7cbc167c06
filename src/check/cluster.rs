//! The cluster: reach, login, version, template, and the right to write.
//!
//! Must never: leave a document behind.

use super::Findings;
use crate::clock::Clock;
use crate::config::Config;

pub(super) fn check(config: &Config, _clock: &Clock, out: &Findings) {
    if config.elastic.is_none() {
        out.ok("cluster", "off: ELASTIC_URL is not set");
    }
}
