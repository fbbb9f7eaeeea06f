//! As much of OpenAPI v3 as kubectl looks at before it leaves the checking of fields to the server: which kinds can be
//! patched, and that a patch takes `fieldValidation`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::kinds::Kinds;

/// The document at a path below `/openapi/v3`; none when there is none.
pub fn document(kinds: &Kinds, path: &str) -> Option<Value> {
    let mut groups: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for ((api_version, plural), served) in kinds.all() {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let place =
            if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
        let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
        let patch = json!({
            "description": "partially update", "operationId": format!("patch{}", served.kind),
            "parameters": [parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation"), parameter("force")],
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": served.kind},
        });
        let within = if served.namespaced { "namespaces/{namespace}/" } else { "" };
        groups
            .entry(place.clone())
            .or_default()
            .push(json!([format!("/{place}/{within}{plural}/{{name}}"), {"patch": patch}]));
    }
    if path.is_empty() {
        let place = |place: &String| {
            (place.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{place}?hash=simulated")}))
        };
        return Some(json!({"paths": groups.keys().map(place).collect::<BTreeMap<_, _>>()}));
    }
    let mut paths = json!({});
    for one in groups.get(path)? {
        if let (Some(path), operations) = (one[0].as_str(), &one[1]) {
            paths[path] = operations.clone();
        }
    }
    Some(json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "simulated"}, "paths": paths,
        "components": {"schemas": {}},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_says_that_its_fields_are_checked_here() {
        let kinds = Kinds::recorded();
        let index = document(&kinds, "").unwrap_or_default();
        assert!(index["paths"]["apis/apps/v1"].is_object() && index["paths"]["api/v1"].is_object());
        let apps = document(&kinds, "apis/apps/v1").unwrap_or_default();
        let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        assert!(document(&kinds, "apis/nothing/v1").is_none());
    }
}
