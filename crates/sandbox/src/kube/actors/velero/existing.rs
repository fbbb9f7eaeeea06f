//! What a restore does with objects that exist already.

use serde_json::{Map, Value, json};

use super::super::objects::path;
use super::super::{Stage, text};
use super::WHO;
use super::contents::Entry;

/// Takes away what belongs to one object alone.
pub(super) fn strip(object: &mut Value) {
    let own = json!({
        "metadata": {
            "generateName": null, "selfLink": null, "uid": null, "resourceVersion": null, "generation": null,
            "creationTimestamp": null, "deletionTimestamp": null, "deletionGracePeriodSeconds": null,
            "ownerReferences": null,
        },
        "status": null,
    });
    json_patch::merge(object, &own);
}

/// Does with the object that exists what the restore's policy says; the error is the warning.
pub(super) fn meet(
    stage: &mut Stage<'_>,
    policy: &str,
    entry: &Entry<'_>,
    there: &Value,
    new: &Value,
) -> Result<(), String> {
    let mut bare = there.clone();
    strip(&mut bare);
    let labels = &new["metadata"]["labels"];
    let ours = json!({"metadata": {"labels": {
        "velero.io/backup-name": labels["velero.io/backup-name"],
        "velero.io/restore-name": labels["velero.io/restore-name"],
    }}});
    let mut labelled = bare.clone();
    json_patch::merge(&mut labelled, &ours);
    let same = labelled == *new;
    // Service accounts are merged, which changes nothing here.
    if policy != "update" && (same || entry.resource == "serviceaccounts") {
        return Ok(());
    }
    if policy == "update" {
        let change = if same { ours.clone() } else { difference(&bare, new) };
        return stage.patch(WHO, &path(there), &change).map(|_| ()).inspect_err(|_| {
            let _ = stage.patch(WHO, &path(there), &ours);
        });
    }
    let (kind, name) = (text(new, "/kind"), entry.name);
    let called = if policy == "none" { format!("{kind} {name:?}") } else { format!("{kind}:{name}") };
    let why = "already exists. Warning: the in-cluster version is different than the backed-up version";
    Err(format!("could not restore, {called} {why}"))
}

/// The merge patch that makes the one into the other.
fn difference(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
    let gone = from.keys().filter(|key| !to.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let other = to.iter().filter(|(key, value)| from.get(*key) != Some(value));
    let other =
        other.map(|(key, value)| (key.clone(), difference(from.get(key).unwrap_or(&Value::Null), value)));
    Value::Object(gone.chain(other).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_makes_the_one_into_the_other() {
        let to = json!({"a": 1, "b": {"c": [1, 2]}, "e": {"f": 1}});
        for from in [json!({}), json!({"a": 2, "b": {"c": [1], "x": 1}, "d": 1}), json!({"e": 5}), to.clone()]
        {
            let mut made = from.clone();
            json_patch::merge(&mut made, &difference(&from, &to));
            assert_eq!(made, to, "{from}");
        }
        assert_eq!(difference(&to, &to), json!({}));
    }
}
