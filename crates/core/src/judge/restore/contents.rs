//! The objects in a backup.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use serde_json::Value;

use crate::error::Result;
use crate::model::object::read;

/// Where an object is: its apiVersion and kind, its namespace (empty for one of the cluster), its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

/// What a backup holds, beside files.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    pub entries: Vec<Entry>,
    pub claims: Vec<PersistentVolumeClaim>,
    pub volumes: BTreeMap<String, PersistentVolume>,
    pub pods: Vec<Pod>,
}

impl Contents {
    /// Takes an object of the backup in.
    ///
    /// # Errors
    /// A claim, pod or volume that can't be read: then what would come back is not known.
    pub fn take(&mut self, object: &Value) -> Result<()> {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let entry = Entry {
            api_version: text("/apiVersion"),
            kind: text("/kind"),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
        };
        match (entry.api_version.as_str(), entry.kind.as_str()) {
            ("v1", "PersistentVolumeClaim") => self.claims.push(read(object)?),
            ("v1", "PersistentVolume") => {
                self.volumes.insert(entry.name.clone(), read(object)?);
            }
            ("v1", "Pod") => self.pods.push(read(object)?),
            _ => {}
        }
        self.entries.push(entry);
        Ok(())
    }
}
