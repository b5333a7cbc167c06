//! The texts of the index template and lifecycle policy, and whether a mapping expands `raw_event` into fields.

use std::time::Duration;

use serde_json::{Value, json};

/// The lowest priority, so that any other template wins.
const PRIORITY: u64 = 0;

const DESCRIPTION: &str = "AudioHook operational events; created by audiohook-collector";

/// The types of a record's fields, in the record's order, and aliases with their names in the Elastic Common Schema.
/// Keywords longer than 8,191 characters are stored but not indexed: Lucene's limit is 32,766 bytes, and a character
/// has at most four. A malformed date, which an old record may have, is stored but not indexed.
const MAPPING: &str = include_str!("mapping.json");

/// The target of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Index,
    DataStream,
    /// An alias for indexes that are rolled over, used for a retention without a data stream.
    Rollover,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Product {
    #[default]
    Elasticsearch,
    Serverless,
    OpenSearch,
}

/// The name of the template and of the policy for an index.
pub fn name(index: &str) -> String {
    format!("audiohook-collector-{index}")
}

/// The first index of a rollover alias.
pub fn first_index(alias: &str) -> String {
    format!("{alias}-000001")
}

/// The body of the request that creates the template. `retention`: adds the settings that attach the lifecycle policy.
pub fn text(index: &str, target: Target, retention: Option<(Product, Duration)>) -> String {
    let patterns = match target {
        Target::Rollover => json!([index, format!("{index}-0*")]),
        _ => json!([index]),
    };
    let stream = if target == Target::DataStream { "\"data_stream\": {},\n  " } else { "" };
    let lifecycle = retention.map(|(product, retention)| lifecycle_settings(index, target, product, retention));
    format!(
        r#"{{
  "index_patterns": {patterns},
  "priority": {PRIORITY},
  {stream}"template": {{
    {lifecycle}"mappings": {mapping}
  }},
  "_meta": {{ "description": "{DESCRIPTION}" }}
}}
"#,
        lifecycle = lifecycle.unwrap_or_default(),
        mapping = MAPPING.trim_end().replace('\n', "\n    ")
    )
}

/// The settings that attach the policy to the indexes of the template.
fn lifecycle_settings(index: &str, target: Target, product: Product, retention: Duration) -> String {
    let settings = match (product, target) {
        (Product::Serverless, _) => {
            return format!("\"lifecycle\": {},\n    ", json!({ "data_retention": span(retention) }));
        }
        (Product::Elasticsearch, Target::Rollover) => {
            json!({ "index.lifecycle.name": name(index), "index.lifecycle.rollover_alias": index })
        }
        (Product::Elasticsearch, _) => json!({ "index.lifecycle.name": name(index) }),
        (Product::OpenSearch, Target::Rollover) => json!({ "plugins.index_state_management.rollover_alias": index }),
        (Product::OpenSearch, _) => return String::new(),
    };
    format!("\"settings\": {settings},\n    ")
}

/// The path of the lifecycle policy; `None` for a product without lifecycle policies.
pub fn policy_path(index: &str, product: Product) -> Option<String> {
    let name = super::transport::percent_encoded(&name(index));
    match product {
        Product::Elasticsearch => Some(format!("/_ilm/policy/{name}")),
        Product::OpenSearch => Some(format!("/_plugins/_ism/policies/{name}")),
        Product::Serverless => None,
    }
}

/// The text of the lifecycle policy. It rolls an index over after a tenth of the retention, and deletes the index when
/// the retention has passed after that.
pub fn policy(index: &str, product: Product, retention: Duration) -> String {
    const ROLLOVER_MIN: Duration = Duration::from_secs(3600);
    const ROLLOVER_MAX: Duration = Duration::from_secs(30 * 86_400);
    let (rollover, retention) = (span((retention / 10).clamp(ROLLOVER_MIN, ROLLOVER_MAX)), span(retention));
    let policy = match product {
        Product::OpenSearch => json!({ "policy": {
            "description": DESCRIPTION,
            "default_state": "write",
            "states": [
                {
                    "name": "write",
                    "actions": [{ "rollover": { "min_index_age": rollover } }],
                    "transitions": [{ "state_name": "delete", "conditions": { "min_rollover_age": retention } }],
                },
                { "name": "delete", "actions": [{ "delete": {} }], "transitions": [] },
            ],
            "ism_template": [{ "index_patterns": [index, format!("{index}-0*")], "priority": PRIORITY }],
        } }),
        _ => json!({ "policy": {
            "_meta": { "description": DESCRIPTION },
            "phases": {
                "hot": { "actions": { "rollover": { "max_age": rollover } } },
                "delete": { "min_age": retention, "actions": { "delete": {} } },
            },
        } }),
    };
    format!("{policy:#}\n")
}

/// Formats a time in the largest unit that both products know and that divides it.
fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds % 86_400 == 0 => format!("{}d", seconds / 86_400),
        seconds if seconds % 3_600 == 0 => format!("{}h", seconds / 3_600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

/// Whether a mapping, by its `dynamic` and `properties.raw_event`, turns everything in `raw_event` into fields.
pub fn maps_raw_event(mapping: &Value) -> bool {
    let is_off = |value: &Value| matches!(value.as_str(), Some("false" | "strict")) || *value == false;
    let raw = &mapping["properties"]["raw_event"];
    let is_object = raw["type"].as_str().is_none_or(|kind| matches!(kind, "object" | "nested"));
    let dynamic = if raw["dynamic"].is_null() { &mapping["dynamic"] } else { &raw["dynamic"] };
    is_object && !is_off(&raw["enabled"]) && !is_off(dynamic)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn the_text_is_json_in_every_form_and_knows_every_field_of_the_record() {
        for target in [Target::Index, Target::DataStream, Target::Rollover] {
            for retention in [None, Some((Product::Elasticsearch, DAY)), Some((Product::OpenSearch, DAY))] {
                let template: Value = serde_json::from_str(&text("genesys-audiohook", target, retention)).unwrap();
                assert_eq!(template.get("data_stream").is_some(), target == Target::DataStream);
                assert_eq!(template["index_patterns"][0], "genesys-audiohook");
                let fields = template["template"]["mappings"]["properties"].as_object().unwrap();
                for name in "timestamp event_type event_id event_name description conversation_id entity_type \
                    entity_id entity_name version topic channel error_code previous_value current_value received_at \
                    source id raw_event @timestamp"
                    .split_whitespace()
                {
                    assert!(fields.contains_key(name), "{name}");
                }
                assert_eq!(fields["event"]["properties"]["code"]["path"], "event_id");
                assert!(!maps_raw_event(&template["template"]["mappings"]));
            }
        }
    }

    #[test]
    fn a_retention_is_a_policy_of_the_product_and_its_name_in_the_template() {
        let setting = |product, target| -> Value {
            let text = text("x", target, Some((product, 90 * DAY)));
            serde_json::from_str::<Value>(&text).unwrap()["template"].clone()
        };
        let ilm = setting(Product::Elasticsearch, Target::Rollover);
        assert_eq!(ilm["settings"]["index.lifecycle.name"], "audiohook-collector-x");
        assert_eq!(ilm["settings"]["index.lifecycle.rollover_alias"], "x");
        let stream = setting(Product::Elasticsearch, Target::DataStream);
        assert!(stream["settings"]["index.lifecycle.rollover_alias"].is_null());
        let ism = setting(Product::OpenSearch, Target::Rollover);
        assert_eq!(ism["settings"]["plugins.index_state_management.rollover_alias"], "x");
        let serverless = setting(Product::Serverless, Target::DataStream);
        assert_eq!(serverless["lifecycle"]["data_retention"], "90d");

        let ilm: Value = serde_json::from_str(&policy("x", Product::Elasticsearch, 90 * DAY)).unwrap();
        assert_eq!(ilm["policy"]["phases"]["delete"]["min_age"], "90d");
        assert_eq!(ilm["policy"]["phases"]["hot"]["actions"]["rollover"]["max_age"], "9d");
        let ism: Value = serde_json::from_str(&policy("x", Product::OpenSearch, DAY)).unwrap();
        assert_eq!(ism["policy"]["states"][0]["transitions"][0]["conditions"]["min_rollover_age"], "1d");
        assert_eq!(ism["policy"]["states"][0]["actions"][0]["rollover"]["min_index_age"], "144m");
    }

    #[test]
    fn whether_raw_event_becomes_fields_is_told_from_the_mapping() {
        for (mapping, expected) in [
            (json!({}), true),
            (json!({"properties": {"raw_event": {"type": "object"}}}), true),
            (json!({"properties": {"raw_event": {"dynamic": "true"}}, "dynamic": "false"}), true),
            (json!({"properties": {"raw_event": {"type": "object", "enabled": false}}}), false),
            (json!({"properties": {"raw_event": {"dynamic": "false"}}}), false),
            (json!({"properties": {"raw_event": {"type": "flattened"}}}), false),
            (json!({"dynamic": "false"}), false),
            (json!({"dynamic": false}), false),
            (json!({"dynamic": "strict"}), false),
        ] {
            assert_eq!(maps_raw_event(&mapping), expected, "{mapping}");
        }
    }
}
