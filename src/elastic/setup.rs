//! Checks which mapping the index has or would get, and creates the index template if nothing defines it yet.
//!
//! Must never: overwrite a template, policy or index, or take precedence over a template of the user.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::Method;

use crate::clock::Clock;
use crate::config;
use crate::elastic::probe::{PROBE_TIMEOUT, greet};
use crate::elastic::template::{self, Product, Target};
use crate::elastic::transport::{Transport, percent_encoded};
use crate::elastic::verdict::{self, Held, describe};
use crate::status::Problem;

/// Timeout of each request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// Minimum number of digits that a rollover appends to a name.
const ROLLOVER_DIGITS: usize = 6;
/// The default of ELASTIC_INDEX.
const DEFAULT_INDEX: &str = "genesys-audiohook";

/// What defines the index's mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The index, alias or data stream exists, or a template defines it. `maps_raw_event`: everything in `raw_event`
    /// becomes a field, now or in the next index.
    Decided { exists: bool, maps_raw_event: bool },
    /// Nothing yet, so the cluster would guess the type of each field.
    Nothing,
    /// The template is left to the user, because the mapping cannot be judged or a new template would do harm. Holds
    /// the reason.
    Left(String),
}

/// Requests about one index to one node.
pub struct Setup<'a> {
    pub transport: &'a Transport,
    pub node: usize,
    pub index: &'a str,
    pub product: Product,
}

impl Setup<'_> {
    /// Creates the template, and with a retention the lifecycle policy, unless something defines the index already.
    /// Returns problems to report to the operator.
    ///
    /// # Errors
    /// When a request fails or is refused.
    pub fn put_if_absent(&self, retention: Option<Duration>) -> Result<Vec<Problem>, Held> {
        let mut problems = Vec::new();
        match self.look()? {
            Found::Left(why) => log::info!("the index template is left to you: {why}"),
            Found::Decided { exists, maps_raw_event } => {
                problems.extend(maps_raw_event.then(|| dynamic_problem(self.index)));
                if retention.is_some() && !self.has_policy()? {
                    problems.push(Problem::new(
                        format!("ELASTIC_RETENTION has no effect on {}, which existed before it was set", self.index),
                        "Attach a lifecycle policy of your own, or unset ELASTIC_RETENTION.",
                    ));
                } else if retention.is_some() && !exists && self.simulate(&template::first_index(self.index))?.is_some()
                {
                    // An earlier run stopped after creating the template and before creating the index.
                    self.put_first_index()?;
                }
            }
            Found::Nothing => problems.extend(self.put(retention)?),
        }
        Ok(problems)
    }

    /// Finds out what defines the index.
    ///
    /// # Errors
    /// When a request fails or is refused.
    pub fn look(&self) -> Result<Found, Held> {
        if self.index.starts_with('<') {
            return Ok(Found::Left("the index name is computed from the date".to_owned()));
        }
        if let Some(there) = self.existing()? {
            let (index, mapping) = write_index(&there, self.index);
            // The request filters for rollover settings, so any setting means that the index is rolled over.
            let rolls_over = !there[index]["settings"].is_null();
            let next = match &there[index]["data_stream"] {
                Value::String(stream) => self.next_of_stream(stream)?,
                _ => match next_index(index, rolls_over).filter(|_| index != self.index) {
                    Some(next) => Some(self.simulate(&next)?.unwrap_or_default()),
                    None => None,
                },
            };
            let next_maps = next.is_some_and(|mapping| template::maps_raw_event(&mapping));
            let maps_raw_event = template::maps_raw_event(mapping) || next_maps;
            return Ok(Found::Decided { exists: true, maps_raw_event });
        }
        if let Some(mapping) = self.simulate(self.index)? {
            return Ok(Found::Decided { exists: false, maps_raw_event: template::maps_raw_event(&mapping) });
        }
        Ok(match self.legacy()? {
            Some(name) => Found::Left(format!(
                "the older template {name:?} matches the index, and a new template would override it"
            )),
            None => Found::Nothing,
        })
    }

    /// The relevant parts of the indexes that the name refers to; `None` if it does not exist or may not be read.
    fn existing(&self) -> Result<Option<Value>, Held> {
        let raw_event = "*.mappings.properties.raw_event";
        let path = format!(
            "/{}?filter_path=*.aliases,*.data_stream,*.settings.index.**.rollover_alias,*.mappings.dynamic,\
             {raw_event}.type,{raw_event}.enabled,{raw_event}.dynamic",
            percent_encoded(self.index)
        );
        let there = self.ask(Method::GET, &path, "", &[403, 404])?;
        Ok(there.filter(|there| there.as_object().is_some_and(|indexes| !indexes.is_empty())))
    }

    /// The mapping that an index of this name would get; `None` if no template matches.
    fn simulate(&self, index: &str) -> Result<Option<Value>, Held> {
        let simulated = self.ask_to_simulate("_simulate_index", index, "")?;
        Ok(simulated.get("template").map(|template| template["mappings"].clone()))
    }

    /// The mapping that the next index of a data stream would get, from the stream's template, since an index with the
    /// stream's name cannot be simulated; `None` if the template is unknown.
    fn next_of_stream(&self, stream: &str) -> Result<Option<Value>, Held> {
        let path = format!("/_data_stream/{}", percent_encoded(stream));
        let found = self.ask(Method::GET, &path, "", &[400, 403, 404, 405])?.unwrap_or_default();
        let Some(template) = found["data_streams"][0]["template"].as_str() else { return Ok(None) };
        let simulated = self.ask_to_simulate("_simulate", template, "")?;
        Ok(simulated.get("template").map(|template| template["mappings"].clone()))
    }

    /// The name of an older template (`_template`) that a new one would override.
    fn legacy(&self) -> Result<Option<String>, Held> {
        let template = template::text(self.index, Target::Index, None);
        let simulated = self.ask_to_simulate("_simulate_index", self.index, &template)?;
        Ok(simulated["overlapping"][0]["name"].as_str().map(str::to_owned))
    }

    /// Simulates an index or a template. `template`: simulates as if this template existed.
    fn ask_to_simulate(&self, what: &str, name: &str, template: &str) -> Result<Value, Held> {
        // Elasticsearch before 7.9 has no such API.
        let path = format!("/_index_template/{what}/{}", percent_encoded(name));
        Ok(self.ask(Method::POST, &path, template, &[400, 404, 405])?.unwrap_or_default())
    }

    /// Whether this program's lifecycle policy exists. On a serverless cluster the template contains it.
    fn has_policy(&self) -> Result<bool, Held> {
        let path = template::policy_path(self.index, self.product).unwrap_or_else(|| self.template_path());
        Ok(self.ask(Method::GET, &path, "", &[400, 403, 404, 405])?.is_some())
    }

    fn template_path(&self) -> String {
        format!("/_index_template/{}", percent_encoded(&template::name(self.index)))
    }

    /// Creates the first index of a rollover.
    fn put_first_index(&self) -> Result<(), Held> {
        let body = json!({ "aliases": { self.index: { "is_write_index": true } } });
        self.put_new(&format!("/{}", percent_encoded(&template::first_index(self.index))), &body.to_string())
    }

    fn put(&self, retention: Option<Duration>) -> Result<Option<Problem>, Held> {
        let problem = retention.and_then(|retention| self.put_policy(retention).err()).map(|why| {
            Problem::new(
                format!("ELASTIC_RETENTION has no effect: the lifecycle policy cannot be created: {why}"),
                "Give the user the right to manage lifecycle policies, or create the policy that `template --lifecycle` prints.",
            )
        });
        let retention = retention.filter(|_| problem.is_none());
        let target = if retention.is_some() { Target::Rollover } else { Target::Index };
        let text = template::text(self.index, target, retention.map(|retention| (self.product, retention)));
        // `create=true`: a template that was created in the meantime is not overwritten.
        self.put_new(&format!("{}?create=true", self.template_path()), &text)?;
        if retention.is_some() {
            self.put_first_index()?;
        }
        let name = template::name(self.index);
        let with = if retention.is_some() { " with a lifecycle policy" } else { "" };
        log::info!("created the index template {name} for {}{with}", self.index);
        Ok(problem)
    }

    /// Creates the lifecycle policy unless one of its name exists. An error if the cluster has no lifecycle policies.
    fn put_policy(&self, retention: Duration) -> Result<(), String> {
        let Some(path) = template::policy_path(self.index, self.product) else {
            return Err("serverless clusters support a retention only for data streams".to_owned());
        };
        let put = match self.ask(Method::GET, &path, "", &[404]) {
            Ok(None) => self.put_new(&path, &template::policy(self.index, self.product, retention)),
            there => there.map(drop),
        };
        put.map_err(|held| held.why)
    }

    /// Creates an object; succeeds if it already exists.
    fn put_new(&self, path: &str, body: &str) -> Result<(), Held> {
        let reply = self.transport.call(self.node, Method::PUT, path, body, REQUEST_TIMEOUT)?;
        let is_there = matches!(reply.status, 400 | 409) && describe(&reply).contains("already exists");
        if is_there || (200..=299).contains(&reply.status) { Ok(()) } else { Err(self.transport.held(&reply)) }
    }

    /// Sends a request and parses the response; `None` for the statuses in `absent`.
    fn ask(&self, method: Method, path: &str, body: &str, absent: &[u16]) -> Result<Option<Value>, Held> {
        let reply = self.transport.call(self.node, method, path, body, REQUEST_TIMEOUT)?;
        match reply.status {
            200 => match serde_json::from_slice::<Value>(&reply.body) {
                Ok(document) if document.is_object() => Ok(Some(document)),
                _ => Err(verdict::not_a_cluster()),
            },
            status if absent.contains(&status) => Ok(None),
            _ => Err(self.transport.held(&reply)),
        }
    }
}

/// The problem that everything in `raw_event` becomes a field.
pub fn dynamic_problem(index: &str) -> Problem {
    Problem::new(
        format!(
            "{index} (or its next index) maps raw_event dynamically: every field of an event becomes a field of the index, \
             up to the field limit, and field types of different events can conflict"
        ),
        "Copy the mapping that `audiohook-collector template` prints into the template of the index. An existing index \
         keeps its mapping, so create a new one.",
    )
}

/// The write index among those that a name refers to, and its mapping.
fn write_index<'a>(there: &'a Value, name: &str) -> (&'a str, &'a Value) {
    let Some(indexes) = there.as_object() else { return ("", there) };
    let is_write = |index: &Value| index["aliases"][name]["is_write_index"] == true;
    // The write index of a data stream is the last one. The names of its indexes end in their generation.
    let generation = |index: &str| index.rsplit('-').next().unwrap_or_default().to_owned();
    let chosen = indexes.iter().max_by_key(|(index, of)| (is_write(of), generation(index)));
    chosen.map_or(("", there), |(index, of)| (index.as_str(), &of["mappings"]))
}

/// The name of the next index after a rollover; `None` unless the name ends in as many digits as a rollover makes, or
/// in any number if the index is known to roll over.
fn next_index(index: &str, rolls_over: bool) -> Option<String> {
    let (begin, digits) = index.rsplit_once('-')?;
    let number: u64 = digits.parse().ok().filter(|_| rolls_over || digits.len() >= ROLLOVER_DIGITS)?;
    Some(format!("{begin}-{:0ROLLOVER_DIGITS$}", number.checked_add(1)?))
}

/// The options of the `template` command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Printed {
    /// Print the template for a data stream, whatever the cluster has.
    pub data_stream: bool,
    /// Print the lifecycle policy instead of the template.
    pub lifecycle: bool,
}

/// The text of the template or policy for this cluster. If the cluster does not respond, or none is configured, it is
/// the text for an index of Elasticsearch.
///
/// # Errors
/// When ELASTIC_CA_FILE or HTTPS_PROXY cannot be used, or the lifecycle policy is requested without ELASTIC_RETENTION.
pub fn text_for(
    elastic: Option<&config::Elastic>,
    network: &config::Network,
    clock: &Clock,
    printed: Printed,
) -> io::Result<String> {
    let index = elastic.map_or(DEFAULT_INDEX, |elastic| &elastic.index);
    let retention = elastic.and_then(|elastic| elastic.retention);
    let (mut product, mut is_stream) = (Product::default(), printed.data_stream);
    if let Some(elastic) = elastic {
        let transport = Transport::new(elastic, network, clock.clone()).map_err(io::Error::other)?;
        for node in 0..transport.urls().len() {
            if let Ok(server) = greet(&transport, node, PROBE_TIMEOUT) {
                product = server.map_or(product, |server| server.product);
                let setup = Setup { transport: &transport, node, index, product };
                let there = setup.existing().ok().flatten().unwrap_or_default();
                is_stream |= there.as_object().is_some_and(|all| all.values().any(|i| !i["data_stream"].is_null()));
                break;
            }
        }
    }
    if printed.lifecycle {
        let retention = retention.ok_or_else(|| io::Error::other("ELASTIC_RETENTION is not set"))?;
        return Ok(template::policy(index, product, retention));
    }
    let target = match retention {
        _ if is_stream => Target::DataStream,
        Some(_) => Target::Rollover,
        None => Target::Index,
    };
    Ok(template::text(index, target, retention.map(|retention| (product, retention))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_indexes_behind_a_name_the_one_that_is_written_to_counts() {
        let alias = json!({
            "x-000001": {"aliases": {"x": {"is_write_index": false}}, "mappings": {"dynamic": "false"}},
            "x-000002": {"aliases": {"x": {"is_write_index": true}}},
            "x-000003": {"aliases": {"x": {}}},
        });
        assert_eq!(write_index(&alias, "x").0, "x-000002");
        let stream = json!({
            ".ds-x-2026.11.20-000002": {"data_stream": "x"},
            ".ds-x-2026.10.20-000001": {"data_stream": "x"},
        });
        assert_eq!(write_index(&stream, "x").0, ".ds-x-2026.11.20-000002");
        assert_eq!(next_index("x-000009", false).as_deref(), Some("x-000010"));
        assert_eq!(next_index("x-2", true).as_deref(), Some("x-000003"));
        assert_eq!((next_index("x", true), next_index("x-y", true), next_index("x-2", false)), (None, None, None));
        assert_eq!(next_index(&format!("x-{}", u64::MAX), true), None);
    }
}
