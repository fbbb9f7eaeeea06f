//! What has no owner, such as after a restore, is taken over by the workload whose selector chooses it.

use serde_json::{Value, json};

use super::MANAGER;
use crate::kube::actors::objects::{owner_uid, path};
use crate::kube::actors::{Stage, ending, names, owned_by};

/// The kinds of owners, and of what they own.
const KINDS: [(&str, &str); 3] =
    [("apps/deployments", "apps/replicasets"), ("apps/replicasets", "/pods"), ("apps/daemonsets", "/pods")];

pub(super) fn act(stage: &mut Stage<'_>) {
    for (owners, owned) in KINDS {
        let free = |object: &&Value| owner_uid(object).is_empty() && !ending(object);
        let orphans = stage.api.store.list(owned, "").map(|(_, object)| object).filter(free);
        let mut taken = Vec::new();
        for orphan in orphans {
            let mut owners = stage.api.store.list(owners, names(orphan).0).map(|(_, owner)| owner);
            if let Some(owner) = owners.find(|owner| !ending(owner) && chooses(owner, orphan)) {
                taken.push((path(orphan), json!({"metadata": {"ownerReferences": owned_by(owner)}})));
            }
        }
        for (path, patch) in taken {
            let _ = stage.patch(MANAGER, &path, &patch);
        }
    }
}

fn chooses(owner: &Value, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    let wanted = owner["spec"]["selector"]["matchLabels"].as_object();
    wanted.is_some_and(|wanted| {
        !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::scene::Scene;
    use super::super::deployments::tests::deployment;
    use super::*;

    #[test]
    fn a_workload_takes_over_what_it_would_have_made() {
        let mut scene = Scene::new(&["n1"]);
        scene.apply(deployment("web", 1));
        scene.run(5);
        let strip = |object: &Value| {
            let mut object = object.clone();
            let own =
                json!({"ownerReferences": null, "uid": null, "resourceVersion": null, "managedFields": null});
            json_patch::merge(&mut object, &json!({"metadata": own, "status": null}));
            object
        };
        let [deployments, sets, pods] =
            ["apps/deployments", "apps/replicasets", "/pods"].map(|resource| scene.all(resource, "default"));
        scene.delete("/apis/apps/v1/namespaces/default/deployments/web");
        scene.run(5);
        assert_eq!(scene.names("/pods", "default"), [""; 0]);
        for object in pods.iter().chain(&sets).chain(&deployments) {
            scene.apply(strip(object));
        }
        scene.run(5);
        for (resource, before) in [("apps/replicasets", &sets), ("/pods", &pods)] {
            let now: Vec<Value> = scene.all(resource, "default");
            let name =
                |objects: &[Value]| objects.iter().map(|one| names(one).1.to_owned()).collect::<Vec<_>>();
            assert_eq!(name(&now), name(before), "{resource}");
            assert!(now.iter().all(|one| !owner_uid(one).is_empty()), "{resource}");
        }
    }
}
