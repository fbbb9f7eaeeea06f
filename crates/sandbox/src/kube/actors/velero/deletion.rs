//! The end of backups: those that are too old are asked to go, and what was asked to go goes with all that the store has
//! of it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::objects::{collection, delete, path};
use super::super::{Stage, ending, names, text};
use super::bucket::{Bucket, snapshot_key};
use super::data_path::{self, BACKUP_UID, Way};
use super::{BACKUPS, LOCATIONS, WHO, label, set_status};

const REQUESTS: &str = "velero.io/deletebackuprequests";
const NAME: &str = "velero.io/backup-name";
/// Why a backup that is too old stays.
const FAILURE: &str = "velero.io/gc-failure";
/// How often it is looked for backups that are too old.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// Requests are kept so long, in seconds.
const KEPT: i64 = 24 * 60 * 60;

pub(super) fn act(stage: &mut Stage<'_>, server: &Value) {
    let (home, _) = names(server);
    let backups = stage.all(BACKUPS, home);
    if !backups.is_empty() && stage.done("velero/gc", EVERY) {
        for backup in &backups {
            if is_past(stage, text(backup, "/status/expiration"), 0) {
                expire(stage, backup);
            }
        }
        for request in stage.all(REQUESTS, home) {
            let processed = text(&request, "/status/phase") == "Processed";
            if processed && is_past(stage, text(&request, "/metadata/creationTimestamp"), KEPT) {
                delete(stage, WHO, &path(&request));
            }
        }
    }
    for request in stage.all(REQUESTS, home) {
        match text(&request, "/status/phase") {
            "" | "New" => begin(stage, &request),
            "InProgress" => go_on(stage, server, &request),
            _ => {}
        }
    }
}

/// Whether so many seconds have passed since then.
fn is_past(stage: &Stage<'_>, then: &str, seconds: i64) -> bool {
    then.parse::<Timestamp>().is_ok_and(|then| stage.now.duration_since(then).as_secs() >= seconds)
}

/// Asks for the end of a backup that is too old.
fn expire(stage: &mut Stage<'_>, backup: &Value) {
    let (home, name) = names(backup);
    let location = stage.get(LOCATIONS, home, text(backup, "/spec/storageLocation"));
    let failure = match location {
        None => Some("BSLNotFound"),
        Some(location) if text(location, "/status/phase") != "Available" => return,
        Some(location) => (text(location, "/spec/accessMode") == "ReadOnly").then_some("BSLReadOnly"),
    };
    if backup["metadata"]["labels"][FAILURE].as_str() != failure {
        let _ = stage.patch(WHO, &path(backup), &json!({"metadata": {"labels": {FAILURE: failure}}}));
    }
    let uid = &backup["metadata"]["uid"];
    let pending = |request: &Value| {
        let phase = text(request, "/status/phase");
        request["metadata"]["labels"][BACKUP_UID] == *uid && matches!(phase, "" | "New" | "InProgress")
    };
    if failure.is_some() || stage.api.store.list(REQUESTS, home).any(|(_, request)| pending(request)) {
        return;
    }
    let request = json!({
        "apiVersion": "velero.io/v1", "kind": "DeleteBackupRequest",
        "metadata": {"generateName": format!("{name}-"), "labels": {NAME: label(name), BACKUP_UID: uid}},
        "spec": {"backupName": name},
    });
    let _ = stage.ask(WHO, "POST", &collection("velero.io/v1", "DeleteBackupRequest", home), &request);
}

fn begin(stage: &mut Stage<'_>, request: &Value) {
    let (home, own) = names(request);
    let name = text(request, "/spec/backupName");
    if name.is_empty() {
        return processed(stage, request, &["spec.backupName is required".to_owned()]);
    }
    for other in stage.all(REQUESTS, home) {
        if other["metadata"]["labels"][NAME] == label(name).as_str() && names(&other).1 != own {
            delete(stage, WHO, &path(&other));
        }
    }
    let Some(backup) = stage.get(BACKUPS, home, name).cloned() else {
        return processed(stage, request, &["backup not found".to_owned()]);
    };
    if let Err(why) = may_go(stage, &backup) {
        return processed(stage, request, &[why]);
    }
    let labels = json!({NAME: label(name), BACKUP_UID: backup["metadata"]["uid"]});
    let begun = json!({"metadata": {"labels": labels}, "status": {"phase": "InProgress"}});
    let _ = stage.patch(WHO, &path(request), &begun);
    set_status(stage, &backup, &json!({"phase": "Deleting"}));
}

/// The error says why a backup can't be deleted.
fn may_go(stage: &Stage<'_>, backup: &Value) -> Result<(), String> {
    if text(backup, "/status/phase") == "InProgress" {
        return Err("backup is still in progress".to_owned());
    }
    let (home, name) = (names(backup).0, text(backup, "/spec/storageLocation"));
    let location = stage.get(LOCATIONS, home, name);
    let location = location.ok_or_else(|| format!("backup storage location {name} not found"))?;
    let no = format!("cannot delete backup because backup storage location {name} is currently in");
    if text(location, "/spec/accessMode") == "ReadOnly" {
        return Err(format!("{no} read-only mode"));
    }
    if text(location, "/status/phase") != "Available" {
        return Err(format!("{no} Unavailable state"));
    }
    Ok(())
}

fn processed(stage: &mut Stage<'_>, request: &Value, errors: &[String]) {
    set_status(stage, request, &json!({"phase": "Processed", "errors": errors}));
}

/// Removes everything of the backup; when something fails, the backup stays.
fn go_on(stage: &mut Stage<'_>, server: &Value, request: &Value) {
    let (home, name) = (names(request).0, text(request, "/spec/backupName"));
    let Some(backup) = stage.get(BACKUPS, home, name).cloned() else {
        return processed(stage, request, &[]);
    };
    let bucket = Bucket::of_backup(stage, server, &backup);
    let removed = bucket.map(|bucket| {
        bucket.folders(stage, "backups")?;
        for volume in data_path::volumes(stage, Way::Backup, &backup) {
            let (namespace, id) = (text(&volume, "/spec/pod/namespace"), text(&volume, "/status/snapshotID"));
            if !id.is_empty() {
                bucket.forget(stage, &snapshot_key(namespace, id));
            }
        }
        bucket.remove(stage, &format!("backups/{name}"))
    });
    if let Some(Err(why)) = removed {
        return processed(stage, request, &[why]);
    }
    // Restores of the backup go first; each removes what the store has of it.
    let mut restores = stage.all("velero.io/restores", home);
    restores.retain(|restore| restore["spec"]["backupName"] == name);
    if !restores.is_empty() {
        let left = restores.iter().filter(|restore| !ending(restore));
        return left.for_each(|restore| delete(stage, WHO, &path(restore)));
    }
    delete(stage, WHO, &path(&backup));
    delete(stage, WHO, &path(request));
}
