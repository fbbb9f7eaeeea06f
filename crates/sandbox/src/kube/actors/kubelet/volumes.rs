//! What a pod's containers see of their machine: its volumes, as the kubelet mounts them.

use serde_json::Value;

use crate::host::{Host, Place, below};
use crate::kube::actors::objects::{digest, list};
use crate::kube::actors::programs::Mount;
use crate::kube::actors::scheduler::matches;
use crate::kube::actors::{Stage, csi, names, text};

/// Parts of a machine that exist although no disk holds them.
const SYSTEM: [&str; 6] = ["/dev", "/etc", "/proc", "/run", "/sys", "/usr"];

/// What is mounted into the pod's first container; the error is the kubelet's, when a volume can't be mounted.
pub(super) fn mounts(stage: &Stage<'_>, pod: &Value) -> Result<Vec<Mount>, String> {
    let Some(host) = stage.hosts.get(text(pod, "/spec/nodeName")) else { return Ok(Vec::new()) };
    let mut mounts = Vec::new();
    for volume in list(pod, "/spec/volumes").iter().filter(|volume| mounted(pod, volume)) {
        let (place, scratch) = place(stage, host, pod, volume)?;
        let points = list(pod, "/spec/containers/0/volumeMounts").iter();
        let points = points.filter(|mount| mount["name"] == volume["name"]);
        mounts.extend(place.iter().flat_map(|place| {
            points.clone().map(|mount| Mount {
                point: text(mount, "/mountPath").trim_end_matches('/').to_owned(),
                place: Place { read_only: place.read_only || mount["readOnly"] == true, ..place.clone() },
                scratch,
            })
        }));
    }
    Ok(mounts)
}

/// The root of the first container's image, where it can be written to: that is gone with the pod.
pub(super) fn root(pod: &Value) -> Option<Mount> {
    let locked = pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] == true;
    let place = Place { mount: "/var".into(), root: "/lib/containerd".into(), read_only: false };
    (!locked).then(|| Mount { point: String::new(), place, scratch: true })
}

/// Whether a container wants the volume: the kubelet leaves the others alone.
fn mounted(pod: &Value, volume: &Value) -> bool {
    let all = ["/spec/containers", "/spec/initContainers"].into_iter().flat_map(|path| list(pod, path));
    all.flat_map(|container| list(container, "/volumeMounts")).any(|mount| mount["name"] == volume["name"])
}

/// Where a volume lies, and whether it is the pod's own scratch space; none for what is made from objects.
fn place(
    stage: &Stage<'_>,
    host: &Host,
    pod: &Value,
    volume: &Value,
) -> Result<(Option<Place>, bool), String> {
    let (namespace, name) = (names(pod).0, text(volume, "/name"));
    for (what, resource, field, found) in [
        ("secret", "/secrets", &volume["secret"]["secretName"], &volume["secret"]),
        ("configmap", "/configmaps", &volume["configMap"]["name"], &volume["configMap"]),
    ] {
        let Some(wanted) = field.as_str() else { continue };
        if found["optional"] != true && stage.get(resource, namespace, wanted).is_none() {
            return Err(format!(
                "MountVolume.SetUp failed for volume {name:?} : {what} {wanted:?} not found"
            ));
        }
    }
    if let Some(path) = volume["hostPath"]["path"].as_str() {
        let place = host.place(path);
        let there = place.as_ref().is_some_and(|place| place.root == "/" || host.directory(place).is_some());
        if volume["hostPath"]["type"] == "Directory" && !there && !is_system(path) {
            return Err(format!(
                "MountVolume.SetUp failed for volume {name:?} : hostPath type check failed: {path} is not a directory"
            ));
        }
        return Ok((place, false));
    }
    if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
        return claimed(stage, host, pod, name, claim).map(|place| (place, false));
    }
    if volume["emptyDir"].is_null() {
        return Ok((None, false));
    }
    let uid = text(pod, "/metadata/uid");
    let path = format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/{name}");
    Ok((host.place(&path), true))
}

/// Where a claim's volume lies.
fn claimed(
    stage: &Stage<'_>,
    host: &Host,
    pod: &Value,
    name: &str,
    claim: &str,
) -> Result<Option<Place>, String> {
    let namespace = names(pod).0;
    let failed = |why: String| {
        format!(
            "Unable to attach or mount volumes: unmounted volumes=[{name}], unattached volumes=[], failed to process \
             volumes=[{name}]: error processing PVC {namespace}/{claim}: {why}"
        )
    };
    let found = stage.get("/persistentvolumeclaims", namespace, claim);
    let found = found.ok_or_else(|| {
        failed(format!("failed to fetch PVC from API server: persistentvolumeclaims {claim:?} not found"))
    })?;
    let volume = text(found, "/spec/volumeName");
    if found["status"]["phase"] != "Bound" {
        return Err(failed("PVC is not bound".to_owned()));
    }
    let found = stage.get("/persistentvolumes", "", volume);
    let found = found.ok_or_else(|| failed(format!("failed to fetch PV {volume:?} from API server")))?;
    let required = &found["spec"]["nodeAffinity"]["required"];
    let node = stage.get("/nodes", "", &host.name);
    if !required.is_null() && !node.is_some_and(|node| matches(required, node)) {
        let why = "no matching NodeSelectorTerms";
        return Err(format!("MountVolume.NodeAffinity check failed for volume {volume:?} : {why}"));
    }
    if let Some(path) = found["spec"]["hostPath"]["path"].as_str() {
        return Ok(host.place(path));
    }
    if let Some(driver) = found["spec"]["csi"]["driver"].as_str() {
        return Ok(host.place(&csi::directory(driver, text(found, "/spec/csi/volumeHandle"))));
    }
    let path = text(found, "/spec/local/path");
    let place = host.place_for_kubelet(path);
    let seen = place.filter(|place| place.root == "/" || host.directory(place).is_some());
    seen.map(Some).ok_or_else(|| {
        format!("MountVolume.NewMounter initialization failed for volume {volume:?} : path {path:?} does not exist")
    })
}

fn is_system(path: &str) -> bool {
    path == "/" || SYSTEM.iter().any(|root| below(path, root).is_some())
}

/// The container runtime makes the host paths that are missing, where it can write; the error is its own.
pub(super) fn made_by_runtime(stage: &Stage<'_>, pod: &Value) -> Result<(), String> {
    let Some(host) = stage.hosts.get(text(pod, "/spec/nodeName")) else { return Ok(()) };
    let paths = list(pod, "/spec/volumes").iter().map(|volume| text(volume, "/hostPath/path"));
    let mut paths = paths.filter(|path| !path.is_empty() && !is_system(path));
    let Some(path) = paths.find(|path| host.place(path).is_none()) else { return Ok(()) };
    let id = digest(text(pod, "/metadata/uid"));
    let why = format!("failed to mkdir {path:?}: mkdir {path}: read-only file system");
    Err(format!("failed to generate container {id:?} spec: failed to generate spec: {why}"))
}
