//! Node labels that Talos may set: on workers NodeRestriction decides, and one forbidden key stalls them all.

use super::machine::{Work, need};
use crate::config_doc::ConfigDoc;
use crate::error::{Error, Result};
use crate::intent::OnNode;
use crate::model::node::{Node, is_control_plane};

/// Namespaces that a kubelet may write, their sub-domains included (k8s.io/kubelet `well_known_labels.go`).
const KUBELET_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// Single keys that a kubelet may write (same source).
const KUBELET_KEYS: [&str; 10] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// Sets the labels where the config keeps them; what is returned stands in the way.
pub(super) fn add(doc: &mut ConfigDoc, work: &mut Work, node: &Node, on: &OnNode) -> Result<Vec<Error>> {
    let mut faults = Vec::new();
    if on.labels.is_empty() {
        return Ok(faults);
    }
    let role = need("machine type", &node.machine_type)?.as_deref().unwrap_or("worker");
    let before = doc.labels();
    for (key, value) in &on.labels {
        if let Err(error) = allowed(key, role).and_then(|()| unowned(key, value, node)) {
            faults.push(error);
            continue;
        }
        if doc.set_node_label(key, value)? {
            let was = before.get(key).map_or_else(String::new, |was| format!(" (was {was})"));
            work.titles.push(format!("label {key}={value}{was}"));
        }
        work.labels.push((key.clone(), value.clone()));
    }
    Ok(faults)
}

/// Refuses a label that somebody else set to another value: Talos would leave theirs alone, without a word.
fn unowned(key: &str, value: &str, node: &Node) -> Result<()> {
    let found = node.labels.as_ref().ok().and_then(|labels| labels.as_ref()?.get(key));
    let talos = node.wanted_labels.as_ref().ok().and_then(|labels| labels.get(key));
    match found {
        Some(found) if found != value && Some(found) != talos => {
            let name = node.hostname.as_ref().ok().and_then(Option::as_deref).unwrap_or("<node>");
            Err(Error::refused(format!(
                "label {key}: the node has {found}, which somebody else than Talos set, and the file says {value}"
            ))
            .hint(format!("take it off with `kubectl label node {name} {key}-`, or write {found} in the file")))
        }
        _ => Ok(()),
    }
}

/// Refuses a label that the API server would not take from this kind of machine.
pub(super) fn allowed(key: &str, machine_type: &str) -> Result<()> {
    let Some((namespace, _)) = key.split_once('/') else { return Ok(()) };
    let within = |domain: &str| namespace == domain || namespace.ends_with(&format!(".{domain}"));
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    let open = KUBELET_NAMESPACES.iter().any(|domain| within(domain)) || KUBELET_KEYS.contains(&key);
    if is_control_plane(machine_type) || !kubernetes || open {
        return Ok(());
    }
    Err(Error::refused(format!("a worker may not set the label {key} on itself"))
        .hint("the API server's NodeRestriction refuses it and with it every other label of the node; use a key of your own domain"))
}

#[cfg(test)]
mod tests {
    use super::allowed;

    #[test]
    fn workers_may_set_only_what_node_restriction_lets_a_kubelet_set() {
        for (key, worker) in [
            ("openebs.io/storage-node", true),
            ("plain", true),
            ("topology.kubernetes.io/zone", true),
            ("x.node.kubernetes.io/a", true),
            ("node-role.kubernetes.io/storage", false),
            ("node-restriction.kubernetes.io/a", false),
            ("app.kubernetes.io/name", false),
            ("example.k8s.io/a", false),
        ] {
            assert_eq!(allowed(key, "worker").is_ok(), worker, "{key}");
            assert!(allowed(key, "controlplane").is_ok(), "{key}");
        }
    }
}
