//! The Node objects: whether their machine is up.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kube::actors::Stage;
use crate::kube::actors::objects::{condition, holds, list, path, set_status, with_condition};

/// From a machine's start to the kubelet's first word.
const START: Duration = Duration::from_secs(2);
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

pub(super) fn act(stage: &mut Stage<'_>) {
    let machines: Vec<(String, bool)> =
        stage.hosts.iter().map(|(name, host)| (name.clone(), !host.down)).collect();
    for (name, up) in machines {
        let Some(node) = stage.get("/nodes", "", &name) else { continue };
        if holds(node, "Ready") == up {
            continue;
        }
        let node = node.clone();
        if !up {
            let told = ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.");
            tell(stage, &node, "node-controller", "NodeNotReady", told);
        } else if stage.done(&format!("node/{name}/start"), START) {
            let told = ("True", "KubeletReady", "kubelet is posting ready status");
            tell(stage, &node, "kubelet", "NodeReady", told);
        }
    }
}

fn tell(stage: &mut Stage<'_>, node: &Value, who: &str, reason: &str, told: (&str, &str, &str)) {
    let (status, why, message) = told;
    let now = stage.time();
    taint(stage, node, status != "True");
    let Some(node) = stage.get("/nodes", "", node["metadata"]["name"].as_str().unwrap_or_default()) else {
        return;
    };
    let node = node.clone();
    let mut ready = condition(&node, "Ready", status, why, message, &now);
    ready["lastHeartbeatTime"] = json!(now);
    set_status(stage, who, &node, with_condition(&node, ready));
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    stage.event(who, "Normal", &node, reason, &format!("Node {name} status is now: {reason}"));
}

/// Keeps pods from a machine that is down.
fn taint(stage: &mut Stage<'_>, node: &Value, down: bool) {
    let others = list(node, "/spec/taints").iter().filter(|taint| taint["key"] != UNREACHABLE).cloned();
    let mut taints: Vec<Value> = others.collect();
    if down {
        taints
            .extend(["NoSchedule", "NoExecute"].map(|effect| json!({"key": UNREACHABLE, "effect": effect})));
    }
    let taints = if taints.is_empty() { Value::Null } else { Value::Array(taints) };
    let _ = stage.patch("kube-controller-manager", &path(node), &json!({"spec": {"taints": taints}}));
}
