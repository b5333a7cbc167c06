//! Checks the cluster: connection, login, version, template, and the right to write. Does not create the template.

use ureq::http::Method;

use super::Findings;
use super::index::{self, Cluster};
use crate::clock::Clock;
use crate::config::{Config, Elastic};
use crate::elastic::probe::{PROBE_TIMEOUT, Server, greet};
use crate::elastic::setup::{self, Found, Setup};
use crate::elastic::transport::{Transport, percent_encoded};
use crate::elastic::verdict::{Cause, Held};
use crate::status::Problem;

pub(super) fn check(config: &Config, clock: &Clock, out: &Findings) {
    let Some(elastic) = &config.elastic else {
        return out.ok("cluster", "off: ELASTIC_URL is not set");
    };
    let transport = match Transport::new(elastic, &config.network, clock.clone()) {
        Ok(transport) => transport,
        Err(error) => return out.problem("cluster", &error),
    };
    let encoded = percent_encoded(&elastic.index);
    let mut works = None;
    for (node, url) in transport.urls().iter().enumerate() {
        let ask = |method: Method, path: &str, body: Option<&str>| ask(&transport, node, method, path, body);
        let cluster = Cluster { ask: &ask, index: &elastic.index, encoded: &encoded };
        match judge(greet(&transport, node, 2 * PROBE_TIMEOUT), &cluster) {
            Ok(server) => {
                let login = if elastic.authorization.is_some() { "login accepted" } else { "no login set" };
                let name = server.as_ref().map_or("version not visible for this login", |server| &server.name);
                out.ok("cluster", format_args!("{url}: {name}; {login}"));
                works = works.or(Some((node, server.map(|server| server.product).unwrap_or_default())));
            }
            Err(problem) => out.bad("cluster", format_args!("{url}: {}", problem.what), problem.cure),
        }
    }
    let Some((node, product)) = works else { return };
    let ask = |method: Method, path: &str, body: Option<&str>| ask(&transport, node, method, path, body);
    let cluster = Cluster { ask: &ask, index: &elastic.index, encoded: &encoded };
    template(elastic, &Setup { transport: &transport, node, index: &elastic.index, product }, out);
    cluster.check_settings(out);
    cluster.check_write(clock, out);
}

/// Sends a request to a node, and masks the login in the response.
fn ask(transport: &Transport, node: usize, method: Method, path: &str, body: Option<&str>) -> index::Answer {
    match transport.call(node, method, path, body.unwrap_or(""), index::REQUEST_TIME_MAX) {
        Ok(reply) => {
            let mut text = String::from_utf8_lossy(&reply.body).into_owned();
            transport.mask(&mut text);
            Ok((reply.status, text.into_bytes()))
        }
        Err(held) => Err(held.why),
    }
}

/// Evaluates a node's response to `GET /`.
fn judge(greeting: Result<Option<Server>, Held>, cluster: &Cluster<'_>) -> Result<Option<Server>, Problem> {
    match greeting {
        Ok(Some(Server { name, .. })) if is_too_old(&name) => Err(Problem::new(
            format!("{name} has no composable index templates"),
            "Upgrade to Elasticsearch 7.8 or newer, or to OpenSearch.",
        )),
        // The login may have no right to see the version, or the server may not be a cluster.
        Ok(None) if !cluster.is_one() => Err(Problem::new(
            "the response does not come from a cluster",
            "Check that ELASTIC_URL is the address of Elasticsearch or OpenSearch, with its path prefix if it has one.",
        )),
        Ok(server) => Ok(server),
        Err(held) => Err(Problem::new(held.why.clone(), held.cure())),
    }
}

fn is_too_old(server: &str) -> bool {
    let Some(version) = server.strip_prefix("Elasticsearch ") else { return false };
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    numbers.next().is_some_and(|major| (major, numbers.next().unwrap_or(0)) < (7, 8))
}

fn template(elastic: &Elastic, setup: &Setup<'_>, out: &Findings) {
    const NAME: &str = "cluster template";
    match setup.look() {
        Ok(Found::Decided { maps_raw_event: true, .. }) => {
            out.problem(NAME, &setup::dynamic_problem(&elastic.index));
        }
        Ok(Found::Decided { exists: true, .. }) => out.ok(NAME, format_args!("{} has its mapping", elastic.index)),
        Ok(Found::Decided { .. }) => out.ok(NAME, "exists"),
        Ok(Found::Left(why)) => out.ok(NAME, format_args!("left to you: {why}")),
        Ok(Found::Nothing) if elastic.setup => out.ok(NAME, "does not exist; the collector will create it"),
        Ok(Found::Nothing) => {
            out.ok(NAME, "does not exist, and ELASTIC_SETUP is false: the cluster will guess the type of each field");
        }
        Err(held) if held.is_refusal() && !elastic.setup => {
            out.ok(NAME, format_args!("not visible: {}; ELASTIC_SETUP is false, so it is not needed", held.why));
        }
        Err(held) if held.cause == Cause::Rights => out.bad(
            NAME,
            held.why,
            "Give the user the right to manage index templates, or create the template that `audiohook-collector template` prints \
             yourself and set ELASTIC_SETUP=false.",
        ),
        Err(held) => out.bad(NAME, &held.why, held.cure()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_without_composable_index_templates_are_known() {
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
