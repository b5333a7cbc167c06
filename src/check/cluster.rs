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
            Greeting::Absent(why) => out.bad(
                "cluster",
                format_args!("{shown}: {why}"),
                "look whether it runs and ELASTIC_URL leads to it; for https with a CA of its own set ELASTIC_CA_FILE",
            ),
        }
    }
    if let Some(node) = works {
        template(elastic, &carrier, node, out);
        write(elastic, &carrier, node, clock, out);
    }
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
            out.bad(NAME, why, "look at the cluster's log; the collector tries again by itself")
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
        Write::Failed(why) => out.bad(NAME, why, "look at the cluster's log, and whether the index takes writes"),
    }
}
