//! Whether any node can run the pods of what is installed: else they would stay Pending for ever.

use k8s_openapi::api::core::v1::{Node, PodSpec, Taint};
use serde::Deserialize;

use crate::error::Error;
use crate::intent::{self, Intent};
use crate::judge::workload::node_lacks;
use crate::model::object::Object;

/// On a node that nodeprep itself cordoned, and uncordons again.
const OURS: &str = "nodeprep.dev/cordoned";
/// Taints that Kubernetes sets itself, for what is looked at otherwise.
const OF_KUBERNETES: [&str; 3] =
    ["node.kubernetes.io/unschedulable", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// So many of the nodes that a reason keeps pods from are named.
const SHOWN: usize = 3;

/// Why no node can run the object's pods; None when one can, or when it has no pods, or no node is known.
pub(super) fn refusal(intent: &Intent, object: &Object, nodes: &[Node]) -> Option<Error> {
    let spec = &object.value["spec"]["template"]["spec"];
    if !spec.is_object() || nodes.is_empty() {
        return None;
    }
    let spec = match PodSpec::deserialize(spec) {
        Ok(spec) => spec,
        Err(error) => return Some(Error::failed(format!("{}: {error}", object.title()))),
    };
    let why = |node: &Node| unfit(intent, &spec, node).map(|why| (name(node).to_owned(), why));
    let all: Vec<(String, String)> = nodes.iter().map(why).collect::<Option<_>>()?;
    let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
    for (node, why) in all {
        match reasons.iter_mut().find(|(known, _)| *known == why) {
            Some((_, nodes)) => nodes.push(node),
            None => reasons.push((why, vec![node])),
        }
    }
    let each = |(why, nodes): &(String, Vec<String>)| format!("{} ({why})", some(nodes, SHOWN));
    let each: Vec<String> = reasons.iter().map(each).collect();
    let what = format!("no node can run the pods of {}: {}", object.title(), each.join("; "));
    Some(Error::refused(what).hint(hint(object)))
}

/// The first names, so many of them.
pub(super) fn some(names: &[String], most: usize) -> String {
    let shown = names.iter().take(most).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn hint(object: &Object) -> String {
    let key = match (object.component, object.kind()) {
        ("velero", "DaemonSet") => "backup.nodeAgent",
        ("velero", _) => "backup.server",
        _ => "provisioner.openebs",
    };
    format!(
        "make a node fit for them, or name the taint in `{key}.tolerations`; `kubectl get nodes` shows what is there"
    )
}

fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

/// What keeps the pods from the node, as it will be when the file's labels are on it.
fn unfit(intent: &Intent, pods: &PodSpec, node: &Node) -> Option<String> {
    if node_lacks(node).is_some() {
        return Some("not Ready".into());
    }
    let ours = node.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(OURS));
    let spec = node.spec.clone().unwrap_or_default();
    let cordon = Taint { key: OF_KUBERNETES[0].into(), effect: "NoSchedule".into(), ..Taint::default() };
    if spec.unschedulable == Some(true) && !ours && !tolerates(pods, &cordon) {
        return Some("cordoned".into());
    }
    for (key, value) in pods.node_selector.iter().flatten() {
        let has = node.metadata.labels.as_ref().and_then(|labels| labels.get(key));
        if has != Some(value) && !will_have(intent, node, key, value) {
            return Some(format!("no label {key}={value}"));
        }
    }
    spec.taints.into_iter().flatten().find_map(|taint| {
        let (key, effect) = (taint.key.as_str(), taint.effect.as_str());
        let repels = matches!(effect, "NoSchedule" | "NoExecute") && !OF_KUBERNETES.contains(&key);
        let value = taint.value.as_deref().filter(|value| !value.is_empty());
        let value_of = value.map_or_else(String::new, |value| format!("={value}"));
        (repels && !tolerates(pods, &taint)).then(|| format!("taint {key}{value_of}:{effect}"))
    })
}

fn tolerates(pods: &PodSpec, taint: &Taint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    pods.tolerations.iter().flatten().any(|one| {
        let (key, effect) = (text(&one.key), text(&one.effect));
        let exists = one.operator.as_deref() == Some("Exists");
        (effect.is_empty() || effect == taint.effect)
            && (key == taint.key || (key.is_empty() && exists))
            && (exists || text(&one.value) == text(&taint.value))
    })
}

/// Whether the file labels the node so.
fn will_have(intent: &Intent, node: &Node, key: &str, value: &str) -> bool {
    let addresses = || node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let is = |listed: &&intent::Node| {
        listed.address == name(node) || addresses().any(|one| one.address == listed.address)
    };
    intent.nodes.iter().filter(is).any(|listed| match listed.labels.get(key) {
        Some(own) => own.as_deref() == Some(value),
        None => intent.labels.get(key).is_some_and(|all| all == value),
    })
}
