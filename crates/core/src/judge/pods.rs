//! What keeps the pods of a workload from being ready, by their status and the events about them, and what helps against it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerStateTerminated, ContainerStatus, Event, ObjectReference, Pod, PodCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::words as say;
use super::workload::{NO_NODE, Workload};
use crate::config_doc;
use crate::model::said::{POD_SECURITY, Words, words};

/// Longer texts of the cluster are cut.
const LONGEST: usize = 500;
/// So much of a program's last words is shown.
const WORDS: usize = 300;
/// States of a container that waiting seldom heals.
const STUCK: [Words; 7] = [
    say::CRASH_LOOP,
    say::IMAGE_BACK_OFF,
    say::IMAGE_PULL,
    say::IMAGE_NEVER,
    say::IMAGE_NAME,
    say::CONTAINER_CONFIG,
    say::CREATE_CONTAINER,
];

/// One line, of bounded length.
pub fn short(message: &str) -> String {
    let line = config_doc::words(message).split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// The label selector of a workload's pods, as a list asks for it: `a=b,c in (d,e)`.
pub fn selector(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let rules = selector.match_expressions.iter().flatten().map(|rule| {
        let (key, values) = (&rule.key, rule.values.as_deref().unwrap_or_default().join(","));
        match rule.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.clone(),
            _ => format!("!{key}"),
        }
    });
    labels.chain(rules).collect::<Vec<_>>().join(",")
}

/// The reason that most likely keeps a workload from being ready: a pod's trouble, else why there is no pod.
pub fn of_workload(workload: &Workload, pods: &[Pod], events: &[Event]) -> Option<String> {
    let (kind, name) = (workload.kind(), workload.name());
    let pods: Vec<&Pod> = staying(pods).collect();
    let troubles: Vec<Trouble> = pods.iter().filter_map(|pod| trouble(pod)).collect();
    if let Some(Trouble::Serious(reason)) = troubles.iter().find(|t| matches!(t, Trouble::Serious(_))) {
        return Some(reason.clone());
    }
    if i32::try_from(pods.len()).is_ok_and(|there| there < workload.wanted()) {
        let owner = |about: &ObjectReference| {
            let (by, at) = (some(&about.kind), some(&about.name));
            (by == kind && at == name) || (by == "ReplicaSet" && at.starts_with(&format!("{name}-")))
        };
        if let Some(reason) = newest_warning(events, owner) {
            return Some(reason);
        }
    }
    let of_pod = |about: &ObjectReference| {
        some(&about.kind) == "Pod" && pods.iter().any(|pod| pod.metadata.name == about.name)
    };
    newest_warning(events, of_pod).or_else(|| troubles.into_iter().next().map(Trouble::text))
}

enum Trouble {
    /// It won't pass by itself.
    Serious(String),
    /// It is still starting.
    Starting(String),
}

impl Trouble {
    fn text(self) -> String {
        match self {
            Self::Serious(text) | Self::Starting(text) => text,
        }
    }
}

/// What is wrong with a pod that isn't ready; None for one that is.
fn trouble(pod: &Pod) -> Option<Trouble> {
    if condition(pod, "Ready").is_some_and(|ready| ready.status == "True") {
        return None;
    }
    let name = name(pod);
    let status = pod.status.as_ref();
    let first = status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    let mut starting = None;
    for container in first.iter().chain(containers(pod)) {
        let state = container.state.as_ref();
        let ended = state.and_then(|state| state.terminated.as_ref());
        let waiting = state.and_then(|state| state.waiting.as_ref());
        let reason = waiting.map_or("", |waiting| some(&waiting.reason));
        if reason.is_empty() {
            if let Some(ended) = ended.filter(|ended| ended.exit_code != 0) {
                return Some(Trouble::Serious(exit(name, container, ended)));
            }
        } else if say::CREATING.are(reason) || say::INITIALIZING.are(reason) {
            starting = Some(format!("pod {name}: {reason}"));
        } else {
            // How it ended says more than for how long it is left alone.
            let message = match last_end(container) {
                Some(before) => exit(name, container, before),
                None => waiting.map_or("", |waiting| some(&waiting.message)).to_owned(),
            };
            return Some(Trouble::Serious(short(&format!("pod {name}: {reason}: {message}"))));
        }
    }
    if let Some(c) = condition(pod, "PodScheduled").filter(|c| c.status == "False") {
        let message = format!("pod {name}: {}: {}", some(&c.reason), some(&c.message));
        return Some(Trouble::Serious(short(&message)));
    }
    let phase = status.map_or("", |status| some(&status.phase));
    Some(Trouble::Starting(starting.unwrap_or_else(|| format!("pod {name}: {phase}, not ready yet"))))
}

pub(super) fn exit(pod: &str, container: &ContainerStatus, ended: &ContainerStateTerminated) -> String {
    let (name, code) = (&container.name, ended.exit_code);
    let message = [some(&ended.message), some(&ended.reason)].into_iter().find(|m| !m.is_empty());
    short(&format!(
        "container {name} of pod {pod} ended with code {code}: {}",
        last_words(message.unwrap_or("no message"))
    ))
}

/// The end of what a program wrote: it says there why it ends.
pub fn last_words(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().rev().nth(WORDS) {
        Some((from, _)) => format!("…{}", &line[from..]),
        None => line,
    }
}

/// The pods' container that ended without a word of its own in the pod's status, as pod and container.
pub fn silent(pods: &[Pod]) -> Option<(&str, &str)> {
    pods.iter().find_map(|pod| {
        let silent = |one: &&ContainerStatus| {
            let ended = [one.state.as_ref(), one.last_state.as_ref()].into_iter().flatten();
            let mut ended = ended.filter_map(|state| state.terminated.as_ref());
            let ended = ended.find(|ended| ended.exit_code != 0);
            ended.is_some_and(|ended| some(&ended.message).is_empty())
        };
        let container = containers(pod).iter().find(silent)?;
        Some((name(pod), container.name.as_str()))
    })
}

/// A container's state that waiting seldom heals, quoted.
pub fn stuck(pods: &[Pod]) -> Option<String> {
    staying(pods).find_map(|pod| {
        let stuck = |one: &ContainerStatus| {
            let waiting = one.state.as_ref().and_then(|state| state.waiting.as_ref());
            waiting.is_some_and(|waiting| STUCK.iter().any(|words| words.are(some(&waiting.reason))))
        };
        containers(pod).iter().any(stuck).then(|| trouble(pod).map(Trouble::text)).flatten()
    })
}

/// What keeps one of the pods from starting, and does not pass by itself.
pub fn serious(pods: &[Pod]) -> Option<String> {
    staying(pods).find_map(|pod| match trouble(pod)? {
        Trouble::Serious(why) => Some(why),
        Trouble::Starting(_) => None,
    })
}

/// Those that nobody has deleted.
pub(super) fn staying(pods: &[Pod]) -> impl Iterator<Item = &Pod> {
    pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none())
}

pub(super) fn name(pod: &Pod) -> &str {
    some(&pod.metadata.name)
}

pub(super) fn containers(pod: &Pod) -> &[ContainerStatus] {
    let status = pod.status.as_ref();
    status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default()
}

/// How the container ended before it was started again.
pub(super) fn last_end(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    container.last_state.as_ref()?.terminated.as_ref()
}

pub(super) fn some(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn newest_warning(events: &[Event], about: impl Fn(&ObjectReference) -> bool) -> Option<String> {
    let time = |event: &&Event| -> Option<Timestamp> {
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        let once = event.event_time.as_ref().map(|time| time.0);
        last.or(once).or(event.metadata.creation_timestamp.as_ref().map(|time| time.0))
    };
    let warnings =
        events.iter().filter(|event| some(&event.type_) == "Warning" && about(&event.involved_object));
    let newest = warnings.max_by_key(time)?;
    Some(short(&format!("{}: {}", some(&newest.reason), some(&newest.message))))
}

/// How a doubt that a container stays up is said.
pub(super) const AGAIN: &str = "it was started again";
const OWN: &str = "our own: workload.rs, steady.rs";

/// What the cluster says, and what helps; the first that matches speaks.
const HINTS: &[(&[Words], &str)] = &[
    (
        &[POD_SECURITY],
        "the namespace needs the label pod-security.kubernetes.io/enforce=privileged; nodeprep sets it, so something \
         takes it away again",
    ),
    (
        &[say::IMAGE_BACK_OFF, say::IMAGE_PULL, say::PULL_SECRET],
        "the node can't pull the image: check the name, the registry and the mirror; `images:` in nodeprep.yaml replaces it",
    ),
    (&[say::IMAGE_NEVER], "load the image onto every node, or let it be pulled"),
    (&[say::IMAGE_NAME], "correct the image under `images:` in nodeprep.yaml"),
    (&[say::CONTAINER_CONFIG], "a Secret or ConfigMap that the pod needs is missing"),
    (&[say::FAILED_MOUNT], "a Secret, ConfigMap or path that the pod mounts is missing"),
    (
        &[say::POD_AFFINITY, words(NO_NODE, OWN)],
        "no node has the labels of the node selector: check `labels` and `nodeSelector`",
    ),
    (&[say::TAINTED], "the nodes are tainted: remove the taint, or use other nodes"),
    (&[say::NO_ROOM], "the nodes have no room for the pod's requests"),
    (&[say::CRASH_LOOP], "read why it ends: kubectl logs --previous"),
    (&[words(AGAIN, OWN)], "read why it ended: kubectl logs --previous"),
];

/// What helps against a reason why a workload isn't ready.
pub fn hint(reason: &str) -> Option<&'static str> {
    let known = |(said, _): &&(&[Words], &str)| said.iter().any(|words| words.are_in(reason));
    HINTS.iter().find(known).map(|(_, hint)| *hint)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn pod(name: &str, status: Value) -> Pod {
        from_value(json!({"metadata": {"name": name}, "status": status})).unwrap()
    }

    fn warning(kind: &str, name: &str, at: &str, reason: &str, message: &str) -> Event {
        from_value(json!({"type": "Warning", "lastTimestamp": at, "reason": reason, "message": message,
               "involvedObject": {"kind": kind, "name": name}}))
        .unwrap()
    }

    #[test]
    fn a_stuck_pod_is_quoted_with_its_containers_last_words() {
        let pod = |reason: &str, message: &str| {
            let last = json!({"terminated": {"exitCode": 2, "message": message}});
            let state = json!({"waiting": {"reason": reason, "message": "back-off 5m0s"}});
            pod("p", json!({"containerStatuses": [{"name": "c", "state": state, "lastState": last}]}))
        };
        let quoted =
            stuck(&[pod("CrashLoopBackOff", "I am well\nlog: cannot create log")]).unwrap_or_default();
        let words = "pod p: CrashLoopBackOff: container c of pod p ended with code 2: I am well log: cannot create log";
        assert_eq!(quoted, words);
        assert_eq!(stuck(&[pod("ContainerCreating", "")]), None);
        assert_eq!(silent(&[pod("CrashLoopBackOff", "")]), Some(("p", "c")));
        assert_eq!(silent(&[pod("CrashLoopBackOff", "words")]), None);
        let long = format!("{} the end", "x".repeat(900));
        assert!(last_words(&long).starts_with('…') && last_words(&long).ends_with("x the end"));
    }

    #[test]
    fn the_real_reason_is_told_before_the_counts() {
        let workload = json!({"metadata": {"name": "v"}, "spec": {"replicas": 1}});
        let workload = Workload::Deployment(from_value(workload).unwrap());
        let pulling = pod(
            "v-1",
            json!({"containerStatuses": [{"name": "v", "state": {"waiting":
            {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"x:1\""}}}]}),
        );
        let crashing = pod(
            "v-1",
            json!({"containerStatuses": [{"name": "v",
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
            "lastState": {"terminated": {"exitCode": 2, "reason": "Error"}}}]}),
        );
        let creating = pod(
            "v-1",
            json!({"containerStatuses": [{"name": "v", "state": {"waiting": {"reason": "ContainerCreating"}}}]}),
        );
        let unscheduled = pod(
            "v-1",
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu."}]}),
        );
        let psa = warning(
            "ReplicaSet",
            "v-5d4",
            "2026-01-01T00:00:01Z",
            "FailedCreate",
            "violates PodSecurity \"baseline:latest\"",
        );
        let mount = warning(
            "Pod",
            "v-1",
            "2026-01-01T00:00:02Z",
            "FailedMount",
            "secret \"cloud-credentials\" not found",
        );
        let other = warning("Pod", "z-1", "2026-01-01T00:00:09Z", "BackOff", "not ours");
        let cases = [
            (
                vec![pulling],
                vec![],
                "pod v-1: ImagePullBackOff: Back-off pulling image \"x:1\"",
                "can't pull",
            ),
            (vec![crashing], vec![], "container v of pod v-1 ended with code 2: Error", "kubectl logs"),
            (vec![unscheduled], vec![], "Insufficient cpu", "no room"),
            (
                vec![],
                vec![psa.clone(), other.clone()],
                "FailedCreate: violates PodSecurity",
                "enforce=privileged",
            ),
            (vec![creating.clone()], vec![psa, mount, other], "FailedMount: secret", "missing"),
        ];
        for (pods, events, reason, helps) in cases {
            let found = of_workload(&workload, &pods, &events).unwrap_or_default();
            assert!(found.contains(reason), "{found} should say {reason}");
            assert!(hint(&found).unwrap_or_default().contains(helps), "{found}: {:?}", hint(&found));
        }
        let found = of_workload(&workload, &[creating], &[]);
        assert_eq!(found.as_deref(), Some("pod v-1: ContainerCreating"));
        let ready = pod("v-1", json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        assert_eq!(of_workload(&workload, &[ready], &[]), None);
    }

    #[test]
    fn the_pods_of_a_workload_are_asked_for_by_all_that_its_selector_says() {
        let rule =
            |operator: &str, values: &[&str]| json!({"key": "k", "operator": operator, "values": values});
        let rules = json!([
            rule("In", &["x", "y"]),
            rule("NotIn", &["z"]),
            rule("Exists", &[]),
            rule("DoesNotExist", &[])
        ]);
        for (matches, expected) in [
            (json!({"matchLabels": {"a": "b", "c": "d"}}), "a=b,c=d"),
            (json!({"matchExpressions": rules}), "k in (x,y),k notin (z),k,!k"),
            (json!({}), ""),
        ] {
            assert_eq!(selector(&from_value(matches).unwrap()), expected);
        }
    }
}
