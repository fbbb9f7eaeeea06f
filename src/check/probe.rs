//! Carrying out a probe: a claim that binds, a pod that gets done, and why not.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Event, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::pod::{CONTAINER, PROBE};
use super::wait::{Look, until};
use super::{Run, Stop, Subject, broken};
use crate::error::Error;
use crate::judge::why::{Means, Names, On, Sign, Why, explain, quote};
use crate::model::frame::{self, Output};

/// How long a finished pod's log may take to be complete.
const LOG_LIMIT: Duration = Duration::from_secs(15);

/// A pod that ended, and what it said.
#[derive(Debug, Clone)]
pub(super) struct Finished {
    /// The node it ran on.
    pub node: String,
    pub output: Output,
}

/// A claim and the pod that is to use it, watched for one subject.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch<'a> {
    pub run: &'a Run<'a>,
    pub subject: &'a Subject<'a>,
    pub claim: &'a str,
    /// The value of the pod's label [`PROBE`].
    pub pod: &'a str,
}

impl Watch<'_> {
    /// Waits until the claim is Bound and hands back its volume, marked as ours.
    pub(super) async fn bound(&self) -> Result<PersistentVolume, Stop> {
        let what = format!("claim {} to be Bound", self.claim);
        let volume = self
            .until(&what, Duration::ZERO, async || {
                let claim = self.read_claim().await?;
                match (phase(&claim), volume_name(&claim)) {
                    ("Bound", Some(name)) => Ok(Look::Done(name)),
                    ("Lost", _) => Err(Stop::fail(
                        format!("claim {} is Lost: its volume is gone", self.claim),
                        "was the volume deleted by somebody else?",
                    )),
                    (phase, _) => Ok(Look::not_yet(format!("the claim is {phase}"))),
                }
            })
            .await?;
        self.run.scratch.adopt(&volume).await?;
        let volumes = Api::<PersistentVolume>::all(self.run.ctx.cluster.client());
        Ok(volumes.get(&volume).await.map_err(broken(format!("can't read volume {volume}")))?)
    }

    /// Waits until the pod has ended, and reads its framed result.
    pub(super) async fn finished(&self) -> Result<Finished, Stop> {
        self.finished_within(Duration::ZERO).await
    }

    /// The same, for a pod whose work takes so long.
    pub(super) async fn finished_within(&self, work: Duration) -> Result<Finished, Stop> {
        let what = format!("pod {} to get done", self.pod);
        let (name, node) =
            self.until(&what, work, async || ended(self.read_pod().await?.as_ref(), self.pod)).await?;
        let namespace = self.run.scratch.namespace();
        let read = until(&self.subject.events, "the pod's log", LOG_LIMIT, || async {
            let log = self.run.ctx.cluster.logs(namespace, &name, CONTAINER).await?;
            Ok(frame::read(&log).map_or_else(Look::not_yet, Look::Done))
        });
        let output = read.await?.map_err(|last| Error::failed(format!("pod {name}: {last}")))?;
        Ok(Finished { node, output })
    }

    pub(super) async fn read_claim(&self) -> Result<PersistentVolumeClaim, Stop> {
        let claim = self.run.scratch.api::<PersistentVolumeClaim>().get(self.claim).await;
        Ok(claim.map_err(broken(format!("can't read claim {}", self.claim)))?)
    }

    async fn read_pod(&self) -> Result<Option<Pod>, Stop> {
        let probe = ListParams::default().labels(&format!("{PROBE}={}", self.pod));
        let found = self.run.scratch.api::<Pod>().list(&probe).await;
        Ok(found.map_err(broken(format!("can't read pod {}", self.pod)))?.items.into_iter().next())
    }

    /// Looks until done; ends at once on a fault that waiting can't heal, and explains what it waited for.
    async fn until<T>(
        &self,
        what: &str,
        work: Duration,
        look: impl AsyncFn() -> Result<Look<T>, Stop>,
    ) -> Result<T, Stop> {
        let limit = self.run.ctx.intent.validation.timeout.std() + work;
        let waited = until(&self.subject.events, what, limit, || async {
            let last = match look().await? {
                Look::NotYet(open) => open.why,
                done @ Look::Done(_) => return Ok(done),
            };
            let mut signs = self.signs().await?;
            // Before that there is no helper pod, and a fleet of probes looks often.
            if signs.iter().any(Sign::is_made) {
                signs.splice(0..0, self.helper_image().await?);
            }
            match self.explain(&signs)? {
                Some(why) if why.means.now() => Err(stop(why)),
                _ => Ok(Look::not_yet(
                    signs.last().map_or(last.clone(), |sign| format!("{last}; {}", quote(sign))),
                )),
            }
        });
        let last = match waited.await? {
            Ok(done) => return Ok(done),
            Err(last) => last,
        };
        let mut signs = self.signs().await?;
        signs.extend(self.helper_signs().await?);
        Err(match self.explain(&signs)? {
            Some(why) => stop(why),
            None => Stop::fail(
                format!("waited {}s for {what}: {last}", limit.as_secs()),
                "run it again with a longer `validation.timeout`, and look at the events: `kubectl get events -A`",
            ),
        })
    }

    fn explain(&self, signs: &[Sign]) -> Result<Option<Why>, Stop> {
        let class = self.subject.class()?;
        let provisioner = self.run.ctx.intent.provisioner_of(class);
        let driver = class.csi.as_ref().map_or("(unknown)", |csi| csi.driver.as_str());
        Ok(explain(
            signs,
            &Names {
                class: &class.name,
                base_path: class.place(),
                provisioner: provisioner.map_or(driver, |p| p.name()),
                namespace: provisioner.map_or("(unknown)", |p| p.namespace()),
            },
        ))
    }

    /// The events and the state of the claim, the pod and its job, oldest first.
    pub(super) async fn signs(&self) -> Result<Vec<Sign>, Stop> {
        let events = self.run.scratch.api::<Event>().list(&ListParams::default()).await;
        let mut events = events.map_err(broken("can't list events"))?.items;
        events.sort_by_key(time_of);
        let mut signs: Vec<_> = events.iter().filter_map(|e| sign_of(e, self.claim, self.pod)).collect();
        if let Some(pod) = self.read_pod().await? {
            signs.extend(waiting(&pod, On::Pod));
        }
        Ok(signs)
    }

    /// Whether a helper pod of the claim waits for its image: OpenEBS and local-path name them so.
    async fn helper_image(&self) -> Result<Vec<Sign>, Stop> {
        let Some((pods, _)) = self.provisioners_pods() else { return Ok(Vec::new()) };
        let claim = self.read_claim().await?;
        let Some(uid) = claim.metadata.uid.as_ref().filter(|_| phase(&claim) == "Pending") else {
            return Ok(Vec::new());
        };
        let mut signs = Vec::new();
        for name in [format!("init-pvc-{uid}"), format!("helper-pod-create-pvc-{uid}")] {
            // Who may not look there learns of it when time is over.
            let found = pods.get_opt(&name).await.ok().flatten();
            signs.extend(found.iter().flat_map(|pod| waiting(pod, On::Helper)));
        }
        signs.retain(Sign::is_of_image);
        Ok(signs)
    }

    /// The pods of the provisioner's namespace, and its name.
    fn provisioners_pods(&self) -> Option<(Api<Pod>, &str)> {
        let class = self.subject.class().ok()?;
        let namespace = self.run.ctx.intent.provisioner_of(class)?.namespace();
        Some((Api::namespaced(self.run.ctx.cluster.client(), namespace), namespace))
    }

    /// What holds up the provisioner's helper pods for this claim, which carry its uid in their names.
    async fn helper_signs(&self) -> Result<Vec<Sign>, Stop> {
        let Some((pods, namespace)) = self.provisioners_pods() else { return Ok(Vec::new()) };
        let Some(uid) = self.read_claim().await?.metadata.uid else { return Ok(Vec::new()) };
        let found = pods.list(&ListParams::default()).await;
        let found = found.map_err(broken(format!("can't list pods of {namespace}")))?;
        Ok(found
            .iter()
            .filter(|p| p.name_any().contains(&uid))
            .flat_map(|p| waiting(p, On::Helper))
            .collect())
    }
}

fn stop(why: Why) -> Stop {
    match why.means {
        Means::NotRun | Means::NotRunNow => Stop::Error(Error::failed(why.why).hint(why.hint)),
        Means::Fault | Means::FaultNow => Stop::Fault { why: why.why, hint: why.hint },
    }
}

pub(super) fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// When the event happened last.
pub(super) fn time_of(event: &Event) -> Option<jiff::Timestamp> {
    event.last_timestamp.as_ref().map(|time| time.0).or(event.event_time.as_ref().map(|time| time.0))
}

pub(super) fn volume_name(claim: &PersistentVolumeClaim) -> Option<String> {
    claim.spec.as_ref().and_then(|s| s.volume_name.clone()).filter(|name| !name.is_empty())
}

/// The pod's name and node once it has succeeded; an error when it failed.
fn ended(pod: Option<&Pod>, probe: &str) -> Result<Look<(String, String)>, Stop> {
    let Some(pod) = pod else { return Ok(Look::not_yet("there is no pod yet")) };
    let status = pod.status.as_ref();
    let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
    match status.and_then(|s| s.phase.as_deref()).unwrap_or("Pending") {
        "Succeeded" => Ok(Look::Done((pod.name_any(), node))),
        "Failed" => {
            let said = status.and_then(|s| s.message.clone().or(s.reason.clone()));
            let ended = container(pod).and_then(|c| c.state.as_ref()?.terminated.as_ref());
            let code =
                ended.map(|t| format!("exit code {} {}", t.exit_code, t.reason.clone().unwrap_or_default()));
            let why = said.or(code).unwrap_or_else(|| "no reason given".into());
            Err(Error::failed(format!("pod {probe} failed: {}", why.trim())).into())
        }
        phase if node.is_empty() => Ok(Look::not_yet(format!("the pod is {phase} and has no node yet"))),
        phase => Ok(Look::not_yet(format!("the pod is {phase} on {node}"))),
    }
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

/// Why a pod does not run, from its own status.
fn waiting(pod: &Pod, on: On) -> Vec<Sign> {
    let sign = |reason: &str, message: &str| Sign {
        on,
        name: pod.name_any(),
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    let conditions = pod.status.iter().filter_map(|s| s.conditions.as_ref()).flatten();
    let unscheduled = conditions.filter(|c| c.type_ == "PodScheduled" && c.status == "False").map(|c| {
        sign(c.reason.as_deref().unwrap_or("Unschedulable"), c.message.as_deref().unwrap_or_default())
    });
    let held = container(pod)
        .and_then(|c| c.state.as_ref()?.waiting.as_ref())
        .map(|w| sign(w.reason.as_deref().unwrap_or("Waiting"), w.message.as_deref().unwrap_or_default()));
    unscheduled.chain(held).collect()
}

/// The event as a sign, if it is about the claim or about the pod (or the job of the same name).
fn sign_of(event: &Event, claim: &str, pod: &str) -> Option<Sign> {
    let about = event.involved_object.name.as_deref()?;
    let of_job =
        |name: &str| name.strip_prefix(pod).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    let on = match event.involved_object.kind.as_deref()? {
        "PersistentVolumeClaim" if about == claim => On::Claim,
        "Pod" | "Job" if of_job(about) => On::Pod,
        _ => return None,
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Some(Sign { on, name: about.to_owned(), reason: text(&event.reason), message: text(&event.message) })
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        let spec = json!({ "nodeName": "n1", "containers": [] });
        serde_json::from_value(json!({ "metadata": { "name": "pvc-1" }, "spec": spec, "status": status }))
            .unwrap()
    }

    #[test]
    fn a_pod_ends_by_success_and_a_failed_one_could_not_run() {
        assert!(matches!(ended(None, "p"), Ok(Look::NotYet(_))));
        assert!(matches!(ended(Some(&pod(json!({ "phase": "Running" }))), "p"), Ok(Look::NotYet(_))));
        let Ok(Look::Done((name, node))) = ended(Some(&pod(json!({ "phase": "Succeeded" }))), "p") else {
            panic!()
        };
        assert_eq!((name.as_str(), node.as_str()), ("pvc-1", "n1"));
        let evicted = pod(json!({ "phase": "Failed", "reason": "Evicted", "message": "low on disk" }));
        let Err(Stop::Error(e)) = ended(Some(&evicted), "p") else { panic!() };
        assert!(e.what.contains("low on disk"), "{e}");
        let killed = json!({ "phase": "Failed", "containerStatuses": [{ "name": "c", "image": "", "imageID": "",
            "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": 137, "reason": "OOMKilled" } } }] });
        let Err(Stop::Error(e)) = ended(Some(&pod(killed)), "p") else { panic!() };
        assert!(e.what.contains("137 OOMKilled"), "{e}");
    }

    #[test]
    fn only_events_of_our_own_objects_are_signs() {
        let event = |kind: &str, name: &str| -> Event {
            serde_json::from_value(json!({ "metadata": {}, "reason": "R", "message": "m",
                "involvedObject": { "kind": kind, "name": name } }))
            .unwrap()
        };
        let on = |kind, name| sign_of(&event(kind, name), "data-1", "fio-1").map(|s| s.on);
        assert_eq!(on("PersistentVolumeClaim", "data-1"), Some(On::Claim));
        assert_eq!(on("PersistentVolumeClaim", "data-11"), None);
        assert_eq!(on("Job", "fio-1"), Some(On::Pod));
        assert_eq!(on("Pod", "fio-1-x7k2p"), Some(On::Pod));
        assert_eq!(on("Pod", "fio-11"), None);
        assert_eq!(on("Node", "fio-1"), None);
    }

    #[test]
    fn a_stuck_pod_tells_why_by_its_status() {
        let stuck = pod(json!({
            "phase": "Pending",
            "conditions": [
                { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node" },
                { "type": "Ready", "status": "False", "reason": "ContainersNotReady" },
            ],
            "containerStatuses": [{ "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "waiting": { "reason": "ImagePullBackOff", "message": "Back-off" } } }],
        }));
        let reasons: Vec<_> = waiting(&stuck, On::Helper).into_iter().map(|s| s.reason).collect();
        assert_eq!(reasons, ["Unschedulable", "ImagePullBackOff"]);
    }
}
