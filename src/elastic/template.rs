//! The index template: what the fields of a record are to the cluster.
//!
//! Deals with: its text, and whether another template speaks for the index already. Must never: speak to a cluster.

use serde_json::Value;

/// The lowest there is: no other template is outranked.
pub const PRIORITY: u64 = 0;

/// Keywords beyond this are stored and not indexed: Lucene takes 32,766 bytes, and a character has four at most.
const KEYWORD_CHARACTERS_MAX: u32 = 8191;

/// Fields whose value is one of a kind, in the record's order.
const KEYWORDS: [&str; 14] = [
    "event_type",
    "event_id",
    "conversation_id",
    "entity_type",
    "entity_id",
    "entity_name",
    "version",
    "topic",
    "channel",
    "error_code",
    "previous_value",
    "current_value",
    "source",
    "id",
];
/// Fields that are searched by their words too.
const TEXTS: [&str; 2] = ["event_name", "description"];
/// A malformed one (a record of old may hold anything) is stored and not indexed.
const DATES: [&str; 2] = ["timestamp", "received_at"];
/// Names of the Elastic Common Schema for fields that have one: object, field, the record's field.
const ALIASES: [(&str, &str, &str); 5] = [
    ("event", "code", "event_id"),
    ("event", "action", "event_name"),
    ("event", "id", "id"),
    ("event", "created", "received_at"),
    ("error", "code", "error_code"),
];

/// The template's name for an index.
pub fn name(index: &str) -> String {
    format!("audiohook-collector-{index}")
}

/// The template's text, ready to be put; `data_stream` makes the index a data stream.
pub fn text(index: &str, data_stream: bool) -> String {
    let mut properties = vec![r#""@timestamp": { "type": "date" }"#.to_owned()];
    properties.extend(DATES.map(|name| format!(r#""{name}": {{ "type": "date", "ignore_malformed": true }}"#)));
    let keyword = format!(r#""type": "keyword", "ignore_above": {KEYWORD_CHARACTERS_MAX}"#);
    properties.extend(KEYWORDS.map(|name| format!(r#""{name}": {{ {keyword} }}"#)));
    properties.extend(
        TEXTS.map(|name| format!(r#""{name}": {{ {keyword}, "fields": {{ "text": {{ "type": "text" }} }} }}"#)),
    );
    properties.push(r#""raw_event": { "type": "object", "enabled": false }"#.to_owned());
    for object in ["event", "error"] {
        let aliases: Vec<String> = ALIASES
            .iter()
            .filter(|(of, _, _)| *of == object)
            .map(|(_, field, path)| format!(r#""{field}": {{ "type": "alias", "path": "{path}" }}"#))
            .collect();
        properties.push(format!(r#""{object}": {{ "properties": {{ {} }} }}"#, aliases.join(", ")));
    }
    properties.push(r#""message": { "type": "alias", "path": "description" }"#.to_owned());
    let stream = if data_stream { "\n  \"data_stream\": {}," } else { "" };
    format!(
        r#"{{
  "index_patterns": [{pattern}],
  "priority": {PRIORITY},{stream}
  "template": {{
    "settings": {{ "index": {{ "number_of_shards": 1 }} }},
    "mappings": {{
      "dynamic": false,
      "properties": {{
        {properties}
      }}
    }}
  }},
  "_meta": {{ "description": "AudioHook operational events; put by audiohook-collector where it is absent" }}
}}
"#,
        pattern = Value::from(index),
        properties = properties.join(",\n        ")
    )
}

/// Another template that speaks for the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    pub name: String,
    pub priority: u64,
    pub data_stream: bool,
}

/// Of all composable templates (`GET _index_template`), the one that decides for the index.
pub fn deciding(all: &Value, index: &str) -> Option<Other> {
    all.get("index_templates")?
        .as_array()?
        .iter()
        .filter_map(|entry| {
            let template = entry.get("index_template")?;
            matches_any(template.get("index_patterns")?, index).then(|| Other {
                name: entry.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
                priority: template.get("priority").and_then(Value::as_u64).unwrap_or(0),
                data_stream: template.get("data_stream").is_some_and(|stream| !stream.is_null()),
            })
        })
        .max_by_key(|other| other.priority)
}

/// Whether any composable template of the index has this priority: the cluster refuses a second one.
pub fn any_with_priority(all: &Value, index: &str, priority: u64) -> Option<String> {
    let entries = all.get("index_templates")?.as_array()?;
    let entry = entries.iter().find(|entry| {
        let template = entry.get("index_template");
        let patterns = template.and_then(|template| template.get("index_patterns"));
        let its = template.and_then(|template| template.get("priority")).and_then(Value::as_u64).unwrap_or(0);
        its == priority && patterns.is_some_and(|patterns| matches_any(patterns, index))
    })?;
    Some(entry.get("name").and_then(Value::as_str).unwrap_or_default().to_owned())
}

/// Of all templates of the older kind (`GET _template`), one that matches the index.
pub fn legacy(all: &Value, index: &str) -> Option<String> {
    let matching = |entry: &&(String, Value)| entry.1.get("index_patterns").is_some_and(|p| matches_any(p, index));
    let entries: Vec<(String, Value)> =
        all.as_object()?.iter().map(|(name, body)| (name.clone(), body.clone())).collect();
    entries.iter().find(matching).map(|(name, _)| name.clone())
}

fn matches_any(patterns: &Value, index: &str) -> bool {
    match patterns {
        Value::String(pattern) => matches(pattern.as_bytes(), index.as_bytes()),
        Value::Array(patterns) => patterns.iter().any(|pattern| matches_any(pattern, index)),
        _ => false,
    }
}

/// Whether a pattern, in which `*` stands for anything, is the whole name. In time of the two lengths' product.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            p += 1;
            n += 1;
        } else if let Some((star_p, star_n)) = star {
            star = Some((star_p, star_n + 1));
            p = star_p + 1;
            n = star_n + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_json_in_both_forms_and_knows_every_field_of_the_record() {
        for data_stream in [false, true] {
            let template: Value = serde_json::from_str(&text("genesys-audiohook", data_stream)).unwrap();
            assert_eq!(template.get("data_stream").is_some(), data_stream);
            assert_eq!(template["index_patterns"], serde_json::json!(["genesys-audiohook"]));
            let fields = template["template"]["mappings"]["properties"].as_object().unwrap();
            for name in "timestamp event_type event_id event_name description conversation_id entity_type entity_id \
                entity_name version topic channel error_code previous_value current_value received_at source id raw_event \
                @timestamp"
                .split_whitespace()
            {
                assert!(fields.contains_key(name), "{name}");
            }
            assert_eq!(fields["raw_event"]["enabled"], false);
            assert_eq!(fields["event"]["properties"]["code"]["path"], "event_id");
        }
    }

    #[test]
    fn patterns_match_as_in_the_cluster() {
        for pattern in ["*", "genesys-audiohook", "genesys-*", "*hook", "g*-a*k", "**"] {
            assert!(matches(pattern.as_bytes(), b"genesys-audiohook"), "{pattern}");
        }
        for pattern in ["", "genesys", "genesys-", "*-hook", "g*-b*k", "genesys-audiohook-*"] {
            assert!(!matches(pattern.as_bytes(), b"genesys-audiohook"), "{pattern}");
        }
    }

    #[test]
    fn the_template_that_decides_is_the_one_of_the_highest_priority() {
        let all = serde_json::json!({"index_templates": [
            {"name": "logs", "index_template": {"index_patterns": ["logs-*"], "priority": 900}},
            {"name": "all", "index_template": {"index_patterns": ["*"]}},
            {"name": "stream", "index_template": {"index_patterns": ["x", "genesys-*"], "priority": 200, "data_stream": {"hidden": false}}},
        ]});
        let expected = Other { name: "stream".into(), priority: 200, data_stream: true };
        assert_eq!(deciding(&all, "genesys-audiohook"), Some(expected));
        assert_eq!(any_with_priority(&all, "genesys-audiohook", 0), Some("all".into()));
        assert_eq!(any_with_priority(&all, "genesys-audiohook", 5), None);
        assert_eq!(deciding(&serde_json::json!({}), "genesys-audiohook"), None);
        let old = serde_json::json!({"old": {"index_patterns": ["gen*"]}, "other": {"index_patterns": ["o*"]}});
        assert_eq!(legacy(&old, "genesys-audiohook"), Some("old".into()));
        assert_eq!(legacy(&old, "audiohook"), None);
    }
}
