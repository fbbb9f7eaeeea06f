//! OpenEBS's hostpath provisioner, which works through helper pods: one makes a volume's directory on its node, one removes it.
//! Source: openebs/dynamic-localpv-provisioner; sigs.k8s.io/sig-storage-lib-external-provisioner.

mod config;
mod helper;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::objects::{collection, delete, holds, list, path};
use super::volumes::{PROVISIONED_BY, class_of, is_to_go, reference};
use super::{Stage, ending, names, text};
use crate::kube::control::{SELECTED_NODE, selected_node};
use config::Config;
use helper::{Work, affinity, labels_of};

const NAME: &str = "openebs.io/local";
/// What a helper pod keeps of the volume it works for; the real provisioner keeps it in memory.
const KEPT: &str = "sandbox.nodeprep.dev/volume";
/// And whether the volume is to be limited.
const QUOTA: &str = "sandbox.nodeprep.dev/quota";
/// How long a helper pod may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How long the provisioner waits after a failure.
const RETRY: Duration = Duration::from_secs(15);

pub(super) fn act(stage: &mut Stage<'_>) {
    let Some(leader) = leader(stage) else { return };
    for claim in stage.all("/persistentvolumeclaims", "") {
        if let Some(class) = class_of(stage, &claim, NAME) {
            leader.begin(stage, &claim, &class);
        }
    }
    for volume in stage.all("/persistentvolumes", "").iter().filter(|volume| is_to_go(volume, NAME)) {
        leader.begin_removal(stage, volume);
    }
    for pod in stage.all("/pods", names(&leader.pod).0) {
        leader.tend_helper(stage, &pod);
    }
}

/// Whether a pod runs, says that it is ready, and its machine is up.
pub(super) fn works(stage: &Stage<'_>, pod: &Value) -> bool {
    let up = stage.hosts.get(text(pod, "/spec/nodeName")).is_some_and(|host| !host.down);
    up && !ending(pod) && pod["status"]["phase"] == "Running" && holds(pod, "Ready")
}

/// Of several pods of the provisioner, the one that works; the others wait for its lock.
fn leader(stage: &Stage<'_>) -> Option<Provisioner> {
    let mut pods = stage.api.store.list("/pods", "").map(|(_, pod)| pod);
    let pod = pods.find(|pod| is_provisioner(pod) && works(stage, pod))?.clone();
    let (_, name) = names(&pod);
    let source = format!("{NAME}_{name}_{}", text(&pod, "/metadata/uid"));
    Some(Provisioner { who: name.to_owned(), source, pod })
}

fn is_provisioner(pod: &Value) -> bool {
    let labels = &pod["metadata"]["labels"];
    labels["openebs.io/component-name"] == "openebs-localpv-provisioner"
        || labels["app.kubernetes.io/name"] == "localpv-provisioner"
}

/// What failed for a claim or a volume, and why.
struct Failed<'a> {
    about: &'a Value,
    reason: &'static str,
    why: String,
}

/// The provisioner by the pod it runs in.
struct Provisioner {
    pod: Value,
    /// The pod's name.
    who: String,
    /// The source of its events.
    source: String,
}

impl Provisioner {
    fn begin(&self, stage: &mut Stage<'_>, claim: &Value, class: &Value) {
        let volume = format!("pvc-{}", text(claim, "/metadata/uid"));
        let made = stage.get("/persistentvolumes", "", &volume).is_some();
        let at_it = [Work::Init, Work::Quota].into_iter().any(|work| self.at_it(stage, work, &volume));
        if made || at_it || self.rests(stage, claim, "ProvisioningFailed") {
            return;
        }
        let node = selected_node(claim);
        if !node.is_empty() && stage.get("/nodes", "", node).is_none() {
            let why = format!("nodes {node:?} not found");
            let again = json!({"metadata": {"annotations": {SELECTED_NODE: null}}});
            let _ = stage.patch(&self.who, &path(claim), &again);
            self.fail(stage, &Failed { about: claim, reason: "ProvisioningFailed", why });
            return;
        }
        let (namespace, name) = names(claim);
        let message = format!("External provisioner is provisioning volume for claim \"{namespace}/{name}\"");
        stage.event(&self.source, "Normal", claim, "Provisioning", &message);
        if let Err(why) = self.make_directory(stage, claim, class, &volume) {
            let why = not_provisioned(claim, &why);
            self.fail(stage, &Failed { about: claim, reason: "ProvisioningFailed", why });
        }
    }

    fn make_directory(
        &self,
        stage: &mut Stage<'_>,
        claim: &Value,
        class: &Value,
        name: &str,
    ) -> Result<(), String> {
        config::refuse(claim)?;
        let node = config::check_node(stage.get("/nodes", "", selected_node(claim)))?.clone();
        let config = Config::read(class, claim, self.setting("OPENEBS_IO_BASE_PATH", "/var/openebs/local"))?;
        config.refuse(claim)?;
        let volume =
            volume(claim, class, name, &format!("{}/{name}", config.base()?), &config.labels(&node)?);
        self.start(stage, Work::Init, &volume, &node, config.quota)
    }

    fn begin_removal(&self, stage: &mut Stage<'_>, volume: &Value) {
        let (_, name) = names(volume);
        if self.at_it(stage, Work::Cleanup, name) || self.rests(stage, volume, "VolumeFailedDelete") {
            return;
        }
        if let Err(why) = self.remove_directory(stage, volume, name) {
            let why = format!("failed to delete volume {name}: {why}");
            self.fail(stage, &Failed { about: volume, reason: "VolumeFailedDelete", why });
        }
    }

    fn remove_directory(&self, stage: &mut Stage<'_>, volume: &Value, name: &str) -> Result<(), String> {
        if text(volume, "/spec/local/path").is_empty() {
            return Err("no HostPath set".to_owned());
        }
        let labels = labels_of(volume).ok_or("cannot find affinited node details")?;
        let node = node_of(stage, &labels)?;
        let started = self.start(stage, Work::Cleanup, volume, &node, false);
        started.map_err(|why| format!("clean up volume {name} failed: {why}"))
    }

    /// Makes a helper pod; after it, one that limits the volume, if it is to have a quota.
    fn start(
        &self,
        stage: &mut Stage<'_>,
        work: Work,
        volume: &Value,
        node: &Value,
        quota: bool,
    ) -> Result<(), String> {
        let image = self.setting("OPENEBS_IO_HELPER_IMAGE", "openebs/linux-utils:4.0.0");
        let mut pod = work.pod(volume, node, image, text(&self.pod, "/spec/serviceAccountName"));
        pod["metadata"]["annotations"] = json!({KEPT: volume.to_string(), QUOTA: quota.to_string()});
        let path = collection("v1", "Pod", names(&self.pod).0);
        stage.ask(&self.who, "POST", &path, &pod).map(|_| ())
    }

    /// Whether a helper pod that the provisioner made is there. One that was left by a pod of it that is gone stays in the
    /// way, until somebody removes it.
    fn at_it(&self, stage: &Stage<'_>, work: Work, volume: &str) -> bool {
        let pod = stage.get("/pods", names(&self.pod).0, &work.name(volume));
        pod.is_some_and(|pod| ending(pod) || self.is_ours(stage, pod))
    }

    fn is_ours(&self, stage: &Stage<'_>, pod: &Value) -> bool {
        let mut writers = list(pod, "/metadata/managedFields").iter().map(|entry| text(entry, "/manager"));
        writers.any(|who| stage.get("/pods", names(&self.pod).0, who).is_some_and(is_provisioner))
    }

    /// Whether it failed here before, and waits before it tries again.
    fn rests(&self, stage: &mut Stage<'_>, about: &Value, reason: &str) -> bool {
        let failed = |event: &Value| {
            event["involvedObject"]["uid"] == about["metadata"]["uid"]
                && event["reason"] == reason
                && text(event, "/source/component").starts_with(NAME)
        };
        let failed = stage.api.store.list("/events", "").any(|(_, event)| failed(event));
        failed && !stage.done(&retry_key(about), RETRY)
    }

    fn fail(&self, stage: &mut Stage<'_>, failed: &Failed<'_>) {
        stage.event(&self.source, "Warning", failed.about, failed.reason, &failed.why);
        stage.done(&retry_key(failed.about), RETRY);
    }

    /// Looks whether a helper pod is done, or has had its time.
    fn tend_helper(&self, stage: &mut Stage<'_>, pod: &Value) {
        let (_, name) = names(pod);
        let work = Work::ALL.into_iter().find(|work| name.starts_with(&work.name("")));
        let Some(work) = work.filter(|_| !ending(pod) && self.is_ours(stage, pod)) else { return };
        let key = format!("helper/{}/", text(pod, "/metadata/uid"));
        let done = text(pod, "/status/phase") == "Succeeded";
        if !done && !stage.done(&key, LIMIT) {
            return;
        }
        stage.timers.forget(&key);
        delete(stage, &self.who, &path(pod));
        let annotations = &pod["metadata"]["annotations"];
        let kept = annotations[KEPT].as_str().unwrap_or_default();
        let volume: Value = serde_json::from_str(kept).unwrap_or_default();
        if work == Work::Cleanup {
            return self.end_removal(stage, &volume, done);
        }
        let ended = if !done {
            Err(format!("create process timeout after {} seconds", LIMIT.as_secs()))
        } else if annotations[QUOTA] == "true" {
            let node = stage.get("/nodes", "", text(pod, "/spec/nodeName")).cloned().unwrap_or_default();
            self.start(stage, Work::Quota, &volume, &node, false)
        } else {
            self.keep(stage, &volume)
        };
        if let Err(why) = ended {
            let claim = claim_of(&volume);
            let why = not_provisioned(&claim, &why);
            self.fail(stage, &Failed { about: &claim, reason: "ProvisioningFailed", why });
        }
    }

    fn keep(&self, stage: &mut Stage<'_>, volume: &Value) -> Result<(), String> {
        stage.ask(&self.who, "POST", "/api/v1/persistentvolumes", volume)?;
        let message = format!("Successfully provisioned volume {}", names(volume).1);
        stage.event(&self.source, "Normal", &claim_of(volume), "ProvisioningSucceeded", &message);
        Ok(())
    }

    fn end_removal(&self, stage: &mut Stage<'_>, volume: &Value, done: bool) {
        if done {
            delete(stage, &self.who, &path(volume));
            return;
        }
        let (_, name) = names(volume);
        let timeout = format!("clean up process timeout after {} seconds", LIMIT.as_secs());
        let why = format!("failed to delete volume {name}: clean up volume {name} failed: {timeout}");
        self.fail(stage, &Failed { about: volume, reason: "VolumeFailedDelete", why });
    }

    /// A setting from the environment of its container.
    fn setting<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        let variable = list(&self.pod, "/spec/containers/0/env").iter().find(|one| one["name"] == name);
        variable.and_then(|one| one["value"].as_str()).filter(|value| !value.is_empty()).unwrap_or(default)
    }
}

fn retry_key(about: &Value) -> String {
    format!("provisioner/{}", text(about, "/metadata/uid"))
}

fn not_provisioned(claim: &Value, why: &str) -> String {
    let class = text(claim, "/spec/storageClassName");
    format!("failed to provision volume with StorageClass {class:?}: {why}")
}

/// The one node with these labels.
fn node_of(stage: &Stage<'_>, labels: &BTreeMap<String, String>) -> Result<Value, String> {
    let has = |node: &Value, (key, value): (&String, &String)| {
        node["metadata"]["labels"][key.as_str()] == value.as_str()
    };
    let nodes = stage.all("/nodes", "");
    let mut nodes = nodes.into_iter().filter(|node| labels.iter().all(|label| has(node, label)));
    let said: Vec<String> = labels.iter().map(|(key, value)| format!("{key}:{value}")).collect();
    let said = format!("{{map[{}]}}", said.join(" "));
    match (nodes.next(), nodes.next()) {
        (Some(node), None) => Ok(node),
        (None, _) => Err(format!("Unable to get the Node with the Node Labels {said}")),
        _ => Err(format!("Unable to determine the Node. Found multiple nodes matching the labels {said}")),
    }
}

fn volume(claim: &Value, class: &Value, name: &str, path: &str, labels: &BTreeMap<String, String>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": name, "labels": {"openebs.io/cas-type": "local-hostpath"}, "annotations": {PROVISIONED_BY: NAME},
        },
        "spec": {
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "accessModes": claim["spec"]["accessModes"],
            "claimRef": reference(claim),
            "local": {"path": path},
            "nodeAffinity": {"required": affinity(labels)},
            "persistentVolumeReclaimPolicy": class["reclaimPolicy"],
            "storageClassName": class["metadata"]["name"],
            "volumeMode": "Filesystem",
        },
    })
}

/// The claim that a volume was made for, as far as the volume tells; it may be gone.
fn claim_of(volume: &Value) -> Value {
    let reference = &volume["spec"]["claimRef"];
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "namespace": reference["namespace"], "name": reference["name"], "uid": reference["uid"],
            "resourceVersion": reference["resourceVersion"],
        },
        "spec": {"storageClassName": volume["spec"]["storageClassName"]},
    })
}
