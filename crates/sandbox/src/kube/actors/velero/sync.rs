//! What a location's store holds and the cluster does not know is made known; what the store lost is forgotten.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::objects::{collection, delete, path};
use super::super::{Stage, names, text};
use super::backup::{VOLUMES, key};
use super::bucket::Bucket;
use super::data_path::BACKUP_UID;
use super::{BACKUPS, WHO, label};

/// Compares the cluster's backups with the folders of a location's store.
pub(super) fn backups(stage: &mut Stage<'_>, location: &Value, bucket: &Bucket, folders: &BTreeSet<String>) {
    let (home, name) = names(location);
    for folder in folders {
        if stage.get(BACKUPS, home, folder).is_none() {
            learn(stage, location, bucket, folder);
        }
    }
    let lost = |backup: &Value| {
        let kept = matches!(text(backup, "/status/phase"), "Completed" | "PartiallyFailed");
        let here = backup["metadata"]["labels"]["velero.io/storage-location"] == label(name).as_str();
        kept && here && !folders.contains(names(backup).1)
    };
    let gone = stage.api.store.list(BACKUPS, home).map(|(_, backup)| backup).filter(|backup| lost(backup));
    let gone: Vec<String> = gone.map(path).collect();
    gone.iter().for_each(|path| delete(stage, WHO, path));
}

/// Makes a backup and its volumes known; one that is not complete is left alone.
fn learn(stage: &mut Stage<'_>, location: &Value, bucket: &Bucket, name: &str) {
    let (home, location) = names(location);
    let named = json!({"metadata": {"name": name}});
    let Ok(kept) = bucket.get(stage, &key(&named, "velero-backup.json")) else { return };
    if text(&kept, "/status/phase").starts_with("Finalizing") {
        return;
    }
    let mut backup = fresh(kept, home);
    let here = json!({
        "metadata": {"labels": {"velero.io/storage-location": label(location)}, "ownerReferences": null},
        "spec": {"storageLocation": location},
    });
    json_patch::merge(&mut backup, &here);
    let Ok(backup) = stage.ask(WHO, "POST", &collection("velero.io/v1", "Backup", home), &backup) else {
        return;
    };
    let volumes = bucket.get(stage, &key(&named, VOLUMES)).unwrap_or_default();
    for volume in volumes.as_array().into_iter().flatten() {
        let mut volume = fresh(volume.clone(), home);
        let uid = &backup["metadata"]["uid"];
        if let Some(owner) = volume.pointer_mut("/metadata/ownerReferences/0") {
            json_patch::merge(owner, &json!({"uid": uid}));
        }
        let here = json!({
            "metadata": {"labels": {BACKUP_UID: uid}}, "spec": {"backupStorageLocation": location},
        });
        json_patch::merge(&mut volume, &here);
        let _ = stage.ask(WHO, "POST", &collection("velero.io/v1", "PodVolumeBackup", home), &volume);
    }
}

/// As it is to be made in this cluster.
fn fresh(mut object: Value, home: &str) -> Value {
    let own = json!({"metadata": {
        "namespace": home, "uid": null, "resourceVersion": null, "managedFields": null, "generation": null,
        "creationTimestamp": null,
    }});
    json_patch::merge(&mut object, &own);
    object
}
