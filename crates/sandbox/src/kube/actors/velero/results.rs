//! What went wrong with a backup or a restore, as Velero counts it and keeps it beside the backup.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Here they are kept while it is on its way; the real server keeps them in memory.
pub(super) const KEPT: &str = "sandbox.nodeprep.dev/results";

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) warnings: Said,
    pub(super) errors: Said,
}

/// What was said of Velero itself, of the cluster, and of namespaces.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Said {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    velero: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cluster: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    namespaces: BTreeMap<String, Vec<String>>,
}

impl Said {
    /// Of Velero itself.
    pub(super) fn of_velero(&mut self, what: impl Into<String>) {
        self.velero.push(what.into());
    }

    /// Of a namespace, or (empty) of the cluster.
    pub(super) fn of(&mut self, namespace: &str, what: String) {
        match namespace {
            "" => self.cluster.push(what),
            _ => self.namespaces.entry(namespace.to_owned()).or_default().push(what),
        }
    }

    /// None when there is nothing: the API leaves zeros out.
    pub(super) fn count(&self) -> Option<usize> {
        let of_namespaces: usize = self.namespaces.values().map(Vec::len).sum();
        Some(self.velero.len() + self.cluster.len() + of_namespaces).filter(|count| *count > 0)
    }
}

impl Results {
    /// Those that were kept with the object; none when it did not come so far.
    pub(super) fn kept(object: &Value) -> Option<Self> {
        serde_json::from_str(object["metadata"]["annotations"][KEPT].as_str()?).ok()
    }

    pub(super) fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}
