//! Reads what of the cluster may have its data on a node's own disks.

use crate::cluster::Cluster;
use crate::error::Result;
use crate::model::claims::{Lists, Users};

/// Objects in which storage systems note the disks and folders that they keep their data on.
const POOLS: [(&str, &str); 6] = [
    ("ceph.rook.io/v1", "CephCluster"),
    ("local.openebs.io/v1alpha1", "LVMNode"),
    ("longhorn.io/v1beta2", "Node"),
    ("openebs.io/v1beta2", "DiskPool"),
    ("openebs.io/v1beta3", "DiskPool"),
    ("piraeus.io/v1", "LinstorSatelliteConfiguration"),
];
/// What makes pods, and where their template lies in it.
const MAKERS: [(&str, &str, &str); 4] = [
    ("apps/v1", "Deployment", "/spec/template/spec"),
    ("apps/v1", "StatefulSet", "/spec/template/spec"),
    ("apps/v1", "DaemonSet", "/spec/template/spec"),
    ("batch/v1", "CronJob", "/spec/jobTemplate/spec/template/spec"),
];

/// Reads all of it; what can't be read is an error, since nothing could be said to be unused.
pub async fn users(cluster: &Cluster) -> Result<Users> {
    let list = async |api_version: &str, kind: &str| cluster.list(api_version, kind, None, "").await;
    let (nodes, volumes, pods, drivers, attached) = tokio::try_join!(
        list("v1", "Node"),
        list("v1", "PersistentVolume"),
        list("v1", "Pod"),
        list("storage.k8s.io/v1", "CSINode"),
        list("storage.k8s.io/v1", "VolumeAttachment"),
    )?;
    let mut lists = Lists { nodes, volumes, pods, drivers, attached, ..Lists::default() };
    for (api_version, kind, template) in MAKERS {
        lists.makers.push((kind, template, list(api_version, kind).await?));
    }
    for (api_version, kind) in POOLS {
        lists.pools.push((kind, list(api_version, kind).await?));
    }
    Ok(Users::from(&lists))
}
