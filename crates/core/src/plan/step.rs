//! A step of a plan: what is done, where, and after what.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Action;

/// One step. Its id is stable: the same work has the same id in every run.
#[derive(Debug)]
pub struct Step {
    pub id: String,
    pub target: Target,
    pub title: String,
    pub why: String,
    pub risk: Risk,
    pub effect: Effect,
    /// What changes, as a unified diff without secrets; empty for a step that only waits.
    pub diff: String,
    /// The ids of the steps of this plan that come before it.
    pub needs: Vec<String>,
    pub when: When,
    pub action: Action,
}

impl Step {
    /// A step that changes what exists, or only waits: its risk is as low as that of its action can be.
    pub fn new(id: impl Into<String>, target: Target, title: impl Into<String>, action: Action) -> Self {
        let changes = action.changes();
        Self {
            id: id.into(),
            target,
            title: title.into(),
            why: String::new(),
            risk: if changes { Risk::Low } else { Risk::None },
            effect: if changes { Effect::Change } else { Effect::Wait },
            diff: String::new(),
            needs: Vec::new(),
            when: When::Needed,
            action,
        }
    }
}

/// What a step is about: one machine, or the cluster as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Target {
    Cluster,
    /// By its address.
    Node(String),
}

/// How the cluster as a whole is written, where nodes are written as their addresses.
const CLUSTER: &str = "cluster";

impl Target {
    pub fn node(address: impl Into<String>) -> Self {
        Self::Node(address.into())
    }

    pub const fn is_node(&self) -> bool {
        matches!(self, Self::Node(_))
    }
}

impl From<String> for Target {
    fn from(text: String) -> Self {
        if text == CLUSTER { Self::Cluster } else { Self::Node(text) }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => CLUSTER,
            Self::Node(address) => address,
        })
    }
}

/// The worst that a step does to a running system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// Changes nothing.
    None,
    /// Adds or changes objects or labels; nothing restarts.
    Low,
    /// Writes a partition into the free space of a disk that is in use.
    Partition,
    /// Writes a partition table and a filesystem to an empty disk.
    Format,
    /// What is on a disk is lost.
    Destroy,
}

/// What a step does to its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Wait,
    Create,
    Change,
    Delete,
}

/// When a step has its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum When {
    /// When everything that it needs is done. A gate is such a step: one that others need, and that may fail.
    #[default]
    Needed,
    /// At the end, whatever came of the run, if anything that it needs was begun: it cleans up.
    Always,
    /// At the end of a run that failed or was interrupted, if anything that it needs was begun: it takes that back.
    Undo,
}

/// Each step needs the one before it that has the same target.
pub(super) fn chain(steps: &mut [Step]) {
    let mut before: HashMap<Target, String> = HashMap::new();
    for step in steps {
        step.needs.extend(before.insert(step.target.clone(), step.id.clone()));
    }
}

/// Each of these that needs nothing yet needs the earlier ones, as far as no other earlier one needs them.
pub(super) fn after(earlier: &[Step], later: &mut [Step]) {
    let needed: BTreeSet<&String> = earlier.iter().flat_map(|step| &step.needs).collect();
    let ends = earlier.iter().map(|step| &step.id).filter(|id| !needed.contains(id));
    let ends: Vec<String> = ends.cloned().collect();
    for step in later.iter_mut().filter(|step| step.needs.is_empty()) {
        step.needs.clone_from(&ends);
    }
}
