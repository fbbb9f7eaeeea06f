//! Disruption budgets: how many of their pods may be missing when one is asked to leave.
//! Source: k8s.io/kubernetes, pkg/controller/disruption; pkg/registry/core/pod/storage, eviction.go.

use serde_json::Value;

use super::object::{ending, holds, text};

/// What the API server says to an eviction that has to wait.
pub(super) const REFUSAL: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Whether the budget keeps this pod from being evicted now.
pub(super) fn forbids<'a>(budget: &Value, pod: &Value, pods: impl Iterator<Item = &'a Value>) -> bool {
    if !chooses(budget, pod) || !holds(pod, "Ready") {
        return false;
    }
    let of: Vec<&Value> =
        pods.filter(|pod| chooses(budget, pod) && text(pod, "/status/phase") != "Succeeded").collect();
    let healthy = of.iter().filter(|pod| holds(pod, "Ready") && !ending(pod)).count();
    let needed = match (
        part(&budget["spec"]["minAvailable"], of.len()),
        part(&budget["spec"]["maxUnavailable"], of.len()),
    ) {
        (Some(least), _) => least,
        (None, Some(most)) => of.len().saturating_sub(most),
        (None, None) => 0,
    };
    healthy <= needed
}

/// A number, or a part of all, rounded up.
fn part(value: &Value, all: usize) -> Option<usize> {
    match value {
        Value::Number(number) => usize::try_from(number.as_u64()?).ok(),
        Value::String(text) => Some((all * text.strip_suffix('%')?.parse::<usize>().ok()?).div_ceil(100)),
        _ => None,
    }
}

fn chooses(budget: &Value, pod: &Value) -> bool {
    let labels = &pod["metadata"]["labels"];
    let wanted = budget["spec"]["selector"]["matchLabels"].as_object();
    wanted.is_some_and(|wanted| wanted.iter().all(|(key, value)| labels.get(key) == Some(value)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_budget_keeps_so_many_pods_as_it_says() {
        let pod = |ready: &str| json!({"metadata": {"labels": {"app": "a"}}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let (up, down) = (pod("True"), pod("False"));
        for (spec, pods, forbidden) in [
            (json!({"maxUnavailable": 1}), vec![&up], false),
            (json!({"maxUnavailable": 1}), vec![&up, &down], true),
            (json!({"maxUnavailable": 0}), vec![&up], true),
            (json!({"minAvailable": 1}), vec![&up], true),
            (json!({"minAvailable": 1}), vec![&up, &up], false),
            (json!({"minAvailable": "50%"}), vec![&up, &up, &down], true),
        ] {
            let mut budget = json!({"spec": {"selector": {"matchLabels": {"app": "a"}}}});
            json_patch::merge(&mut budget, &json!({"spec": spec}));
            assert_eq!(forbids(&budget, &up, pods.iter().copied()), forbidden, "{spec} {pods:?}");
            assert!(!forbids(&budget, &down, pods.into_iter()), "one that is not ready may always go");
        }
        let other = json!({"spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "b"}}}});
        assert!(!forbids(&other, &up, [&up].into_iter()));
    }
}
