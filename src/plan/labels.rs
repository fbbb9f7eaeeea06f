//! Node labels that Talos may set: on workers NodeRestriction decides, and one forbidden key stalls them all.

use crate::error::{Error, Result};

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

/// Refuses a label that the API server would not take from this kind of machine.
pub(super) fn allowed(key: &str, machine_type: &str) -> Result<()> {
    let Some((namespace, _)) = key.split_once('/') else { return Ok(()) };
    let within = |domain: &str| namespace == domain || namespace.ends_with(&format!(".{domain}"));
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    let open = KUBELET_NAMESPACES.iter().any(|domain| within(domain)) || KUBELET_KEYS.contains(&key);
    if machine_type.eq_ignore_ascii_case("controlplane") || !kubernetes || open {
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
