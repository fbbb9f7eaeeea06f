//! Velero's server and its agents. Source: velero-io/velero, pkg/controller, pkg/restore, pkg/podvolume.
//!
//! Simulated are locations, which are validated and from which backups are made known again; backups with their objects
//! and, through the file-system backup, their volumes' files; restores of both, into other namespaces too; schedules;
//! the end of backups, asked for or by their age; and what becomes of all that when the store, a machine, an agent or
//! the repository's password fails. The store holds what a real one would, as JSON.
//!
//! Not there are snapshots and the data mover, what hooks run (they fail where their container is missing), resource policies and modifiers, the other plugins' changes of
//! objects, the filters by scope, BackupRepository objects and their maintenance, logs and downloads, the queue of
//! backups (they run side by side), and files of emptyDir volumes (they count as empty). Restored volumes do not get
//! the reclaim policy of the old ones, and a file's content is its size and checksum.

mod backup;
mod bucket;
mod chosen;
mod contents;
mod data_path;
mod deletion;
mod existing;
mod helper;
mod hooks;
mod item;
mod modifiers;
mod mounted;
mod restore;
mod results;
mod schedule;
mod sync;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde_json::{Value, json};

use super::objects::{digest, list, path};
use super::provisioner::works;
use super::{Stage, names, text};
use bucket::Bucket;
use data_path::Way;
pub(super) use helper::waits;
use results::KEPT;

const WHO: &str = "velero-server";
const LOCATIONS: &str = "velero.io/backupstoragelocations";
const BACKUPS: &str = "velero.io/backups";
/// How often a location is validated.
const EVERY: Duration = Duration::from_secs(60);
/// How long the volumes of a backup or a restore are waited for.
const TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);

pub(super) fn act(stage: &mut Stage<'_>) {
    let Some(server) = server(stage) else { return };
    let (namespace, _) = names(&server);
    for location in stage.all(LOCATIONS, namespace) {
        tend_location(stage, &server, &location);
    }
    for schedule in stage.all("velero.io/schedules", namespace) {
        schedule::tend(stage, &schedule);
    }
    data_path::act(stage, &server);
    for backup in stage.all(BACKUPS, namespace) {
        backup::tend(stage, &server, &backup);
    }
    for restore in stage.all("velero.io/restores", namespace) {
        restore::tend(stage, &server, &restore);
    }
    deletion::act(stage, &server);
}

fn server(stage: &Stage<'_>) -> Option<Value> {
    let is_server = |pod: &Value| {
        let labels = &pod["metadata"]["labels"];
        (labels["deploy"] == "velero" || labels["app.kubernetes.io/name"] == "velero")
            && labels["role"] != "node-agent"
    };
    let mut pods = stage.api.store.list("/pods", "").map(|(_, pod)| pod);
    pods.find(|pod| is_server(pod) && works(stage, pod)).cloned()
}

/// When the server's program started. The times are all in one form, so they are ordered as texts.
fn started(server: &Value) -> &str {
    let container = text(server, "/status/containerStatuses/0/state/running/startedAt");
    text(server, "/status/startTime").max(container)
}

/// Whether the server started anew while it was at this.
fn interrupted(server: &Value, object: &Value) -> bool {
    text(object, "/status/startTimestamp") < started(server)
}

fn tend_location(stage: &mut Stage<'_>, server: &Value, location: &Value) {
    let key = timer(location);
    let last = text(location, "/status/lastValidationTime");
    let due = stage.done(&key, EVERY);
    if !due && last >= started(server) && last >= spec_written(location) {
        return;
    }
    let bucket = Bucket::of(stage, server, location);
    let mut status = match bucket.folders(stage, "backups") {
        Ok(folders) => {
            sync::backups(stage, location, &bucket, &folders);
            json!({"phase": "Available", "message": null, "lastSyncedTime": stage.time()})
        }
        Err(why) => {
            let message = format!("BackupStorageLocation {:?} is unavailable: {why}", names(location).1);
            json!({"phase": "Unavailable", "message": message})
        }
    };
    status["lastValidationTime"] = json!(stage.time());
    set_status(stage, location, &status);
    stage.timers.forget(&key);
    stage.done(&key, EVERY);
}

/// When the location's spec was written last.
fn spec_written(location: &Value) -> &str {
    let of_spec = list(location, "/metadata/managedFields")
        .iter()
        .filter(|entry| !entry["fieldsV1"]["f:spec"].is_null());
    of_spec.map(|entry| text(entry, "/time")).max().unwrap_or_default()
}

/// A name as the value of a label: a long one ends with a part of its checksum.
fn label(name: &str) -> String {
    const MOST: usize = 63;
    if name.len() <= MOST {
        return name.to_owned();
    }
    name.chars().take(MOST - 6).chain(digest(name).chars().take(6)).collect()
}

/// Merges something into the status of an object of Velero's.
fn set_status(stage: &mut Stage<'_>, object: &Value, status: &Value) {
    let _ = stage.patch(WHO, &path(object), &json!({"status": status}));
}

/// Ends a backup or a restore that cannot be made.
fn fail(stage: &mut Stage<'_>, object: &Value, why: &str) {
    let status = json!({"phase": "Failed", "failureReason": why, "completionTimestamp": stage.time()});
    set_status(stage, object, &status);
    forget(stage, object);
}

/// Ends a backup or a restore that the server was at before it started anew.
fn give_up(stage: &mut Stage<'_>, way: Way, object: &Value) {
    data_path::cancel(stage, way, object);
    let found = format!("found a {} with status \"InProgress\"", way.word());
    fail(stage, object, &format!("{found} during the server starting, mark it as \"Failed\""));
}

/// Forgets what was noted on the way of a backup or a restore.
fn forget(stage: &mut Stage<'_>, object: &Value) {
    let _ = stage.patch(WHO, &path(object), &json!({"metadata": {"annotations": {KEPT: null}}}));
    stage.timers.forget(&timer(object));
}

/// What the timers of an object begin with.
fn timer(object: &Value) -> String {
    format!("velero/{}/", text(object, "/metadata/uid"))
}
