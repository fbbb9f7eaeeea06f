//! Whether the cluster has a default class already.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::StorageClass;

use crate::cli::Global;
use crate::intent::same_address;
use crate::observe::cluster::is_default;

/// Whether the nodes' cluster can be asked, and has no default class: then the first class may be it.
pub(super) async fn is_missing(global: &Global, addresses: &[&str]) -> bool {
    let Ok(cluster) = global.reach().cluster().await else { return false };
    let nodes = cluster.list_of::<Node>(None, "").await.unwrap_or_default();
    // A kubeconfig may lead to any cluster.
    let known = nodes.iter().filter_map(|node| node.status.as_ref()?.addresses.as_ref()).flatten();
    let ours =
        known.into_iter().any(|known| addresses.iter().any(|address| same_address(&known.address, address)));
    let classes = cluster.list_of::<StorageClass>(None, "").await;
    ours && classes.is_ok_and(|classes| !classes.iter().any(is_default))
}
