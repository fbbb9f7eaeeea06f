//! Objects that the cluster is to have, and the conditions that it is to meet.

use k8s_openapi::Resource;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// The label of what a test run made, which is no part of the installation.
pub const TEST_RUN: &str = "nodeprep.dev/run";
/// The annotation of a test run's namespace: from then on anybody may remove it.
pub const EXPIRES: &str = "nodeprep.dev/expires";

/// The field manager of everything nodeprep applies.
pub const MANAGER: &str = "nodeprep";

/// A Kubernetes object as it will be sent.
#[derive(Clone)]
pub struct Object {
    pub value: Value,
    pub component: &'static str,
    /// Its contents are never shown.
    pub secret: bool,
    /// Made when missing and never changed after (the repository password).
    pub create_only: bool,
}

impl std::fmt::Debug for Object {
    /// Without the contents: they may be a Secret's.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object").field("title", &self.title()).finish_non_exhaustive()
    }
}

impl Object {
    pub fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    pub fn api_version(&self) -> &str {
        self.value["apiVersion"].as_str().unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    pub fn namespace(&self) -> Option<&str> {
        self.value["metadata"]["namespace"].as_str()
    }

    /// `Deployment velero/velero`, `StorageClass openebs-hostpath`.
    pub fn title(&self) -> String {
        title_of(self.kind(), self.namespace(), self.name())
    }
}

/// An object of the cluster, as its kind has it.
///
/// # Errors
/// What the API server says of it can't be read: then nothing is known of it.
pub fn read<'a, K: Resource + Deserialize<'a>>(object: &'a Value) -> Result<K> {
    K::deserialize(object).map_err(|error| {
        let (namespace, name) = (&object["metadata"]["namespace"], &object["metadata"]["name"]);
        let title = title_of(K::KIND, namespace.as_str(), name.as_str().unwrap_or("without a name"));
        Error::failed(format!("{title}: what the API server says of it can't be read: {error}"))
    })
}

/// An object that is to go: this very one, and no other that gets its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    pub api_version: String,
    pub kind: String,
    pub namespace: Option<String>,
    pub name: String,
    pub uid: String,
}

impl Deletion {
    /// Of an object as the API server returned it.
    pub fn of(live: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &live["metadata"];
        Self {
            api_version: text(&live["apiVersion"]),
            kind: text(&live["kind"]),
            namespace: metadata["namespace"].as_str().map(str::to_owned),
            name: text(&metadata["name"]),
            uid: text(&metadata["uid"]),
        }
    }

    /// `Deployment velero/velero`, `StorageClass openebs-hostpath`.
    pub fn title(&self) -> String {
        title_of(&self.kind, self.namespace.as_deref(), &self.name)
    }
}

/// An object as people read it: `Deployment velero/velero`, `StorageClass openebs-hostpath`.
pub fn title_of(kind: &str, namespace: Option<&str>, name: &str) -> String {
    namespace.map_or_else(|| format!("{kind} {name}"), |namespace| format!("{kind} {namespace}/{name}"))
}

/// A condition of the cluster that a step waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// A CustomResourceDefinition is served.
    Crd { name: String },
    /// A Deployment or DaemonSet has all its pods ready in its newest form.
    Workload { kind: String, namespace: String, name: String },
    /// A Node says that it is Ready.
    Node { name: String },
    /// A BackupStorageLocation says Available.
    BackupLocation { namespace: String, name: String },
    /// A Schedule of backups is Enabled.
    Schedule { namespace: String, name: String },
}

impl Ready {
    /// The object whose status tells: apiVersion, kind, namespace and name.
    pub fn subject(&self) -> (&'static str, &str, Option<&str>, &str) {
        const VELERO: &str = "velero.io/v1";
        match self {
            Self::Crd { name } => ("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, name),
            Self::Workload { kind, namespace, name } => ("apps/v1", kind, Some(namespace), name),
            Self::Node { name } => ("v1", "Node", None, name),
            Self::BackupLocation { namespace, name } => {
                (VELERO, "BackupStorageLocation", Some(namespace), name)
            }
            Self::Schedule { namespace, name } => (VELERO, "Schedule", Some(namespace), name),
        }
    }

    /// `Deployment velero/velero`, `Node n1`.
    pub fn title(&self) -> String {
        let (_, kind, namespace, name) = self.subject();
        title_of(kind, namespace, name)
    }
}
