//! The cluster: reach, login, version, template, and the right to write.
//!
//! Must never: leave a document behind, or put the template; that is the collector's business.

use super::Findings;
use crate::clock::Clock;
use crate::config::{Config, Elastic};
use crate::elastic::probe::{self, Greeting, PROBE_TIMEOUT, Server, Write, greet};
use crate::elastic::setup::{self, Found, Setup};
use crate::elastic::transport::Transport;
use crate::elastic::verdict::Cause;

pub(super) fn check(config: &Config, clock: &Clock, out: &Findings) {
    let Some(elastic) = &config.elastic else {
        return out.ok("cluster", "off: ELASTIC_URL is not set");
    };
    let transport = match Transport::new(elastic, &config.network, clock.clone()) {
        Ok(transport) => transport,
        Err(error) => {
            return out.bad(
                "cluster",
                error,
                "Set ELASTIC_CA_FILE to a file of CA certificates (PEM), and check HTTPS_PROXY.",
            );
        }
    };
    let mut works = None;
    for (node, url) in transport.urls().iter().enumerate() {
        match greet(&transport, node, 2 * PROBE_TIMEOUT) {
            Greeting::Alive(Some(Server { name, .. })) if is_too_old(&name) => out.bad(
                "cluster",
                format_args!("{url} answers: {name}, which has no composable index templates"),
                "Update it to Elasticsearch 7.8 or newer, or to OpenSearch.",
            ),
            Greeting::Alive(server) => {
                let product = server.as_ref().map(|server| server.product).unwrap_or_default();
                let name = server.map_or_else(|| "it does not show this login its version".to_owned(), |s| s.name);
                let login = if elastic.authorization.is_some() { "the login is accepted" } else { "no login is set" };
                out.ok("cluster", format_args!("{url} answers: {name}; {login}"));
                works = works.or(Some((node, product)));
            }
            Greeting::Absent(held) => out.bad("cluster", format_args!("{url}: {}", held.why), held.cure()),
        }
    }
    if let Some((node, product)) = works {
        template(elastic, &Setup { transport: &transport, node, index: &elastic.index, product }, out);
        write(elastic, &transport, node, clock, out);
    }
}

/// Whether this server, as its greeting names it, lacks the index templates that came with Elasticsearch 7.8.
fn is_too_old(server: &str) -> bool {
    let Some(version) = server.strip_prefix("Elasticsearch ") else { return false };
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    numbers.next().is_some_and(|major| (major, numbers.next().unwrap_or(0)) < (7, 8))
}

fn template(elastic: &Elastic, setup: &Setup<'_>, out: &Findings) {
    const NAME: &str = "cluster template";
    match setup.look() {
        Ok(Found::Decided { maps_raw_event: true, .. }) => {
            let problem = setup::dynamic_problem(&elastic.index);
            out.bad(NAME, problem.what, problem.cure);
        }
        Ok(Found::Decided { exists: true, .. }) => out.ok(NAME, format_args!("{} has its mapping", elastic.index)),
        Ok(Found::Decided { .. }) => out.ok(NAME, "there"),
        Ok(Found::Left(why)) => out.ok(NAME, format_args!("left to you: {why}")),
        Ok(Found::Nothing) if elastic.setup => out.ok(NAME, "absent; the collector puts it"),
        Ok(Found::Nothing) => {
            out.ok(NAME, "absent, and ELASTIC_SETUP is false: the cluster guesses each field's type");
        }
        Err(held) if held.is_refusal() && !elastic.setup => {
            out.ok(NAME, format_args!("not visible: {}; ELASTIC_SETUP is false, so it is not needed", held.why));
        }
        Err(held) if held.cause == Cause::Rights => out.bad(
            NAME,
            held.why,
            "Give the user the right to manage index templates, or put what `audiohook-collector template` prints \
             yourself and set ELASTIC_SETUP=false.",
        ),
        Err(held) => out.bad(NAME, &held.why, held.cure()),
    }
}

fn write(elastic: &Elastic, transport: &Transport, node: usize, clock: &Clock, out: &Findings) {
    const NAME: &str = "cluster write";
    let index = &elastic.index;
    match probe::write(transport, node, index, clock) {
        Write::Allowed => out.ok(NAME, format_args!("a document was made in {index} and deleted again")),
        Write::NoIndexYet => {
            out.ok(
                NAME,
                format_args!("not tried: {index} is not there yet, the first event makes it, and a try would too"),
            );
        }
        Write::Left { id, why } => out.bad(
            NAME,
            format_args!("a document was made in {index}, and could not be deleted again: {why}"),
            format_args!("Delete the document {id} by hand. The collector itself needs no right to delete."),
        ),
        Write::Failed(held) => out.bad(NAME, &held.why, held.cure()),
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
