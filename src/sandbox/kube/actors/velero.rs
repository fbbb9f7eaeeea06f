//! Velero's server: it validates its locations, enables its schedules, and backs up what it is told to.
//! Source: velero-io/velero, pkg/controller. Restores and the making of backups by a schedule are not there.

mod backup;
#[cfg(test)]
mod tests;

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::objects::{list, path};
use super::provisioner::works;
use super::{Stage, names, text};
use crate::sandbox::object_store::Key;

const WHO: &str = "velero-server";
const LOCATIONS: &str = "velero.io/backupstoragelocations";
/// How often a location is validated.
const EVERY: Duration = Duration::from_secs(60);

pub(super) fn act(stage: &mut Stage<'_>) {
    let Some(server) = server(stage) else { return };
    let (namespace, _) = names(&server);
    for location in stage.all(LOCATIONS, namespace) {
        tend_location(stage, &server, &location);
    }
    for schedule in stage.all("velero.io/schedules", namespace) {
        if text(&schedule, "/status/phase").is_empty() {
            set_status(stage, &schedule, &json!({"phase": "Enabled"}));
        }
    }
    for backup in stage.all("velero.io/backups", namespace) {
        backup::tend(stage, &server, &backup);
    }
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

fn tend_location(stage: &mut Stage<'_>, server: &Value, location: &Value) {
    let key = format!("velero/{}/", text(location, "/metadata/uid"));
    // The times are all in one form, so they are ordered as texts.
    let last = text(location, "/status/lastValidationTime");
    let due = stage.done(&key, EVERY);
    if !due && last >= text(server, "/status/startTime") && last >= spec_written(location) {
        return;
    }
    let mut status = match refusal(stage, server, location) {
        None => json!({"phase": "Available", "message": null}),
        Some(why) => {
            let unavailable = format!("BackupStorageLocation {:?} is unavailable", names(location).1);
            let message = format!("{unavailable}: rpc error: code = Unknown desc = {why}");
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

/// Why the location's store refuses its content.
fn refusal(stage: &Stage<'_>, server: &Value, location: &Value) -> Option<String> {
    let key = Key::read(&credentials(stage, server, location).unwrap_or_default());
    let request = format!("{:016X}", stage.api.store.version());
    let refused = stage.store.refusal(&key, text(location, "/spec/objectStorage/bucket"), &request)?;
    Some(format!("operation error S3: ListObjectsV2, {refused}"))
}

/// The location's credentials file, or else the one that the server's pod is given.
fn credentials(stage: &Stage<'_>, server: &Value, location: &Value) -> Option<String> {
    let own = &location["spec"]["credential"];
    let (name, key) = if own.is_null() {
        let mut secrets =
            list(server, "/spec/volumes").iter().map(|volume| text(volume, "/secret/secretName"));
        (secrets.find(|name| !name.is_empty())?, "cloud")
    } else {
        (text(own, "/name"), text(own, "/key"))
    };
    let secret = stage.get("/secrets", names(server).0, name)?;
    let file = BASE64_STANDARD.decode(secret["data"][key].as_str()?).ok()?;
    String::from_utf8(file).ok()
}

/// Merges something into the status of an object of Velero's.
fn set_status(stage: &mut Stage<'_>, object: &Value, status: &Value) {
    let _ = stage.patch(WHO, &path(object), &json!({"status": status}));
}
