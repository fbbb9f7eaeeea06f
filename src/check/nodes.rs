//! The nodes that volumes are asked of: those that carry the file's labels, or are named in it.

use k8s_openapi::api::core::v1::Node;

use super::pod::HOSTNAME;
use crate::intent::Intent;

/// A Kubernetes node that is to hold volumes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StorageNode {
    pub name: String,
    /// The value of its label `kubernetes.io/hostname`, by which pods and volumes are pinned.
    pub hostname: String,
}

/// The storage nodes: those with all the labels of the file, else those whose address is in it.
/// Empty when the file tells neither; then the scheduler chooses.
pub fn storage_nodes(nodes: &[Node], intent: &Intent) -> Vec<StorageNode> {
    let labelled = |node: &&Node| {
        let has = |key: &String, value: &String| node.metadata.labels.as_ref()?.get(key).map(|v| v == value);
        !intent.labels.is_empty() && intent.labels.iter().all(|(k, v)| has(k, v).unwrap_or(false))
    };
    let named = |node: &&Node| {
        let addresses = node.status.iter().filter_map(|s| s.addresses.as_ref()).flatten();
        let known = addresses.map(|a| a.address.as_str()).chain(node.metadata.name.as_deref());
        known.into_iter().any(|known| intent.nodes.iter().any(|wanted| wanted.address == known))
    };
    let mut found: Vec<_> = nodes.iter().filter(labelled).filter_map(storage_node).collect();
    if found.is_empty() {
        found = nodes.iter().filter(named).filter_map(storage_node).collect();
    }
    found.sort();
    found
}

fn storage_node(node: &Node) -> Option<StorageNode> {
    let name = node.metadata.name.clone()?;
    let hostname = node.metadata.labels.as_ref().and_then(|l| l.get(HOSTNAME)).unwrap_or(&name).clone();
    Some(StorageNode { name, hostname })
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

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
    }
}
