//! Pods' volumes, as Velero's agents find them on the machines.

use serde_json::Value;

use super::super::objects::list;
use super::super::{Stage, names, text};
use crate::host::Place;

/// A volume of a pod.
#[derive(Debug)]
pub(super) struct Mounted {
    /// Where the kubelet has it, below the pod's own directory.
    pub(super) path: String,
    /// Where its files lie; none for the pod's own scratch space, of which no files are kept.
    pub(super) place: Option<Place>,
}

/// Finds a volume; the error is the agent's.
pub(super) fn find(stage: &Stage<'_>, pod: &Value, name: &str) -> Result<Mounted, String> {
    let (namespace, pod_name) = names(pod);
    let directory = |kind: &str, name: &str| {
        format!("/var/lib/kubelet/pods/{}/volumes/kubernetes.io~{kind}/{name}", text(pod, "/metadata/uid"))
    };
    let tried = format!(
        "error to get pod volume path: error identifying unique volume path on host for volume {name} in pod {pod_name}"
    );
    let volume = list(pod, "/spec/volumes").iter().find(|volume| volume["name"] == name);
    let Some(volume) = volume else { return Err(format!("{tried}: volume not found in pod")) };
    let claim = text(volume, "/persistentVolumeClaim/claimName");
    if claim.is_empty() {
        return Ok(Mounted { path: directory("empty-dir", name), place: None });
    }
    let claim = stage.get("/persistentvolumeclaims", namespace, claim);
    let bound = claim.map_or("", |claim| text(claim, "/spec/volumeName"));
    let volume = stage.get("/persistentvolumes", "", bound);
    let path = volume.map_or("", |volume| text(volume, "/spec/local/path"));
    let host = stage.hosts.get(text(pod, "/spec/nodeName"));
    let place = host.and_then(|host| {
        let place = host.place_for_kubelet(path)?;
        host.directory(&place).map(|_| place)
    });
    match place {
        Some(place) => Ok(Mounted { path: directory("local-volume", bound), place: Some(place) }),
        None => {
            let glob = format!("/host_pods/{}/volumes/*/{bound}", text(pod, "/metadata/uid"));
            Err(format!("{tried}: expected one matching path: {glob}, got 0"))
        }
    }
}

/// Whether the claim's volume is of type hostPath, which no agent can reach.
pub(super) fn is_host_path(stage: &Stage<'_>, namespace: &str, claim: &str) -> bool {
    let claim = stage.get("/persistentvolumeclaims", namespace, claim);
    let volume = claim.and_then(|claim| stage.get("/persistentvolumes", "", text(claim, "/spec/volumeName")));
    volume.is_some_and(|volume| !volume["spec"]["hostPath"].is_null())
}
