use std::collections::BTreeSet;

use super::super::scene::{Actor, BASE, Scene};
use super::super::volumes;
use super::*;

const VOLUMES: &str = "/persistentvolumes";
const ACTORS: [Actor; 2] = [volumes::act, act];

/// A cluster whose provisioner runs on n1, and a class `fast` that it serves.
fn scene(level: &str) -> Scene {
    let mut scene = Scene::new(&["n1", "n2"]);
    let labels = json!({"pod-security.kubernetes.io/enforce": level});
    scene.apply(
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "openebs", "labels": labels}}),
    );
    provisioner(&mut scene, "prov-b");
    scene.apply(class(&json!({})));
    scene
}

fn provisioner(scene: &mut Scene, name: &str) {
    scene.apply(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "openebs", "labels": {"app.kubernetes.io/name": "localpv-provisioner"},
        },
        "spec": {
            "nodeName": "n1", "serviceAccountName": "openebs", "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "a", "image": "x", "env": [{"name": "OPENEBS_IO_HELPER_IMAGE", "value": "tools:1"}]}],
        },
    }));
    ready(scene, name, "True");
}

fn ready(scene: &mut Scene, name: &str, ready: &str) {
    let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]});
    scene.patch(&format!("/api/v1/namespaces/openebs/pods/{name}/status"), &json!({"status": status}));
}

fn class(change: &Value) -> Value {
    let settings = "- name: StorageType\n  value: hostpath\n- name: BasePath\n  value: /var/mnt/openebs\n";
    let mut class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "fast", "annotations": {"cas.openebs.io/config": settings}},
        "provisioner": NAME, "volumeBindingMode": "WaitForFirstConsumer",
    });
    json_patch::merge(&mut class, change);
    class
}

/// A claim `c` whose pod goes to n1.
fn claim(change: &Value) -> Value {
    let mut claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "c", "namespace": "default", "annotations": {"volume.kubernetes.io/selected-node": "n1"},
        },
        "spec": {
            "storageClassName": "fast", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    });
    json_patch::merge(&mut claim, change);
    claim
}

/// The volume's name, after the claim was made.
fn begin(scene: &mut Scene) -> String {
    let claim = scene.apply(claim(&json!({})));
    scene.settle(&ACTORS);
    format!("pvc-{}", text(&claim, "/metadata/uid"))
}

fn succeed(scene: &mut Scene, helper: &str) {
    let path = format!("/api/v1/namespaces/openebs/pods/{helper}/status");
    scene.patch(&path, &json!({"status": {"phase": "Succeeded"}}));
    scene.settle(&ACTORS);
}

fn helpers(scene: &Scene) -> Vec<String> {
    let names = scene.names("/pods", "openebs").into_iter();
    names.filter(|name| !name.starts_with("prov-")).collect()
}

fn last_event(scene: &Scene) -> String {
    scene.events("default").pop().unwrap_or_default()
}

#[test]
fn a_helper_pod_makes_the_directory_and_then_there_is_a_volume() {
    let mut scene = scene("privileged");
    let name = begin(&mut scene);
    let helper = scene.get("/pods", "openebs", &format!("init-{name}")).unwrap_or_default();
    let spec = &helper["spec"];
    assert_eq!(
        spec["containers"][0]["command"],
        json!(["mkdir", "-m", "0777", "-p", format!("/data/{name}")])
    );
    assert_eq!(spec["containers"][0]["image"], "tools:1");
    assert_eq!(spec["volumes"][0]["hostPath"]["path"], "/var/mnt/openebs");
    assert_eq!(spec["serviceAccountName"], "openebs");
    assert!(
        last_event(&scene).ends_with("External provisioner is provisioning volume for claim \"default/c\"")
    );
    assert!(scene.names(VOLUMES, "").is_empty());

    succeed(&mut scene, &format!("init-{name}"));
    assert_eq!(last_event(&scene), format!("ProvisioningSucceeded: Successfully provisioned volume {name}"));
    assert!(helpers(&scene).is_empty());
    let volume = scene.get(VOLUMES, "", &name).unwrap_or_default();
    assert_eq!(volume["spec"]["local"]["path"], format!("/var/mnt/openebs/{name}"));
    assert_eq!(labels_of(&volume), Some([("kubernetes.io/hostname".into(), "n1".into())].into()));
    assert_eq!(volume["metadata"]["labels"]["openebs.io/cas-type"], "local-hostpath");
    let claim = scene.get("/persistentvolumeclaims", "default", "c").unwrap_or_default();
    assert_eq!((text(&claim, "/status/phase"), text(&claim, "/spec/volumeName")), ("Bound", name.as_str()));
}

#[test]
fn what_it_cannot_make_it_refuses_in_its_own_words() {
    let config = |text: &str| json!({"metadata": {"annotations": {"cas.openebs.io/config": text}}});
    let immediate = json!({"volumeBindingMode": "Immediate"});
    let nowhere = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": null}}});
    let spec = |spec: Value| json!({"spec": spec});
    let none = json!({});
    for (of_class, of_claim, why) in [
        (&immediate, &nowhere, "configuration error, no node was specified"),
        (
            &config("- name: BasePath\n  value: /openebs\n"),
            &none,
            "volume directory {/openebs} should not be under root directory",
        ),
        (&none, &spec(json!({"accessModes": ["ReadWriteMany"]})), "Only support ReadWriteOnce access mode"),
        (
            &none,
            &spec(json!({"volumeMode": "Block"})),
            "PV with BlockMode is not supported with StorageType hostpath",
        ),
        (
            &none,
            &spec(json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "x"}})),
            "clone feature not supported by this provisioner",
        ),
    ] {
        let mut scene = scene("privileged");
        scene.delete("/apis/storage.k8s.io/v1/storageclasses/fast");
        scene.apply(class(of_class));
        scene.apply(claim(of_claim));
        scene.settle(&ACTORS);
        let told =
            format!("ProvisioningFailed: failed to provision volume with StorageClass \"fast\": {why}");
        assert_eq!(last_event(&scene), told);
        assert!(helpers(&scene).is_empty());
    }
}

#[test]
fn pod_security_refuses_the_helper_until_the_namespace_is_privileged() {
    let mut scene = scene("baseline");
    let name = begin(&mut scene);
    let told = format!(
        "ProvisioningFailed: failed to provision volume with StorageClass \"fast\": pods \"init-{name}\" is forbidden: \
         violates PodSecurity \"baseline:latest\": hostPath volumes (volumes \"data\", \"dev\"), privileged (container \
         \"local-path-init\" must not set securityContext.privileged=true)"
    );
    assert_eq!(last_event(&scene), told);
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}});
    scene.patch("/api/v1/namespaces/openebs", &labels);
    scene.pass(14, &ACTORS);
    assert!(helpers(&scene).is_empty());
    scene.pass(1, &ACTORS);
    assert_eq!(helpers(&scene), [format!("init-{name}")]);
}

#[test]
fn a_provisioner_that_is_not_ready_or_whose_machine_is_down_leaves_the_claim_waiting() {
    let stops: [fn(&mut Scene); 3] = [
        |scene| ready(scene, "prov-b", "False"),
        |scene| scene.delete("/api/v1/namespaces/openebs/pods/prov-b"),
        |scene| scene.host("n1").down = true,
    ];
    for stop in stops {
        let mut scene = scene("privileged");
        stop(&mut scene);
        begin(&mut scene);
        scene.pass(300, &ACTORS);
        let events = scene.events("default");
        assert!(
            matches!(events.as_slice(), [one] if one.starts_with("ExternalProvisioning: ")),
            "{events:?}"
        );
        assert!(helpers(&scene).is_empty());
    }
}

#[test]
fn of_two_provisioners_only_one_works() {
    let mut scene = scene("privileged");
    provisioner(&mut scene, "prov-a");
    let name = begin(&mut scene);
    succeed(&mut scene, &format!("init-{name}"));
    let events = scene.all("/events", "default");
    let sources: BTreeSet<&str> = events.iter().map(|event| text(event, "/source/component")).collect();
    let sources: Vec<&str> = sources.into_iter().filter(|one| one.starts_with(NAME)).collect();
    assert!(
        matches!(sources.as_slice(), [one] if one.starts_with("openebs.io/local_prov-a_")),
        "{sources:?}"
    );
}

#[test]
fn a_helper_that_does_not_get_done_is_given_up_and_tried_again() {
    let mut scene = scene("privileged");
    let name = begin(&mut scene);
    scene.pass(119, &ACTORS);
    assert_eq!(helpers(&scene), [format!("init-{name}")]);
    scene.pass(1, &ACTORS);
    assert!(helpers(&scene).is_empty());
    assert!(last_event(&scene).ends_with("\"fast\": create process timeout after 120 seconds"));
    scene.pass(15, &ACTORS);
    assert_eq!(helpers(&scene), [format!("init-{name}")]);
}

#[test]
fn the_helper_of_a_provisioner_that_is_gone_is_in_the_way() {
    let mut scene = scene("privileged");
    let name = begin(&mut scene);
    scene.delete("/api/v1/namespaces/openebs/pods/prov-b");
    provisioner(&mut scene, "prov-c");
    scene.settle(&ACTORS);
    assert!(
        last_event(&scene).ends_with(&format!("pods \"init-{name}\" already exists")),
        "{}",
        last_event(&scene)
    );
    let at_once = json!({"gracePeriodSeconds": 0});
    let helper = format!("/api/v1/namespaces/openebs/pods/init-{name}");
    assert!(scene.ask("DELETE", &helper, &at_once).is_ok());
    scene.pass(15, &ACTORS);
    succeed(&mut scene, &format!("init-{name}"));
    assert_eq!(scene.names(VOLUMES, ""), [name]);
}

#[test]
fn a_claim_whose_node_is_gone_is_scheduled_again() {
    let mut scene = scene("privileged");
    scene.delete("/api/v1/nodes/n1");
    begin(&mut scene);
    assert_eq!(last_event(&scene), "ProvisioningFailed: nodes \"n1\" not found");
    let claim = scene.get("/persistentvolumeclaims", "default", "c").unwrap_or_default();
    assert_eq!(selected_node(&claim), "");
}

#[test]
fn a_volume_goes_with_its_claim_unless_it_is_retained() {
    for (policy, goes) in [("Delete", true), ("Retain", false)] {
        let mut scene = scene("privileged");
        scene.delete("/apis/storage.k8s.io/v1/storageclasses/fast");
        scene.apply(class(&json!({"reclaimPolicy": policy})));
        let name = begin(&mut scene);
        succeed(&mut scene, &format!("init-{name}"));
        scene.delete("/api/v1/namespaces/default/persistentvolumeclaims/c");
        scene.settle(&ACTORS);
        let cleanup = scene.get("/pods", "openebs", &format!("cleanup-{name}"));
        assert_eq!(cleanup.is_some(), goes, "{policy}");
        if let Some(cleanup) = cleanup {
            let command = &cleanup["spec"]["containers"][0]["command"];
            assert_eq!(*command, json!(["rm", "-rf", format!("/data/{name}")]));
            succeed(&mut scene, &format!("cleanup-{name}"));
            assert!(helpers(&scene).is_empty());
        }
        assert_eq!(scene.names(VOLUMES, "").is_empty(), goes, "{policy}");
    }
}

#[test]
fn a_volume_whose_node_is_gone_stays_and_says_so() {
    let mut scene = scene("privileged");
    let name = begin(&mut scene);
    succeed(&mut scene, &format!("init-{name}"));
    scene.delete("/api/v1/namespaces/default/persistentvolumeclaims/c");
    scene.delete("/api/v1/nodes/n1");
    scene.settle(&ACTORS);
    let why = "Unable to get the Node with the Node Labels {map[kubernetes.io/hostname:n1]}";
    assert_eq!(last_event(&scene), format!("VolumeFailedDelete: failed to delete volume {name}: {why}"));
    assert_eq!(scene.names(VOLUMES, ""), [name]);
}

#[test]
fn a_claim_that_goes_too_early_leaves_nothing_behind() {
    let mut scene = scene("privileged");
    let name = begin(&mut scene);
    scene.delete("/api/v1/namespaces/default/persistentvolumeclaims/c");
    scene.settle(&ACTORS);
    succeed(&mut scene, &format!("init-{name}"));
    succeed(&mut scene, &format!("cleanup-{name}"));
    assert!(scene.names(VOLUMES, "").is_empty() && helpers(&scene).is_empty());
}

#[test]
fn a_volume_with_a_quota_is_limited_before_it_is_there() {
    let mut scene = scene("privileged");
    let settings = "- name: BasePath\n  value: /var/mnt/openebs\n- name: XFSQuota\n  enabled: \"true\"\n";
    let annotations = json!({"metadata": {"annotations": {"cas.openebs.io/config": settings}}});
    scene.patch("/apis/storage.k8s.io/v1/storageclasses/fast", &annotations);
    let name = begin(&mut scene);
    succeed(&mut scene, &format!("init-{name}"));
    assert_eq!(helpers(&scene), [format!("quota-{name}")]);
    assert!(scene.names(VOLUMES, "").is_empty());
    succeed(&mut scene, &format!("quota-{name}"));
    assert!(helpers(&scene).is_empty());
    assert_eq!(scene.names(VOLUMES, ""), [name]);
}

/// With everything else that runs in a cluster.
#[test]
fn a_pods_volume_lies_on_its_node_and_goes_with_its_claim() {
    let mut scene = Scene::new(&["n1", "n2"]);
    let level = json!({"pod-security.kubernetes.io/enforce": "privileged"});
    scene.apply(
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "openebs", "labels": level}}),
    );
    let labels = json!({"app.kubernetes.io/name": "localpv-provisioner"});
    scene.apply(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "prov", "namespace": "openebs"},
        "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "x:1"}]},
        }},
    }));
    scene.apply(class(&json!({})));
    scene.apply(claim(&json!({"metadata": {"annotations": null}})));
    scene.run(5);
    let waits = "WaitForFirstConsumer: waiting for first consumer to be created before binding";
    assert_eq!(scene.events("default"), [waits]);
    scene.apply(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": "n2"},
            "containers": [{"name": "a", "image": "x:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}],
        },
    }));
    scene.run(5);
    let pod = scene.get("/pods", "default", "p").unwrap_or_default();
    assert_eq!((text(&pod, "/status/phase"), text(&pod, "/spec/nodeName")), ("Running", "n2"));
    let directories = |scene: &mut Scene, node: &str| scene.host(node).mounts[BASE].directories.len();
    assert_eq!((directories(&mut scene, "n1"), directories(&mut scene, "n2")), (0, 1));
    let version = scene.api.store.version();
    scene.run(1000);
    assert_eq!(scene.api.store.version(), version, "nothing is due");

    scene.delete("/api/v1/namespaces/default/persistentvolumeclaims/c");
    scene.run(5);
    assert_eq!(scene.names(VOLUMES, "").len(), 1, "the pod still uses it");
    scene.delete("/api/v1/namespaces/default/pods/p");
    scene.run(5);
    assert!(scene.names(VOLUMES, "").is_empty());
    assert_eq!(directories(&mut scene, "n2"), 0);
}
