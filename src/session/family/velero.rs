//! What Velero is asked to do. A backup goes on when nodeprep does not: the next run of the same plan waits for the one that
//! is under way.

use std::time::Duration;

use indicatif::BinaryBytes;
use jiff::tz::TimeZone;
use k8s_openapi::Resource;
use serde_json::json;
use tokio::time::Instant;

use super::RunContext;
use crate::cluster::Cluster;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::judge::backup::{BACKUP_UID, Evidence, VolumeProgress, evidence, has_ended, phase};
use crate::judge::velero::kinds::{Backup, PodVolumeBackup};
use crate::plan::{AwaitBackup, BACKUP_NAME, BackupRequest, VeleroAction};
use crate::session::outputs::StepRecord;
use crate::stack::MANAGED_BY;
use crate::wait::{Look, Wait};

pub(super) async fn carry_out(
    action: &VeleroAction,
    context: &RunContext,
    record: &StepRecord<'_, '_>,
    events: &Events,
) -> Result<bool> {
    let cluster = context.cluster()?;
    match action {
        VeleroAction::Backup(request) => make(cluster, request, record, events).await,
        VeleroAction::Await(what) => {
            let name = record.of(&what.of, BACKUP_NAME)?;
            let within = context.manner.deadlines.backup.std();
            let (backup, volumes) = await_end(cluster, what, &name, within, events).await?;
            judge(what, &backup, &volumes, events).map(|()| false)
        }
    }
}

/// Makes the Backup, unless one is under way that this very step of a former run began.
async fn make(
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
    // By the clock that Velero's times are of.
    let now = cluster.time().await?.to_zoned(TimeZone::UTC);
    let name = format!("{}-{}", request.prefix, now.strftime("%Y%m%d%H%M%S"));
    record.leave(BACKUP_NAME, &name)?;
    let object = json!({
        "apiVersion": Backup::API_VERSION, "kind": Backup::KIND,
        "metadata": {"name": name, "namespace": request.namespace, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
        "spec": request.spec,
    });
    let made = cluster.create(&object).await?;
    match made.before {
        None => Ok(true),
        Some(_) => Err(Error::unavailable(format!("Backup {}/{name} is there already", request.namespace))
            .hint("another backup was begun in the same second: run it again")),
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
            false => Look::not_yet(rate.told(&backup, VolumeProgress::of(&volumes))),
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

/// How fast the bytes go, to tell how long it still takes.
#[derive(Default)]
struct Rate(Option<(Instant, u64)>);

impl Rate {
    fn told(&mut self, backup: &Backup, volumes: VolumeProgress) -> String {
        let VolumeProgress { done, all, bytes_done, bytes } = volumes;
        let phase = phase(backup);
        if all == 0 {
            return phase.to_owned();
        }
        let (since, first) = *self.0.get_or_insert((Instant::now(), bytes_done));
        let (moved, seconds) = (bytes_done.saturating_sub(first), since.elapsed().as_secs());
        let left = bytes.saturating_sub(bytes_done);
        let left = match moved {
            0 => String::new(),
            moved => format!(", about {} s left", left.saturating_mul(seconds) / moved),
        };
        format!(
            "{phase}: {done} of {all} volumes, {} of {}{left}",
            BinaryBytes(bytes_done),
            BinaryBytes(bytes)
        )
    }
}

async fn read(cluster: &Cluster, namespace: &str, name: &str) -> Result<Option<Backup>> {
    cluster.get_of(Some(namespace), name).await
}
