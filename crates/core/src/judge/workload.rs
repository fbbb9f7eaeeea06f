//! What workloads and nodes lack to be ready, by their own status.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use super::pods::{short, some};

/// What a DaemonSet says that is to run nowhere.
pub(super) const NO_NODE: &str = "no node matches its node selector and tolerations";

/// What the counts of a Deployment or DaemonSet lack. One that can't be read is not ready.
pub fn workload_lacks(kind: &str, object: &Value) -> Option<String> {
    if kind == "DaemonSet" { read(object, daemon_set_lacks) } else { read(object, deployment_lacks) }
}

/// A node is ready when its kubelet says so.
pub fn node_lacks(object: &Value) -> Option<String> {
    read(object, |node: &Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref());
        match conditions.unwrap_or_default().iter().find(|condition| condition.type_ == "Ready") {
            Some(ready) if ready.status == "True" => None,
            Some(ready) => Some(ready.message.clone().unwrap_or_default()),
            None => Some("its kubelet has not said anything yet".into()),
        }
    })
}

/// What a CustomResourceDefinition lacks to be served.
pub fn crd_lacks(object: &Value) -> Option<String> {
    read(object, |crd: &CustomResourceDefinition| {
        let conditions = crd.status.as_ref().and_then(|status| status.conditions.as_deref());
        ["NamesAccepted", "Established"].into_iter().find_map(|kind| {
            match conditions.unwrap_or_default().iter().find(|condition| condition.type_ == kind) {
                Some(condition) if condition.status == "True" => None,
                Some(condition) => Some(short(&format!("not {kind}: {}", some(&condition.message)))),
                None => Some(format!("not {kind} yet")),
            }
        })
    })
}

/// So many pods a Deployment or DaemonSet is to have; none where that can't be read.
pub(super) fn wanted(kind: &str, object: &Value) -> i32 {
    match kind {
        "DaemonSet" => DaemonSet::deserialize(object)
            .map_or(0, |set| set.status.map_or(0, |status| status.desired_number_scheduled)),
        _ => Deployment::deserialize(object).map_or(0, |deployment| deployment.spec.replicas.unwrap_or(1)),
    }
}

fn read<'a, K: Deserialize<'a>>(object: &'a Value, lacks: impl Fn(&K) -> Option<String>) -> Option<String> {
    match K::deserialize(object) {
        Ok(object) => lacks(&object),
        Err(error) => Some(format!("what the API server says of it can't be read: {error}")),
    }
}

/// The controller has not yet seen the newest form of the object.
fn unobserved(metadata: &ObjectMeta, observed: Option<i64>) -> Option<String> {
    let behind = observed.unwrap_or_default() < metadata.generation.unwrap_or_default();
    behind.then(|| "its controller has not seen the change yet".into())
}

fn deployment_lacks(object: &Deployment) -> Option<String> {
    let status = object.status.clone().unwrap_or_default();
    if let Some(lack) = unobserved(&object.metadata, status.observed_generation) {
        return Some(lack);
    }
    let wanted = object.spec.replicas.unwrap_or(1);
    if wanted == 0 {
        return Some("it is to run no pods: its replicas are 0".into());
    }
    let updated = status.updated_replicas.unwrap_or_default();
    if updated < wanted {
        return Some(format!("{updated} of {wanted} pods made in the newest form"));
    }
    let old = status.replicas.unwrap_or_default() - updated;
    if old > 0 {
        return Some(format!("{old} old pods still there"));
    }
    of_ready(wanted, status.ready_replicas.unwrap_or_default(), status.available_replicas.unwrap_or_default())
}

fn daemon_set_lacks(object: &DaemonSet) -> Option<String> {
    let status = object.status.clone().unwrap_or_default();
    if let Some(lack) = unobserved(&object.metadata, status.observed_generation) {
        return Some(lack);
    }
    let wanted = status.desired_number_scheduled;
    if wanted == 0 {
        return Some(NO_NODE.into());
    }
    let updated = status.updated_number_scheduled.unwrap_or_default();
    if updated < wanted {
        return Some(format!("{updated} of {wanted} pods made in the newest form"));
    }
    of_ready(wanted, status.number_ready, status.number_available.unwrap_or_default())
}

/// Available is what was ready for as long as `minReadySeconds` asks.
fn of_ready(wanted: i32, ready: i32, available: i32) -> Option<String> {
    if available < wanted && ready >= wanted {
        return Some(format!("{available} of {wanted} pods ready for long enough"));
    }
    (available < wanted || ready < wanted).then(|| format!("{} of {wanted} pods ready", ready.min(available)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_workload_is_ready_only_when_all_pods_of_the_newest_form_were_ready_for_long_enough() {
        let status = |pairs: &[(&str, i64)]| -> Value {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), json!(value)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let deployment = |seen: i64, all: i64, updated: i64, ready: i64, available: i64| {
            status(&[
                ("observedGeneration", seen),
                ("replicas", all),
                ("updatedReplicas", updated),
                ("readyReplicas", ready),
                ("availableReplicas", available),
            ])
        };
        let set = |seen: i64, wanted: i64, updated: i64, ready: i64, available: i64| {
            status(&[
                ("observedGeneration", seen),
                ("desiredNumberScheduled", wanted),
                ("updatedNumberScheduled", updated),
                ("numberReady", ready),
                ("numberAvailable", available),
            ])
        };
        for (kind, replicas, status, lack) in [
            ("Deployment", json!(2), deployment(2, 2, 2, 2, 2), None),
            ("Deployment", json!(2), deployment(1, 2, 2, 2, 2), Some("controller")),
            ("Deployment", Value::Null, deployment(2, 0, 0, 0, 0), Some("0 of 1 pods made")),
            ("Deployment", json!(0), deployment(2, 0, 0, 0, 0), Some("no pods")),
            ("Deployment", json!(1), deployment(2, 2, 1, 2, 1), Some("1 old pods")),
            ("Deployment", json!(1), deployment(2, 1, 1, 0, 0), Some("0 of 1 pods ready")),
            ("Deployment", json!(1), deployment(2, 1, 1, 1, 0), Some("0 of 1 pods ready for long enough")),
            ("Deployment", json!(1), Value::Null, Some("controller")),
            ("DaemonSet", Value::Null, set(2, 3, 3, 3, 3), None),
            ("DaemonSet", Value::Null, set(2, 3, 3, 2, 2), Some("2 of 3 pods ready")),
            ("DaemonSet", Value::Null, set(2, 3, 3, 3, 2), Some("2 of 3 pods ready for long enough")),
            ("DaemonSet", Value::Null, set(2, 3, 1, 3, 3), Some("1 of 3 pods made")),
            ("DaemonSet", Value::Null, set(2, 0, 0, 0, 0), Some("no node matches")),
            ("DaemonSet", Value::Null, Value::Null, Some("controller")),
        ] {
            let object =
                json!({"metadata": {"generation": 2}, "spec": {"replicas": replicas}, "status": status});
            let found = workload_lacks(kind, &object);
            assert_eq!(found.is_some(), lack.is_some(), "{object}: {found:?}");
            assert!(
                found.as_deref().unwrap_or_default().contains(lack.unwrap_or_default()),
                "{object}: {found:?}"
            );
        }
    }

    #[test]
    fn a_node_is_ready_when_its_kubelet_says_so_and_what_cannot_be_read_is_not_ready() {
        let node = |status: &str| {
            json!({"status": {"conditions": [
            {"type": "MemoryPressure", "status": "True"}, {"type": "Ready", "status": status, "message": "why"}]}})
        };
        assert_eq!(node_lacks(&node("True")), None);
        assert_eq!(node_lacks(&node("Unknown")).as_deref(), Some("why"));
        assert!(node_lacks(&json!({})).is_some_and(|why| why.contains("not said anything")));
        for kind in ["Deployment", "DaemonSet"] {
            for odd in [
                json!({"status": {"readyReplicas": "3", "numberReady": "3"}}),
                json!({"metadata": 1}),
                json!([]),
            ] {
                assert!(workload_lacks(kind, &odd).is_some(), "{kind} {odd}");
            }
        }
    }
}
