//! Waiting until something in the cluster is ready, and telling all the while why it isn't.

use std::cell::RefCell;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DynamicObject, ListParams, WatchEvent, WatchParams};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::{Cluster, Steady, from_kube};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::judge::steady::{self, Clocks};
use crate::judge::{pods, velero, workload};
use crate::model::object::Ready;
use crate::wait::{Late, Look, Wait};

/// How often the reasons (pods, events) are read again while waiting.
const REASONS_EVERY: Duration = Duration::from_secs(3);

/// How a workload stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// All its pods are ready in its newest form, and are known to stay so.
    Ready,
    NotYet(String),
    /// A container is in a state that waiting seldom heals.
    Stuck(String),
}

impl Cluster {
    /// Waits for at most `within`. Each new reason for waiting is an event; the last one is the error's text.
    ///
    /// # Errors
    /// `Failed` when time is over, `Invalid` when the object may not be read.
    pub async fn await_ready(&self, ready: &Ready, events: &Events, within: Duration) -> Result<()> {
        let (api_version, kind, namespace, name) = ready.subject();
        let title = ready.title();
        let api = self.api(api_version, kind, namespace).await.map_err(|e| from_kube(&title, e))?;
        let mut changes = Changes::new(api.clone(), name);
        let (mut steady, mut last) = (Steady::default(), None::<(Instant, String)>);
        // The newest look at the object, and the version that changes of it are told from.
        let (seen, version) = (RefCell::new(None), RefCell::new(None));
        let look = async || {
            let found = api.list(&ListParams::default().fields(&format!("metadata.name={name}"))).await;
            let found = found.map_err(|e| from_kube(&title, e))?;
            let object = found.items.first().and_then(|object| serde_json::to_value(object).ok());
            version.replace(found.metadata.resource_version);
            seen.replace(object.clone());
            let Some(lacks) = self.lacks(ready, object.as_ref(), &mut steady).await? else {
                return Ok(Look::Done(()));
            };
            // The first word comes at once; later ones with their reasons, which are read now and then.
            let why = match last.take() {
                None => lacks,
                Some((read, why)) if read.elapsed() < REASONS_EVERY => {
                    last = Some((read, why.clone()));
                    return Ok(Look::not_yet(why));
                }
                Some(_) => self.reasoned(ready, object.as_ref(), lacks).await,
            };
            last = Some((Instant::now(), why.clone()));
            match help(ready, object.as_ref(), &why) {
                Some((hint, true)) => Err(Error::failed(format!("{title}: {why}")).hint(hint)),
                _ => Ok(Look::not_yet(why)),
            }
        };
        let wake = async |most| {
            let version = version.borrow().clone();
            changes.next(version, most).await;
        };
        let seen_ready = Wait::new(&title, within, events).every(REASONS_EVERY).woken(look, wake).await;
        seen_ready.map_err(|late| match late {
            Late::Away { error, .. } => error,
            late => late.or(|_, last| too_late(ready, seen.borrow().as_ref(), within, &last)),
        })
    }

    /// One look: None when it is ready, else the reason why not, as far as the cluster tells.
    pub async fn not_ready(&self, ready: &Ready) -> Result<Option<String>> {
        let (api_version, kind, namespace, name) = ready.subject();
        let object = self.get(api_version, kind, namespace, name).await?;
        self.why_not(ready, object.as_ref(), &mut Steady::default()).await
    }

    /// How a Deployment or DaemonSet stands; `steady` is of the looks at it before this one.
    pub async fn standing(&self, kind: &str, object: &Value, steady: &mut Steady) -> Result<Standing> {
        let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
        let ready = Ready::Workload { kind: kind.into(), namespace: text("namespace"), name: text("name") };
        let Some(why) = self.why_not(&ready, Some(object), steady).await? else { return Ok(Standing::Ready) };
        let pods = self.pods_of(&text("namespace"), object).await?;
        let title = format!("{kind} {}", text("name"));
        Ok(match pods::stuck(&pods) {
            Some(stuck) => Standing::Stuck(self.with_last_words(&text("namespace"), &pods, stuck).await),
            None => Standing::NotYet(format!("{title}: {why}")),
        })
    }

    async fn pods_of(&self, namespace: &str, workload: &Value) -> Result<Vec<Pod>> {
        self.list_of(Some(namespace), &pods::selector(workload)).await
    }

    async fn why_not(
        &self,
        ready: &Ready,
        object: Option<&Value>,
        steady: &mut Steady,
    ) -> Result<Option<String>> {
        Ok(match self.lacks(ready, object, steady).await? {
            Some(lacks) => Some(self.reasoned(ready, object, lacks).await),
            None => None,
        })
    }

    /// What it lacks, and of a workload the reason. Reasons are a help: who may not list pods or events still gets the counts.
    async fn reasoned(&self, ready: &Ready, object: Option<&Value>, lacks: String) -> String {
        let (Ready::Workload { kind, namespace, name }, Some(object)) = (ready, object) else { return lacks };
        let pods = self.pods_of(namespace, object).await.unwrap_or_default();
        let events = self.list_of(Some(namespace), "").await.unwrap_or_default();
        match pods::of_workload(kind, name, object, &pods, &events) {
            Some(reason) => self.with_last_words(namespace, &pods, format!("{lacks}; {reason}")).await,
            None => lacks,
        }
    }

    /// What a container wrote last, where its pod's status does not hold it.
    async fn with_last_words(&self, namespace: &str, pods: &[Pod], why: String) -> String {
        let Some((pod, container)) = pods::silent(pods) else { return why };
        let words = self.last_lines(namespace, pod, container).await;
        if words.trim().is_empty() { why } else { format!("{why}; it wrote: {}", pods::last_words(&words)) }
    }

    /// What the object's own status lacks; for a CRD also that discovery serves it, for a workload that its pods stay ready.
    async fn lacks(
        &self,
        ready: &Ready,
        object: Option<&Value>,
        steady: &mut Steady,
    ) -> Result<Option<String>> {
        let Some(object) = object else { return Ok(Some("it does not exist".into())) };
        Ok(match ready {
            Ready::Crd { .. } => match workload::crd_lacks(object) {
                Some(lack) => Some(lack),
                None => self.unserved(object).await?,
            },
            Ready::Workload { kind, namespace, .. } => {
                let lacks = workload::workload_lacks(kind, object);
                // Looked at in either case: a container that is started again between two looks is remembered.
                let doubt = self.doubt(namespace, object, steady).await;
                match lacks {
                    Some(lacks) => Some(lacks),
                    None => doubt?,
                }
            }
            Ready::Node { .. } => workload::node_lacks(object),
            Ready::BackupLocation { .. } => velero::location_lacks(object),
            Ready::Schedule { .. } => velero::schedule_lacks(object),
        })
    }

    /// Why the workload's pods are not known to stay ready.
    async fn doubt(&self, namespace: &str, object: &Value, steady: &mut Steady) -> Result<Option<String>> {
        let pods = self.pods_of(namespace, object).await?;
        let ready_for = Duration::from_secs(object["spec"]["minReadySeconds"].as_u64().unwrap_or_default());
        let mut clocks = Clocks::new();
        for node in steady::nodes(&pods, ready_for) {
            // Where it can't be read, the containers are watched for the whole time.
            let lease = self.get("coordination.k8s.io/v1", "Lease", Some("kube-node-lease"), node).await;
            let time =
                lease.ok().flatten().and_then(|lease| lease["spec"]["renewTime"].as_str()?.parse().ok());
            clocks.extend(time.map(|time| (node.to_owned(), time)));
        }
        Ok(steady.doubt(&pods, ready_for, &clocks, Instant::now().into_std()))
    }

    async fn unserved(&self, crd: &Value) -> Result<Option<String>> {
        let (group, kind) = (crd["spec"]["group"].as_str(), crd["spec"]["names"]["kind"].as_str());
        let versions = crd["spec"]["versions"].as_array().map_or(&[][..], Vec::as_slice);
        for version in versions.iter().filter(|v| v["served"] == true) {
            if let (Some(group), Some(kind), Some(version)) = (group, kind, version["name"].as_str()) {
                let api_version = format!("{group}/{version}");
                if !self.serves(&api_version, kind).await? {
                    return Ok(Some(format!("{api_version} {kind} is not served yet")));
                }
            }
        }
        Ok(None)
    }
}

/// Tells that an object changed; where it can't be watched, nothing is told.
struct Changes {
    api: Api<DynamicObject>,
    params: WatchParams,
    told: Option<BoxStream<'static, kube::Result<WatchEvent<DynamicObject>>>>,
}

impl Changes {
    fn new(api: Api<DynamicObject>, name: &str) -> Self {
        let params = WatchParams::default().fields(&format!("metadata.name={name}"));
        Self { api, params, told: None }
    }

    /// Returns at the next change after this version, and after `most` at the latest.
    async fn next(&mut self, version: Option<String>, most: Duration) {
        let changed = async {
            if self.told.is_none() {
                let watch = self.api.watch(&self.params, version.as_deref().unwrap_or("0")).await;
                self.told = watch.ok().map(StreamExt::boxed);
            }
            while let Some(told) = &mut self.told {
                match told.next().await {
                    Some(Ok(WatchEvent::Bookmark(_))) => {}
                    Some(Ok(WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Deleted(_))) => {
                        return;
                    }
                    // What comes next is begun from what the next look finds.
                    Some(Ok(WatchEvent::Error(_)) | Err(_)) | None => self.told = None,
                }
            }
            std::future::pending().await
        };
        // Over is as good as changed: it is looked again.
        drop(timeout(most, changed).await);
    }
}

/// What helps against the reason, and whether it stays however long one waits.
fn help(ready: &Ready, object: Option<&Value>, why: &str) -> Option<(String, bool)> {
    match ready {
        Ready::BackupLocation { .. } => {
            let advice = velero::location_advice(object?)?;
            Some((advice.hint, advice.lasting))
        }
        Ready::Schedule { namespace, name } => {
            velero::schedule_hint(namespace, name, object?).map(|hint| (hint, true))
        }
        _ => pods::hint(why).map(|hint| (hint.to_owned(), false)),
    }
}

fn too_late(ready: &Ready, object: Option<&Value>, within: Duration, last: &str) -> Error {
    let error = Error::failed(format!("{}: not ready after {} s: {last}", ready.title(), within.as_secs()));
    match help(ready, object, last) {
        Some((hint, _)) => error.hint(hint),
        None => error,
    }
}
