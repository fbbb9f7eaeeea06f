//! The objects of a backup on their way back into the cluster, one after the other.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::super::objects::{collection, list};
use super::super::volumes::{ASKED, ASKED_ONCE, BOUND, BY_CONTROLLER, claims_of};
use super::super::{Stage, ending, names, owned_by, text};
use super::chosen::{Chosen, selects};
use super::contents::{CRDS, Entry, kept_as};
use super::data_path::{RESTORE_UID, Way};
use super::existing;
use super::modifiers::Modifiers;
use super::restore::target;
use super::results::Results;
use super::{WHO, helper, label};
use crate::kube::control::SELECTED_NODE;
use crate::kube::route;
use crate::kube::store::Place;

/// What comes first, in this order; pods come before what owns them. The rest follows by its name.
const FIRST: [&str; 18] = [
    "customresourcedefinitions",
    "namespaces",
    "storageclasses",
    "persistentvolumes",
    "persistentvolumeclaims",
    "clusterroles",
    "roles",
    "serviceaccounts",
    "clusterrolebindings",
    "rolebindings",
    "secrets",
    "configmaps",
    "limitranges",
    "priorityclasses",
    "pods",
    "replicasets.apps",
    "endpoints",
    "services",
];
const CLAIMS: &str = "persistentvolumeclaims";
const VOLUMES: &str = "persistentvolumes";

/// A restore that brings its objects back.
#[derive(Debug)]
pub(super) struct Restoring<'a> {
    restore: &'a Value,
    contents: &'a Map<String, Value>,
    /// The image of Velero's helper.
    image: Value,
    /// The PodVolumeBackups of the backup.
    volumes: Vec<Value>,
    namespaces: Chosen,
    resources: Chosen,
    modifiers: Modifiers,
    pub(super) results: Results,
    /// What was looked at, as Velero calls it.
    done: BTreeSet<String>,
    /// Volumes that do not come back themselves: their claims get new ones.
    provision: BTreeSet<String>,
    /// Namespaces that can't be had.
    lost: BTreeSet<String>,
}

impl<'a> Restoring<'a> {
    pub(super) fn new(
        stage: &Stage<'_>,
        server: &Value,
        restore: &'a Value,
        contents: &'a Map<String, Value>,
        modifiers: Modifiers,
    ) -> Self {
        let (spec, backup) = (&restore["spec"], label(text(restore, "/spec/backupName")));
        let volumes = stage.all(Way::Backup.resource(), names(restore).0).into_iter();
        let of = |volume: &Value| volume["metadata"]["labels"]["velero.io/backup-name"] == backup.as_str();
        Self {
            restore,
            contents,
            image: server["spec"]["containers"][0]["image"].clone(),
            volumes: volumes.filter(of).collect(),
            namespaces: Chosen::of(spec, "Namespaces"),
            resources: Chosen::of(spec, "Resources"),
            modifiers,
            results: Results::default(),
            done: BTreeSet::new(),
            provision: BTreeSet::new(),
            lost: BTreeSet::new(),
        }
    }

    /// How many objects were looked at.
    pub(super) fn count(&self) -> usize {
        self.done.len()
    }

    pub(super) fn all(&mut self, stage: &mut Stage<'_>) {
        let contents = self.contents;
        let mut entries: Vec<(Entry<'_>, &Value)> =
            contents.iter().filter_map(|(path, object)| Some((Entry::read(path)?, object))).collect();
        entries.sort_by_key(|(entry, _)| (rank(entry.resource), entry.resource, entry.namespace, entry.name));
        for (entry, object) in entries {
            if !self.chosen(&entry) || !selects(&self.restore["spec"], object) {
                continue;
            }
            if entry.resource == "namespaces" {
                if self.namespaces.takes(entry.name) {
                    self.namespace(stage, entry.name);
                }
            } else {
                self.item(stage, &entry, object);
            }
        }
    }

    /// Whether the spec takes it, before its labels are looked at.
    fn chosen(&self, entry: &Entry<'_>) -> bool {
        let scope = match (&self.restore["spec"]["includeClusterResources"], entry.namespace) {
            (Value::Bool(all), "") => *all,
            (_, "") => self.namespaces.everything(),
            (_, namespace) => self.namespaces.takes(namespace),
        };
        scope && self.resources.takes_resource(entry.resource)
    }

    /// Whether what belongs to a chosen object may come along with it.
    fn comes_along(&self, entry: &Entry<'_>) -> bool {
        let of_cluster = self.restore["spec"]["includeClusterResources"] != false;
        let scope =
            if entry.namespace.is_empty() { of_cluster } else { self.namespaces.takes(entry.namespace) };
        scope && self.resources.takes_resource(entry.resource)
    }

    /// Makes a namespace that does not exist, as it was; false when it can't be had.
    fn namespace(&mut self, stage: &mut Stage<'_>, original: &str) -> bool {
        let name = target(self.restore, original);
        if self.lost.contains(name) {
            return false;
        }
        let why = match stage.get("/namespaces", "", name) {
            Some(found) if !ending(found) => return true,
            Some(_) => {
                let waited = format!(
                    "timed out waiting for terminating namespace {name} to disappear before restoring"
                );
                format!("{waited}: context deadline exceeded")
            }
            None => {
                let entry = Entry { resource: "namespaces", namespace: "", name: original };
                let old = self.contents.get(&entry.path()).cloned().unwrap_or_default();
                let metadata = json!({
                    "name": name, "labels": old["metadata"]["labels"], "annotations": old["metadata"]["annotations"],
                });
                let new = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
                match stage.ask(WHO, "POST", "/api/v1/namespaces", &new) {
                    Ok(_) => {
                        self.done.insert(format!("namespaces/{name}"));
                        return true;
                    }
                    Err(why) => format!("error creating namespace {name}: {why}"),
                }
            }
        };
        self.lost.insert(name.to_owned());
        self.results.errors.of_velero(why);
        false
    }

    fn item(&mut self, stage: &mut Stage<'_>, entry: &Entry<'_>, object: &Value) {
        let namespace = target(self.restore, entry.namespace);
        if !entry.namespace.is_empty() && !self.namespace(stage, entry.namespace) {
            return;
        }
        let id = Entry { namespace, ..*entry }.id();
        if is_over(entry.resource, object) || !self.done.insert(id.clone()) {
            return;
        }
        let mut new = object.clone();
        match entry.resource {
            VOLUMES if !self.keeps_volume(&mut new) => return,
            "pods" if !object["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null() => return,
            "pods" => self.change_pod(stage, entry, &mut new),
            CLAIMS => self.change_claim(stage, object, &mut new),
            "jobs.batch" => change_job(&mut new),
            _ => {}
        }
        existing::strip(&mut new);
        let labels = json!({
            "velero.io/backup-name": label(text(self.restore, "/spec/backupName")),
            "velero.io/restore-name": label(names(self.restore).1),
        });
        let place = json!({"metadata": {
            "namespace": if namespace.is_empty() { Value::Null } else { json!(namespace) }, "labels": labels,
        }});
        json_patch::merge(&mut new, &place);
        self.modifiers.change(entry.resource, &mut new);
        match stage.get(&kept_as(entry.resource), namespace, entry.name).cloned() {
            None => self.make(stage, entry, &id, &new),
            Some(there) => {
                let policy = text(self.restore, "/spec/existingResourcePolicy");
                if let Err(why) = existing::meet(stage, policy, entry, &there, &new) {
                    self.results.warnings.of(namespace, why);
                }
            }
        }
    }

    /// Restores what belongs to another object, such as a pod's claims.
    fn along(&mut self, stage: &mut Stage<'_>, entry: &Entry<'_>) {
        let contents = self.contents;
        let path = entry.path();
        match contents.get(&path) {
            Some(object) if self.comes_along(entry) => self.item(stage, entry, object),
            Some(_) => {}
            None => {
                self.results.warnings.of(entry.namespace, format!("stat {path}: no such file or directory"))
            }
        }
    }

    /// Whether a volume comes back as it was. One whose files are in the backup does not, nor one that would have gone
    /// with its claim.
    fn keeps_volume(&mut self, volume: &mut Value) -> bool {
        let of = &volume["spec"]["claimRef"];
        let has_files = self.volumes.iter().any(|kept| {
            kept["spec"]["pod"]["namespace"] == of["namespace"]
                && kept["metadata"]["annotations"]["velero.io/pvc-name"] == of["name"]
        });
        if has_files || volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete" {
            self.provision.insert(names(volume).1.to_owned());
            return false;
        }
        if !of.is_null() {
            let namespace = target(self.restore, text(of, "/namespace"));
            let reference = json!({"uid": null, "resourceVersion": null, "namespace": namespace});
            json_patch::merge(volume, &json!({"spec": {"claimRef": reference}}));
        }
        json_patch::merge(volume, &json!({"metadata": {"annotations": {BOUND: null, BY_CONTROLLER: null}}}));
        true
    }

    fn change_claim(&mut self, stage: &mut Stage<'_>, object: &Value, claim: &mut Value) {
        let volume = text(object, "/spec/volumeName");
        if object["status"]["phase"] == "Bound" && !volume.is_empty() {
            self.along(stage, &Entry { resource: VOLUMES, namespace: "", name: volume });
        }
        let annotations = json!({
            BOUND: null, BY_CONTROLLER: null, ASKED: null, ASKED_ONCE: null, SELECTED_NODE: null,
        });
        json_patch::merge(claim, &json!({"metadata": {"annotations": annotations}}));
        if self.provision.contains(volume) {
            json_patch::merge(claim, &json!({"spec": {"volumeName": null}}));
        }
    }

    fn change_pod(&mut self, stage: &mut Stage<'_>, entry: &Entry<'_>, pod: &mut Value) {
        for (_, claim) in claims_of(pod) {
            self.along(stage, &Entry { resource: CLAIMS, namespace: entry.namespace, name: claim });
        }
        let volumes: Vec<&str> = self.snapshots(entry).map(|kept| text(kept, "/spec/volume")).collect();
        let own =
            list(pod, "/spec/initContainers").iter().filter(|container| !helper::is(container)).cloned();
        let waits =
            (!volumes.is_empty()).then(|| helper::container(pod, &volumes, self.restore, &self.image));
        let init: Vec<Value> = waits.into_iter().chain(own).collect();
        let init = if init.is_empty() { Value::Null } else { json!(init) };
        json_patch::merge(
            pod,
            &json!({"spec": {"nodeName": null, "priority": null, "initContainers": init}}),
        );
    }

    /// The pod's volumes whose files are in the backup.
    fn snapshots<'s>(&'s self, pod: &Entry<'_>) -> impl Iterator<Item = &'s Value> {
        let (namespace, name) = (pod.namespace.to_owned(), pod.name.to_owned());
        self.volumes.iter().filter(move |kept| {
            let of = &kept["spec"]["pod"];
            let this = text(of, "/namespace") == namespace && text(of, "/name") == name;
            this && !text(kept, "/status/snapshotID").is_empty()
        })
    }

    fn make(&mut self, stage: &mut Stage<'_>, entry: &Entry<'_>, id: &str, new: &Value) {
        let (namespace, name) = names(new);
        let plural = entry.resource.split('.').next().unwrap_or_default();
        let path = route::collection(text(new, "/apiVersion"), namespace, plural);
        let mut made = match stage.ask(WHO, "POST", &path, new) {
            Ok(made) => made,
            Err(why) => return self.results.errors.of(namespace, format!("error restoring {id}: {why}")),
        };
        // Its fields belong to whom they belonged to.
        let owners = &new["metadata"]["managedFields"];
        if !owners.is_null() {
            json_patch::merge(&mut made, &json!({"metadata": {"managedFields": owners}}));
            let resource = kept_as(entry.resource);
            let place = Place { resource, namespace: namespace.to_owned(), name: name.to_owned() };
            made = stage.api.store.put(place, made);
        }
        match entry.resource {
            "pods" => self.bring_files(stage, entry, &made),
            // What it describes can come only once it is established.
            CRDS => {
                let now = stage.time();
                stage.api.settle_all(&now);
            }
            _ => {}
        }
    }

    /// Makes a PodVolumeRestore of every volume of the pod whose files are in the backup.
    fn bring_files(&mut self, stage: &mut Stage<'_>, entry: &Entry<'_>, pod: &Value) {
        let kept: Vec<Value> = self.snapshots(entry).cloned().collect();
        let with_volumes = [CLAIMS, VOLUMES].iter().all(|resource| self.resources.takes_resource(resource));
        if kept.is_empty() || !with_volumes {
            return;
        }
        let home = names(self.restore).0;
        if stage.get("apps/daemonsets", home, "node-agent").is_none() {
            return self.results.errors.of_velero("error to check node agent status: daemonset not found");
        }
        for kept in kept {
            let object = self.volume_restore(stage, entry, pod, &kept);
            let path = collection("velero.io/v1", "PodVolumeRestore", home);
            if let Err(why) = stage.ask(WHO, "POST", &path, &object) {
                self.results.errors.of_velero(why);
            }
        }
    }

    fn volume_restore(&self, stage: &Stage<'_>, entry: &Entry<'_>, pod: &Value, kept: &Value) -> Value {
        let ((namespace, name), (_, restore)) = (names(pod), names(self.restore));
        let (uid, volume) = (&pod["metadata"]["uid"], text(kept, "/spec/volume"));
        let claim = claims_of(pod).find(|(one, _)| *one == volume).map_or("", |(_, claim)| claim);
        let claim = stage.get("/persistentvolumeclaims", namespace, claim);
        let mut item = json!({
            "apiVersion": "velero.io/v1", "kind": "PodVolumeRestore",
            "metadata": {
                "generateName": format!("{restore}-"), "ownerReferences": owned_by(self.restore),
                "labels": {
                    "velero.io/restore-name": label(restore), RESTORE_UID: self.restore["metadata"]["uid"],
                    "velero.io/pod-uid": uid, "velero.io/pvc-uid": claim.map(|claim| &claim["metadata"]["uid"]),
                },
            },
            "spec": {
                "pod": {"kind": "Pod", "namespace": namespace, "name": name, "uid": uid},
                "volume": volume, "snapshotID": kept["status"]["snapshotID"],
                "snapshotSize": kept["status"]["progress"]["totalBytes"],
                "backupStorageLocation": kept["spec"]["backupStorageLocation"], "repoIdentifier": "",
                "uploaderType": "kopia", "sourceNamespace": entry.namespace,
            },
            "status": {"phase": "New"},
        });
        let config = &self.restore["spec"]["uploaderConfig"];
        if config.is_object() {
            let sparse = config["writeSparseFiles"] == true;
            item["spec"]["uploaderSettings"] = json!({"WriteSparseFiles": sparse.to_string()});
        }
        item
    }
}

fn rank(resource: &str) -> usize {
    let plural = resource.split('.').next();
    let first = FIRST.iter().position(|first| *first == resource || Some(*first) == plural);
    first.unwrap_or(FIRST.len())
}

/// What has come to its end is not begun again.
fn is_over(resource: &str, object: &Value) -> bool {
    match resource {
        "pods" => matches!(text(object, "/status/phase"), "Succeeded" | "Failed"),
        "jobs.batch" => !text(object, "/status/completionTime").is_empty(),
        _ => false,
    }
}

/// A job finds its pods by its own id, which is a new one.
fn change_job(job: &mut Value) {
    let own = json!({"controller-uid": null, "batch.kubernetes.io/controller-uid": null});
    json_patch::merge(job, &json!({"spec": {"template": {"metadata": {"labels": own}}}}));
    if !job["spec"]["selector"].is_null() {
        json_patch::merge(job, &json!({"spec": {"selector": {"matchLabels": own}}}));
    }
}
