use nodeprep_core::judge::files::compare;

use super::*;
use crate::kube::actors::objects::owner_uid;
use crate::kube::actors::programs::tests::{files as files_script, framed, unframed};
use crate::model::files::{Listing, Written};

fn restored(scene: &Scene) -> Value {
    status(scene, "restores", "r")
}

/// The restore's results, such as `errors` of `velero`.
fn said(scene: &Scene, pointer: &str) -> Vec<String> {
    let results = stored(scene, "restores/r/restore-r-results.gz");
    list(&results, pointer).iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
}

/// A cluster whose namespace `shop` is in a backup.
fn backed_up() -> Scene {
    static MADE: LazyLock<Scene> = LazyLock::new(|| {
        let mut scene = cluster();
        backup(&mut scene, "b", &json!({}));
        scene.run(10);
        assert_eq!(phase(&scene, "backups", "b"), "Completed");
        scene
    });
    again(&MADE)
}

/// And is lost then.
fn lost() -> Scene {
    static MADE: LazyLock<Scene> = LazyLock::new(|| {
        let mut scene = backed_up();
        scene.delete("/api/v1/namespaces/shop");
        scene.run(10);
        assert!(scene.get("/namespaces", "", "shop").is_none());
        scene
    });
    again(&MADE)
}

/// What a reader finds in a claim's file: its checksum.
fn read(scene: &mut Scene, namespace: &str, claim: &str, file: &str) -> String {
    let work = format!("read=$(sha256sum </data/{file})\necho \"read ${{read%% *}}\"\n");
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [{
            "name": "main", "image": "x:1", "command": ["/bin/sh", "-c", framed(&work)],
            "volumeMounts": [{"name": "files", "mountPath": "/data"}],
        }],
        "volumes": [{"name": "files", "persistentVolumeClaim": {"claimName": claim}}],
    });
    pod(scene, namespace, "reader", &json!({}), &spec);
    scene.run(5);
    unframed(&scene.log(namespace, "reader")).0.trim().to_owned()
}

#[test]
fn what_was_lost_comes_back_with_its_files_before_its_pod_runs() {
    let mut scene = lost();
    restore(&mut scene, &json!({}));
    let mut seen = Vec::new();
    for _ in 0..30 {
        scene.run(1);
        let pod = scene.get("/pods", "shop", "app").unwrap_or_default();
        let waits = !pod["status"]["initContainerStatuses"][0]["state"]["running"].is_null();
        let volumes = scene.all("velero.io/podvolumerestores", "velero");
        let volume = volumes.first().map_or("", |volume| text(volume, "/status/phase"));
        let now = (text(&restored(&scene), "/phase").to_owned(), waits, volume.to_owned());
        assert!(pod["status"]["phase"] != "Running" || volume == "Completed", "{now:?}");
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    }
    let saw = |phase: &str, waits: bool, volume: &str| {
        assert!(seen.contains(&(phase.to_owned(), waits, volume.to_owned())), "{seen:?}");
    };
    saw("InProgress", false, "New");
    saw("InProgress", true, "InProgress");
    saw("Completed", false, "Completed");
    let done = restored(&scene);
    assert_eq!((&done["errors"], &done["warnings"]), (&Value::Null, &Value::Null), "{done}");
    assert_eq!(done["progress"]["totalItems"], done["progress"]["itemsRestored"]);
    assert!(!text(&done, "/startTimestamp").is_empty() && !text(&done, "/completionTimestamp").is_empty());
    assert_eq!(files(&mut scene, "shop", "data"), [("orders".to_owned(), 42)], "and no mark");
    assert_eq!(read(&mut scene, "shop", "data", "orders"), format!("read {}", digest("orders")));
    let labels = json!({"velero.io/backup-name": "b", "velero.io/restore-name": "r"});
    let pod = scene.get("/pods", "shop", "app").unwrap_or_default();
    assert_eq!(pod["spec"]["initContainers"][0]["name"], "restore-wait");
    for object in [pod, scene.get("/persistentvolumeclaims", "shop", "data").unwrap_or_default()] {
        let own = &object["metadata"]["labels"];
        assert!(labels.as_object().into_iter().flatten().all(|(key, value)| own[key] == *value), "{own}");
    }
    assert_eq!(scene.get("/namespaces", "", "shop").unwrap_or_default()["metadata"]["labels"]["team"], "one");
}

#[test]
fn a_namespace_comes_back_beside_itself_under_another_name() {
    let mut scene = backed_up();
    write(&mut scene, "shop", "data", "later", 1);
    restore(&mut scene, &json!({"namespaceMapping": {"shop": "drill"}}));
    scene.run(30);
    let done = restored(&scene);
    assert_eq!((text(&done, "/phase"), &done["warnings"]), ("Completed", &Value::Null), "{done}");
    assert_eq!(files(&mut scene, "drill", "data"), [("orders".to_owned(), 42)]);
    assert_eq!(files(&mut scene, "shop", "data").len(), 2);
    assert_eq!(read(&mut scene, "drill", "data", "orders"), format!("read {}", digest("orders")));
    scene.delete("/api/v1/namespaces/drill");
    scene.run(10);
    assert!(scene.get("/namespaces", "", "drill").is_none());
    assert_eq!(files(&mut scene, "shop", "data").len(), 2);
}

#[test]
fn a_restore_takes_what_its_spec_chooses() {
    let mut begun = cluster();
    let metadata = json!({"name": "config", "namespace": "shop", "labels": {"app": "config"}});
    begun.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "1"}}));
    backup(&mut begun, "b", &json!({}));
    begun.run(10);
    begun.delete("/api/v1/namespaces/shop");
    begun.run(10);
    for (spec, kept) in [
        (json!({}), [true, true]),
        (json!({"includedResources": ["configmaps"]}), [true, false]),
        (json!({"excludedResources": ["configmaps"]}), [false, true]),
        (json!({"excludedNamespaces": ["shop"]}), [false, false]),
        (json!({"labelSelector": {"matchLabels": {"app": "none"}}}), [false, false]),
        (json!({"labelSelector": {"matchLabels": {"app": "config"}}}), [true, false]),
    ] {
        let mut scene = again(&begun);
        restore(&mut scene, &spec);
        scene.run(20);
        assert_eq!(text(&restored(&scene), "/phase"), "Completed", "{spec}");
        let there = [("/configmaps", "config"), ("/pods", "app")];
        assert_eq!(there.map(|(resource, name)| scene.get(resource, "shop", name).is_some()), kept, "{spec}");
    }
}

#[test]
fn a_restore_that_cannot_be_begun_says_why() {
    type Case = (Value, &'static str, fn(&mut Scene));
    let nothing: fn(&mut Scene) = |_| {};
    let cases: [Case; 9] = [
        (
            json!({"backupName": "x"}),
            "Error retrieving backup: can't find backup velero/x: Backup.velero.io \"x\" not found",
            nothing,
        ),
        (
            json!({"backupName": null}),
            "Either a backup or schedule must be specified as a source for the restore, but not both",
            nothing,
        ),
        (
            json!({"scheduleName": "daily"}),
            "Either a backup or schedule must be specified as a source for the restore, but not both",
            nothing,
        ),
        (json!({"backupName": null, "scheduleName": "x"}), "No backups found for schedule", nothing),
        (json!({"includedResources": ["nodes"]}), "nodes are non-restorable resources", nothing),
        (
            json!({"excludedNamespaces": ["*"]}),
            "Invalid included/excluded namespace lists: excludes list cannot contain '*'",
            nothing,
        ),
        (json!({"existingResourcePolicy": "replace"}), "Invalid ExistingResourcePolicy: replace", nothing),
        (json!({}), "The BSL default is unavailable, cannot retrieve the backup", |scene| {
            scene.store.refuses = Some("gone".into());
            scene.run(60);
        }),
        (
            json!({}),
            "Error retrieving backup: can't find backup velero/b: Backup.velero.io \"b\" not found",
            // It has expired, and was collected.
            |scene| {
                scene.now += SignedDuration::from_hours(25);
                scene.run(1);
            },
        ),
    ];
    for (spec, why, change) in cases {
        let mut scene = backed_up();
        change(&mut scene);
        restore(&mut scene, &spec);
        scene.run(5);
        let done = restored(&scene);
        assert_eq!((text(&done, "/phase"), text(&done, "/validationErrors/0")), ("FailedValidation", why));
    }
}

#[test]
fn a_store_that_lost_the_backup_or_refuses_makes_the_restore_fail() {
    let head = "error downloading backup: rpc error: code = Unknown desc = error getting object lab/backups/b/b.tar.gz: operation \
        error S3: GetObject, ";
    type Case = (&'static str, fn(&mut Scene));
    let cases: [Case; 2] = [
        ("dial tcp: no such host", |scene| scene.store.refuses = Some("dial tcp: no such host".into())),
        ("NoSuchKey: The specified key does not exist.", |scene| {
            scene.store.remove("velero", "lab/backups/b/b.tar")
        }),
    ];
    for (why, change) in cases {
        let mut scene = lost();
        restore(&mut scene, &json!({}));
        scene.run(1);
        change(&mut scene);
        scene.run(5);
        let done = restored(&scene);
        assert_eq!(text(&done, "/phase"), "Failed");
        let reason = text(&done, "/failureReason");
        assert!(reason.starts_with(head) && reason.ends_with(why), "{reason}");
        assert!(scene.get("/namespaces", "", "shop").is_none());
    }
}

#[test]
fn files_that_do_not_come_back_make_the_restore_fail_in_part() {
    let path = "data path restore failed: Failed to run data path service for PVR ";
    type Case = (&'static str, fn(&mut Scene));
    let cases: [Case; 5] = [
        ("error to check node agent status: daemonset not found", |scene| {
            scene.delete("/apis/apps/v1/namespaces/velero/daemonsets/node-agent");
        }),
        ("invalid repository password", |scene| {
            scene.apply(json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": "velero-repo-credentials", "namespace": "velero"},
                "stringData": {"repository-password": "another"},
            }));
        }),
        ("repository not initialized in the provided storage", |scene| {
            scene.store.remove("velero", "lab/kopia/")
        }),
        ("snapshot not found", |scene| {
            let volumes = scene.all("velero.io/podvolumebackups", "velero");
            let id = volumes.first().map_or("", |volume| text(volume, "/status/snapshotID")).to_owned();
            scene.store.remove("velero", &format!("lab/kopia/shop/{id}"));
        }),
        ("no space left on device", |scene| {
            for node in ["n1", "n2"] {
                if let Some(disk) = scene.host(node).mounts.get_mut(BASE) {
                    disk.used = disk.size;
                }
            }
        }),
    ];
    for (why, change) in cases {
        let mut scene = lost();
        change(&mut scene);
        restore(&mut scene, &json!({}));
        scene.run(40);
        let done = restored(&scene);
        assert_eq!((text(&done, "/phase"), &done["errors"]), ("PartiallyFailed", &json!(1)), "{why}");
        let errors = said(&scene, "/errors/velero");
        assert!(errors.iter().all(|error| error.contains(why)), "{errors:?}");
        assert!(errors.iter().all(|error| error.contains(path) || why.contains("daemonset")), "{errors:?}");
        assert_eq!(text(&scene.get("/pods", "shop", "app").unwrap_or_default(), "/status/phase"), "Pending");
    }
}

#[test]
fn a_pod_on_a_machine_without_an_agent_waits_in_vain() {
    let mut scene = lost();
    let nowhere = json!({"spec": {"template": {"spec": {"nodeSelector": {"is": "nowhere"}}}}});
    scene.patch("/apis/apps/v1/namespaces/velero/daemonsets/node-agent", &nowhere);
    scene.run(5);
    restore(&mut scene, &json!({}));
    scene.run(20);
    let pod = scene.get("/pods", "shop", "app").unwrap_or_default();
    let node = text(&pod, "/spec/nodeName");
    let running = format!("daemonset pod not found in running state in node {node}");
    assert_eq!(text(&restored(&scene), "/phase"), "PartiallyFailed");
    let why = format!("node-agent pod is not running in node {node}: {running}");
    assert_eq!(said(&scene, "/errors/velero"), [why]);
}

#[test]
fn what_is_there_already_stays_with_a_warning_or_is_updated() {
    let why = "already exists. Warning: the in-cluster version is different than the backed-up version";
    for (policy, warning, value) in [
        (json!(null), Some(format!("could not restore, ConfigMap:config {why}")), "2"),
        (json!("none"), Some(format!("could not restore, ConfigMap \"config\" {why}")), "2"),
        (json!("update"), None, "1"),
    ] {
        let mut scene = cluster();
        for name in ["config", "same"] {
            let metadata = json!({"name": name, "namespace": "shop"});
            scene.apply(
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "1"}}),
            );
        }
        backup(&mut scene, "b", &json!({}));
        scene.run(10);
        scene.patch("/api/v1/namespaces/shop/configmaps/config", &json!({"data": {"a": "2", "b": "3"}}));
        restore(&mut scene, &json!({"existingResourcePolicy": policy, "includedResources": ["configmaps"]}));
        scene.run(10);
        let done = restored(&scene);
        assert_eq!(text(&done, "/phase"), "Completed");
        assert_eq!(said(&scene, "/warnings/namespaces/shop"), Vec::from_iter(warning));
        let [changed, same] =
            ["config", "same"].map(|name| scene.get("/configmaps", "shop", name).unwrap_or_default());
        assert_eq!(changed["data"]["a"], value);
        let labelled = [changed, same].map(|one| one["metadata"]["labels"]["velero.io/restore-name"] == "r");
        assert_eq!(labelled, [policy == "update"; 2]);
    }
}

#[test]
fn a_workload_finds_its_restored_pods_again() {
    let mut scene = cluster();
    scene.apply(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "x:1"}]},
        }},
    }));
    scene.run(5);
    backup(&mut scene, "b", &json!({}));
    scene.run(10);
    let before = scene.names("/pods", "shop");
    scene.delete("/api/v1/namespaces/shop");
    scene.run(10);
    restore(&mut scene, &json!({}));
    scene.run(30);
    assert_eq!(text(&restored(&scene), "/phase"), "Completed");
    assert_eq!(scene.names("/pods", "shop"), before);
    let web = scene.get("apps/deployments", "shop", "web").unwrap_or_default();
    assert_eq!(web["status"]["readyReplicas"], 1);
    let sets = scene.all("apps/replicasets", "shop");
    assert!(sets.iter().all(|set| owner_uid(set) == text(&web, "/metadata/uid")), "{sets:?}");
}

#[test]
fn a_volume_without_files_comes_back_empty_or_as_it_was() {
    for (policy, same) in [("Delete", false), ("Retain", true)] {
        let mut scene = cluster();
        let claim = scene.get("/persistentvolumeclaims", "shop", "data").unwrap_or_default();
        let volume = text(&claim, "/spec/volumeName").to_owned();
        let patch = json!({"spec": {"persistentVolumeReclaimPolicy": policy}});
        scene.patch(&format!("/api/v1/persistentvolumes/{volume}"), &patch);
        backup(&mut scene, "b", &json!({"defaultVolumesToFsBackup": false}));
        scene.run(10);
        scene.delete("/api/v1/namespaces/shop");
        scene.run(10);
        if same {
            scene.delete(&format!("/api/v1/persistentvolumes/{volume}"));
            scene.run(2);
        }
        restore(&mut scene, &json!({"includeClusterResources": true, "includedNamespaces": ["shop"]}));
        scene.run(20);
        assert_eq!(text(&restored(&scene), "/phase"), "Completed");
        let claim = scene.get("/persistentvolumeclaims", "shop", "data").unwrap_or_default();
        assert_eq!(text(&claim, "/spec/volumeName") == volume, same, "{policy}");
        let found = files(&mut scene, "shop", "data");
        assert_eq!(found, if same { vec![("orders".to_owned(), 42)] } else { vec![] }, "{policy}");
    }
}

#[test]
fn a_namespace_that_ends_is_waited_for() {
    let mut scene = backed_up();
    let held = json!({"metadata": {"finalizers": ["example.com/held"]}});
    scene.patch("/api/v1/namespaces/shop/pods/app", &held);
    scene.delete("/api/v1/namespaces/shop");
    scene.run(5);
    restore(&mut scene, &json!({}));
    scene.run(5);
    assert_eq!(text(&restored(&scene), "/phase"), "InProgress");
    scene.now += SignedDuration::from_mins(10);
    scene.run(5);
    let done = restored(&scene);
    assert_eq!((text(&done, "/phase"), &done["errors"]), ("PartiallyFailed", &json!(1)));
    let why = "timed out waiting for terminating namespace shop to disappear before restoring: context deadline exceeded";
    assert_eq!(said(&scene, "/errors/velero"), [why]);
}

#[test]
fn a_server_that_starts_anew_gives_up_its_restores() {
    let mut scene = lost();
    restore(&mut scene, &json!({}));
    scene.run(4);
    start(&mut scene);
    scene.run(5);
    let done = restored(&scene);
    let why = "found a restore with status \"InProgress\" during the server starting, mark it as \"Failed\"";
    assert_eq!((text(&done, "/phase"), text(&done, "/failureReason")), ("Failed", why));
    let volumes = scene.all("velero.io/podvolumerestores", "velero");
    assert!(volumes.iter().all(|one| one["status"]["phase"] == "Canceled"), "{volumes:?}");
}

/// A pod that writes files where none are, and lists them.
fn drill(scene: &mut Scene) -> Listing {
    scene.apply(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "files", "namespace": "shop"},
        "spec": {
            "storageClassName": "fast", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        },
    }));
    let work = framed(&files_script("data /data 30 100000")) + "sleep infinity";
    let spec = json!({
        "containers": [{
            "name": "main", "image": "x:1", "command": ["/bin/sh", "-c", work],
            "volumeMounts": [{"name": "files", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],
        }],
        "volumes": [
            {"name": "files", "persistentVolumeClaim": {"claimName": "files"}}, {"name": "tmp", "emptyDir": {}},
        ],
    });
    pod(scene, "shop", "drill", &json!({}), &spec);
    scene.run(12);
    listed(scene, "shop")
}

fn listed(scene: &mut Scene, namespace: &str) -> Listing {
    let (text, status) = unframed(&scene.log(namespace, "drill"));
    assert_eq!(status, 0, "{text}");
    text.parse().unwrap_or_else(|why| panic!("{why}"))
}

#[test]
fn a_tree_of_files_comes_back_as_kopia_brings_it_back() {
    for (config, noted) in [
        (json!({}), vec!["odd/one-of-two", "odd/sparse", "odd/two-of-two"]),
        (json!({"writeSparseFiles": true}), vec!["odd/one-of-two", "odd/two-of-two"]),
    ] {
        let mut scene = cluster();
        let before = drill(&mut scene);
        backup(&mut scene, "b", &json!({}));
        scene.run(30);
        scene.delete("/api/v1/namespaces/shop");
        scene.run(30);
        restore(&mut scene, &json!({"namespaceMapping": {"shop": "shop-2"}, "uploaderConfig": config}));
        scene.run(40);
        let after = listed(&mut scene, "shop-2");
        assert!(matches!(after.written, Written::Before(_)), "{:?}", after.written);
        let found = compare(&before, &after);
        let names: Vec<String> = found.noted.iter().map(|one| one.name.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!((found.lost.as_slice(), names.as_slice()), (&[][..], noted.as_slice()));
    }
}
