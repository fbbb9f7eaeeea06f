//! Taints that somebody set, and what lets pods run on the nodes that have them all the same.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::{Value, json};

/// The keys of the taints of control planes, which all that is installed and tried tolerates.
pub const CONTROL_PLANES: [&str; 2] =
    ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// Before the keys of taints that Kubernetes sets by itself: they say that a node is not well.
const OF_KUBERNETES: &str = "node.kubernetes.io/";

/// The node's taints that somebody set.
pub fn set_taints(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.iter().filter_map(|spec| spec.taints.as_ref()).flatten();
    taints.filter(|taint| !taint.key.starts_with(OF_KUBERNETES))
}

/// What tolerates taints of these keys and effects, each once.
pub fn tolerations<'a>(taints: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Value> {
    let taints: BTreeSet<_> = taints.into_iter().collect();
    let toleration = |(key, effect)| json!({ "key": key, "operator": "Exists", "effect": effect });
    taints.into_iter().map(toleration).collect()
}

/// The same beside those of control planes.
pub fn beside_control_planes(tolerations: &[Value]) -> Vec<Value> {
    let roles = CONTROL_PLANES.map(|key| json!({ "key": key, "operator": "Exists" }));
    roles.into_iter().chain(tolerations.iter().cloned()).collect()
}
