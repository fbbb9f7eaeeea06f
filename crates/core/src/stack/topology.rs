//! The nodes that a class is limited to: those that get its volume.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::intent::{Class, Intent};
use crate::model::HOSTNAME;

/// A node label and the values of it that a class allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Requirement {
    pub key: String,
    pub values: Vec<String>,
}

/// What a node must have for the class to allow it; nothing where the file does not tell its nodes.
///
/// These are the labels that the file gives to all nodes with the class's volume and to no other; else the nodes by their
/// host names (address to name, as far as they have joined).
pub(super) fn of(intent: &Intent, class: &Class, hosts: &BTreeMap<String, String>) -> Vec<Requirement> {
    if intent.nodes.is_empty() {
        return intent.labels.iter().map(|(key, value)| one(key, value)).collect();
    }
    let (with, without): (Vec<&str>, Vec<&str>) = addresses(intent).partition(|a| intent.gives(a, class));
    let labels = |address: &&str| -> BTreeSet<(String, String)> {
        let labels = intent.on(address).labels;
        labels.into_iter().filter(|(key, _)| key != HOSTNAME).collect()
    };
    let common = with.iter().map(labels).reduce(|a, b| a.intersection(&b).cloned().collect());
    let common = common.unwrap_or_default();
    if !common.is_empty() && !without.iter().any(|other| labels(other).is_superset(&common)) {
        return common.iter().map(|(key, value)| one(key, value)).collect();
    }
    let known: BTreeSet<&String> = with.iter().filter_map(|address| hosts.get(*address)).collect();
    let values: Vec<String> = known.into_iter().cloned().collect();
    if values.is_empty() { Vec::new() } else { vec![Requirement { key: HOSTNAME.to_owned(), values }] }
}

fn addresses(intent: &Intent) -> impl Iterator<Item = &str> {
    intent.nodes.iter().map(|node| node.address.as_str())
}

fn one(key: &str, value: &str) -> Requirement {
    Requirement { key: key.to_owned(), values: vec![value.to_owned()] }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(labels: Value, nodes: Value, hosts: &[(&str, &str)]) -> Vec<String> {
        let intent: Intent = serde_json::from_value(json!({
            "apiVersion": "nodeprep.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "lab"},
            "labels": labels, "nodes": nodes,
            "volumes": [{"name": "fast", "disk": {"match": "true"}, "minSize": "1GiB"}],
        }))
        .unwrap();
        let class = serde_json::from_value(json!({"name": "c", "basePath": "/var/mnt/fast/c"})).unwrap();
        let hosts = hosts.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let found = of(&intent, &class, &hosts);
        found.into_iter().map(|one| format!("{}={}", one.key, one.values.join(","))).collect()
    }

    #[test]
    fn a_class_is_limited_by_labels_that_tell_its_nodes_else_by_their_names() {
        let hosts = [("10.0.0.1", "n1"), ("10.0.0.2", "n2")];
        let (label, none) = (json!({"storage": "yes"}), json!({}));
        let out = |labels: Value| json!([{"address": "10.0.0.1"}, {"address": "10.0.0.2", "volumes": {"fast": null}, "labels": labels}]);
        let both = json!([{"address": "10.0.0.1"}, {"address": "10.0.0.2"}]);
        for (what, labels, nodes, expected) in [
            ("no nodes, no labels", none.clone(), json!([]), vec![]),
            ("no nodes", label.clone(), json!([]), vec!["storage=yes"]),
            ("labels of all", label.clone(), both.clone(), vec!["storage=yes"]),
            ("no labels", none.clone(), both, vec!["kubernetes.io/hostname=n1,n2"]),
            (
                "one without the volume but with the label",
                label.clone(),
                out(none.clone()),
                vec!["kubernetes.io/hostname=n1"],
            ),
            ("one without either", label.clone(), out(json!({"storage": null})), vec!["storage=yes"]),
            ("one without and with another value", label, out(json!({"storage": "no"})), vec!["storage=yes"]),
            (
                "not joined yet",
                none,
                json!([{"address": "10.0.0.1"}, {"address": "10.0.0.9"}]),
                vec!["kubernetes.io/hostname=n1"],
            ),
        ] {
            assert_eq!(told(labels, nodes, &hosts), expected, "{what}");
        }
    }
}
