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
    let selector = scope.selector();
    let (claims, pods, volumes) = tokio::try_join!(
        cluster.list_of::<PersistentVolumeClaim>(None, ""),
        cluster.list_of::<Pod>(None, &selector),
        cluster.list_of::<PersistentVolume>(None, ""),
    )?;
    Ok(Coverage::of(scope, &claims, &pods, &volumes))
}

/// The backups in these locations, the newest first, each with the volumes that were read for it.
///
/// # Errors
/// They can't be read.
pub async fn backups(
    cluster: &Cluster,
    namespace: &str,
    locations: &[&str],
) -> Result<Vec<(Backup, Vec<PodVolumeBackup>)>> {
    let (mut backups, volumes) = tokio::try_join!(
        cluster.list_of::<Backup>(Some(namespace), ""),
        cluster.list_of::<PodVolumeBackup>(Some(namespace), ""),
    )?;
    backups.retain(|backup| {
        backup.spec.storage_location.as_deref().is_some_and(|name| locations.contains(&name))
    });
    let began = |backup: &Backup| backup.status.as_ref().and_then(|status| status.start_timestamp.clone());
    backups.sort_by_key(|backup| std::cmp::Reverse(began(backup)));
    let with_volumes = |backup: Backup| {
        let of_it = volumes.iter().filter(|volume| is_for(volume, &backup)).cloned().collect();
        (backup, of_it)
    };
    Ok(backups.into_iter().map(with_volumes).collect())
}
