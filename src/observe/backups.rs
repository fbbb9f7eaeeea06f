//! Reads what a backup would take along, and the backups that there are.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use serde::de::DeserializeOwned;

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::judge::backup::{Backup, PodVolumeBackup};
use crate::judge::coverage::{Coverage, Scope};

const VELERO: &str = "velero.io/v1";

/// The claims in a scope, and which of them a backup takes along.
///
/// # Errors
/// One of the lists can't be read: of what is not known nothing is said to be covered.
pub async fn coverage(cluster: &Cluster, scope: &Scope) -> Result<Coverage> {
    let selector = match scope {
        Scope::Labels(labels) => {
            labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
        }
        Scope::All | Scope::Namespaces(_) => String::new(),
    };
    let (claims, pods, volumes) = tokio::try_join!(
        list::<PersistentVolumeClaim>(cluster, "v1", "PersistentVolumeClaim", None, ""),
        list::<Pod>(cluster, "v1", "Pod", None, &selector),
        list::<PersistentVolume>(cluster, "v1", "PersistentVolume", None, ""),
    )?;
    let in_scope = |claim: &PersistentVolumeClaim| match scope {
        Scope::All => true,
        Scope::Namespaces(names) => {
            claim.metadata.namespace.as_ref().is_some_and(|name| names.contains(name))
        }
        // A pod that is taken along brings its claims.
        Scope::Labels(labels) => {
            let has = claim.metadata.labels.clone().unwrap_or_default();
            labels.iter().all(|(key, value)| has.get(key) == Some(value)) || brought(claim, &pods)
        }
    };
    let claims: Vec<PersistentVolumeClaim> = claims.into_iter().filter(in_scope).collect();
    Ok(Coverage::of(&claims, &pods, &volumes))
}

fn brought(claim: &PersistentVolumeClaim, pods: &[Pod]) -> bool {
    let here = |pod: &&Pod| pod.metadata.namespace == claim.metadata.namespace;
    let volumes = pods.iter().filter(here).filter_map(|pod| pod.spec.as_ref()?.volumes.as_ref()).flatten();
    let named = |name: &str| claim.metadata.name.as_deref() == Some(name);
    volumes
        .into_iter()
        .any(|volume| volume.persistent_volume_claim.as_ref().is_some_and(|source| named(&source.claim_name)))
}

/// The backups of a location, the newest first, each with the volumes that were read for it.
///
/// # Errors
/// They can't be read.
pub async fn backups(
    cluster: &Cluster,
    namespace: &str,
    location: &str,
) -> Result<Vec<(Backup, Vec<PodVolumeBackup>)>> {
    let (mut backups, volumes) = tokio::try_join!(
        list::<Backup>(cluster, VELERO, "Backup", Some(namespace), ""),
        list::<PodVolumeBackup>(cluster, VELERO, "PodVolumeBackup", Some(namespace), ""),
    )?;
    backups.retain(|backup| backup.spec.storage_location == location);
    backups.sort_by(|a, b| b.status.start_timestamp.cmp(&a.status.start_timestamp));
    let of = |backup: &Backup| volumes.iter().filter(|volume| volume.is_for(backup)).cloned().collect();
    Ok(backups.into_iter().map(|backup| (backup.clone(), of(&backup))).collect())
}

async fn list<T: DeserializeOwned>(
    cluster: &Cluster,
    api_version: &str,
    kind: &str,
    namespace: Option<&str>,
    selector: &str,
) -> Result<Vec<T>> {
    let found = cluster.list(api_version, kind, namespace, selector).await?;
    let typed = |object| {
        serde_json::from_value(object).map_err(|error| {
            Error::failed(format!("a {kind}: what the API server says of it can't be read: {error}"))
        })
    };
    found.into_iter().map(typed).collect()
}
