//! CSI drivers whose volumes lie on one node each: those that CSIDriver objects name. Every kubelet has them (CSINode), and a
//! claim of a class of theirs gets a volume on the node that its pod is sent to, or on the first one.

use std::time::Duration;

use serde_json::{Value, json};

use super::objects::{delete, path};
use super::volumes::{PROVISIONED_BY, class_of, is_to_go, reference};
use super::{Stage, names, text};
use crate::kube::control::selected_node;

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
    for driver in drivers {
        for claim in stage.all("/persistentvolumeclaims", "") {
            if let Some(class) = class_of(stage, &claim, driver) {
                provision(stage, &claim, &class, driver);
            }
        }
        for volume in stage.all("/persistentvolumes", "").iter().filter(|volume| is_to_go(volume, driver)) {
            delete(stage, driver, &path(volume));
            for host in stage.hosts.values_mut() {
                if let Some(place) = host.place(&directory(driver, names(volume).1)) {
                    host.remove_directory(&place);
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

fn provision(stage: &mut Stage<'_>, claim: &Value, class: &Value, driver: &str) {
    let node = match selected_node(claim) {
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
    {
        host.make_directory(&place);
    }
}
