//! One backup on its way: it is looked at, begun, and ended with what became of its volumes.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::super::objects::{collection, list, path};
use super::super::{Stage, names, owned_by, text};
use super::bucket::Bucket;
use super::chosen::{Chosen, faults_of, selector_fault, selects};
use super::contents;
use super::data_path::{self, BACKUP_UID, Way, has_agent};
use super::hooks::Hooks;
use super::mounted::{self, is_host_path};
use super::results::{KEPT, Results};
use super::{BACKUPS, LOCATIONS, TIMEOUT, WHO, fail, forget, give_up, interrupted, label, set_status, timer};
use crate::kube::object::time;

/// How long the objects take, after the volumes.
const TAKES: Duration = Duration::from_secs(3);
const TTL: &str = "720h0m0s";

pub(super) fn tend(stage: &mut Stage<'_>, server: &Value, backup: &Value) {
    match text(backup, "/status/phase") {
        "" | "New" => begin(stage, server, backup),
        "InProgress" if interrupted(server, backup) => give_up(stage, Way::Backup, backup),
        "InProgress" => go_on(stage, server, backup),
        "Finalizing" => finish(stage, server, backup, "Completed"),
        "FinalizingPartiallyFailed" => finish(stage, server, backup, "PartiallyFailed"),
        _ => {}
    }
}

fn begin(stage: &mut Stage<'_>, server: &Value, backup: &Value) {
    let name = location_of(stage, backup);
    let ttl = match text(backup, "/spec/ttl") {
        "" | "0s" => TTL,
        ttl => ttl,
    };
    let filled = json!({
        "metadata": {"labels": {"velero.io/storage-location": label(&name)}},
        "spec": {"storageLocation": name, "ttl": ttl},
    });
    let _ = stage.patch(WHO, &path(backup), &filled);
    let location = stage.get(LOCATIONS, names(backup).0, &name).cloned();
    let named = !text(backup, "/spec/storageLocation").is_empty();
    let faults = faults(backup, &name, named, location.as_ref());
    let mut status = json!({
        "phase": "InProgress", "version": 1, "formatVersion": "1.1.0", "expiration": expiration(stage.now, ttl),
    });
    if faults.is_empty() {
        status["startTimestamp"] = json!(stage.time());
    } else {
        status["phase"] = json!("FailedValidation");
        status["validationErrors"] = json!(faults);
    }
    set_status(stage, backup, &status);
    let bucket = location.filter(|_| faults.is_empty()).map(|location| Bucket::of(stage, server, &location));
    let Some(bucket) = bucket else { return };
    match bucket.has(stage, &key(backup, "velero-backup.json")) {
        Ok(false) => begin_volumes(stage, backup),
        Ok(true) => fail(stage, backup, "backup already exists in object storage"),
        Err(why) => {
            fail(stage, backup, &format!("error checking if backup already exists in object storage: {why}"))
        }
    }
}

/// The place of a file of the backup's; most are called after it.
pub(super) fn key(backup: &Value, file: &str) -> String {
    let name = names(backup).1;
    match file.strip_prefix('*') {
        Some(end) => format!("backups/{name}/{name}{end}"),
        None => format!("backups/{name}/{file}"),
    }
}

/// Its objects.
pub(super) const CONTENTS: &str = "*.tar.gz";
/// Its PodVolumeBackups.
pub(super) const VOLUMES: &str = "*-podvolumebackups.json.gz";

/// The location that the backup names, or else the default one.
fn location_of(stage: &Stage<'_>, backup: &Value) -> String {
    let wanted = text(backup, "/spec/storageLocation");
    if !wanted.is_empty() {
        return wanted.to_owned();
    }
    let mut locations = stage.api.store.list(LOCATIONS, names(backup).0).map(|(_, location)| location);
    let default = locations.find(|location| location["spec"]["default"] == true);
    default.map_or("default", |location| names(location).1).to_owned()
}

/// Why the backup can't be made.
fn faults(backup: &Value, name: &str, named: bool, location: Option<&Value>) -> Vec<String> {
    let no = "backup can't be created because";
    let mut faults = Vec::new();
    match location {
        None => faults.push(format!(
            "an existing backup storage location was not specified at backup creation time and the {}. Please address this issue (see `velero backup-location -h` for options) and create a new backup. Error: \
             BackupStorageLocation.velero.io {name:?} not found",
            if named { format!("default {name} was not found") } else { format!("server default {name} does not exist") }
        )),
        Some(location) => {
            if text(location, "/spec/accessMode") == "ReadOnly" {
                faults.push(format!("{no} backup storage location {name} is currently in read-only mode"));
            }
            if text(location, "/status/phase") != "Available" {
                faults.push(format!("{no} BackupStorageLocation {name} is in Unavailable status."));
            }
        }
    }
    faults.extend(faults_of(&backup["spec"], "backup"));
    faults
}

fn expiration(now: Timestamp, ttl: &str) -> Option<String> {
    let ttl: SignedDuration = ttl.parse().ok()?;
    Some(time(now.checked_add(ttl).ok()?))
}

/// Makes a PodVolumeBackup of every volume that is to be kept with its files.
fn begin_volumes(stage: &mut Stage<'_>, backup: &Value) {
    let namespaces = Chosen::of(&backup["spec"], "Namespaces");
    let (mut results, mut hooks) = (Results::default(), Hooks::default());
    let fault = selector_fault(&backup["spec"]);
    if let Some(why) = fault {
        results.errors.of_velero(format!("Error getting items for resource: {why}"));
    }
    for pod in stage.all("/pods", "") {
        let chosen: Vec<String> = volumes_of(backup, &pod).map(str::to_owned).collect();
        let runs = text(&pod, "/status/phase") == "Running";
        let taken = namespaces.takes(names(&pod).0) && fault.is_none() && selects(&backup["spec"], &pod);
        if !taken || !hooks.run(backup, &pod, &mut results) || chosen.is_empty() || !runs {
            continue;
        }
        let node = text(&pod, "/spec/nodeName");
        if !has_agent(stage, names(backup).0, node) {
            results.errors.of_velero(format!("daemonset pod not found in running state in node {node}"));
            continue;
        }
        for volume in chosen {
            begin_volume(stage, backup, &pod, &volume, &mut results);
        }
    }
    set_status(stage, backup, &json!({"hookStatus": hooks.status()}));
    let kept = json!({KEPT: results.to_json().to_string()});
    let _ = stage.patch(WHO, &path(backup), &json!({"metadata": {"annotations": kept}}));
}

/// The pod's volumes that go through the file-system backup: by the backup's own word, or the pod's annotations.
fn volumes_of<'a>(backup: &Value, pod: &'a Value) -> impl Iterator<Item = &'a str> {
    let named = |key: &str| {
        let listed = pod["metadata"]["annotations"][key].as_str().unwrap_or_default();
        listed.split(',').map(str::trim).collect::<Vec<_>>()
    };
    let all = backup["spec"]["defaultVolumesToFsBackup"] == true;
    let (chosen, left_out) =
        (named("backup.velero.io/backup-volumes"), named("backup.velero.io/backup-volumes-excludes"));
    let volumes = list(pod, "/spec/volumes").iter();
    let kinds = ["hostPath", "secret", "configMap", "projected", "downwardAPI"];
    let wanted = move |volume: &&Value| {
        let name = text(volume, "/name");
        let can = kinds.iter().all(|kind| volume[*kind].is_null());
        if all { can && !left_out.contains(&name) } else { chosen.contains(&name) }
    };
    volumes.filter(wanted).map(|volume| text(volume, "/name"))
}

fn begin_volume(stage: &mut Stage<'_>, backup: &Value, pod: &Value, volume: &str, results: &mut Results) {
    let (namespace, name) = names(pod);
    let claim = list(pod, "/spec/volumes").iter().find(|one| one["name"] == volume);
    let claim = claim.map_or("", |volume| text(volume, "/persistentVolumeClaim/claimName"));
    let mut mounts =
        list(pod, "/spec/containers").iter().flat_map(|container| list(container, "/volumeMounts"));
    if is_host_path(stage, namespace, claim) {
        let what = format!(
            "Volume {volume} in pod {namespace}/{name} is a hostPath volume which is not supported for pod"
        );
        results.warnings.of_velero(format!("{what} volume backup, skipping"));
        return;
    }
    if !mounts.any(|mount| mount["name"] == volume) {
        let what =
            format!("volume {volume} is declared in pod {namespace}/{name} but not mounted by any container");
        results.warnings.of_velero(format!("{what}, skipping"));
        return;
    }
    let claim = stage.get("/persistentvolumeclaims", namespace, claim).cloned();
    let object = volume_backup(stage, backup, pod, volume, claim.as_ref());
    let path = collection("velero.io/v1", "PodVolumeBackup", names(backup).0);
    if let Err(why) = stage.ask(WHO, "POST", &path, &object) {
        results.errors.of_velero(why);
    }
}

fn volume_backup(
    stage: &Stage<'_>,
    backup: &Value,
    pod: &Value,
    volume: &str,
    claim: Option<&Value>,
) -> Value {
    let ((namespace, name), (_, backup_name)) = (names(pod), names(backup));
    let (uid, backup_uid) = (&pod["metadata"]["uid"], &backup["metadata"]["uid"]);
    let mounted = mounted::find(stage, pod, volume).map(|mounted| mounted.path).unwrap_or_default();
    let mut object = json!({
        "apiVersion": "velero.io/v1", "kind": "PodVolumeBackup",
        "metadata": {
            "generateName": format!("{backup_name}-"), "ownerReferences": owned_by(backup),
            "labels": {"velero.io/backup-name": label(backup_name), BACKUP_UID: backup_uid},
        },
        "spec": {
            "backupStorageLocation": location_of(stage, backup), "node": pod["spec"]["nodeName"], "volume": volume,
            "uploaderType": "kopia", "repoIdentifier": "",
            "pod": {"kind": "Pod", "namespace": namespace, "name": name, "uid": uid},
            "tags": {
                "backup": backup_name, "backup-uid": backup_uid, "pod": name, "pod-uid": uid, "ns": namespace,
                "volume": volume,
            },
        },
        "status": {"phase": "New", "path": mounted.replacen("/var/lib/kubelet/pods", "/host_pods", 1)},
    });
    if let Some(claim) = claim {
        let uid = &claim["metadata"]["uid"];
        let more = json!({
            "metadata": {
                "annotations": {"velero.io/pvc-name": names(claim).1}, "labels": {"velero.io/pvc-uid": uid},
            },
            "spec": {"tags": {"pvc-uid": uid}},
        });
        json_patch::merge(&mut object, &more);
    }
    object
}

/// Waits for the volumes, and then keeps everything.
fn go_on(stage: &mut Stage<'_>, server: &Value, backup: &Value) {
    let volumes = data_path::volumes(stage, Way::Backup, backup);
    let key = timer(backup);
    let late = stage.done(&format!("{key}volumes"), TIMEOUT);
    let waits = !volumes.iter().all(data_path::over) || !stage.done(&format!("{key}objects"), TAKES);
    if waits && !late {
        return;
    }
    let mut results = Results::kept(backup).unwrap_or_default();
    for volume in &volumes {
        let message = text(volume, "/status/message");
        match text(volume, "/status/phase") {
            "Completed" => {}
            "Failed" => results.errors.of_velero(format!("pod volume backup failed: {message}")),
            "Canceled" => results.errors.of_velero(format!("pod volume backup canceled: {message}")),
            _ => results.errors.of_velero("timed out waiting for all PodVolumeBackups to complete"),
        }
    }
    let contents = contents::collect(stage, backup);
    let items = contents.len();
    let status = json!({
        "phase": if results.errors.count().is_none() { "Finalizing" } else { "FinalizingPartiallyFailed" },
        "errors": results.errors.count(), "warnings": results.warnings.count(),
        "progress": {"totalItems": items, "itemsBackedUp": items},
    });
    set_status(stage, backup, &status);
    forget(stage, backup);
    if let Err(why) = keep(stage, server, backup, contents, &results) {
        fail(stage, backup, &why);
    }
}

/// The backup as the API server has it now.
fn current(stage: &Stage<'_>, backup: &Value) -> Value {
    let (namespace, name) = names(backup);
    stage.get(BACKUPS, namespace, name).cloned().unwrap_or_default()
}

fn keep(
    stage: &mut Stage<'_>,
    server: &Value,
    backup: &Value,
    contents: Map<String, Value>,
    results: &Results,
) -> Result<(), String> {
    let backup = current(stage, backup);
    let bucket = Bucket::of_backup(stage, server, &backup).ok_or("backup storage location not found")?;
    let volumes = json!(data_path::volumes(stage, Way::Backup, &backup));
    for (file, content) in [
        ("velero-backup.json", backup.clone()),
        (CONTENTS, Value::Object(contents)),
        (VOLUMES, volumes),
        ("*-results.gz", results.to_json()),
    ] {
        bucket.put(stage, &key(&backup, file), content)?;
    }
    Ok(())
}

/// While the store refuses its last word, the backup is not done.
fn finish(stage: &mut Stage<'_>, server: &Value, backup: &Value, phase: &str) {
    let Some(bucket) = Bucket::of_backup(stage, server, backup) else { return };
    let status = json!({"phase": phase, "completionTimestamp": stage.time()});
    let mut done = backup.clone();
    json_patch::merge(&mut done, &json!({"status": status}));
    if bucket.put(stage, &key(backup, "velero-backup.json"), done).is_ok() {
        set_status(stage, backup, &status);
    }
}
