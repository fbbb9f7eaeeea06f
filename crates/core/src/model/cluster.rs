//! The cluster's objects beside those that it is to have.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use super::object::{Object, Ready};

/// The cluster as far as the plan needs it.
#[derive(Debug, Default)]
pub struct ClusterState {
    pub objects: Vec<ObjectState>,
    pub waits: Vec<AwaitedState>,
    /// Every StorageClass that is marked as the default one.
    pub default_classes: Vec<String>,
    /// The Node objects; none when they may not be listed.
    pub nodes: Vec<Node>,
    pub leftovers: Leftovers,
}

/// What nodeprep has installed, whatever the file asks for now.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// The objects that it applied and that carry its label, without those of test runs and without Secrets.
    pub ours: Vec<Value>,
    /// Kinds that may not be listed, so that nothing is known of them.
    pub unseen: Vec<String>,
    /// Claims (`namespace/name`) and volumes that name a class, by the class.
    pub class_users: BTreeMap<String, Vec<String>>,
    /// Backups, and schedules that stay, that name a backup location, by its namespace and name.
    pub location_users: BTreeMap<String, Vec<String>>,
    /// Backups and restores that are under way, by their namespace.
    pub at_work: BTreeMap<String, Vec<String>>,
}

/// One wanted object beside the one that exists.
pub struct ObjectState {
    pub wanted: Object,
    pub live: Option<Value>,
    /// Who else manages the live one: `Helm release openebs/openebs`, `Flux Kustomization flux-system/apps`.
    pub owner: Option<String>,
    pub dry_run: DryRun,
}

impl std::fmt::Debug for ObjectState {
    /// Without the contents: they may be a Secret's.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectState")
            .field("wanted", &self.wanted.title())
            .field("live", &self.live.is_some())
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

/// What the API server says to the wanted object in a dry run.
#[derive(Clone)]
pub enum DryRun {
    /// It would look like this.
    Would(Value),
    /// Its namespace does not exist yet, so the server can't say.
    NotYet(String),
    /// Its kind is not served.
    NotServed(String),
    /// Another manager holds fields with other values; the text names both.
    Conflict(String),
    /// It refuses; the text is the server's own.
    Refused(String),
}

impl std::fmt::Debug for DryRun {
    /// Without the contents: they may be a Secret's.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Would(_) => f.write_str("Would(..)"),
            Self::NotYet(why) => f.debug_tuple("NotYet").field(why).finish(),
            Self::NotServed(why) => f.debug_tuple("NotServed").field(why).finish(),
            Self::Conflict(text) => f.debug_tuple("Conflict").field(text).finish(),
            Self::Refused(text) => f.debug_tuple("Refused").field(text).finish(),
        }
    }
}

/// A condition and whether it holds now.
#[derive(Debug, Clone)]
pub struct AwaitedState {
    pub ready: Ready,
    /// Why it does not hold; None when it does.
    pub lacks: Option<String>,
}
