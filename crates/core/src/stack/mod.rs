//! What can be installed, one file per component, as objects in the order they are sent.

mod csi;
pub mod drill;
mod openebs;
mod template;
mod topology;
mod velero;

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::intent::Intent;
use crate::model::object::{Object, Ready};

pub use velero::{CLOUD_KEY, REPOSITORY_SECRET, backup_spec, repository_password, schedules};

/// The label that says whose an object is, and nodeprep's value of it.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "nodeprep");

/// The kinds of what is installed, as apiVersion and kind; those of Secrets and CustomResourceDefinitions are left out,
/// since they never go by themselves.
pub const KINDS: [(&str, &str); 12] = [
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
    ("policy/v1", "PodDisruptionBudget"),
    ("v1", "ServiceAccount"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("storage.k8s.io/v1", "StorageClass"),
    ("velero.io/v1", "Schedule"),
    ("velero.io/v1", "BackupStorageLocation"),
    ("v1", "Namespace"),
];

/// Something that can be installed.
#[derive(Debug)]
pub struct Component {
    pub id: &'static str,
    /// The kinds of which the file lists the objects by name: one that left the file is not wanted any more.
    pub listed: &'static [&'static str],
    asked: fn(&Intent) -> bool,
    render: fn(&Sources<'_>) -> Result<Vec<StackItem>>,
}

/// Everything that can be installed, in the order in which it is.
pub const COMPONENTS: &[Component] = &[openebs::COMPONENT, csi::COMPONENT, velero::COMPONENT];

impl Component {
    /// Whether the file asks for the component to be installed.
    pub fn asked(&self, intent: &Intent) -> bool {
        (self.asked)(intent)
    }
}

/// What objects are made from.
struct Sources<'a> {
    intent: &'a Intent,
    secrets: &'a [StackSecret],
    /// The host names of the file's nodes, by address, as far as they have joined.
    hosts: &'a BTreeMap<String, String>,
}

/// One line of the installation: an object to send, or a condition to wait for before the next one.
#[derive(Debug, Clone)]
pub enum StackItem {
    Object(Object),
    Ready(Ready),
}

/// A Kubernetes Secret as it came out of a SOPS file: its name and its decrypted values.
#[derive(Debug, Clone)]
pub struct StackSecret {
    pub name: String,
    pub data: BTreeMap<String, SecretString>,
}

/// Everything the intent asks to install, in order: per component namespace, CRDs, rights, secrets, workloads, then
/// what needs them running. An external provisioner and its classes are not installed.
///
/// # Errors
/// `Invalid` when a Secret or one of its keys is missing, empty, or not one that is needed.
pub fn render(intent: &Intent, secrets: &[StackSecret]) -> Result<Vec<StackItem>> {
    render_on(intent, secrets, &BTreeMap::new())
}

/// The same, where the host names of the file's nodes are known (address to name): classes whose nodes no labels tell are
/// limited by them.
///
/// # Errors
/// As [`render`].
pub fn render_on(
    intent: &Intent,
    secrets: &[StackSecret],
    hosts: &BTreeMap<String, String>,
) -> Result<Vec<StackItem>> {
    let sources = Sources { intent, secrets, hosts };
    let mut items = Vec::new();
    for component in COMPONENTS.iter().filter(|component| component.asked(intent)) {
        items.extend((component.render)(&sources)?);
    }
    without_twins(items)
}

/// Components may share a namespace; it is sent once.
fn without_twins(items: Vec<StackItem>) -> Result<Vec<StackItem>> {
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    let mut kept = Vec::new();
    for item in items {
        if let StackItem::Object(object) = &item {
            match seen.get(&object.title()) {
                Some(twin) if *twin == object.value => continue,
                Some(_) => return Err(Error::invalid(format!("{} is asked for twice", object.title()))),
                None => seen.insert(object.title(), object.value.clone()),
            };
        }
        kept.push(item);
    }
    Ok(kept)
}

/// An object of ours: labelled as such.
fn object(component: &'static str, mut value: Value) -> Object {
    let metadata = &mut value["metadata"];
    if !metadata["labels"].is_object() {
        metadata["labels"] = json!({});
    }
    metadata["labels"][MANAGED_BY.0] = MANAGED_BY.1.into();
    Object { value, component, secret: false, create_only: false }
}

fn objects(component: &'static str, values: Vec<Value>) -> impl Iterator<Item = StackItem> {
    values.into_iter().map(move |value| StackItem::Object(object(component, value)))
}
