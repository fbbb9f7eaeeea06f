mod backups;
mod deletions;
mod restores;
mod schedules;

use std::sync::LazyLock;

use jiff::SignedDuration;

use super::super::scene::{Actor, BASE, Scene};
use super::*;
use crate::host::{Directory, File};
use crate::object_store::ObjectStore;

const VELERO: [Actor; 1] = [act];
const HOME: &str = "/apis/velero.io/v1/namespaces/velero";
/// The path of the location.
const DEFAULT: &str = "/apis/velero.io/v1/namespaces/velero/backupstoragelocations/default";

/// A cluster whose only actor is Velero, with a location `default` of bucket `velero`.
fn bare() -> Scene {
    let mut scene = Scene::new(&["n1"]);
    install(&mut scene);
    start(&mut scene);
    scene
}

/// The kinds, the server's pod on n1 and the location.
fn install(scene: &mut Scene) {
    let crds = include_str!("../../../../../../manifests/velero/crds.yaml");
    for crd in serde_yaml::from_multiple::<Value>(crds).unwrap_or_default() {
        scene.apply(crd);
    }
    scene.api.settle_all("2026-01-01T00:00:00Z");
    let labels = json!({"pod-security.kubernetes.io/enforce": "privileged"});
    for name in ["velero", "openebs"] {
        let metadata = json!({"name": name, "labels": labels});
        scene.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}));
    }
    secret(scene, "cloud-credentials", "labaccess");
    let volume = json!({"name": "cloud", "secret": {"secretName": "cloud-credentials"}});
    pod(
        scene,
        "velero",
        "server",
        &json!({"deploy": "velero"}),
        &json!({"nodeName": "n1", "volumes": [volume]}),
    );
    scene.apply(json!({
        "apiVersion": "velero.io/v1", "kind": "BackupStorageLocation",
        "metadata": {"name": "default", "namespace": "velero"},
        "spec": {"provider": "aws", "default": true, "objectStorage": {"bucket": "velero", "prefix": "lab"}},
    }));
}

fn secret(scene: &mut Scene, name: &str, id: &str) {
    let file = format!("[default]\naws_access_key_id={id}\naws_secret_access_key=secret\n");
    scene.apply(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "velero"},
        "stringData": {"cloud": file},
    }));
}

fn pod(scene: &mut Scene, namespace: &str, name: &str, labels: &Value, spec: &Value) {
    let mut all = json!({"containers": [{"name": "main", "image": "x:1"}]});
    json_patch::merge(&mut all, spec);
    let metadata = json!({"name": name, "namespace": namespace, "labels": labels});
    scene.apply(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": all}));
}

/// The server says that it started just now.
fn start(scene: &mut Scene) {
    let now = scene.stage(|stage| stage.time());
    let status = json!({
        "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "startTime": now,
    });
    scene.patch("/api/v1/namespaces/velero/pods/server/status", &json!({"status": status}));
}

/// A whole cluster of n1 and n2: Velero with its agents, a provisioner, and in namespace `shop` a pod `app` with a volume
/// `data` that holds a file.
fn cluster() -> Scene {
    static MADE: LazyLock<Scene> = LazyLock::new(make_cluster);
    again(&MADE)
}

/// The same scene, to go on with in another way.
fn again(scene: &Scene) -> Scene {
    Scene {
        api: scene.api.clone(),
        hosts: scene.hosts.clone(),
        timers: scene.timers.clone(),
        store: scene.store.clone(),
        now: scene.now,
    }
}

fn make_cluster() -> Scene {
    let mut scene = Scene::new(&["n1", "n2"]);
    install(&mut scene);
    let agent = json!({"name": "node-agent", "role": "node-agent"});
    scene.apply(json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "node-agent", "namespace": "velero"},
        "spec": {"selector": {"matchLabels": {"name": "node-agent"}}, "template": {
            "metadata": {"labels": agent}, "spec": {"containers": [{"name": "agent", "image": "velero:1"}]},
        }},
    }));
    let provisioner = json!({"app.kubernetes.io/name": "localpv-provisioner"});
    pod(&mut scene, "openebs", "provisioner", &provisioner, &json!({"nodeName": "n1"}));
    let settings = format!("- name: StorageType\n  value: hostpath\n- name: BasePath\n  value: {BASE}\n");
    scene.apply(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "fast", "annotations": {"cas.openebs.io/config": settings}},
        "provisioner": "openebs.io/local", "volumeBindingMode": "WaitForFirstConsumer",
    }));
    let metadata = json!({"name": "shop", "labels": {"team": "one"}});
    scene.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}));
    app(&mut scene, "app", "data");
    scene.run(8);
    write(&mut scene, "shop", "data", "orders", 42);
    scene
}

/// A pod with a claim in namespace `shop`.
fn app(scene: &mut Scene, name: &str, claim: &str) {
    scene.apply(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim, "namespace": "shop"},
        "spec": {
            "storageClassName": "fast", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }));
    let spec = json!({
        "containers": [{
            "name": "main", "image": "x:1", "volumeMounts": [{"name": "files", "mountPath": "/data"}],
        }],
        "volumes": [{"name": "files", "persistentVolumeClaim": {"claimName": claim}}],
    });
    pod(scene, "shop", name, &json!({"app": name}), &spec);
}

/// Where a claim's volume lies: node, and directory.
fn directory<'a>(scene: &'a mut Scene, namespace: &str, claim: &str) -> &'a mut Directory {
    let claim = scene.get("/persistentvolumeclaims", namespace, claim).unwrap_or_default();
    let volume = scene.get("/persistentvolumes", "", text(&claim, "/spec/volumeName")).unwrap_or_default();
    let values = "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values/0";
    let (node, path) = (text(&volume, values).to_owned(), text(&volume, "/spec/local/path").to_owned());
    let host = scene.host(&node);
    let place = host.place(&path).unwrap_or_else(|| panic!("{claim}"));
    host.directory_mut(&place).unwrap_or_else(|| panic!("{volume}"))
}

fn write(scene: &mut Scene, namespace: &str, claim: &str, file: &str, size: u64) {
    let written = File { size, sha256: digest(file), ..File::default() };
    directory(scene, namespace, claim).files.insert(file.to_owned(), written);
}

/// The files of a claim's volume, by name and size.
fn files(scene: &mut Scene, namespace: &str, claim: &str) -> Vec<(String, u64)> {
    let files = &directory(scene, namespace, claim).files;
    files.iter().map(|(name, file)| (name.clone(), file.size)).collect()
}

fn location(scene: &Scene) -> Value {
    scene.get(LOCATIONS, "velero", "default").unwrap_or_default()["status"].clone()
}

fn backup(scene: &mut Scene, name: &str, spec: &Value) {
    let mut all = json!({"includedNamespaces": ["shop"], "defaultVolumesToFsBackup": true, "ttl": "24h0m0s"});
    json_patch::merge(&mut all, spec);
    let metadata = json!({"name": name, "namespace": "velero"});
    scene.apply(json!({"apiVersion": "velero.io/v1", "kind": "Backup", "metadata": metadata, "spec": all}));
}

/// A restore `r` of the backup `b`, if the spec does not name another one.
fn restore(scene: &mut Scene, spec: &Value) {
    let mut all = json!({"backupName": "b"});
    json_patch::merge(&mut all, spec);
    let metadata = json!({"name": "r", "namespace": "velero"});
    scene.apply(json!({"apiVersion": "velero.io/v1", "kind": "Restore", "metadata": metadata, "spec": all}));
}

fn status(scene: &Scene, resource: &str, name: &str) -> Value {
    scene.get(&format!("velero.io/{resource}"), "velero", name).unwrap_or_default()["status"].clone()
}

fn phase(scene: &Scene, resource: &str, name: &str) -> String {
    text(&status(scene, resource, name), "/phase").to_owned()
}

/// A file of the store's.
fn stored(scene: &Scene, key: &str) -> Value {
    scene.store.get("velero", &format!("lab/{key}"), "").cloned().unwrap_or_default()
}

#[test]
fn a_location_is_validated_at_once_and_then_every_minute() {
    let mut scene = bare();
    scene.settle(&VELERO);
    let at = |time: &str| json!({"phase": "Available", "lastValidationTime": time, "lastSyncedTime": time});
    assert_eq!(location(&scene), at("2026-01-01T00:00:00Z"));
    scene.pass(59, &VELERO);
    assert_eq!(location(&scene), at("2026-01-01T00:00:00Z"));
    scene.pass(1, &VELERO);
    assert_eq!(location(&scene), at("2026-01-01T00:01:00Z"));
    scene.pass(1, &VELERO);
    start(&mut scene);
    scene.settle(&VELERO);
    assert_eq!(location(&scene), at("2026-01-01T00:01:01Z"), "a server that starts anew");
    scene.pass(1, &VELERO);
    scene.patch(DEFAULT, &json!({"spec": {"objectStorage": {"bucket": "other"}}}));
    scene.settle(&VELERO);
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
        let mut scene = bare();
        scene.store = store;
        scene.settle(&VELERO);
        let status = location(&scene);
        assert_eq!(text(&status, "/phase"), "Unavailable");
        let message = text(&status, "/message");
        assert!(message.starts_with(head) && message.contains(why), "{message}");
        scene.store = any();
        scene.pass(60, &VELERO);
        let status = location(&scene);
        assert_eq!((text(&status, "/phase"), &status["message"]), ("Available", &Value::Null));
    }
}

#[test]
fn a_location_may_have_credentials_of_its_own() {
    let mut scene = bare();
    secret(&mut scene, "own", "mine");
    scene.store.accepts = Some("mine".into());
    scene.settle(&VELERO);
    assert_eq!(location(&scene)["phase"], "Unavailable");
    scene.pass(1, &VELERO);
    scene.patch(DEFAULT, &json!({"spec": {"credential": {"name": "own", "key": "cloud"}}}));
    scene.pass(60, &VELERO);
    assert_eq!(location(&scene)["phase"], "Available");
}

#[test]
fn nothing_happens_while_the_server_does_not_run() {
    let mut scene = bare();
    scene.host("n1").down = true;
    backup(&mut scene, "b", &json!({}));
    scene.pass(300, &VELERO);
    assert_eq!((location(&scene), status(&scene, "backups", "b")), (Value::Null, Value::Null));
}
