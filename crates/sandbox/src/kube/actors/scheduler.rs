//! The scheduler: it chooses a node for each pod, and says why it finds none.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::objects::{condition, condition_of, list, path, set_status, with_condition};
use super::volumes::claims_of;
use super::{Stage, ending, names, text};
use crate::kube::control::{SELECTED_NODE, selected_node, waits};

const WHO: &str = "default-scheduler";
const MANAGER: &str = "kube-scheduler";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub(super) fn act(stage: &mut Stage<'_>) {
    let waits = |pod: &Value| {
        pod["spec"]["nodeName"].is_null() && !ending(pod) && pod["status"]["phase"] == "Pending"
    };
    let pods = stage.api.store.list("/pods", "").map(|(_, pod)| pod);
    let waiting: Vec<Value> = pods.filter(|pod| waits(pod)).cloned().collect();
    if waiting.is_empty() {
        return;
    }
    let nodes: BTreeMap<String, Value> =
        stage.api.store.list("/nodes", "").map(|(place, node)| (place.name.clone(), node.clone())).collect();
    let mut load: BTreeMap<String, usize> = BTreeMap::new();
    for (_, pod) in stage.api.store.list("/pods", "") {
        *load.entry(text(pod, "/spec/nodeName").to_owned()).or_default() += 1;
    }
    for pod in waiting {
        let found = claims(stage, &pod).map_err(|why| format!("{why}."));
        let found = found.and_then(|claims| Ok((choose(&pod, &claims, &nodes, &load)?, claims)));
        match found {
            Ok((node, claims)) => {
                *load.entry(node.clone()).or_default() += 1;
                assign(stage, &pod, &claims, &node);
            }
            Err(why) => refuse(stage, &pod, &why, nodes.len()),
        }
    }
}

/// What a pod's claims ask of its node.
#[derive(Debug, Default)]
struct Claims {
    /// The node affinities of bound volumes.
    bound: Vec<Value>,
    /// Claims that wait for a node.
    waiting: Vec<Value>,
    /// The topologies that their classes allow, of each that allows only some.
    topologies: Vec<Value>,
}

/// The pod's claims; the error is why no node at all would do.
fn claims(stage: &Stage<'_>, pod: &Value) -> Result<Claims, String> {
    let mut claims = Claims::default();
    let namespace = names(pod).0;
    for (_, name) in claims_of(pod) {
        let claim = stage.get("/persistentvolumeclaims", namespace, name);
        let claim = claim.ok_or_else(|| format!("persistentvolumeclaim {name:?} not found"))?;
        if ending(claim) {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        let class = stage.get("storage.k8s.io/storageclasses", "", text(claim, "/spec/storageClassName"));
        let volume = text(claim, "/spec/volumeName");
        if claim["status"]["phase"] == "Bound" {
            let found = stage.get("/persistentvolumes", "", volume);
            let found = found.ok_or_else(|| {
                format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}")
            })?;
            claims.bound.push(found["spec"]["nodeAffinity"]["required"].clone());
        } else if volume.is_empty()
            && let Some(class) = class.filter(|class| waits(class))
        {
            claims.waiting.push(claim.clone());
            claims.topologies.extend(class.get("allowedTopologies").filter(|some| !some.is_null()).cloned());
        } else {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
    }
    Ok(claims)
}

/// The node for the pod: the one that its claims wait for, else the one with the fewest pods. The error counts what is wrong
/// with which nodes.
fn choose(
    pod: &Value,
    claims: &Claims,
    nodes: &BTreeMap<String, Value>,
    load: &BTreeMap<String, usize>,
) -> Result<String, String> {
    let mut wrong: BTreeMap<&str, usize> = BTreeMap::new();
    let selected = |node: &str| claims.waiting.iter().any(|claim| selected_node(claim) == node);
    let mut best: Option<(bool, usize, &str)> = None;
    let only = target(&pod["spec"]);
    for (name, node) in nodes {
        let unfit = match only {
            Some(only) if only != name => Some("node(s) didn't satisfy plugin(s) [NodeAffinity]"),
            _ => unfit(&pod["spec"], claims, node),
        };
        match unfit {
            Some(why) => *wrong.entry(why).or_default() += 1,
            None => {
                let rank = (!selected(name), load.get(name).copied().unwrap_or(0), name.as_str());
                best = Some(best.map_or(rank, |best| best.min(rank)));
            }
        }
    }
    best.map(|(_, _, name)| name.to_owned()).ok_or_else(|| {
        let mut counted: Vec<String> = wrong.iter().map(|(why, count)| format!("{count} {why}")).collect();
        counted.sort();
        format!("{}.", counted.join(", "))
    })
}

/// The one node that a DaemonSet's pod is for.
fn target(spec: &Value) -> Option<&str> {
    match list(required(spec), "/nodeSelectorTerms") {
        [term] => match list(term, "/matchFields") {
            [field] if field["key"] == "metadata.name" && field["operator"] == "In" => {
                let [only] = list(field, "/values") else { return None };
                only.as_str()
            }
            _ => None,
        },
        _ => None,
    }
}

fn required(spec: &Value) -> &Value {
    &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
}

/// What the scheduler's filters have against the node, the first of them.
fn unfit(spec: &Value, claims: &Claims, node: &Value) -> Option<&'static str> {
    let cordon = json!({"key": UNSCHEDULABLE, "effect": "NoSchedule"});
    if node["spec"]["unschedulable"] == true && !tolerates(spec, &cordon) {
        return Some("node(s) were unschedulable");
    }
    if untolerated(spec, node, &["NoSchedule", "NoExecute"]) {
        return Some("node(s) had untolerated taint(s)");
    }
    if !chooses(spec, node) {
        return Some("node(s) didn't match Pod's node affinity/selector");
    }
    let fits = |required: &Value| required.is_null() || matches(required, node);
    if !claims.bound.iter().all(fits) {
        return Some("node(s) didn't match PersistentVolume's node affinity");
    }
    let allowed = claims.topologies.iter().all(|terms| allows(terms, node));
    (!allowed).then_some("node(s) didn't find available persistent volumes to bind")
}

/// Whether any term of a class's topologies holds for the node.
fn allows(terms: &Value, node: &Value) -> bool {
    let labels = &node["metadata"]["labels"];
    let terms = terms.as_array().map(Vec::as_slice).unwrap_or_default();
    terms.iter().any(|term| {
        let wanted = list(term, "/matchLabelExpressions");
        let holds = |one: &Value| list(one, "/values").contains(&labels[text(one, "/key")]);
        !wanted.is_empty() && wanted.iter().all(holds)
    })
}

/// Whether the pod's selector and affinity choose the node.
pub(super) fn chooses(spec: &Value, node: &Value) -> bool {
    let labels = &node["metadata"]["labels"];
    let selector = spec["nodeSelector"].as_object().into_iter().flatten();
    let mut selector = selector.map(|(key, value)| labels.get(key) == Some(value));
    let required = required(spec);
    selector.all(|holds| holds) && (required.is_null() || matches(required, node))
}

/// Whether any term of a node selector holds for the node.
pub(super) fn matches(selector: &Value, node: &Value) -> bool {
    let label = |key: &str| node["metadata"]["labels"].get(key).and_then(Value::as_str);
    let field = |key: &str| Some(names(node).1).filter(|_| key == "metadata.name");
    list(selector, "/nodeSelectorTerms").iter().any(|term| {
        let (expressions, fields) = (list(term, "/matchExpressions"), list(term, "/matchFields"));
        let some = !expressions.is_empty() || !fields.is_empty();
        some && expressions.iter().all(|one| meets(one, label(text(one, "/key"))))
            && fields.iter().all(|one| meets(one, field(text(one, "/key"))))
    })
}

fn meets(requirement: &Value, value: Option<&str>) -> bool {
    let within = value.is_some_and(|value| list(requirement, "/values").iter().any(|one| one == value));
    match text(requirement, "/operator") {
        "In" => within,
        "NotIn" => !within,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

/// Whether the node has a taint of these effects that the pod does not tolerate.
pub(super) fn untolerated(spec: &Value, node: &Value, effects: &[&str]) -> bool {
    let keeps = |taint: &&Value| effects.contains(&text(taint, "/effect"));
    list(node, "/spec/taints").iter().filter(keeps).any(|taint| !tolerates(spec, taint))
}

fn tolerates(spec: &Value, taint: &Value) -> bool {
    list(spec, "/tolerations").iter().any(|toleration| {
        let said = |field: &str| text(toleration, field);
        let exists = said("/operator") == "Exists";
        let effect = said("/effect").is_empty() || said("/effect") == text(taint, "/effect");
        let key = said("/key") == text(taint, "/key") || (said("/key").is_empty() && exists);
        effect && key && (exists || said("/value") == text(taint, "/value"))
    })
}

/// Sends the pod to the node, or first its claims.
fn assign(stage: &mut Stage<'_>, pod: &Value, claims: &Claims, node: &str) {
    for claim in &claims.waiting {
        if selected_node(claim) != node {
            let chosen = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
            let _ = stage.patch(MANAGER, &path(claim), &chosen);
        }
    }
    if !claims.waiting.is_empty() {
        return;
    }
    let Ok(pod) = stage.patch(MANAGER, &path(pod), &json!({"spec": {"nodeName": node}})) else { return };
    tell(stage, &pod, "True", "", "");
    let (namespace, name) = names(&pod);
    let said = format!("Successfully assigned {namespace}/{name} to {node}");
    stage.event(WHO, "Normal", &pod, "Scheduled", &said);
}

fn refuse(stage: &mut Stage<'_>, pod: &Value, why: &str, nodes: usize) {
    let message = if nodes == 0 {
        "no nodes available to schedule pods".to_owned()
    } else {
        let all = format!("0/{nodes} nodes are available:");
        let preemption = format!("preemption: {all} {nodes} Preemption is not helpful for scheduling.");
        // Where a claim is missing, the real one does not come to that (recorded-events.json).
        let then = match why.strip_suffix("not found.") {
            Some(_) => "not found".to_owned(),
            None => format!("no new claims to deallocate, {preemption}"),
        };
        format!("{all} {why} {then}")
    };
    if condition_of(pod, "PodScheduled").is_some_and(|told| told["message"] == message.as_str()) {
        return;
    }
    tell(stage, pod, "False", "Unschedulable", &message);
    stage.event(WHO, "Warning", pod, "FailedScheduling", &message);
}

/// Writes the pod's condition PodScheduled.
fn tell(stage: &mut Stage<'_>, pod: &Value, status: &str, reason: &str, message: &str) {
    let new = condition(pod, "PodScheduled", status, reason, message, &stage.time());
    set_status(stage, MANAGER, pod, with_condition(pod, new));
}

#[cfg(test)]
mod tests;
