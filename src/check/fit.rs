//! Whether a node can take the pod that a check pins to it: one that can't is named at once.

use k8s_openapi::api::core::v1::Node;
use kube::Api;

use super::{Run, Stop, Subject, broken};
use crate::error::Error;

/// # Errors
/// The check can't run on the subject's node: it is not ready, or cordoned.
pub async fn takes_pods(run: &Run<'_>, subject: &Subject<'_>) -> Result<(), Stop> {
    let Some(wanted) = &subject.node else { return Ok(()) };
    let node = Api::<Node>::all(run.ctx.cluster.client()).get_opt(&wanted.name).await;
    match node.map_err(broken(format!("can't read node {}", wanted.name)))? {
        Some(node) => judge(&wanted.name, &node).map_err(Stop::Error),
        None => Err(Error::failed(format!("node {} is not in the cluster any more", wanted.name)).into()),
    }
}

fn judge(name: &str, node: &Node) -> Result<(), Error> {
    let conditions = node.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    if let Some(ready) = ready.filter(|ready| ready.status != "True") {
        let why = ready.message.as_deref().or(ready.reason.as_deref()).unwrap_or("no reason given");
        return Err(Error::failed(format!("node {name} is NotReady: {why}"))
            .hint("is the machine up (`nodeprep discover`)? `--nodes` leaves one out that stays away"));
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        return Err(Error::failed(format!("node {name} is cordoned"))
            .hint(format!("`kubectl uncordon {name}`, if nobody works on it")));
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_that_is_not_ready_or_cordoned_takes_no_pod() {
        let node = |ready: &str, cordoned: bool| -> Node {
            let condition =
                json!({"type": "Ready", "status": ready, "message": "Kubelet stopped posting node status."});
            let object = json!({"spec": {"unschedulable": cordoned}, "status": {"conditions": [condition]}});
            serde_json::from_value(object).unwrap()
        };
        assert!(judge("n1", &node("True", false)).is_ok());
        for (ready, cordoned, word) in [
            ("Unknown", false, "node n1 is NotReady: Kubelet stopped posting"),
            ("False", true, "node n1 is NotReady"),
            ("True", true, "node n1 is cordoned"),
        ] {
            let error = judge("n1", &node(ready, cordoned)).unwrap_err();
            assert!(error.what.contains(word) && error.hint.is_some(), "{error}");
        }
    }
}
