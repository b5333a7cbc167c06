//! The cluster: reach, login, version, template, and the right to write.
//!
//! Must never: leave a document behind, or put the template.

use ureq::http::Method;

use super::Findings;
use super::index::{self, Cluster};
use crate::clock::Clock;
use crate::config::{Config, Elastic};
use crate::elastic::carrier::Carrier;
use crate::elastic::probe::{self, Greeting};
use crate::elastic::setup::{self, Found, Setup};
use crate::status::Problem;

pub(super) fn check(config: &Config, clock: &Clock, out: &Findings) {
    let Some(elastic) = &config.elastic else {
        return out.ok("cluster", "off: ELASTIC_URL is not set");
    };
    let carrier = match Carrier::new(elastic, &config.network, clock.clone()) {
        Ok(carrier) => carrier,
        Err(error) => {
            return out.bad(
                "cluster",
                error,
                "Set ELASTIC_CA_FILE to a file of CA certificates (PEM), and check HTTPS_PROXY.",
            );
        }
    };
    let encoded = setup::encoded(&elastic.index);
    let mut works = None;
    for (node, (shown, greeting)) in probe::reach(&carrier).into_iter().enumerate() {
        let ask = |method: Method, path: &str, body: Option<&str>| {
            let answer = carrier.call(node, method, path, body, index::REQUEST_TIME_MAX);
            answer.map(|reply| (reply.status, reply.body)).map_err(|failure| failure.why)
        };
        let cluster = Cluster { ask: &ask, index: &elastic.index, encoded: &encoded };
        match judge(greeting, elastic.authorization.is_some(), &cluster) {
            Ok(found) => {
                out.ok("cluster", format_args!("{shown}: {found}"));
                works = works.or(Some(node));
            }
            Err(problem) => out.bad("cluster", format_args!("{shown}: {}", problem.what), problem.cure),
        }
    }
    let Some(node) = works else { return };
    let ask = |method: Method, path: &str, body: Option<&str>| {
        let answer = carrier.call(node, method, path, body, index::REQUEST_TIME_MAX);
        answer.map(|reply| (reply.status, reply.body)).map_err(|failure| failure.why)
    };
    let cluster = Cluster { ask: &ask, index: &elastic.index, encoded: &encoded };
    template(elastic, &carrier, node, out);
    cluster.check_settings(out);
    cluster.check_write(clock, out);
}

/// What a node's greeting shows, or what is wrong with it.
fn judge(greeting: Greeting, has_login: bool, cluster: &Cluster<'_>) -> Result<String, Problem> {
    const REACH: &str = "Check that the cluster is up and that ELASTIC_URL is right.";
    match greeting {
        Greeting::Alive { server: Some(server) } if is_too_old(&server) => Err(Problem::new(
            format!("{server} has no composable index templates"),
            "Update it to Elasticsearch 7.8 or newer, or to OpenSearch.",
        )),
        Greeting::Alive { server: None } if !cluster.is_one() => Err(Problem::new(
            "it answers, but not as a cluster",
            "Check that ELASTIC_URL is the address of Elasticsearch or OpenSearch, with its path prefix if it has one.",
        )),
        Greeting::Alive { server } => {
            let server = server.unwrap_or_else(|| "version not visible for this login".to_owned());
            Ok(format!("{server}; {}", if has_login { "login accepted" } else { "no login set" }))
        }
        Greeting::Refused(why) => {
            Err(Problem::new(why, "Check ELASTIC_AUTH: user:pass, \"ApiKey …\" or \"Bearer …\"."))
        }
        // A dial's cure speaks of any peer.
        Greeting::Absent(why) => Err(Problem::new(why.split("; ").next().unwrap_or_default(), REACH)),
    }
}

/// Whether this server, as its greeting names it, lacks the index templates that came with Elasticsearch 7.8.
fn is_too_old(server: &str) -> bool {
    let Some(version) = server.strip_prefix("Elasticsearch ") else { return false };
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    numbers.next().is_some_and(|major| (major, numbers.next().unwrap_or(0)) < (7, 8))
}

fn template(elastic: &Elastic, carrier: &Carrier, node: usize, out: &Findings) {
    const NAME: &str = "cluster template";
    const CURE: &str = "Give the user the right to manage index templates, or put what `audiohook-collector template` \
                        prints yourself and set ELASTIC_SETUP=false.";
    match probe::template(carrier, node, &elastic.index) {
        Ok(Found::Present) => out.ok(NAME, "there"),
        Ok(Found::Left(why)) => out.ok(NAME, format_args!("left to you: {why}")),
        Ok(Found::Absent { decides, .. }) => {
            let next = if elastic.setup {
                "absent; the collector creates it"
            } else {
                "absent, and ELASTIC_SETUP is false: the cluster guesses each field's type"
            };
            let other = decides.map_or_else(String::new, |name| format!("; until then the template {name:?} decides"));
            out.ok(NAME, format_args!("{next}{other}"));
        }
        Err(Setup::Refused(why)) if elastic.setup => out.bad(NAME, why, CURE),
        Err(Setup::Refused(why)) => {
            out.ok(NAME, format_args!("not visible: {why}; ELASTIC_SETUP is false, so it is not needed"))
        }
        Err(Setup::Failed(why) | Setup::Busy(why) | Setup::Unreachable(why)) => {
            out.bad(NAME, why, "Check the cluster's log.");
        }
        Err(other) => out.ok(NAME, format_args!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_without_index_templates_of_todays_kind_are_known() {
        for old in ["Elasticsearch 7.7.1", "Elasticsearch 6.8.23", "Elasticsearch 2.4"] {
            assert!(is_too_old(old), "{old}");
        }
        for new in [
            "Elasticsearch 7.8.0",
            "Elasticsearch 7.17.27",
            "Elasticsearch 8.17.0-SNAPSHOT",
            "OpenSearch 1.0.0",
            "Elasticsearch x",
        ] {
            assert!(!is_too_old(new), "{new}");
        }
    }
}
