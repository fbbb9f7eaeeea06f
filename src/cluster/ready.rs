//! Waiting until something in the cluster is ready, and telling all the while why it isn't.

use std::cell::RefCell;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DynamicObject, ListParams, WatchEvent, WatchParams};
use tokio::time::{Instant, timeout};

use super::{Cluster, Steady, from_kube};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::judge::pods;
use crate::judge::ready::Awaited;
use crate::judge::steady::{self, Clocks};
use crate::judge::workload::Workload;
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
            version.replace(found.metadata.resource_version);
            let object = found.items.first().and_then(|object| serde_json::to_value(object).ok());
            let object = object.map(|object| Awaited::read(ready, &object)).transpose()?;
            let looked = self.look(ready, object.as_ref(), &mut steady, &mut last).await;
            seen.replace(object);
            looked
        };
        let wake = async |most| {
            let version = version.borrow().clone();
            changes.next(version, most).await;
        };
        let seen_ready = Wait::new(&title, within, events).every(REASONS_EVERY).woken(look, wake).await;
        seen_ready.map_err(|late| match late {
            Late::Away { error, .. } => error,
            late => late.or(|_, last| too_late(ready, seen.take().as_ref(), within, &last)),
        })
    }

    /// One of several looks. The first word comes at once; later ones with their reasons, which are read now and then.
    async fn look(
        &self,
        ready: &Ready,
        object: Option<&Awaited>,
        steady: &mut Steady,
        last: &mut Option<(Instant, String)>,
    ) -> Result<Look<()>> {
        let Some(lacks) = self.lacks(object, steady).await? else { return Ok(Look::Done(())) };
        let why = match last.take() {
            None => lacks,
            Some((read, why)) if read.elapsed() < REASONS_EVERY => {
                *last = Some((read, why.clone()));
                return Ok(Look::not_yet(why));
            }
            Some(_) => self.reasoned(object, lacks).await,
        };
        *last = Some((Instant::now(), why.clone()));
        match object.and_then(|object| object.help(&why)) {
            Some((hint, true)) => Err(Error::failed(format!("{}: {why}", ready.title())).hint(hint)),
            _ => Ok(Look::not_yet(why)),
        }
    }

    /// One look: None when it is ready, else the reason why not, as far as the cluster tells.
    pub async fn not_ready(&self, ready: &Ready) -> Result<Option<String>> {
        let (api_version, kind, namespace, name) = ready.subject();
        let object = self.get(api_version, kind, namespace, name).await?;
        let object = object.map(|object| Awaited::read(ready, &object)).transpose()?;
        Ok(match self.lacks(object.as_ref(), &mut Steady::default()).await? {
            Some(lacks) => Some(self.reasoned(object.as_ref(), lacks).await),
            None => None,
        })
    }

    /// How a Deployment or DaemonSet stands; `steady` is of the looks at it before this one.
    pub async fn standing(&self, workload: &Workload, steady: &mut Steady) -> Result<Standing> {
        let Some(lacks) = self.workload_lacks(workload, steady).await? else { return Ok(Standing::Ready) };
        let why = self.with_reason(workload, lacks).await;
        let pods = self.pods_of(workload).await?;
        Ok(match pods::stuck(&pods) {
            Some(stuck) => Standing::Stuck(self.with_last_words(workload.namespace(), &pods, stuck).await),
            None => Standing::NotYet(format!("{} {}: {why}", workload.kind(), workload.name())),
        })
    }

    async fn pods_of(&self, workload: &Workload) -> Result<Vec<Pod>> {
        self.list_of(Some(workload.namespace()), &pods::selector(workload.selector())).await
    }

    /// What it lacks, and of a workload the reason.
    async fn reasoned(&self, object: Option<&Awaited>, lacks: String) -> String {
        match object {
            Some(Awaited::Workload(workload)) => self.with_reason(workload, lacks).await,
            _ => lacks,
        }
    }

    /// Reasons are a help: who may not list pods or events still gets the counts.
    async fn with_reason(&self, workload: &Workload, lacks: String) -> String {
        let namespace = workload.namespace();
        let pods = self.pods_of(workload).await.unwrap_or_default();
        let events = self.list_of(Some(namespace), "").await.unwrap_or_default();
        match pods::of_workload(workload, &pods, &events) {
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
    async fn lacks(&self, object: Option<&Awaited>, steady: &mut Steady) -> Result<Option<String>> {
        let Some(object) = object else { return Ok(Some("it does not exist".into())) };
        match (object, object.lacks()) {
            (Awaited::Workload(workload), _) => self.workload_lacks(workload, steady).await,
            (Awaited::Crd(crd), None) => self.unserved(crd).await,
            (_, lacks) => Ok(lacks),
        }
    }

    /// What a workload's counts lack, else why its pods are not known to stay ready.
    async fn workload_lacks(&self, workload: &Workload, steady: &mut Steady) -> Result<Option<String>> {
        // Looked at in either case: a container that is started again between two looks is remembered.
        let doubt = self.doubt(workload, steady).await;
        match workload.lacks() {
            Some(lacks) => Ok(Some(lacks)),
            None => doubt,
        }
    }

    async fn doubt(&self, workload: &Workload, steady: &mut Steady) -> Result<Option<String>> {
        let (pods, ready_for) = (self.pods_of(workload).await?, workload.ready_for());
        let mut clocks = Clocks::new();
        for node in steady::nodes(&pods, ready_for) {
            // Where it can't be read, the containers are watched for the whole time.
            let lease = self.get_of::<Lease>(Some("kube-node-lease"), node).await.ok().flatten();
            let renewed = lease.and_then(|lease| lease.spec?.renew_time);
            clocks.extend(renewed.map(|time| (node.to_owned(), time.0)));
        }
        Ok(steady.doubt(&pods, ready_for, &clocks, Instant::now().into_std()))
    }

    async fn unserved(&self, crd: &CustomResourceDefinition) -> Result<Option<String>> {
        let (group, kind) = (&crd.spec.group, &crd.spec.names.kind);
        for version in crd.spec.versions.iter().filter(|version| version.served) {
            let api_version = format!("{group}/{}", version.name);
            if !self.serves(&api_version, kind).await? {
                return Ok(Some(format!("{api_version} {kind} is not served yet")));
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

fn too_late(ready: &Ready, object: Option<&Awaited>, within: Duration, last: &str) -> Error {
    let error = Error::failed(format!("{}: not ready after {} s: {last}", ready.title(), within.as_secs()));
    match object.and_then(|object| object.help(last)) {
        Some((hint, _)) => error.hint(hint),
        None => error,
    }
}
