//! Removing test objects: pods, then claims, then their volumes, then the namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Namespace, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::super::probe::{phase, time_of};
use super::super::wait::{Look, until};
use super::super::{Stop, broken};
use super::{EXPIRES, MANAGED_BY, MANAGER, RUN, journal};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::event::{EventKind, Events};
use crate::model::affinity;

const CLEANUP_LIMIT: Duration = Duration::from_secs(180);
/// What is held by a finalizer that nobody takes away is waited for this long.
const HELD: Duration = Duration::from_secs(30);
/// Each kind is looked for this long at least, whatever the others took.
const LEAST: Duration = Duration::from_secs(2);
/// How long a volume that is being made is waited for, before its claim goes.
const BEING_MADE: Duration = Duration::from_secs(60);

/// What `nodeprep cleanup` removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// The namespaces of runs.
    pub namespaces: Vec<String>,
    /// The namespaces of runs of other places that may be alive, and until when.
    pub alive: Vec<(String, Timestamp)>,
}

/// Removes what runs left in the cluster: those of this place, by the journals in `state`, whose lock the caller holds; and those
/// of others by their labels, once they have expired. Errors: what is left.
pub async fn cleanup(cluster: &Cluster, state: &Path, now: Timestamp, events: &Events) -> Result<Cleaned> {
    let labelled = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER},{RUN}"));
    let journals = journal::left(state)?;
    // A drill has two namespaces.
    let (mut runs, mut alive) = (BTreeSet::new(), BTreeMap::new());
    // Before the namespaces: that of a run that is alive is there before its volumes, and after them.
    let volumes = Api::<PersistentVolume>::all(cluster.client()).list(&labelled).await;
    let volumes = volumes.map_err(broken("can't list volumes"))?;
    let namespaces = Api::<Namespace>::all(cluster.client()).list(&labelled).await;
    for namespace in namespaces.map_err(broken("can't list namespaces"))? {
        let run_id = run_of(&namespace);
        let own = journals.iter().any(|(_, id, _)| *id == run_id);
        match expires(&namespace).filter(|expires| !own && *expires > now) {
            Some(expires) => drop(alive.insert(run_id, (namespace.name_any(), expires))),
            None => drop(runs.insert((run_id, namespace.name_any()))),
        }
    }
    let of_volumes = volumes.iter().map(run_of).filter(|run_id| !alive.contains_key(run_id));
    let left = of_volumes.map(|run_id| (run_id, String::new()));
    for (run_id, namespace) in
        left.chain(journals.iter().map(|(namespace, id, _)| (id.clone(), namespace.clone())))
    {
        if !runs.iter().any(|(run, _)| *run == run_id) {
            runs.insert((run_id, namespace));
        }
    }
    let mut cleaned = Cleaned { alive: alive.into_values().collect(), ..Cleaned::default() };
    let mut errors = Vec::new();
    for (run_id, namespace) in runs {
        let namespace = if namespace.is_empty() { format!("nodeprep-{run_id}") } else { namespace };
        events.note(format!("removing what run {run_id} left in namespace {namespace}"));
        match self::namespace(cluster, events, &namespace, &run_id, CLEANUP_LIMIT).await {
            Ok(()) => cleaned.namespaces.push(namespace),
            Err(e) => {
                errors.push(e);
                continue;
            }
        }
        for (_, _, path) in journals.iter().filter(|(_, id, _)| *id == run_id) {
            journal::forget(path)?;
        }
    }
    let what: Vec<&str> = errors.iter().map(|error| error.what.as_str()).collect();
    let what = what.join("; ");
    match errors.into_iter().next() {
        None => Ok(cleaned),
        Some(first) => Err(Error { what, ..first }),
    }
}

fn expires(object: &impl ResourceExt) -> Option<Timestamp> {
    object.annotations().get(EXPIRES)?.parse().ok()
}

fn run_of(object: &impl ResourceExt) -> String {
    object.labels().get(RUN).cloned().unwrap_or_default()
}

/// Removes one run's namespace with all that is in it, and the volumes made for it.
/// Volumes that are kept (reclaim policy Retain) lose their object; the directory stays and is named.
pub(super) async fn namespace(
    cluster: &Cluster,
    events: &Events,
    namespace: &str,
    run_id: &str,
    limit: Duration,
) -> Result<()> {
    let events = &events.of("cluster", "cleanup");
    events.send(EventKind::StepStarted { title: format!("remove the test objects in {namespace}") });
    let removal = Removal { cluster, events, namespace, run_id, deadline: Instant::now() + limit };
    let removed = match removal.all().await {
        Ok(left) if left.is_empty() => Ok(()),
        Ok(left) => Err(still_there(left)),
        Err(Stop::Error(e)) => Err(e
            .at(format!("removing test objects of {namespace}"))
            .hint("`nodeprep cleanup` removes what tests left")),
        Err(Stop::Fault { why, .. }) => {
            Err(Error::failed(why).hint("`nodeprep cleanup` removes what tests left"))
        }
    };
    events.send(match &removed {
        Ok(()) => EventKind::StepDone { changed: true },
        Err(e) => EventKind::StepFailed { error: e.what.clone(), hint: e.hint.clone() },
    });
    removed
}

fn still_there(mut left: Vec<Left>) -> Error {
    left.dedup();
    let error = Error::failed(format!("left in the cluster: {}", listed(&left)));
    match left.iter().any(Left::is_held) {
        true => error.hint(
            "whoever set that finalizer has to take it away: is its controller running? Then `nodeprep cleanup` again",
        ),
        false => error.hint("`nodeprep cleanup` removes what tests left"),
    }
}

struct Removal<'a> {
    cluster: &'a Cluster,
    events: &'a Events,
    namespace: &'a str,
    run_id: &'a str,
    /// When all of it must be gone.
    deadline: Instant,
}

impl Removal<'_> {
    /// Removes what it can, and tells what is left.
    async fn all(&self) -> Result<Vec<Left>, Stop> {
        let background = DeleteParams::background();
        self.delete_all::<Job>("jobs", &background).await?;
        let now = DeleteParams { grace_period_seconds: Some(1), ..DeleteParams::default() };
        let mut left = self.delete_all::<Pod>("pods", &now).await?;
        self.volumes_made().await?;
        left.extend(self.delete_all::<PersistentVolumeClaim>("claims", &background).await?);
        self.drop_retained().await?;
        left.extend(self.volumes_gone().await?);
        left.extend(self.delete_namespace().await?);
        // A volume that was still being made when its claim went may have come since.
        if left.is_empty() {
            left.extend(self.volumes_gone().await?);
        }
        Ok(left)
    }

    /// Waits a while for volumes that are being made: when its claim goes meanwhile, a volume still comes, and nobody
    /// would look for it.
    async fn volumes_made(&self) -> Result<(), Stop> {
        let claims = Api::<PersistentVolumeClaim>::namespaced(self.cluster.client(), self.namespace);
        let events = Api::<Event>::namespaced(self.cluster.client(), self.namespace);
        let short = Removal { deadline: self.deadline.min(Instant::now() + BEING_MADE), ..*self };
        let late = short.wait("the volumes that are being made", || async {
            let all = ListParams::default();
            let claims = claims.list(&all).await.map_err(broken("can't list claims"))?;
            let events = events.list(&all).await.map_err(broken("can't list events"))?;
            let pending = claims.iter().filter(|claim| phase(claim) == "Pending").map(ResourceExt::name_any);
            let made = pending.filter(|claim| being_provisioned(claim, &events.items));
            Ok(made.map(|name| Left { name, ..Left::default() }).collect())
        });
        for claim in late.await? {
            self.events.warn(format!("claim {claim} is removed while its volume is being made"));
        }
        Ok(())
    }

    /// Deletes all objects of a kind and waits until they are gone; the names of those that stay.
    async fn delete_all<K>(&self, what: &str, params: &DeleteParams) -> Result<Vec<Left>, Stop>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned,
    {
        let api = Api::<K>::namespaced(self.cluster.client(), self.namespace);
        let failed = || broken(format!("can't delete {what} of {}", self.namespace));
        self.wait(&format!("{what} to go"), || async {
            let found = api.list(&ListParams::default()).await.map_err(failed())?;
            for object in found.iter().filter(|o| o.meta().deletion_timestamp.is_none()) {
                gone_is_fine(api.delete(&object.name_any(), params).await).map_err(failed())?;
            }
            Ok(found.iter().map(|o| Left::of(&format!("{}/", self.namespace), o)).collect())
        })
        .await
    }

    /// The volumes of this run: bound to a claim of its namespace, or labelled.
    async fn volumes(&self) -> Result<Vec<PersistentVolume>, Stop> {
        let all = Api::<PersistentVolume>::all(self.cluster.client()).list(&ListParams::default()).await;
        let all = all.map_err(broken("can't list volumes"))?;
        let of_claim = |v: &PersistentVolume| {
            v.spec.as_ref()?.claim_ref.as_ref()?.namespace.as_deref().map(|n| n == self.namespace)
        };
        let ours = |v: &PersistentVolume| of_claim(v).unwrap_or(false) || run_of(v) == self.run_id;
        Ok(all.items.into_iter().filter(ours).collect())
    }

    async fn drop_retained(&self) -> Result<(), Stop> {
        let api = Api::<PersistentVolume>::all(self.cluster.client());
        for volume in self.volumes().await? {
            let Some(spec) = &volume.spec else { continue };
            if spec.persistent_volume_reclaim_policy.as_deref() != Some("Retain") {
                continue;
            }
            let name = volume.name_any();
            gone_is_fine(api.delete(&name, &DeleteParams::default()).await)
                .map_err(broken(format!("can't delete volume {name}")))?;
            let local = spec.local.as_ref().map(|l| l.path.as_str());
            let path = local.or_else(|| spec.host_path.as_ref().map(|h| h.path.as_str()));
            self.events.warn(format!(
                "the class keeps its volumes (Retain): the directory {} of volume {name} stays on its node{}",
                path.unwrap_or("(unknown)"),
                affinity::pinned_to(&volume).map(|n| format!(" {n}")).unwrap_or_default(),
            ));
        }
        Ok(())
    }

    async fn volumes_gone(&self) -> Result<Vec<Left>, Stop> {
        self.wait("volumes to be reclaimed", || async {
            let left = self.volumes().await?;
            Ok(left.iter().map(|volume| Left::of("", volume)).collect())
        })
        .await
    }

    async fn delete_namespace(&self) -> Result<Vec<Left>, Stop> {
        let api = Api::<Namespace>::all(self.cluster.client());
        let failed = || broken(format!("can't delete namespace {}", self.namespace));
        gone_is_fine(api.delete(self.namespace, &DeleteParams::default()).await).map_err(failed())?;
        self.wait("the namespace to go", || async {
            let found = api.get_opt(self.namespace).await.map_err(failed())?;
            Ok(found.iter().map(Left::of_namespace).collect())
        })
        .await
    }

    /// Waits until `look` finds nothing, or tells what it still found at the limit.
    async fn wait<F, Fut>(&self, what: &str, look: F) -> Result<Vec<Left>, Stop>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<Vec<Left>, Stop>>,
    {
        let still = std::sync::Mutex::new(Vec::new());
        let began = Instant::now();
        let limit = self.deadline.saturating_duration_since(began).max(LEAST);
        let done = until(self.events, what, limit, || async {
            let left = look().await?;
            let held = !left.is_empty() && left.iter().all(Left::is_held);
            if left.is_empty() || held && began.elapsed() >= HELD {
                return Ok(Look::Done(left));
            }
            let reason = listed(&left);
            if let Ok(mut still) = still.lock() {
                *still = left;
            }
            Ok(Look::not_yet(reason))
        });
        Ok(match done.await? {
            Ok(left) => left,
            Err(_) => still.into_inner().unwrap_or_default(),
        })
    }
}

/// An object that is still there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Left {
    name: String,
    /// Finalizers of others that keep it from going.
    held_by: Vec<String>,
    /// What a namespace says itself that is still in it.
    within: Vec<String>,
}

impl Left {
    fn of<K: Resource<DynamicType = ()>>(place: &str, object: &K) -> Self {
        let foreign =
            |name: &&String| !name.starts_with("kubernetes.io/") && !name.starts_with("batch.kubernetes.io/");
        let orphan = |name: &&String| !["foregroundDeletion", "orphan"].contains(&name.as_str());
        let going = object.meta().deletion_timestamp.is_some();
        let held_by = object.finalizers().iter().filter(|_| going).filter(foreign).filter(orphan).cloned();
        let name = format!("{} {place}{}", K::kind(&()), object.name_any());
        Self { name, held_by: held_by.collect(), within: Vec::new() }
    }

    fn of_namespace(namespace: &Namespace) -> Self {
        let conditions = namespace.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
        let said =
            conditions.filter(|c| c.status == "True" && c.type_.starts_with("NamespaceFinalizersRemaining"));
        Self { within: said.filter_map(|c| c.message.clone()).collect(), ..Self::of("", namespace) }
    }

    const fn is_held(&self) -> bool {
        !self.held_by.is_empty()
    }
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        if self.is_held() {
            write!(f, ", held by the finalizer {}", self.held_by.join(", "))?;
        }
        if self.within.is_empty() { Ok(()) } else { write!(f, " ({})", self.within.join("; ")) }
    }
}

fn listed(left: &[Left]) -> String {
    left.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether the newest that the provisioner said of the claim is that it began.
fn being_provisioned(claim: &str, events: &[Event]) -> bool {
    let said = events.iter().filter(|event| event.involved_object.name.as_deref() == Some(claim));
    let reason = |event: &Event| event.reason.clone().unwrap_or_default();
    let said = said.filter(|event| {
        ["Provisioning", "ProvisioningFailed", "ProvisioningSucceeded"].contains(&reason(event).as_str())
    });
    // Times are in seconds: of two in one, the end came after the beginning.
    let newest = said.max_by_key(|event| (time_of(event), reason(event) != "Provisioning"));
    newest.is_some_and(|event| reason(event) == "Provisioning")
}

fn gone_is_fine<T>(deleted: kube::Result<T>) -> kube::Result<()> {
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_held_by_a_finalizer_is_named_with_it() {
        let claim = |finalizers: &[&str], deleted: bool| -> PersistentVolumeClaim {
            let mut metadata = json!({"name": "c", "finalizers": finalizers});
            if deleted {
                metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            serde_json::from_value(json!({ "metadata": metadata })).unwrap()
        };
        let own = "kubernetes.io/pvc-protection";
        for (finalizers, deleted, said) in [
            (&[own][..], true, "PersistentVolumeClaim n/c"),
            (&["example.com/keep"], false, "PersistentVolumeClaim n/c"),
            (
                &[own, "example.com/keep"],
                true,
                "PersistentVolumeClaim n/c, held by the finalizer example.com/keep",
            ),
        ] {
            assert_eq!(Left::of("n/", &claim(finalizers, deleted)).to_string(), said);
        }
        let hint = |left: Left| still_there(vec![left]).hint.unwrap();
        assert!(hint(Left::of("n/", &claim(&["example.com/keep"], true))).contains("controller"));
        let quotes: Namespace = serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "status": {"conditions": [{"type": "NamespaceFinalizersRemaining", "status": "True",
                "message": "x, held by the finalizer example.com/keep"}]},
        }))
        .unwrap();
        assert!(!hint(Left::of_namespace(&quotes)).contains("controller"), "its words hold nothing");
    }

    #[test]
    fn a_volume_is_being_made_until_the_provisioner_says_how_it_ended() {
        let event = |reason: &str, second: u8| -> Event {
            let at = format!("2026-01-01T00:00:{second:02}Z");
            let about = json!({"kind": "PersistentVolumeClaim", "name": "c"});
            let event =
                json!({"metadata": {}, "involvedObject": about, "reason": reason, "lastTimestamp": at});
            serde_json::from_value(event).unwrap()
        };
        let begun = event("Provisioning", 1);
        let waiting = event("ExternalProvisioning", 5);
        assert!(being_provisioned("c", &[begun.clone(), waiting.clone()]));
        assert!(!being_provisioned("d", std::slice::from_ref(&begun)) && !being_provisioned("c", &[waiting]));
        for end in ["ProvisioningFailed", "ProvisioningSucceeded"] {
            assert!(!being_provisioned("c", &[event(end, 1), begun.clone()]), "{end}");
        }
        assert!(being_provisioned("c", &[event("ProvisioningFailed", 1), event("Provisioning", 2)]));
    }
}
