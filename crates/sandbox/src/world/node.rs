//! A machine's Node object: its kubelet registers it, and Talos labels it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::SIMULATED;
use crate::kube::api::Api;
use crate::kube::object::time;
use crate::kube::store::Place;
use crate::machine::Machine;
use crate::timers::Timers;

/// From the configuration to the Node object's label.
const LABEL: Duration = Duration::from_millis(300);
/// Of a control plane, unless its configuration lets all pods run there (siderolabs/talos, NodeTaintSpecController). Set when
/// the node registers; a configuration that changes this later changes no taint here.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane:NoSchedule";
/// Which labels Talos set is kept there, so that it leaves others alone (siderolabs/talos, constants).
const OWNED_LABELS: &str = "talos.dev/owned-labels";

/// The machine's kubelet makes its Node object, unless there is one.
pub(super) fn register(api: &mut Api, machine: &Machine, ready: bool, now: Timestamp) {
    let name = &machine.host.name;
    if api.store.get(&Place::global("/nodes", name)).is_some() {
        return;
    }
    let mut labels = json!({
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "amd64",
    });
    let wanted = &machine.wanted_labels;
    let owned: Vec<&String> = wanted.keys().collect();
    for (key, value) in wanted {
        labels[key] = json!(value);
    }
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {OWNED_LABELS: json!(owned).to_string()}},
        "spec": {"taints": taints(machine)},
    });
    // In a container the kernel is the host's.
    let kernel = if machine.container { SIMULATED.to_owned() } else { format!("{SIMULATED}-talos") };
    let now = time(now);
    api.make_as("kubelet", "POST", "/api/v1/nodes", &node, &now);
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let (status, reason, message) = if ready {
        ("True", "KubeletReady", "kubelet is posting ready status")
    } else {
        ("False", "KubeletNotReady", "container runtime network not ready")
    };
    let status = json!({"status": {
        "addresses": [
            {"type": "InternalIP", "address": machine.address}, {"type": "Hostname", "address": name},
        ],
        "capacity": {"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "200Gi"},
        "allocatable": {"cpu": "8", "memory": "31Gi", "pods": "110", "ephemeral-storage": "190Gi"},
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", status, reason, message),
        ],
        "nodeInfo": {
            "architecture": "amd64", "operatingSystem": "linux", "kernelVersion": kernel,
            "osImage": format!("Talos ({}) {SIMULATED}", machine.version), "kubeletVersion": "v1.34.4",
            "containerRuntimeVersion": "containerd://simulated", "machineID": machine.machine_id(),
            "systemUUID": name, "bootID": machine.boot_id(), "kubeProxyVersion": "",
        },
    }});
    let path = format!("/api/v1/nodes/{name}/status");
    api.make_as("kubelet", "PATCH", &path, &status, &now);
}

/// Sets the labels that the configuration asks for, and takes away those that it asked for before. A label that
/// somebody else set is left alone. Whether nothing is left to do.
pub(super) fn label(api: &mut Api, machine: &Machine, timers: &mut Timers, now: Timestamp) -> bool {
    let (name, wanted) = (&machine.host.name, &machine.wanted_labels);
    let Some(node) = api.store.get(&Place::global("/nodes", name)).filter(|_| !machine.rebooting) else {
        return true;
    };
    let owned = node["metadata"]["annotations"][OWNED_LABELS].as_str().unwrap_or("[]");
    let owned: Vec<String> = serde_json::from_str(owned).unwrap_or_default();
    let there = &node["metadata"]["labels"];
    let ours = |key: &String| there[key].is_null() || owned.contains(key);
    let mut labels = json!({});
    for (key, value) in wanted.iter().filter(|(key, value)| ours(key) && there[*key] != json!(value)) {
        labels[key] = json!(value);
    }
    for key in owned.iter().filter(|key| !wanted.contains_key(*key) && !there[*key].is_null()) {
        labels[key] = Value::Null;
    }
    if labels.as_object().is_some_and(serde_json::Map::is_empty) {
        return true;
    }
    if !timers.done(&format!("machine/{}/labels", machine.address), LABEL, now) {
        return false;
    }
    let keys: Vec<&String> = wanted.keys().filter(|key| ours(key)).collect();
    let annotations = json!({OWNED_LABELS: json!(keys).to_string()});
    let patch = json!({"metadata": {"labels": labels, "annotations": annotations}});
    api.make_as("talos", "PATCH", &format!("/api/v1/nodes/{name}"), &patch, &time(now));
    false
}

/// Those of its configuration, and what the scenario adds; null when there are none.
fn taints(machine: &Machine) -> Value {
    let config = machine.config().main;
    let open = ["allowSchedulingOnControlPlanes", "allowSchedulingOnMasters"];
    let open = open.iter().any(|key| config["cluster"][*key] == true);
    let control_plane = (machine.controlplane && !open).then(|| CONTROL_PLANE.to_owned());
    let asked = config["machine"]["nodeTaints"].as_object().into_iter().flatten();
    let asked = asked.map(|(key, value)| match value.as_str().unwrap_or_default() {
        effect if !effect.contains(':') => format!("{key}:{effect}"),
        value => format!("{key}={value}"),
    });
    let all: Vec<Value> = control_plane
        .into_iter()
        .chain(asked)
        .chain(machine.taint.clone())
        .map(|text| taint_of(&text))
        .collect();
    if all.is_empty() { Value::Null } else { json!(all) }
}

/// `key=value:Effect` or `key:Effect`.
fn taint_of(text: &str) -> Value {
    let (key, effect) = text.split_once(':').unwrap_or((text, "NoSchedule"));
    let (key, value) = key.split_once('=').unwrap_or((key, ""));
    let mut taint = json!({"key": key, "effect": effect});
    if !value.is_empty() {
        taint["value"] = json!(value);
    }
    taint
}
