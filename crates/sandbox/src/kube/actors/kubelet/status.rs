//! What the kubelet tells of a pod, at each step of its life.

use serde_json::{Value, json};

use crate::kube::actors::objects::{condition, condition_of, digest, hash, list, with_condition};
use crate::kube::actors::programs::crash::{Crash, message};
use crate::kube::actors::text;

/// A container that does not run: its name, the reason and a message.
pub(super) type Stuck<'a> = (&'a str, &'a str, &'a str);

/// Before its containers run.
pub(super) fn waiting(pod: &Value, stuck: Option<Stuck<'_>>, now: &str) -> Value {
    let with_init = !list(pod, "/spec/initContainers").is_empty();
    let before = if with_init { "PodInitializing" } else { "ContainerCreating" };
    let state = |container: &Value| match stuck {
        Some((name, reason, message)) if container["name"] == name => {
            json!({"waiting": {"reason": reason, "message": message}})
        }
        _ => json!({"waiting": {"reason": before}}),
    };
    let containers = each(pod, "containers", |container| {
        let mut told = told(pod, container, state(container), false);
        if let Some(last) = lost_with_machine(pod, text(container, "/name"), now) {
            told["lastState"] = last;
        }
        told
    });
    let init = each(pod, "initContainers", |container| told(pod, container, state(container), false));
    let initialized = if with_init {
        ("False", "ContainersNotInitialized", "containers with incomplete status")
    } else {
        ("True", "", "")
    };
    let unready = ("False", "ContainersNotReady", "containers with unready status");
    status(pod, text(pod, "/status/phase"), initialized, unready, (init, containers), now)
}

/// This init container runs, and the others wait for it.
pub(super) fn initializing(pod: &Value, name: &str, now: &str) -> Value {
    let mut states = list(pod, "/status/initContainerStatuses").iter();
    let since =
        states.find(|one| one["name"] == name).map_or("", |one| text(one, "/state/running/startedAt"));
    let since = if since.is_empty() { now } else { since };
    let init = each(pod, "initContainers", |container| {
        let runs = container["name"] == name;
        let waiting = json!({"waiting": {"reason": "PodInitializing"}});
        told(pod, container, if runs { json!({"running": {"startedAt": since}}) } else { waiting }, false)
    });
    let mut status = waiting(pod, None, now);
    json_patch::merge(&mut status, &json!({"initContainerStatuses": init}));
    status
}

/// Whether an init container runs.
pub(super) fn initializes(pod: &Value) -> bool {
    list(pod, "/status/initContainerStatuses").iter().any(|one| !one["state"]["running"].is_null())
}

/// A container ended by itself, and is not started again at once.
pub(super) fn crashed(pod: &Value, crash: &Crash, now: &str) -> Value {
    let containers = each(pod, "containers", |container| {
        let name = text(container, "/name");
        let mut ended = json!({
            "exitCode": crash.code, "reason": "Error", "finishedAt": now, "containerID": id(pod, container),
            "startedAt": state_of(pod, name).map_or(now, |one| text(one, "/state/running/startedAt")),
        });
        if container["terminationMessagePolicy"] == "FallbackToLogsOnError" {
            ended["message"] = json!(format!("{}\n", crash.words));
        }
        let message = message(pod, name, restarts(pod, name));
        let state = json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}});
        let mut told = told(pod, container, state, false);
        told["lastState"] = json!({"terminated": ended});
        told
    });
    let init = pod["status"]["initContainerStatuses"].clone();
    let unready = ("False", "ContainersNotReady", "containers with unready status");
    status(pod, "Running", ("True", "", ""), unready, (init, containers), now)
}

/// Whether the containers wait, and for what may be looked at.
pub(super) fn is_waiting(pod: &Value) -> bool {
    let states = list(pod, "/status/containerStatuses");
    !states.is_empty() && states.iter().all(|one| !one["state"]["waiting"].is_null())
}

/// Why the container of this name waits; empty when it does not.
pub(super) fn waits_for<'a>(pod: &'a Value, container: &str) -> &'a str {
    let states =
        list(pod, "/status/initContainerStatuses").iter().chain(list(pod, "/status/containerStatuses"));
    let mut states = states.filter(|one| one["name"] == container);
    states.next().map_or("", |one| text(one, "/state/waiting/reason"))
}

/// All its containers run.
pub(super) fn running(pod: &Value, now: &str) -> Value {
    let containers = each(pod, "containers", |container| {
        let mut told = told(pod, container, json!({"running": {"startedAt": now}}), true);
        if text(pod, "/status/phase") == "Running" {
            told["restartCount"] = json!(restarts(pod, text(container, "/name")) + 1);
        }
        told
    });
    let init = each(pod, "initContainers", |container| {
        let state = json!({"terminated": {
            "exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now, "containerID": id(pod, container),
        }});
        let mut told = told(pod, container, state, true);
        told["started"] = json!(false);
        told
    });
    let mut status = status(pod, "Running", ("True", "", ""), ("True", "", ""), (init, containers), now);
    let [a, b, ..] = hash(text(pod, "/metadata/uid"));
    let address = match text(pod, "/status/hostIP") {
        host if pod["spec"]["hostNetwork"] == true && !host.is_empty() => host.to_owned(),
        _ => format!("10.244.{a}.{b}"),
    };
    status["podIP"] = json!(address);
    status["podIPs"] = json!([{"ip": address}]);
    status
}

/// Its program ended with this exit code.
pub(super) fn ended(pod: &Value, code: i32, now: &str) -> Value {
    let (phase, reason, why) =
        if code == 0 { ("Succeeded", "Completed", "PodCompleted") } else { ("Failed", "Error", "PodFailed") };
    over(pod, phase, code, reason, why, now)
}

/// Its machine went down, and it is not started again.
pub(super) fn lost(pod: &Value, now: &str) -> Value {
    over(pod, "Failed", 255, "Unknown", "PodFailed", now)
}

fn over(pod: &Value, phase: &str, code: i32, reason: &str, why: &str, now: &str) -> Value {
    let containers = each(pod, "containers", |container| {
        let mut states = list(pod, "/status/containerStatuses").iter();
        let state = states.find(|one| one["name"] == container["name"]);
        let begun = state.map_or("", |one| text(one, "/state/running/startedAt"));
        let begun = if begun.is_empty() { now } else { begun };
        let state = json!({"terminated": {
            "exitCode": code, "reason": reason, "startedAt": begun, "finishedAt": now, "containerID": id(pod, container),
        }});
        told(pod, container, state, false)
    });
    let init = pod["status"]["initContainerStatuses"].clone();
    let initialized = ("True", if code == 0 { why } else { "" }, "");
    status(pod, phase, initialized, ("False", why, ""), (init, containers), now)
}

/// Nobody hears of it any more.
pub(super) fn not_ready(pod: &Value, now: &str) -> Value {
    with_condition(pod, condition(pod, "Ready", "False", "NodeNotReady", "", now))
}

/// A condition's status, reason and message.
type Told<'a> = (&'a str, &'a str, &'a str);

fn status(
    pod: &Value,
    phase: &str,
    initialized: Told<'_>,
    ready: Told<'_>,
    (init, containers): (Value, Value),
    now: &str,
) -> Value {
    let tell =
        |kind: &str, (status, reason, message): Told<'_>| condition(pod, kind, status, reason, message, now);
    let sandbox = if phase == "Running" { "True" } else { "False" };
    let scheduled = condition_of(pod, "PodScheduled").cloned();
    let conditions = [
        tell("PodReadyToStartContainers", (sandbox, "", "")),
        tell("Initialized", initialized),
        tell("Ready", ready),
        tell("ContainersReady", ready),
        scheduled.unwrap_or_else(|| tell("PodScheduled", ("True", "", ""))),
    ];
    let mut status = pod["status"].clone();
    let begun = if status["startTime"].is_null() { json!(now) } else { status["startTime"].clone() };
    let news = json!({
        "phase": phase, "startTime": begun, "conditions": conditions, "containerStatuses": containers,
        "initContainerStatuses": init,
    });
    json_patch::merge(&mut status, &news);
    status
}

/// The statuses of a list of containers; null when there are none.
fn each(pod: &Value, which: &str, told: impl Fn(&Value) -> Value) -> Value {
    let containers = list(pod, &format!("/spec/{which}"));
    if containers.is_empty() { Value::Null } else { containers.iter().map(told).collect() }
}

fn state_of<'a>(pod: &'a Value, container: &str) -> Option<&'a Value> {
    list(pod, "/status/containerStatuses").iter().find(|one| one["name"] == container)
}

/// How a container ended that ran until its machine went down.
fn lost_with_machine(pod: &Value, container: &str, now: &str) -> Option<Value> {
    let before = state_of(pod, container).filter(|one| !one["state"]["running"].is_null())?;
    Some(json!({"terminated": {
        "exitCode": 255, "reason": "Unknown", "startedAt": before["state"]["running"]["startedAt"], "finishedAt": now,
        "containerID": before["containerID"],
    }}))
}

fn told(pod: &Value, container: &Value, state: Value, ready: bool) -> Value {
    let image = text(container, "/image");
    let waits = !state["waiting"].is_null();
    let name = text(container, "/name");
    let last = state_of(pod, name).map(|one| one["lastState"].clone()).filter(Value::is_object);
    let mut told = json!({
        "name": container["name"], "image": image, "ready": ready, "started": ready,
        "imageID": if waits { String::new() } else { format!("{image}@sha256:{}", digest(image)) },
        "restartCount": restarts(pod, name), "state": state, "lastState": last.unwrap_or_else(|| json!({})),
    });
    if !waits {
        told["containerID"] = json!(id(pod, container));
    }
    told
}

pub(super) fn restarts(pod: &Value, container: &str) -> u64 {
    state_of(pod, container).and_then(|one| one["restartCount"].as_u64()).unwrap_or(0)
}

fn id(pod: &Value, container: &Value) -> String {
    let name = text(container, "/name");
    let seed = format!("{}/{name}/{}", text(pod, "/metadata/uid"), restarts(pod, name));
    format!("containerd://{}", digest(&seed))
}
