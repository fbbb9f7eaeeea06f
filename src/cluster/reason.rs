//! Why something isn't ready, read from status, pods and events, and what helps against it. Pure.

use serde_json::Value;

use crate::config_doc;
use crate::judge::store::steady;
use crate::judge::velero::{Location, Phase, Schedule};

/// Longer texts of the cluster are cut.
const LONGEST: usize = 500;
/// So much of a program's last words is shown.
const WORDS: usize = 300;
/// States of a container that waiting seldom heals.
const STUCK: [&str; 7] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
];

pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

pub(super) fn count(value: &Value, key: &str) -> i64 {
    value[key].as_i64().unwrap_or_default()
}

pub(super) fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    items(&object["status"], "conditions").iter().find(|c| c["type"] == kind)
}

/// One line, of bounded length.
pub(super) fn short(message: &str) -> String {
    let line = config_doc::words(message).split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// `a=b,c=d` from a workload's `matchLabels`.
pub(super) fn selector(workload: &Value) -> String {
    let labels = workload["spec"]["selector"]["matchLabels"].as_object();
    let pairs =
        labels.into_iter().flatten().filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
    pairs.collect::<Vec<_>>().join(",")
}

pub(super) fn crd_lacks(crd: &Value) -> Option<String> {
    for kind in ["NamesAccepted", "Established"] {
        match condition(crd, kind) {
            Some(c) if c["status"] == "True" => {}
            Some(c) => return Some(short(&format!("not {kind}: {}", text(c, "message")))),
            None => return Some(format!("not {kind} yet")),
        }
    }
    None
}

/// What a backup location lacks.
pub(super) fn location_lacks(object: &Value) -> Option<String> {
    match Location::of(object) {
        Location::New => Some("Velero has not looked at it yet".into()),
        Location::Outdated { phase } => {
            Some(format!("{phase} before its last change; Velero has not looked again yet"))
        }
        Location::Available { validated: None } => Some("Available, but it does not say since when".into()),
        Location::Available { validated: Some(_) } => None,
        Location::Other { phase, message } => Some(short(&format!("{phase}: {}", steady(message)))),
    }
}

/// Velero takes a schedule or says what is wrong with it, but does not look at one that is paused.
pub(super) fn schedule_lacks(object: &Value) -> Option<String> {
    let Schedule { paused, phase } = Schedule::of(object);
    match phase {
        Phase::Enabled => None,
        _ if paused => Some("it is paused, so Velero does not look at it".into()),
        Phase::New => Some("Velero has not looked at it yet".into()),
        Phase::Refused { outdated: true, .. } => {
            Some("refused before its last change; Velero has not looked again yet".into())
        }
        Phase::Refused { errors, .. } => Some(short(&format!("FailedValidation: {}", errors.join("; ")))),
    }
}

/// What helps against what a schedule lacks; it stays.
pub(super) fn schedule_hint(namespace: &str, name: &str, object: &Value) -> Option<String> {
    let Schedule { paused, phase } = Schedule::of(object);
    match phase {
        Phase::Enabled => None,
        _ if paused => Some(format!("`velero -n {namespace} schedule unpause {name}`, and run again")),
        Phase::Refused { outdated: false, .. } => {
            Some("Velero makes no backups of it: correct the schedule in the file".into())
        }
        Phase::New | Phase::Refused { .. } => None,
    }
}

/// The reason that most likely keeps a workload from being ready: a pod's trouble, else why there is no pod.
pub(super) fn of_workload(
    kind: &str,
    name: &str,
    object: &Value,
    pods: &[Value],
    events: &[Value],
) -> Option<String> {
    let wanted = match kind {
        "DaemonSet" => count(&object["status"], "desiredNumberScheduled"),
        _ => object["spec"]["replicas"].as_i64().unwrap_or(1),
    };
    let pods: Vec<&Value> = pods.iter().filter(|p| p["metadata"]["deletionTimestamp"].is_null()).collect();
    let troubles: Vec<Trouble> = pods.iter().filter_map(|pod| trouble(pod)).collect();
    if let Some(Trouble::Serious(reason)) = troubles.iter().find(|t| matches!(t, Trouble::Serious(_))) {
        return Some(reason.clone());
    }
    if i64::try_from(pods.len()).is_ok_and(|there| there < wanted) {
        let owner = |event: &Value| {
            let (by, at) = (text(&event["involvedObject"], "kind"), text(&event["involvedObject"], "name"));
            (by == kind && at == name) || (by == "ReplicaSet" && at.starts_with(&format!("{name}-")))
        };
        if let Some(reason) = newest_warning(events, owner) {
            return Some(reason);
        }
    }
    let of_pod = |event: &Value| {
        let about = &event["involvedObject"];
        about["kind"] == "Pod" && pods.iter().any(|pod| pod["metadata"]["name"] == about["name"])
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
fn trouble(pod: &Value) -> Option<Trouble> {
    if condition(pod, "Ready").is_some_and(|c| c["status"] == "True") {
        return None;
    }
    let name = text(&pod["metadata"], "name");
    let status = &pod["status"];
    let mut starting = None;
    for container in items(status, "initContainerStatuses").iter().chain(items(status, "containerStatuses")) {
        let (waiting, ended) = (&container["state"]["waiting"], &container["state"]["terminated"]);
        match text(waiting, "reason") {
            "" if count(ended, "exitCode") != 0 => {
                return Some(Trouble::Serious(exit(name, container, ended)));
            }
            "" => {}
            reason @ ("ContainerCreating" | "PodInitializing") => {
                starting = Some(format!("pod {name}: {reason}"))
            }
            reason => {
                let before = &container["lastState"]["terminated"];
                // How it ended says more than for how long it is left alone.
                let message = if before.is_null() {
                    text(waiting, "message").to_owned()
                } else {
                    exit(name, container, before)
                };
                return Some(Trouble::Serious(short(&format!("pod {name}: {reason}: {message}"))));
            }
        }
    }
    if let Some(c) = condition(pod, "PodScheduled").filter(|c| c["status"] == "False") {
        let message = format!("pod {name}: {}: {}", text(c, "reason"), text(c, "message"));
        return Some(Trouble::Serious(short(&message)));
    }
    Some(Trouble::Starting(
        starting.unwrap_or_else(|| format!("pod {name}: {}, not ready yet", text(status, "phase"))),
    ))
}

pub(super) fn exit(pod: &str, container: &Value, ended: &Value) -> String {
    let (name, code) = (text(container, "name"), count(ended, "exitCode"));
    let message = [text(ended, "message"), text(ended, "reason")].into_iter().find(|m| !m.is_empty());
    short(&format!(
        "container {name} of pod {pod} ended with code {code}: {}",
        last_words(message.unwrap_or("no message"))
    ))
}

/// The end of what a program wrote: it says there why it ends.
pub(super) fn last_words(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().rev().nth(WORDS) {
        Some((from, _)) => format!("…{}", &line[from..]),
        None => line,
    }
}

/// The pods' container that ended without a word of its own in the pod's status, as pod and container.
pub(super) fn silent(pods: &[Value]) -> Option<(&str, &str)> {
    pods.iter().find_map(|pod| {
        let silent = |one: &&Value| {
            let ended = [&one["state"]["terminated"], &one["lastState"]["terminated"]];
            let ended = ended.into_iter().find(|ended| count(ended, "exitCode") != 0);
            ended.is_some_and(|ended| text(ended, "message").is_empty())
        };
        let container = items(&pod["status"], "containerStatuses").iter().find(silent)?;
        Some((text(&pod["metadata"], "name"), text(container, "name")))
    })
}

/// A container's state that waiting seldom heals, quoted.
pub(super) fn stuck(pods: &[Value]) -> Option<String> {
    pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).find_map(|pod| {
        let reason = |one: &Value| STUCK.contains(&text(&one["state"]["waiting"], "reason"));
        if !items(&pod["status"], "containerStatuses").iter().any(reason) {
            return None;
        }
        trouble(pod).map(Trouble::text)
    })
}

fn newest_warning(events: &[Value], about: impl Fn(&Value) -> bool) -> Option<String> {
    // Timestamps are RFC 3339 in UTC, so their text sorts by time.
    let time = |event: &Value| {
        let times = [
            text(event, "lastTimestamp"),
            text(event, "eventTime"),
            text(&event["metadata"], "creationTimestamp"),
        ];
        times.into_iter().find(|t| !t.is_empty()).unwrap_or_default().to_owned()
    };
    let warnings = events.iter().filter(|event| event["type"] == "Warning" && about(event));
    let newest = warnings.max_by_key(|event| time(event))?;
    Some(short(&format!("{}: {}", text(newest, "reason"), text(newest, "message"))))
}

/// Part of a reason, and what helps.
const HINTS: [(&str, &str); 12] = [
    (
        "violates PodSecurity",
        "the namespace needs the label pod-security.kubernetes.io/enforce=privileged; nodeprep sets it, so something \
         takes it away again",
    ),
    (
        "ImagePull",
        "the node can't pull the image: check the name, the registry and the mirror; `images:` in nodeprep.yaml replaces it",
    ),
    ("ErrImageNeverPull", "load the image onto every node, or let it be pulled"),
    ("InvalidImageName", "correct the image under `images:` in nodeprep.yaml"),
    ("CreateContainerConfigError", "a Secret or ConfigMap that the pod needs is missing"),
    ("FailedMount", "a Secret, ConfigMap or path that the pod mounts is missing"),
    (
        "didn't match Pod's node affinity",
        "no node has the labels of the node selector: check `labels` and `nodeSelector`",
    ),
    ("no node matches", "no node has the labels of the node selector: check `labels` and `nodeSelector`"),
    ("untolerated taint", "the nodes are tainted: remove the taint, or use other nodes"),
    ("Insufficient", "the nodes have no room for the pod's requests"),
    ("CrashLoopBackOff", "read why it ends: kubectl logs --previous"),
    ("it was started again", "read why it ended: kubectl logs --previous"),
];

/// What helps against a reason why a workload isn't ready.
pub(super) fn hint(reason: &str) -> Option<&'static str> {
    HINTS.iter().find(|(part, _)| reason.contains(part)).map(|(_, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, status: Value) -> Value {
        json!({"metadata": {"name": name}, "status": status})
    }

    fn warning(kind: &str, name: &str, at: &str, reason: &str, message: &str) -> Value {
        json!({"type": "Warning", "lastTimestamp": at, "reason": reason, "message": message,
               "involvedObject": {"kind": kind, "name": name}})
    }

    #[test]
    fn a_stuck_pod_is_quoted_with_its_containers_last_words() {
        let pod = |reason: &str, message: &str| {
            json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [{"name": "c",
                "state": {"waiting": {"reason": reason, "message": "back-off 5m0s"}},
                "lastState": {"terminated": {"exitCode": 2, "message": message}}}]}})
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
        let workload = json!({"spec": {"replicas": 1}});
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
            let found = of_workload("Deployment", "v", &workload, &pods, &events).unwrap_or_default();
            assert!(found.contains(reason), "{found} should say {reason}");
            assert!(hint(&found).unwrap_or_default().contains(helps), "{found}: {:?}", hint(&found));
        }
        let found = of_workload("Deployment", "v", &workload, &[creating], &[]);
        assert_eq!(found.as_deref(), Some("pod v-1: ContainerCreating"));
        let ready = pod("v-1", json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        assert_eq!(of_workload("Deployment", "v", &workload, &[ready], &[]), None);
    }

    #[test]
    fn a_location_is_available_only_when_velero_looked_after_the_last_change() {
        let location = |looked: &str, phase: &str| {
            json!({
                "metadata": {"managedFields": [{"manager": "nodeprep", "time": "2026-01-01T00:01:00Z"},
                                               {"manager": "velero-server", "time": "2026-01-01T00:09:00Z"}]},
                "status": {"phase": phase, "lastValidationTime": looked, "message": "InvalidAccessKeyId: unknown\n  status code: 403"}
            })
        };
        assert_eq!(location_lacks(&location("2026-01-01T00:01:00Z", "Available")), None);
        assert!(location_lacks(&location("2026-01-01T00:00:59Z", "Available")).is_some());
        let lack = location_lacks(&location("2026-01-01T00:02:00Z", "Unavailable")).unwrap_or_default();
        assert_eq!(lack, "Unavailable: InvalidAccessKeyId: unknown status code: 403");
        assert!(location_lacks(&json!({"metadata": {}})).is_some());
    }
}
