//! One backup on its way: it is looked at, begun, and ended with what became of its volumes.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::objects::{collection, list, path};
use super::super::provisioner::works;
use super::super::volumes::claims_of;
use super::super::{Stage, names, text};
use super::{LOCATIONS, WHO, refusal, set_status};

/// How long a backup takes.
const TAKES: Duration = Duration::from_secs(5);
const TTL: &str = "720h0m0s";

pub(super) fn tend(stage: &mut Stage<'_>, server: &Value, backup: &Value) {
    match text(backup, "/status/phase") {
        "" | "New" => begin(stage, backup),
        "InProgress" if stage.done(&format!("velero/{}/", text(backup, "/metadata/uid")), TAKES) => {
            end(stage, server, backup);
        }
        _ => {}
    }
}

fn begin(stage: &mut Stage<'_>, backup: &Value) {
    let location = location_of(stage, backup);
    if let Some(fault) = fault(backup, location.as_ref()) {
        set_status(stage, backup, &json!({"phase": "FailedValidation", "validationErrors": [fault]}));
        return;
    }
    let name = location.as_ref().map_or("", |location| names(location).1);
    let ttl = Some(text(backup, "/spec/ttl")).filter(|ttl| !ttl.is_empty()).unwrap_or(TTL);
    let filled = json!({
        "metadata": {"labels": {"velero.io/storage-location": name}},
        "spec": {"storageLocation": name, "ttl": ttl},
    });
    let _ = stage.patch(WHO, &path(backup), &filled);
    let status = json!({
        "phase": "InProgress", "version": 1, "formatVersion": "1.1.0",
        "startTimestamp": stage.time(), "expiration": expiration(stage.now, ttl),
    });
    set_status(stage, backup, &status);
}

/// Why the backup can't be made.
fn fault(backup: &Value, location: Option<&Value>) -> Option<String> {
    let Some(location) = location else {
        let wanted = text(backup, "/spec/storageLocation");
        return Some(format!("backup storage location {wanted:?} not found"));
    };
    let name = names(location).1;
    let no = "backup can't be created because";
    if text(location, "/status/phase") == "Unavailable" {
        return Some(format!("{no} BackupStorageLocation {name} is in Unavailable status."));
    }
    let read_only = text(location, "/spec/accessMode") == "ReadOnly";
    read_only.then(|| format!("{no} backup storage location {name} is currently in read-only mode"))
}

/// The location that the backup names, or else the default one.
fn location_of(stage: &Stage<'_>, backup: &Value) -> Option<Value> {
    let wanted = text(backup, "/spec/storageLocation");
    let mut locations = stage.all(LOCATIONS, names(backup).0).into_iter();
    locations.find(|location| match wanted {
        "" => location["spec"]["default"] == true,
        name => names(location).1 == name,
    })
}

fn expiration(now: Timestamp, ttl: &str) -> Option<String> {
    let ttl: SignedDuration = ttl.parse().ok()?;
    Some(now.checked_add(ttl).ok()?.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn end(stage: &mut Stage<'_>, server: &Value, backup: &Value) {
    let location = location_of(stage, backup);
    if let Some(why) = location.and_then(|location| refusal(stage, server, &location)) {
        let tried = "error checking if backup already exists in object storage";
        let why = format!("{tried}: rpc error: code = Unknown desc = {why}");
        let status = json!({"phase": "Failed", "failureReason": why, "completionTimestamp": stage.time()});
        set_status(stage, backup, &status);
        return;
    }
    let namespaces = namespaces_of(stage, backup);
    let (mut errors, mut warnings) = (0, 0);
    for pod in stage.all("/pods", "") {
        if !namespaces.contains(names(&pod).0) || text(&pod, "/status/phase") != "Running" {
            continue;
        }
        for (volume, claim) in claims_of(&pod).filter(|(volume, _)| is_chosen(backup, &pod, volume)) {
            match back_up(stage, backup, &Mounted { pod: &pod, volume, claim }) {
                Done::Kept => {}
                Done::Skipped => warnings += 1,
                Done::Failed => errors += 1,
            }
        }
    }
    let items = namespaces.iter().flat_map(|namespace| stage.api.store.in_namespace(namespace));
    let items = items.filter(|(place, _)| place.resource != "/events").count();
    let counted = |count: usize| if count == 0 { Value::Null } else { json!(count) };
    let status = json!({
        "phase": if errors == 0 { "Completed" } else { "PartiallyFailed" },
        "errors": counted(errors), "warnings": counted(warnings), "hookStatus": {},
        "progress": {"totalItems": items, "itemsBackedUp": items}, "completionTimestamp": stage.time(),
    });
    set_status(stage, backup, &status);
}

fn namespaces_of(stage: &Stage<'_>, backup: &Value) -> BTreeSet<String> {
    let named =
        |key: &str| -> Vec<&str> { list(&backup["spec"], key).iter().filter_map(Value::as_str).collect() };
    let (included, excluded) = (named("/includedNamespaces"), named("/excludedNamespaces"));
    let all = stage.api.store.list("/namespaces", "").map(|(place, _)| place.name.as_str());
    let wanted = all.filter(|name| {
        (included.is_empty() || included.contains(&"*") || included.contains(name))
            && !excluded.contains(name)
    });
    wanted.map(str::to_owned).collect()
}

/// Whether the pod's volume goes through the file-system backup: by the backup's own word, or the pod's annotations.
fn is_chosen(backup: &Value, pod: &Value, volume: &str) -> bool {
    let listed = |key: &str| {
        let list = pod["metadata"]["annotations"][key].as_str().unwrap_or_default();
        list.split(',').any(|name| name.trim() == volume)
    };
    if backup["spec"]["defaultVolumesToFsBackup"] == true {
        return !listed("backup.velero.io/backup-volumes-excludes");
    }
    listed("backup.velero.io/backup-volumes")
}

/// A claim as a pod mounts it.
struct Mounted<'a> {
    pod: &'a Value,
    volume: &'a str,
    claim: &'a str,
}

enum Done {
    Kept,
    /// Volumes of type hostPath are left out with a warning.
    Skipped,
    /// There is no agent on the pod's node.
    Failed,
}

fn back_up(stage: &mut Stage<'_>, backup: &Value, what: &Mounted<'_>) -> Done {
    let (namespace, node) = (names(what.pod).0, text(what.pod, "/spec/nodeName"));
    let Some(claim) = stage.get("/persistentvolumeclaims", namespace, what.claim).cloned() else {
        return Done::Skipped;
    };
    let volume = stage.get("/persistentvolumes", "", text(&claim, "/spec/volumeName")).cloned();
    let path = volume.as_ref().map_or("", |volume| text(volume, "/spec/local/path"));
    if path.is_empty() {
        return Done::Skipped;
    }
    let home = names(backup).0;
    let is_agent = |pod: &Value| {
        pod["metadata"]["labels"]["role"] == "node-agent" && text(pod, "/spec/nodeName") == node
    };
    if !stage.api.store.list("/pods", home).any(|(_, pod)| is_agent(pod) && works(stage, pod)) {
        return Done::Failed;
    }
    let bytes = stage.hosts.get(node).and_then(|host| {
        let directory = host.directory(&host.place_for_kubelet(path)?)?;
        Some(directory.files.values().map(|file| file.size).sum::<u64>())
    });
    let (bytes, now) = (bytes.unwrap_or_default(), stage.time());
    let id = format!("{:032x}", stage.api.store.version());
    let (uid, pod) = (text(what.pod, "/metadata/uid"), names(what.pod).1);
    let kept = json!({
        "apiVersion": "velero.io/v1", "kind": "PodVolumeBackup",
        "metadata": {
            "generateName": format!("{}-", names(backup).1),
            "labels": {
                "velero.io/backup-name": names(backup).1, "velero.io/backup-uid": backup["metadata"]["uid"],
                "velero.io/pvc-uid": claim["metadata"]["uid"],
            },
        },
        "spec": {
            "backupStorageLocation": backup["spec"]["storageLocation"], "node": node, "volume": what.volume,
            "uploaderType": "kopia",
            "pod": {"kind": "Pod", "namespace": namespace, "name": pod, "uid": uid},
            "repoIdentifier": "", "tags": {"backup": names(backup).1, "ns": namespace, "pod": pod, "volume": what.volume},
        },
        "status": {
            "phase": "Completed", "snapshotID": id, "startTimestamp": now, "completionTimestamp": now,
            "path": format!("/host_pods/{uid}/volumes/kubernetes.io~local-volume/{}", text(&claim, "/spec/volumeName")),
            "progress": {"totalBytes": bytes, "bytesDone": bytes},
        },
    });
    let made = stage.ask(WHO, "POST", &collection("velero.io/v1", "PodVolumeBackup", home), &kept);
    if made.is_ok() { Done::Kept } else { Done::Failed }
}
