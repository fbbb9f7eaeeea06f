//! The controllers of workloads: they make the pods that Deployments, DaemonSets and Jobs ask for, and take away what has no
//! owner any more.

mod daemon_sets;
mod deployments;
mod jobs;
mod orphans;
mod replica_sets;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::objects::{collection, delete, holds, list, number, owner_uid, path, plural, sorted, suffix};
use super::{Stage, ending, names, owned_by, text};
use crate::kube::object::FOREGROUND;
use crate::kube::route::group_of;
use crate::kube::store::Place;

const MANAGER: &str = "kube-controller-manager";
/// When pods were refused, it is tried again after this time.
const RETRY: Duration = Duration::from_secs(4);
/// So many pods of one workload are made at once.
const BURST: usize = 500;

pub(super) fn act(stage: &mut Stage<'_>) {
    accounts(stage);
    collect(stage);
    collect_first(stage);
    orphans::act(stage);
    deployments::act(stage);
    let members = members(stage);
    let ready = members.values().flatten().filter(|pod| pod.ready).map(|pod| pod.path.as_str());
    let ready: BTreeSet<&str> = ready.collect();
    stage.timers.keep(|path| ready.contains(path));
    replica_sets::act(stage, &members);
    daemon_sets::act(stage, &members);
    jobs::act(stage, &members);
}

/// A pod of a workload, as far as its controller looks at it.
#[derive(Debug)]
struct Member {
    path: String,
    name: String,
    /// Where it runs, or is to run.
    node: String,
    phase: String,
    ready: bool,
    /// It is about to go.
    ending: bool,
    /// The revision of the template that it was made from.
    revision: String,
}

impl Member {
    /// It runs or will run, and is to stay.
    fn active(&self) -> bool {
        !self.over() && !self.ending
    }

    fn over(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }
}

/// The pods by their owner's uid.
type Members = BTreeMap<String, Vec<Member>>;

fn members(stage: &Stage<'_>) -> Members {
    const TARGET: &str = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0\
                          /matchFields/0/values/0";
    let mut members = Members::new();
    for (place, pod) in stage.api.store.list("/pods", "") {
        let owner = owner_uid(pod);
        if owner.is_empty() {
            continue;
        }
        let node = match text(pod, "/spec/nodeName") {
            "" => text(pod, TARGET),
            node => node,
        };
        members.entry(owner.to_owned()).or_default().push(Member {
            path: path(pod),
            name: place.name.clone(),
            node: node.to_owned(),
            phase: text(pod, "/status/phase").to_owned(),
            ready: holds(pod, "Ready"),
            ending: ending(pod),
            revision: text(pod, "/metadata/labels/controller-revision-hash").to_owned(),
        });
    }
    members
}

/// The pods of an owner.
fn pods_of<'a>(members: &'a Members, owner: &Value) -> &'a [Member] {
    members.get(text(owner, "/metadata/uid")).map_or(&[], Vec::as_slice)
}

/// Whether the pod was ready for as long as its owner's `minReadySeconds` asks.
fn available(stage: &mut Stage<'_>, owner: &Value, pod: &Member) -> bool {
    let asked = Duration::from_secs(number(owner, "/spec/minReadySeconds").unwrap_or(0));
    pod.ready && (asked.is_zero() || stage.timers.lasts(&pod.path, asked, stage.now))
}

/// What tells the pods of an owner's template from those of its other ones.
fn template_hash(owner: &Value) -> String {
    suffix(&sorted(&owner["spec"]["template"]), 10)
}

/// Every namespace has a service account for its pods.
fn accounts(stage: &mut Stage<'_>) {
    let without = |(place, namespace): (&Place, &Value)| {
        let has = stage.get("/serviceaccounts", &place.name, "default").is_some();
        (!has && !ending(namespace)).then(|| place.name.clone())
    };
    let without: Vec<String> = stage.api.store.list("/namespaces", "").filter_map(without).collect();
    for namespace in without {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        let _ = stage.ask(MANAGER, "POST", &collection("v1", "ServiceAccount", &namespace), &account);
    }
}

/// What is owned goes when its last owner is gone, and a pod at once when its node is.
fn collect(stage: &mut Stage<'_>) {
    const OWNED: [&str; 6] = [
        "/pods",
        "apps/replicasets",
        "batch/jobs",
        "velero.io/backups",
        "velero.io/podvolumebackups",
        "velero.io/podvolumerestores",
    ];
    let mut gone = Vec::new();
    for resource in OWNED {
        for (_, object) in stage.api.store.list(resource, "") {
            let owners = list(object, "/metadata/ownerReferences");
            let orphan = !owners.is_empty() && !owners.iter().any(|owner| lives(stage, object, owner));
            let node = text(object, "/spec/nodeName");
            if !node.is_empty() && stage.get("/nodes", "", node).is_none() {
                gone.push((path(object), json!({"gracePeriodSeconds": 0})));
            } else if orphan && !ending(object) {
                gone.push((path(object), Value::Null));
            }
        }
    }
    for (path, how) in gone {
        let _ = stage.ask(MANAGER, "DELETE", &path, &how);
    }
}

/// What was deleted in the foreground goes after what it owns.
fn collect_first(stage: &mut Stage<'_>) {
    const OWNERS: [&str; 4] = ["apps/deployments", "apps/daemonsets", "apps/replicasets", "batch/jobs"];
    let first = |object: &Value| list(object, "/metadata/finalizers").iter().any(|one| one == FOREGROUND);
    let owners = OWNERS.iter().flat_map(|resource| stage.api.store.list(resource, ""));
    let ends: Vec<Value> =
        owners.map(|(_, one)| one).filter(|one| ending(one) && first(one)).cloned().collect();
    for owner in ends {
        let owned = |object: &&Value| owner_uid(object) == text(&owner, "/metadata/uid");
        let all =
            ["/pods", "apps/replicasets"].map(|resource| stage.api.store.list(resource, names(&owner).0));
        let owned: Vec<Value> =
            all.into_iter().flatten().map(|(_, one)| one).filter(owned).cloned().collect();
        if owned.is_empty() {
            let mut left = list(&owner, "/metadata/finalizers").to_vec();
            left.retain(|one| one != FOREGROUND);
            let _ = stage.patch(MANAGER, &path(&owner), &json!({"metadata": {"finalizers": left}}));
        }
        for object in owned.iter().filter(|object| !ending(object)) {
            let _ = stage.ask(MANAGER, "DELETE", &path(object), &json!({"propagationPolicy": "Foreground"}));
        }
    }
}

fn lives(stage: &Stage<'_>, object: &Value, owner: &Value) -> bool {
    let (version, kind) = (text(owner, "/apiVersion"), text(owner, "/kind"));
    let namespace = if kind == "Node" { "" } else { names(object).0 };
    let resource = format!("{}/{}", group_of(version), plural(kind));
    let found = stage.get(&resource, namespace, text(owner, "/name"));
    found.is_some_and(|found| found["metadata"]["uid"] == owner["uid"])
}

/// Whether pods may be made for the owner now: once some were refused, only from time to time.
fn may_make(stage: &mut Stage<'_>, owner: &Value) -> bool {
    let (namespace, uid) = (names(owner).0, &owner["metadata"]["uid"]);
    let refusal = |event: &Value| event["reason"] == "FailedCreate" && event["involvedObject"]["uid"] == *uid;
    let refused = stage.api.store.list("/events", namespace).any(|(_, event)| refusal(event));
    !refused || stage.done(&format!("create/{}", text(owner, "/metadata/uid")), RETRY)
}

/// Makes a pod of the owner's template with what `more` adds to it; the error is the API server's.
fn make_pod(stage: &mut Stage<'_>, who: &str, owner: &Value, more: &Value) -> Result<(), String> {
    let (namespace, owner_name) = names(owner);
    let seed = format!("{}/{}", text(owner, "/metadata/uid"), stage.api.store.version());
    let name = format!("{owner_name}-{}", suffix(&seed, 5));
    let template = &owner["spec"]["template"];
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "generateName": format!("{owner_name}-"), "labels": template["metadata"]["labels"],
            "annotations": template["metadata"]["annotations"], "ownerReferences": owned_by(owner),
        },
        "spec": template["spec"],
    });
    json_patch::merge(&mut pod, more);
    match stage.ask(MANAGER, "POST", &collection("v1", "Pod", namespace), &pod) {
        Ok(_) => {
            stage.event(who, "Normal", owner, "SuccessfulCreate", &format!("Created pod: {name}"));
            Ok(())
        }
        Err(refusal) => {
            stage.event(who, "Warning", owner, "FailedCreate", &format!("Error creating: {refusal}"));
            Err(refusal)
        }
    }
}

/// Takes a pod away.
fn remove_pod(stage: &mut Stage<'_>, who: &str, owner: &Value, pod: &Member) {
    delete(stage, MANAGER, &pod.path);
    stage.event(who, "Normal", owner, "SuccessfulDelete", &format!("Deleted pod: {}", pod.name));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::scene::Scene;

    #[test]
    fn what_has_no_owner_any_more_goes_with_all_that_it_owns() {
        let mut scene = Scene::new(&["n1"]);
        scene.apply(super::deployments::tests::deployment("web", 2));
        scene.run(5);
        assert_eq!(scene.names("/pods", "default").len(), 2);
        scene.delete("/apis/apps/v1/namespaces/default/deployments/web");
        scene.run(5);
        assert_eq!(scene.names("apps/replicasets", ""), [""; 0]);
        assert_eq!(scene.names("/pods", ""), [""; 0]);
    }

    #[test]
    fn an_owner_that_is_deleted_in_the_foreground_goes_after_its_pods() {
        let mut scene = Scene::new(&["n1"]);
        scene.apply(super::deployments::tests::deployment("web", 2));
        scene.run(5);
        let path = "/apis/apps/v1/namespaces/default/deployments/web";
        scene.ask("DELETE", path, &json!({"propagationPolicy": "Foreground"})).unwrap_or_default();
        scene.run(0);
        let web = scene.get("apps/deployments", "default", "web").unwrap_or_default();
        assert!(
            !web["metadata"]["deletionTimestamp"].is_null() && scene.names("/pods", "default").len() == 2,
            "{web}"
        );
        scene.run(5);
        let left = ["/pods", "apps/replicasets", "apps/deployments"].map(|all| scene.names(all, "").len());
        assert_eq!(left, [0; 3]);
    }

    #[test]
    fn every_namespace_gets_a_service_account_until_it_ends() {
        let mut scene = Scene::new(&[]);
        scene.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}));
        scene.run(1);
        assert_eq!(scene.names("/serviceaccounts", "a"), ["default"]);
        scene.delete("/api/v1/namespaces/a");
        scene.run(6);
        assert_eq!(scene.names("/serviceaccounts", "a"), [""; 0]);
        assert!(scene.get("/namespaces", "", "a").is_none());
    }

    #[test]
    fn what_stands_as_it_should_is_left_alone() {
        let mut scene = Scene::new(&["n1", "n2"]);
        scene.apply(super::deployments::tests::deployment("web", 2));
        scene.run(10);
        let version = scene.api.store.version();
        scene.run(600);
        assert_eq!(scene.api.store.version(), version);
    }
}
