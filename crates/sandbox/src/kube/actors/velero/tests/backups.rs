use super::*;

#[test]
fn a_backup_keeps_objects_and_the_files_of_running_pods() {
    let mut scene = cluster();
    let begun = scene.stage(|stage| stage.time());
    backup(&mut scene, "b", &json!({}));
    scene.run(1);
    assert_eq!(phase(&scene, "backups", "b"), "InProgress");
    let hosting = scene.names("velero.io/podvolumebackups", "velero");
    assert!(hosting.iter().all(|name| scene.get("/pods", "velero", name).is_some()), "{hosting:?}");
    scene.run(10);
    let done = status(&scene, "backups", "b");
    assert_eq!((text(&done, "/phase"), text(&done, "/startTimestamp")), ("Completed", begun.as_str()));
    assert_eq!((&done["errors"], &done["warnings"]), (&Value::Null, &Value::Null));
    let kept: Vec<Value> = scene.all("velero.io/podvolumebackups", "velero");
    let [kept] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!(kept["status"]["progress"], json!({"totalBytes": 42, "bytesDone": 42}));
    let spec = ["/pod/name", "/volume", "/backupStorageLocation"].map(|field| text(&kept["spec"], field));
    assert_eq!((spec, text(kept, "/status/phase")), (["app", "files", "default"], "Completed"));
    assert!(scene.get("/pods", "velero", names(kept).1).is_none(), "its pod is gone");
    let contents = stored(&scene, "backups/b/b.tar.gz");
    let paths: Vec<&String> = contents.as_object().into_iter().flatten().map(|(path, _)| path).collect();
    assert_eq!(done["progress"]["totalItems"], paths.len());
    for path in
        ["pods/namespaces/shop/app", "persistentvolumeclaims/namespaces/shop/data", "namespaces/cluster/shop"]
    {
        assert!(paths.contains(&&format!("resources/{path}.json")), "{paths:?}");
    }
    assert!(
        paths.iter().any(|path| path.starts_with("resources/persistentvolumes/cluster/pvc-")),
        "{paths:?}"
    );
    assert!(!paths.iter().any(|path| path.contains("/velero/")), "{paths:?}");
    let snapshot = stored(&scene, &format!("kopia/shop/{}", text(kept, "/status/snapshotID")));
    assert_eq!(snapshot["files"]["orders"]["size"], 42);
    assert_eq!(stored(&scene, "backups/b/velero-backup.json")["status"]["phase"], "Completed");
}

#[test]
fn a_backup_says_what_it_could_not_do() {
    type Case = (&'static str, &'static str, &'static str, fn(&mut Scene));
    let cases: [Case; 6] = [
        (
            "FailedValidation",
            "/validationErrors/0",
            "backup can't be created because BackupStorageLocation default is in Unavailable status.",
            |scene| {
                scene.store.refuses = Some("x".into());
                scene.run(60);
            },
        ),
        (
            "FailedValidation",
            "/validationErrors/0",
            "an existing backup storage location was not specified at backup creation time and the server default default \
             does not exist. Please address this issue (see `velero backup-location -h` for options) and create a new backup. Error: \
             BackupStorageLocation.velero.io \"default\" not found",
            |scene| scene.delete(DEFAULT),
        ),
        (
            "Failed",
            "/failureReason",
            "error checking if backup already exists in object storage: rpc error: code = Unknown desc = operation error \
             S3: HeadObject, gone",
            |scene| scene.store.refuses = Some("gone".into()),
        ),
        ("Failed", "/failureReason", "backup already exists in object storage", |scene| {
            scene.store.put(
                "velero",
                "lab/backups/b/velero-backup.json",
                json!({"status": {"phase": "Finalizing"}}),
            );
        }),
        ("PartiallyFailed", "/none", "", |scene| {
            scene.delete("/apis/apps/v1/namespaces/velero/daemonsets/node-agent");
            scene.run(2);
        }),
        ("Completed", "/none", "", |scene| {
            let excluded = json!({"backup.velero.io/backup-volumes-excludes": "files"});
            scene.patch("/api/v1/namespaces/shop/pods/app", &json!({"metadata": {"annotations": excluded}}));
        }),
    ];
    for (phase, field, why, change) in cases {
        let mut scene = cluster();
        change(&mut scene);
        backup(&mut scene, "b", &json!({}));
        scene.run(10);
        let status = status(&scene, "backups", "b");
        assert_eq!((text(&status, "/phase"), text(&status, field)), (phase, why));
        assert!(scene.all("velero.io/podvolumebackups", "velero").is_empty(), "{phase}");
    }
}

#[test]
fn a_location_or_a_selector_that_is_wrong_is_told_when_the_backup_is_made() {
    let selector = |operator: &str, values: &[&str]| json!({"labelSelector": {"matchExpressions": [{"key": "app", "operator": operator, "values": values}]}});
    let elsewhere = "an existing backup storage location was not specified at backup creation time and the default \
                     elsewhere was not found. Please address this issue";
    for (spec, phase, why, volumes) in [
        (json!({"storageLocation": "elsewhere"}), "FailedValidation", elsewhere, 0),
        (selector("In", &["app"]), "Completed", "", 1),
        (selector("NotIn", &["app"]), "Completed", "", 0),
        (selector("In", &[]), "PartiallyFailed", "", 0),
        (selector("Exists", &["app"]), "PartiallyFailed", "", 0),
        (selector("Equals", &["app"]), "PartiallyFailed", "", 0),
    ] {
        let mut scene = cluster();
        backup(&mut scene, "b", &spec);
        scene.run(10);
        let status = status(&scene, "backups", "b");
        assert_eq!(text(&status, "/phase"), phase, "{spec}");
        assert!(text(&status, "/validationErrors/0").starts_with(why), "{status}");
        assert_eq!(scene.all("velero.io/podvolumebackups", "velero").len(), volumes, "{spec}");
    }
}

#[test]
fn a_hook_runs_in_the_pods_that_it_is_for_and_fails_without_its_container() {
    let hook = |container: &str, on_error: &str, of: Value| {
        let exec = json!({"command": ["dump"], "container": container, "onError": on_error});
        let mut hook = json!({"name": "dump", "pre": [{"exec": exec}]});
        json_patch::merge(&mut hook, &of);
        json!({"hooks": {"resources": [hook]}})
    };
    let (attempted, failed) = ("hooksAttempted", "hooksFailed");
    for (spec, phase, hooks, volumes) in [
        (hook("main", "Fail", json!({})), "Completed", json!({attempted: 1}), 1),
        (hook("", "Fail", json!({})), "Completed", json!({attempted: 1}), 1),
        (hook("gone", "Fail", json!({})), "PartiallyFailed", json!({attempted: 1, failed: 1}), 0),
        (hook("gone", "Continue", json!({})), "PartiallyFailed", json!({attempted: 1, failed: 1}), 1),
        (hook("gone", "Fail", json!({"excludedNamespaces": ["sh*"]})), "Completed", json!({}), 1),
        (
            hook("gone", "Fail", json!({"labelSelector": {"matchLabels": {"app": "db"}}})),
            "Completed",
            json!({}),
            1,
        ),
    ] {
        let mut scene = cluster();
        backup(&mut scene, "b", &spec);
        scene.run(10);
        let status = status(&scene, "backups", "b");
        assert_eq!((text(&status, "/phase"), &status["hookStatus"]), (phase, &hooks), "{spec}");
        assert_eq!(scene.all("velero.io/podvolumebackups", "velero").len(), volumes, "{spec}");
    }
}

#[test]
fn a_volume_that_cannot_be_kept_makes_the_backup_fail_in_part() {
    type Case = (&'static str, fn(&mut Scene));
    let cases: [Case; 4] = [
        ("error to expose PVB: error to create hosting pod: pods ", |scene| {
            let level = json!({"pod-security.kubernetes.io/enforce": "baseline"});
            scene.patch("/api/v1/namespaces/velero", &json!({"metadata": {"labels": level}}));
        }),
        (
            "error to expose PVB: error to get pod volume path: error identifying unique volume path on host",
            |scene| {
                for node in ["n1", "n2"] {
                    scene.host(node).hidden.insert(BASE.to_owned());
                }
            },
        ),
        (
            ": error to connect backup repo: error to connect repo with storage: error to connect to repository: invalid",
            |scene| {
                scene.store.put("velero", "lab/kopia/shop/kopia.repository", json!("another"));
            },
        ),
        ("expose error: Container ", |scene| {
            for mut pod in scene.all("/pods", "velero") {
                if pod["metadata"]["labels"]["role"] == "node-agent" {
                    pod["spec"]["containers"][0]["image"] = json!("does-not-exist:1");
                    scene.stage(|stage| stage.ask("test", "PUT", &path(&pod), &pod)).unwrap_or_default();
                }
            }
        }),
    ];
    for (why, change) in cases {
        let mut scene = cluster();
        change(&mut scene);
        backup(&mut scene, "b", &json!({}));
        scene.run(20);
        let done = status(&scene, "backups", "b");
        assert_eq!((text(&done, "/phase"), &done["errors"]), ("PartiallyFailed", &json!(1)), "{why}");
        let results = stored(&scene, "backups/b/b-results.gz");
        let said = text(&results, "/errors/velero/0");
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn a_server_that_starts_anew_gives_up_what_it_was_at() {
    let mut scene = cluster();
    backup(&mut scene, "b", &json!({}));
    scene.run(1);
    start(&mut scene);
    scene.run(5);
    let done = status(&scene, "backups", "b");
    let why = "found a backup with status \"InProgress\" during the server starting, mark it as \"Failed\"";
    assert_eq!((text(&done, "/phase"), text(&done, "/failureReason")), ("Failed", why));
    let phases = scene.all("velero.io/podvolumebackups", "velero");
    assert!(phases.iter().all(|one| one["status"]["phase"] == "Canceled"), "{phases:?}");
}
