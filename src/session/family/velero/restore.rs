//! A restore, from the request to the proof that all of it came back.

use std::collections::BTreeSet;
use std::time::Duration;

use indicatif::BinaryBytes;
use jiff::Timestamp;
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::{Value, json};

use super::Rate;
use crate::cluster::Cluster;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::judge::backup::{BACKUP_UID, ReadVolume, VolumeProgress, volumes_read};
use crate::judge::coverage::{ClaimName, name_of};
use crate::judge::pods::serious;
use crate::judge::restore::{
    JUDGED, REQUEST, RESTORE_UID, Returned, gone_on_with, has_ended, named, phase, returned,
};
use crate::judge::velero::kinds::{Backup, PodVolumeBackup, PodVolumeRestore, Restore};
use crate::observe::restores::open;
use crate::plan::drill::elsewhere;
use crate::plan::{ASKED, AwaitRestore, BACKUP_NAME, NODE, RESTORE_NAME, RestoreRequest, Wanted};
use crate::session::outputs::StepRecord;
use crate::stack::MANAGED_BY;
use crate::wait::{Look, Wait};

/// Makes the Restore, unless one that was asked for in the same words has not been judged yet: whoever asked for it was cut off.
pub(super) async fn make(
    cluster: &Cluster,
    request: &RestoreRequest,
    record: &StepRecord<'_, '_>,
    events: &Events,
) -> Result<bool> {
    if let Some(former) = open(cluster, &request.namespace, &request.words).await? {
        events.say(gone_on_with(&former));
        record.leave(RESTORE_NAME, &former)?;
        return Ok(false);
    }
    let spec = spec(cluster, request, record).await?;
    let name = super::name(cluster, &request.prefix).await?;
    record.leave(RESTORE_NAME, &name)?;
    record.leave(ASKED, &cluster.time().await?.as_second().to_string())?;
    let object = json!({
        "apiVersion": Restore::API_VERSION, "kind": Restore::KIND,
        "metadata": {
            "name": name, "namespace": request.namespace, "labels": {MANAGED_BY.0: MANAGED_BY.1},
            "annotations": {REQUEST: request.words},
        },
        "spec": spec,
    });
    super::begin(cluster, &object, "restore").await
}

/// What is asked for, where steps of this run decide a part of it.
async fn spec(cluster: &Cluster, request: &RestoreRequest, record: &StepRecord<'_, '_>) -> Result<Value> {
    let mut spec = request.spec.clone();
    if let Some(step) = &request.backup {
        spec["backupName"] = record.of(step, BACKUP_NAME)?.into();
    }
    if let Some(step) = &request.away_from {
        cluster.apply(&elsewhere(&request.namespace, &record.of(step, NODE)?)).await?;
    }
    Ok(spec)
}

/// Waits until the Restore has ended, and judges it.
pub(super) async fn done(
    cluster: &Cluster,
    what: &AwaitRestore,
    record: &StepRecord<'_, '_>,
    within: Duration,
    events: &Events,
) -> Result<bool> {
    let name = record.of(&what.of, RESTORE_NAME)?;
    let (restore, volumes) = await_end(cluster, what, &name, within, events).await?;
    let claims: Vec<PersistentVolumeClaim> = cluster.list_of(None, "").await?;
    let claims: Vec<ClaimName> = claims.iter().map(|claim| name_of(&claim.metadata)).collect();
    let wanted = match &what.wanted {
        Wanted::Volumes(volumes) => volumes.clone(),
        Wanted::OfBackup(step) => held(cluster, &what.namespace, &record.of(step, BACKUP_NAME)?).await?,
    };
    let came = returned(&restore, &volumes, &wanted, &what.scope, &claims);
    let judged = judge(what, &name, &restore, &came, events);
    let outcome = if judged.is_ok() { "restored" } else { "lacking" };
    mark(cluster, &what.namespace, &name, outcome).await?;
    judged.map(|()| false)
}

/// The volumes of a backup.
///
/// # Errors
/// There is none: then nothing would be proven.
async fn held(cluster: &Cluster, namespace: &str, backup: &str) -> Result<Vec<ReadVolume>> {
    let found: Option<Backup> = cluster.get_of(Some(namespace), backup).await?;
    let uid = found.and_then(|backup| backup.metadata.uid).unwrap_or_default();
    let volumes: Vec<PodVolumeBackup> =
        cluster.list_of(Some(namespace), &format!("{BACKUP_UID}={uid}")).await?;
    if volumes.is_empty() {
        return Err(Error::failed(format!("backup {backup} has no volume any more: somebody deleted it")));
    }
    Ok(volumes_read(&volumes))
}

async fn await_end(
    cluster: &Cluster,
    what: &AwaitRestore,
    name: &str,
    within: Duration,
    events: &Events,
) -> Result<(Restore, Vec<PodVolumeRestore>)> {
    let namespace = &what.namespace;
    let mut rate = Rate::default();
    let ended = Wait::new(format!("restore {name}"), within, events).until(async || {
        let Some(restore) = cluster.get_of::<Restore>(Some(namespace), name).await? else {
            return Err(Error::failed(format!("Restore {namespace}/{name} is gone: somebody deleted it")));
        };
        let of = format!("{RESTORE_UID}={}", restore.metadata.uid.as_deref().unwrap_or_default());
        let volumes: Vec<PodVolumeRestore> = cluster.list_of(Some(namespace), &of).await?;
        if has_ended(&restore) {
            return Ok(Look::Done((restore, volumes)));
        }
        let told = rate.told(phase(&restore), VolumeProgress::of(&volumes));
        let stuck = serious(&pods(cluster, &volumes).await?);
        Ok(Look::not_yet(stuck.map_or_else(|| told.clone(), |why| format!("{told}; {why}"))))
    });
    ended.await.map_err(|late| {
        late.or(|_, last| {
            Error::failed(format!("restore {name} did not end within {} s: {last}", within.as_secs()))
                .hint("it goes on in the cluster: run the same again to wait for it")
        })
    })
}

/// The pods that wait for their volumes' files.
async fn pods(cluster: &Cluster, volumes: &[PodVolumeRestore]) -> Result<Vec<Pod>> {
    let open = volumes.iter().filter(|volume| {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        !matches!(phase, Some("Completed" | "Failed" | "Canceled"))
    });
    let wanted: BTreeSet<_> = open
        .filter_map(|volume| Some((volume.spec.pod.namespace.as_deref()?, volume.spec.pod.name.as_deref()?)))
        .collect();
    let mut found = Vec::new();
    // The first few tell; a restore may have thousands.
    for (namespace, name) in wanted.into_iter().take(4) {
        found.extend(cluster.get_of::<Pod>(Some(namespace), name).await?);
    }
    Ok(found)
}

/// # Errors
/// `CheckFailed` when not all that was asked for came back.
fn judge(what: &AwaitRestore, name: &str, restore: &Restore, came: &Returned, events: &Events) -> Result<()> {
    let namespace = &what.namespace;
    let status = restore.status.clone().unwrap_or_default();
    if let Some(count) = status.warnings.filter(|count| *count > 0) {
        let warnings = if count == 1 { "a warning".to_owned() } else { format!("{count} warnings") };
        events.say(format!(
            "Velero has {warnings}, most often of what existed already: `velero -n {namespace} restore describe {name}`"
        ));
    }
    let bare = what.bare.iter().map(|(claim, why)| format!("claim {claim}: {why}"));
    let lacks: Vec<String> = came.faults.iter().cloned().chain(bare).collect();
    let volumes = if came.volumes == 1 { "1 volume".to_owned() } else { format!("{} volumes", came.volumes) };
    let took = status.start_timestamp.zip(status.completion_timestamp);
    let took = took.map_or_else(String::new, |(from, to)| format!(" in {}", seconds(from.0, to.0)));
    let told = format!("restore {name} brought {volumes} back with {}{took}", BinaryBytes(came.bytes));
    events.say(&told);
    if lacks.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::CheckFailed, format!("restore {name} did not bring all of it back: {}", named(&lacks))).hint(
        format!(
            "`velero -n {namespace} restore logs {name}` says more; delete what came back before it is tried again, since Velero \
             leaves what exists as it is"
        ),
    ))
}

fn seconds(from: Timestamp, to: Timestamp) -> String {
    format!("{} s", to.as_second() - from.as_second())
}

/// The next run of the same words is a restore of its own.
async fn mark(cluster: &Cluster, namespace: &str, name: &str, outcome: &str) -> Result<()> {
    let change: Value = json!({"metadata": {"annotations": {JUDGED: outcome}}});
    cluster.merge(Restore::API_VERSION, Restore::KIND, Some(namespace), name, &change).await
}
