//! Sees to the index template: what the target has or would get, and a `PUT` where nothing decides for it yet.
//!
//! Must never: overwrite a template, a policy or an index, or outrank a template of the user's.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::Method;

use crate::clock::Clock;
use crate::config;
use crate::elastic::probe::{PROBE_TIMEOUT, greet};
use crate::elastic::template::{self, Product, Target};
use crate::elastic::transport::{Transport, percent_encoded};
use crate::elastic::verdict::{self, Held, told};
use crate::status::Problem;

/// Time for each of the few requests.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// Digits that a rollover gives a name, at least.
const ROLLOVER_DIGITS: usize = 6;
/// What ELASTIC_INDEX is unless set.
const DEFAULT_INDEX: &str = "genesys-audiohook";

/// What decides for the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The index, alias or data stream is there, or a template decides for it. `maps_raw_event`: it makes, or the next
    /// index behind it would make, a field of everything in `raw_event`.
    Decided { exists: bool, maps_raw_event: bool },
    /// Nothing does yet: the cluster would guess each field's type.
    Nothing,
    /// It cannot be judged, or a new template would do harm: why.
    Left(String),
}

/// Asks and puts, for one index at one node.
pub struct Setup<'a> {
    pub transport: &'a Transport,
    pub node: usize,
    pub index: &'a str,
    pub product: Product,
}

impl Setup<'_> {
    /// Puts the template, and with a retention the lifecycle policy, unless something decides for the index already.
    /// Returns what wants a person's eye.
    ///
    /// # Errors
    /// Why the cluster does not say, or does not let us.
    pub fn put_if_absent(&self, retention: Option<Duration>) -> Result<Vec<Problem>, Held> {
        let mut problems = Vec::new();
        match self.look()? {
            Found::Left(why) => log::info!("the index template is left to you: {why}"),
            Found::Decided { exists, maps_raw_event } => {
                problems.extend(maps_raw_event.then(|| dynamic_problem(self.index)));
                if retention.is_some() && !self.has_policy()? {
                    problems.push(Problem::new(
                        format!("ELASTIC_RETENTION has no effect on {}, which was there before it was set", self.index),
                        "Give it a lifecycle policy of your own, or unset ELASTIC_RETENTION.",
                    ));
                } else if retention.is_some() && !exists && self.simulate(&template::first_index(self.index))?.is_some()
                {
                    // An earlier start ended between the template and the index.
                    self.put_first_index()?;
                }
            }
            Found::Nothing => problems.extend(self.put(retention)?),
        }
        Ok(problems)
    }

    /// Finds out what decides for the index.
    ///
    /// # Errors
    /// Why the cluster does not say.
    pub fn look(&self) -> Result<Found, Held> {
        if self.index.starts_with('<') {
            return Ok(Found::Left("the index name is computed from the date".to_owned()));
        }
        if let Some(there) = self.existing()? {
            let (index, mapping) = write_index(&there, self.index);
            // Only what makes a rollover follow the index has settings here.
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
                "the older template {name:?} matches the index, and any new one would put it out of force"
            )),
            None => Found::Nothing,
        })
    }

    /// The indexes behind the name, with what matters of each; `None` when it is not there, or not to be seen.
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

    /// The mapping that an index of this name would get; `None` when no template decides.
    fn simulate(&self, index: &str) -> Result<Option<Value>, Held> {
        let simulated = self.ask_to_simulate("_simulate_index", index, "")?;
        Ok(simulated.get("template").map(|template| template["mappings"].clone()))
    }

    /// The mapping that the next index of a data stream would get; `None` when the cluster does not say. An index of the
    /// stream's own name cannot be simulated.
    fn next_of_stream(&self, stream: &str) -> Result<Option<Value>, Held> {
        let path = format!("/_data_stream/{}", percent_encoded(stream));
        let found = self.ask(Method::GET, &path, "", &[400, 403, 404, 405])?.unwrap_or_default();
        let Some(template) = found["data_streams"][0]["template"].as_str() else { return Ok(None) };
        let simulated = self.ask_to_simulate("_simulate", template, "")?;
        Ok(simulated.get("template").map(|template| template["mappings"].clone()))
    }

    /// A template of the older kind (`_template`) that a new one would put out of force.
    fn legacy(&self) -> Result<Option<String>, Held> {
        let template = template::text(self.index, Target::Index, None);
        let simulated = self.ask_to_simulate("_simulate_index", self.index, &template)?;
        Ok(simulated["overlapping"][0]["name"].as_str().map(str::to_owned))
    }

    /// `template`: one that is judged as if it was there.
    fn ask_to_simulate(&self, what: &str, name: &str, template: &str) -> Result<Value, Held> {
        // Before Elasticsearch 7.9 there is no such question.
        let path = format!("/_index_template/{what}/{}", percent_encoded(name));
        Ok(self.ask(Method::POST, &path, template, &[400, 404, 405])?.unwrap_or_default())
    }

    /// Whether the lifecycle policy of a retention is there. On a serverless cluster the template holds it.
    fn has_policy(&self) -> Result<bool, Held> {
        let path = template::policy_path(self.index, self.product).unwrap_or_else(|| self.template_path());
        Ok(self.ask(Method::GET, &path, "", &[400, 403, 404, 405])?.is_some())
    }

    fn template_path(&self) -> String {
        format!("/_index_template/{}", percent_encoded(&template::name(self.index)))
    }

    /// Makes the index that a rollover begins with.
    fn put_first_index(&self) -> Result<(), Held> {
        let body = json!({ "aliases": { self.index: { "is_write_index": true } } });
        self.put_new(&format!("/{}", percent_encoded(&template::first_index(self.index))), &body.to_string())
    }

    fn put(&self, retention: Option<Duration>) -> Result<Option<Problem>, Held> {
        let problem = retention.and_then(|retention| self.put_policy(retention).err()).map(|why| {
            Problem::new(
                format!("ELASTIC_RETENTION has no effect: the lifecycle policy cannot be put: {why}"),
                "Give the user the right to manage lifecycle policies, or put what `template --lifecycle` prints yourself.",
            )
        });
        let retention = retention.filter(|_| problem.is_none());
        let target = if retention.is_some() { Target::Rollover } else { Target::Index };
        let text = template::text(self.index, target, retention.map(|retention| (self.product, retention)));
        // `create=true`: should it be there by now, it is left as it is.
        self.put_new(&format!("{}?create=true", self.template_path()), &text)?;
        if retention.is_some() {
            self.put_first_index()?;
        }
        let name = template::name(self.index);
        let with = if retention.is_some() { " with a lifecycle policy" } else { "" };
        log::info!("put the index template {name} for {}{with}", self.index);
        Ok(problem)
    }

    /// Puts the lifecycle policy where there is none of its name; an error where the cluster knows no such policies.
    fn put_policy(&self, retention: Duration) -> Result<(), String> {
        let Some(path) = template::policy_path(self.index, self.product) else {
            return Err("a serverless cluster keeps a retention for data streams alone".to_owned());
        };
        let put = match self.ask(Method::GET, &path, "", &[404]) {
            Ok(None) => self.put_new(&path, &template::policy(self.index, self.product, retention)),
            there => there.map(drop),
        };
        put.map_err(|held| held.why)
    }

    /// Puts what is new; that it is there already is as good.
    fn put_new(&self, path: &str, body: &str) -> Result<(), Held> {
        let reply = self.transport.call(self.node, Method::PUT, path, body, REQUEST_TIMEOUT)?;
        let is_there = matches!(reply.status, 400 | 409) && told(&reply).contains("already exists");
        if is_there || (200..=299).contains(&reply.status) { Ok(()) } else { Err(self.transport.held(&reply)) }
    }

    /// An answer's document; `None` for the statuses that stand for "there is none".
    fn ask(&self, method: Method, path: &str, body: &str, absent: &[u16]) -> Result<Option<Value>, Held> {
        let reply = self.transport.call(self.node, method, path, body, REQUEST_TIMEOUT)?;
        match reply.status {
            200 => match serde_json::from_slice::<Value>(&reply.body) {
                Ok(document) if document.is_object() => Ok(Some(document)),
                _ => Err(verdict::foreign()),
            },
            status if absent.contains(&status) => Ok(None),
            _ => Err(self.transport.held(&reply)),
        }
    }
}

/// What is said where everything in `raw_event` becomes a field.
pub fn dynamic_problem(index: &str) -> Problem {
    Problem::new(
        format!(
            "{index} (or its next index) maps raw_event dynamically: every field of an event becomes a field of the index, \
             up to the limit of fields, and events can conflict with each other"
        ),
        "Take the mapping that `audiohook-collector template` prints into the template of the index. An existing index \
         keeps its mapping: begin a new one.",
    )
}

/// The index that writes go to, of those behind a name, and its mapping.
fn write_index<'a>(there: &'a Value, name: &str) -> (&'a str, &'a Value) {
    let Some(indexes) = there.as_object() else { return ("", there) };
    let is_write = |index: &Value| index["aliases"][name]["is_write_index"] == true;
    // Of a data stream's indexes, whose names end in their generation, it is the last.
    let generation = |index: &str| index.rsplit('-').next().unwrap_or_default().to_owned();
    let chosen = indexes.iter().max_by_key(|(index, of)| (is_write(of), generation(index)));
    chosen.map_or(("", there), |(index, of)| (index.as_str(), &of["mappings"]))
}

/// The name of the index after this one: of one that ends in as many digits as a rollover makes, or in any number where it
/// is known to roll over.
fn next_index(index: &str, rolls_over: bool) -> Option<String> {
    let (begin, digits) = index.rsplit_once('-')?;
    let number: u64 = digits.parse().ok().filter(|_| rolls_over || digits.len() >= ROLLOVER_DIGITS)?;
    Some(format!("{begin}-{:0ROLLOVER_DIGITS$}", number.checked_add(1)?))
}

/// What the `template` command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Printed {
    /// The template for a data stream, whatever the cluster has.
    pub data_stream: bool,
    /// The lifecycle policy instead of the template.
    pub lifecycle: bool,
}

/// The template's or the policy's text as this cluster would get it; where it does not answer, or none is set, that for
/// an index of Elasticsearch.
///
/// # Errors
/// When ELASTIC_CA_FILE or HTTPS_PROXY cannot be used, or a lifecycle is asked for without ELASTIC_RETENTION.
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
