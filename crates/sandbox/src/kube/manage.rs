//! Who owns which field: server-side apply and the bookkeeping of every other write, as the API server does them.
//! Source: k8s.io/apimachinery, managedfields; sigs.k8s.io/structured-merge-diff, merge.Updater.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::fields::{Fields, Step, written};
use super::merge::{compare, fields_of, merge, remove};
use super::types::Type;

/// What nobody owns: it names the object, or the server keeps it.
static NOBODYS: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from_json(&json!({
        "f:apiVersion": {}, "f:kind": {},
        "f:metadata": {
            ".": {}, "f:creationTimestamp": {}, "f:generation": {}, "f:managedFields": {}, "f:name": {},
            "f:namespace": {}, "f:resourceVersion": {}, "f:selfLink": {}, "f:uid": {},
        },
    }))
});

/// Who writes: a manager by the way it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    pub name: String,
    pub applies: bool,
    pub api_version: String,
    /// Such as `status`; empty for the object itself.
    pub subresource: String,
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    writer: Writer,
    time: String,
    fields: Fields,
}

/// A field that somebody else owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The owner, as the API server words it.
    pub with: String,
    pub field: String,
}

/// The object with the config applied by the writer. Without `force`, fields that others own stay theirs, and are the error.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    of: &Type,
    writer: &Writer,
    force: bool,
    now: &str,
) -> Result<Value, Vec<Conflict>> {
    let mut entries = live.map(entries).unwrap_or_default();
    let (before, config) = (live.map_or(Value::Null, bare), bare(config));
    let set = fields_of(&config, of).minus(&NOBODYS);
    let merged = merge(&before, &config, of);
    let last = mine(&entries, writer);
    let after = remove(&merged, &let_go(&last, &set, &entries, writer), of).unwrap_or(merged);
    let changes = compare(&before, &after, of);
    let conflicts = conflicts(&entries, writer, &changes.set);
    if !force && !conflicts.is_empty() {
        return Err(conflicts);
    }
    let lost = changes.set.union(&changes.removed);
    let mut moved = give_up(&mut entries, writer, &lost);
    if before != after || last != set {
        moved = true;
        own(&mut entries, writer, set, now);
    }
    match live {
        Some(live) if !moved => Ok(live.clone()),
        _ => Ok(with(after, entries)),
    }
}

/// The object as somebody wrote it whole, with the writer owning what it changed.
pub fn update(live: Option<&Value>, new: &Value, of: &Type, writer: &Writer, now: &str) -> Value {
    let mut entries = live.map(entries).unwrap_or_default();
    let (before, after) = (live.map_or(Value::Null, bare), bare(new));
    if before == after {
        return with(after, entries);
    }
    let changes = compare(&before, &said(&after), of);
    let fields = mine(&entries, writer).minus(&changes.removed).union(&changes.set.minus(&NOBODYS));
    own(&mut entries, writer, fields, now);
    give_up(&mut entries, writer, &changes.set.union(&changes.removed));
    with(after, entries)
}

/// The object without nulls: who writes one says nothing.
fn said(object: &Value) -> Value {
    match object {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), said(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(said).collect()),
        other => other.clone(),
    }
}

/// What was applied before, is not any more, and is nobody else's.
fn let_go(last: &Fields, set: &Fields, entries: &[Entry], writer: &Writer) -> Fields {
    let mut gone = Fields::default();
    let kept = |way: &[Step]| {
        let holds = |fields: &Fields| fields.at(way).is_some_and(|fields| !fields.is_empty());
        holds(set) || entries.iter().any(|entry| entry.writer != *writer && holds(&entry.fields))
    };
    for way in last.minus(set).paths().iter().filter(|way| !kept(way)) {
        gone.insert(way);
    }
    gone
}

fn conflicts(entries: &[Entry], writer: &Writer, set: &Fields) -> Vec<Conflict> {
    let others = entries.iter().filter(|entry| entry.writer != *writer);
    let mut found = Vec::new();
    for entry in others {
        for way in entry.fields.common(set).paths() {
            found.push(Conflict { with: called(entry), field: written(&way) });
        }
    }
    found
}

/// As the API server calls a manager in a conflict.
fn called(entry: &Entry) -> String {
    let Writer { name, applies, api_version, subresource } = &entry.writer;
    let part =
        if subresource.is_empty() { String::new() } else { format!(" with subresource {subresource:?}") };
    if *applies {
        return format!("{name:?}{part}");
    }
    format!("{name:?}{part} using {api_version}")
}

/// Takes fields from everybody but the writer, and drops who owns nothing; true when somebody lost one.
fn give_up(entries: &mut Vec<Entry>, writer: &Writer, lost: &Fields) -> bool {
    let mut moved = false;
    for entry in entries.iter_mut().filter(|entry| entry.writer != *writer) {
        let left = entry.fields.minus(lost);
        moved |= left != entry.fields;
        entry.fields = left;
    }
    entries.retain(|entry| !entry.fields.is_empty());
    moved
}

fn mine(entries: &[Entry], writer: &Writer) -> Fields {
    let mine = entries.iter().find(|entry| entry.writer == *writer);
    mine.map(|entry| entry.fields.clone()).unwrap_or_default()
}

/// The fields are what the writer owns from now on.
fn own(entries: &mut Vec<Entry>, writer: &Writer, fields: Fields, now: &str) {
    entries.retain(|entry| entry.writer != *writer);
    entries.push(Entry { writer: writer.clone(), time: now.to_owned(), fields });
}

/// The object without its managed fields.
fn bare(object: &Value) -> Value {
    let mut bare = object.clone();
    if let Some(metadata) = bare.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    bare
}

fn with(mut object: Value, mut entries: Vec<Entry>) -> Value {
    let order = |entry: &Entry| (!entry.writer.applies, entry.time.clone(), entry.writer.name.clone());
    entries.sort_by_key(order);
    let managed: Vec<Value> = entries.iter().map(Entry::to_json).collect();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && !managed.is_empty()
    {
        metadata.insert("managedFields".into(), Value::Array(managed));
    }
    object
}

fn entries(object: &Value) -> Vec<Entry> {
    let managed = object["metadata"]["managedFields"].as_array();
    managed.into_iter().flatten().map(Entry::from_json).collect()
}

impl Entry {
    fn to_json(&self) -> Value {
        let Writer { name, applies, api_version, subresource } = &self.writer;
        let mut entry = json!({
            "manager": name,
            "operation": if *applies { "Apply" } else { "Update" },
            "apiVersion": api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_json(),
        });
        if !subresource.is_empty() {
            entry["subresource"] = json!(subresource);
        }
        entry
    }

    fn from_json(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let writer = Writer {
            name: text("manager"),
            applies: value["operation"] == "Apply",
            api_version: text("apiVersion"),
            subresource: text("subresource"),
        };
        Self { writer, time: text("time"), fields: Fields::from_json(&value["fieldsV1"]) }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of() -> Type {
        Type::of_kind("v1", "ConfigMap").unwrap()
    }

    fn writer(name: &str, applies: bool) -> Writer {
        Writer { name: name.into(), applies, api_version: "v1".into(), subresource: String::new() }
    }

    fn config(data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
    }

    fn applied(live: Option<&Value>, who: &str, data: Value, force: bool) -> Result<Value, Vec<Conflict>> {
        apply(live, &config(data), &of(), &writer(who, true), force, "2026-01-01T00:00:00Z")
    }

    #[test]
    fn anothers_field_is_a_conflict_until_it_is_forced() {
        let live = applied(None, "one", json!({"a": "1", "b": "2"}), false).unwrap();
        let conflicts = applied(Some(&live), "two", json!({"a": "9"}), false).unwrap_err();
        assert_eq!(conflicts, [Conflict { with: "\"one\"".into(), field: ".data.a".into() }]);
        let live = applied(Some(&live), "two", json!({"a": "9"}), true).unwrap();
        assert_eq!(live["data"], json!({"a": "9", "b": "2"}));
        let owners: Vec<_> =
            entries(&live).into_iter().map(|e| (e.writer.name, e.fields.to_json())).collect();
        assert_eq!(
            owners,
            [
                ("one".to_owned(), json!({"f:data": {"f:b": {}}})),
                ("two".to_owned(), json!({"f:data": {"f:a": {}}}))
            ]
        );
    }

    #[test]
    fn a_field_goes_with_its_last_owner() {
        let live = applied(None, "one", json!({"a": "1", "b": "2"}), false).unwrap();
        let live = applied(Some(&live), "two", json!({"a": "1"}), false).unwrap();
        let live = applied(Some(&live), "one", json!({"b": "2"}), false).unwrap();
        assert_eq!(live["data"], json!({"a": "1", "b": "2"}), "shared with another");
        let live = applied(Some(&live), "two", json!({"c": "3"}), false).unwrap();
        assert_eq!(live["data"], json!({"b": "2", "c": "3"}));
    }

    #[test]
    fn a_plain_write_takes_what_it_changes() {
        let live = applied(None, "one", json!({"a": "1"}), false).unwrap();
        let new = config(json!({"a": "2"}));
        let live = update(Some(&live), &new, &of(), &writer("hand", false), "2026-01-01T00:00:01Z");
        let conflicts = applied(Some(&live), "one", json!({"a": "1"}), false).unwrap_err();
        assert_eq!(conflicts.len(), 1);
        assert_eq!(conflicts.first().unwrap().with, "\"hand\" using v1");
    }

    fn data() -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-e]", "[1-3]", 0..4).prop_map(|map| json!(map))
    }

    proptest! {
        #[test]
        fn applying_twice_is_applying_once(first in data(), second in data()) {
            let live = applied(None, "one", first, false).unwrap();
            let live = applied(Some(&live), "two", second.clone(), true).unwrap();
            let again = applied(Some(&live), "two", second, false).unwrap();
            prop_assert_eq!(live, again);
        }

        #[test]
        fn what_one_applied_last_is_there(first in data(), second in data(), third in data()) {
            let live = applied(None, "one", first, false).unwrap();
            let live = applied(Some(&live), "two", second, true).unwrap();
            let live = applied(Some(&live), "one", third.clone(), true).unwrap();
            for (key, value) in third.as_object().unwrap() {
                prop_assert_eq!(&live["data"][key], value);
            }
        }
    }
}
