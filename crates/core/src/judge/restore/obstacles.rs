//! What stands in a restore's way, known before it begins. Velero leaves what exists already as it is, and a volume's files come
//! back only through a pod that the restore itself makes.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{
    Namespace, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod, PodSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Contents, Entry, RestoreScope};
use crate::error::first;
use crate::judge::backup::ReadVolume;
use crate::judge::coverage::{ClaimName, name_of};
use crate::judge::pods::some;

/// So many of a kind are named; the others are counted.
const NAMED: usize = 5;

/// What the cluster has already, in the namespaces that are restored to.
#[derive(Debug, Clone, Default)]
pub struct Live {
    pub namespaces: Vec<Namespace>,
    pub claims: Vec<PersistentVolumeClaim>,
    pub pods: Vec<Pod>,
    pub deployments: Vec<Deployment>,
    pub stateful_sets: Vec<StatefulSet>,
    pub daemon_sets: Vec<DaemonSet>,
    /// The names of all StorageClasses and nodes.
    pub classes: BTreeSet<String>,
    pub nodes: BTreeSet<String>,
    /// The objects there, as far as the backup has some of their kind.
    pub entries: BTreeSet<Entry>,
}

/// What stands in the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Obstacles {
    /// These exist, with files of their own: they would be left as they are.
    pub existing: Vec<String>,
    /// With these a claim would come back without its files.
    pub refused: Vec<String>,
    /// Goes by itself.
    pub ending: Vec<String>,
    /// To be known before.
    pub warnings: Vec<String>,
    /// Claims that come back without files, and why.
    pub bare: BTreeMap<ClaimName, String>,
}

pub fn obstacles(
    wanted: &[ReadVolume],
    scope: &RestoreScope,
    contents: Option<&Contents>,
    live: &Live,
) -> Obstacles {
    let mut found = Obstacles::default();
    namespaces(scope, live, &mut found);
    let exists = exists(live);
    for volume in wanted {
        volume_obstacles(volume, scope, &exists, live, &mut found);
    }
    if let Some(contents) = contents {
        classes(scope, contents, live, &mut found);
        bare(wanted, scope, contents, live, &mut found);
        others(scope, contents, live, &mut found);
    }
    found.existing.dedup();
    found.refused.sort();
    found.refused.dedup();
    found
}

/// Up to so many of them, and how many more there are.
pub fn named(all: &[String]) -> String {
    first(all.iter().cloned(), NAMED)
}

struct Exists {
    claims: BTreeSet<ClaimName>,
    pods: BTreeSet<ClaimName>,
}

fn exists(live: &Live) -> Exists {
    Exists {
        claims: live.claims.iter().map(|claim| name_of(&claim.metadata)).collect(),
        pods: live.pods.iter().map(|pod| name_of(&pod.metadata)).collect(),
    }
}

/// A namespace that is about to go can't be restored into.
fn namespaces(scope: &RestoreScope, live: &Live, found: &mut Obstacles) {
    let mapped: BTreeSet<&str> = scope.mappings.values().map(String::as_str).collect();
    for namespace in &live.namespaces {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let target = mapped.contains(name)
            || scope.mappings.is_empty() && !scope.namespaces.is_empty() && scope.takes(name);
        if target && namespace.metadata.deletion_timestamp.is_some() {
            found.ending.push(format!("namespace {name} is being deleted"));
        }
    }
}

fn volume_obstacles(
    volume: &ReadVolume,
    scope: &RestoreScope,
    exists: &Exists,
    live: &Live,
    found: &mut Obstacles,
) {
    let (claim, pod) = (scope.claim(volume), scope.pod(volume));
    if let Some(claim) = claim.as_ref().filter(|claim| exists.claims.contains(claim)) {
        found.existing.push(format!("claim {claim}"));
        return;
    }
    let files = claim.as_ref().map_or_else(|| volume.to_string(), |claim| format!("claim {claim}"));
    if exists.pods.contains(&pod) {
        let why = format!("pod {pod} exists already, so that {files} would come back without files");
        match claim {
            Some(_) => found.refused.push(why),
            None => found.existing.push(format!("pod {pod}")),
        }
        return;
    }
    if claim.is_none()
        && let Some(owner) = making(&pod, live)
    {
        found.refused.push(format!(
            "{owner} exists already and makes pods of its own: it ends the restored pod {pod}, whose {} Velero then waits for",
            volume.volume
        ));
    }
    if let Some(claim) = &claim
        && let Some(owner) = mounting(claim, live)
    {
        found.refused.push(format!(
            "{owner} exists already and mounts {files}: it makes pods of its own, which Velero gives no files, and ends the \
             restored one"
        ));
    }
}

/// The workload that made a pod, by their names.
fn making(pod: &ClaimName, live: &Live) -> Option<String> {
    let deployments = live.deployments.iter().map(|one| ("Deployment", &one.metadata));
    let sets = live.stateful_sets.iter().map(|one| ("StatefulSet", &one.metadata));
    let daemons = live.daemon_sets.iter().map(|one| ("DaemonSet", &one.metadata));
    let its = |metadata: &ObjectMeta| {
        let name = name_of(metadata);
        name.namespace == pod.namespace && pod.name.starts_with(&format!("{}-", name.name))
    };
    let mut all = deployments.chain(sets).chain(daemons);
    all.find(|(_, metadata)| its(metadata)).map(|(kind, metadata)| format!("{kind} {}", name_of(metadata)))
}

/// The workload in the claim's namespace that makes pods with it.
fn mounting(claim: &ClaimName, live: &Live) -> Option<String> {
    let here = |metadata: &ObjectMeta| metadata.namespace.as_deref() == Some(claim.namespace.as_str());
    let title = |kind: &str, metadata: &ObjectMeta| format!("{kind} {}", name_of(metadata));
    let deployment = live
        .deployments
        .iter()
        .filter(|one| here(&one.metadata))
        .find(|one| one.spec.template.spec.as_ref().is_some_and(|spec| mounts(spec, &claim.name)));
    let set = live.stateful_sets.iter().filter(|one| here(&one.metadata)).find(|one| {
        let own = one.metadata.name.as_deref().unwrap_or_default();
        let mut templates = one.spec.volume_claim_templates.iter().flatten();
        let made = templates.any(|template| {
            let prefix = format!("{}-{own}-", template.metadata.name.as_deref().unwrap_or_default());
            claim.name.strip_prefix(&prefix).is_some_and(|number| number.parse::<u32>().is_ok())
        });
        made || one.spec.template.spec.as_ref().is_some_and(|spec| mounts(spec, &claim.name))
    });
    deployment
        .map(|one| title("Deployment", &one.metadata))
        .or_else(|| set.map(|one| title("StatefulSet", &one.metadata)))
}

fn mounts(spec: &PodSpec, claim: &str) -> bool {
    let mut sources =
        spec.volumes.iter().flatten().filter_map(|volume| volume.persistent_volume_claim.as_ref());
    sources.any(|source| source.claim_name == claim)
}

fn taken<'a>(
    scope: &'a RestoreScope,
    contents: &'a Contents,
) -> impl Iterator<Item = (ClaimName, &'a PersistentVolumeClaimSpec)> {
    contents.claims.iter().filter_map(|claim| {
        let name = name_of(&claim.metadata);
        scope.takes(&name.namespace).then_some((name, claim.spec.as_ref()?))
    })
}

/// A claim whose class the cluster has not waits for ever, and its restore with it.
fn classes(scope: &RestoreScope, contents: &Contents, live: &Live, found: &mut Obstacles) {
    let mut lacking: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut used = BTreeSet::new();
    for (claim, spec) in taken(scope, contents) {
        let Some(old) = spec.storage_class_name.as_deref().filter(|class| !class.is_empty()) else {
            continue;
        };
        used.insert(old);
        let class = scope.classes.get(old).map_or(old, String::as_str);
        if !live.classes.contains(class) {
            lacking.entry(class).or_default().push(claim.to_string());
        }
    }
    for (class, claims) in lacking {
        found.refused.push(format!(
            "the cluster has no StorageClass {class}, which claim {} asks for: --storage-class-mappings {class}:OTHER takes \
             another",
            named(&claims)
        ));
    }
    for old in scope.classes.keys().filter(|old| !used.contains(old.as_str())) {
        found
            .warnings
            .push(format!("no claim that comes back is of StorageClass {old}, which is to be another"));
    }
}

/// Claims whose files are not in the backup.
fn bare(
    wanted: &[ReadVolume],
    scope: &RestoreScope,
    contents: &Contents,
    live: &Live,
    found: &mut Obstacles,
) {
    let read: BTreeSet<&str> = wanted.iter().filter_map(|volume| volume.claim.as_deref()).collect();
    for (claim, spec) in taken(scope, contents) {
        let Some(volume) = spec.volume_name.as_deref().filter(|name| !name.is_empty()) else { continue };
        if read.contains(claim.to_string().as_str()) {
            continue;
        }
        match contents.volumes.get(volume).and_then(|volume| kept(volume, live)) {
            Some(how) => {
                found.warnings.push(format!("claim {claim}: its files are not in the backup; {how}"))
            }
            None => {
                found.bare.insert(claim, "its files are not in the backup: it comes back EMPTY".into());
            }
        }
    }
}

/// How a PersistentVolume comes back that is retained: as it was, with what lies where it points to.
fn kept(volume: &PersistentVolume, live: &Live) -> Option<String> {
    let spec = volume.spec.as_ref()?;
    if some(&spec.persistent_volume_reclaim_policy) != "Retain" {
        return None;
    }
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let path = spec.local.as_ref().map(|local| local.path.as_str());
    let path = path.or(spec.host_path.as_ref().map(|path| path.path.as_str())).unwrap_or("its place");
    let terms = spec.node_affinity.iter().flat_map(|affinity| affinity.required.iter());
    let wanted = terms.flat_map(|selector| &selector.node_selector_terms);
    let hosts: Vec<&str> = wanted
        .flat_map(|term| term.match_expressions.iter().flatten())
        .flat_map(|expression| expression.values.iter().flatten())
        .map(String::as_str)
        .collect();
    let missing = !hosts.is_empty() && !hosts.iter().any(|host| live.nodes.contains(*host));
    let node = if hosts.is_empty() { String::new() } else { format!(" of {}", hosts.join(", ")) };
    let there = if missing { ", a node that the cluster has not: no pod can use it" } else { "" };
    Some(format!(
        "its PersistentVolume {name} is retained, and comes back with what lies at {path}{node}{there}"
    ))
}

/// What never comes back, what Kubernetes makes by itself in each namespace, and what a restore adds to.
/// Source: velero-io/velero pkg/controller/restore_controller.go (nonRestorableResources), pkg/restore/restore.go (v1.18).
fn is_its_own(entry: &Entry) -> bool {
    let kinds = ["PersistentVolumeClaim", "Pod", "Event", "ServiceAccount", "Endpoints", "EndpointSlice"];
    kinds.contains(&entry.kind.as_str()) || entry.kind == "ConfigMap" && entry.name == "kube-root-ca.crt"
}

/// Objects that exist already stay as they are.
fn others(scope: &RestoreScope, contents: &Contents, live: &Live, found: &mut Obstacles) {
    let there = contents.entries.iter().filter(|entry| {
        let entry = *entry;
        let target = Entry { namespace: scope.target(&entry.namespace).to_owned(), ..entry.clone() };
        let own = !entry.namespace.is_empty() && scope.takes(&entry.namespace);
        own && !is_its_own(entry) && live.entries.contains(&target)
    });
    let there: Vec<String> = there
        .map(|entry| format!("{} {}/{}", entry.kind, scope.target(&entry.namespace), entry.name))
        .collect();
    if !there.is_empty() {
        found.warnings.push(format!("exists already, and stays as it is: {}", named(&there)));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn wanted() -> Vec<ReadVolume> {
        let volume = ReadVolume { claim: Some("a/data".into()), pod: "a/p".into(), ..ReadVolume::default() };
        vec![ReadVolume { bytes: Some(7), snapshot: "s".into(), ..volume }]
    }

    fn named_in(namespace: &str, name: &str) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name}})
    }

    fn live() -> Live {
        Live { classes: ["c".into()].into(), nodes: ["n1".into()].into(), ..Live::default() }
    }

    fn deployment(namespace: &str, claim: &str) -> Deployment {
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]);
        let template = json!({"spec": {"containers": [], "volumes": volumes}});
        let mut object = named_in(namespace, "web");
        object["spec"] = json!({"selector": {}, "template": template});
        from_value(object).unwrap()
    }

    fn stateful_set(template: &str) -> StatefulSet {
        let mut object = named_in("a", "db");
        let templates = json!([{"metadata": {"name": template}, "spec": {}}]);
        object["spec"] = json!({
            "selector": {}, "serviceName": "", "volumeClaimTemplates": templates, "template": {"spec": {"containers": []}},
        });
        from_value(object).unwrap()
    }

    #[test]
    fn what_exists_stays_and_what_would_come_back_empty_is_refused() {
        let claim = |namespace| from_value(named_in(namespace, "data")).unwrap();
        let pod = |namespace| from_value(named_in(namespace, "p")).unwrap();
        let mapped = RestoreScope { mappings: [("a".into(), "b".into())].into(), ..RestoreScope::default() };
        let plain = RestoreScope::default();
        let of_set = vec![ReadVolume { claim: Some("a/data-db-0".into()), ..wanted().remove(0) }];
        for (wanted, scope, live, existing, refused) in [
            (wanted(), &plain, live(), None, None),
            (wanted(), &plain, Live { claims: vec![claim("a")], ..live() }, Some("claim a/data"), None),
            (wanted(), &mapped, Live { claims: vec![claim("a")], ..live() }, None, None),
            (wanted(), &mapped, Live { claims: vec![claim("b")], ..live() }, Some("claim b/data"), None),
            (wanted(), &plain, Live { pods: vec![pod("a")], ..live() }, None, Some("pod a/p exists")),
            (wanted(), &mapped, Live { pods: vec![pod("a")], ..live() }, None, None),
            (
                wanted(),
                &plain,
                Live { deployments: vec![deployment("a", "data")], ..live() },
                None,
                Some("Deployment a/web exists already and mounts claim a/data"),
            ),
            (wanted(), &plain, Live { deployments: vec![deployment("a", "other")], ..live() }, None, None),
            (wanted(), &plain, Live { deployments: vec![deployment("b", "data")], ..live() }, None, None),
            (
                of_set.clone(),
                &plain,
                Live { stateful_sets: vec![stateful_set("data")], ..live() },
                None,
                Some("StatefulSet a/db exists"),
            ),
            (of_set, &plain, Live { stateful_sets: vec![stateful_set("logs")], ..live() }, None, None),
        ] {
            let found = obstacles(&wanted, scope, None, &live);
            assert_eq!(found.existing.first().map(String::as_str), existing, "{found:?}");
            assert_eq!(found.refused.is_empty(), refused.is_none(), "{found:?}");
            assert!(found.refused.join(" ").contains(refused.unwrap_or_default()), "{found:?}");
        }
    }

    #[test]
    fn a_pod_whose_workload_is_there_already_is_ended_by_that() {
        let cache = |pod: &str| ReadVolume {
            claim: None,
            pod: pod.into(),
            volume: "cache".into(),
            ..wanted().remove(0)
        };
        let live = Live { deployments: vec![deployment("a", "other")], ..live() };
        for (pod, refused) in [("a/web-5d9-x", true), ("a/webb-5d9-x", false), ("b/web-5d9-x", false)] {
            let found = obstacles(&[cache(pod)], &RestoreScope::default(), None, &live);
            assert_eq!(!found.refused.is_empty(), refused, "{pod}: {found:?}");
        }
        let left_out = RestoreScope { left_out: vec!["a".into()], ..RestoreScope::default() };
        assert!(!left_out.takes("a") && left_out.takes("b"));
    }

    #[test]
    fn a_namespace_that_ends_is_waited_for() {
        let mut ending = json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let scope = RestoreScope { namespaces: vec!["a".into()], ..RestoreScope::default() };
        let with =
            |namespace: &Value| Live { namespaces: vec![from_value(namespace.clone()).unwrap()], ..live() };
        assert_eq!(obstacles(&[], &scope, None, &with(&ending)).ending, ["namespace a is being deleted"]);
        ending["metadata"]["name"] = json!("b");
        assert!(obstacles(&[], &scope, None, &with(&ending)).ending.is_empty());
    }

    #[test]
    fn claims_without_files_and_classes_that_are_not_there_are_known_from_the_backups_objects() {
        let claim = |class: &str| {
            json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "data"},
                "spec": {"storageClassName": class, "volumeName": "pv"},
            })
        };
        let volume = |policy: &str, host: &str| {
            let expression = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [host]});
            let terms = json!([{"matchExpressions": [expression]}]);
            json!({
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"},
                "spec": {"persistentVolumeReclaimPolicy": policy, "local": {"path": "/x"},
                         "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}},
            })
        };
        let contents = |objects: &[Value]| {
            let mut contents = Contents::default();
            objects.iter().for_each(|object| contents.take(object).unwrap());
            contents
        };
        let mapped = RestoreScope { classes: [("old".into(), "c".into())].into(), ..RestoreScope::default() };
        let plain = RestoreScope::default();
        for (scope, class, wanted, policy, host, told) in [
            (&plain, "c", wanted(), "Delete", "n1", ""),
            (&plain, "old", wanted(), "Delete", "n1", "no StorageClass old, which claim a/data asks for"),
            (&mapped, "old", wanted(), "Delete", "n1", ""),
            (&mapped, "c", wanted(), "Delete", "n1", "no claim that comes back is of StorageClass old"),
            (&plain, "c", vec![], "Delete", "n1", "it comes back EMPTY"),
            (&plain, "c", vec![], "Retain", "n1", "comes back with what lies at /x of n1"),
            (&plain, "c", vec![], "Retain", "n7", "a node that the cluster has not"),
        ] {
            let contents = contents(&[claim(class), volume(policy, host)]);
            let found = obstacles(&wanted, scope, Some(&contents), &live());
            let all = [found.refused, found.warnings, found.bare.into_values().collect()].concat().join("; ");
            assert!(all.contains(told) && all.is_empty() == told.is_empty(), "{told}: {all}");
        }
    }

    #[test]
    fn other_objects_that_exist_are_named_up_to_a_few() {
        let (mut contents, mut live) = (Contents::default(), live());
        for number in 0..7 {
            let metadata = json!({"namespace": "a", "name": number.to_string()});
            contents.take(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})).unwrap();
            live.entries.extend(contents.entries.iter().cloned());
        }
        let found = obstacles(&[], &RestoreScope::default(), Some(&contents), &live);
        assert!(found.warnings[0].ends_with("ConfigMap a/4; and 2 more"), "{found:?}");
        let elsewhere =
            RestoreScope { mappings: [("a".into(), "b".into())].into(), ..RestoreScope::default() };
        assert!(obstacles(&[], &elsewhere, Some(&contents), &live).warnings.is_empty());
    }
}
