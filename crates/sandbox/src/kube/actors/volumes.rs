//! What the controller manager does for storage: claims and volumes find each other, and neither goes while it is used.
//! Source: k8s.io/kubernetes, pkg/controller/volume/{persistentvolume,pvcprotection,pvprotection}.

#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use super::objects::{free, list, path};
use super::{Stage, ending, names, text};
use crate::intent::{Size, quantity};
use crate::kube::control::{selected_node, waits};
use crate::kube::store::Place;

const WHO: &str = "kube-controller-manager";
/// The source of its events.
const BINDER: &str = "persistentvolume-controller";
const CLAIMS: &str = "/persistentvolumeclaims";
const VOLUMES: &str = "/persistentvolumes";
const CLASSES: &str = "storage.k8s.io/storageclasses";

/// Who made a volume.
pub(super) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// By this annotation a claim asks its provisioner for a volume.
pub(super) const ASKED: &str = "volume.kubernetes.io/storage-provisioner";
pub(super) const ASKED_ONCE: &str = "volume.beta.kubernetes.io/storage-provisioner";
pub(super) const BOUND: &str = "pv.kubernetes.io/bind-completed";
pub(super) const BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

pub(super) fn act(stage: &mut Stage<'_>) {
    for volume in stage.all(VOLUMES, "") {
        tend_volume(stage, &volume);
    }
    for claim in stage.all(CLAIMS, "") {
        tend_claim(stage, &claim);
    }
}

/// The claims that a pod uses: the volume's name in the pod, and the claim's.
pub(super) fn claims_of(pod: &Value) -> impl Iterator<Item = (&str, &str)> {
    let volumes = list(pod, "/spec/volumes").iter();
    volumes
        .map(|volume| (text(volume, "/name"), text(volume, "/persistentVolumeClaim/claimName")))
        .filter(|(_, claim)| !claim.is_empty())
}

/// The class of a claim that asks this provisioner for a volume, and knows its node if it is to wait for that.
pub(super) fn class_of(stage: &Stage<'_>, claim: &Value, provisioner: &str) -> Option<Value> {
    let asks = claim["metadata"]["annotations"][ASKED] == provisioner
        && text(claim, "/spec/volumeName").is_empty()
        && !ending(claim);
    let class = stage.get(CLASSES, "", text(claim, "/spec/storageClassName"))?;
    let knows = !waits(class) || !selected_node(claim).is_empty();
    (asks && knows && class["provisioner"] == provisioner).then(|| class.clone())
}

/// Whether a volume that this provisioner made is to be deleted, as nobody claims it any more.
pub(super) fn is_to_go(volume: &Value, provisioner: &str) -> bool {
    volume["status"]["phase"] == "Released"
        && volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        && volume["metadata"]["annotations"][PROVISIONED_BY] == provisioner
        && !ending(volume)
}

/// How a volume says which claim it is for.
pub(super) fn reference(claim: &Value) -> Value {
    let (namespace, name) = names(claim);
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": name,
        "uid": claim["metadata"]["uid"], "resourceVersion": claim["metadata"]["resourceVersion"],
    })
}

fn tend_volume(stage: &mut Stage<'_>, volume: &Value) {
    let phase = text(volume, "/status/phase");
    if ending(volume) && phase != "Bound" {
        free(stage, WHO, volume, "kubernetes.io/pv-protection");
        return;
    }
    let claim = &volume["spec"]["claimRef"];
    let wanted = if text(claim, "/uid").is_empty() {
        "Available"
    } else if phase == "Failed" || claim_of(stage, claim).is_some() {
        return;
    } else {
        "Released"
    };
    if phase != wanted {
        set_status(stage, volume, &json!({"phase": wanted}));
    }
}

/// The claim that a volume's reference means.
fn claim_of<'a>(stage: &'a Stage<'_>, reference: &Value) -> Option<&'a Value> {
    let claim = stage.get(CLAIMS, text(reference, "/namespace"), text(reference, "/name"));
    claim.filter(|claim| claim["metadata"]["uid"] == reference["uid"])
}

fn tend_claim(stage: &mut Stage<'_>, claim: &Value) {
    if ending(claim) {
        if !used(stage, claim) {
            free(stage, WHO, claim, "kubernetes.io/pvc-protection");
        }
    } else if claim["metadata"]["annotations"][BOUND] == "yes" {
        watch_volume(stage, claim);
    } else if let Some(volume) = volume_for(stage, claim) {
        bind(stage, claim, &volume);
    } else if text(claim, "/spec/volumeName").is_empty() {
        ask_for_volume(stage, claim);
    }
}

/// Whether a pod that has a node uses the claim. One that has ended does until it is gone.
fn used(stage: &Stage<'_>, claim: &Value) -> bool {
    let (namespace, name) = names(claim);
    let mut pods = stage.api.store.list("/pods", namespace).map(|(_, pod)| pod);
    pods.any(|pod| !text(pod, "/spec/nodeName").is_empty() && claims_of(pod).any(|(_, used)| used == name))
}

/// A claim whose volume is gone is lost.
fn watch_volume(stage: &mut Stage<'_>, claim: &Value) {
    let there = stage.get(VOLUMES, "", text(claim, "/spec/volumeName")).is_some();
    if !there && text(claim, "/status/phase") != "Lost" {
        set_status(stage, claim, &json!({"phase": "Lost"}));
        let message = "Bound claim has lost its PersistentVolume. Any data on the volume is lost!";
        stage.event(BINDER, "Warning", claim, "ClaimLost", message);
    }
}

/// The volume that is meant for the claim, or else the smallest one that satisfies it.
fn volume_for(stage: &Stage<'_>, claim: &Value) -> Option<Value> {
    let named = text(claim, "/spec/volumeName");
    let right = |volume: &&Value| !ending(volume) && (named.is_empty() || names(volume).1 == named);
    let volumes = || stage.api.store.list(VOLUMES, "").map(|(_, volume)| volume).filter(right);
    let meant = volumes().find(|volume| means(&volume["spec"]["claimRef"], claim));
    let class = stage.get(CLASSES, "", text(claim, "/spec/storageClassName"));
    if meant.is_some() || named.is_empty() && class.is_some_and(waits) {
        return meant.cloned();
    }
    let free = volumes().filter(|volume| volume["spec"]["claimRef"].is_null() && satisfies(volume, claim));
    free.min_by_key(|volume| size(volume, "/spec/capacity/storage")).cloned()
}

/// Whether a volume's reference means this claim; without an id it means any claim of that name.
fn means(reference: &Value, claim: &Value) -> bool {
    let uid = text(reference, "/uid");
    names(claim) == (text(reference, "/namespace"), text(reference, "/name"))
        && (uid.is_empty() || uid == text(claim, "/metadata/uid"))
}

fn satisfies(volume: &Value, claim: &Value) -> bool {
    let same = |field: &str| text(volume, field) == text(claim, field);
    let [offered, wanted] = [volume, claim].map(|object| list(object, "/spec/accessModes"));
    same("/spec/storageClassName")
        && same("/spec/volumeMode")
        && claim["spec"]["selector"].is_null()
        && wanted.iter().all(|mode| offered.contains(mode))
        && size(volume, "/spec/capacity/storage") >= size(claim, "/spec/resources/requests/storage")
}

fn size(object: &Value, pointer: &str) -> Option<Size> {
    quantity::parse(text(object, pointer)).ok()
}

fn bind(stage: &mut Stage<'_>, claim: &Value, volume: &Value) {
    if text(&volume["spec"]["claimRef"], "/uid").is_empty() {
        let ours = json!({
            "metadata": {"annotations": {BY_CONTROLLER: "yes"}}, "spec": {"claimRef": reference(claim)},
        });
        let _ = stage.patch(WHO, &path(volume), &ours);
    }
    set_status(stage, volume, &json!({"phase": "Bound"}));
    let mut marks = json!({BOUND: "yes"});
    if text(claim, "/spec/volumeName").is_empty() {
        marks[BY_CONTROLLER] = json!("yes");
    }
    let bound = json!({
        "metadata": {"annotations": marks}, "spec": {"volumeName": names(volume).1},
    });
    let _ = stage.patch(WHO, &path(claim), &bound);
    let (modes, capacity) = (&volume["spec"]["accessModes"], &volume["spec"]["capacity"]);
    let status = json!({"phase": "Bound", "accessModes": modes, "capacity": capacity});
    set_status(stage, claim, &status);
}

fn set_status(stage: &mut Stage<'_>, object: &Value, status: &Value) {
    let _ = stage.patch(WHO, &format!("{}/status", path(object)), &json!({"status": status}));
}

/// Nothing there satisfies the claim: somebody else has to make a volume.
fn ask_for_volume(stage: &mut Stage<'_>, claim: &Value) {
    if claim["spec"]["storageClassName"].is_null() && set_default_class(stage, claim) {
        return;
    }
    let name = text(claim, "/spec/storageClassName");
    if name.is_empty() {
        let message = "no persistent volumes available for this claim and no storage class is set";
        stage.event_once(BINDER, "Normal", claim, "FailedBinding", message);
        return;
    }
    let Some(class) = stage.get(CLASSES, "", name) else {
        let message = format!("storageclass.storage.k8s.io {name:?} not found");
        stage.event_once(BINDER, "Warning", claim, "ProvisioningFailed", &message);
        return;
    };
    let provisioner = text(class, "/provisioner").to_owned();
    let too_early = waits(class) && selected_node(claim).is_empty();
    if too_early || provisioner == "kubernetes.io/no-provisioner" {
        return;
    }
    if claim["metadata"]["annotations"][ASKED] != provisioner.as_str() {
        let asked = json!({"metadata": {"annotations": {ASKED: provisioner, ASKED_ONCE: provisioner}}});
        let _ = stage.patch(WHO, &path(claim), &asked);
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
         system administrator. If volume creation is delayed, please verify that the provisioner is running and \
         correctly registered."
    );
    stage.event_once(BINDER, "Normal", claim, "ExternalProvisioning", &message);
}

/// A claim that names no class gets the newest default one, as on its admission: nobody owns the field.
fn set_default_class(stage: &mut Stage<'_>, claim: &Value) -> bool {
    let default = |class: &Value| {
        class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
    };
    let classes = stage.api.store.list(CLASSES, "").map(|(_, class)| class).filter(|class| default(class));
    let newest = classes.max_by_key(|class| text(class, "/metadata/creationTimestamp").to_owned());
    let Some(name) = newest.map(|class| class["metadata"]["name"].clone()) else { return false };
    let mut claim = claim.clone();
    if let Some(spec) = claim["spec"].as_object_mut() {
        spec.insert("storageClassName".to_owned(), name);
    }
    let (namespace, name) = names(&claim);
    let place = Place { resource: CLAIMS.into(), namespace: namespace.into(), name: name.into() };
    stage.api.store.put(place, claim);
    true
}
