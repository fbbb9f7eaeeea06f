//! The init container that Velero gives to restored pods: it keeps them back until their volumes' files are there.

use serde_json::{Value, json};

use super::super::objects::list;
use super::super::{Stage, text};
use super::mounted;

const NAME: &str = "restore-wait";

/// The container for a pod, which waits for these volumes.
pub(super) fn container(pod: &Value, volumes: &[&str], restore: &Value, image: &Value) -> Value {
    let mounts: Vec<Value> =
        volumes.iter().map(|name| json!({"name": name, "mountPath": format!("/restores/{name}")})).collect();
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let own = &pod["spec"]["containers"][0]["securityContext"];
    let restricted = json!({
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
        "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"},
    });
    json!({
        "name": NAME, "image": image, "command": ["/velero-restore-helper"], "args": [restore["metadata"]["uid"]],
        "env": [field("POD_NAMESPACE", "metadata.namespace"), field("POD_NAME", "metadata.name")],
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "100m", "memory": "128Mi"},
        },
        "securityContext": if own.is_null() { &restricted } else { own },
        "volumeMounts": mounts,
    })
}

/// Whether a container is one of these.
pub(super) fn is(container: &Value) -> bool {
    container["name"] == NAME || container["name"] == "restic-wait"
}

/// The file that says that a volume is there.
pub(super) fn mark(restore: &str) -> String {
    format!(".velero/{restore}")
}

/// Whether the pod's container runs.
pub(super) fn runs(pod: &Value) -> bool {
    let mut states = list(pod, "/status/initContainerStatuses").iter();
    states.any(|one| one["name"] == NAME && !one["state"]["running"].is_null())
}

/// The init container that still waits for the pod's files; none when there is none, or it is done. It takes its marks
/// with it when it goes.
pub(crate) fn waits(stage: &mut Stage<'_>, pod: &Value) -> Option<&'static str> {
    let container = list(pod, "/spec/initContainers").iter().find(|container| container["name"] == NAME)?;
    let mut states = list(pod, "/status/initContainerStatuses").iter();
    if states.any(|one| one["name"] == NAME && !one["state"]["terminated"].is_null()) {
        return None;
    }
    let mark = mark(text(container, "/args/0"));
    let mut places = Vec::new();
    for mount in list(container, "/volumeMounts") {
        let found = mounted::find(stage, pod, text(mount, "/name"));
        places.extend(found.ok().and_then(|mounted| mounted.place));
    }
    let host = stage.hosts.get_mut(text(pod, "/spec/nodeName"))?;
    let there = |place| host.directory(place).is_some_and(|directory| directory.files.contains_key(&mark));
    if !places.iter().all(there) {
        return Some(NAME);
    }
    for place in &places {
        if let Some(directory) = host.directory_mut(place) {
            directory.files.retain(|name, _| !name.starts_with(".velero/"));
        }
    }
    None
}
