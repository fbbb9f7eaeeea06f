//! Which objects a backup takes, by the spec that Velero is given.
//! Source: velero-io/velero pkg/apis/velero/v1 BackupSpec and pkg/util/collections/includes_excludes.go (v1.18).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::intent::fits;

/// The part of a backup's spec, or of a schedule's template, that says what is taken.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selection {
    pub included_namespaces: Option<Vec<String>>,
    pub excluded_namespaces: Option<Vec<String>>,
    pub label_selector: Option<LabelSelector>,
    pub or_label_selectors: Option<Vec<LabelSelector>>,
    pub included_resources: Option<Vec<String>>,
    pub excluded_resources: Option<Vec<String>>,
    pub included_namespace_scoped_resources: Option<Vec<String>>,
    pub excluded_namespace_scoped_resources: Option<Vec<String>>,
    pub resource_policy: Option<Value>,
    pub default_volumes_to_fs_backup: Option<bool>,
}

impl Selection {
    /// The files of every volume unless its pod says otherwise.
    pub fn everything() -> Self {
        Self { default_volumes_to_fs_backup: Some(true), ..Self::default() }
    }

    /// # Errors
    /// `Failed` when the spec is not one of Velero's.
    pub fn of(spec: &Value) -> Result<Self> {
        if spec.is_null() {
            return Ok(Self::default());
        }
        Self::deserialize(spec).map_err(|error| Error::failed(format!("the backup's spec: {error}")))
    }

    /// Whether the object is in one of the namespaces, and has the labels.
    pub fn takes(&self, metadata: &ObjectMeta) -> bool {
        self.takes_namespace(metadata.namespace.as_deref().unwrap_or_default()) && self.labelled(metadata)
    }

    pub fn takes_namespace(&self, name: &str) -> bool {
        named(&self.included_namespaces, &self.excluded_namespaces, |pattern| fits(pattern, name))
    }

    fn labelled(&self, metadata: &ObjectMeta) -> bool {
        let none = BTreeMap::new();
        let labels = metadata.labels.as_ref().unwrap_or(&none);
        let any = self.or_label_selectors.as_deref().unwrap_or_default();
        self.label_selector.as_ref().is_none_or(|selector| matches(selector, labels))
            && (any.is_empty() || any.iter().any(|selector| matches(selector, labels)))
    }

    /// Whether pods and claims are among the kinds that are taken.
    pub fn takes_volumes(&self) -> bool {
        let all = [
            (&self.included_resources, &self.excluded_resources),
            (&self.included_namespace_scoped_resources, &self.excluded_namespace_scoped_resources),
        ];
        let takes = |kind: [&str; 2]| {
            all.iter().all(|(included, excluded)| {
                named(included, excluded, |name| name == "*" || kind.contains(&name))
            })
        };
        takes(["pods", "pod"]) && takes(["persistentvolumeclaims", "pvc"])
    }

    /// Whether a policy may leave volumes out, which is read nowhere here.
    pub fn has_policy(&self) -> bool {
        self.resource_policy.as_ref().is_some_and(|policy| !policy.is_null())
    }
}

/// Nothing included means everything.
fn named(included: &Option<Vec<String>>, excluded: &Option<Vec<String>>, is: impl Fn(&str) -> bool) -> bool {
    let any = |names: &Option<Vec<String>>| names.iter().flatten().any(|name| is(name));
    !any(excluded) && (included.as_ref().is_none_or(Vec::is_empty) || any(included))
}

/// As Kubernetes matches labels. An operator that does not exist matches nothing.
fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let listed = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    listed
        && selector.match_expressions.iter().flatten().all(|wanted| {
            let (found, values) = (labels.get(&wanted.key), wanted.values.as_deref().unwrap_or_default());
            match wanted.operator.as_str() {
                "In" => found.is_some_and(|found| values.contains(found)),
                "NotIn" => found.is_none_or(|found| !values.contains(found)),
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn namespaces_and_labels_decide_as_velero_reads_them() {
        let object = |namespace: &str, labels: Value| -> ObjectMeta {
            from_value(json!({"namespace": namespace, "labels": labels})).unwrap()
        };
        let db = object("production", json!({"app": "db", "tier": "1"}));
        for (spec, taken) in [
            (Value::Null, true),
            (json!({"includedNamespaces": ["*"]}), true),
            (json!({"includedNamespaces": ["prod*"]}), true),
            (json!({"includedNamespaces": ["staging"]}), false),
            (json!({"includedNamespaces": ["*"], "excludedNamespaces": ["p?oduction"]}), false),
            (json!({"excludedNamespaces": ["kube-*"]}), true),
            (json!({"labelSelector": {"matchLabels": {"app": "db"}}}), true),
            (json!({"labelSelector": {"matchLabels": {"app": "web"}}}), false),
            (
                json!({"labelSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["db"]}]}}),
                true,
            ),
            (
                json!({"labelSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db"]}]}}),
                false,
            ),
            (json!({"labelSelector": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]}}), true),
            (
                json!({"labelSelector": {"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}}),
                false,
            ),
            (
                json!({"labelSelector": {"matchExpressions": [{"key": "tier", "operator": "Gt", "values": ["0"]}]}}),
                false,
            ),
            (
                json!({"orLabelSelectors": [{"matchLabels": {"app": "web"}}, {"matchLabels": {"app": "db"}}]}),
                true,
            ),
            (json!({"orLabelSelectors": [{"matchLabels": {"app": "web"}}]}), false),
        ] {
            assert_eq!(Selection::of(&spec).unwrap().takes(&db), taken, "{spec}");
        }
        assert!(Selection::of(&json!({"includedNamespaces": 1})).is_err());
    }

    #[test]
    fn volumes_are_taken_when_pods_and_claims_are() {
        for (spec, taken) in [
            (json!({}), true),
            (json!({"includedResources": ["*"]}), true),
            (json!({"includedResources": ["pods", "persistentvolumeclaims", "persistentvolumes"]}), true),
            (json!({"includedResources": ["pods", "pvc"]}), true),
            (json!({"includedResources": ["deployments"]}), false),
            (json!({"excludedResources": ["pods"]}), false),
            (json!({"excludedNamespaceScopedResources": ["persistentvolumeclaims"]}), false),
            (json!({"includedNamespaceScopedResources": ["*"]}), true),
        ] {
            assert_eq!(Selection::of(&spec).unwrap().takes_volumes(), taken, "{spec}");
        }
    }
}
