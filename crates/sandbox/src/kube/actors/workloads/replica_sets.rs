//! ReplicaSets: as many pods as are asked for.

use serde_json::{Value, json};

use super::{BURST, MANAGER, Member, Members, available, make_pod, may_make, pods_of, remove_pod};
use crate::kube::actors::objects::{condition, condition_of, counts, number, set_status};
use crate::kube::actors::{Stage, ending};

const WHO: &str = "replicaset-controller";

pub(super) fn act(stage: &mut Stage<'_>, members: &Members) {
    for set in stage.all("apps/replicasets", "") {
        if !ending(&set) {
            sync(stage, &set, pods_of(members, &set));
        }
    }
}

fn sync(stage: &mut Stage<'_>, set: &Value, pods: &[Member]) {
    let wanted = number(set, "/spec/replicas").unwrap_or(1);
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    let mut active: Vec<&Member> = pods.iter().filter(|pod| pod.active()).collect();
    let mut failure = condition_of(set, "ReplicaFailure").filter(|_| active.len() < wanted).cloned();
    if active.len() < wanted && may_make(stage, set) {
        let made = (active.len()..wanted).take(BURST).try_for_each(|_| make_pod(stage, WHO, set, &json!({})));
        let now = stage.time();
        failure = made.err().map(|why| condition(set, "ReplicaFailure", "True", "FailedCreate", &why, &now));
    }
    // Those that are not ready go first.
    active.sort_by(|a, b| (a.ready, &a.name).cmp(&(b.ready, &b.name)));
    let surplus = active.len().saturating_sub(wanted);
    for pod in active.iter().take(surplus) {
        remove_pod(stage, WHO, set, pod);
    }
    let ready = active.iter().filter(|pod| pod.ready).count();
    let available = active.iter().filter(|pod| available(stage, set, pod)).count();
    let mut status = counts(&[
        ("fullyLabeledReplicas", active.len()),
        ("readyReplicas", ready),
        ("availableReplicas", available),
    ]);
    status.insert("replicas".into(), json!(active.len()));
    status.insert("observedGeneration".into(), set["metadata"]["generation"].clone());
    if let Some(failure) = failure {
        status.insert("conditions".into(), json!([failure]));
    }
    set_status(stage, MANAGER, set, Value::Object(status));
}
