//! What every object has: a name, fields at pointers, conditions, times.

use jiff::Timestamp;
use serde_json::Value;

/// A time as objects carry it.
pub fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The finalizer of an object that goes after what it owns.
pub const FOREGROUND: &str = "foregroundDeletion";

/// The text at a pointer such as `/metadata/name`; empty when there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The namespace and name of an object.
pub fn names(object: &Value) -> (&str, &str) {
    (text(object, "/metadata/namespace"), text(object, "/metadata/name"))
}

/// Whether the object is about to go.
pub fn ending(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// The list at a pointer such as `/spec/volumes`; empty when there is none.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The object's condition of this type.
pub fn condition_of<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, "/status/conditions").iter().find(|condition| condition["type"] == kind)
}

/// Whether the object's condition of this type is True.
pub fn holds(object: &Value, kind: &str) -> bool {
    condition_of(object, kind).is_some_and(|condition| condition["status"] == "True")
}
