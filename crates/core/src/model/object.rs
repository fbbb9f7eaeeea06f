//! Objects that the cluster is to have, and the conditions that it is to meet.

use serde_json::Value;

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
        match self.namespace() {
            Some(namespace) => format!("{} {namespace}/{}", self.kind(), self.name()),
            None => format!("{} {}", self.kind(), self.name()),
        }
    }
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
