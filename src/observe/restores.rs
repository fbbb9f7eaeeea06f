//! Reads what a restore is planned from: the backup that is meant, and what exists already where it goes.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::Value;

use super::backups::backups;
use super::cluster::allowed;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::intent;
use crate::judge::backup::{ReadVolume, is_of_everything, phase, schedule_of, volumes_read};
use crate::judge::restore::{Contents, Entry, Live, RestoreScope, is_open};
use crate::judge::velero::kinds::{Backup, PodVolumeBackup, Restore};
use crate::stack::MANAGED_BY;

/// Which backup is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Backup(String),
    /// The newest one of a schedule that Velero calls complete.
    Schedule(String),
    /// The newest one of everything that Velero calls complete, of the location of this name.
    Newest(String),
}

/// The backup that is meant.
#[derive(Debug)]
pub struct Found {
    pub backup: Backup,
    /// What was read for it.
    pub volumes: Vec<ReadVolume>,
    /// Where the newest one was meant: claims that older backups of its location hold and it does not, each with the newest of
    /// those.
    pub elsewhere: BTreeMap<String, String>,
}

/// Finds the backup that is meant.
///
/// # Errors
/// `Invalid` when the file's locations hold no such backup.
pub async fn source(
    cluster: &Cluster,
    backup: &intent::Backup,
    source: &Source,
    partial: bool,
) -> Result<Found> {
    let locations: Vec<&str> = backup.all_locations().map(|location| location.name.as_str()).collect();
    let all = backups(cluster, &backup.namespace, &locations).await?;
    let good = |one: &Backup| phase(one) == "Completed" || partial && phase(one) == "PartiallyFailed";
    let mut all = all.into_iter();
    // The newest is the first.
    let found = match source {
        Source::Backup(name) => all.find(|(one, _)| one.metadata.name.as_deref() == Some(name)),
        Source::Schedule(name) => all.find(|(one, _)| schedule_of(one) == Some(name) && good(one)),
        Source::Newest(location) => all.find(|(one, _)| {
            one.spec.storage_location.as_ref() == Some(location) && is_of_everything(one) && good(one)
        }),
    };
    let (found, volumes) = found.ok_or_else(|| {
        let what = match source {
            Source::Backup(name) => format!("there is no backup {name} in the file's locations"),
            Source::Schedule(name) => {
                format!("schedule {name} has no complete backup in the file's locations")
            }
            Source::Newest(location) => format!("location {location} holds no complete backup of everything"),
        };
        Error::invalid(what).hint(
            "`nodeprep backup list` names the backups; one that another cluster made is known a minute after \
                                   its location is",
        )
    })?;
    let volumes = volumes_read(&volumes);
    let elsewhere = match source {
        Source::Newest(location) => elsewhere(&volumes, all, location),
        Source::Backup(_) | Source::Schedule(_) => BTreeMap::new(),
    };
    Ok(Found { backup: found, volumes, elsewhere })
}

/// The claims that older backups of a location hold, and the newest one does not.
fn elsewhere(
    newest: &[ReadVolume],
    older: impl Iterator<Item = (Backup, Vec<PodVolumeBackup>)>,
    location: &str,
) -> BTreeMap<String, String> {
    let here: BTreeSet<&String> = newest.iter().filter_map(|volume| volume.claim.as_ref()).collect();
    let mut found = BTreeMap::new();
    for (backup, read) in older.filter(|(one, _)| one.spec.storage_location.as_deref() == Some(location)) {
        let held = volumes_read(&read).into_iter().filter(|volume| volume.fault.is_none());
        for claim in held.filter_map(|volume| volume.claim).filter(|claim| !here.contains(claim)) {
            found.entry(claim).or_insert_with(|| backup.metadata.name.clone().unwrap_or_default());
        }
    }
    found
}

/// The Restore that was asked for in these words and that nobody has judged, by its name.
///
/// # Errors
/// The Restores can't be listed.
pub async fn open(cluster: &Cluster, velero: &str, words: &str) -> Result<Option<String>> {
    let ours = format!("{}={}", MANAGED_BY.0, MANAGED_BY.1);
    let restores: Vec<Restore> = cluster.list_of(Some(velero), &ours).await?;
    let open = restores.into_iter().find(|restore| is_open(restore, words));
    Ok(open.and_then(|restore| restore.metadata.name))
}

/// What the cluster has already. Of other kinds than those that decide about files, only what may be listed is told.
///
/// # Errors
/// One of the lists can't be read: then what a restore would leave as it is, is not known.
pub async fn live(cluster: &Cluster, scope: &RestoreScope, contents: Option<&Contents>) -> Result<Live> {
    let (namespaces, claims, pods, deployments, stateful_sets, daemon_sets) = tokio::try_join!(
        cluster.list_of::<Namespace>(None, ""),
        cluster.list_of(None, ""),
        cluster.list_of(None, ""),
        cluster.list_of(None, ""),
        cluster.list_of(None, ""),
        cluster.list_of(None, ""),
    )?;
    let (classes, nodes) =
        tokio::try_join!(cluster.list_of::<StorageClass>(None, ""), cluster.list_of::<Node>(None, ""))?;
    let mut live = Live {
        namespaces,
        claims,
        pods,
        deployments,
        stateful_sets,
        daemon_sets,
        classes: classes.into_iter().filter_map(|class| class.metadata.name).collect(),
        nodes: nodes.into_iter().filter_map(|node| node.metadata.name).collect(),
        entries: BTreeSet::new(),
    };
    if let Some(contents) = contents {
        live.entries = entries(cluster, scope, contents, &live.namespaces).await?;
    }
    Ok(live)
}

/// The objects of the backup's kinds in the namespaces that it goes to.
async fn entries(
    cluster: &Cluster,
    scope: &RestoreScope,
    contents: &Contents,
    namespaces: &[Namespace],
) -> Result<BTreeSet<Entry>> {
    let there: BTreeSet<&str> =
        namespaces.iter().filter_map(|namespace| namespace.metadata.name.as_deref()).collect();
    let lists: BTreeSet<(&str, &str, &str)> = contents
        .entries
        .iter()
        .filter(|entry| !entry.namespace.is_empty() && scope.takes(&entry.namespace))
        .map(|entry| (entry.api_version.as_str(), entry.kind.as_str(), scope.target(&entry.namespace)))
        .filter(|(_, _, namespace)| there.contains(namespace))
        .collect();
    let mut found = BTreeSet::new();
    for (api_version, kind, namespace) in lists {
        let listed = allowed(cluster.list(api_version, kind, Some(namespace), "").await)?;
        found.extend(listed.unwrap_or_default().iter().map(|object| Entry {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name(object),
        }));
    }
    Ok(found)
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}
