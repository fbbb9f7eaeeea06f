#![expect(clippy::unwrap_used)]

use super::*;
use crate::kube::actors::objects::holds;
use crate::kube::actors::scene::Scene;

fn pod(name: &str, spec: &Value) -> Value {
    let mut all = json!({"containers": [{"name": "main", "image": "x:1"}]});
    json_patch::merge(&mut all, spec);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": all})
}

/// Where the pod went, or why it went nowhere.
fn went(scene: &mut Scene, spec: &Value) -> String {
    scene.apply(pod("p", spec));
    scene.run(2);
    let pod = scene.get("/pods", "default", "p").unwrap();
    let told = scene.events("default");
    if holds(&pod, "PodScheduled") {
        let node = text(&pod, "/spec/nodeName").to_owned();
        assert!(told.contains(&format!("Scheduled: Successfully assigned default/p to {node}")), "{told:?}");
        return node;
    }
    let message = text(condition_of(&pod, "PodScheduled").unwrap(), "/message").to_owned();
    assert_eq!(told.iter().filter(|event| **event == format!("FailedScheduling: {message}")).count(), 1);
    message.split(" no new claims").next().unwrap_or_default().to_owned()
}

fn affinity(key: &str, operator: &str, values: &Value) -> Value {
    let term = json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    let required = json!({"nodeSelectorTerms": [term]});
    json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}})
}

#[test]
fn a_pod_goes_where_it_may_and_is_told_why_nowhere() {
    const HOST: &str = "kubernetes.io/hostname";
    for (case, spec, wanted) in [
        ("anywhere", json!({}), "n2"),
        ("selector", json!({"nodeSelector": {HOST: "n3"}}), "n3"),
        ("in", affinity(HOST, "In", &json!(["n3", "n9"])), "n3"),
        ("not in", affinity(HOST, "NotIn", &json!(["n2"])), "n3"),
        ("exists", affinity("zone", "Exists", &json!(null)), "n3"),
        ("does not exist", affinity("zone", "DoesNotExist", &json!(null)), "n2"),
        (
            "a selector that nothing has",
            json!({"nodeSelector": {"disk": "none"}}),
            "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, \
             2 node(s) didn't match Pod's node affinity/selector.",
        ),
        (
            "cordoned",
            json!({"nodeSelector": {HOST: "n4"}, "tolerations": [{"key": "dedicated", "operator": "Exists"}]}),
            "0/4 nodes are available: 1 node(s) were unschedulable, \
             3 node(s) didn't match Pod's node affinity/selector.",
        ),
        (
            "tolerated by value",
            json!({"nodeSelector": {HOST: "n1"}, "tolerations": [{"key": "dedicated", "value": "db"}]}),
            "n1",
        ),
        (
            "no such claim",
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "gone"}}]}),
            "0/4 nodes are available: persistentvolumeclaim \"gone\" not found. not found",
        ),
    ] {
        let mut scene = Scene::new(&["n1", "n2", "n3", "n4"]);
        let taint = json!([{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]);
        scene.patch("/api/v1/nodes/n1", &json!({"spec": {"taints": taint}}));
        scene.patch("/api/v1/nodes/n3", &json!({"metadata": {"labels": {"zone": "a"}}}));
        scene.patch("/api/v1/nodes/n4", &json!({"spec": {"unschedulable": true}}));
        assert_eq!(went(&mut scene, &spec), wanted, "{case}");
    }
}

#[test]
fn pods_are_spread_and_wait_for_a_node() {
    let mut scene = Scene::new(&["n1", "n2"]);
    for name in ["a", "b", "c", "d"] {
        scene.apply(pod(name, &json!({})));
    }
    scene.run(1);
    let nodes: Vec<Value> =
        scene.all("/pods", "default").iter().map(|p| p["spec"]["nodeName"].clone()).collect();
    assert_eq!(nodes, ["n1", "n2", "n1", "n2"]);

    let mut scene = Scene::new(&["n1"]);
    scene.host("n1").down = true;
    scene.run(1);
    assert_eq!(went(&mut scene, &json!({})), "0/1 nodes are available: 1 node(s) had untolerated taint(s).");
    scene.host("n1").down = false;
    scene.run(10);
    assert_eq!(scene.get("/pods", "default", "p").unwrap()["spec"]["nodeName"], "n1");

    assert_eq!(went(&mut Scene::new(&[]), &json!({})), "no nodes available to schedule pods");
}

fn class(mode: &str) -> Value {
    // Nobody provisions for it: the test does.
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"},
        "provisioner": "test", "volumeBindingMode": mode})
}

fn claim() -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {
        "storageClassName": "fast", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
    }})
}

fn with_claim() -> Value {
    json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]})
}

fn bind(scene: &mut Scene, node: &str) {
    let term =
        json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]});
    scene.apply(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
        "local": {"path": "/var/mnt/openebs/pv"}, "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"namespace": "default", "name": "data", "uid": scene.get("/persistentvolumeclaims", "default", "data").unwrap()["metadata"]["uid"]},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
    }}));
    let path = "/api/v1/namespaces/default/persistentvolumeclaims/data";
    scene.patch(path, &json!({"spec": {"volumeName": "pv"}}));
    scene.patch(&format!("{path}/status"), &json!({"status": {"phase": "Bound"}}));
}

#[test]
fn a_claim_that_waits_learns_its_node_and_the_pod_follows_it() {
    let mut scene = Scene::new(&["n1", "n2"]);
    scene.apply(class("WaitForFirstConsumer"));
    scene.apply(claim());
    let mut pinned = with_claim();
    pinned["nodeSelector"] = json!({"kubernetes.io/hostname": "n2"});
    scene.apply(pod("p", &pinned));
    scene.run(3);
    let claim = scene.get("/persistentvolumeclaims", "default", "data").unwrap();
    assert_eq!(claim["metadata"]["annotations"][SELECTED_NODE], "n2");
    assert!(scene.get("/pods", "default", "p").unwrap()["spec"]["nodeName"].is_null());
    bind(&mut scene, "n2");
    scene.run(1);
    assert_eq!(scene.get("/pods", "default", "p").unwrap()["spec"]["nodeName"], "n2");
}

#[test]
fn a_claim_goes_only_where_its_class_allows() {
    let mut scene = Scene::new(&["n1", "n2"]);
    let mut limited = class("WaitForFirstConsumer");
    limited["allowedTopologies"] =
        json!([{"matchLabelExpressions": [{"key": "kubernetes.io/hostname", "values": ["n2", "n9"]}]}]);
    scene.apply(limited);
    scene.apply(claim());
    scene.apply(pod("p", &with_claim()));
    scene.run(3);
    let found = scene.get("/persistentvolumeclaims", "default", "data").unwrap();
    assert_eq!(found["metadata"]["annotations"][SELECTED_NODE], "n2");
    let mut pinned = with_claim();
    pinned["nodeSelector"] = json!({"kubernetes.io/hostname": "n1"});
    scene.delete("/api/v1/namespaces/default/pods/p");
    scene.run(2);
    assert_eq!(
        went(&mut scene, &pinned),
        "0/2 nodes are available: 1 node(s) didn't find available persistent volumes to bind, \
         1 node(s) didn't match Pod's node affinity/selector."
    );
}

#[test]
fn a_bound_claim_holds_its_pod_on_its_node() {
    let mut scene = Scene::new(&["n1", "n2"]);
    scene.apply(class("WaitForFirstConsumer"));
    scene.apply(claim());
    bind(&mut scene, "n2");
    assert_eq!(went(&mut scene, &with_claim()), "n2");
    scene.delete("/api/v1/namespaces/default/pods/p");
    scene.run(2);
    let mut pinned = with_claim();
    pinned["nodeSelector"] = json!({"kubernetes.io/hostname": "n1"});
    assert_eq!(
        went(&mut scene, &pinned),
        "0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, \
         1 node(s) didn't match Pod's node affinity/selector."
    );
}

#[test]
fn a_claim_of_a_class_that_binds_at_once_must_be_bound_first() {
    for mode in ["Immediate", ""] {
        let mut scene = Scene::new(&["n1"]);
        if !mode.is_empty() {
            scene.apply(class(mode));
        }
        scene.apply(claim());
        assert_eq!(
            went(&mut scene, &with_claim()),
            "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
        );
        bind(&mut scene, "n1");
        scene.run(2);
        assert_eq!(scene.get("/pods", "default", "p").unwrap()["spec"]["nodeName"], "n1", "{mode}");
    }
}
