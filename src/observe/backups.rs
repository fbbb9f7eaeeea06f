//! Reads what a backup would take along, and the backups that there are.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};

use crate::cluster::Cluster;
use crate::error::Result;
use crate::judge::backup::is_for;
use crate::judge::coverage::{Coverage, Scope};
use crate::judge::velero::kinds::{Backup, PodVolumeBackup};

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
        cluster.list_of::<PersistentVolumeClaim>(None, ""),
        cluster.list_of::<Pod>(None, &selector),
        cluster.list_of::<PersistentVolume>(None, ""),
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
        cluster.list_of::<Backup>(Some(namespace), ""),
        cluster.list_of::<PodVolumeBackup>(Some(namespace), ""),
    )?;
    backups.retain(|backup| backup.spec.storage_location.as_deref() == Some(location));
    let began = |backup: &Backup| backup.status.as_ref().and_then(|status| status.start_timestamp.clone());
    backups.sort_by_key(|backup| std::cmp::Reverse(began(backup)));
    let of = |backup: &Backup| volumes.iter().filter(|volume| is_for(volume, backup)).cloned().collect();
    Ok(backups.into_iter().map(|backup| (backup.clone(), of(&backup))).collect())
}
