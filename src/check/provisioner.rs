//! The provisioner's pods are there, ready and of the newest generation, stay so, and may make their helper pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;
use tokio::sync::Mutex;

use super::pod::typed;
use super::wait::{Look, until};
use super::{Check, Per, Run, Stop, Subject, broken};
use crate::cluster::{Standing, Steady};
use crate::error::Code;
use crate::event::Verdict;
use crate::intent::Provisioner;
use crate::judge::workload::Workload;
use crate::model::said::{self, By};

pub(super) const CHECK: Check = Check {
    id: "provisioner",
    title: "the provisioner is ready and may make its helper pods",
    per: Per::Cluster,
    needs: &[],
    judge: |run, subject| Box::pin(judge(run, subject)),
};

/// Provisioners that make a privileged helper pod with a hostPath for every volume.
const WITH_HELPERS: [&str; 2] = ["openebs.io/local", "rancher.io/local-path"];

async fn judge(run: &Run<'_>, subject: &Subject<'_>) -> Result<Verdict, Stop> {
    let mut ready = Vec::new();
    for provisioner in run.ctx.intent.provisioners() {
        match one(run, subject, provisioner).await? {
            Ok(names) => ready.extend(names),
            Err(verdict) => return Ok(verdict),
        }
    }
    if ready.is_empty() {
        return Ok(Verdict::skip("the file names no provisioner"));
    }
    Ok(Verdict::pass(format!("{} ready", ready.join(", "))))
}

/// The workloads of a provisioner that is ready; else what is to be said of it.
async fn one(
    run: &Run<'_>,
    subject: &Subject<'_>,
    provisioner: Provisioner<'_>,
) -> Result<Result<Vec<String>, Verdict>, Stop> {
    let limit = run.ctx.intent.validation.timeout.std();
    let steady = Mutex::new(Steady::default());
    let ready = until(&subject.events, "the provisioner to be ready", limit, || async {
        let found = workloads(run, provisioner).await?;
        if found.is_empty() {
            return Err(missing(provisioner));
        }
        let names: Vec<String> = found.iter().map(|one| format!("{} {}", one.kind(), one.name())).collect();
        Ok(match standing(run, &found, &mut *steady.lock().await).await? {
            Standing::Ready => Look::Done(names),
            Standing::NotYet(why) => Look::not_yet(why),
            Standing::Stuck(why) => return Err(Stop::fail(why, logs_hint(provisioner))),
        })
    });
    let names = match ready.await? {
        Ok(names) => names,
        Err(last) => {
            let refused = refusal(run, provisioner, &last).await?;
            return Ok(Err(refused.unwrap_or_else(|| Verdict::fail(last, logs_hint(provisioner)))));
        }
    };
    if WITH_HELPERS.contains(&provisioner.name())
        && let Some(refusal) = helper_refused(run, provisioner.namespace()).await?
    {
        return Ok(Err(refusal));
    }
    Ok(Ok(names))
}

/// How the workloads stand together: as the first of them that is not ready. Each is looked at.
pub(super) async fn standing(
    run: &Run<'_>,
    found: &[Workload],
    steady: &mut Steady,
) -> Result<Standing, Stop> {
    let mut all = Standing::Ready;
    for workload in found {
        let one = run.ctx.cluster.standing(workload, steady).await?;
        if all == Standing::Ready || matches!(one, Standing::Stuck(_)) {
            all = one;
        }
    }
    Ok(all)
}

/// The workloads of a namespace.
pub(super) async fn workloads_of(run: &Run<'_>, namespace: &str) -> Result<Vec<Workload>, Stop> {
    let (cluster, namespace) = (&run.ctx.cluster, Some(namespace));
    let deployments = cluster.list_of(namespace, "").await?.into_iter().map(Workload::Deployment);
    Ok(deployments
        .chain(cluster.list_of(namespace, "").await?.into_iter().map(Workload::DaemonSet))
        .collect())
}

async fn workloads(run: &Run<'_>, provisioner: Provisioner<'_>) -> Result<Vec<Workload>, Stop> {
    let mut found = workloads_of(run, provisioner.namespace()).await?;
    found.retain(|workload| workload.pod_labels().is_some_and(|labels| is_of(provisioner, labels)));
    Ok(found)
}

/// Whether pods with these labels are the provisioner's.
fn is_of(provisioner: Provisioner<'_>, labels: &BTreeMap<String, String>) -> bool {
    let has = |key: &str, wanted: &dyn Fn(&str) -> bool| labels.get(key).is_some_and(|value| wanted(value));
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

fn missing(provisioner: Provisioner<'_>) -> Stop {
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

fn logs_hint(provisioner: Provisioner<'_>) -> String {
    let namespace = provisioner.namespace();
    format!(
        "`kubectl -n {namespace} describe pods` and their logs say more; `images.provisioner` names the image"
    )
}

/// Pod Security's refusal of the provisioner's own pods, from the events of its workloads.
async fn refusal(run: &Run<'_>, provisioner: Provisioner<'_>, last: &str) -> Result<Option<Verdict>, Stop> {
    let namespace = provisioner.namespace();
    let events =
        Api::<Event>::namespaced(run.ctx.cluster.client(), namespace).list(&ListParams::default()).await;
    let events = events.map_err(broken(format!("can't list events of {namespace}")))?;
    let mut messages = events.iter().filter_map(|e| e.message.as_deref());
    let refused = messages.find(|message| is_pod_security(message));
    Ok(refused.map(|message| Verdict::fail(format!("{last}: {message}"), label_hint(namespace))))
}

fn is_pod_security(message: &str) -> bool {
    said::code(By::Kubernetes, message) == Some(Code::PodSecurity)
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
        Err(kube::Error::Api(status)) if is_pod_security(&status.message) => Ok(Some(Verdict::fail(
            format!(
                "Pod Security refuses the provisioner's helper pods in namespace {namespace}: {}",
                status.message
            ),
            label_hint(namespace),
        ))),
        Err(e) => Err(broken(format!("can't try a helper pod in {namespace}"))(e).into()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_found_by_label_whichever_way_they_were_installed() {
        let openebs = serde_json::from_value(json!({})).unwrap();
        let openebs = Provisioner::Openebs(&openebs);
        let external = json!({ "name": "rancher.io/local-path", "namespace": "l",
            "selector": { "app": "local-path-provisioner" } });
        let external = serde_json::from_value(external).unwrap();
        let external = Provisioner::External(&external);
        for (provisioner, key, value, ours) in [
            (openebs, "app.kubernetes.io/name", "localpv-provisioner", true),
            (openebs, "openebs.io/component-name", "openebs-localpv-provisioner", true),
            (openebs, "openebs.io/component-name", "mayastor", false),
            (openebs, "app", "local-path-provisioner", false),
            (external, "app", "local-path-provisioner", true),
            (external, "app", "other", false),
        ] {
            let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            assert_eq!(is_of(provisioner, &labels), ours, "{key}={value}");
        }
        assert!(!is_of(openebs, &BTreeMap::new()));
    }
}
