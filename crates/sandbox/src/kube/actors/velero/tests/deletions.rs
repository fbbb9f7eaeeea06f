use super::*;

fn ask(scene: &mut Scene, backup: &str) {
    scene.apply(json!({
        "apiVersion": "velero.io/v1", "kind": "DeleteBackupRequest",
        "metadata": {"name": "away", "namespace": "velero"}, "spec": {"backupName": backup},
    }));
}

/// Velero alone, with a backup `b` of no volumes.
fn with_backup() -> Scene {
    let mut scene = bare();
    scene.settle(&VELERO);
    backup(&mut scene, "b", &json!({}));
    scene.settle(&VELERO);
    scene.pass(3, &VELERO);
    assert_eq!(phase(&scene, "backups", "b"), "Completed");
    scene
}

#[test]
fn a_backup_that_is_too_old_goes_with_all_that_the_store_has_of_it() {
    let mut scene = cluster();
    for (name, ttl) in [("b", "3h0m0s"), ("later", "48h0m0s")] {
        backup(&mut scene, name, &json!({"ttl": ttl}));
        scene.run(12);
    }
    restore(&mut scene, &json!({"namespaceMapping": {"shop": "drill"}}));
    scene.run(30);
    assert_eq!(phase(&scene, "restores", "r"), "Completed");
    let kept = |scene: &Scene| {
        let folders = ["backups/b/", "restores/r/", "backups/later/", "kopia/shop/"];
        folders.map(|folder| scene.store.list("velero", &format!("lab/{folder}")).count())
    };
    let before = kept(&scene);
    assert!(before.iter().all(|count| *count > 0), "{before:?}");
    let mut pass = |hours| {
        scene.now += SignedDuration::from_hours(hours);
        scene.run(5);
        kept(&scene)
    };
    assert_eq!(pass(2), before);
    let [backup, restore, later, snapshots] = pass(2);
    assert_eq!((backup, restore, later), (0, 0, before[2]));
    assert_eq!(snapshots, 2, "the other's, and the repository itself");
    assert_eq!(scene.names("velero.io/backups", "velero"), ["later"]);
    for resource in ["velero.io/restores", "velero.io/deletebackuprequests", "velero.io/podvolumerestores"] {
        assert_eq!(scene.names(resource, "velero"), [""; 0]);
    }
    assert_eq!(scene.names("velero.io/podvolumebackups", "velero").len(), 1);
    assert!(scene.get("/namespaces", "", "drill").is_some(), "what was restored stays");
}

#[test]
fn a_backup_that_cannot_go_stays_and_the_request_says_why() {
    type Case = (&'static str, &'static str, &'static str, fn(&mut Scene));
    let cases: [Case; 7] = [
        ("x", "backup not found", "Completed", |_| {}),
        ("", "spec.backupName is required", "Completed", |_| {}),
        ("b", "backup is still in progress", "InProgress", |scene| {
            scene.patch(&format!("{HOME}/backups/b"), &json!({"status": {"phase": "InProgress"}}));
        }),
        ("b", "backup storage location default not found", "Completed", |scene| {
            scene.delete(DEFAULT);
        }),
        (
            "b",
            "cannot delete backup because backup storage location default is currently in read-only mode",
            "Completed",
            |scene| {
                scene.patch(DEFAULT, &json!({"spec": {"accessMode": "ReadOnly"}}));
            },
        ),
        (
            "b",
            "cannot delete backup because backup storage location default is currently in Unavailable state",
            "Completed",
            |scene| {
                scene.store.refuses = Some("gone".into());
                scene.pass(60, &VELERO);
            },
        ),
        (
            "b",
            "rpc error: code = Unknown desc = operation error S3: ListObjectsV2, gone",
            "Deleting",
            |scene| scene.store.refuses = Some("gone".into()),
        ),
    ];
    for (name, why, phase_after, change) in cases {
        let mut scene = with_backup();
        change(&mut scene);
        ask(&mut scene, name);
        scene.settle(&VELERO);
        let processed = json!({"phase": "Processed", "errors": [why]});
        assert_eq!(status(&scene, "deletebackuprequests", "away"), processed);
        assert_eq!(phase(&scene, "backups", "b"), phase_after, "{why}");
        assert!(scene.store.list("velero", "lab/backups/b/").next().is_some(), "{why}");
    }
}

#[test]
fn a_backup_that_was_asked_to_go_is_gone() {
    let mut scene = with_backup();
    ask(&mut scene, "b");
    scene.settle(&VELERO);
    assert_eq!(scene.names("velero.io/backups", "velero"), [""; 0]);
    assert_eq!(scene.names("velero.io/deletebackuprequests", "velero"), [""; 0]);
    assert_eq!(scene.store.list("velero", "").count(), 0);
}

#[test]
fn what_the_store_holds_is_known_in_every_cluster() {
    let mut scene = cluster();
    backup(&mut scene, "b", &json!({}));
    scene.run(12);
    scene.delete(&format!("{HOME}/backups/b"));
    scene.run(2);
    assert_eq!(scene.names("velero.io/podvolumebackups", "velero"), [""; 0], "they go with it");
    scene.run(60);
    assert_eq!(phase(&scene, "backups", "b"), "Completed", "and is back");

    let mut other = bare();
    other.store = scene.store.clone();
    other.settle(&VELERO);
    let known = other.get("velero.io/backups", "velero", "b").unwrap_or_default();
    assert_eq!(text(&known, "/status/phase"), "Completed");
    let volumes = other.all("velero.io/podvolumebackups", "velero");
    let uids: Vec<&Value> = volumes.iter().map(|one| &one["metadata"]["ownerReferences"][0]["uid"]).collect();
    assert_eq!(uids, [&known["metadata"]["uid"]]);

    other.store = ObjectStore::default();
    other.pass(60, &VELERO);
    assert_eq!(other.names("velero.io/backups", "velero"), [""; 0], "the store lost it");
}
