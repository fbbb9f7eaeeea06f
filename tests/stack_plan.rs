//! What is planned for one object, by what is there.

use nodeprep::error::Kind;
use nodeprep::intent;
use nodeprep::model::cluster::{AwaitedState, ClusterState, DryRun, ObjectState};
use nodeprep::model::object::{Object, Ready};
use nodeprep::observe::cluster::owner;
use nodeprep::plan::{Action, ObjectAction, Plan, Target, stack};
use nodeprep::stack::StackItem;
use serde_json::{Value, json};

fn plan(items: &[StackItem], observed: &ClusterState) -> nodeprep::error::Result<Plan> {
    let file = "apiVersion: nodeprep.dev/v1alpha1\nkind: Cluster\nmetadata: {name: lab}\n";
    stack::plan(&intent::parse("nodeprep.yaml", file.as_bytes())?, items, observed)
}

fn object(value: Value) -> Object {
    Object { value, component: "velero", secret: false, create_only: false }
}

fn deployment(image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "velero", "namespace": "velero", "labels": {"app.kubernetes.io/managed-by": "nodeprep"}},
        "spec": {"template": {"spec": {"containers": [{"name": "velero", "image": image}]}}}
    })
}

fn class(reclaim: &str) -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "openebs-hostpath"},
        "provisioner": "openebs.io/local", "reclaimPolicy": reclaim, "volumeBindingMode": "WaitForFirstConsumer"
    })
}

fn password(value: &str) -> Object {
    let value = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "velero-repo-credentials", "namespace": "velero"},
        "data": {"repository-password": value}
    });
    Object { secret: true, create_only: true, ..object(value) }
}

/// What the server adds to an object it keeps.
fn kept(mut value: Value, version: u32) -> Value {
    value["metadata"]["resourceVersion"] = version.to_string().into();
    value["metadata"]["uid"] = "u".into();
    value["metadata"]["generation"] = version.into();
    value["metadata"]["managedFields"] = json!([{"manager": "nodeprep"}]);
    value["status"] = json!({"replicas": version});
    value
}

fn one(wanted: Object, live: Option<Value>, dry_run: DryRun) -> (Vec<StackItem>, ClusterState) {
    let owner = live.as_ref().and_then(owner);
    let items = vec![StackItem::Object(wanted.clone())];
    (
        items,
        ClusterState {
            objects: vec![ObjectState { wanted, live, owner, dry_run }],
            ..ClusterState::default()
        },
    )
}

#[test]
fn an_object_that_is_not_there_is_created() {
    let wanted = object(deployment("v2"));
    for dry_run in
        [DryRun::Would(kept(deployment("v2"), 1)), DryRun::NotYet("namespace velero is not there".into())]
    {
        let (items, observed) = one(wanted.clone(), None, dry_run);
        let plan = plan(&items, &observed).unwrap();
        assert_eq!(plan.changes(), 1);
        let step = &plan.steps[0];
        assert_eq!(step.id, "object/velero/Deployment/velero");
        assert_eq!(step.target, Target::Cluster);
        assert_eq!(step.title, "create Deployment velero/velero");
        assert!(step.diff.contains("+kind: Deployment"), "{}", step.diff);
        assert!(matches!(&step.action, Action::Object(ObjectAction::Apply(o)) if o.value == wanted.value));
    }
}

#[test]
fn a_kind_that_the_cluster_does_not_serve_is_named_unless_the_plan_brings_it() {
    let monitor = json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor", "metadata": {"name": "m", "namespace": "velero"}});
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "podmonitors"},
        "spec": {"group": "monitoring.coreos.com", "names": {"kind": "PodMonitor"}}});
    let not_served = DryRun::NotServed("the cluster does not serve PodMonitors".into());
    let (mut items, mut observed) = one(object(monitor), None, not_served);
    let alone = plan(&items, &observed).unwrap();
    assert!(alone.steps.is_empty());
    let named = alone.skipped.iter().find(|skipped| skipped.what == "PodMonitor velero/m").unwrap();
    assert_eq!(named.why, "the cluster does not serve PodMonitors");
    let (more, with) = one(object(crd.clone()), None, DryRun::Would(crd));
    items.splice(0..0, more);
    observed.objects.extend(with.objects);
    let titles: Vec<String> =
        plan(&items, &observed).unwrap().steps.into_iter().map(|step| step.title).collect();
    assert_eq!(titles, ["create CustomResourceDefinition podmonitors", "create PodMonitor velero/m"]);
}

#[test]
fn what_only_the_server_keeps_is_no_change() {
    let would = DryRun::Would(kept(deployment("v2"), 9));
    let (items, observed) = one(object(deployment("v2")), Some(kept(deployment("v2"), 1)), would);
    let plan = plan(&items, &observed).unwrap();
    assert!(plan.is_empty() && plan.steps.is_empty());
}

#[test]
fn a_change_shows_as_a_short_diff() {
    let would = DryRun::Would(kept(deployment("v2"), 1));
    let (items, observed) = one(object(deployment("v2")), Some(kept(deployment("v1"), 1)), would);
    let plan = plan(&items, &observed).unwrap();
    assert_eq!(plan.steps[0].title, "change Deployment velero/velero");
    let diff = &plan.steps[0].diff;
    assert!(diff.contains("image: v1") && diff.contains("image: v2") && !diff.contains("uid"), "{diff}");
}

#[test]
fn an_object_of_helm_or_flux_is_refused_with_its_owner_unless_nothing_would_change() {
    let helm = json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}, "annotations":
        {"meta.helm.sh/release-name": "velero", "meta.helm.sh/release-namespace": "velero"}});
    let flux = json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}});
    for (marks, name) in [(helm, "Helm release velero/velero"), (flux, "Flux Kustomization flux-system/apps")]
    {
        let mut live = kept(deployment("v1"), 1);
        for (key, value) in marks.as_object().unwrap() {
            live["metadata"][key] = value.clone();
        }
        let mut changed = live.clone();
        changed["spec"] = deployment("v2")["spec"].clone();
        for dry_run in [DryRun::Would(changed), DryRun::Conflict("\"helm\" manages .spec".into())] {
            let (items, observed) = one(object(deployment("v2")), Some(live.clone()), dry_run);
            let error = plan(&items, &observed).unwrap_err();
            assert_eq!(error.kind, Kind::Refused);
            assert_eq!(error.what, format!("Deployment velero/velero belongs to {name}"));
            assert!(error.hint.is_some());
        }
        let (items, observed) = one(object(deployment("v1")), Some(live.clone()), DryRun::Would(live));
        assert!(plan(&items, &observed).unwrap().is_empty());
    }
}

#[test]
fn a_storage_class_that_would_need_replacing_is_refused_with_the_way_out() {
    let refused = DryRun::Refused("StorageClass openebs-hostpath: reclaimPolicy: Forbidden".into());
    let (items, observed) = one(object(class("Retain")), Some(kept(class("Delete"), 1)), refused);
    let error = plan(&items, &observed).unwrap_err();
    assert_eq!(error.kind, Kind::Refused);
    assert!(error.what.contains("reclaimPolicy is \"Delete\", asked for is \"Retain\""), "{error}");
    assert!(error.hint.unwrap().contains("kubectl delete storageclass openebs-hostpath"));
}

#[test]
fn a_repository_password_that_exists_is_never_replaced() {
    let live = kept(password("b2xk").value, 1);
    let (items, observed) = one(password("bmV3"), Some(live.clone()), DryRun::Would(live));
    assert!(plan(&items, &observed).unwrap().steps.is_empty());
}

#[test]
fn a_secrets_diff_names_keys_and_no_value() {
    let wanted = Object { create_only: false, ..password("bmV3") };
    let would = DryRun::Would(kept(wanted.value.clone(), 1));
    let (items, observed) = one(wanted.clone(), Some(kept(password("b2xk").value, 1)), would.clone());
    let diff = plan(&items, &observed).unwrap().steps[0].diff.clone();
    assert_eq!(diff, " data.repository-password: (changed)\n");
    let (items, observed) = one(wanted, None, would);
    let diff = plan(&items, &observed).unwrap().steps[0].diff.clone();
    assert_eq!(diff, "+data.repository-password: (hidden)\n+metadata: (new)\n");
}

#[test]
fn what_the_server_refuses_stops_the_plan() {
    for (dry_run, kind) in [
        (DryRun::Conflict("\"kubectl-edit\" manages .spec.replicas".into()), Kind::Refused),
        (DryRun::Refused("spec.x: Required value".into()), Kind::Failed),
    ] {
        let (items, observed) = one(object(deployment("v2")), Some(kept(deployment("v1"), 1)), dry_run);
        assert_eq!(plan(&items, &observed).unwrap_err().kind, kind);
    }
}

#[test]
fn a_wait_comes_when_something_changes_or_is_not_ready() {
    let ready =
        Ready::Workload { kind: "Deployment".into(), namespace: "velero".into(), name: "velero".into() };
    let steps = |live: &str, lacks: Option<&str>| {
        let would = DryRun::Would(kept(deployment("v2"), 1));
        let (mut items, mut observed) = one(object(deployment("v2")), Some(kept(deployment(live), 1)), would);
        items.push(StackItem::Ready(ready.clone()));
        observed.waits.push(AwaitedState { ready: ready.clone(), lacks: lacks.map(Into::into) });
        let plan = plan(&items, &observed).unwrap();
        plan.steps.iter().map(|step| (step.id.clone(), step.why.clone())).collect::<Vec<_>>()
    };
    assert!(steps("v2", None).is_empty());
    let wait = "ready/velero/Deployment/velero".to_owned();
    assert_eq!(steps("v2", Some("0 of 1 pods ready")), [(wait.clone(), "0 of 1 pods ready".into())]);
    assert_eq!(steps("v1", None)[1].0, wait);
}

#[test]
fn a_workload_that_no_node_can_run_is_refused_with_what_keeps_it_from_each() {
    let node = |name: &str, rest: Value| {
        let mut node = json!({"metadata": {"name": name, "labels": {"disk": "nvme"}}, "status": {
            "conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": name}],
        }});
        for (key, value) in rest.as_object().unwrap() {
            for (inner, value) in value.as_object().unwrap() {
                node[key][inner] = value.clone();
            }
        }
        node
    };
    let taint = |key: &str, effect: &str| json!({"spec": {"taints": [{"key": key, "effect": effect}]}});
    let (plane, key) = ("node-role.kubernetes.io/control-plane", "operator");
    let tolerated = json!([{"key": plane, key: "Exists", "effect": "NoSchedule"}]);
    let planned = |nodes: Vec<Value>, spec: Value| {
        let mut wanted = deployment("v2");
        for (key, value) in spec.as_object().unwrap() {
            wanted["spec"]["template"]["spec"][key] = value.clone();
        }
        let (items, mut observed) = one(object(wanted.clone()), None, DryRun::Would(kept(wanted, 1)));
        observed.nodes = nodes.into_iter().map(|node| serde_json::from_value(node).unwrap()).collect();
        let file = "apiVersion: nodeprep.dev/v1alpha1\nkind: Cluster\nmetadata: {name: lab}\nnodes: [{address: n9}]\n\
                    labels: {role: storage}\n";
        stack::plan(&intent::parse("nodeprep.yaml", file.as_bytes()).unwrap(), &items, &observed)
    };
    let free = || node("n1", json!({}));
    for (nodes, spec, says) in [
        (vec![free()], json!({}), None),
        (vec![], json!({}), None),
        (
            vec![node("n1", taint(plane, "NoSchedule"))],
            json!({}),
            Some("n1 (taint node-role.kubernetes.io/control-plane:NoSchedule)"),
        ),
        (vec![node("n1", taint(plane, "NoSchedule"))], json!({"tolerations": tolerated}), None),
        (vec![node("n1", taint(plane, "PreferNoSchedule"))], json!({}), None),
        (vec![node("n1", taint("a", "NoExecute")), free()], json!({}), None),
        (vec![node("n1", json!({"spec": {"unschedulable": true}}))], json!({}), Some("n1 (cordoned)")),
        (
            vec![node(
                "n1",
                json!({"spec": {"unschedulable": true}, "metadata": {"annotations": {"nodeprep.dev/cordoned": "nodeprep"}}}),
            )],
            json!({}),
            None,
        ),
        (
            vec![
                node("n1", json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})),
                node("n2", taint("a", "NoExecute")),
            ],
            json!({}),
            Some("n1 (not Ready); n2 (taint a:NoExecute)"),
        ),
        (
            vec![free(), node("n2", json!({}))],
            json!({"nodeSelector": {"disk": "ssd"}}),
            Some("n1, n2 (no label disk=ssd)"),
        ),
        (vec![free()], json!({"nodeSelector": {"disk": "nvme"}}), None),
        // The file will label n9 so.
        (vec![node("n9", json!({}))], json!({"nodeSelector": {"role": "storage"}}), None),
        (vec![free()], json!({"nodeSelector": {"role": "storage"}}), Some("n1 (no label role=storage)")),
    ] {
        let planned = planned(nodes, spec.clone());
        match (planned, says) {
            (Ok(_), None) => {}
            (Err(error), Some(says)) => {
                assert_eq!(error.kind, Kind::Refused, "{spec}");
                assert!(error.what.contains(says), "{}", error.what);
                assert!(error.hint.unwrap().contains("backup.server.tolerations"));
            }
            (planned, says) => panic!("{spec}: {says:?} {:?}", planned.map(|plan| plan.steps.len())),
        }
    }
}
