//! DaemonSets: a pod on every node that fits.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    BURST, MANAGER, Member, Members, available, make_pod, may_make, pods_of, remove_pod, template_hash,
};
use crate::kube::actors::objects::{counts, list, set_status};
use crate::kube::actors::scheduler::{chooses, untolerated};
use crate::kube::actors::{Stage, ending};

const WHO: &str = "daemonset-controller";
const HASH: &str = "controller-revision-hash";

pub(super) fn act(stage: &mut Stage<'_>, members: &Members) {
    for set in stage.all("apps/daemonsets", "") {
        if !ending(&set) {
            sync(stage, &set, pods_of(members, &set));
        }
    }
}

/// How a node stands to the set.
struct Spot {
    /// It is to have a pod.
    wanted: bool,
    /// A pod that exists may stay.
    may_stay: bool,
}

type Spots = BTreeMap<String, Spot>;
/// The pod of a node.
type ByNode<'a> = BTreeMap<&'a str, &'a Member>;

fn sync(stage: &mut Stage<'_>, set: &Value, pods: &[Member]) {
    let hash = template_hash(set);
    let spec = pod_spec(&set["spec"]["template"]["spec"]);
    let nodes = stage.api.store.list("/nodes", "");
    let spots: Spots = nodes.map(|(place, node)| (place.name.clone(), spot(&spec, node))).collect();
    let mut by_node = ByNode::new();
    for pod in pods.iter().filter(|pod| pod.active() && spots.contains_key(&pod.node)) {
        by_node.entry(&pod.node).or_insert(pod);
    }
    // A new one comes when the old one is gone.
    let taken: BTreeSet<&str> = pods.iter().filter(|pod| !pod.over()).map(|pod| pod.node.as_str()).collect();
    let missing = spots.iter().filter(|(node, spot)| spot.wanted && !taken.contains(node.as_str()));
    let missing: Vec<&String> = missing.map(|(node, _)| node).collect();
    if !missing.is_empty() && may_make(stage, set) {
        let mut missing = missing.iter().take(BURST);
        let _ = missing.try_for_each(|node| make_pod(stage, WHO, set, &pod_on(&spec, node, &hash)));
    }
    let up: BTreeSet<&str> =
        pods.iter().filter(|pod| available(stage, set, pod)).map(|pod| pod.name.as_str()).collect();
    for pod in leaving(set, pods, &spots, &by_node, (&hash, &up)) {
        remove_pod(stage, WHO, set, pod);
    }
    set_status(stage, MANAGER, set, status(set, &spots, &by_node, (&hash, &up)));
}

/// What the controller adds to its pods: they outlive what drives others from a node.
fn pod_spec(template: &Value) -> Value {
    const TOLERATED: [(&str, &str); 6] = [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ];
    let more = TOLERATED.iter().map(|(name, effect)| {
        json!({"key": format!("node.kubernetes.io/{name}"), "operator": "Exists", "effect": effect})
    });
    let all: Vec<Value> = list(template, "/tolerations").iter().cloned().chain(more).collect();
    let mut spec = template.clone();
    json_patch::merge(&mut spec, &json!({"tolerations": all}));
    spec
}

/// What makes a pod of the template the one of this node.
fn pod_on(spec: &Value, node: &str, hash: &str) -> Value {
    let field = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    let required = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
    json!({
        "metadata": {"labels": {HASH: hash}},
        "spec": {
            "tolerations": spec["tolerations"],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}},
        },
    })
}

fn spot(spec: &Value, node: &Value) -> Spot {
    let chosen = chooses(spec, node);
    Spot {
        wanted: chosen && !untolerated(spec, node, &["NoSchedule", "NoExecute"]),
        may_stay: chosen && !untolerated(spec, node, &["NoExecute"]),
    }
}

/// The pods that go: those that ended, that have no place, and of an old template one after the other.
fn leaving<'a>(
    set: &Value,
    pods: &'a [Member],
    spots: &Spots,
    by_node: &ByNode<'_>,
    (hash, available): (&str, &BTreeSet<&str>),
) -> Vec<&'a Member> {
    let stays = |pod: &Member| {
        by_node.get(pod.node.as_str()).is_some_and(|first| first.name == pod.name)
            && spots.get(&pod.node).is_some_and(|spot| spot.may_stay)
    };
    let here = pods.iter().filter(|pod| !pod.ending);
    let (stay, mut leaving): (Vec<&Member>, Vec<&Member>) = here.partition(|pod| stays(pod));
    if set["spec"]["updateStrategy"]["type"] == "OnDelete" {
        return leaving;
    }
    let (current, old): (Vec<&Member>, Vec<&Member>) = stay.into_iter().partition(|pod| pod.revision == hash);
    let is_up = |pod: &&Member| available.contains(pod.name.as_str());
    let (ready, unready): (Vec<&Member>, Vec<&Member>) = old.into_iter().partition(is_up);
    let wanted = spots.values().filter(|spot| spot.wanted).count();
    let up = ready.len() + current.iter().filter(|pod| is_up(pod)).count();
    leaving.extend(unready);
    if up >= wanted {
        leaving.extend(ready.first());
    }
    leaving
}

fn status(set: &Value, spots: &Spots, by_node: &ByNode<'_>, (hash, up): (&str, &BTreeSet<&str>)) -> Value {
    let with = |wanted: bool, fits: &dyn Fn(&Member) -> bool| {
        let nodes = spots.iter().filter(|(_, spot)| spot.wanted == wanted).map(|(node, _)| node);
        nodes.filter(|node| by_node.get(node.as_str()).is_some_and(|pod| fits(pod))).count()
    };
    let desired = spots.values().filter(|spot| spot.wanted).count();
    let ready = with(true, &|pod| pod.ready);
    let available = with(true, &|pod| up.contains(pod.name.as_str()));
    let mut status = counts(&[
        ("updatedNumberScheduled", with(true, &|pod| pod.revision == hash)),
        ("numberAvailable", available),
        ("numberUnavailable", desired - available),
    ]);
    for (field, number) in [
        ("currentNumberScheduled", with(true, &|_| true)),
        ("desiredNumberScheduled", desired),
        ("numberMisscheduled", with(false, &|_| true)),
        ("numberReady", ready),
    ] {
        status.insert(field.into(), json!(number));
    }
    status.insert("observedGeneration".into(), set["metadata"]["generation"].clone());
    Value::Object(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::actors::scene::Scene;
    use crate::kube::actors::text;

    const PATH: &str = "/apis/apps/v1/namespaces/default/daemonsets/agent";

    fn agent(spec: Value) -> Value {
        let mut all = json!({"containers": [{"name": "main", "image": "x:1"}]});
        json_patch::merge(&mut all, &spec);
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"},
            "spec": {
                "selector": {"matchLabels": {"app": "agent"}},
                "template": {"metadata": {"labels": {"app": "agent"}}, "spec": all},
            },
        })
    }

    /// Desired, current, updated, ready and misscheduled.
    fn numbers(scene: &Scene) -> [u64; 5] {
        let set = scene.get("apps/daemonsets", "default", "agent").unwrap_or_default();
        assert_eq!(set["status"]["observedGeneration"], set["metadata"]["generation"]);
        [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "updatedNumberScheduled",
            "numberReady",
            "numberMisscheduled",
        ]
        .map(|field| set["status"][field].as_u64().unwrap_or(0))
    }

    #[test]
    fn every_node_that_fits_gets_a_pod_of_its_own() {
        let control_plane = json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]);
        for (case, spec, wanted) in [
            ("a taint keeps it away", json!({}), vec!["n2", "n3"]),
            ("tolerated", json!({"tolerations": [{"operator": "Exists"}]}), vec!["n1", "n2", "n3"]),
            ("a selector chooses", json!({"nodeSelector": {"kubernetes.io/hostname": "n3"}}), vec!["n3"]),
            ("nothing fits", json!({"nodeSelector": {"disk": "gone"}}), vec![]),
        ] {
            let mut scene = Scene::new(&["n1", "n2", "n3"]);
            scene.patch("/api/v1/nodes/n1", &json!({"spec": {"taints": control_plane}}));
            scene.patch("/api/v1/nodes/n2", &json!({"spec": {"unschedulable": true}}));
            scene.apply(agent(spec));
            scene.run(5);
            let pods = scene.all("/pods", "default");
            let mut nodes: Vec<&str> = pods.iter().map(|pod| text(pod, "/spec/nodeName")).collect();
            nodes.sort_unstable();
            assert_eq!(nodes, wanted, "{case}");
            let count = wanted.len() as u64;
            assert_eq!(numbers(&scene), [count, count, count, count, 0], "{case}");
        }
    }

    #[test]
    fn nodes_come_and_go_and_so_do_the_pods() {
        let mut scene = Scene::new(&["n1", "n2"]);
        scene.apply(agent(json!({"nodeSelector": {"openebs.io/storage-node": "true"}})));
        scene.run(5);
        assert_eq!(numbers(&scene), [2, 2, 2, 2, 0]);
        scene.patch("/api/v1/nodes/n1", &json!({"metadata": {"labels": {"openebs.io/storage-node": null}}}));
        scene.run(5);
        assert_eq!((numbers(&scene), scene.names("/pods", "default").len()), ([1, 1, 1, 1, 0], 1));
        scene.delete("/api/v1/nodes/n2");
        scene.hosts.remove("n2");
        scene.run(5);
        assert_eq!((numbers(&scene), scene.names("/pods", "default").len()), ([0; 5], 0));
    }

    #[test]
    fn a_new_template_takes_one_node_after_the_other() {
        let mut scene = Scene::new(&["n1", "n2", "n3"]);
        scene.apply(agent(json!({})));
        scene.run(5);
        let before = scene.names("/pods", "default");
        let spec = json!({"containers": [{"name": "main", "image": "x:does-not-exist"}]});
        scene.patch(PATH, &json!({"spec": {"template": {"spec": spec}}}));
        scene.run(5);
        assert_eq!(numbers(&scene), [3, 3, 1, 2, 0]);
        let spec = json!({"containers": [{"name": "main", "image": "x:2"}]});
        scene.patch(PATH, &json!({"spec": {"template": {"spec": spec}}}));
        scene.run(10);
        assert_eq!(numbers(&scene), [3, 3, 3, 3, 0]);
        assert!(before.iter().all(|name| !scene.names("/pods", "default").contains(name)));
    }

    #[test]
    fn a_node_that_is_down_has_no_ready_pod() {
        let mut scene = Scene::new(&["n1", "n2"]);
        scene.apply(agent(json!({"tolerations": [{"operator": "Exists"}]})));
        scene.run(5);
        scene.host("n1").down = true;
        scene.run(5);
        assert_eq!(numbers(&scene), [2, 2, 2, 1, 0]);
        scene.host("n1").down = false;
        scene.run(20);
        assert_eq!(numbers(&scene), [2, 2, 2, 2, 0]);
    }

    #[test]
    fn host_paths_need_the_privileged_level() {
        let mut scene = Scene::new(&["n1"]);
        scene.apply(agent(
            json!({"volumes": [{"name": "host-pods", "hostPath": {"path": "/var/lib/kubelet/pods"}}]}),
        ));
        scene.run(5);
        assert_eq!(numbers(&scene), [1, 0, 0, 0, 0]);
        let told = scene.events("default");
        let refused = "violates PodSecurity \"baseline:latest\": hostPath volumes (volume \"host-pods\")";
        assert!(
            told.iter().any(|event| event.starts_with("FailedCreate: ") && event.contains(refused)),
            "{told:?}"
        );
    }
}
