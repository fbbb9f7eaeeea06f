//! Whether any node can run the pods of what is installed: else they would stay Pending for ever.

use serde_json::Value;

use crate::error::Error;
use crate::intent::{Intent, Node};
use crate::model::object::Object;

/// On a node that nodeprep itself cordoned, and uncordons again.
const OURS: &str = "nodeprep.dev/cordoned";
/// Taints that Kubernetes sets itself, for what is looked at otherwise.
const OF_KUBERNETES: [&str; 3] =
    ["node.kubernetes.io/unschedulable", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// So many of the nodes that a reason keeps pods from are named.
const SHOWN: usize = 3;

/// Why no node can run the object's pods; None when one can, or when it has no pods, or no node is known.
pub(super) fn refusal(intent: &Intent, object: &Object, nodes: &[Value]) -> Option<Error> {
    let spec = &object.value["spec"]["template"]["spec"];
    if !spec.is_object() || nodes.is_empty() {
        return None;
    }
    let why = |node: &Value| unfit(intent, spec, node).map(|why| (name(node).to_owned(), why));
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

fn name(node: &Value) -> &str {
    node["metadata"]["name"].as_str().unwrap_or_default()
}

/// What keeps the pods from the node, as it will be when the file's labels are on it.
fn unfit(intent: &Intent, spec: &Value, node: &Value) -> Option<String> {
    let conditions = node["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    if conditions.iter().any(|one| one["type"] == "Ready" && one["status"] != "True") {
        return Some("not Ready".into());
    }
    let ours = !node["metadata"]["annotations"][OURS].is_null();
    if node["spec"]["unschedulable"] == true && !ours && !tolerates(spec, OF_KUBERNETES[0], "", "NoSchedule")
    {
        return Some("cordoned".into());
    }
    let selector = spec["nodeSelector"].as_object().into_iter().flatten();
    for (key, value) in selector {
        let value = value.as_str().unwrap_or_default();
        if node["metadata"]["labels"][key.as_str()] != value && !will_have(intent, node, key, value) {
            return Some(format!("no label {key}={value}"));
        }
    }
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    taints.into_iter().find_map(|taint| {
        let text = |field: &str| taint[field].as_str().unwrap_or_default();
        let (key, value, effect) = (text("key"), text("value"), text("effect"));
        let repels = matches!(effect, "NoSchedule" | "NoExecute") && !OF_KUBERNETES.contains(&key);
        let value_of = if value.is_empty() { String::new() } else { format!("={value}") };
        (repels && !tolerates(spec, key, value, effect)).then(|| format!("taint {key}{value_of}:{effect}"))
    })
}

fn tolerates(spec: &Value, key: &str, value: &str, effect: &str) -> bool {
    spec["tolerations"].as_array().into_iter().flatten().any(|one| {
        let text = |field: &str| one[field].as_str().unwrap_or_default();
        let exists = text("operator") == "Exists";
        (text("effect").is_empty() || text("effect") == effect)
            && (text("key") == key || (text("key").is_empty() && exists))
            && (exists || text("value") == value)
    })
}

/// Whether the file labels the node so.
fn will_have(intent: &Intent, node: &Value, key: &str, value: &str) -> bool {
    let addresses = node["status"]["addresses"].as_array().map_or(&[][..], Vec::as_slice);
    let is = |listed: &&Node| {
        listed.address == name(node) || addresses.iter().any(|one| one["address"] == listed.address.as_str())
    };
    intent.nodes.iter().filter(is).any(|listed| match listed.labels.get(key) {
        Some(own) => own.as_deref() == Some(value),
        None => intent.labels.get(key).is_some_and(|all| all == value),
    })
}
