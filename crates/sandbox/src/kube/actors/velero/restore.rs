//! One restore on its way: it is looked at, brings the objects back, waits for the volumes' files, and ends.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::objects::{condition_of, free, list, path};
use super::super::{Stage, ending, names, text};
use super::backup::{CONTENTS, key};
use super::bucket::Bucket;
use super::chosen::{Chosen, faults_of};
use super::contents::Entry;
use super::data_path::{self, Way, has_agent};
use super::item::Restoring;
use super::modifiers::Modifiers;
use super::results::{KEPT, Results};
use super::schedule::SCHEDULE;
use super::{BACKUPS, LOCATIONS, TIMEOUT, WHO, fail, forget, give_up, interrupted, set_status, timer};

/// How long the objects take.
const TAKES: Duration = Duration::from_secs(2);
/// How long after its beginning a restore waits for namespaces that end.
const ENDING: Duration = Duration::from_secs(10 * 60);
const FINALIZER: &str = "restores.velero.io/external-resources-finalizer";
/// What never comes back from a backup.
const NEVER: [&str; 9] = [
    "nodes",
    "events",
    "events.events.k8s.io",
    "backups.velero.io",
    "restores.velero.io",
    "resticrepositories.velero.io",
    "csinodes.storage.k8s.io",
    "volumeattachments.storage.k8s.io",
    "backuprepositories.velero.io",
];

pub(super) fn tend(stage: &mut Stage<'_>, server: &Value, restore: &Value) {
    if ending(restore) {
        return let_go(stage, server, restore);
    }
    match text(restore, "/status/phase") {
        "" | "New" => begin(stage, restore),
        "InProgress" if interrupted(server, restore) => give_up(stage, Way::Restore, restore),
        "InProgress" => match Results::kept(restore) {
            None => run(stage, server, restore),
            Some(results) => wait(stage, server, restore, results),
        },
        "Finalizing" => finish(stage, server, restore, "Completed"),
        "FinalizingPartiallyFailed" => finish(stage, server, restore, "PartiallyFailed"),
        _ => {}
    }
}

fn begin(stage: &mut Stage<'_>, restore: &Value) {
    let excluded = list(restore, "/spec/excludedResources").iter().filter_map(Value::as_str);
    let mut excluded: Vec<&str> = excluded.collect();
    for never in NEVER {
        if !excluded.contains(&never) {
            excluded.push(never);
        }
    }
    let mut filled = restore.clone();
    json_patch::merge(&mut filled, &json!({"spec": {"excludedResources": excluded}}));
    let faults = complete(stage, &mut filled);
    let known = json!({
        "metadata": {"finalizers": [FINALIZER]},
        "spec": {
            "excludedResources": excluded, "backupName": filled["spec"]["backupName"],
            "scheduleName": filled["spec"]["scheduleName"],
            "itemOperationTimeout": restore["spec"]["itemOperationTimeout"].as_str().unwrap_or("4h0m0s"),
        },
    });
    let _ = stage.patch(WHO, &path(restore), &known);
    let status = if faults.is_empty() {
        json!({"phase": "InProgress", "startTimestamp": stage.time()})
    } else {
        json!({"phase": "FailedValidation", "validationErrors": faults})
    };
    set_status(stage, restore, &status);
}

/// Finds the restore's backup; what is wrong with the restore.
fn complete(stage: &Stage<'_>, restore: &mut Value) -> Vec<String> {
    let spec = &restore["spec"];
    let resources = Chosen::of(spec, "Resources");
    let never = NEVER.iter().filter(|never| resources.includes(never));
    let mut faults: Vec<String> =
        never.map(|never| format!("{never} are non-restorable resources")).collect();
    faults.extend(faults_of(spec, "restore"));
    let (backup, schedule) = (text(spec, "/backupName").to_owned(), text(spec, "/scheduleName").to_owned());
    if backup.is_empty() == schedule.is_empty() {
        let one = "Either a backup or schedule must be specified as a source for the restore, but not both";
        faults.push(one.to_owned());
        return faults;
    }
    let policy = text(spec, "/existingResourcePolicy");
    if !matches!(policy, "" | "none" | "update") {
        faults.push(format!("Invalid ExistingResourcePolicy: {policy}"));
    }
    let backup = if schedule.is_empty() { Ok(backup) } else { newest(stage, names(restore).0, &schedule) };
    match backup.and_then(|backup| usable(stage, names(restore).0, &backup)) {
        Ok(backup) => {
            let of_schedule = &backup["metadata"]["labels"][SCHEDULE];
            let schedule = if schedule.is_empty() { of_schedule.clone() } else { json!(schedule) };
            let found = json!({"spec": {"backupName": names(&backup).1, "scheduleName": schedule}});
            json_patch::merge(restore, &found);
        }
        Err(why) => faults.extend(why),
    }
    faults
}

/// The newest backup of a schedule that went well.
fn newest(stage: &Stage<'_>, home: &str, schedule: &str) -> Result<String, Vec<String>> {
    let backups = stage.api.store.list(BACKUPS, home).map(|(_, backup)| backup);
    let of = |backup: &&Value| backup["metadata"]["labels"][SCHEDULE] == schedule;
    let backups: Vec<&Value> = backups.filter(of).collect();
    let good = backups.iter().filter(|backup| text(backup, "/status/phase") == "Completed");
    let newest = good.max_by_key(|backup| text(backup, "/status/startTimestamp"));
    let none = || {
        let none = backups.is_empty().then_some("No backups found for schedule");
        none.into_iter().chain(["No completed backups found for schedule"]).map(str::to_owned).collect()
    };
    newest.map(|backup| names(backup).1.to_owned()).ok_or_else(none)
}

/// A backup whose location can be read.
fn usable(stage: &Stage<'_>, home: &str, name: &str) -> Result<Value, Vec<String>> {
    let tried = "Error retrieving backup";
    let backup = stage.get(BACKUPS, home, name).ok_or_else(|| {
        vec![format!("{tried}: can't find backup {home}/{name}: Backup.velero.io {name:?} not found")]
    })?;
    let location = text(backup, "/spec/storageLocation");
    let found = stage.get(LOCATIONS, home, location);
    let found = found
        .ok_or_else(|| vec![format!("{tried}: BackupStorageLocation.velero.io {location:?} not found")])?;
    if text(found, "/status/phase") != "Available" {
        return Err(vec![format!("The BSL {location} is unavailable, cannot retrieve the backup")]);
    }
    Ok(backup.clone())
}

/// The bucket with the restore's backup.
fn bucket(stage: &Stage<'_>, server: &Value, restore: &Value) -> Option<(Value, Bucket)> {
    let backup = stage.get(BACKUPS, names(restore).0, text(restore, "/spec/backupName"))?;
    Some((backup.clone(), Bucket::of_backup(stage, server, backup)?))
}

/// Brings the objects back.
fn run(stage: &mut Stage<'_>, server: &Value, restore: &Value) {
    let timer = timer(restore);
    let late = stage.done(&format!("{timer}namespaces"), ENDING);
    if !late && !stage.done(&format!("{timer}objects"), TAKES) {
        return;
    }
    let found = bucket(stage, server, restore).ok_or_else(|| "backup not found".to_owned());
    let read = found.and_then(|(backup, bucket)| bucket.get(stage, &key(&backup, CONTENTS)));
    let contents = match read {
        Ok(Value::Object(contents)) => contents,
        Ok(_) => return fail(stage, restore, "error downloading backup: unexpected EOF"),
        Err(why) => return fail(stage, restore, &format!("error downloading backup: {why}")),
    };
    if !late && ending_target(stage, restore, &contents) {
        return;
    }
    stage.timers.forget(&timer);
    let modifiers = match Modifiers::of(stage, restore) {
        Ok(modifiers) => modifiers,
        Err(why) => return fail(stage, restore, &why),
    };
    let mut restoring = Restoring::new(stage, server, restore, &contents, modifiers);
    restoring.all(stage);
    let count = restoring.count();
    let kept = json!({
        "metadata": {"annotations": {KEPT: restoring.results.to_json().to_string()}},
        "status": {"progress": {"totalItems": count, "itemsRestored": count}},
    });
    let _ = stage.patch(WHO, &path(restore), &kept);
}

/// Whether a namespace that is to be restored into is about to go.
fn ending_target(stage: &Stage<'_>, restore: &Value, contents: &Map<String, Value>) -> bool {
    let chosen = Chosen::of(&restore["spec"], "Namespaces");
    let mut entries = contents.keys().filter_map(|path| Entry::read(path));
    entries.any(|entry| {
        let target = target(restore, entry.namespace);
        chosen.takes(entry.namespace) && stage.get("/namespaces", "", target).is_some_and(ending)
    })
}

/// The namespace that the objects of another go to.
pub(super) fn target<'a>(restore: &'a Value, namespace: &'a str) -> &'a str {
    restore["spec"]["namespaceMapping"].get(namespace).and_then(Value::as_str).unwrap_or(namespace)
}

/// Waits for the volumes' files, and then says how it went.
fn wait(stage: &mut Stage<'_>, server: &Value, restore: &Value, mut results: Results) {
    let volumes = data_path::volumes(stage, Way::Restore, restore);
    let late = stage.done(&format!("{}volumes", timer(restore)), TIMEOUT);
    let mut said = Vec::new();
    for volume in &volumes {
        let message = text(volume, "/status/message");
        let phase = text(volume, "/status/phase");
        let why = match phase {
            "Completed" => continue,
            "Failed" => format!("pod volume restore failed: {message}"),
            "Canceled" => format!("pod volume restore canceled: {message}"),
            _ => match unattended(stage, volume) {
                Some(why) if matches!(phase, "" | "New") => why,
                _ if late => "timed out waiting for all PodVolumeRestores to complete".to_owned(),
                _ => return,
            },
        };
        // Of a pod that waits in vain it is said once.
        if !said.contains(&why) {
            said.push(why);
        }
    }
    said.into_iter().for_each(|why| results.errors.of_velero(why));
    end(stage, server, restore, &results);
}

/// Why a volume's pod, which has its node, waits in vain.
fn unattended(stage: &Stage<'_>, volume: &Value) -> Option<String> {
    let of = &volume["spec"]["pod"];
    let pod = stage.get("/pods", text(of, "/namespace"), text(of, "/name"))?;
    let node = text(pod, "/spec/nodeName");
    let scheduled = condition_of(pod, "PodScheduled").is_some() && !node.is_empty();
    (scheduled && !has_agent(stage, names(volume).0, node)).then(|| {
        let running = "daemonset pod not found in running state in node";
        format!("node-agent pod is not running in node {node}: {running} {node}")
    })
}

/// The place of a file of the restore's.
fn file(restore: &Value, what: &str) -> String {
    let name = names(restore).1;
    format!("restores/{name}/restore-{name}-{what}.gz")
}

fn end(stage: &mut Stage<'_>, server: &Value, restore: &Value, results: &Results) {
    let failed = results.errors.count().is_some();
    let status = json!({
        "phase": if failed { "FinalizingPartiallyFailed" } else { "Finalizing" },
        "warnings": results.warnings.count(), "errors": results.errors.count(), "hookStatus": {},
    });
    set_status(stage, restore, &status);
    forget(stage, restore);
    // That it can't be kept is only logged.
    if let Some((_, bucket)) = bucket(stage, server, restore) {
        let _ = bucket.put(stage, &file(restore, "results"), results.to_json());
    }
}

/// While the results can't be read from the store, the restore is not done.
fn finish(stage: &mut Stage<'_>, server: &Value, restore: &Value, phase: &str) {
    let phase = match bucket(stage, server, restore) {
        None => "PartiallyFailed",
        Some((_, bucket)) if bucket.get(stage, &file(restore, "results")).is_err() => return,
        Some(_) => phase,
    };
    let status = json!({"phase": phase, "completionTimestamp": stage.time()});
    set_status(stage, restore, &status);
}

/// A restore that is deleted takes with it what the store has of it, as long as the store can be reached.
fn let_go(stage: &mut Stage<'_>, server: &Value, restore: &Value) {
    if let Some((backup, bucket)) = bucket(stage, server, restore) {
        let location = stage.get(LOCATIONS, names(restore).0, text(&backup, "/spec/storageLocation"));
        let available = location.is_some_and(|location| text(location, "/status/phase") == "Available");
        if !available || bucket.remove(stage, &format!("restores/{}", names(restore).1)).is_err() {
            return;
        }
    }
    free(stage, WHO, restore, FINALIZER);
}
