//! `backup list` and `backup describe`: the backups that there are, and what one of them holds.

use indicatif::BinaryBytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::span;
use crate::cli::Global;
use crate::cli::global::Output;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::intent::{API_VERSION, Backup as Asked};
use crate::judge::backup::{ReadVolume, VolumeProgress, phase, reasons, schedule_of, volumes_read};
use crate::judge::velero::kinds::{Backup, PodVolumeBackup};
use crate::observe::backups::backups;
use crate::report;

type Found = Vec<(Backup, Vec<PodVolumeBackup>)>;

async fn found(cluster: &Cluster, backup: &Asked) -> Result<Found> {
    let locations: Vec<&str> = backup.all_locations().map(|location| location.name.as_str()).collect();
    backups(cluster, &backup.namespace, &locations).await
}

pub(super) async fn list(global: &Global, backup: &Asked, output: Output) -> Result<()> {
    let cluster = global.reach().cluster().await?;
    let (found, now) = (found(&cluster, backup).await?, cluster.time().await?);
    if output == Output::Json {
        let items: Vec<_> = found.iter().map(|(backup, volumes)| summary(backup, volumes)).collect();
        let list = json!({"apiVersion": API_VERSION, "kind": "BackupList", "items": items});
        report::stdout(&format!("{list:#}\n"));
        return Ok(());
    }
    let header = ["NAME", "STATUS", "VOLUMES", "SIZE", "AGE", "EXPIRES IN", "LOCATION"];
    let rows = found.iter().map(|(backup, volumes)| row(backup, volumes, now)).collect();
    report::stdout(&report::table(&header, rows));
    Ok(())
}

/// What a backup holds, volume by volume.
///
/// # Errors
/// `Invalid` when there is none of that name in the file's locations.
pub(super) async fn describe(global: &Global, backup: &Asked, name: &str, output: Output) -> Result<()> {
    let cluster = global.reach().cluster().await?;
    let all = found(&cluster, backup).await?;
    let one = all.iter().find(|(backup, _)| backup.metadata.name.as_deref() == Some(name));
    let (found, volumes) = one.ok_or_else(|| {
        Error::invalid(format!("there is no backup {name} in the file's locations"))
            .hint("`nodeprep backup list` names them")
    })?;
    let (now, read) = (cluster.time().await?, volumes_read(volumes));
    if output == Output::Json {
        let mut described = summary(found, volumes);
        described["apiVersion"] = API_VERSION.into();
        described["kind"] = "Backup".into();
        described["reasons"] = json!(reasons(found));
        described["read"] = json!(read);
        report::stdout(&format!("{described:#}\n"));
        return Ok(());
    }
    report::stdout(&facts(found, volumes, now));
    let header = ["CLAIM", "POD", "VOLUME", "NODE", "SIZE", "WHY NOT"];
    report::stdout(&report::table(&header, read.iter().map(volume_row).collect()));
    Ok(())
}

/// What is said of a backup as a whole, a line each.
fn facts(backup: &Backup, volumes: &[PodVolumeBackup], now: Timestamp) -> String {
    let (status, spec) = (backup.status.clone().unwrap_or_default(), &backup.spec);
    let seconds = |from: Timestamp, to: Timestamp| span(to.as_second() - from.as_second());
    let began = status.start_timestamp.map(|began| {
        let took = status.completion_timestamp.as_ref().map(|ended| seconds(began.0, ended.0));
        let took = took.map_or_else(|| "under way".to_owned(), |took| format!("took {took}"));
        format!("{} ({} ago), {took}", began.0, seconds(began.0, now))
    });
    let namespaces = spec.included_namespaces.clone().filter(|names| *names != ["*"]);
    let progress = VolumeProgress::of(volumes);
    let faults = reasons(backup);
    [
        ("status", Some(phase(backup).to_owned())),
        ("why", Some(faults.join("; ")).filter(|why| !why.is_empty())),
        ("schedule", Some(schedule_of(backup).unwrap_or("none: it was asked for").to_owned())),
        ("location", spec.storage_location.clone()),
        ("namespaces", Some(namespaces.map_or_else(|| "all".into(), |names| names.join(", ")))),
        ("began", began),
        ("expires in", status.expiration.map(|expires| seconds(now, expires.0))),
        ("errors", Some(status.errors.unwrap_or_default().to_string())),
        ("warnings", Some(status.warnings.unwrap_or_default().to_string())),
        (
            "volumes",
            Some(format!("{} of {}, {}", progress.done, progress.all, BinaryBytes(progress.bytes_done))),
        ),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some(format!("{key:<12}{}\n", value?)))
    .collect()
}

fn volume_row(read: &ReadVolume) -> Vec<String> {
    let size = match (&read.fault, read.bytes) {
        (Some(_), _) => "-".to_owned(),
        (None, Some(bytes)) => BinaryBytes(bytes).to_string(),
        (None, None) => "EMPTY".into(),
    };
    vec![
        read.claim.clone().unwrap_or_else(|| "-".into()),
        read.pod.clone(),
        read.volume.clone(),
        read.node.clone(),
        size,
        read.fault.clone().unwrap_or_default(),
    ]
}

fn summary(backup: &Backup, volumes: &[PodVolumeBackup]) -> Value {
    let (progress, status) = (VolumeProgress::of(volumes), backup.status.clone().unwrap_or_default());
    json!({
        "name": backup.metadata.name,
        "phase": phase(backup),
        "namespaces": backup.spec.included_namespaces,
        "location": backup.spec.storage_location,
        "volumes": progress.all,
        "volumesDone": progress.done,
        "bytes": progress.bytes_done,
        "started": status.start_timestamp,
        "completed": status.completion_timestamp,
        "expires": status.expiration,
        "errors": status.errors.unwrap_or_default(),
        "warnings": status.warnings.unwrap_or_default(),
    })
}

fn row(backup: &Backup, volumes: &[PodVolumeBackup], now: Timestamp) -> Vec<String> {
    let (progress, status) = (VolumeProgress::of(volumes), backup.status.clone().unwrap_or_default());
    let between = |from: Option<Timestamp>, to: Option<Timestamp>| match (from, to) {
        (Some(from), Some(to)) => span(to.as_second() - from.as_second()),
        _ => "-".into(),
    };
    vec![
        backup.metadata.name.clone().unwrap_or_default(),
        phase(backup).to_owned(),
        format!("{}/{}", progress.done, progress.all),
        BinaryBytes(progress.bytes_done).to_string(),
        between(status.start_timestamp.map(|time| time.0), Some(now)),
        between(Some(now), status.expiration.map(|time| time.0)),
        backup.spec.storage_location.clone().unwrap_or_default(),
    ]
}
