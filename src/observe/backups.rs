//! Reads what a backup would take along, and the backups that there are.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};

use super::cluster::allowed;
use crate::cluster::Cluster;
use crate::error::Result;
use crate::intent;
use crate::judge::backup::{began, is_for};
use crate::judge::copies::{self, OtherCopy};
use crate::judge::coverage::{Coverage, Lists, Scope};
use crate::judge::protection::{self, Facts, Protection};
use crate::judge::velero::kinds::{Backup, PodVolumeBackup, Schedule};

/// The claims in a scope, and which of them a backup takes along.
///
/// # Errors
/// One of the lists can't be read: of what is not known nothing is said to be covered.
pub async fn coverage(cluster: &Cluster, velero: &str, scope: &Scope) -> Result<Coverage> {
    Ok(Coverage::of(&scope.selection(), &lists(cluster, velero).await?))
}

async fn lists(cluster: &Cluster, velero: &str) -> Result<Lists> {
    let (claims, pods, volumes) = tokio::try_join!(
        cluster.list_of::<PersistentVolumeClaim>(None, ""),
        cluster.list_of::<Pod>(None, ""),
        cluster.list_of::<PersistentVolume>(None, ""),
    )?;
    Ok(Lists::new(claims, pods, volumes, velero))
}

/// How each claim of the cluster is protected.
///
/// # Errors
/// One of the lists can't be read: of what is not known nothing is said to be protected.
pub async fn protection(cluster: &Cluster, backup: &intent::Backup) -> Result<Vec<Protection>> {
    let locations: Vec<&str> = backup.all_locations().map(|location| location.name.as_str()).collect();
    let (lists, schedules, backups, others, now) = tokio::try_join!(
        lists(cluster, &backup.namespace),
        cluster.list_of::<Schedule>(Some(&backup.namespace), ""),
        backups(cluster, &backup.namespace, &locations),
        others(cluster),
        cluster.time(),
    )?;
    let facts =
        Facts { backup, lists: &lists, schedules: &schedules, backups: &backups, others: &others, now };
    Ok(protection::judge(&facts))
}

/// Copies that something else than Velero made. Where its objects may not be read, nothing is taken for a copy.
async fn others(cluster: &Cluster) -> Result<Vec<OtherCopy>> {
    let mut found = Vec::new();
    for keeper in copies::KEEPERS {
        let listed = allowed(cluster.list(keeper.api_version, keeper.kind, None, "").await)?;
        found.extend(listed.unwrap_or_default().iter().flat_map(|object| (keeper.copies)(object)));
    }
    Ok(found)
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
    backups.sort_by_key(|backup| std::cmp::Reverse(began(backup)));
    let with_volumes = |backup: Backup| {
        let of_it = volumes.iter().filter(|volume| is_for(volume, &backup)).cloned().collect();
        (backup, of_it)
    };
    Ok(backups.into_iter().map(with_volumes).collect())
}
