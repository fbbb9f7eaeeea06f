//! What can be installed, one file per component, as objects in the order they are sent.

mod openebs;
mod template;
mod topology;
mod velero;

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::intent::{Intent, Provisioner};
use crate::model::object::{Object, Ready};

pub use velero::{CLOUD_KEY, REPOSITORY_SECRET, repository_password, schedules};

/// The label that says whose an object is, and nodeprep's value of it.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "nodeprep");

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
    let mut items = Vec::new();
    if let Some(Provisioner::Openebs(openebs)) = &intent.provisioner {
        items.extend(openebs::render(intent, openebs, hosts)?);
    }
    if let Some(backup) = &intent.backup {
        items.extend(velero::render(intent, backup, secrets)?);
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
