//! Whether the cluster has a default class already.

use serde_json::Value;

use crate::cli::Global;
use crate::intent::same_address;

/// Whether the nodes' cluster can be asked, and has no default class: then the first class may be it.
pub(super) async fn is_missing(global: &Global, addresses: &[&str]) -> bool {
    let Ok(cluster) = global.reach().cluster().await else { return false };
    let nodes = cluster.list("v1", "Node", None, "").await.unwrap_or_default();
    let addresses_of = |node: &Value| node["status"]["addresses"].as_array().cloned().unwrap_or_default();
    // A kubeconfig may lead to any cluster.
    let ours = nodes.iter().flat_map(addresses_of).any(|known| {
        let known = known["address"].as_str().unwrap_or_default();
        addresses.iter().any(|address| same_address(known, address))
    });
    let classes = cluster.list("storage.k8s.io/v1", "StorageClass", None, "").await;
    let default = |class: &Value| {
        class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
    };
    ours && classes.is_ok_and(|classes| !classes.iter().any(default))
}
