use jiff::SignedDuration;

use super::super::scene::{BASE, Scene};
use super::*;
use crate::sandbox::host::{Directory, File};
use crate::sandbox::object_store::ObjectStore;

/// A cluster with Velero's server and an agent on n1, and a location `default` of bucket `velero`.
fn scene() -> Scene {
    let mut scene = Scene::new(&["n1"]);
    let crds = include_str!("../../../../../manifests/velero/crds.yaml");
    for crd in serde_yaml::from_multiple::<Value>(crds).unwrap_or_default() {
        scene.apply(crd);
    }
    scene.api.settle_all("2026-01-01T00:00:00Z");
    let labels = json!({"pod-security.kubernetes.io/enforce": "privileged"});
    scene.apply(
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "velero", "labels": labels}}),
    );
    secret(&mut scene, "cloud-credentials", "labaccess");
    pod(
        &mut scene,
        "velero",
        "server",
        &json!({"deploy": "velero"}),
        &json!({
            "name": "cloud-credentials", "secret": {"secretName": "cloud-credentials"},
        }),
    );
    pod(&mut scene, "velero", "agent", &json!({"role": "node-agent"}), &json!({"name": "a", "emptyDir": {}}));
    scene.apply(json!({
        "apiVersion": "velero.io/v1", "kind": "BackupStorageLocation",
        "metadata": {"name": "default", "namespace": "velero"},
        "spec": {"provider": "aws", "default": true, "objectStorage": {"bucket": "velero"}},
    }));
    scene
}

fn secret(scene: &mut Scene, name: &str, id: &str) {
    let file = format!("[default]\naws_access_key_id={id}\naws_secret_access_key=secret\n");
    scene.apply(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "velero"},
        "stringData": {"cloud": file},
    }));
}

/// A pod on n1 that is ready.
fn pod(scene: &mut Scene, namespace: &str, name: &str, labels: &Value, volume: &Value) {
    scene.apply(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "x"}], "volumes": [volume]},
    }));
    start(scene, namespace, name);
}

fn start(scene: &mut Scene, namespace: &str, name: &str) {
    let status = json!({
        "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
        "startTime": scene.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    scene.patch(&format!("/api/v1/namespaces/{namespace}/pods/{name}/status"), &json!({"status": status}));
}

fn settle(scene: &mut Scene) {
    for _ in 0..10 {
        let before = scene.api.store.version();
        scene.stage(act);
        if scene.api.store.version() == before {
            return;
        }
    }
    panic!("it never comes to rest");
}

fn pass(scene: &mut Scene, seconds: i64) {
    scene.now += SignedDuration::from_secs(seconds);
    settle(scene);
}

fn location(scene: &Scene) -> Value {
    scene.get(LOCATIONS, "velero", "default").unwrap_or_default()["status"].clone()
}

fn backup(scene: &mut Scene) {
    scene.apply(json!({
        "apiVersion": "velero.io/v1", "kind": "Backup", "metadata": {"name": "b", "namespace": "velero"},
        "spec": {"includedNamespaces": ["default"], "defaultVolumesToFsBackup": true, "ttl": "24h0m0s"},
    }));
}

fn backed_up(scene: &Scene) -> Value {
    scene.get("velero.io/backups", "velero", "b").unwrap_or_default()["status"].clone()
}

/// A pod on n1 with a local volume that holds 42 bytes.
fn app(scene: &mut Scene) {
    let claim = json!({"claimName": "c"});
    pod(scene, "default", "app", &json!({}), &json!({"name": "data", "persistentVolumeClaim": claim}));
    scene.apply(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "default"},
        "spec": {"volumeName": "v", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }));
    scene.apply(json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "local": {"path": format!("{BASE}/v")}},
    }));
    let files = [("a".to_owned(), File { size: 42, ..File::default() })].into();
    if let Some(disk) = scene.host("n1").mounts.get_mut(BASE) {
        disk.directories.insert("/v".into(), Directory { files });
    }
}

#[test]
fn a_location_is_validated_at_once_and_then_every_minute() {
    let mut scene = scene();
    settle(&mut scene);
    let at = |time: &str| json!({"phase": "Available", "lastValidationTime": time});
    assert_eq!(location(&scene), at("2026-01-01T00:00:00Z"));
    pass(&mut scene, 59);
    assert_eq!(location(&scene), at("2026-01-01T00:00:00Z"));
    pass(&mut scene, 1);
    assert_eq!(location(&scene), at("2026-01-01T00:01:00Z"));
    pass(&mut scene, 1);
    start(&mut scene, "velero", "server");
    settle(&mut scene);
    assert_eq!(location(&scene), at("2026-01-01T00:01:01Z"), "a server that starts anew");
    pass(&mut scene, 1);
    let path = "/apis/velero.io/v1/namespaces/velero/backupstoragelocations/default";
    scene.patch(path, &json!({"spec": {"objectStorage": {"bucket": "other"}}}));
    settle(&mut scene);
    assert_eq!(location(&scene), at("2026-01-01T00:01:02Z"), "another bucket");
}

#[test]
fn a_location_whose_store_refuses_is_unavailable_until_it_does_not() {
    let head = "BackupStorageLocation \"default\" is unavailable: rpc error: code = Unknown desc = operation error S3: \
        ListObjectsV2, ";
    let any = ObjectStore::default;
    for (store, why) in [
        (
            ObjectStore { accepts: Some("other".into()), ..any() },
            "api error InvalidAccessKeyId: The AWS Access Key Id you provided does not exist in our records.",
        ),
        (ObjectStore { secret: Some("other".into()), ..any() }, "SignatureDoesNotMatch"),
        (ObjectStore { buckets: Some(vec!["other".into()]), ..any() }, "NoSuchBucket"),
        (ObjectStore { refuses: Some("dial tcp: no such host".into()), ..any() }, "dial tcp: no such host"),
    ] {
        let mut scene = scene();
        scene.store = store;
        settle(&mut scene);
        let status = location(&scene);
        assert_eq!(text(&status, "/phase"), "Unavailable");
        let message = text(&status, "/message");
        assert!(message.starts_with(head) && message.contains(why), "{message}");
        scene.store = any();
        pass(&mut scene, 60);
        assert_eq!(
            location(&scene),
            json!({"phase": "Available", "lastValidationTime": "2026-01-01T00:01:00Z"})
        );
    }
}

#[test]
fn a_location_may_have_credentials_of_its_own() {
    let mut scene = scene();
    secret(&mut scene, "own", "mine");
    scene.store.accepts = Some("mine".into());
    settle(&mut scene);
    assert_eq!(location(&scene)["phase"], "Unavailable");
    let path = "/apis/velero.io/v1/namespaces/velero/backupstoragelocations/default";
    pass(&mut scene, 1);
    scene.patch(path, &json!({"spec": {"credential": {"name": "own", "key": "cloud"}}}));
    pass(&mut scene, 60);
    assert_eq!(location(&scene)["phase"], "Available");
}

#[test]
fn nothing_happens_while_the_server_does_not_run() {
    let mut scene = scene();
    scene.host("n1").down = true;
    backup(&mut scene);
    pass(&mut scene, 300);
    assert_eq!((location(&scene), backed_up(&scene)), (Value::Null, Value::Null));
}

#[test]
fn a_schedule_is_enabled() {
    let mut scene = scene();
    scene.apply(json!({
        "apiVersion": "velero.io/v1", "kind": "Schedule", "metadata": {"name": "daily", "namespace": "velero"},
        "spec": {"schedule": "0 2 * * *", "template": {}},
    }));
    settle(&mut scene);
    let schedule = scene.get("velero.io/schedules", "velero", "daily").unwrap_or_default();
    assert_eq!(schedule["status"], json!({"phase": "Enabled"}));
}

#[test]
fn a_backup_keeps_the_volumes_of_running_pods() {
    let mut scene = scene();
    app(&mut scene);
    backup(&mut scene);
    settle(&mut scene);
    assert_eq!(backed_up(&scene)["phase"], "InProgress");
    pass(&mut scene, 5);
    let status = backed_up(&scene);
    assert_eq!(status["phase"], "Completed");
    assert_eq!(status["progress"]["totalItems"], 2, "a pod and a claim");
    let times = ["/startTimestamp", "/completionTimestamp", "/expiration"].map(|field| text(&status, field));
    assert_eq!(times, ["2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z", "2026-01-02T00:00:00Z"]);
    let kept = scene.all("velero.io/podvolumebackups", "velero");
    let [kept] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!(kept["status"]["progress"], json!({"totalBytes": 42, "bytesDone": 42}));
    let spec =
        ["/pod/name", "/volume", "/node", "/backupStorageLocation"].map(|field| text(&kept["spec"], field));
    assert_eq!(spec, ["app", "data", "n1", "default"]);
}

#[test]
fn a_backup_says_what_it_could_not_do() {
    type Case = (&'static str, &'static str, &'static str, fn(&mut Scene));
    let cases: [Case; 5] = [
        (
            "FailedValidation",
            "/validationErrors/0",
            "backup can't be created because BackupStorageLocation default is in Unavailable status.",
            |scene| {
                scene.store.refuses = Some("x".into());
                settle(scene);
            },
        ),
        ("FailedValidation", "/validationErrors/0", "backup storage location \"\" not found", |scene| {
            scene.delete("/apis/velero.io/v1/namespaces/velero/backupstoragelocations/default");
        }),
        (
            "Failed",
            "/failureReason",
            "error checking if backup already exists in object storage: rpc error: code = Unknown desc = operation error \
             S3: ListObjectsV2, gone",
            |scene| {
                settle(scene);
                scene.store.refuses = Some("gone".into());
            },
        ),
        ("PartiallyFailed", "/none", "", |scene| scene.delete("/api/v1/namespaces/velero/pods/agent")),
        ("Completed", "/none", "", |scene| {
            let excluded = json!({"backup.velero.io/backup-volumes-excludes": "data"});
            let path = "/api/v1/namespaces/default/pods/app";
            scene.patch(path, &json!({"metadata": {"annotations": excluded}}));
        }),
    ];
    for (phase, field, why, change) in cases {
        let mut scene = scene();
        app(&mut scene);
        change(&mut scene);
        backup(&mut scene);
        settle(&mut scene);
        pass(&mut scene, 5);
        let status = backed_up(&scene);
        assert_eq!((text(&status, "/phase"), text(&status, field)), (phase, why));
        assert!(scene.all("velero.io/podvolumebackups", "velero").is_empty(), "{phase}");
    }
}
