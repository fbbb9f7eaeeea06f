//! What the actors do with objects of any kind: where they are asked for, how their state is told, how names are made.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{Stage, names, text};
pub(super) use crate::kube::object::{condition_of, holds, list};
use crate::kube::route;

/// The path of an object that is kept.
pub(super) fn path(object: &Value) -> String {
    let (namespace, name) = names(object);
    format!("{}/{name}", collection(text(object, "/apiVersion"), text(object, "/kind"), namespace))
}

/// The path of a collection; the namespace is empty for kinds of the cluster.
pub(super) fn collection(api_version: &str, kind: &str, namespace: &str) -> String {
    route::collection(api_version, namespace, &plural(kind))
}

/// What the objects of a kind are called in paths.
pub(super) fn plural(kind: &str) -> String {
    let lower = kind.to_lowercase();
    match lower.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if lower.ends_with("class") => format!("{lower}es"),
        None if lower == "endpoints" => lower,
        None => format!("{lower}s"),
    }
}

/// Writes the status when it is another one. An object that changed meanwhile is looked at again in the next round.
pub(super) fn set_status(stage: &mut Stage<'_>, who: &str, object: &Value, status: Value) {
    if object["status"] == status {
        return;
    }
    let mut new = object.clone();
    if let Some(fields) = new.as_object_mut() {
        fields.insert("status".into(), status);
    }
    let _ = stage.ask(who, "PUT", &format!("{}/status", path(object)), &new);
}

/// Deletes an object; one that is gone already is fine.
pub(super) fn delete(stage: &mut Stage<'_>, who: &str, path: &str) {
    let _ = stage.ask(who, "DELETE", path, &Value::Null);
}

/// Takes away the finalizer that keeps an object.
pub(super) fn free(stage: &mut Stage<'_>, who: &str, object: &Value, finalizer: &str) {
    let all = list(object, "/metadata/finalizers");
    let left: Vec<&Value> = all.iter().filter(|one| *one != finalizer).collect();
    if left.len() < all.len() {
        let _ = stage.patch(who, &path(object), &json!({"metadata": {"finalizers": left}}));
    }
}

/// The number at a pointer.
pub(super) fn number(object: &Value, pointer: &str) -> Option<u64> {
    object.pointer(pointer).and_then(Value::as_u64)
}

/// A condition for the object: since now, unless it was so before.
pub(super) fn condition(
    object: &Value,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: &str,
) -> Value {
    let old = condition_of(object, kind).filter(|old| old["status"] == status);
    let since = old.map_or_else(|| json!(now), |old| old["lastTransitionTime"].clone());
    let mut condition = json!({"type": kind, "status": status, "lastTransitionTime": since});
    for (key, value) in [("reason", reason), ("message", message)] {
        if !value.is_empty() {
            condition[key] = json!(value);
        }
    }
    condition
}

/// The object's status with a condition in place of the one of its type.
pub(super) fn with_condition(object: &Value, new: Value) -> Value {
    let others = list(object, "/status/conditions").iter().filter(|one| one["type"] != new["type"]);
    let mut conditions: Vec<Value> = others.cloned().collect();
    conditions.push(new);
    let mut status = object["status"].clone();
    json_patch::merge(&mut status, &json!({"conditions": conditions}));
    status
}

/// Numbers by name, without the zeros: the API leaves those out.
pub(super) fn counts(numbers: &[(&str, usize)]) -> Map<String, Value> {
    let some = numbers.iter().filter(|(_, number)| *number > 0);
    some.map(|(name, number)| ((*name).to_owned(), json!(number))).collect()
}

/// The uid of the object's controlling owner; empty when it has none.
pub(super) fn owner_uid(object: &Value) -> &str {
    let owner = list(object, "/metadata/ownerReferences").iter().find(|owner| owner["controller"] == true);
    owner.map_or("", |owner| text(owner, "/uid"))
}

/// The SHA-256 of a text.
pub(super) fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// The SHA-256 of a text, in hex.
pub(super) fn digest(text: &str) -> String {
    hash(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Letters for the end of a name, the same for the same seed; those that Kubernetes uses.
pub(super) fn suffix(seed: &str, letters: usize) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let letter = |byte: &u8| LETTERS.get(usize::from(*byte) % LETTERS.len()).map_or('x', |l| char::from(*l));
    hash(seed).iter().take(letters).map(letter).collect()
}

/// A value as text that does not depend on the order of its keys.
pub(super) fn sorted(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<String> =
                map.iter().map(|(key, value)| format!("{key:?}:{}", sorted(value))).collect();
            pairs.sort();
            format!("{{{}}}", pairs.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_at_their_paths() {
        for (object, at) in [
            (
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "p"}}),
                "/api/v1/namespaces/a/pods/p",
            ),
            (json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}), "/api/v1/nodes/n"),
            (
                json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "s"}}),
                "/apis/storage.k8s.io/v1/storageclasses/s",
            ),
            (
                json!({"apiVersion": "x/v1", "kind": "Repository", "metadata": {"namespace": "a", "name": "r"}}),
                "/apis/x/v1/namespaces/a/repositories/r",
            ),
        ] {
            assert_eq!(path(&object), at);
        }
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_is_the_same() {
        let old = json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "then"},
        ]}});
        let time = |status| condition(&old, "Ready", status, "", "", "now")["lastTransitionTime"].clone();
        assert_eq!((time("True"), time("False")), (json!("then"), json!("now")));
    }

    #[test]
    fn the_order_of_keys_does_not_change_a_values_text() {
        let (one, other) =
            (json!({"a": [1, {"b": 2, "c": 3}], "d": "x"}), json!({"d": "x", "a": [1, {"c": 3, "b": 2}]}));
        assert_eq!(sorted(&one), sorted(&other));
        assert_ne!(sorted(&one), sorted(&json!({"a": [], "d": "x"})));
    }
}
