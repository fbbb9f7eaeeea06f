//! What workloads, nodes and CustomResourceDefinitions lack to be ready, by their own status.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Node, PodTemplateSpec};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::pods::{short, some};

/// What a DaemonSet says that is to run nowhere.
pub(super) const NO_NODE: &str = "no node matches its node selector and tolerations";

/// What keeps pods running.
#[derive(Debug, Clone, PartialEq)]
pub enum Workload {
    Deployment(Deployment),
    DaemonSet(DaemonSet),
}

impl Workload {
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Deployment(_) => Deployment::KIND,
            Self::DaemonSet(_) => DaemonSet::KIND,
        }
    }

    pub fn name(&self) -> &str {
        some(&self.metadata().name)
    }

    pub fn namespace(&self) -> &str {
        some(&self.metadata().namespace)
    }

    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.metadata().labels.as_ref()
    }

    /// The labels of its pods.
    pub fn pod_labels(&self) -> Option<&BTreeMap<String, String>> {
        self.template().metadata.as_ref()?.labels.as_ref()
    }

    /// How its pods are found.
    pub fn selector(&self) -> &LabelSelector {
        match self {
            Self::Deployment(one) => &one.spec.selector,
            Self::DaemonSet(one) => &one.spec.selector,
        }
    }

    /// How long a pod has to be ready until its controller counts it as available.
    pub fn ready_for(&self) -> Duration {
        let seconds = match self {
            Self::Deployment(one) => one.spec.min_ready_seconds,
            Self::DaemonSet(one) => one.spec.min_ready_seconds,
        };
        Duration::from_secs(seconds.and_then(|seconds| seconds.try_into().ok()).unwrap_or_default())
    }

    /// What its counts lack.
    pub fn lacks(&self) -> Option<String> {
        match self {
            Self::Deployment(one) => deployment_lacks(one),
            Self::DaemonSet(one) => daemon_set_lacks(one),
        }
    }

    /// So many pods it is to have.
    pub(super) fn wanted(&self) -> i32 {
        match self {
            Self::Deployment(one) => one.spec.replicas.unwrap_or(1),
            Self::DaemonSet(one) => one.status.as_ref().map_or(0, |status| status.desired_number_scheduled),
        }
    }

    const fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Deployment(one) => &one.metadata,
            Self::DaemonSet(one) => &one.metadata,
        }
    }

    const fn template(&self) -> &PodTemplateSpec {
        match self {
            Self::Deployment(one) => &one.spec.template,
            Self::DaemonSet(one) => &one.spec.template,
        }
    }
}

/// A node is ready when its kubelet says so.
pub fn node_lacks(node: &Node) -> Option<String> {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    match conditions.find(|condition| condition.type_ == "Ready") {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(ready.message.as_ref().or(ready.reason.as_ref()).cloned().unwrap_or_default()),
        None => Some("its kubelet has said nothing yet".into()),
    }
}

/// What a CustomResourceDefinition lacks to be served.
pub fn crd_lacks(crd: &CustomResourceDefinition) -> Option<String> {
    let conditions = crd.status.as_ref().and_then(|status| status.conditions.as_deref());
    ["NamesAccepted", "Established"].into_iter().find_map(|kind| {
        match conditions.unwrap_or_default().iter().find(|condition| condition.type_ == kind) {
            Some(condition) if condition.status == "True" => None,
            Some(condition) => Some(short(&format!("not {kind}: {}", some(&condition.message)))),
            None => Some(format!("not {kind} yet")),
        }
    })
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
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, from_value, json};

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
            let found = match kind {
                "DaemonSet" => Workload::DaemonSet(from_value(object.clone()).unwrap()),
                _ => Workload::Deployment(from_value(object.clone()).unwrap()),
            }
            .lacks();
            assert_eq!(found.is_some(), lack.is_some(), "{object}: {found:?}");
            assert!(
                found.as_deref().unwrap_or_default().contains(lack.unwrap_or_default()),
                "{object}: {found:?}"
            );
        }
    }

    #[test]
    fn a_node_is_ready_when_its_kubelet_says_so() {
        let lacks = |ready: Value| {
            let conditions = json!([{"type": "MemoryPressure", "status": "True"}, ready]);
            node_lacks(&from_value(json!({"status": {"conditions": conditions}})).unwrap())
        };
        assert_eq!(lacks(json!({"type": "Ready", "status": "True", "message": "posting"})), None);
        let unknown =
            json!({"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "why"});
        assert_eq!(lacks(unknown).as_deref(), Some("why"));
        let without = json!({"type": "Ready", "status": "False", "reason": "KubeletNotReady"});
        assert_eq!(lacks(without).as_deref(), Some("KubeletNotReady"));
        assert!(node_lacks(&Node::default()).is_some_and(|why| why.contains("said nothing yet")));
    }
}
