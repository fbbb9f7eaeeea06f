//! What Velero is asked to do. A backup or restore goes on when nodeprep does not: the next run of the same plan waits for the one
//! that is under way.

mod backup;
mod restore;

use std::time::Duration;

use indicatif::BinaryBytes;
use jiff::tz::TimeZone;
use k8s_openapi::Resource;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::RunContext;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::judge::backup::{BACKUP_UID, VolumeProgress};
use crate::judge::velero::Location;
use crate::judge::velero::kinds::{Backup, BackupStorageLocation, Restore};
use crate::model::object::Deletion;
use crate::plan::{BACKUP_NAME, RESTORE_NAME, Traces, VeleroAction};
use crate::session::outputs::StepRecord;
use crate::wait::{Look, Wait};

pub(super) async fn carry_out(
    action: &VeleroAction,
    context: &RunContext,
    record: &StepRecord<'_, '_>,
    events: &Events,
) -> Result<bool> {
    let cluster = context.cluster()?;
    let deadlines = &context.manner.deadlines;
    match action {
        VeleroAction::Backup(request) => backup::make(cluster, request, record, events).await,
        VeleroAction::Await(what) => {
            backup::done(cluster, what, record, deadlines.backup.std(), events).await
        }
        VeleroAction::Restore(request) => restore::make(cluster, request, record, events).await,
        VeleroAction::AwaitRestore(what) => {
            restore::done(cluster, what, record, deadlines.restore.std(), events).await
        }
        VeleroAction::Forget(traces) => {
            forget(cluster, traces, record, deadlines.workloads.std(), events).await
        }
    }
}

/// Makes a Backup or Restore, which no other one may be.
async fn begin(cluster: &Cluster, object: &Value, what: &str) -> Result<bool> {
    let made = cluster.create(object).await?;
    match made.before {
        None => Ok(true),
        Some(there) => Err(Error::unavailable(format!("{} is there already", Deletion::of(&there).title()))
            .hint(format!("another {what} was begun in the same second: run it again"))),
    }
}

/// A name that tells when it was made, by the clock that Velero's times are of.
async fn name(cluster: &Cluster, prefix: &str) -> Result<String> {
    let now = cluster.time().await?.to_zoned(TimeZone::UTC);
    Ok(format!("{prefix}-{}", now.strftime("%Y%m%d%H%M%S")))
}

/// How fast the bytes go, to tell how long it still takes.
#[derive(Default)]
struct Rate(Option<(Instant, u64)>);

impl Rate {
    fn told(&mut self, phase: &str, volumes: VolumeProgress) -> String {
        let VolumeProgress { done, all, bytes_done, bytes } = volumes;
        if all == 0 {
            return phase.to_owned();
        }
        let (since, first) = *self.0.get_or_insert((Instant::now(), bytes_done));
        let (moved, seconds) = (bytes_done.saturating_sub(first), since.elapsed().as_secs());
        // The sum is known only when the uploader has seen all files.
        let left = bytes.saturating_sub(bytes_done);
        let left = match moved {
            0 => String::new(),
            _ if left == 0 => String::new(),
            moved => format!(", about {} s left", left.saturating_mul(seconds) / moved),
        };
        format!(
            "{phase}: {done} of {all} volumes, {} of {}{left}",
            BinaryBytes(bytes_done),
            BinaryBytes(bytes)
        )
    }
}

/// Has Velero delete a Backup that this run made, with its objects and snapshots in the store, and the Restores of it.
async fn forget(
    cluster: &Cluster,
    traces: &Traces,
    record: &StepRecord<'_, '_>,
    within: Duration,
    events: &Events,
) -> Result<bool> {
    let Traces { namespace, backup, restore } = traces;
    let Ok(name) = record.of(backup, BACKUP_NAME) else { return Ok(false) };
    let Some(live) = cluster.get(Backup::API_VERSION, Backup::KIND, Some(namespace), &name).await? else {
        return Ok(false);
    };
    let labels = json!({"velero.io/backup-name": name, BACKUP_UID: live["metadata"]["uid"]});
    let request = json!({
        "apiVersion": "velero.io/v1", "kind": "DeleteBackupRequest",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"backupName": name},
    });
    cluster.create(&request).await?;
    let location = live["spec"]["storageLocation"].as_str().unwrap_or_default();
    let wait = Wait::new(format!("backup {name} to go"), within, events);
    let gone = wait.until(async || {
        if cluster.get(Backup::API_VERSION, Backup::KIND, Some(namespace), &name).await?.is_none() {
            return Ok(Look::Done(()));
        }
        let store: Option<BackupStorageLocation> = cluster.get_of(Some(namespace), location).await?;
        match store.as_ref().map(Location::of) {
            Some(Location::Other { phase, .. }) => Err(Error::failed(format!(
                "backup {name} stays until it expires: location {location} is {phase}"
            ))),
            _ => Ok(Look::not_yet("Velero has not deleted it yet")),
        }
    });
    gone.await.map_err(|late| {
        late.or_hint(&format!("`velero -n {namespace} backup delete {name}` tries again"), |what, last| {
            Error::failed(format!("{what}: {last}"))
        })
    })?;
    if let Ok(name) = record.of(restore, RESTORE_NAME)
        && let Some(left) = cluster.get(Restore::API_VERSION, Restore::KIND, Some(namespace), &name).await?
    {
        cluster.remove(&Deletion::of(&left), events, within).await?;
    }
    Ok(true)
}
