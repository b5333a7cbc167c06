//! `contrib/monitoring/saved-objects.ndjson`: its objects, and the searches that OpenSearch Dashboards and Kibana make of
//! them.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

/// What one visualization or saved search asks for.
pub struct Search {
    pub title: String,
    /// The pattern of its indices.
    pub indices: String,
    pub body: Value,
    /// How deep its aggregations are nested.
    pub levels: usize,
    /// The columns that it shows.
    pub columns: Vec<String>,
}

/// The searches of everything that the dashboard shows. Panics where an object is not as it must be, or where a reference
/// leads nowhere.
pub fn searches() -> Vec<Search> {
    let text =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/monitoring/saved-objects.ndjson")).unwrap();
    let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let by_id: BTreeMap<(&str, &str), &Value> = objects.iter().map(|object| (key(object), object)).collect();
    assert_eq!(by_id.len(), objects.len(), "an id is given twice");
    let dashboard = objects.iter().find(|object| object["type"] == "dashboard").unwrap();
    let since = &dashboard["attributes"]["timeFrom"];
    let panels = parsed(&dashboard["attributes"]["panelsJSON"]);
    let shown = panels.as_array().unwrap().iter().map(|panel| referred(dashboard, &panel["panelRefName"], &by_id));
    shown.map(|object| search(object, since, &by_id)).collect()
}

fn key(object: &Value) -> (&str, &str) {
    (object["type"].as_str().unwrap(), object["id"].as_str().unwrap())
}

/// JSON in a string of JSON.
fn parsed(text: &Value) -> Value {
    serde_json::from_str(text.as_str().unwrap()).unwrap()
}

fn referred<'a>(object: &Value, name: &Value, by_id: &BTreeMap<(&str, &str), &'a Value>) -> &'a Value {
    let references = object["references"].as_array().unwrap();
    let reference = references.iter().find(|reference| reference["name"] == *name).unwrap();
    by_id.get(&key(reference)).unwrap_or_else(|| panic!("{name} leads nowhere in {object}"))
}

fn search(object: &Value, since: &Value, by_id: &BTreeMap<(&str, &str), &Value>) -> Search {
    let attributes = &object["attributes"];
    let source = parsed(&attributes["kibanaSavedObjectMeta"]["searchSourceJSON"]);
    assert_eq!((&source["query"]["query"], &source["filter"]), (&json!(""), &json!([])), "only the time is a filter");
    let pattern = &referred(object, &source["indexRefName"], by_id)["attributes"];
    let time = pattern["timeFieldName"].as_str().unwrap();
    let mut body = json!({"query": {"range": {time: {"gte": since, "lte": "now"}}}, "track_total_hits": true});
    let (mut levels, mut columns) = (0, Vec::new());
    if object["type"] == "visualization" {
        let state = parsed(&attributes["visState"]);
        let mut aggregations: Vec<&Value> = state["aggs"].as_array().unwrap().iter().collect();
        assert_eq!(aggregations.remove(0)["type"], "count");
        levels = aggregations.len();
        body["size"] = json!(0);
        body["aggs"] = nested(&aggregations);
    } else {
        columns =
            attributes["columns"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        let orders = attributes["sort"].as_array().unwrap().iter();
        body["sort"] = orders.map(|order| json!({order[0].as_str().unwrap(): order[1]})).collect();
        body["size"] = json!(500);
    }
    let title = attributes["title"].as_str().unwrap().to_owned();
    Search { title, indices: pattern["title"].as_str().unwrap().to_owned(), body, levels, columns }
}

/// Aggregations within each other, all called `inner`.
fn nested(aggregations: &[&Value]) -> Value {
    let [first, rest @ ..] = aggregations else { return json!({}) };
    let params = &first["params"];
    let own = match first["type"].as_str().unwrap() {
        "date_histogram" => {
            json!({"field": params["field"], "fixed_interval": "30m", "min_doc_count": params["min_doc_count"]})
        }
        "terms" => json!({"field": params["field"], "size": params["size"], "order": {"_count": params["order"]}}),
        other => panic!("an aggregation that is not known here: {other}"),
    };
    let kind = first["type"].as_str().unwrap();
    json!({"inner": {kind: own, "aggs": nested(rest)}})
}
