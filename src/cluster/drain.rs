//! Cordon, drain, uncordon: a node that is to go away for a while gets no new pods, and its pods go elsewhere by eviction,
//! which respects their disruption budgets.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{EvictParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Cluster, MANAGER, from_kube};
use crate::error::{Error, Result};
use crate::event::Events;

/// On a node that nodeprep cordoned, so that a later run knows whose it is.
const CORDONED: &str = "nodeprep.dev/cordoned";
/// On the pod that stands for one that the kubelet runs from a file (k8s.io/api, `MirrorPodAnnotationKey`).
const MIRROR: &str = "kubernetes.io/config.mirror";
/// An eviction that a budget refused is asked for again this often.
const AGAIN: Duration = Duration::from_secs(3);

impl Cluster {
    /// Keeps new pods from the node; false when somebody else had done so already, and may want it to stay so.
    pub async fn cordon(&self, name: &str) -> Result<bool> {
        let node = self.nodes().get(name).await.map_err(|e| from_kube(&format!("Node {name}"), e))?;
        let ours = node.annotations().contains_key(CORDONED);
        if node.spec.is_some_and(|spec| spec.unschedulable == Some(true)) {
            return Ok(ours);
        }
        self.schedulable(name, false).await.map(|()| true)
    }

    /// Lets new pods come to the node again.
    pub async fn uncordon(&self, name: &str) -> Result<()> {
        self.schedulable(name, true).await
    }

    /// Uncordons what a run that was killed left cordoned; their names.
    pub async fn uncordon_left(&self) -> Result<Vec<String>> {
        let nodes = self.nodes().list(&ListParams::default()).await.map_err(|e| from_kube("Nodes", e))?;
        let left = nodes.iter().filter(|node| node.annotations().contains_key(CORDONED));
        let left: Vec<String> = left.map(ResourceExt::name_any).collect();
        for name in &left {
            self.uncordon(name).await?;
        }
        Ok(left)
    }

    /// Evicts the node's pods but those of DaemonSets and of the kubelet itself, and waits until they are gone.
    ///
    /// # Errors
    /// `Kind::Refused` when a pod has nothing that would make it anew elsewhere; `Kind::Failed` when time is over, with
    /// what kept the last one.
    pub async fn drain(&self, name: &str, within: Duration, events: &Events) -> Result<()> {
        let deadline = Instant::now() + within;
        let on_node = ListParams::default().fields(&format!("spec.nodeName={name}"));
        let all: Api<Pod> = Api::all(self.client());
        loop {
            let pods = all.list(&on_node).await.map_err(|e| from_kube(&format!("the pods of {name}"), e))?;
            let leaving: Vec<&Pod> = pods.iter().filter(|pod| leaves(pod)).collect();
            let unasked = leaving.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
            if let Some(pod) = unasked.clone().find(|pod| pod.owner_references().is_empty()) {
                return Err(Error::refused(format!(
                    "{name}: nothing would make the pod {} anew",
                    title(pod)
                ))
                .hint("delete it, or move it, and run this again"));
            }
            let Some(first) = leaving.first() else { return Ok(()) };
            let mut last = format!("{} to go, {} among them", leaving.len(), title(first));
            for pod in unasked {
                if let Some(why) = self.evict(pod).await? {
                    last = format!("{}: {why}", title(pod));
                }
            }
            if Instant::now() >= deadline {
                return Err(Error::failed(format!(
                    "{name}: not drained within {}s: {last}",
                    within.as_secs()
                ))
                .hint("the node was not rebooted; deadlines.drain in the file gives its pods more time"));
            }
            events.waiting(format!("the pods of {name} to leave"), last);
            tokio::time::sleep(AGAIN.min(deadline - Instant::now())).await;
        }
    }

    /// Why the pod may not be evicted yet; nothing when it goes, or has gone.
    async fn evict(&self, pod: &Pod) -> Result<Option<String>> {
        let namespace = pod.namespace().unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(self.client(), &namespace);
        match pods.evict(&pod.name_any(), &EvictParams::default()).await {
            Ok(_) => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 429 => Ok(Some(status.message)),
            Err(error) => Err(from_kube(&format!("evicting {}", title(pod)), error)),
        }
    }

    async fn schedulable(&self, name: &str, wanted: bool) -> Result<()> {
        let by = if wanted { Value::Null } else { json!(MANAGER) };
        let patch = json!({
            "metadata": {"annotations": {CORDONED: by}},
            "spec": {"unschedulable": if wanted { Value::Null } else { json!(true) }},
        });
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let patched = self.nodes().patch(name, &params, &Patch::Merge(patch)).await;
        patched.map(drop).map_err(|e| from_kube(&format!("Node {name}"), e))
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.client())
    }
}

/// Whether a drained node is without this pod.
fn leaves(pod: &Pod) -> bool {
    let of_daemon_set = pod.owner_references().iter().any(|owner| owner.kind == "DaemonSet");
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let over = matches!(phase, Some("Succeeded" | "Failed"));
    !of_daemon_set && !over && !pod.annotations().contains_key(MIRROR)
}

fn title(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_daemon_sets_of_the_kubelet_and_of_the_past_stay() {
        let owned = |kind: &str| json!({"ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": "a", "uid": "1"}]});
        for (metadata, phase, expected) in [
            (owned("ReplicaSet"), "Running", true),
            (owned("StatefulSet"), "Pending", true),
            (json!({}), "Running", true),
            (owned("DaemonSet"), "Running", false),
            (owned("Job"), "Succeeded", false),
            (json!({}), "Failed", false),
            (json!({"annotations": {MIRROR: "x"}}), "Running", false),
        ] {
            let pod = json!({"metadata": metadata, "status": {"phase": phase}});
            assert_eq!(leaves(&serde_json::from_value(pod.clone()).unwrap()), expected, "{pod}");
        }
    }
}
