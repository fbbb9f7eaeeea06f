//! What is done to one object of the cluster.

use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolume;

use super::RunContext;
use crate::cluster::{Cluster, Outcome};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::model::object::{Deletion, TEST_RUN};
use crate::plan::ObjectAction;
use crate::wait::{Look, Wait};

pub(super) async fn carry_out(action: &ObjectAction, context: &RunContext, events: &Events) -> Result<bool> {
    let cluster = context.cluster()?;
    let within = context.manner.deadlines.workloads.std();
    match action {
        ObjectAction::Apply(object) => {
            let applied = cluster.send(object, false).await?;
            Ok(applied.outcome() != Outcome::Unchanged)
        }
        ObjectAction::Delete(gone) => cluster.remove(gone, events, within).await,
        ObjectAction::DeleteRun { namespace, run } => {
            remove_run(cluster, namespace, run, within, events).await
        }
    }
}

/// Removes a namespace that a run made, and waits until the volumes of its claims are gone too, with their files.
///
/// # Errors
/// `Refused` when another run, or nobody, made it.
async fn remove_run(
    cluster: &Cluster,
    namespace: &str,
    run: &str,
    within: Duration,
    events: &Events,
) -> Result<bool> {
    let Some(live) = cluster.get("v1", "Namespace", None, namespace).await? else { return Ok(false) };
    if live["metadata"]["labels"][TEST_RUN] != *run {
        return Err(Error::refused(format!("namespace {namespace} is not one that this run made")));
    }
    let of_it = async || -> Result<Vec<PersistentVolume>> {
        let mut volumes: Vec<PersistentVolume> = cluster.list_of(None, "").await?;
        volumes.retain(|volume| {
            let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
            claim.and_then(|claim| claim.namespace.as_deref()) == Some(namespace)
        });
        Ok(volumes)
    };
    let kept = |volume: &PersistentVolume| {
        let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
        policy == Some("Retain")
    };
    let name = |volume: &PersistentVolume| volume.metadata.name.clone().unwrap_or_default();
    for volume in of_it().await?.iter().filter(|volume| kept(volume)) {
        events.warn(format!("PersistentVolume {} is retained: its files stay where they are", name(volume)));
    }
    cluster.remove(&Deletion::of(&live), events, within).await?;
    let wait = Wait::new(format!("the volumes of namespace {namespace} to go"), within, events);
    let gone = wait.until(async || {
        let left = of_it().await?.into_iter().find(|volume| !kept(volume));
        Ok(left.map_or(Look::Done(()), |volume| {
            Look::not_yet(format!("PersistentVolume {} is still there", name(&volume)))
        }))
    });
    gone.await.map(|()| true).map_err(|late| {
        late.or_hint("does the provisioner run? It removes a volume's files", |what, last| {
            Error::failed(format!("{what}: {last}"))
        })
    })
}
