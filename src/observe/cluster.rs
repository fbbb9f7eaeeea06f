//! What exists in Kubernetes, seen against what nodeprep would send.

use std::collections::BTreeMap;

use futures::{FutureExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::cluster::{Cluster, MANAGER};
use crate::error::{Kind, Result};
use crate::judge::velero::kinds::{Backup, Restore};
use crate::model::cluster::{AwaitedState, ClusterState, DryRun, Leftovers, ObjectState};
use crate::model::object::{Object, Ready, TEST_RUN};
use crate::stack::{KINDS, MANAGED_BY, StackItem};

/// How many objects are looked at at once.
const AT_ONCE: usize = 8;

/// Reads each wanted object beside the server's dry run of it, and each condition. Changes nothing.
///
/// # Errors
/// When the cluster can't be reached, or the credentials may not read or apply.
pub async fn observe(cluster: &Cluster, items: &[StackItem]) -> Result<ClusterState> {
    let namespaces = namespaces(cluster, items).await?;
    let objects = items.iter().filter_map(|item| match item {
        StackItem::Object(object) => Some(object_state(cluster, object, &namespaces)),
        StackItem::Ready(_) => None,
    });
    let waits = items.iter().filter_map(|item| match item {
        StackItem::Ready(ready) => Some(wait(cluster, ready)),
        StackItem::Object(_) => None,
    });
    let classes = cluster.list_of::<StorageClass>(None, "").await?;
    let nodes = match cluster.list_of(None, "").await {
        Err(error) if error.kind == Kind::Invalid => Vec::new(),
        nodes => nodes?,
    };
    // Boxed: the compiler can't follow the borrow through the stream otherwise.
    let objects: Vec<_> = objects.map(futures::FutureExt::boxed).collect();
    let waits: Vec<_> = waits.map(futures::FutureExt::boxed).collect();
    Ok(ClusterState {
        objects: futures::stream::iter(objects).buffered(AT_ONCE).try_collect().await?,
        waits: futures::stream::iter(waits).buffered(AT_ONCE).try_collect().await?,
        default_classes: classes
            .into_iter()
            .filter(is_default)
            .filter_map(|class| class.metadata.name)
            .collect(),
        nodes,
        leftovers: leftovers(cluster).await?,
    })
}

/// What nodeprep has installed, and who uses it.
///
/// # Errors
/// When the cluster can't be reached; a kind that may not be listed is named in the answer.
pub async fn leftovers(cluster: &Cluster) -> Result<Leftovers> {
    let ours = format!("{}={},!{TEST_RUN}", MANAGED_BY.0, MANAGED_BY.1);
    let mut found = Leftovers::default();
    let listed = async |api_version, kind| allowed(cluster.list(api_version, kind, None, &ours).await);
    let kinds = KINDS.map(|(api_version, kind)| listed(api_version, kind).boxed());
    let lists: Vec<Option<Vec<Value>>> = futures::stream::iter(kinds).buffered(AT_ONCE).try_collect().await?;
    for ((api_version, kind), list) in KINDS.into_iter().zip(lists) {
        match list {
            // Its list says what it is, each of its objects need not.
            Some(list) => found.ours.extend(list.into_iter().filter(is_ours).map(|mut object| {
                object["apiVersion"] = api_version.into();
                object["kind"] = kind.into();
                object
            })),
            None => found.unseen.push(format!("{kind}s")),
        }
    }
    if found.ours.iter().any(|object| object["kind"] == "StorageClass") {
        class_users(cluster, &mut found).await?;
    }
    if found.ours.iter().any(|object| object["metadata"]["name"] == "velero") {
        at_work(cluster, &mut found).await?;
    }
    if found.ours.iter().any(|object| object["kind"] == "BackupStorageLocation") {
        location_users(cluster, &mut found).await?;
    }
    Ok(found)
}

/// None where they may not be listed.
pub(super) fn allowed<T>(listed: Result<T>) -> Result<Option<T>> {
    match listed {
        Err(error) if error.kind == Kind::Invalid => Ok(None),
        listed => listed.map(Some),
    }
}

/// A label is easily copied; who applied an object is not.
fn is_ours(object: &Value) -> bool {
    let managers = object["metadata"]["managedFields"].as_array();
    let applied = |one: &Value| one["manager"] == MANAGER && one["operation"] == "Apply";
    owner(object).is_none() && managers.is_some_and(|managers| managers.iter().any(applied))
}

async fn class_users(cluster: &Cluster, found: &mut Leftovers) -> Result<()> {
    let claims = allowed(cluster.list_of::<PersistentVolumeClaim>(None, "").await)?;
    let claims = claims.map(|claims| {
        claims
            .into_iter()
            .map(|claim| (claim.metadata, claim.spec.and_then(|spec| spec.storage_class_name)))
            .collect()
    });
    used(found, "PersistentVolumeClaim", claims);
    let volumes = allowed(cluster.list_of::<PersistentVolume>(None, "").await)?;
    let volumes = volumes.map(|volumes| {
        volumes
            .into_iter()
            .map(|volume| (volume.metadata, volume.spec.and_then(|spec| spec.storage_class_name)))
            .collect()
    });
    used(found, "PersistentVolume", volumes);
    Ok(())
}

/// Notes objects of a kind, each with the class that it names. Where they are not known, each class may have some.
fn used(found: &mut Leftovers, kind: &str, all: Option<Vec<(ObjectMeta, Option<String>)>>) {
    let Some(all) = all else {
        let classes = found.ours.iter().filter(|object| object["kind"] == "StorageClass");
        for class in classes.filter_map(name) {
            let perhaps = format!("perhaps a {kind} (not allowed to look)");
            found.class_users.entry(class).or_default().push(perhaps);
        }
        return;
    };
    for (metadata, class) in all {
        let (Some(class), Some(name)) = (class, metadata.name) else { continue };
        let title = match metadata.namespace {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name,
        };
        found.class_users.entry(class).or_default().push(title);
    }
}

/// Who names a backup location. Where backups or schedules are not known, each location may have some.
async fn location_users(cluster: &Cluster, found: &mut Leftovers) -> Result<()> {
    for kind in ["Backup", "Schedule"] {
        let Some(all) = allowed(cluster.list("velero.io/v1", kind, None, "").await)? else {
            let locations = found.ours.iter().filter(|object| object["kind"] == "BackupStorageLocation");
            let perhaps = |place| (place, vec![format!("perhaps a {kind} (not allowed to look)")]);
            found
                .location_users
                .extend(locations.map(|object| perhaps(place(object, "/metadata/name"))).collect::<Vec<_>>());
            continue;
        };
        // What the file says of nodeprep's own schedules counts, not where they go to now.
        let stays = |object: &&Value| {
            kind == "Backup" || !is_ours(object) || object["spec"]["useOwnerReferencesInBackup"] == true
        };
        let spec = if kind == "Backup" { "/spec/storageLocation" } else { "/spec/template/storageLocation" };
        for object in all.iter().filter(stays) {
            let title = format!("{kind} {}", name(object).unwrap_or_default());
            found.location_users.entry(place(object, spec)).or_default().push(title);
        }
    }
    Ok(())
}

/// A location by its namespace, which is the object's, and its name in the object.
fn place(object: &Value, name: &str) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!("{}/{}", text("/metadata/namespace"), text(name))
}

/// Velero's work that is not finished.
/// Source: velero, pkg/apis/velero/v1, BackupPhase and RestorePhase.
async fn at_work(cluster: &Cluster, found: &mut Leftovers) -> Result<()> {
    let backups = allowed(cluster.list_of::<Backup>(None, "").await)?.unwrap_or_default();
    let backups =
        backups.into_iter().map(|one| ("Backup", one.metadata, one.status.and_then(|status| status.phase)));
    let restores = allowed(cluster.list_of::<Restore>(None, "").await)?.unwrap_or_default();
    let restores =
        restores.into_iter().map(|one| ("Restore", one.metadata, one.status.and_then(|status| status.phase)));
    for (kind, metadata, phase) in backups.chain(restores) {
        let phase = phase.unwrap_or_default();
        let works = ["InProgress", "WaitingForPluginOperations", "Finalizing"];
        if works.iter().any(|work| phase.starts_with(work))
            && let (Some(name), Some(namespace)) = (metadata.name, metadata.namespace)
        {
            found.at_work.entry(namespace).or_default().push(format!("{kind} {name}"));
        }
    }
    Ok(())
}

fn name(object: &Value) -> Option<String> {
    object["metadata"]["name"].as_str().map(str::to_owned)
}

/// By the annotation that marks it (k8s.io/api, storage/v1).
pub fn is_default(class: &StorageClass) -> bool {
    let annotations = class.metadata.annotations.as_ref();
    let marked = annotations.and_then(|all| all.get("storageclass.kubernetes.io/is-default-class"));
    marked.is_some_and(|marked| marked == "true")
}

/// Which of the namespaces that the items name are there.
async fn namespaces(cluster: &Cluster, items: &[StackItem]) -> Result<BTreeMap<String, bool>> {
    let mut there = BTreeMap::new();
    for item in items {
        if let StackItem::Object(object) = item
            && let Some(namespace) = object.namespace()
            && !there.contains_key(namespace)
        {
            let found = cluster.get("v1", "Namespace", None, namespace).await?;
            there.insert(namespace.to_owned(), found.is_some());
        }
    }
    Ok(there)
}

async fn wait(cluster: &Cluster, ready: &Ready) -> Result<AwaitedState> {
    Ok(AwaitedState { ready: ready.clone(), lacks: cluster.not_ready(ready).await? })
}

async fn object_state(
    cluster: &Cluster,
    wanted: &Object,
    namespaces: &BTreeMap<String, bool>,
) -> Result<ObjectState> {
    let state = |live: Option<Value>, dry_run| ObjectState {
        wanted: wanted.clone(),
        owner: live.as_ref().and_then(owner),
        live,
        dry_run,
    };
    if let Some(namespace) = wanted.namespace()
        && namespaces.get(namespace) == Some(&false)
    {
        return Ok(state(None, DryRun::NotYet(format!("namespace {namespace} is not there yet"))));
    }
    let (api_version, kind) = (wanted.api_version(), wanted.kind());
    if !cluster.serves(api_version, kind).await? {
        return Ok(state(
            None,
            DryRun::NotServed(format!("the cluster does not serve {api_version} {kind} yet")),
        ));
    }
    let error = match cluster.send(wanted, true).await {
        Ok(applied) => return Ok(state(applied.before, DryRun::Would(applied.after))),
        Err(error) => error,
    };
    let dry_run = match error.kind {
        Kind::Refused => DryRun::Conflict(error.what),
        Kind::Failed => DryRun::Refused(error.what),
        _ => return Err(error),
    };
    Ok(state(cluster.get(api_version, kind, wanted.namespace(), wanted.name()).await?, dry_run))
}

/// Who manages an object, from the marks that Helm, Flux and Argo CD leave on it.
pub fn owner(object: &Value) -> Option<String> {
    let metadata = &object["metadata"];
    let mark = |kind: &str, key: &str| metadata[kind][key].as_str();
    let flux = |kind: &str, group: &str| {
        let name = mark("labels", &format!("{group}.toolkit.fluxcd.io/name"))?;
        let namespace = mark("labels", &format!("{group}.toolkit.fluxcd.io/namespace"))?;
        Some(format!("Flux {kind} {namespace}/{name}"))
    };
    let helm = || {
        let release = mark("annotations", "meta.helm.sh/release-name")?;
        let namespace = mark("annotations", "meta.helm.sh/release-namespace").unwrap_or("default");
        let managed = mark("labels", "app.kubernetes.io/managed-by") == Some("Helm");
        managed.then(|| format!("Helm release {namespace}/{release}"))
    };
    let argo = || {
        let tracked =
            mark("annotations", "argocd.argoproj.io/tracking-id").and_then(|id| id.split(':').next());
        let application = tracked.or_else(|| mark("labels", "argocd.argoproj.io/instance"))?;
        Some(format!("Argo CD application {application}"))
    };
    flux("HelmRelease", "helm").or_else(|| flux("Kustomization", "kustomize")).or_else(helm).or_else(argo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_marks_of_helm_flux_and_argo_name_the_owner() {
        let helm = json!({"meta.helm.sh/release-name": "velero", "meta.helm.sh/release-namespace": "backup"});
        let by_helm = json!({"app.kubernetes.io/managed-by": "Helm"});
        let cases = [
            (json!({"labels": by_helm, "annotations": helm}), Some("Helm release backup/velero")),
            (json!({"labels": {"app.kubernetes.io/managed-by": "nodeprep"}, "annotations": helm}), None),
            (
                json!({"labels": {
                    "app.kubernetes.io/managed-by": "Helm",
                    "helm.toolkit.fluxcd.io/name": "openebs", "helm.toolkit.fluxcd.io/namespace": "openebs"
                }, "annotations": helm}),
                Some("Flux HelmRelease openebs/openebs"),
            ),
            (
                json!({"labels": {
                    "kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"
                }}),
                Some("Flux Kustomization flux-system/apps"),
            ),
            (
                json!({"annotations": {"argocd.argoproj.io/tracking-id": "stack:apps/Deployment:velero/velero"}}),
                Some("Argo CD application stack"),
            ),
            (json!({"labels": {"app": "x"}}), None),
            (json!({}), None),
        ];
        for (metadata, expected) in cases {
            assert_eq!(owner(&json!({"metadata": metadata})).as_deref(), expected, "{metadata}");
        }
    }
}
