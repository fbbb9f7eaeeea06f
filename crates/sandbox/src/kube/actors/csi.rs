//! CSI drivers whose volumes lie on one node each: those that CSIDriver objects name. Every kubelet has them (CSINode), and a
//! claim of a class of theirs gets a volume on the node that its pod is sent to, or on the first one.

use std::time::Duration;

use serde_json::{Value, json};

use super::objects::{delete, path};
use super::volumes::{ASKED, reference};
use super::{Stage, ending, names, text};
use crate::kube::control::{selected_node, waits};

const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const HOSTNAME: &str = "kubernetes.io/hostname";
/// How long a driver takes to make a volume.
const TAKES: Duration = Duration::from_secs(1);

pub(super) fn act(stage: &mut Stage<'_>) {
    let drivers = stage.all("storage.k8s.io/csidrivers", "");
    let drivers: Vec<&str> = drivers.iter().map(|driver| names(driver).1).collect();
    if drivers.is_empty() {
        return;
    }
    for node in stage.all("/nodes", "") {
        register(stage, names(&node).1, &drivers);
    }
    for claim in stage.all("/persistentvolumeclaims", "") {
        let asked = claim["metadata"]["annotations"][ASKED].as_str().unwrap_or_default();
        if drivers.contains(&asked) && text(&claim, "/spec/volumeName").is_empty() && !ending(&claim) {
            provision(stage, &claim, asked);
        }
    }
    for volume in stage.all("/persistentvolumes", "") {
        let by = volume["metadata"]["annotations"][PROVISIONED_BY].as_str().unwrap_or_default();
        let released = volume["status"]["phase"] == "Released";
        let goes = volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete";
        if drivers.contains(&by) && released && goes && !ending(&volume) {
            delete(stage, by, &path(&volume));
            let place = directory(by, names(&volume).1);
            for host in stage.hosts.values_mut() {
                if let Some(place) = host.place(&place)
                    && let Some(system) = host.mounts.get_mut(&place.mount)
                {
                    system.directories.remove(&place.root);
                }
            }
        }
    }
}

/// The kubelet says which drivers its node has.
fn register(stage: &mut Stage<'_>, node: &str, drivers: &[&str]) {
    let driver = |name: &&str| json!({"name": name, "nodeID": node, "topologyKeys": [HOSTNAME]});
    let wanted: Vec<Value> = drivers.iter().map(driver).collect();
    let found = stage.get("storage.k8s.io/csinodes", "", node);
    if found.is_some_and(|found| found["spec"]["drivers"] == json!(wanted)) {
        return;
    }
    let (method, place) = match found {
        Some(_) => ("PATCH", format!("/apis/storage.k8s.io/v1/csinodes/{node}")),
        None => ("POST", "/apis/storage.k8s.io/v1/csinodes".to_owned()),
    };
    let object = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": node}, "spec": {"drivers": wanted},
    });
    let _ = stage.ask(&format!("kubelet-{node}"), method, &place, &object);
}

/// Where the kubelet mounts a volume of a driver.
pub(super) fn directory(driver: &str, volume: &str) -> String {
    format!("/var/lib/kubelet/plugins/kubernetes.io/csi/{driver}/{volume}/globalmount")
}

fn provision(stage: &mut Stage<'_>, claim: &Value, driver: &str) {
    let class =
        stage.get("storage.k8s.io/storageclasses", "", text(claim, "/spec/storageClassName")).cloned();
    let Some(class) = class.filter(|class| class["provisioner"] == driver) else { return };
    let node = match selected_node(claim) {
        "" if waits(&class) => return,
        "" => stage.all("/nodes", "").first().map(|node| names(node).1.to_owned()).unwrap_or_default(),
        node => node.to_owned(),
    };
    let name = format!("pvc-{}", text(claim, "/metadata/uid"));
    if stage.get("/persistentvolumes", "", &name).is_some() || !stage.done(&format!("csi/{name}"), TAKES) {
        return;
    }
    let host = stage.get("/nodes", "", &node).map(|node| node["metadata"]["labels"][HOSTNAME].clone());
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: driver}},
        "spec": {
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "accessModes": claim["spec"]["accessModes"],
            "claimRef": reference(claim),
            "csi": {"driver": driver, "volumeHandle": name},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": HOSTNAME, "operator": "In", "values": [host.unwrap_or_default()]},
            ]}]}},
            "persistentVolumeReclaimPolicy": class["reclaimPolicy"],
            "storageClassName": class["metadata"]["name"],
            "volumeMode": "Filesystem",
        },
    });
    if stage.ask(driver, "POST", "/api/v1/persistentvolumes", &volume).is_ok()
        && let Some(host) = stage.hosts.get_mut(&node)
        && let Some(place) = host.place(&directory(driver, &name))
        && let Some(system) = host.mounts.get_mut(&place.mount)
    {
        system.directories.entry(place.root).or_default();
    }
}
