//! The only place that makes test objects: a namespace of the run's own, and claims, pods and jobs in it.
//! Each is journaled before it is made; all are removed at the end, or by `nodeprep cleanup`.

use std::fmt::Debug;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::OnceCell;

use super::pod::typed;
use super::wait::{Look, until};
use super::{Context, Stop, broken, rights};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::intent::Size;
use crate::model::object::{EXPIRES, TEST_RUN};
use crate::stack::MANAGED_BY as MANAGED;

mod journal;
mod remove;

pub use remove::{Cleaned, cleanup};

/// The namespaces of runs whose test objects may be left, by the journals of this folder.
pub fn left(folder: &Path) -> Result<Vec<String>> {
    Ok(journal::left(folder)?
        .into_iter()
        .map(|(namespace, _, _)| namespace)
        .filter(|n| !n.is_empty())
        .collect())
}

const MANAGER: &str = MANAGED.1;
const MANAGED_BY: &str = MANAGED.0;
const RUN: &str = TEST_RUN;
/// A run that is older than this has surely ended.
const LIFETIME: SignedDuration = SignedDuration::from_hours(6);

/// The test objects of one run. Its namespace is made with the first of them.
#[derive(Debug)]
pub(super) struct Scratch {
    cluster: Cluster,
    events: Events,
    run_id: String,
    namespace: String,
    expires: Timestamp,
    timeout: Duration,
    journal: journal::ScratchRecord,
    made: OnceCell<()>,
    count: AtomicUsize,
}

impl Scratch {
    /// Makes nothing yet. Errors: a run id that can't be part of a namespace's name.
    pub(super) fn new(ctx: &Context) -> Result<Self> {
        let id = &ctx.run_id;
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if id.is_empty() || id.len() > 40 || !id.chars().all(fits) || id.ends_with('-') {
            return Err(Error::invalid(format!("run id `{id}` can't name a namespace"))
                .hint("use up to 40 lower-case letters, digits and dashes"));
        }
        Ok(Self {
            cluster: ctx.cluster.clone(),
            events: ctx.events.clone(),
            run_id: id.clone(),
            namespace: format!("nodeprep-{id}"),
            expires: ctx.now.checked_add(LIFETIME).unwrap_or(ctx.now),
            timeout: ctx.intent.validation.timeout.std(),
            journal: journal::ScratchRecord::new(&ctx.state, id),
            made: OnceCell::new(),
            count: AtomicUsize::new(0),
        })
    }

    /// A name for the next object of a check.
    pub(super) fn name(&self, check: &str) -> String {
        format!("{check}-{}", self.count.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The run's namespace, as an API of one kind of object.
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    /// Makes a claim that one node may write to.
    pub(super) async fn claim(
        &self,
        name: &str,
        class: &str,
        size: Size,
    ) -> Result<PersistentVolumeClaim, Stop> {
        let claim = typed(json!({
            "metadata": { "name": name },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": class,
                "resources": { "requests": { "storage": size.quantity() } },
            },
        }))?;
        self.make(claim).await
    }

    /// Makes a pod or a job.
    pub(super) async fn make<K>(&self, mut object: K) -> Result<K, Stop>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + Serialize + DeserializeOwned,
    {
        self.made.get_or_try_init(|| self.begin()).await?;
        let (kind, name) = (K::kind(&()), object.name_any());
        object.labels_mut().insert(MANAGED_BY.into(), MANAGER.into());
        object.labels_mut().insert(RUN.into(), self.run_id.clone());
        self.journal.making(&kind, &self.namespace, &name)?;
        let made = self.api::<K>().create(&by_us(), &object).await;
        Ok(made.map_err(broken(format!("can't make {kind} {}/{name}", self.namespace)))?)
    }

    async fn begin(&self) -> Result<(), Stop> {
        rights::ask(&self.cluster, &self.namespace).await?;
        self.make_namespace().await
    }

    async fn make_namespace(&self) -> Result<(), Stop> {
        let name = &self.namespace;
        let mut labels = json!({ MANAGED_BY: MANAGER, RUN: self.run_id });
        for mode in ["enforce", "audit", "warn"] {
            labels[format!("pod-security.kubernetes.io/{mode}")] = json!("restricted");
        }
        let namespace: Namespace = typed(json!({
            "metadata": { "name": name, "labels": labels, "annotations": { EXPIRES: self.expires.to_string() } },
        }))?;
        self.journal.making("Namespace", "", name)?;
        let made = Api::all(self.cluster.client()).create(&by_us(), &namespace).await;
        made.map_err(broken(format!("can't make namespace {name}")))?;
        // A pod is refused until the namespace's service account is there.
        let account = until(&self.events, "the namespace's service account", self.timeout, || async {
            let found = self.api::<ServiceAccount>().get_opt("default").await;
            let found = found.map_err(broken(format!("can't read service accounts of {name}")))?;
            Ok(if found.is_some() { Look::Done(()) } else { Look::not_yet("not made yet") })
        });
        let last = |last| Error::failed(format!("namespace {name} got no service account `default`: {last}"));
        Ok(account.await?.map_err(last)?)
    }

    /// Marks a volume that was provisioned for us, so that it is found even when its claim is gone.
    pub(super) async fn adopt(&self, volume: &str) -> Result<(), Stop> {
        self.journal.making("PersistentVolume", "", volume)?;
        let labels = json!({ "metadata": { "labels": { MANAGED_BY: MANAGER, RUN: self.run_id } } });
        let api = Api::<PersistentVolume>::all(self.cluster.client());
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let labelled = api.patch(volume, &params, &Patch::Merge(labels)).await;
        labelled.map_err(broken(format!("can't label volume {volume}")))?;
        Ok(())
    }

    /// Deletes a probe's pod and waits until it is gone.
    pub(super) async fn delete_pod(&self, name: &str) -> Result<(), Stop> {
        let pods = self.api::<Pod>();
        let failed = || broken(format!("can't delete pod {}/{name}", self.namespace));
        pods.delete(name, &DeleteParams::default()).await.map_err(failed())?;
        let what = format!("pod {name} to go");
        let gone = until(&self.events, &what, self.timeout, || async {
            let pod = pods.get_opt(name).await.map_err(failed())?;
            Ok(if pod.is_none() { Look::Done(()) } else { Look::not_yet("it is still there") })
        });
        Ok(gone.await?.map_err(|last| Error::failed(format!("pod {name} does not go away: {last}")))?)
    }

    /// Removes every object of the run. Errors: what is left, and the command that removes it.
    pub(super) async fn remove(&self) -> Result<()> {
        if !self.journal.written() {
            return Ok(());
        }
        remove::namespace(&self.cluster, &self.events, &self.namespace, &self.run_id, self.timeout).await?;
        self.journal.close()
    }
}

fn by_us() -> PostParams {
    PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() }
}
