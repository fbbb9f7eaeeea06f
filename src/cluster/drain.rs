//! Cordon, drain, uncordon: a node that is to go away for a while gets no new pods, and its pods go elsewhere by eviction,
//! which respects their disruption budgets.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{EvictParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::{Cluster, MANAGER, from_kube};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::wait::{Look, Wait};

/// On a node that nodeprep cordoned: the place of the run that did, so that a later one knows whose it is.
const CORDONED: &str = "nodeprep.dev/cordoned";
/// On the pod that stands for one that the kubelet runs from a file (k8s.io/api, `MirrorPodAnnotationKey`).
const MIRROR: &str = "kubernetes.io/config.mirror";
/// An eviction that a budget refused is asked for again this often.
const AGAIN: Duration = Duration::from_secs(3);

/// What goes for ever when a node is drained.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses {
    /// The name of the node.
    pub node: String,
    /// Pods that nothing would make anew.
    pub lone: Vec<String>,
    /// Pods with what they keep in an emptyDir, and the names of those volumes.
    pub scratch: Vec<String>,
}

impl Losses {
    fn of(node: &str, leaving: &[&Pod]) -> Self {
        let lone = leaving.iter().filter(|pod| !is_controlled(pod)).map(|pod| title(pod)).collect();
        let scratch = leaving.iter().filter_map(|pod| {
            let names = scratch(pod);
            (!names.is_empty()).then(|| format!("{} ({})", title(pod), names.join(", ")))
        });
        Self { node: node.to_owned(), lone, scratch: scratch.collect() }
    }

    /// For a plan: what is thrown away.
    pub fn told(&self) -> Option<String> {
        let lost = [
            ("nothing would make anew the pods", &self.lone),
            ("data in emptyDir is lost with", &self.scratch),
        ];
        let lost = lost.into_iter().filter(|(_, pods)| !pods.is_empty());
        let lost: Vec<String> = lost.map(|(what, pods)| format!("{what} {}", pods.join(", "))).collect();
        (!lost.is_empty()).then(|| format!("when {} is drained: {}", self.node, lost.join("; ")))
    }

    /// # Errors
    /// `Kind::Refused` while there is a pod that would be lost, or data that were not given up.
    pub fn refuse(&self, give_up_scratch: bool) -> Result<()> {
        if !self.lone.is_empty() {
            let pods = self.lone.join(", ");
            return Err(Error::refused(format!(
                "{}: is not drained: nothing would make anew the pods {pods}",
                self.node
            ))
            .hint("delete them, or let a controller make them, and run this again"));
        }
        if give_up_scratch || self.scratch.is_empty() {
            return Ok(());
        }
        Err(Error::refused(format!(
            "{}: is not drained: data in emptyDir would be lost with {}",
            self.node,
            self.scratch.join(", ")
        ))
        .hint("if it may be lost: --delete-emptydir-data"))
    }
}

impl Cluster {
    /// What a drain of the node would lose. Nothing is changed.
    pub async fn losses(&self, name: &str) -> Result<Losses> {
        let pods = self.pods_on(name).await?;
        Ok(Losses::of(name, &pods.iter().filter(|pod| leaves(pod)).collect::<Vec<_>>()))
    }

    async fn pods_on(&self, name: &str) -> Result<Vec<Pod>> {
        let on_node = ListParams::default().fields(&format!("spec.nodeName={name}"));
        let pods = Api::<Pod>::all(self.client()).list(&on_node).await;
        pods.map(|pods| pods.items).map_err(|e| from_kube(&format!("the pods of {name}"), e))
    }

    /// Keeps new pods from the node, for a run of this `place`; false when somebody else than nodeprep had done so already, and
    /// may want it to stay so.
    pub async fn cordon(&self, name: &str, place: &str) -> Result<bool> {
        let node = self.nodes().get(name).await.map_err(|e| from_kube(&format!("Node {name}"), e))?;
        let by_nodeprep = node.annotations().contains_key(CORDONED);
        if node.spec.is_some_and(|spec| spec.unschedulable == Some(true)) && !by_nodeprep {
            return Ok(false);
        }
        self.schedulable(name, Some(place)).await.map(|()| true)
    }

    /// Lets new pods come to the node again.
    pub async fn uncordon(&self, name: &str) -> Result<()> {
        self.schedulable(name, None).await
    }

    /// Uncordons what runs that were killed left cordoned, those of one place or all; their names. All may only be asked for
    /// by who holds the cluster's Lease: a run that is alive has nodes cordoned too.
    pub async fn uncordon_left(&self, place: Option<&str>) -> Result<Vec<String>> {
        let nodes = self.nodes().list(&ListParams::default()).await.map_err(|e| from_kube("Nodes", e))?;
        let left = nodes.iter().filter(|node| {
            let by = node.annotations().get(CORDONED);
            by.is_some_and(|by| place.is_none_or(|place| by == place))
        });
        let left: Vec<String> = left.map(ResourceExt::name_any).collect();
        for name in &left {
            self.uncordon(name).await?;
        }
        Ok(left)
    }

    /// Evicts the node's pods but those of DaemonSets and of the kubelet itself, and waits until they are gone.
    ///
    /// # Errors
    /// `Kind::Refused` when a pod has nothing that would make it anew elsewhere, or data that were not given up;
    /// `Kind::Failed` when time is over, with what kept the last one.
    pub async fn drain(
        &self,
        name: &str,
        give_up_scratch: bool,
        within: Duration,
        events: &Events,
    ) -> Result<()> {
        let drained = Wait::new(format!("the pods of {name} to leave"), within, events).every(AGAIN).until(
            async || {
                let pods = self.pods_on(name).await?;
                let leaving: Vec<&Pod> = pods.iter().filter(|pod| leaves(pod)).collect();
                let unasked: Vec<&Pod> =
                    leaving.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).copied().collect();
                Losses::of(name, &unasked).refuse(give_up_scratch)?;
                let Some(first) = leaving.first() else { return Ok(Look::Done(())) };
                let mut last = format!("{} to go, {} among them", leaving.len(), title(first));
                for pod in unasked {
                    if let Some(why) = self.evict(pod).await? {
                        last = format!("{}: {why}", title(pod));
                    }
                }
                Ok(Look::not_yet(last))
            },
        );
        drained.await.map_err(|late| {
            let hint = "the node was not rebooted; deadlines.drain in the file gives its pods more time";
            late.or_hint(hint, |_, last| {
                Error::failed(format!("{name}: not drained within {}s: {last}", within.as_secs()))
            })
        })
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

    /// Cordons the node for a place, or lets new pods come to it again.
    async fn schedulable(&self, name: &str, cordoned_by: Option<&str>) -> Result<()> {
        let patch = json!({
            "metadata": {"annotations": {CORDONED: cordoned_by}},
            "spec": {"unschedulable": if cordoned_by.is_some() { json!(true) } else { Value::Null }},
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

/// Whether something makes it anew elsewhere: an owner that only keeps its name does not.
fn is_controlled(pod: &Pod) -> bool {
    pod.owner_references().iter().any(|owner| owner.controller == Some(true))
}

/// The volumes that go with the pod.
fn scratch(pod: &Pod) -> Vec<&str> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter(|volume| volume.empty_dir.is_some()).map(|volume| volume.name.as_str()).collect()
}

fn title(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_drain_would_lose_is_named_and_refused_unless_it_is_given_up() {
        let pod = |name: &str, owner: Value, volumes: Value| -> Pod {
            let metadata = json!({"namespace": "a", "name": name, "ownerReferences": owner});
            serde_json::from_value(
                json!({"metadata": metadata, "spec": {"containers": [], "volumes": volumes}}),
            )
            .unwrap()
        };
        let owner = |controller: Value| json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "1", "controller": controller}]);
        let held = || json!([{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]);
        let scratch =
            || json!([{"name": "tmp", "emptyDir": {}}, {"name": "run", "emptyDir": {"medium": "Memory"}}]);
        for (name, pods, words, given_up) in [
            ("made anew", vec![pod("web", owner(json!(true)), held())], None, true),
            (
                "lone",
                vec![pod("one", json!([]), held()), pod("two", json!(null), held())],
                Some("a/one, a/two"),
                false,
            ),
            ("owned, not controlled", vec![pod("one", owner(json!(null)), held())], Some("a/one"), false),
            ("scratch", vec![pod("web", owner(json!(true)), scratch())], Some("a/web (tmp, run)"), true),
        ] {
            let losses = Losses::of("n1", &pods.iter().collect::<Vec<_>>());
            assert_eq!(losses.told().is_some(), words.is_some(), "{name}");
            match (losses.refuse(false), words) {
                (Err(error), Some(words)) => {
                    assert!(
                        error.kind == crate::error::Kind::Refused && error.what.contains(words),
                        "{error}"
                    );
                }
                (result, _) => assert!(result.is_ok() && words.is_none(), "{name}"),
            }
            assert_eq!(losses.refuse(true).is_ok(), given_up, "{name}");
        }
    }

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
