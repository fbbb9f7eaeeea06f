//! A backup, from the request to the proof that it holds what was wanted.

use std::time::Duration;

use indicatif::BinaryBytes;
use k8s_openapi::Resource;
use serde_json::json;

use super::Rate;
use crate::cluster::Cluster;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::judge::backup::{BACKUP_UID, Evidence, VolumeProgress, began, evidence, has_ended, phase};
use crate::judge::velero::kinds::{Backup, PodVolumeBackup};
use crate::plan::{AwaitBackup, BACKUP_NAME, BackupRequest, ENDED, WROTE};
use crate::session::outputs::StepRecord;
use crate::stack::MANAGED_BY;
use crate::wait::{Look, Wait};

/// Makes the Backup, unless one is under way that this very step of a former run began.
pub(super) async fn make(
    cluster: &Cluster,
    request: &BackupRequest,
    record: &StepRecord<'_, '_>,
    events: &Events,
) -> Result<bool> {
    if let Some(former) = record.former(BACKUP_NAME)
        && let Some(backup) = read(cluster, &request.namespace, former).await?
        && !has_ended(&backup)
    {
        events.say(format!("backup {former} is under way since a run that was cut off: it is gone on with"));
        record.leave(BACKUP_NAME, former)?;
        return Ok(false);
    }
    let name = super::name(cluster, &request.prefix).await?;
    record.leave(BACKUP_NAME, &name)?;
    let object = json!({
        "apiVersion": Backup::API_VERSION, "kind": Backup::KIND,
        "metadata": {"name": name, "namespace": request.namespace, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
        "spec": request.spec,
    });
    super::begin(cluster, &object, "backup").await
}

/// Waits until the Backup has ended, and judges it.
pub(super) async fn done(
    cluster: &Cluster,
    what: &AwaitBackup,
    record: &StepRecord<'_, '_>,
    within: Duration,
    events: &Events,
) -> Result<bool> {
    let name = record.of(&what.of, BACKUP_NAME)?;
    let (backup, volumes) = await_end(cluster, what, &name, within, events).await?;
    judge(what, &backup, &volumes, events)?;
    if let Some(step) = &what.newer_than {
        newer(&backup, &record.of(step, WROTE)?)?;
    }
    let ended = backup.status.as_ref().and_then(|status| status.completion_timestamp.as_ref());
    if let Some(ended) = ended {
        record.leave(ENDED, &ended.0.as_second().to_string())?;
    }
    Ok(false)
}

/// # Errors
/// `CheckFailed` when the backup began before what is to be in it was written, in seconds since 1970.
fn newer(backup: &Backup, wrote: &str) -> Result<()> {
    let (name, began) = (backup.metadata.name.as_deref().unwrap_or_default(), began(backup));
    let wrote: i64 = wrote.parse().unwrap_or(i64::MAX);
    match began {
        Some(began) if began.as_second() >= wrote => Ok(()),
        _ => Err(Error::new(Kind::CheckFailed, format!("backup {name} is older than what is to be in it"))
            .hint("are the clocks of the nodes right? `nodeprep discover` shows them")),
    }
}

async fn await_end(
    cluster: &Cluster,
    what: &AwaitBackup,
    name: &str,
    within: Duration,
    events: &Events,
) -> Result<(Backup, Vec<PodVolumeBackup>)> {
    let namespace = &what.namespace;
    let mut rate = Rate::default();
    let ended = Wait::new(format!("backup {name}"), within, events).until(async || {
        let Some(backup) = read(cluster, namespace, name).await? else {
            return Err(Error::failed(format!("Backup {namespace}/{name} is gone: somebody deleted it")));
        };
        let of = format!("{BACKUP_UID}={}", backup.metadata.uid.as_deref().unwrap_or_default());
        let volumes: Vec<PodVolumeBackup> = cluster.list_of(Some(namespace), &of).await?;
        Ok(match has_ended(&backup) {
            true => Look::Done((backup, volumes)),
            false => Look::not_yet(rate.told(phase(&backup), VolumeProgress::of(&volumes))),
        })
    });
    ended.await.map_err(|late| {
        late.or(|_, last| {
            Error::failed(format!("backup {name} did not end within {} s: {last}", within.as_secs()))
                .hint("it goes on in the cluster: run the same again to wait for it")
        })
    })
}

/// # Errors
/// `CheckFailed` when the backup does not hold all that was asked for.
fn judge(what: &AwaitBackup, backup: &Backup, volumes: &[PodVolumeBackup], events: &Events) -> Result<()> {
    let (namespace, name) = (&what.namespace, backup.metadata.name.as_deref().unwrap_or_default());
    let Evidence { claims, faults } = evidence(backup, volumes, &what.wanted);
    let lacks = |what: String, hint: String| Err(Error::new(Kind::CheckFailed, what).hint(hint));
    let left_out = what.left_out.iter().map(|(claim, why)| format!("claim {claim} is not: {why}"));
    let left_out: Vec<String> = left_out.collect();
    if !faults.is_empty() {
        let all = [faults, left_out].concat().join("; ");
        return lacks(
            format!("backup {name} does not hold what was asked for: {all}"),
            format!(
                "`velero -n {namespace} backup logs {name}` says more; `nodeprep validate --only backup` judges Velero and \
                 its store"
            ),
        );
    }
    for (claim, _) in claims.iter().filter(|(_, bytes)| bytes.is_none()) {
        events
            .warn(format!("claim {claim} had no files when it was backed up: is its volume the right one?"));
    }
    let bytes = claims.values().flatten().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
    let held = if claims.len() == 1 { "1 claim".to_owned() } else { format!("{} claims", claims.len()) };
    events.say(format!("backup {name} holds {held} with {}", BinaryBytes(bytes)));
    if left_out.is_empty() {
        return Ok(());
    }
    lacks(
        format!("backup {name} holds {held}, but {}", left_out.join("; ")),
        "what no running pod mounts can be backed up while one does; name what is to be backed up with --namespaces or \
         --selector; `nodeprep backup coverage` tells of every claim"
            .into(),
    )
}

async fn read(cluster: &Cluster, namespace: &str, name: &str) -> Result<Option<Backup>> {
    cluster.get_of(Some(namespace), name).await
}
