//! Namespaces end: five seconds after one was deleted it is emptied, and it goes when nothing is left in it. Who deletes
//! it first and its objects next still finds them.
//! Source: k8s.io/kubernetes, pkg/controller/namespace, `namespaceDeletionGracePeriod`.

use std::time::Duration;

use serde_json::Value;

use super::objects::{condition, condition_of, delete, set_status, with_condition};
use super::{Stage, ending, text};
use crate::kube::route::collection;
use crate::kube::store::Place;

const WHO: &str = "kube-controller-manager";
const NAMESPACES: &str = "/namespaces";
const GRACE: Duration = Duration::from_secs(5);
/// The condition of a namespace that is being emptied.
const EMPTYING: &str = "NamespaceDeletionContentFailure";

pub(super) fn act(stage: &mut Stage<'_>) {
    for namespace in stage.all(NAMESPACES, "").iter().filter(|namespace| ending(namespace)) {
        let name = text(namespace, "/metadata/name");
        if condition_of(namespace, EMPTYING).is_some() {
            empty(stage, name);
        } else if stage.done(&format!("namespace/{name}"), GRACE) {
            let message = "All content successfully deleted, may be waiting on finalization";
            let emptying = condition(namespace, EMPTYING, "False", "ContentDeleted", message, &stage.time());
            set_status(stage, WHO, namespace, with_condition(namespace, emptying));
        }
    }
}

/// Deletes what is in it; the last thing that goes is itself.
fn empty(stage: &mut Stage<'_>, name: &str) {
    let within = stage.api.store.in_namespace(name).filter(|(_, object)| !ending(object));
    let paths: Vec<String> = within.map(|(place, object)| path(place, object)).collect();
    for path in paths {
        delete(stage, WHO, &path);
    }
    if stage.api.store.in_namespace(name).next().is_none() {
        stage.api.store.remove(&Place::global(NAMESPACES, name));
    }
}

/// The path of an object as its kind is kept: the plural is the server's.
fn path(place: &Place, object: &Value) -> String {
    let plural = place.resource.rsplit('/').next().unwrap_or_default();
    format!("{}/{}", collection(text(object, "/apiVersion"), &place.namespace, plural), place.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::kube::actors::scene::Scene;

    #[test]
    fn a_namespace_is_emptied_five_seconds_after_it_was_deleted() {
        let mut scene = Scene::new(&[]);
        scene.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}));
        let metadata = json!({"name": "c", "namespace": "a"});
        scene.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}));
        scene.delete("/api/v1/namespaces/a");
        scene.run(4);
        assert_eq!(scene.all("/configmaps", "a").len(), 1, "who deletes it next still finds it");
        scene.run(2);
        assert!(scene.all("/configmaps", "a").is_empty());
        assert!(!scene.all("/namespaces", "").iter().any(|one| one["metadata"]["name"] == "a"));
    }
}
