//! The cluster: reach, login, version, template, and the right to write.
//!
//! Must never: leave a document behind, or put the template; that is the collector's business.

use super::Findings;
use crate::clock::Clock;
use crate::config::{Config, Elastic};
use crate::elastic::carrier::Carrier;
use crate::elastic::probe::{self, Greeting, Write};
use crate::elastic::setup::{Found, Setup};

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
                "set ELASTIC_CA_FILE to a file of CA certificates (PEM), and HTTPS_PROXY right",
            );
        }
    };
    let mut works = None;
    for (node, (shown, greeting)) in probe::reach(&carrier).into_iter().enumerate() {
        match greeting {
            Greeting::Alive { server: Some(server) } if is_too_old(&server) => out.bad(
                "cluster",
                format_args!("{shown} answers: {server}, which knows no index templates of today's kind"),
                "update it to Elasticsearch 7.8 or newer, or to OpenSearch",
            ),
            Greeting::Alive { server } => {
                let server = server.unwrap_or_else(|| "it does not tell this login its version".to_owned());
                let login = if elastic.authorization.is_some() { "the login is taken" } else { "no login is set" };
                out.ok("cluster", format_args!("{shown} answers: {server}; {login}"));
                works = works.or(Some(node));
            }
            Greeting::Refused(why) => out.bad(
                "cluster",
                format_args!("{shown}: {why}"),
                "set ELASTIC_AUTH right: user:pass, \"ApiKey …\" or \"Bearer …\"",
            ),
            Greeting::Absent(why) => {
                let (found, cure) = parts(&why);
                out.bad("cluster", format_args!("{shown}: {found}"), cure);
            }
        }
    }
    if let Some(node) = works {
        template(elastic, &carrier, node, out);
        write(elastic, &carrier, node, clock, out);
    }
}

/// What is wrong with the way to a node, and one cure: its own where that speaks of the cluster, for a dial's speaks of
/// any peer.
fn parts(why: &str) -> (&str, String) {
    const CURE: &str = "look whether it runs and ELASTIC_URL leads to it";
    match why.split_once("; ") {
        Some((found, cure)) if cure.contains("ELASTIC_") => (found, cure.to_owned()),
        Some((found, cure)) => (found, format!("{CURE}, and {cure}")),
        None => (why, CURE.to_owned()),
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
    const CURE: &str = "give the user the right to manage index templates, or put it yourself (audiohook-collector \
                        template prints it) and set ELASTIC_SETUP=false";
    match probe::template(carrier, node, &elastic.index) {
        Ok(Found::Present) => out.ok(NAME, "there"),
        Ok(Found::Left(why)) => out.ok(NAME, format_args!("left to yours: {why}")),
        Ok(Found::Absent { decides, .. }) => {
            let next = if elastic.setup {
                "absent; the collector puts it"
            } else {
                "absent, and ELASTIC_SETUP is false: the cluster guesses each field's type"
            };
            let other = decides.map_or_else(String::new, |name| format!("; until then the template {name:?} decides"));
            out.ok(NAME, format_args!("{next}{other}"));
        }
        Err(Setup::Refused(why)) if elastic.setup => out.bad(NAME, why, CURE),
        Err(Setup::Refused(why)) => {
            out.ok(NAME, format_args!("not seen: {why}; ELASTIC_SETUP is false, so it is not needed"))
        }
        Err(Setup::Failed(why) | Setup::Busy(why) | Setup::Unreachable(why)) => {
            out.bad(NAME, why, "look at the cluster's log");
        }
        Err(other) => out.ok(NAME, format_args!("{other:?}")),
    }
}

fn write(elastic: &Elastic, carrier: &Carrier, node: usize, clock: &Clock, out: &Findings) {
    const NAME: &str = "cluster write";
    let index = &elastic.index;
    match probe::write(carrier, node, index, clock) {
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
            format_args!("delete the document {id} by hand; the collector itself needs no right to delete"),
        ),
        Write::Refused(why) => {
            out.bad(NAME, why, format_args!("give the user the rights to create documents in {index} and to make it"))
        }
        Write::ReadOnly(why) => out.bad(
            NAME,
            why,
            format_args!("free room on the cluster's disks, or lift the block of {index} (index.blocks.*)"),
        ),
        Write::Failed(why) => out.bad(NAME, why, "look at the cluster's log, and whether the index takes writes"),
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
