//! Lists as the tables that kubectl asks for (`as=Table`): columns and cells as the API server's printers choose them
//! (k8s.io/kubernetes, pkg/printers/internalversion).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::object::holds;

type Cell = fn(&Value, Timestamp) -> Value;

/// A column: its title, whether only `-o wide` shows it, and its cells.
struct Column(&'static str, bool, Cell);

/// The table of an object or of a list's items.
pub fn table(kind: &str, reply: &Value, now: Timestamp) -> Value {
    let columns = columns(kind);
    let one = [reply.clone()];
    let items = reply["items"].as_array().map_or(one.as_slice(), Vec::as_slice);
    let rows: Vec<Value> = items.iter().map(|item| row(&columns, item, now)).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": reply["metadata"]["resourceVersion"]},
        "columnDefinitions": definitions(&columns), "rows": rows,
    })
}

fn definitions(columns: &[Column]) -> Vec<Value> {
    let define = |Column(name, wide, _): &Column| {
        let format = if *name == "Name" { "name" } else { "" };
        json!({"name": name, "type": "string", "format": format, "description": "", "priority": i32::from(*wide)})
    };
    columns.iter().map(define).collect()
}

fn row(columns: &[Column], item: &Value, now: Timestamp) -> Value {
    let cells: Vec<Value> = columns.iter().map(|Column(_, _, cell)| cell(item, now)).collect();
    let object = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]});
    json!({"cells": cells, "object": object})
}

fn columns(kind: &str) -> Vec<Column> {
    let name = Column("Name", false, |o, _| o["metadata"]["name"].clone());
    let age = Column("Age", false, |o, now| json!(since(&o["metadata"]["creationTimestamp"], now)));
    let shown = |name, cell| Column(name, false, cell);
    let wide = |name, cell| Column(name, true, cell);
    match kind {
        "Pod" => vec![
            name,
            shown("Ready", |o, _| json!(pod_ready(o))),
            shown("Status", |o, _| json!(pod_status(o))),
            shown("Restarts", |_, _| json!("0")),
            age,
            wide("IP", |o, _| or_none(&o["status"]["podIP"])),
            wide("Node", |o, _| or_none(&o["spec"]["nodeName"])),
        ],
        "Node" => vec![
            name,
            shown("Status", |o, _| json!(if holds(o, "Ready") { "Ready" } else { "NotReady" })),
            shown("Roles", |o, _| json!(roles(o))),
            age,
            shown("Version", |o, _| o["status"]["nodeInfo"]["kubeletVersion"].clone()),
            wide("Internal-IP", |o, _| or_none(&o["status"]["addresses"][0]["address"])),
            wide("OS-Image", |o, _| o["status"]["nodeInfo"]["osImage"].clone()),
            wide("Container-Runtime", |o, _| o["status"]["nodeInfo"]["containerRuntimeVersion"].clone()),
        ],
        "PersistentVolumeClaim" => vec![
            name,
            shown("Status", |o, _| o["status"]["phase"].clone()),
            shown("Volume", |o, _| or_empty(&o["spec"]["volumeName"])),
            shown("Capacity", |o, _| or_empty(&o["status"]["capacity"]["storage"])),
            shown("Access Modes", |o, _| json!(modes(&o["status"]["accessModes"]))),
            shown("StorageClass", |o, _| or_empty(&o["spec"]["storageClassName"])),
            age,
        ],
        "PersistentVolume" => vec![
            name,
            shown("Capacity", |o, _| o["spec"]["capacity"]["storage"].clone()),
            shown("Access Modes", |o, _| json!(modes(&o["spec"]["accessModes"]))),
            shown("Reclaim Policy", |o, _| o["spec"]["persistentVolumeReclaimPolicy"].clone()),
            shown("Status", |o, _| o["status"]["phase"].clone()),
            shown("Claim", |o, _| {
                let claim = &o["spec"]["claimRef"];
                let part = |key: &str| claim[key].as_str().unwrap_or_default();
                json!(if claim.is_null() {
                    String::new()
                } else {
                    format!("{}/{}", part("namespace"), part("name"))
                })
            }),
            shown("StorageClass", |o, _| or_empty(&o["spec"]["storageClassName"])),
            age,
        ],
        "StorageClass" => vec![
            shown("Name", |o, _| json!(class_name(o))),
            shown("Provisioner", |o, _| o["provisioner"].clone()),
            shown("ReclaimPolicy", |o, _| o["reclaimPolicy"].clone()),
            shown("VolumeBindingMode", |o, _| o["volumeBindingMode"].clone()),
            shown("AllowVolumeExpansion", |o, _| json!(o["allowVolumeExpansion"] == true)),
            age,
        ],
        "Deployment" => vec![
            name,
            shown("Ready", |o, _| {
                json!(format!("{}/{}", count(&o["status"]["readyReplicas"]), count(&o["spec"]["replicas"])))
            }),
            shown("Up-to-date", |o, _| json!(count(&o["status"]["updatedReplicas"]))),
            shown("Available", |o, _| json!(count(&o["status"]["availableReplicas"]))),
            age,
        ],
        "DaemonSet" => vec![
            name,
            shown("Desired", |o, _| json!(count(&o["status"]["desiredNumberScheduled"]))),
            shown("Current", |o, _| json!(count(&o["status"]["currentNumberScheduled"]))),
            shown("Ready", |o, _| json!(count(&o["status"]["numberReady"]))),
            shown("Up-to-date", |o, _| json!(count(&o["status"]["updatedNumberScheduled"]))),
            shown("Available", |o, _| json!(count(&o["status"]["numberAvailable"]))),
            age,
        ],
        "Namespace" => vec![name, shown("Status", |o, _| o["status"]["phase"].clone()), age],
        "Secret" => vec![
            name,
            shown("Type", |o, _| o["type"].clone()),
            shown("Data", |o, _| json!(o["data"].as_object().map_or(0, serde_json::Map::len))),
            age,
        ],
        "Event" => vec![
            shown("Last Seen", |o, now| json!(since(&o["lastTimestamp"], now))),
            shown("Type", |o, _| o["type"].clone()),
            shown("Reason", |o, _| o["reason"].clone()),
            shown("Object", |o, _| {
                let about = &o["involvedObject"];
                let part = |key: &str| about[key].as_str().unwrap_or_default();
                json!(format!("{}/{}", part("kind").to_lowercase(), part("name")))
            }),
            shown("Message", |o, _| o["message"].clone()),
        ],
        "Backup" | "BackupStorageLocation" | "Restore" | "Schedule" => {
            vec![name, shown("Status", |o, _| or_empty(&o["status"]["phase"])), age]
        }
        _ => vec![name, age],
    }
}

fn or_none(value: &Value) -> Value {
    if value.is_null() { json!("<none>") } else { value.clone() }
}

fn or_empty(value: &Value) -> Value {
    if value.is_null() { json!("") } else { value.clone() }
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let roles = labels.filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"));
    let roles: Vec<&str> = roles.collect();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn pod_ready(pod: &Value) -> String {
    let statuses = pod["status"]["containerStatuses"].as_array();
    let ready = statuses.into_iter().flatten().filter(|status| status["ready"] == true).count();
    format!("{ready}/{}", pod["spec"]["containers"].as_array().map_or(0, Vec::len))
}

/// What stands in the way of its containers, or else its phase.
fn pod_status(pod: &Value) -> String {
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return "Terminating".to_owned();
    }
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let mut states =
        statuses.flat_map(|status| [&status["state"]["waiting"], &status["state"]["terminated"]]);
    let reason = states.find_map(|state| state["reason"].as_str());
    reason.or_else(|| pod["status"]["phase"].as_str()).unwrap_or_default().to_owned()
}

fn class_name(class: &Value) -> String {
    let name = class["metadata"]["name"].as_str().unwrap_or_default();
    let default = class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true";
    format!("{name}{}", if default { " (default)" } else { "" })
}

fn modes(modes: &Value) -> String {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => "RWO",
        Some("ReadOnlyMany") => "ROX",
        Some("ReadWriteMany") => "RWX",
        Some("ReadWriteOncePod") => "RWOP",
        _ => "",
    };
    modes.as_array().into_iter().flatten().map(short).collect::<Vec<_>>().join(",")
}

fn since(time: &Value, now: Timestamp) -> String {
    let time: Option<Timestamp> = time.as_str().and_then(|text| text.parse().ok());
    time.map_or_else(|| "<unknown>".to_owned(), |time| human(now.duration_since(time).as_secs().max(0)))
}

/// As kubectl shows a time in seconds (k8s.io/apimachinery, util/duration).
fn human(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let with =
        |whole: String, rest: i64, unit: char| if rest == 0 { whole } else { format!("{whole}{rest}{unit}") };
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 => with(format!("{minutes}m"), seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => with(format!("{hours}h"), minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => with(format!("{days}d"), hours % 24, 'h'),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_kubectl_shows_them() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (700, "11m"),
            (10_860, "3h1m"),
            (90_000, "25h"),
            (180_000, "2d2h"),
            (900_000, "10d"),
        ] {
            assert_eq!(human(seconds), text);
        }
    }

    #[test]
    fn a_pods_row_says_what_is_the_matter() {
        let pod = json!({
            "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"containers": [{}]},
            "status": {"phase": "Pending", "containerStatuses": [{"ready": false, "state": {"waiting": {"reason": "ErrImagePull"}}}]},
        });
        let now = "2026-01-01T00:00:07Z".parse().unwrap_or_default();
        let shown = table("Pod", &pod, now);
        assert_eq!(
            shown["rows"][0]["cells"],
            json!(["p", "0/1", "ErrImagePull", "0", "7s", "<none>", "<none>"])
        );
        assert_eq!(table("Other", &json!({"items": []}), now)["rows"], json!([]));
    }
}
