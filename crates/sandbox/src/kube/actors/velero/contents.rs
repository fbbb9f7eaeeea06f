//! What a backup holds: the objects that it chooses, by their paths in its archive.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::super::volumes::claims_of;
use super::super::{Stage, text};
use super::chosen::{Chosen, selector_fault, selects};
use crate::kube::store::Place;

pub(super) const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// An object's place in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// Such as `deployments.apps`.
    pub(super) resource: &'a str,
    /// Empty for what belongs to the whole cluster.
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl<'a> Entry<'a> {
    /// Reads a path such as `resources/pods/namespaces/default/app.json`.
    pub(super) fn read(path: &'a str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_suffix(".json")?.split('/').collect();
        match parts.as_slice() {
            ["resources", resource, "namespaces", namespace, name] => {
                Some(Self { resource, namespace, name })
            }
            ["resources", resource, "cluster", name] => Some(Self { resource, namespace: "", name }),
            _ => None,
        }
    }

    pub(super) fn path(&self) -> String {
        let Self { resource, namespace, name } = self;
        match *namespace {
            "" => format!("resources/{resource}/cluster/{name}.json"),
            _ => format!("resources/{resource}/namespaces/{namespace}/{name}.json"),
        }
    }

    /// As Velero calls the object.
    pub(super) fn id(&self) -> String {
        let Self { resource, namespace, name } = self;
        if namespace.is_empty() {
            format!("{resource}/{name}")
        } else {
            format!("{resource}/{namespace}/{name}")
        }
    }
}

/// Group and plural, such as `apps/deployments`, of a resource such as `deployments.apps`.
pub(super) fn kept_as(resource: &str) -> String {
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    format!("{group}/{plural}")
}

fn resource_of(place: &Place) -> String {
    match place.resource.split_once('/') {
        Some(("", plural)) => plural.to_owned(),
        Some((group, plural)) => format!("{plural}.{group}"),
        None => place.resource.clone(),
    }
}

/// What a backup's spec chooses.
struct Choice<'a> {
    spec: &'a Value,
    namespaces: Chosen,
    resources: Chosen,
}

impl Choice<'_> {
    /// Whether it may be there at all.
    fn allows(&self, resource: &str, object: &Value) -> bool {
        let left_out = object["metadata"]["labels"]["velero.io/exclude-from-backup"] == "true";
        self.resources.takes_resource(resource) && !left_out
    }

    fn takes(&self, resource: &str, object: &Value) -> bool {
        self.allows(resource, object) && selects(self.spec, object)
    }

    /// The claims of the pods that are taken, by namespace and name: they come along.
    fn claims<'s>(&self, stage: &'s Stage<'_>) -> BTreeSet<(&'s str, &'s str)> {
        let pods = stage.api.store.list("/pods", "");
        let pods =
            pods.filter(|(place, pod)| self.namespaces.takes(&place.namespace) && self.takes("pods", pod));
        pods.flat_map(|(place, pod)| claims_of(pod).map(move |(_, claim)| (place.namespace.as_str(), claim)))
            .collect()
    }
}

/// The backup's objects as they are now, by their paths.
pub(super) fn collect(stage: &Stage<'_>, backup: &Value) -> Map<String, Value> {
    let spec = &backup["spec"];
    if selector_fault(spec).is_some() {
        return Map::new();
    }
    let choice =
        Choice { spec, namespaces: Chosen::of(spec, "Namespaces"), resources: Chosen::of(spec, "Resources") };
    let claims = choice.claims(stage);
    let (mut contents, mut related) = (Map::new(), BTreeSet::new());
    for (place, object) in
        stage.api.store.objects().filter(|(place, _)| choice.namespaces.takes(&place.namespace))
    {
        let (resource, namespace, name) = (resource_of(place), place.namespace.as_str(), place.name.as_str());
        let of_pod = resource == "persistentvolumeclaims" && claims.contains(&(namespace, name));
        let taken = choice.takes(&resource, object) || of_pod && choice.allows(&resource, object);
        if namespace.is_empty() || !taken {
            continue;
        }
        if resource == "persistentvolumeclaims" {
            related.insert(("persistentvolumes".to_owned(), text(object, "/spec/volumeName").to_owned()));
        }
        related.insert((CRDS.to_owned(), resource.clone()));
        contents.insert(Entry { resource: &resource, namespace, name }.path(), object.clone());
    }
    for (place, object) in stage.api.store.objects().filter(|(place, _)| place.namespace.is_empty()) {
        let resource = resource_of(place);
        let comes_along =
            resource == "namespaces" || related.contains(&(resource.clone(), place.name.clone()));
        let taken = match &spec["includeClusterResources"] {
            _ if resource == "namespaces" => choice.namespaces.takes(&place.name),
            Value::Bool(all) => *all,
            _ => choice.namespaces.everything() || comes_along,
        };
        if taken && choice.allows(&resource, object) && (comes_along || selects(spec, object)) {
            contents.insert(
                Entry { resource: &resource, namespace: "", name: &place.name }.path(),
                object.clone(),
            );
        }
    }
    contents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objects_path_says_what_it_is() {
        for (entry, path, id, kept) in [
            (
                Entry { resource: "deployments.apps", namespace: "a", name: "web" },
                "resources/deployments.apps/namespaces/a/web.json",
                "deployments.apps/a/web",
                "apps/deployments",
            ),
            (
                Entry { resource: "persistentvolumes", namespace: "", name: "pvc-1.x" },
                "resources/persistentvolumes/cluster/pvc-1.x.json",
                "persistentvolumes/pvc-1.x",
                "/persistentvolumes",
            ),
        ] {
            assert_eq!(
                (entry.path().as_str(), entry.id().as_str(), kept_as(entry.resource).as_str()),
                (path, id, kept)
            );
            assert_eq!(Entry::read(path), Some(entry));
        }
        assert_eq!(Entry::read("metadata/version"), None);
    }
}
