//! The kubelets: on every machine that is up, the pods that were sent there start, run and end.

mod nodes;
mod status;
mod volumes;

use std::time::Duration;

use serde_json::Value;

use super::objects::{holds, list, path, set_status};
use super::programs::crash::{self, Crash};
use super::programs::{Program, Run};
use super::{Stage, ending, names, programs, text, velero};
use crate::kube::store::Place;

const WHO: &str = "kubelet";
/// From the volumes' mounting to the containers' start.
const START: Duration = Duration::from_millis(400);
/// From a pod's deletion to its end.
const END: Duration = Duration::from_millis(700);
/// A volume that could not be mounted is tried again after this time.
const MOUNT_AGAIN: Duration = Duration::from_secs(8);
/// After a failed pull.
const PULL_AGAIN: Duration = Duration::from_secs(2);
/// An image that is called so can't be pulled.
const NO_IMAGE: &str = "does-not-exist";

pub(super) fn act(stage: &mut Stage<'_>) {
    nodes::act(stage);
    end(stage);
    forget_logs(stage);
    let pods = stage.api.store.list("/pods", "").map(|(_, pod)| pod);
    let pods: Vec<Value> = pods.filter(|pod| is_due(stage, pod)).cloned().collect();
    for pod in pods {
        let down = stage.hosts.get(text(&pod, "/spec/nodeName")).is_none_or(|host| host.down);
        if down {
            let status = status::not_ready(&pod, &stage.time());
            set_status(stage, WHO, &pod, status);
        } else if holds(&pod, "Ready") {
            run(stage, &pod);
        } else {
            start(stage, &pod);
        }
    }
}

/// A pod's log goes with it.
fn forget_logs(stage: &mut Stage<'_>) {
    let api = &mut *stage.api;
    let store = &api.store;
    api.logs.retain(|(namespace, name), _| {
        let pod = Place { resource: "/pods".into(), namespace: namespace.clone(), name: name.clone() };
        store.get(&pod).is_some()
    });
}

/// Pods that were deleted end, and are gone then.
fn end(stage: &mut Stage<'_>) {
    let pods = stage.api.store.list("/pods", "").map(|(_, pod)| pod);
    let pods: Vec<Value> = pods.filter(|pod| ending(pod)).cloned().collect();
    for pod in pods {
        let up = stage.hosts.get(text(&pod, "/spec/nodeName")).is_some_and(|host| !host.down);
        if up && stage.done(&format!("pod/{}/end", text(&pod, "/metadata/uid")), END) {
            let now = serde_json::json!({"gracePeriodSeconds": 0});
            let _ = stage.ask(WHO, "DELETE", &path(&pod), &now);
        }
    }
}

/// Whether the kubelet may have something to do for the pod.
fn is_due(stage: &Stage<'_>, pod: &Value) -> bool {
    let Some(host) = stage.hosts.get(text(pod, "/spec/nodeName")) else { return false };
    let ready = holds(pod, "Ready");
    let going = matches!(text(pod, "/status/phase"), "Pending" | "Running") && !ending(pod);
    let works = || !stage.api.logs.contains_key(&key(pod)) && programs::of(pod).is_some();
    going && if host.down { ready } else { !ready || crash::of(pod).is_some() || works() }
}

/// By what a pod's log is found.
fn key(pod: &Value) -> (String, String) {
    let (namespace, name) = names(pod);
    (namespace.to_owned(), name.to_owned())
}

/// One step on the way to a running pod: for the first time, or after its machine was down.
fn start(stage: &mut Stage<'_>, pod: &Value) {
    let now = stage.time();
    let running = text(pod, "/status/phase") == "Running";
    if running && text(pod, "/spec/restartPolicy") == "Never" {
        return set_status(stage, WHO, pod, status::lost(pod, &now));
    }
    if !status::is_waiting(pod) {
        return set_status(stage, WHO, pod, status::waiting(pod, None, &now));
    }
    let uid = text(pod, "/metadata/uid");
    if rests(stage, pod) {
        return;
    }
    if let Err(why) = volumes::mounts(stage, pod) {
        if !stage.api.told(pod, "FailedMount", &why) || stage.done(&format!("pod/{uid}/mount"), MOUNT_AGAIN) {
            stage.event(WHO, "Warning", pod, "FailedMount", &why);
        }
        return;
    }
    if let Some(container) = containers(pod).find(|container| text(container, "/image").contains(NO_IMAGE)) {
        return pull(stage, pod, container);
    }
    if let Err(why) = volumes::made_by_runtime(stage, pod) {
        return refuse(stage, pod, &why);
    }
    if !status::initializes(pod) && !stage.done(&format!("pod/{uid}/start"), START) {
        return;
    }
    if let Some(container) = velero::waits(stage, pod) {
        return set_status(stage, WHO, pod, status::initializing(pod, container, &now));
    }
    for container in containers(pod) {
        let (name, image) = (text(container, "/name"), text(container, "/image"));
        for (reason, message) in [
            ("Pulled", format!("Container image {image:?} already present on machine")),
            ("Created", format!("Created container: {name}")),
            ("Started", format!("Started container {name}")),
        ] {
            stage.event(WHO, "Normal", pod, reason, &message);
        }
    }
    if crash::of(pod).is_none() {
        stage.api.logs.remove(&key(pod));
    }
    set_status(stage, WHO, pod, status::running(pod, &now));
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(pod, "/spec/initContainers").iter().chain(list(pod, "/spec/containers"))
}

/// An image that can't be had.
fn pull(stage: &mut Stage<'_>, pod: &Value, container: &Value) {
    let (name, image) = (text(container, "/name"), text(container, "/image"));
    let failed = format!(
        "rpc error: code = NotFound desc = failed to pull and unpack image {image:?}: failed to resolve reference \
         {image:?}: {image}: not found"
    );
    let back_off = format!("Back-off pulling image {image:?}");
    let now = stage.time();
    match status::waits_for(pod, name) {
        "ImagePullBackOff" => {}
        "ErrImagePull" => {
            if stage.done(&format!("pod/{}/pull", text(pod, "/metadata/uid")), PULL_AGAIN) {
                stage.event(WHO, "Normal", pod, "BackOff", &back_off);
                stage.event(WHO, "Warning", pod, "Failed", "Error: ImagePullBackOff");
                let why = format!("{back_off}: ErrImagePull: {failed}");
                let status = status::waiting(pod, Some((name, "ImagePullBackOff", &why)), &now);
                set_status(stage, WHO, pod, status);
            }
        }
        _ => {
            stage.event(WHO, "Normal", pod, "Pulling", &format!("Pulling image {image:?}"));
            let why = format!("Failed to pull image {image:?}: {failed}");
            stage.event(WHO, "Warning", pod, "Failed", &why);
            stage.event(WHO, "Warning", pod, "Failed", "Error: ErrImagePull");
            let status = status::waiting(pod, Some((name, "ErrImagePull", &failed)), &now);
            set_status(stage, WHO, pod, status);
        }
    }
}

/// The container runtime can't make what the containers want.
fn refuse(stage: &mut Stage<'_>, pod: &Value, why: &str) {
    let name = list(pod, "/spec/containers").first().map_or("", |container| text(container, "/name"));
    let said = format!("Error: {why}");
    stage.event_once(WHO, "Warning", pod, "Failed", &said);
    let status = status::waiting(pod, Some((name, "CreateContainerError", why)), &stage.time());
    set_status(stage, WHO, pod, status);
}

/// Whether a container that ended is not started again yet.
fn rests(stage: &mut Stage<'_>, pod: &Value) -> bool {
    let Some(crash) =
        crash::of(pod).filter(|crash| status::waits_for(pod, &crash.container) == "CrashLoopBackOff")
    else {
        return false;
    };
    let wait = crash::back_off(status::restarts(pod, &crash.container));
    !stage.done(&format!("pod/{}/back-off", text(pod, "/metadata/uid")), wait)
}

/// A container ends by itself, and is started again later and later.
fn crashes(stage: &mut Stage<'_>, pod: &Value, crash: &Crash) {
    if !stage.done(&format!("pod/{}/crash", text(pod, "/metadata/uid")), crash.after) {
        return;
    }
    let (namespace, name) = names(pod);
    stage.api.logs.insert(key(pod), format!("{}\n", crash.words));
    let uid = text(pod, "/metadata/uid");
    let said =
        format!("Back-off restarting failed container {} in pod {name}_{namespace}({uid})", crash.container);
    stage.event(WHO, "Warning", pod, "BackOff", &said);
    let status = status::crashed(pod, crash, &stage.time());
    set_status(stage, WHO, pod, status);
}

/// What a program does is done when its time is over; then it ends, or sleeps.
fn run(stage: &mut Stage<'_>, pod: &Value) {
    if let Some(ends) = crash::of(pod) {
        return crashes(stage, pod, &ends);
    }
    let Some(program) = programs::of(pod) else { return };
    let uid = text(pod, "/metadata/uid");
    if !stage.done(&format!("pod/{uid}/run"), program.takes()) {
        return;
    }
    let mut mounts = volumes::mounts(stage, pod).unwrap_or_default();
    if matches!(program, Program::Shell(_)) {
        mounts.extend(volumes::root(pod));
    }
    let run = Run { uid, now: stage.now.as_second() };
    let Some(host) = stage.hosts.get_mut(text(pod, "/spec/nodeName")) else { return };
    let ended = program.run(host, &mounts, run);
    stage.api.logs.insert(key(pod), ended.log);
    if let Some(code) = ended.status {
        let status = status::ended(pod, code, &stage.time());
        set_status(stage, WHO, pod, status);
    }
}

#[cfg(test)]
mod tests;
