//! What is there in Kubernetes, seen against what nodeprep would send.

use serde_json::Value;

use crate::plan::Object;

/// The cluster as far as the plan needs it.
#[derive(Debug)]
pub struct Cluster {
    pub objects: Vec<ObjectState>,
}

/// One wanted object beside the one that is there.
#[derive(Debug)]
pub struct ObjectState {
    pub wanted: Object,
    pub live: Option<Value>,
    /// Who else manages the live one: `Helm release openebs/openebs`, `Flux Kustomization flux-system/apps`.
    pub owner: Option<String>,
    pub dry_run: DryRun,
}

/// What the API server says to the wanted object in a dry run.
#[derive(Debug)]
pub enum DryRun {
    /// It would look like this.
    Would(Value),
    /// Its namespace or its kind is not there yet, so the server can't say.
    NotYet(String),
    /// It refuses; the text is the server's own.
    Refused(String),
}
