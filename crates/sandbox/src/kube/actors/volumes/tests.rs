use super::super::scene::Scene;
use super::*;
use crate::kube::control::SELECTED_NODE;

fn class(name: &str, mode: &str, provisioner: &str) -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": provisioner, "volumeBindingMode": mode,
    })
}

/// A claim `c` of 1Gi; `spec` says the rest.
fn claim(spec: Value) -> Value {
    let mut claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    json_patch::merge(&mut claim["spec"], &spec);
    claim
}

fn volume(name: &str, size: &str, spec: Value) -> Value {
    let mut volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, "local": {"path": "/a/b"}},
    });
    json_patch::merge(&mut volume["spec"], &spec);
    volume
}

fn phases(scene: &Scene) -> (String, String) {
    let phase = |object: Option<Value>| {
        object.map(|object| text(&object, "/status/phase").to_owned()).unwrap_or_default()
    };
    (phase(scene.get(CLAIMS, "default", "c")), phase(scene.get(VOLUMES, "", "v")))
}

#[test]
fn a_claim_is_bound_to_the_volume_that_was_made_for_it_and_to_no_other() {
    let mut scene = Scene::new(&[]);
    scene.apply(class("fast", "WaitForFirstConsumer", "openebs.io/local"));
    let made = scene.apply(claim(json!({"storageClassName": "fast"})));
    let meant = |uid: &Value| {
        json!({"storageClassName": "fast",
        "claimRef": {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "c", "uid": uid}})
    };
    scene.apply(volume("old", "1Gi", meant(&json!("another"))));
    scene.apply(volume("v", "2Gi", meant(&made["metadata"]["uid"])));
    scene.settle(&[act]);
    assert_eq!(phases(&scene), ("Bound".into(), "Bound".into()));
    let bound = scene.get(CLAIMS, "default", "c").unwrap_or_default();
    assert_eq!(bound["spec"]["volumeName"], "v");
    assert_eq!(bound["status"]["capacity"]["storage"], "2Gi");
    assert_eq!(bound["metadata"]["annotations"], json!({BOUND: "yes", BY_CONTROLLER: "yes"}));
    let old = scene.get(VOLUMES, "", "old").unwrap_or_default();
    assert_eq!(text(&old, "/status/phase"), "Released");
}

#[test]
fn a_free_volume_is_taken_when_it_satisfies_the_claim() {
    let fits = json!({"storageClassName": ""});
    for (size, has, wants, taken) in [
        ("1Gi", &fits, json!({"storageClassName": ""}), true),
        ("1000M", &fits, json!({"storageClassName": ""}), false),
        ("1Gi", &fits, json!({"storageClassName": "", "accessModes": ["ReadWriteMany"]}), false),
        ("1Gi", &fits, json!({"storageClassName": "", "volumeMode": "Block"}), false),
        ("1Gi", &json!({"storageClassName": "other"}), json!({"storageClassName": ""}), false),
        ("1Gi", &fits, json!({"storageClassName": "", "volumeName": "v"}), true),
        ("1Gi", &fits, json!({"storageClassName": "", "volumeName": "w"}), false),
    ] {
        let mut scene = Scene::new(&[]);
        scene.apply(volume("v", size, has.clone()));
        scene.apply(claim(wants.clone()));
        scene.settle(&[act]);
        let bound = if taken { ("Bound", "Bound") } else { ("Pending", "Available") };
        assert_eq!(phases(&scene), (bound.0.to_owned(), bound.1.to_owned()), "{size} {has} {wants}");
    }
}

#[test]
fn a_claim_without_a_volume_tells_what_it_waits_for() {
    let asks = "ExternalProvisioning: Waiting for a volume to be created either by the external provisioner 'x/y' or \
        manually by the system administrator. If volume creation is delayed, please verify that the provisioner is \
        running and correctly registered.";
    for (class_of, selected, told, asked) in [
        ("none", "", Some("ProvisioningFailed: storageclass.storage.k8s.io \"none\" not found"), false),
        ("waits", "", None, false),
        ("waits", "n1", Some(asks), true),
        ("at-once", "", Some(asks), true),
        ("manual", "", None, false),
    ] {
        let mut scene = Scene::new(&[]);
        scene.apply(class("waits", "WaitForFirstConsumer", "x/y"));
        scene.apply(class("at-once", "Immediate", "x/y"));
        scene.apply(class("manual", "Immediate", "kubernetes.io/no-provisioner"));
        let mut made = claim(json!({"storageClassName": class_of}));
        if !selected.is_empty() {
            made["metadata"]["annotations"] = json!({SELECTED_NODE: selected});
        }
        scene.apply(made);
        scene.settle(&[act]);
        assert_eq!(scene.events("default"), told.into_iter().collect::<Vec<_>>(), "{class_of} {selected}");
        let claim = scene.get(CLAIMS, "default", "c").unwrap_or_default();
        assert_eq!(claim["metadata"]["annotations"][ASKED] == "x/y", asked, "{class_of} {selected}");
    }
}

#[test]
fn a_claim_that_names_no_class_gets_the_default_one() {
    let mut scene = Scene::new(&[]);
    scene.apply(claim(json!({})));
    scene.settle(&[act]);
    let without = "FailedBinding: no persistent volumes available for this claim and no storage class is set";
    assert_eq!(scene.events("default"), [without]);
    let mut default = class("fast", "WaitForFirstConsumer", "x/y");
    default["metadata"]["annotations"] = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    scene.apply(default);
    scene.settle(&[act]);
    assert_eq!(scene.get(CLAIMS, "default", "c").unwrap_or_default()["spec"]["storageClassName"], "fast");
}

#[test]
fn what_is_used_stays_until_it_is_not() {
    let mut scene = Scene::new(&[]);
    scene.apply(volume("v", "1Gi", json!({"storageClassName": ""})));
    scene.apply(claim(json!({"storageClassName": ""})));
    scene.apply(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "nodeName": "n1", "terminationGracePeriodSeconds": 0, "containers": [{"name": "a", "image": "x"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}],
        },
    }));
    scene.settle(&[act]);
    scene.delete("/api/v1/namespaces/default/persistentvolumeclaims/c");
    scene.delete("/api/v1/persistentvolumes/v");
    scene.settle(&[act]);
    assert_eq!(phases(&scene), ("Bound".into(), "Bound".into()));
    scene.delete("/api/v1/namespaces/default/pods/p");
    scene.settle(&[act]);
    assert_eq!(phases(&scene), (String::new(), String::new()));
}

#[test]
fn a_claim_whose_volume_is_gone_is_lost_and_a_volume_without_its_claim_is_released() {
    let mut scene = Scene::new(&[]);
    scene.apply(volume("v", "1Gi", json!({"storageClassName": ""})));
    scene.apply(claim(json!({"storageClassName": ""})));
    scene.settle(&[act]);
    scene.api.store.remove(&Place::global(VOLUMES, "v"));
    scene.settle(&[act]);
    assert_eq!(phases(&scene).0, "Lost");
    let lost = "ClaimLost: Bound claim has lost its PersistentVolume. Any data on the volume is lost!";
    assert_eq!(scene.events("default"), [lost]);

    scene.delete("/api/v1/namespaces/default/persistentvolumeclaims/c");
    scene.apply(volume("v", "1Gi", json!({"storageClassName": ""})));
    scene.settle(&[act]);
    scene.apply(claim(json!({"storageClassName": ""})));
    scene.settle(&[act]);
    scene.delete("/api/v1/namespaces/default/persistentvolumeclaims/c");
    scene.settle(&[act]);
    assert_eq!(phases(&scene), (String::new(), "Released".into()));
}

#[test]
fn a_namespace_ends_with_its_claims() {
    let mut scene = Scene::new(&[]);
    scene.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}));
    let mut claim = claim(json!({"storageClassName": "none"}));
    claim["metadata"]["namespace"] = json!("a");
    scene.apply(claim);
    scene.delete("/api/v1/namespaces/a");
    scene.run(6);
    assert!(scene.all(CLAIMS, "a").is_empty());
}
