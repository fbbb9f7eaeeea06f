//! The provisioner's pods are there, ready and of the newest generation, and may make their helper pods.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Event, Pod, PodTemplateSpec};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::pod::typed;
use super::wait::{Look, until};
use super::{Check, Per, Run, Stop, Subject, broken};
use crate::event::Verdict;
use crate::intent::Provisioner;

pub const CHECK: Check = Check {
    id: "provisioner",
    title: "the provisioner is ready and may make its helper pods",
    per: Per::Cluster,
    needs: &[],
    judge: |run, subject| Box::pin(judge(run, subject)),
};

/// Provisioners that make a privileged helper pod with a hostPath for every volume.
const WITH_HELPERS: [&str; 2] = ["openebs.io/local", "rancher.io/local-path"];
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

async fn judge(run: &Run<'_>, subject: &Subject<'_>) -> Result<Verdict, Stop> {
    let Some(provisioner) = &run.ctx.intent.provisioner else {
        return Ok(Verdict::skip("the file names no provisioner"));
    };
    let limit = run.ctx.intent.validation.timeout.std();
    let ready = until(&subject.events, "the provisioner to be ready", limit, || async {
        let state = workloads(run, provisioner).await?;
        if state.is_empty() {
            return Err(missing(provisioner));
        }
        let pods = pods(run, provisioner).await?;
        match state.iter().find_map(|w| w.behind.clone()) {
            None => Ok(Look::Done(state)),
            Some(behind) => match pods.iter().find_map(stuck) {
                Some(why) => Err(Stop::fail(why, logs_hint(provisioner))),
                None => Ok(Look::NotYet(behind)),
            },
        }
    });
    let workloads = match ready.await? {
        Ok(workloads) => workloads,
        Err(last) => {
            let refused = refusal(run, provisioner, &last).await?;
            return Ok(refused.unwrap_or_else(|| Verdict::fail(last, logs_hint(provisioner))));
        }
    };
    if WITH_HELPERS.contains(&provisioner.name())
        && let Some(refusal) = helper_refused(run, provisioner.namespace()).await?
    {
        return Ok(refusal);
    }
    let names: Vec<_> = workloads.iter().map(|w| w.name.as_str()).collect();
    Ok(Verdict::pass(format!("{} ready", names.join(", "))))
}

/// A Deployment or DaemonSet of the provisioner.
pub struct Workload {
    name: String,
    /// What is not yet as it should be.
    pub behind: Option<String>,
}

async fn workloads(run: &Run<'_>, provisioner: &Provisioner) -> Result<Vec<Workload>, Stop> {
    let (client, namespace) = (run.ctx.cluster.client(), provisioner.namespace());
    let all = ListParams::default();
    let failed = |what| broken(format!("can't list {what} of {namespace}"));
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace).list(&all).await;
    let daemon_sets = Api::<DaemonSet>::namespaced(client, namespace).list(&all).await;
    let deployments = deployments.map_err(failed("deployments"))?;
    let daemon_sets = daemon_sets.map_err(failed("daemon sets"))?;
    let ours = |template: &PodTemplateSpec| {
        is_of(provisioner, template.metadata.as_ref().and_then(|m| m.labels.as_ref()))
    };
    let mut found: Vec<_> = deployments.iter().filter(|d| ours(&d.spec.template)).map(deployment).collect();
    let sets = daemon_sets.iter().filter(|d| ours(&d.spec.template));
    found.extend(sets.map(daemon_set));
    Ok(found)
}

async fn pods(run: &Run<'_>, provisioner: &Provisioner) -> Result<Vec<Pod>, Stop> {
    let pods = Api::<Pod>::namespaced(run.ctx.cluster.client(), provisioner.namespace());
    let pods = pods.list(&ListParams::default()).await;
    let pods = pods.map_err(broken(format!("can't list pods of {}", provisioner.namespace())))?;
    Ok(pods.items.into_iter().filter(|p| is_of(provisioner, p.metadata.labels.as_ref())).collect())
}

/// Whether pods with these labels are the provisioner's.
fn is_of(provisioner: &Provisioner, labels: Option<&BTreeMap<String, String>>) -> bool {
    let has = |key: &str, wanted: &dyn Fn(&str) -> bool| {
        labels.and_then(|labels| labels.get(key)).is_some_and(|value| wanted(value))
    };
    match provisioner {
        Provisioner::Openebs(_) => {
            has("app.kubernetes.io/name", &|v| v == "localpv-provisioner")
                || has("openebs.io/component-name", &|v| v.ends_with("localpv-provisioner"))
        }
        Provisioner::External(external) => {
            !external.selector.is_empty()
                && external.selector.iter().all(|(k, wanted)| has(k, &|v| v == wanted))
        }
    }
}

pub fn deployment(deployment: &Deployment) -> Workload {
    let name = format!("Deployment {}", deployment.name_any());
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let (updated, ready) = (status.updated_replicas.unwrap_or(0), status.ready_replicas.unwrap_or(0));
    let seen = status.observed_generation >= deployment.metadata.generation;
    let behind = behind(&name, seen, wanted, updated, ready);
    let old = status.replicas.unwrap_or(0) - updated;
    let behind =
        behind.or_else(|| (old > 0).then(|| format!("{name}: {old} pods of the old generation are left")));
    Workload { name, behind }
}

pub fn daemon_set(set: &DaemonSet) -> Workload {
    let name = format!("DaemonSet {}", set.name_any());
    let status = set.status.clone().unwrap_or_default();
    let seen = status.observed_generation >= set.metadata.generation;
    let updated = status.updated_number_scheduled.unwrap_or(0);
    let behind = behind(&name, seen, status.desired_number_scheduled, updated, status.number_ready);
    Workload { name, behind }
}

fn behind(name: &str, seen: bool, wanted: i32, updated: i32, ready: i32) -> Option<String> {
    if !seen {
        Some(format!("{name}: the newest generation is not rolled out yet"))
    } else if wanted == 0 {
        Some(format!("{name} is to run no pods: its replicas are 0, or no node matches its selector"))
    } else if updated < wanted || ready < wanted {
        Some(format!("{name}: {ready} of {wanted} pods ready, {updated} of the newest generation"))
    } else {
        None
    }
}

/// A container's state that waiting seldom heals, quoted.
fn stuck(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let waiting = statuses.iter().find_map(|c| c.state.as_ref()?.waiting.as_ref())?;
    let reason = waiting.reason.as_deref().filter(|reason| STUCK.contains(reason))?;
    Some(format!("pod {}: {reason}: {}", pod.name_any(), waiting.message.as_deref().unwrap_or("").trim()))
}

fn missing(provisioner: &Provisioner) -> Stop {
    let namespace = provisioner.namespace();
    match provisioner {
        Provisioner::Openebs(_) => Stop::fail(
            format!("no Deployment or DaemonSet of the OpenEBS provisioner is in namespace {namespace}"),
            "install it with `nodeprep apply`, or correct `provisioner.openebs.namespace`",
        ),
        Provisioner::External(external) => Stop::fail(
            format!("nothing in namespace {namespace} makes pods with the labels {:?}", external.selector),
            "correct `provisioner.external.namespace` and `selector`, or install the provisioner",
        ),
    }
}

fn logs_hint(provisioner: &Provisioner) -> String {
    let namespace = provisioner.namespace();
    format!(
        "`kubectl -n {namespace} describe pods` and their logs say more; `images.provisioner` names the image"
    )
}

/// Pod Security's refusal of the provisioner's own pods, from the events of its workloads.
async fn refusal(run: &Run<'_>, provisioner: &Provisioner, last: &str) -> Result<Option<Verdict>, Stop> {
    let namespace = provisioner.namespace();
    let events =
        Api::<Event>::namespaced(run.ctx.cluster.client(), namespace).list(&ListParams::default()).await;
    let events = events.map_err(broken(format!("can't list events of {namespace}")))?;
    let mut messages = events.iter().filter_map(|e| e.message.as_deref());
    let refused = messages.find(|message| message.contains("violates PodSecurity"));
    Ok(refused.map(|message| Verdict::fail(format!("{last}: {message}"), label_hint(namespace))))
}

fn label_hint(namespace: &str) -> String {
    format!("kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged --overwrite")
}

/// Asks the API server, without making anything, whether a helper pod would be let in.
async fn helper_refused(run: &Run<'_>, namespace: &str) -> Result<Option<Verdict>, Stop> {
    let helper: Pod = typed(json!({
        "metadata": { "name": "nodeprep-dry-run" },
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "helper", "image": run.ctx.intent.images.helper, "command": ["true"],
                "securityContext": { "privileged": true },
            }],
            "volumes": [{ "name": "data", "hostPath": { "path": "/" } }],
        },
    }))?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    match Api::namespaced(run.ctx.cluster.client(), namespace).create(&dry_run, &helper).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.message.contains("violates PodSecurity") => {
            Ok(Some(Verdict::fail(
                format!(
                    "Pod Security refuses the provisioner's helper pods in namespace {namespace}: {}",
                    status.message
                ),
                label_hint(namespace),
            )))
        }
        Err(e) => Err(broken(format!("can't try a helper pod in {namespace}"))(e).into()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_workload_is_ready_only_when_all_pods_of_the_newest_generation_are() {
        for (kind, spec, status, word) in [
            (
                "dep",
                json!({ "replicas": 2 }),
                json!({ "observedGeneration": 2, "replicas": 2, "updatedReplicas": 2,
                "readyReplicas": 2 }),
                None,
            ),
            (
                "dep",
                json!({ "replicas": 2 }),
                json!({ "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2,
                "readyReplicas": 2 }),
                Some("newest generation"),
            ),
            ("dep", json!({}), json!({ "observedGeneration": 2 }), Some("0 of 1")),
            ("dep", json!({ "replicas": 0 }), json!({ "observedGeneration": 2 }), Some("no pods")),
            (
                "dep",
                json!({ "replicas": 1 }),
                json!({ "observedGeneration": 2, "replicas": 2, "updatedReplicas": 1,
                "readyReplicas": 2 }),
                Some("old generation"),
            ),
            ("dep", json!({ "replicas": 1 }), Value::Null, Some("newest generation")),
            (
                "set",
                json!({}),
                json!({ "observedGeneration": 2, "desiredNumberScheduled": 3, "numberReady": 3,
                "updatedNumberScheduled": 3 }),
                None,
            ),
            (
                "set",
                json!({}),
                json!({ "observedGeneration": 2, "desiredNumberScheduled": 3, "numberReady": 2,
                "updatedNumberScheduled": 3 }),
                Some("2 of 3"),
            ),
            (
                "set",
                json!({}),
                json!({ "observedGeneration": 2, "desiredNumberScheduled": 3, "numberReady": 3,
                "updatedNumberScheduled": 1 }),
                Some("1 of the newest"),
            ),
            (
                "set",
                json!({}),
                json!({ "observedGeneration": 2, "desiredNumberScheduled": 0, "numberReady": 0 }),
                Some("no node"),
            ),
        ] {
            let mut object = json!({ "metadata": { "name": "p", "generation": 2 }, "spec": spec });
            object["spec"]["selector"] = json!({});
            object["spec"]["template"] = json!({});
            if status != Value::Null {
                object["status"] = status;
                let counts = ["currentNumberScheduled", "numberMisscheduled"];
                counts.iter().for_each(|count| object["status"][count] = json!(0));
            }
            let behind = if kind == "dep" {
                deployment(&serde_json::from_value(object).unwrap()).behind
            } else {
                daemon_set(&serde_json::from_value(object).unwrap()).behind
            };
            match (word, &behind) {
                (None, None) => {}
                (Some(word), Some(text)) => assert!(text.contains(word), "{text}"),
                _ => panic!("{word:?} {behind:?}"),
            }
        }
    }

    #[test]
    fn pods_are_found_by_label_whichever_way_they_were_installed() {
        let openebs: Provisioner = serde_json::from_value(json!({ "openebs": {} })).unwrap();
        let external = json!({ "external": { "name": "rancher.io/local-path", "namespace": "l",
            "selector": { "app": "local-path-provisioner" } } });
        let external: Provisioner = serde_json::from_value(external).unwrap();
        let labels = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        for (provisioner, key, value, ours) in [
            (&openebs, "app.kubernetes.io/name", "localpv-provisioner", true),
            (&openebs, "openebs.io/component-name", "openebs-localpv-provisioner", true),
            (&openebs, "openebs.io/component-name", "mayastor", false),
            (&openebs, "app", "local-path-provisioner", false),
            (&external, "app", "local-path-provisioner", true),
            (&external, "app", "other", false),
        ] {
            assert_eq!(is_of(provisioner, Some(&labels(key, value))), ours, "{key}={value}");
        }
        assert!(!is_of(&openebs, None));
    }

    #[test]
    fn a_stuck_pod_is_quoted() {
        let pod = |reason: &str| -> Pod {
            serde_json::from_value(json!({ "metadata": { "name": "p" }, "status": { "containerStatuses": [{
                "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 3,
                "state": { "waiting": { "reason": reason, "message": "back-off 5m0s" } } }] } }))
            .unwrap()
        };
        assert_eq!(stuck(&pod("CrashLoopBackOff")).unwrap(), "pod p: CrashLoopBackOff: back-off 5m0s");
        assert_eq!(stuck(&pod("ContainerCreating")), None);
    }
}
