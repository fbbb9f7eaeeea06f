//! Reads what of the cluster may have its data on a node's own disks.

use crate::cluster::Cluster;
use crate::error::Result;
use crate::judge::claims::{self, Lists};
use crate::model::claims::Users;

/// Objects in which storage systems note the disks and folders that they keep their data on.
const POOLS: [(&str, &str); 6] = [
    ("ceph.rook.io/v1", "CephCluster"),
    ("local.openebs.io/v1alpha1", "LVMNode"),
    ("longhorn.io/v1beta2", "Node"),
    ("openebs.io/v1beta2", "DiskPool"),
    ("openebs.io/v1beta3", "DiskPool"),
    ("piraeus.io/v1", "LinstorSatelliteConfiguration"),
];

/// Reads all of it; what can't be read is an error, since nothing could be said to be unused.
pub async fn users(cluster: &Cluster) -> Result<Users> {
    let (nodes, volumes, pods, drivers, attached) = tokio::try_join!(
        cluster.list_of(None, ""),
        cluster.list_of(None, ""),
        cluster.list_of(None, ""),
        cluster.list_of(None, ""),
        cluster.list_of(None, ""),
    )?;
    let mut lists = Lists {
        nodes,
        volumes,
        pods,
        drivers,
        attached,
        deployments: cluster.list_of(None, "").await?,
        stateful_sets: cluster.list_of(None, "").await?,
        daemon_sets: cluster.list_of(None, "").await?,
        cron_jobs: cluster.list_of(None, "").await?,
        pools: Vec::new(),
    };
    for (api_version, kind) in POOLS {
        lists.pools.push((kind, cluster.list(api_version, kind, None, "").await?));
    }
    Ok(claims::users(&lists))
}
