//! The kinds that are served: those recorded from a real server, and those that CustomResourceDefinitions bring.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use super::object::holds;
use super::route::{Route, Target, group_of};
use super::types::Type;

static DISCOVERY: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("discovery.json")).expect("discovery.json is JSON"));

/// A kind as it is served.
#[derive(Debug, Clone)]
pub struct Served {
    pub kind: String,
    /// Group and plural: where the store keeps its objects, whatever version they are asked for in.
    pub resource: String,
    pub namespaced: bool,
    pub of: Type,
    /// Its status is written apart from the rest.
    pub has_status: bool,
    custom: bool,
}

impl Served {
    /// Whether a change of its spec counts up `metadata.generation`.
    pub fn counts_generations(&self) -> bool {
        let counted = [
            "CustomResourceDefinition",
            "DaemonSet",
            "Deployment",
            "Job",
            "PodDisruptionBudget",
            "ReplicaSet",
            "StatefulSet",
        ];
        self.custom || counted.contains(&self.kind.as_str())
    }
}

#[derive(Debug, Clone, Default)]
pub struct Kinds {
    /// By apiVersion and plural.
    served: BTreeMap<(String, String), Arc<Served>>,
    /// The discovery documents of custom groups, by apiVersion.
    custom: BTreeMap<String, Vec<Value>>,
}

impl Kinds {
    pub fn recorded() -> Self {
        const WITH_STATUS: [&str; 10] = [
            "CustomResourceDefinition",
            "DaemonSet",
            "Deployment",
            "Job",
            "Namespace",
            "Node",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "Pod",
            "PodDisruptionBudget",
        ];
        let mut kinds = Self::default();
        for (api_version, list) in DISCOVERY["resources"].as_object().into_iter().flatten() {
            for one in list["resources"].as_array().into_iter().flatten() {
                let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
                let Some(of) = Type::of_kind(api_version, &text("kind")) else { continue };
                let served = Served {
                    resource: format!("{}/{}", group_of(api_version), text("name")),
                    namespaced: one["namespaced"] == true,
                    of,
                    has_status: WITH_STATUS.contains(&text("kind").as_str()),
                    kind: text("kind"),
                    custom: false,
                };
                kinds.served.insert((api_version.clone(), text("name")), Arc::new(served));
            }
        }
        kinds
    }

    pub fn find(&self, target: &Target) -> Option<Arc<Served>> {
        let served = self.served.get(&(target.api_version.clone(), target.plural.clone()))?;
        // An object of a namespace is not to be had outside of one.
        let fits = served.namespaced || target.namespace.is_empty();
        let lost = served.namespaced && target.namespace.is_empty() && target.name.is_some();
        (fits && !lost).then(|| Arc::clone(served))
    }

    /// Everything that is served, by apiVersion and plural.
    pub fn all(&self) -> impl Iterator<Item = (&(String, String), &Served)> {
        self.served.iter().map(|(key, served)| (key, &**served))
    }

    pub fn serves(&self, api_version: &str) -> bool {
        self.served.keys().any(|(served, _)| served == api_version)
    }

    /// Serves what an established CustomResourceDefinition describes; what it no longer describes is not served.
    pub fn learn(&mut self, crd: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (group, names) = (text(&crd["spec"]["group"]), &crd["spec"]["names"]);
        let plural = text(&names["plural"]);
        let established = holds(crd, "Established") && crd["metadata"]["deletionTimestamp"].is_null();
        self.served
            .retain(|(version, name), _| *name != plural || !version.starts_with(&format!("{group}/")));
        for resources in self.custom.values_mut() {
            resources.retain(|one| one["name"] != plural.as_str());
        }
        self.custom.retain(|_, resources| !resources.is_empty());
        let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
        for version in versions.filter(|version| established && version["served"] == true) {
            let api_version = format!("{group}/{}", text(&version["name"]));
            let served = Served {
                kind: text(&names["kind"]),
                resource: format!("{group}/{plural}"),
                namespaced: crd["spec"]["scope"] == "Namespaced",
                of: Type::of_crd(&version["schema"]["openAPIV3Schema"]),
                has_status: !version["subresources"]["status"].is_null(),
                custom: true,
            };
            self.custom.entry(api_version.clone()).or_default().push(json!({
                "kind": served.kind, "name": plural, "namespaced": served.namespaced,
                "singularName": text(&names["singular"]),
                "verbs": ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"],
            }));
            self.served.insert((api_version, plural.clone()), Arc::new(served));
        }
    }

    /// The discovery document of a route; None when nothing is served there.
    pub fn discover(&self, route: &Route) -> Option<Value> {
        match route {
            Route::Version => Some(DISCOVERY["version"].clone()),
            Route::Core => Some(DISCOVERY["api"].clone()),
            Route::Groups => {
                let mut list = DISCOVERY["groups"].clone();
                if let Some(groups) = list["groups"].as_array_mut() {
                    groups.extend(self.custom_groups());
                }
                Some(list)
            }
            Route::Group(name) => {
                let recorded = DISCOVERY["groups"]["groups"].as_array().into_iter().flatten().cloned();
                let mut group =
                    recorded.chain(self.custom_groups()).find(|group| group["name"] == name.as_str())?;
                group["kind"] = json!("APIGroup");
                group["apiVersion"] = json!("v1");
                Some(group)
            }
            Route::Resources(api_version) => match self.custom.get(api_version) {
                Some(resources) => Some(json!({
                    "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources,
                })),
                None => DISCOVERY["resources"].get(api_version).cloned(),
            },
            Route::Resource(_) | Route::OpenApi(_) | Route::Health | Route::Other => None,
        }
    }

    fn custom_groups(&self) -> Vec<Value> {
        let mut groups: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for api_version in self.custom.keys() {
            if let Some((group, version)) = api_version.split_once('/') {
                groups
                    .entry(group)
                    .or_default()
                    .push(json!({"groupVersion": api_version, "version": version}));
            }
        }
        let group = |(name, versions): (&str, Vec<Value>)| json!({"name": name, "preferredVersion": versions.first(), "versions": versions});
        groups.into_iter().map(group).collect()
    }
}
