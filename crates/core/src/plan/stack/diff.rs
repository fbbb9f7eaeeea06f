//! Two forms of an object as text that people compare; never the values of a Secret.

use serde_json::{Map, Value};

use crate::model::object::Object;

/// A longer diff is cut; the whole object is in `render`.
const LONGEST: usize = 60;

/// An object without what the API server itself keeps in it.
pub(super) fn content(object: &Value) -> Value {
    const KEPT_BY_SERVER: [&str; 6] =
        ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"];
    let mut content = object.clone();
    if let Some(top) = content.as_object_mut() {
        top.remove("status");
        if let Some(metadata) = top.get_mut("metadata").and_then(Value::as_object_mut) {
            for key in KEPT_BY_SERVER {
                metadata.remove(key);
            }
        }
    }
    sorted(content)
}

/// Order of keys says nothing.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(Map::from_iter(entries))
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// The diff of an object that does not exist yet.
pub(super) fn created(object: &Object) -> String {
    let empty = Value::Object(Map::new());
    let wanted = content(&object.value);
    if object.secret { secret_diff(&empty, &wanted) } else { text_diff("", &yaml(&wanted)) }
}

/// The diff between the live object and what it would be.
pub(super) fn changed(object: &Object, live: &Value, would: &Value) -> String {
    let (live, would) = (content(live), content(would));
    if object.secret { secret_diff(&live, &would) } else { text_diff(&yaml(&live), &yaml(&would)) }
}

/// The diff of an object that goes; never of a Secret.
pub(super) fn deleted(live: &Value) -> String {
    text_diff(&yaml(&content(live)), "")
}

fn yaml(value: &Value) -> String {
    // A JSON value always has a YAML form; JSON itself is one.
    serde_yaml::to_string(value).unwrap_or_else(|_| value.to_string())
}

fn text_diff(before: &str, after: &str) -> String {
    let diff = similar::TextDiff::from_lines(before, after);
    cut(&diff.unified_diff().context_radius(2).to_string())
}

fn cut(text: &str) -> String {
    let lines = text.lines().count();
    if lines <= LONGEST {
        return text.to_owned();
    }
    let mut kept: String = text.lines().take(LONGEST).flat_map(|line| [line, "\n"]).collect();
    kept.push_str(&format!("… {} more lines\n", lines - LONGEST));
    kept
}

/// The keys of a Secret that come, go or change; of the rest only that something changes.
fn secret_diff(before: &Value, after: &Value) -> String {
    let keys = |secret: &Value| secret["data"].as_object().cloned().unwrap_or_default();
    let (old, new) = (keys(before), keys(after));
    let mut lines = Vec::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        lines.push(format!("-data.{key}: (hidden)"));
    }
    for (key, value) in &new {
        match old.get(key) {
            None => lines.push(format!("+data.{key}: (hidden)")),
            Some(before) if before != value => lines.push(format!(" data.{key}: (changed)")),
            Some(_) => {}
        }
    }
    if before["metadata"].is_null() {
        lines.push("+metadata: (new)".into());
    } else if before["metadata"] != after["metadata"] || before["type"] != after["type"] {
        lines.push(" metadata: (changed)".into());
    }
    lines.join("\n") + "\n"
}
