//! Jobs: pods until enough succeeded, too many failed, or the time is over.

use std::time::Duration;

use serde_json::{Value, json};

use super::{MANAGER, Member, Members, make_pod, may_make, pods_of, remove_pod};
use crate::kube::actors::objects::{condition, counts, holds, number, set_status};
use crate::kube::actors::{Stage, ending, names, text};

const WHO: &str = "job-controller";
/// Between a pod that failed and the next.
const BACK_OFF: Duration = Duration::from_secs(10);

pub(super) fn act(stage: &mut Stage<'_>, members: &Members) {
    let going = |job: &Value| !ending(job) && !holds(job, "Complete") && !holds(job, "Failed");
    let jobs = stage.api.store.list("batch/jobs", "").map(|(_, job)| job);
    let jobs: Vec<Value> = jobs.filter(|job| going(job) && job["spec"]["suspend"] != true).cloned().collect();
    for job in jobs {
        sync(stage, &job, pods_of(members, &job));
    }
}

/// How a job ended.
struct End {
    kind: &'static str,
    /// What is true a moment before.
    before: &'static str,
    reason: &'static str,
    message: &'static str,
}

const SUCCEEDED: End = End {
    kind: "Complete",
    before: "SuccessCriteriaMet",
    reason: "CompletionsReached",
    message: "Reached expected number of succeeded pods",
};
const TOO_OFTEN: End = End {
    kind: "Failed",
    before: "FailureTarget",
    reason: "BackoffLimitExceeded",
    message: "Job has reached the specified backoff limit",
};
const TOO_LATE: End = End {
    kind: "Failed",
    before: "FailureTarget",
    reason: "DeadlineExceeded",
    message: "Job was active longer than specified deadline",
};

fn sync(stage: &mut Stage<'_>, job: &Value, pods: &[Member]) {
    let uid = text(job, "/metadata/uid");
    let phase = |phase: &str| pods.iter().filter(|pod| pod.phase == phase).count();
    let (succeeded, failed) = (phase("Succeeded"), phase("Failed"));
    let active: Vec<&Member> = pods.iter().filter(|pod| pod.active()).collect();
    let limit = |field: &str, otherwise: u64| {
        usize::try_from(number(job, field).unwrap_or(otherwise)).unwrap_or(usize::MAX)
    };
    let wanted = limit("/spec/completions", 1);
    let late = number(job, "/spec/activeDeadlineSeconds")
        .is_some_and(|seconds| stage.done(&format!("job/{uid}/deadline"), Duration::from_secs(seconds)));
    let end = if succeeded >= wanted {
        Some(SUCCEEDED)
    } else if failed > limit("/spec/backoffLimit", 6) {
        Some(TOO_OFTEN)
    } else {
        late.then_some(TOO_LATE)
    };
    let mut running = active.len();
    if end.is_some() {
        for pod in &active {
            remove_pod(stage, WHO, job, pod);
        }
        running = 0;
        stage.timers.forget(&format!("job/{uid}/"));
    } else if active.len() < limit("/spec/parallelism", 1).min(wanted - succeeded)
        && may_go_on(stage, job, failed)
    {
        let _ = make_pod(stage, WHO, job, &labels(job));
    }
    let ready = if running == 0 { 0 } else { active.iter().filter(|pod| pod.ready).count() };
    let mut status =
        counts(&[("active", running), ("succeeded", succeeded), ("failed", failed + active.len() - running)]);
    status.insert("ready".into(), json!(ready));
    let now = stage.time();
    let started = job["status"]["startTime"].clone();
    status.insert("startTime".into(), if started.is_null() { json!(now) } else { started });
    if let Some(end) = &end {
        let told = |kind| condition(job, kind, "True", end.reason, end.message, &now);
        status.insert("conditions".into(), json!([told(end.before), told(end.kind)]));
        let succeeded = end.kind == "Complete";
        if succeeded {
            status.insert("completionTime".into(), json!(now));
        }
        let (kind, reason, message) = if succeeded {
            ("Normal", "Completed", "Job completed")
        } else {
            ("Warning", end.reason, end.message)
        };
        stage.event(WHO, kind, job, reason, message);
    }
    set_status(stage, MANAGER, job, Value::Object(status));
}

/// Whether a pod may be made now: after one that failed, or was refused, not at once.
fn may_go_on(stage: &mut Stage<'_>, job: &Value, failed: usize) -> bool {
    let times = u32::try_from(failed).unwrap_or(u32::MAX);
    let waits = BACK_OFF.saturating_mul(times.min(36));
    let key = format!("job/{}/next", text(job, "/metadata/uid"));
    (failed == 0 || stage.done(&key, waits)) && may_make(stage, job)
}

/// By these its pods are found.
fn labels(job: &Value) -> Value {
    let (name, uid) = (names(job).1, text(job, "/metadata/uid"));
    json!({"metadata": {"labels": {
        "batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name,
        "controller-uid": uid, "job-name": name,
    }}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::actors::objects::condition_of;
    use crate::kube::actors::programs::tests::framed;
    use crate::kube::actors::scene::Scene;

    fn job(more: &Value, container: &Value) -> Value {
        let mut spec = json!({"template": {"spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": "x:1"}],
        }}});
        json_patch::merge(&mut spec["template"]["spec"]["containers"][0], container);
        json_patch::merge(&mut spec, more);
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"}, "spec": spec})
    }

    /// The program of a helper pod, which fails where nothing is mounted.
    fn fails() -> Value {
        json!({"command": ["mkdir", "-m", "0777", "-p", "/data/x"]})
    }

    #[test]
    fn a_job_ends_as_its_pods_do() {
        let script = json!({"command": ["/bin/sh", "-c", framed("true")]});
        let never = json!({});
        for (case, more, container, kind, reason, events) in [
            ("success", json!({}), &script, "Complete", "CompletionsReached", "Completed: Job completed"),
            (
                "two of two",
                json!({"completions": 2, "parallelism": 2}),
                &script,
                "Complete",
                "CompletionsReached",
                "Completed: Job completed",
            ),
            (
                "failure",
                json!({"backoffLimit": 0}),
                &fails(),
                "Failed",
                "BackoffLimitExceeded",
                "BackoffLimitExceeded: Job has reached the specified backoff limit",
            ),
            (
                "no end",
                json!({"activeDeadlineSeconds": 20}),
                &never,
                "Failed",
                "DeadlineExceeded",
                "DeadlineExceeded: Job was active longer than specified deadline",
            ),
        ] {
            let mut scene = Scene::new(&["n1"]);
            scene.apply(job(&more, container));
            scene.run(30);
            let work = scene.get("batch/jobs", "default", "work").unwrap_or_default();
            assert!(holds(&work, kind), "{case}: {work}");
            assert_eq!(condition_of(&work, kind).map(|c| c["reason"].clone()), Some(json!(reason)), "{case}");
            assert!(work["status"]["active"].is_null() && !work["status"]["startTime"].is_null(), "{work}");
            assert!(scene.events("default").iter().any(|event| event == events), "{case}");
            let version = scene.api.store.version();
            scene.run(100);
            assert_eq!(scene.api.store.version(), version, "{case}");
        }
    }

    #[test]
    fn a_failed_pod_is_followed_by_others_until_the_limit() {
        let mut scene = Scene::new(&["n1"]);
        scene.apply(job(&json!({"backoffLimit": 2}), &fails()));
        scene.run(8);
        assert_eq!(scene.names("/pods", "default").len(), 1);
        scene.run(60);
        let work = scene.get("batch/jobs", "default", "work").unwrap_or_default();
        assert_eq!((scene.names("/pods", "default").len(), &work["status"]["failed"]), (3, &json!(3)));
        assert!(holds(&work, "Failed"), "{work}");
    }

    #[test]
    fn a_running_job_says_so_and_its_pod_carries_its_name() {
        let mut scene = Scene::new(&["n1"]);
        scene.apply(job(&json!({}), &json!({})));
        scene.run(5);
        let work = scene.get("batch/jobs", "default", "work").unwrap_or_default();
        assert_eq!((&work["status"]["active"], &work["status"]["ready"]), (&json!(1), &json!(1)), "{work}");
        let pods = scene.all("/pods", "default");
        assert_eq!(pods[0]["metadata"]["labels"]["job-name"], "work");
        assert!(text(&pods[0], "/metadata/name").starts_with("work-"));
    }
}
