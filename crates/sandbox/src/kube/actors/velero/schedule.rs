//! A schedule: it is looked at, and makes a backup when it is due.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::objects::{collection, path};
use super::super::{Stage, names, owned_by, text};
use super::{BACKUPS, WHO, set_status, timer};
use crate::intent::Cron;

/// By this label the backups of a schedule are found.
pub(super) const SCHEDULE: &str = "velero.io/schedule-name";
/// A schedule is due only after its time.
const AFTER: SignedDuration = SignedDuration::from_secs(1);
/// How often all schedules are looked at.
const EVERY: SignedDuration = SignedDuration::from_secs(60);

pub(super) fn tend(stage: &mut Stage<'_>, schedule: &Value) {
    if schedule["spec"]["paused"] == true {
        return;
    }
    skip(stage, schedule);
    let line = match text(schedule, "/spec/schedule") {
        "" => Err("Schedule must be a non-empty valid Cron expression".to_owned()),
        line => Cron::parse(line).map_err(|why| format!("invalid schedule: {why}")),
    };
    let status = match &line {
        Ok(_) => json!({"phase": "Enabled", "validationErrors": null}),
        Err(why) => json!({"phase": "FailedValidation", "validationErrors": [why]}),
    };
    let said = |field: &str| schedule["status"][field] == status[field];
    if !said("phase") || !said("validationErrors") {
        set_status(stage, schedule, &status);
    }
    let (namespace, name) = names(schedule);
    let schedule = stage.get("velero.io/schedules", namespace, name).cloned().unwrap_or_default();
    let (Ok(line), Some(since)) = (line, last(&schedule)) else { return };
    let next = line.next(since).unwrap_or_else(|| whenever(&schedule));
    let Ok(due) = next.checked_add(AFTER) else { return };
    if stage.now < due {
        stage.timers.wake(&format!("{}due", timer(&schedule)), due);
    } else if !busy(stage, &schedule) {
        make(stage, &schedule);
    }
}

/// What is to be left out is left out once: what would be due by now is taken as done.
fn skip(stage: &mut Stage<'_>, schedule: &Value) {
    let wanted = &schedule["spec"]["skipImmediately"];
    if *wanted == false {
        return;
    }
    let now = stage.time();
    let mut patch = json!({"spec": {"skipImmediately": false}});
    if *wanted == true {
        patch["status"] = json!({"lastSkipped": now});
    }
    let _ = stage.patch(WHO, &path(schedule), &patch);
}

/// A line that names no day is due whenever it is looked at: at once, and each minute.
fn whenever(schedule: &Value) -> Timestamp {
    let made = text(schedule, "/status/lastBackup").parse::<Timestamp>().ok();
    made.and_then(|made| made.checked_add(EVERY).ok()).unwrap_or_default()
}

/// When its last backup was made or left out, or else when it was made itself.
fn last(schedule: &Value) -> Option<Timestamp> {
    let time = |pointer: &str| text(schedule, pointer).parse::<Timestamp>().ok();
    let made = time("/status/lastBackup").or_else(|| time("/metadata/creationTimestamp"))?;
    Some(time("/status/lastSkipped").map_or(made, |skipped| skipped.max(made)))
}

/// Whether a backup of the schedule is just being made.
fn busy(stage: &Stage<'_>, schedule: &Value) -> bool {
    let (namespace, name) = names(schedule);
    let going = |backup: &Value| {
        let phase = text(backup, "/status/phase");
        backup["metadata"]["labels"][SCHEDULE] == name && matches!(phase, "" | "New" | "InProgress")
    };
    stage.api.store.list(BACKUPS, namespace).any(|(_, backup)| going(backup))
}

fn make(stage: &mut Stage<'_>, schedule: &Value) {
    let (namespace, name) = names(schedule);
    let template = &schedule["spec"]["template"];
    let labels = match &template["metadata"]["labels"] {
        Value::Null => &schedule["metadata"]["labels"],
        own => own,
    };
    let mut metadata = json!({
        "name": format!("{name}-{}", stage.now.strftime("%Y%m%d%H%M%S")),
        "labels": labels, "annotations": schedule["metadata"]["annotations"],
    });
    json_patch::merge(&mut metadata, &json!({"labels": {SCHEDULE: name}}));
    if schedule["spec"]["useOwnerReferencesInBackup"] == true {
        json_patch::merge(&mut metadata, &json!({"ownerReferences": owned_by(schedule)}));
    }
    let backup =
        json!({"apiVersion": "velero.io/v1", "kind": "Backup", "metadata": metadata, "spec": template});
    if stage.ask(WHO, "POST", &collection("velero.io/v1", "Backup", namespace), &backup).is_ok() {
        let now = stage.time();
        set_status(stage, schedule, &json!({"lastBackup": now}));
    }
}
