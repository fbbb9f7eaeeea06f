//! Waiting until something in the cluster is ready, and telling all the while why it isn't.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watch_object};
use serde_json::Value;
use tokio::time::Instant;

use super::{Cluster, Steady, from_kube, reason};
use crate::error::{Error, Kind, Result, chain};
use crate::event::Events;
use crate::judge::steady::{self, Clocks};
use crate::judge::{velero, workload};
use crate::model::object::Ready;

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
    /// `Failed` when time is over, `Invalid` when the object may not be watched.
    pub async fn await_ready(&self, ready: &Ready, events: &Events, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let (api_version, kind, namespace, name) = ready.subject();
        let title = ready.title();
        let api = self.api(api_version, kind, namespace).await.map_err(|e| from_kube(&title, e))?;
        let mut changes = pin!(watch_object(api, name).default_backoff());
        let mut reasons = tokio::time::interval(REASONS_EVERY);
        reasons.reset();
        let mut seen: Option<Value> = None;
        // An API server that is away says nothing of what is there.
        let mut away: Option<Error> = None;
        let (mut last, mut steady) = (String::new(), Steady::default());
        loop {
            let why = tokio::select! {
                biased;
                change = changes.next() => {
                    match change {
                        Some(Ok(object)) => (seen, away) = (object.as_ref().and_then(as_value), None),
                        Some(Err(error)) => away = return_if_hopeless(&title, error)?.or(away),
                        None => return Err(Error::failed(format!("{title}: the watch ended"))),
                    }
                    if away.is_some() {
                        continue;
                    }
                    match self.lacks(ready, seen.as_ref(), &mut steady).await? {
                        None => return Ok(()),
                        // The first word comes at once; later ones with their reasons.
                        Some(why) if last.is_empty() => why,
                        Some(_) => continue,
                    }
                }
                _ = reasons.tick() => match &away {
                    Some(error) => error.what.clone(),
                    None => match self.why_not(ready, seen.as_ref(), &mut steady).await {
                        Ok(None) => return Ok(()),
                        Ok(Some(why)) => why,
                        Err(error) if error.kind == Kind::Unavailable => error.what,
                        Err(error) => return Err(error),
                    },
                },
                () = tokio::time::sleep_until(deadline) => {
                    return Err(away.unwrap_or_else(|| too_late(ready, seen.as_ref(), within, &last)));
                }
            };
            if let Some((hint, true)) = help(ready, seen.as_ref(), &why).filter(|_| away.is_none()) {
                return Err(Error::failed(format!("{title}: {why}")).hint(hint));
            }
            if why != last {
                events.waiting(&title, &why);
                last = why;
            }
        }
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
        Ok(match reason::stuck(&pods) {
            Some(stuck) => Standing::Stuck(self.with_last_words(&text("namespace"), &pods, stuck).await),
            None => Standing::NotYet(format!("{title}: {why}")),
        })
    }

    async fn pods_of(&self, namespace: &str, workload: &Value) -> Result<Vec<Pod>> {
        self.list_of(Some(namespace), &reason::selector(workload)).await
    }

    async fn why_not(
        &self,
        ready: &Ready,
        object: Option<&Value>,
        steady: &mut Steady,
    ) -> Result<Option<String>> {
        let Some(lacks) = self.lacks(ready, object, steady).await? else { return Ok(None) };
        let (Ready::Workload { kind, namespace, name }, Some(object)) = (ready, object) else {
            return Ok(Some(lacks));
        };
        // Reasons are a help: who may not list pods or events still gets the counts.
        let pods = self.pods_of(namespace, object).await.unwrap_or_default();
        let events = self.list_of(Some(namespace), "").await.unwrap_or_default();
        let Some(reason) = reason::of_workload(kind, name, object, &pods, &events) else {
            return Ok(Some(lacks));
        };
        Ok(Some(self.with_last_words(namespace, &pods, format!("{lacks}; {reason}")).await))
    }

    /// What a container wrote last, where its pod's status does not hold it.
    async fn with_last_words(&self, namespace: &str, pods: &[Pod], why: String) -> String {
        let Some((pod, container)) = reason::silent(pods) else { return why };
        let words = self.last_lines(namespace, pod, container).await;
        if words.trim().is_empty() { why } else { format!("{why}; it wrote: {}", reason::last_words(&words)) }
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
            Ready::Crd { .. } => match reason::crd_lacks(object) {
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
            Ready::BackupLocation { .. } => reason::location_lacks(object),
            Ready::Schedule { .. } => reason::schedule_lacks(object),
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

fn as_value(object: &DynamicObject) -> Option<Value> {
    serde_json::to_value(object).ok()
}

/// A watch heals by itself, except when it is not allowed or the credentials are no good. What it says meanwhile where the
/// API server is away.
fn return_if_hopeless(title: &str, error: watcher::Error) -> Result<Option<Error>> {
    match error {
        watcher::Error::InitialListFailed(e)
        | watcher::Error::WatchStartFailed(e)
        | watcher::Error::WatchFailed(e) => {
            let error = from_kube(title, e);
            match error.kind {
                Kind::Invalid => Err(error),
                Kind::Unavailable => Ok(Some(error)),
                _ => Ok(None),
            }
        }
        watcher::Error::WatchError(_) => Ok(None),
        other => Err(Error::failed(format!("{title}: {}", chain(&other)))),
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
            reason::schedule_hint(namespace, name, object?).map(|hint| (hint, true))
        }
        _ => reason::hint(why).map(|hint| (hint.to_owned(), false)),
    }
}

fn too_late(ready: &Ready, object: Option<&Value>, within: Duration, last: &str) -> Error {
    let error = Error::failed(format!("{}: not ready after {} s: {last}", ready.title(), within.as_secs()));
    match help(ready, object, last) {
        Some((hint, _)) => error.hint(hint),
        None => error,
    }
}
