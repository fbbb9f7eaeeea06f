//! The nodes that volumes are asked of: those that carry the file's labels, or are named in it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::pod::HOSTNAME;
use crate::intent::{Class, Intent};

/// A Kubernetes node that is to hold volumes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StorageNode {
    pub name: String,
    /// The value of its label `kubernetes.io/hostname`, by which pods and volumes are pinned.
    pub hostname: String,
    /// By which the file lists it, if it does.
    address: Option<String>,
    /// Its taints that somebody set: key and effect. Those of Kubernetes itself say that it is not well.
    taints: Vec<(String, String)>,
}

/// Before the keys of taints that Kubernetes sets by itself.
const OF_KUBERNETES: &str = "node.kubernetes.io/";

impl StorageNode {
    /// Whether the file gives it the volume that the class is on.
    pub fn has(&self, class: &Class, intent: &Intent) -> bool {
        let (Some(address), Some(volume)) = (&self.address, intent.volume_of(&class.base_path)) else {
            return true;
        };
        intent.on(address).volumes.iter().any(|there| there.name == volume.name)
    }
}

/// The storage nodes: those with all the labels that the file gives to every node, else those whose address is in it.
/// Empty when the file tells neither; then the scheduler chooses.
pub fn storage_nodes(nodes: &[Node], intent: &Intent) -> Vec<StorageNode> {
    let other = |key: &String| intent.nodes.iter().any(|n| matches!(n.labels.get(key), Some(Some(_))));
    let common: Vec<_> = intent.labels.iter().filter(|(key, _)| !other(key)).collect();
    let labelled = |node: &&Node| {
        let has = |key: &String, value: &String| node.metadata.labels.as_ref()?.get(key).map(|v| v == value);
        !common.is_empty() && common.iter().all(|(k, v)| has(k, v).unwrap_or(false))
    };
    let of = |node: &Node| storage_node(node, intent);
    let mut found: Vec<_> = nodes.iter().filter(labelled).filter_map(of).collect();
    if found.is_empty() {
        found = nodes.iter().filter_map(of).filter(|node| node.address.is_some()).collect();
    }
    found.sort();
    found
}

/// What lets a pod run on any of these nodes although they are kept for others.
pub fn tolerations(nodes: &[StorageNode]) -> Vec<Value> {
    let taints: BTreeSet<_> = nodes.iter().flat_map(|node| &node.taints).collect();
    let toleration =
        |(key, effect): &(String, String)| json!({ "key": key, "operator": "Exists", "effect": effect });
    taints.into_iter().map(toleration).collect()
}

fn storage_node(node: &Node, intent: &Intent) -> Option<StorageNode> {
    let name = node.metadata.name.clone()?;
    let hostname = node.metadata.labels.as_ref().and_then(|l| l.get(HOSTNAME)).unwrap_or(&name).clone();
    let addresses = node.status.iter().filter_map(|s| s.addresses.as_ref()).flatten();
    let mut known = addresses.map(|a| a.address.as_str()).chain(node.metadata.name.as_deref());
    let address = known.find(|known| intent.nodes.iter().any(|wanted| wanted.address == **known));
    let address = address.map(str::to_owned);
    let taints = node.spec.iter().filter_map(|spec| spec.taints.as_ref()).flatten();
    let taints = taints.filter(|taint| !taint.key.starts_with(OF_KUBERNETES));
    let taints = taints.map(|taint| (taint.key.clone(), taint.effect.clone())).collect();
    Some(StorageNode { name, hostname, address, taints })
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn intent(labels: &str, nodes: &str) -> Intent {
        let text = format!(
            "{{\"apiVersion\":\"nodeprep.dev/v1alpha1\",\"kind\":\"Cluster\",\"metadata\":{{\"name\":\"lab\"}},\
             \"labels\":{labels},\"nodes\":{nodes}}}"
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn labels_choose_the_nodes_then_addresses_then_the_scheduler() {
        let node = |name: &str, ip: &str, storage: bool| -> Node {
            let mut labels = json!({ HOSTNAME: format!("{name}.lan") });
            if storage {
                labels["storage"] = json!("yes");
            }
            let status = json!({ "addresses": [{ "type": "InternalIP", "address": ip }] });
            serde_json::from_value(
                json!({ "metadata": { "name": name, "labels": labels }, "status": status }),
            )
            .unwrap()
        };
        let nodes =
            [node("n2", "10.0.0.2", true), node("n1", "10.0.0.1", true), node("n3", "10.0.0.3", false)];
        let names = |labels, listed| -> Vec<String> {
            storage_nodes(&nodes, &intent(labels, listed)).into_iter().map(|n| n.hostname).collect()
        };
        assert_eq!(names(r#"{"storage":"yes"}"#, "[]"), ["n1.lan", "n2.lan"]);
        assert_eq!(names(r#"{"storage":"no"}"#, r#"[{"address":"10.0.0.3"}]"#), ["n3.lan"]);
        assert_eq!(names("{}", r#"[{"address":"n1"},{"address":"10.9.9.9"}]"#), ["n1.lan"]);
        assert!(names("{}", "[]").is_empty());
        assert!(names(r#"{"storage":"no"}"#, "[]").is_empty());
        // A label that some node has with another value does not tell which nodes are meant.
        let other = r#"[{"address":"10.0.0.3","labels":{"rack":"b"}}]"#;
        assert_eq!(names(r#"{"storage":"yes","rack":"a"}"#, other), ["n1.lan", "n2.lan"]);
    }

    #[test]
    fn pods_tolerate_what_keeps_a_storage_node_for_others_and_not_that_it_is_unwell() {
        let taint = |key: &str, effect: &str| json!({ "key": key, "value": "x", "effect": effect });
        let taints = [
            taint("storage", "NoSchedule"),
            taint("node.kubernetes.io/not-ready", "NoExecute"),
            taint("node.kubernetes.io/unschedulable", "NoSchedule"),
        ];
        let node = json!({ "metadata": { "name": "n1" }, "spec": { "taints": taints } });
        let node = serde_json::from_value(node).unwrap();
        let found = storage_nodes(&[node], &intent("{}", r#"[{"address":"n1"}]"#));
        assert_eq!(
            tolerations(&found),
            [json!({ "key": "storage", "operator": "Exists", "effect": "NoSchedule" })]
        );
    }

    #[test]
    fn a_class_is_judged_only_on_nodes_that_have_its_volume() {
        let mut intent =
            intent("{}", r#"[{"address":"10.0.0.1","volumes":{"fast":null}},{"address":"10.0.0.2"}]"#);
        let volume = json!({ "name": "fast", "disk": { "match": "true" }, "minSize": "1GiB" });
        intent.volumes = vec![serde_json::from_value(volume).unwrap()];
        let node = |address: Option<&str>| StorageNode {
            name: "n".into(),
            hostname: "n".into(),
            address: address.map(str::to_owned),
            taints: Vec::new(),
        };
        for (address, path, has) in [
            (Some("10.0.0.1"), "/var/mnt/fast/deeper", false),
            (Some("10.0.0.1"), "/var/mnt/faster", true),
            (Some("10.0.0.2"), "/var/mnt/fast", true),
            (None, "/var/mnt/fast", true),
        ] {
            let class = json!({ "name": "c", "basePath": path });
            let class: Class = serde_json::from_value(class).unwrap();
            assert_eq!(node(address).has(&class, &intent), has, "{address:?} {path}");
        }
    }
}
