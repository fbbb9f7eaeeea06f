//! Merging objects by the types of their fields. The rules are those of server-side apply (sigs.k8s.io/
//! structured-merge-diff, typed): which fields a config names, what a config makes of an object, and what changed.

use serde_json::{Map, Value};

use super::fields::{Fields, Step};
use super::types::{Merge, Scalar, Shape, Type};

/// What is wrong with a value: where, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub way: Vec<Step>,
    pub what: String,
}

/// The fields that a config names, which are those that its applier owns.
pub fn fields_of(config: &Value, of: &Type) -> Fields {
    let mut names = Names::default();
    names.add(config, of);
    names.fields
}

#[derive(Default)]
struct Names {
    fields: Fields,
    way: Vec<Step>,
    /// Maps and merged lists that hold something are named too.
    holders: bool,
}

impl Names {
    fn add(&mut self, value: &Value, of: &Type) {
        match (of.shape(), value) {
            (Shape::Struct(one), Value::Object(map)) if !one.atomic => {
                for (key, value) in map {
                    let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                    self.within(Step::Field(key.clone()), empty, value, one.field(key));
                }
            }
            (Shape::Map(of), Value::Object(map)) => {
                self.holder(map.is_empty());
                for (key, value) in map {
                    self.within(Step::Field(key.clone()), true, value, of);
                }
            }
            (Shape::List(of, merge), Value::Array(items)) if *merge != Merge::Atomic => {
                self.holder(items.is_empty());
                for item in items {
                    self.within(step_of(item, merge), true, item, of);
                }
            }
            _ => self.fields.insert(&self.way),
        }
    }

    fn holder(&mut self, empty: bool) {
        if self.holders && !empty {
            self.fields.insert(&self.way);
        }
    }

    fn within(&mut self, step: Step, itself: bool, value: &Value, of: &Type) {
        self.way.push(step);
        if itself {
            self.fields.insert(&self.way);
        }
        if !value.is_null() {
            self.add(value, of);
        }
        self.way.pop();
    }
}

/// Which item of its list this is.
pub fn step_of(item: &Value, merge: &Merge) -> Step {
    match merge {
        Merge::Keys(keys) => {
            let mut pairs: Vec<_> = keys
                .iter()
                .filter_map(|key| {
                    // The one key with a default that the served kinds have.
                    let default = (key == "protocol").then(|| "\"TCP\"".to_owned());
                    Some((key.clone(), item.get(key).map(Value::to_string).or(default)?))
                })
                .collect();
            pairs.sort();
            Step::Key(pairs)
        }
        Merge::Set | Merge::Atomic => Step::Value(item.to_string()),
    }
}

/// The object with the config applied over it.
pub fn merge(live: &Value, config: &Value, of: &Type) -> Value {
    match (of.shape(), live, config) {
        (Shape::Struct(one), Value::Object(live), Value::Object(config)) if !one.atomic => {
            Value::Object(merge_maps(live, config, |key| one.field(key)))
        }
        (Shape::Map(of), Value::Object(live), Value::Object(config)) => {
            Value::Object(merge_maps(live, config, |_| of))
        }
        (Shape::List(of, rule), Value::Array(live), Value::Array(config)) if *rule != Merge::Atomic => {
            Value::Array(merge_lists(live, config, of, rule))
        }
        _ => config.clone(),
    }
}

fn merge_maps<'a>(
    live: &Map<String, Value>,
    config: &Map<String, Value>,
    of: impl Fn(&str) -> &'a Type,
) -> Map<String, Value> {
    let mut merged = live.clone();
    for (key, value) in config {
        let value = match live.get(key) {
            Some(live) => merge(live, value, of(key)),
            None => value.clone(),
        };
        merged.insert(key.clone(), value);
    }
    merged
}

/// Items of both come in the config's order; an item of the live list alone keeps its place before the next that both
/// have.
fn merge_lists(live: &[Value], config: &[Value], of: &Type, rule: &Merge) -> Vec<Value> {
    let steps = |items: &[Value]| -> Vec<Step> { items.iter().map(|item| step_of(item, rule)).collect() };
    let (old, new) = (steps(live), steps(config));
    let (mut merged, mut next) = (Vec::new(), 0);
    for (step, item) in new.iter().zip(config) {
        let Some(place) = old.iter().position(|s| s == step) else {
            // Live items that no later shared one leads come first.
            if !new.iter().any(|s| old.get(next..).unwrap_or_default().contains(s)) {
                merged.extend(alone(live, &old, &new, next, old.len()));
                next = old.len();
            }
            merged.push(item.clone());
            continue;
        };
        merged.extend(alone(live, &old, &new, next, place));
        next = next.max(place + 1);
        merged.push(live.get(place).map_or_else(|| item.clone(), |live| merge(live, item, of)));
    }
    merged.extend(alone(live, &old, &new, next, old.len()));
    merged
}

fn alone(live: &[Value], old: &[Step], new: &[Step], from: usize, to: usize) -> Vec<Value> {
    let items = live.iter().zip(old).take(to).skip(from);
    items.filter(|(_, step)| !new.contains(step)).map(|(item, _)| item.clone()).collect()
}

/// The value without these fields, and without what is left empty where they were.
pub fn remove(value: &Value, fields: &Fields, of: &Type) -> Option<Value> {
    if fields.here {
        return None;
    }
    match (of.shape(), value) {
        (Shape::Struct(one), Value::Object(map)) => remove_from_map(map, fields, |key| one.field(key)),
        (Shape::Map(of), Value::Object(map)) => remove_from_map(map, fields, |_| of),
        (Shape::List(of, rule), Value::Array(items)) => {
            let kept: Vec<Value> = items
                .iter()
                .filter_map(|item| match fields.below.get(&step_of(item, rule)) {
                    Some(fields) => remove(item, fields, of),
                    None => Some(item.clone()),
                })
                .collect();
            (!kept.is_empty() || items.is_empty()).then_some(Value::Array(kept))
        }
        _ => Some(value.clone()),
    }
}

fn remove_from_map<'a>(
    map: &Map<String, Value>,
    fields: &Fields,
    of: impl Fn(&str) -> &'a Type,
) -> Option<Value> {
    let kept: Map<String, Value> = map
        .iter()
        .filter_map(|(key, value)| {
            let value = match fields.below.get(&Step::Field(key.clone())) {
                Some(fields) => remove(value, fields, of(key))?,
                None => value.clone(),
            };
            Some((key.clone(), value))
        })
        .collect();
    (!kept.is_empty() || map.is_empty()).then_some(Value::Object(kept))
}

/// What is other between two objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New, or of another value.
    pub set: Fields,
    pub removed: Fields,
}

pub fn compare(old: &Value, new: &Value, of: &Type) -> Changes {
    let (before, after) = (there(old, of), there(new, of));
    let mut changes = Changes { set: after.minus(&before), removed: before.minus(&after) };
    for way in after.common(&before).paths() {
        // What has something in it changed when that did.
        let leaf = after.at(&way).is_some_and(|fields| fields.below.is_empty());
        if leaf && value_at(old, &way, of) != value_at(new, &way, of) {
            changes.set.insert(&way);
        }
    }
    changes
}

/// All fields of an object, and the maps and merged lists that hold some.
fn there(object: &Value, of: &Type) -> Fields {
    let mut names = Names { holders: true, ..Names::default() };
    if !object.is_null() {
        names.add(object, of);
    }
    names.fields
}

/// The value at the end of a way.
pub fn value_at<'a>(value: &'a Value, way: &[Step], of: &Type) -> Option<&'a Value> {
    let Some((step, rest)) = way.split_first() else { return Some(value) };
    match (of.shape(), step, value) {
        (Shape::Struct(one), Step::Field(name), Value::Object(map)) => {
            value_at(map.get(name)?, rest, one.field(name))
        }
        (Shape::Map(of), Step::Field(name), Value::Object(map)) => value_at(map.get(name)?, rest, of),
        (Shape::List(of, rule), step, Value::Array(items)) => {
            value_at(items.iter().find(|item| step_of(item, rule) == *step)?, rest, of)
        }
        _ => None,
    }
}

/// Everything in the value that its type does not allow.
pub fn faults(value: &Value, of: &Type) -> Vec<Fault> {
    let mut found = Vec::new();
    look(value, of, &mut Vec::new(), &mut found);
    found
}

pub const UNKNOWN: &str = "field not declared in schema";

fn look(value: &Value, of: &Type, way: &mut Vec<Step>, found: &mut Vec<Fault>) {
    match (of.shape(), value) {
        (_, Value::Null) | (Shape::Any, _) => {}
        (Shape::Struct(one), Value::Object(map)) => {
            for (key, value) in map {
                way.push(Step::Field(key.clone()));
                match one.fields.get(key) {
                    Some(of) => look(value, of, way, found),
                    None if one.open => {}
                    None => found.push(Fault { way: way.clone(), what: UNKNOWN.to_owned() }),
                }
                way.pop();
            }
        }
        (Shape::Map(of), Value::Object(map)) => {
            for (key, value) in map {
                way.push(Step::Field(key.clone()));
                look(value, of, way, found);
                way.pop();
            }
        }
        (Shape::List(of, rule), Value::Array(items)) => {
            for item in items {
                way.push(step_of(item, rule));
                look(item, of, way, found);
                way.pop();
            }
        }
        (Shape::Scalar(scalar), value) if fits(scalar, value) => {}
        (shape, value) => found.push(Fault { way: way.clone(), what: wrong(shape, value) }),
    }
}

/// As the real server says it; it names a value of another kind in the words of its own program.
fn wrong(shape: Shape<'_>, value: &Value) -> String {
    let got = match value {
        Value::String(_) => "string".to_owned(),
        other => format!("&value.valueUnstructured{{Value:{other}}}"),
    };
    let expected = match shape {
        Shape::Scalar(Scalar::Integer | Scalar::Number) => "numeric (int or float)",
        Shape::Scalar(Scalar::Boolean) => "boolean",
        Shape::Scalar(_) => "string",
        Shape::List(..) => "list",
        Shape::Struct(_) | Shape::Map(_) | Shape::Any => "map",
    };
    format!("expected {expected}, got {got}")
}

fn fits(scalar: Scalar, value: &Value) -> bool {
    match scalar {
        Scalar::String => value.is_string(),
        Scalar::Integer => value.is_i64() || value.is_u64(),
        Scalar::Number => value.is_number(),
        Scalar::Boolean => value.is_boolean(),
        Scalar::Quantity => value.is_number() || value.is_string(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::super::fields::written;
    use super::*;

    fn pods() -> Type {
        Type::of_kind("v1", "Pod").unwrap()
    }

    fn pod(containers: Value) -> Value {
        json!({"spec": {"containers": containers}})
    }

    #[test]
    fn a_config_names_its_leaves_and_its_list_items() {
        let config = json!({"metadata": {"labels": {"a": "1"}, "annotations": {}},
            "spec": {"containers": [{"name": "a", "args": ["x", "y"], "ports": [{"containerPort": 80}]}]}});
        assert_eq!(
            fields_of(&config, &pods()).to_json(),
            json!({
                "f:metadata": {"f:annotations": {}, "f:labels": {"f:a": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {
                    ".": {},
                    "f:args": {},
                    "f:name": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                }}},
            })
        );
    }

    #[test]
    fn lists_are_merged_by_their_keys_in_a_steady_order() {
        let names = |live: &[&str], config: &[&str]| -> Vec<String> {
            let list = |names: &[&str]| pod(names.iter().map(|name| json!({"name": name})).collect());
            let merged = merge(&list(live), &list(config), &pods());
            let items = merged["spec"]["containers"].as_array().unwrap();
            items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&["a", "b"], &["b"]), ["a", "b"]);
        assert_eq!(names(&["a"], &["b"]), ["a", "b"]);
        assert_eq!(names(&["a", "b"], &["b", "a"]), ["b", "a"]);
        assert_eq!(names(&["a", "x", "b"], &["a", "b", "c"]), ["a", "x", "b", "c"]);
        let merged = merge(
            &pod(json!([{"name": "a", "image": "one", "tty": true}])),
            &pod(json!([{"name": "a", "image": "two"}])),
            &pods(),
        );
        assert_eq!(merged, pod(json!([{"name": "a", "image": "two", "tty": true}])));
    }

    #[test]
    fn what_is_removed_leaves_no_empty_thing_behind() {
        let live = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let gone = Fields::from_json(&json!({"f:metadata": {"f:labels": {"f:a": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"b\"}": {".": {}, "f:name": {}}}}}));
        assert_eq!(remove(&live, &gone, &pods()), Some(pod(json!([{"name": "a"}]))));
    }

    #[test]
    fn changes_are_told_by_field() {
        let old = pod(json!([{"name": "a", "image": "one"}, {"name": "b"}]));
        let new = pod(json!([{"name": "a", "image": "two", "tty": true}]));
        let changes = compare(&old, &new, &pods());
        let ways = |fields: &Fields| Vec::from_iter(fields.paths().iter().map(|way| written(way)));
        assert_eq!(
            ways(&changes.set),
            [".spec.containers[name=\"a\"].image", ".spec.containers[name=\"a\"].tty"]
        );
        assert_eq!(
            ways(&changes.removed),
            [".spec.containers[name=\"b\"]", ".spec.containers[name=\"b\"].name"]
        );
    }

    #[test]
    fn what_the_type_does_not_allow_is_found_with_its_place() {
        let config = json!({"spec": {"containers": [{"name": "a", "imgae": "x"}], "hostNetwork": "yes"}});
        let faults = faults(&config, &pods());
        let found = faults.iter().map(|fault| format!("{}: {}", written(&fault.way), fault.what));
        assert_eq!(
            found.collect::<Vec<_>>(),
            [
                ".spec.containers[name=\"a\"].imgae: field not declared in schema",
                ".spec.hostNetwork: expected boolean, got string"
            ]
        );
    }
}
