//! The patches that change an object in place: merge (RFC 7396), JSON (RFC 6902) and strategic merge.

use serde_json::{Map, Value};

use super::merge;
use super::status::{Refusal, bad_request, internal};
use super::types::{Merge, Shape, Type};

/// The object with the patch of this content type.
pub fn apply(content_type: &str, object: &Value, patch: &Value, of: &Type) -> Result<Value, Refusal> {
    match content_type.split(';').next().unwrap_or_default() {
        "application/merge-patch+json" => {
            let mut patched = object.clone();
            json_patch::merge(&mut patched, patch);
            Ok(patched)
        }
        "application/json-patch+json" => {
            let patch: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|error| bad_request(format!("error decoding patch: {error}")))?;
            let mut patched = object.clone();
            json_patch::patch(&mut patched, &patch).map_err(|error| {
                internal(format!("the server rejected our request due to an error in our request: {error}"))
            })?;
            Ok(patched)
        }
        "application/strategic-merge-patch+json" => Ok(strategic(object, patch, of)),
        other => Err(bad_request(format!("unsupported patch type {other:?}"))),
    }
}

/// Lists with keys are merged item by item; null and `$patch: delete` take away.
fn strategic(object: &Value, patch: &Value, of: &Type) -> Value {
    match (of.shape(), object, patch) {
        (Shape::Struct(one), Value::Object(old), Value::Object(new)) => {
            merged(old, new, |key| one.field(key))
        }
        (Shape::Map(of), Value::Object(old), Value::Object(new)) => merged(old, new, |_| of),
        (Shape::List(of, rule @ Merge::Keys(_)), Value::Array(old), Value::Array(new)) => {
            let mut items = old.clone();
            for item in new {
                let step = merge::step_of(item, rule);
                let place = items.iter().position(|one| merge::step_of(one, rule) == step);
                match (place, item["$patch"] == "delete") {
                    (Some(place), true) => {
                        items.remove(place);
                    }
                    (Some(place), false) => {
                        if let Some(one) = items.get_mut(place) {
                            *one = strategic(one, item, of);
                        }
                    }
                    (None, true) => {}
                    (None, false) => items.push(item.clone()),
                }
            }
            Value::Array(items)
        }
        (Shape::List(_, Merge::Set), Value::Array(old), Value::Array(new)) => {
            let mut items = old.clone();
            items.extend(new.iter().filter(|item| !old.contains(item)).cloned());
            Value::Array(items)
        }
        _ => patch.clone(),
    }
}

fn merged<'a>(old: &Map<String, Value>, new: &Map<String, Value>, of: impl Fn(&str) -> &'a Type) -> Value {
    let mut map = old.clone();
    for (key, value) in new {
        if value.is_null() {
            map.shift_remove(key);
            continue;
        }
        let value = match old.get(key) {
            Some(old) => strategic(old, value, of(key)),
            None => value.clone(),
        };
        map.insert(key.clone(), value);
    }
    Value::Object(map)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_of_patch_changes_as_its_rule_says() {
        let of = Type::of_kind("v1", "Pod").unwrap();
        let pod = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}});
        let patched = |kind: &str, patch: Value| {
            apply(&format!("application/{kind}+json"), &pod, &patch, &of).map_err(|refusal| refusal.code)
        };
        let containers = json!({"spec": {"containers": [{"name": "b"}]}});
        assert_eq!(patched("merge-patch", containers.clone()).unwrap()["spec"], containers["spec"]);
        assert_eq!(
            patched("strategic-merge-patch", containers).unwrap()["spec"]["containers"],
            json!([{"name": "a", "image": "x"}, {"name": "b"}])
        );
        let gone = json!({"metadata": {"labels": null}, "spec": {"containers": [{"name": "a", "$patch": "delete"}]}});
        assert_eq!(
            patched("strategic-merge-patch", gone).unwrap(),
            json!({"metadata": {}, "spec": {"containers": []}})
        );
        let label = json!([{"op": "replace", "path": "/metadata/labels/a", "value": "2"}]);
        assert_eq!(patched("json-patch", label).unwrap()["metadata"]["labels"]["a"], "2");
        assert_eq!(patched("json-patch", json!({"op": "none"})), Err(400));
        assert_eq!(patched("other", json!({})), Err(400));
    }
}
