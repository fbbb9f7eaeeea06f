//! Waiting until something in the cluster is ready, and telling all the while why it isn't.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watch_object};
use serde_json::Value;
use tokio::time::Instant;

use super::{Cluster, from_kube, reason, store};
use crate::error::{Error, Kind, Result, chain};
use crate::event::Events;
use crate::plan::Ready;

/// How often the reasons (pods, events) are read again while waiting.
const REASONS_EVERY: Duration = Duration::from_secs(3);

const VELERO: &str = "velero.io/v1";

/// The object whose status tells, as apiVersion, kind, namespace and name.
fn subject(ready: &Ready) -> (&'static str, &str, Option<&str>, &str) {
    match ready {
        Ready::Crd { name } => ("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, name),
        Ready::Workload { kind, namespace, name } => ("apps/v1", kind, Some(namespace), name),
        Ready::Node { name } => ("v1", "Node", None, name),
        Ready::BackupLocation { namespace, name } => (VELERO, "BackupStorageLocation", Some(namespace), name),
        Ready::Schedule { namespace, name } => (VELERO, "Schedule", Some(namespace), name),
    }
}

fn title(ready: &Ready) -> String {
    let (_, kind, namespace, name) = subject(ready);
    namespace.map_or_else(|| format!("{kind} {name}"), |namespace| format!("{kind} {namespace}/{name}"))
}

impl Cluster {
    /// Waits for at most `within`. Each new reason for waiting is an event; the last one is the error's text.
    ///
    /// # Errors
    /// `Failed` when time is over, `Invalid` when the object may not be watched.
    pub async fn await_ready(&self, ready: &Ready, events: &Events, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let (api_version, kind, namespace, name) = subject(ready);
        let title = title(ready);
        let api = self.api(api_version, kind, namespace).await.map_err(|e| from_kube(&title, e))?;
        let mut changes = pin!(watch_object(api, name).default_backoff());
        let mut reasons = tokio::time::interval(REASONS_EVERY);
        reasons.reset();
        let mut seen: Option<Value> = None;
        let mut last = String::new();
        loop {
            let why = tokio::select! {
                change = changes.next() => {
                    seen = match change {
                        Some(Ok(object)) => object.as_ref().and_then(as_value),
                        Some(Err(error)) => return_if_hopeless(&title, error)?,
                        None => return Err(Error::failed(format!("{title}: the watch ended"))),
                    };
                    match self.lacks(ready, seen.as_ref()).await? {
                        None => return Ok(()),
                        // The first word comes at once; later ones with their reasons.
                        Some(why) if last.is_empty() => why,
                        Some(_) => continue,
                    }
                }
                _ = reasons.tick() => match self.why_not(ready, seen.as_ref()).await? {
                    None => return Ok(()),
                    Some(why) => why,
                },
                () = tokio::time::sleep_until(deadline) => return Err(too_late(ready, seen.as_ref(), within, &last)),
            };
            if let Some((hint, true)) = help(ready, seen.as_ref(), &why) {
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
        let (api_version, kind, namespace, name) = subject(ready);
        let object = self.get(api_version, kind, namespace, name).await?;
        self.why_not(ready, object.as_ref()).await
    }

    async fn why_not(&self, ready: &Ready, object: Option<&Value>) -> Result<Option<String>> {
        let Some(lacks) = self.lacks(ready, object).await? else { return Ok(None) };
        let (Ready::Workload { kind, namespace, name }, Some(object)) = (ready, object) else {
            return Ok(Some(lacks));
        };
        let selector = reason::selector(object);
        // Reasons are a help: who may not list pods or events still gets the counts.
        let pods = self.list("v1", "Pod", Some(namespace), &selector).await.unwrap_or_default();
        let events = self.list("v1", "Event", Some(namespace), "").await.unwrap_or_default();
        let reason = reason::of_workload(kind, name, object, &pods, &events);
        Ok(Some(reason.map_or_else(|| lacks.clone(), |reason| format!("{lacks}; {reason}"))))
    }

    /// What the object's own status lacks; for a CRD also that discovery serves it.
    async fn lacks(&self, ready: &Ready, object: Option<&Value>) -> Result<Option<String>> {
        let Some(object) = object else { return Ok(Some("it does not exist".into())) };
        Ok(match ready {
            Ready::Crd { .. } => match reason::crd_lacks(object) {
                Some(lack) => Some(lack),
                None => self.unserved(object).await?,
            },
            Ready::Workload { kind, .. } if kind == "DaemonSet" => reason::daemon_set_lacks(object),
            Ready::Workload { .. } => reason::deployment_lacks(object),
            Ready::Node { .. } => reason::node_lacks(object),
            Ready::BackupLocation { .. } => reason::location_lacks(object),
            Ready::Schedule { .. } => reason::schedule_lacks(object),
        })
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

/// A watch heals by itself, except when it is not allowed or the credentials are no good.
fn return_if_hopeless(title: &str, error: watcher::Error) -> Result<Option<Value>> {
    match error {
        watcher::Error::InitialListFailed(e)
        | watcher::Error::WatchStartFailed(e)
        | watcher::Error::WatchFailed(e) => {
            let error = from_kube(title, e);
            if error.kind == Kind::Invalid { Err(error) } else { Ok(None) }
        }
        watcher::Error::WatchError(_) => Ok(None),
        other => Err(Error::failed(format!("{title}: {}", chain(&other)))),
    }
}

/// What helps against the reason, and whether it stays however long one waits.
fn help(ready: &Ready, object: Option<&Value>, why: &str) -> Option<(String, bool)> {
    match ready {
        Ready::BackupLocation { .. } => {
            let advice = store::advice(why, &store::Asked::of(object.unwrap_or(&Value::Null)))?;
            Some((advice.hint, advice.lasting))
        }
        Ready::Schedule { namespace, name } => reason::schedule_hint(namespace, name, why),
        _ => reason::hint(why).map(|hint| (hint.to_owned(), false)),
    }
}

fn too_late(ready: &Ready, object: Option<&Value>, within: Duration, last: &str) -> Error {
    let error = Error::failed(format!("{}: not ready after {} s: {last}", title(ready), within.as_secs()));
    match help(ready, object, last) {
        Some((hint, _)) => error.hint(hint),
        None => error,
    }
}
