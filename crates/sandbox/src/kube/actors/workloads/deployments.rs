//! Deployments: a ReplicaSet for each template, of which the newest has the pods.

use serde_json::{Map, Value, json};

use super::{MANAGER, template_hash};
use crate::kube::actors::objects::{
    collection, condition, condition_of, counts, number, owner_uid, path, set_status,
};
use crate::kube::actors::{Stage, ending, names, owned_by, text};

const WHO: &str = "deployment-controller";
const HASH: &str = "pod-template-hash";

pub(super) fn act(stage: &mut Stage<'_>) {
    for deployment in stage.all("apps/deployments", "") {
        if !ending(&deployment) {
            sync(stage, &deployment);
        }
    }
}

fn sync(stage: &mut Stage<'_>, deployment: &Value) {
    let (namespace, name) = names(deployment);
    let hash = template_hash(deployment);
    let newest = format!("{name}-{hash}");
    let sets = stage.api.store.list("apps/replicasets", namespace).map(|(_, set)| set);
    let sets = sets.filter(|set| owner_uid(set) == text(deployment, "/metadata/uid")).cloned();
    let (new, old): (Vec<Value>, Vec<Value>) = sets.partition(|set| names(set).1 == newest);
    roll(stage, deployment, new.first(), &old, &hash);
    let status = status(deployment, new.first(), &old, &newest, &stage.time());
    set_status(stage, MANAGER, deployment, status);
}

/// Old pods go and new ones come: first the one, then the other, as the strategy says.
fn roll(stage: &mut Stage<'_>, deployment: &Value, new: Option<&Value>, old: &[Value], hash: &str) {
    let wanted = number(deployment, "/spec/replicas").unwrap_or(1);
    let recreate = deployment["spec"]["strategy"]["type"] == "Recreate";
    let of_old = |pod: &Value| {
        let over = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
        !over && old.iter().any(|set| owner_uid(pod) == text(set, "/metadata/uid"))
    };
    let namespace = names(deployment).0;
    let waits = recreate && stage.api.store.list("/pods", namespace).any(|(_, pod)| of_old(pod));
    let available = new.and_then(|set| number(set, "/status/availableReplicas")).unwrap_or(0);
    if recreate || available >= wanted {
        for set in old {
            scale(stage, deployment, set, 0);
        }
    }
    match new {
        _ if waits => {}
        Some(set) => scale(stage, deployment, set, wanted),
        None => make(stage, deployment, old.len(), hash, wanted),
    }
}

fn scale(stage: &mut Stage<'_>, deployment: &Value, set: &Value, to: u64) {
    let from = number(set, "/spec/replicas").unwrap_or(1);
    if from == to || stage.patch(MANAGER, &path(set), &json!({"spec": {"replicas": to}})).is_err() {
        return;
    }
    let way = if to > from { "up" } else { "down" };
    let said = format!("Scaled {way} replica set {} from {from} to {to}", names(set).1);
    stage.event(WHO, "Normal", deployment, "ScalingReplicaSet", &said);
}

fn make(stage: &mut Stage<'_>, deployment: &Value, before: usize, hash: &str, wanted: u64) {
    let (namespace, name) = names(deployment);
    let spec = &deployment["spec"];
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{name}-{hash}"), "labels": spec["template"]["metadata"]["labels"],
            "annotations": {
                "deployment.kubernetes.io/revision": (before + 1).to_string(),
                "deployment.kubernetes.io/desired-replicas": wanted.to_string(),
            },
            "ownerReferences": owned_by(deployment),
        },
        "spec": {"replicas": wanted, "selector": spec["selector"], "template": spec["template"]},
    });
    if !spec["minReadySeconds"].is_null() {
        set["spec"]["minReadySeconds"] = spec["minReadySeconds"].clone();
    }
    let hashed = json!({HASH: hash});
    json_patch::merge(
        &mut set,
        &json!({
            "metadata": {"labels": hashed},
            "spec": {"selector": {"matchLabels": hashed}, "template": {"metadata": {"labels": hashed}}},
        }),
    );
    if stage.ask(MANAGER, "POST", &collection("apps/v1", "ReplicaSet", namespace), &set).is_ok() {
        let said = format!("Scaled up replica set {name}-{hash} from 0 to {wanted}");
        stage.event(WHO, "Normal", deployment, "ScalingReplicaSet", &said);
    }
}

fn status(deployment: &Value, new: Option<&Value>, old: &[Value], newest: &str, now: &str) -> Value {
    let of = |set: &Value, field: &str| set["status"][field].as_u64().unwrap_or(0);
    let sum = |field: &str| -> u64 { old.iter().chain(new).map(|set| of(set, field)).sum() };
    let wanted = number(deployment, "/spec/replicas").unwrap_or(1);
    let (replicas, ready, available) = (sum("replicas"), sum("readyReplicas"), sum("availableReplicas"));
    let updated = new.map_or(0, |set| of(set, "replicas"));
    let rolling = deployment["spec"]["strategy"]["type"] == "RollingUpdate";
    let enough = available >= if rolling { wanted - wanted / 4 } else { wanted };
    let done = updated == wanted && replicas == wanted && available >= wanted;
    let mut conditions = vec![if enough {
        let message = "Deployment has minimum availability.";
        condition(deployment, "Available", "True", "MinimumReplicasAvailable", message, now)
    } else {
        let message = "Deployment does not have minimum availability.";
        condition(deployment, "Available", "False", "MinimumReplicasUnavailable", message, now)
    }];
    conditions.push(if done {
        let message = format!("ReplicaSet {newest:?} has successfully progressed.");
        condition(deployment, "Progressing", "True", "NewReplicaSetAvailable", &message, now)
    } else {
        let message = format!("ReplicaSet {newest:?} is progressing.");
        condition(deployment, "Progressing", "True", "ReplicaSetUpdated", &message, now)
    });
    if let Some(failure) = new.and_then(|set| condition_of(set, "ReplicaFailure")) {
        let (reason, message) = (text(failure, "/reason"), text(failure, "/message"));
        conditions.push(condition(deployment, "ReplicaFailure", "True", reason, message, now));
    }
    for condition in &mut conditions {
        condition["lastUpdateTime"] = condition["lastTransitionTime"].clone();
    }
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let mut status: Map<String, Value> = counts(&[
        ("replicas", count(replicas)),
        ("updatedReplicas", count(updated)),
        ("readyReplicas", count(ready)),
        ("availableReplicas", count(available)),
        ("unavailableReplicas", count(wanted.saturating_sub(available))),
    ]);
    status.insert("observedGeneration".into(), deployment["metadata"]["generation"].clone());
    status.insert("conditions".into(), Value::Array(conditions));
    Value::Object(status)
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::kube::actors::objects::holds;
    use crate::kube::actors::scene::Scene;

    const PATH: &str = "/apis/apps/v1/namespaces/default/deployments/web";

    pub(in super::super) fn deployment(name: &str, replicas: u64) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{"name": "main", "image": "docker.io/x/web:1"}]},
                },
            },
        })
    }

    fn numbers(scene: &Scene) -> [u64; 4] {
        let web = scene.get("apps/deployments", "default", "web").unwrap_or_default();
        ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"]
            .map(|field| web["status"][field].as_u64().unwrap_or(0))
    }

    #[test]
    fn a_deployment_gets_its_pods_and_says_when_they_are_ready() {
        let mut scene = Scene::new(&["n1", "n2"]);
        let made = scene.apply(deployment("web", 3));
        scene.run(5);
        assert_eq!(numbers(&scene), [3; 4]);
        let web = scene.get("apps/deployments", "default", "web").unwrap_or_default();
        assert!(holds(&web, "Available") && holds(&web, "Progressing"), "{web}");
        assert_eq!(web["status"]["observedGeneration"], web["metadata"]["generation"]);
        let sets = scene.all("apps/replicasets", "default");
        assert_eq!((sets.len(), owner_uid(&sets[0])), (1, text(&made, "/metadata/uid")));
        let hash = &sets[0]["metadata"]["labels"][HASH];
        assert!(sets[0]["spec"]["minReadySeconds"].is_null());
        for pod in scene.all("/pods", "default") {
            assert_eq!(pod["metadata"]["labels"][HASH], *hash);
            assert!(names(&pod).1.starts_with(&format!("web-{}-", hash.as_str().unwrap_or("?"))), "{pod}");
        }
        assert!(
            scene.events("default").iter().any(|event| event.starts_with("ScalingReplicaSet: Scaled up"))
        );
    }

    #[test]
    fn a_pod_is_available_when_it_was_ready_for_long_enough() {
        let mut scene = Scene::new(&["n1"]);
        let mut web = deployment("web", 1);
        web["spec"]["minReadySeconds"] = json!(10);
        scene.apply(web);
        scene.run(8);
        assert_eq!(numbers(&scene), [1, 1, 1, 0]);
        scene.run(4);
        assert_eq!(numbers(&scene), [1; 4]);
        // What always ends again is ready in between, and never available.
        let spec = json!({"containers": [{"name": "main", "image": "x:exits-soon"}]});
        scene.patch(PATH, &json!({"spec": {"template": {"spec": spec}}}));
        let mut ready = 0;
        for _ in 0..60 {
            scene.run(1);
            let [.., up, _] = numbers(&scene);
            ready += u64::from(up == 2);
            let set = scene.all("apps/replicasets", "default");
            let available = set.iter().filter(|set| set["status"]["availableReplicas"] == 1).count();
            assert_eq!(available, 1, "only the old one: {set:?}");
        }
        assert!(ready > 0);
    }

    /// Whenever in a second its container starts, and however late the controllers are.
    #[test]
    fn a_pod_that_ends_soon_is_never_available_where_time_is_short() {
        for late in [0, 40, 700, 2500] {
            for begins in [0, 300, 600, 950] {
                let mut scene = Scene::new(&["n1"]);
                scene.timers.speed = 20.0;
                scene.now += SignedDuration::from_millis(begins);
                let mut web = deployment("web", 1);
                web["spec"]["minReadySeconds"] = json!(10);
                web["spec"]["template"]["spec"]["containers"][0]["image"] = json!("x:exits-soon");
                scene.apply(web);
                let mut ready = 0;
                for _ in 0..200 {
                    scene.run(0);
                    let [.., up, available] = numbers(&scene);
                    ready += up;
                    assert_eq!(available, 0, "begins {begins} ms, late {late} ms");
                    let next = scene.timers.next().unwrap_or(scene.now).max(scene.now);
                    scene.now = next + SignedDuration::from_millis(late);
                }
                assert!(ready > 0);
            }
        }
    }

    #[test]
    fn a_new_template_brings_new_pods_by_either_strategy() {
        for strategy in ["RollingUpdate", "Recreate"] {
            let mut scene = Scene::new(&["n1"]);
            let mut web = deployment("web", 2);
            web["spec"]["strategy"] = json!({"type": strategy});
            scene.apply(web);
            scene.run(5);
            let before = scene.names("/pods", "default");
            scene.patch(
                PATH,
                &json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "x:2"}]}}}}),
            );
            scene.run(5);
            let after = scene.names("/pods", "default");
            assert!(
                after.len() == 2 && before.iter().all(|name| !after.contains(name)),
                "{strategy}: {after:?}"
            );
            assert_eq!((numbers(&scene), scene.names("apps/replicasets", "").len()), ([2; 4], 2));
        }
    }

    #[test]
    fn replicas_are_followed_up_and_down() {
        let mut scene = Scene::new(&["n1"]);
        scene.apply(deployment("web", 1));
        for replicas in [3_u64, 0, 1] {
            scene.patch(PATH, &json!({"spec": {"replicas": replicas}}));
            scene.run(5);
            assert_eq!(numbers(&scene), [replicas; 4]);
        }
    }

    #[test]
    fn a_pod_that_goes_is_replaced_and_one_that_cannot_run_is_told() {
        let mut scene = Scene::new(&["n1"]);
        scene.apply(deployment("web", 1));
        scene.run(5);
        let before = scene.names("/pods", "default");
        scene.delete(&format!("/api/v1/namespaces/default/pods/{}", before[0]));
        scene.run(5);
        assert!(numbers(&scene) == [1; 4] && scene.names("/pods", "default") != before);
        let spec = json!({"containers": [{"name": "main", "image": "x:does-not-exist"}]});
        scene.patch(PATH, &json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}, "template": {"spec": spec}}}));
        scene.run(5);
        assert_eq!(numbers(&scene), [1, 1, 0, 0]);
        let web = scene.get("apps/deployments", "default", "web").unwrap_or_default();
        assert!(!holds(&web, "Available"), "{web}");
    }

    #[test]
    fn pods_that_pod_security_refuses_are_told_of_by_and_by() {
        let mut scene = Scene::new(&["n1"]);
        let mut web = deployment("web", 1);
        web["spec"]["template"]["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
        scene.apply(web);
        scene.run(30);
        let refused: Vec<String> =
            scene.events("default").into_iter().filter(|event| event.starts_with("FailedCreate")).collect();
        assert!((2..=10).contains(&refused.len()), "{refused:?}");
        let said = "is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"main\" must not set";
        assert!(refused[0].starts_with("FailedCreate: Error creating: pods \"web-"), "{refused:?}");
        assert!(refused[0].contains(said), "{refused:?}");
        assert_eq!(numbers(&scene), [0; 4]);
        let web = scene.get("apps/deployments", "default", "web").unwrap_or_default();
        assert!(holds(&web, "ReplicaFailure") && !holds(&web, "Available"), "{web}");
        let level = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}});
        scene.patch("/api/v1/namespaces/default", &level);
        scene.run(10);
        assert_eq!(numbers(&scene), [1; 4]);
        let web = scene.get("apps/deployments", "default", "web").unwrap_or_default();
        assert!(!holds(&web, "ReplicaFailure"), "{web}");
    }
}
