//! Pure planning: what differs between what is asked and what is there, as ordered steps.
//!
//! No clock, no I/O, no async. An [`Action`] holds the final bytes, so carrying it out leaves no choice open.

pub mod bootstrap;
pub mod disks;
mod ephemeral;
pub mod first;
pub mod foreseen;
mod labels;
pub mod machine;
pub mod patches;
pub mod remove;
mod saved;
pub mod stack;
mod target;
mod users;
mod versions;
mod volumes;
pub mod wipe;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use saved::{Key, Saved, SavedStep, shared_key};

use secrecy::SecretString;
use serde::Serialize;

/// How long each kind of step may wait, as the file asks for it.
pub use crate::intent::Deadlines;
use crate::intent::Passphrase;
use crate::model::disks::DiskId;
use crate::model::object::{Deletion, Object, Ready};

/// The passphrases that the file's volumes name, decrypted.
pub type Passphrases = BTreeMap<Passphrase, SecretString>;

/// What is to be done, in order, and what was left out with the reason.
#[derive(Debug, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub skipped: Vec<Skipped>,
    pub warnings: Vec<String>,
    /// The nodes that say they will reboot; nothing when none was asked.
    pub reboots: Option<Vec<String>>,
    /// It is for a sandbox.
    pub simulated: bool,
}

impl Plan {
    /// Steps that change something; the others only wait.
    pub fn changes(&self) -> usize {
        self.steps.iter().filter(|step| step.action.changes()).count()
    }

    pub fn is_empty(&self) -> bool {
        self.changes() == 0
    }

    pub fn extend(&mut self, other: Self) {
        self.steps.extend(other.steps);
        self.skipped.extend(other.skipped);
        self.warnings.extend(other.warnings);
    }
}

/// Something that was asked for and is not planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    pub what: String,
    pub why: String,
}

/// One step. Its id is stable: the same work has the same id in every run.
#[derive(Debug)]
pub struct Step {
    pub id: String,
    /// A node's address, or `cluster`.
    pub target: String,
    pub title: String,
    pub why: String,
    pub risk: Risk,
    /// What changes, as a unified diff without secrets; empty for a step that only waits.
    pub diff: String,
    /// What it makes is not there at all yet.
    pub creates: bool,
    pub action: Action,
}

impl Step {
    /// A step that changes nothing that is there, or only waits: its risk is as low as that of its action can be.
    pub fn new(id: impl Into<String>, target: &str, title: impl Into<String>, action: Action) -> Self {
        Self {
            id: id.into(),
            target: target.to_owned(),
            title: title.into(),
            why: String::new(),
            risk: if action.changes() { Risk::Low } else { Risk::None },
            diff: String::new(),
            creates: false,
            action,
        }
    }
}

/// The worst that a step does to a running system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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

#[derive(Debug)]
pub enum Action {
    ApplyConfig(ApplyConfig),
    ApplyObject(Object),
    /// The object, and what it owns, is gone before the step is done.
    DeleteObject(Deletion),
    AwaitReady(Ready),
    /// The config asks for these volumes already, and they are not ready yet.
    AwaitVolumes {
        address: String,
        volumes: Vec<AwaitVolume>,
    },
    /// The config does not ask for this volume any more; Talos unmounts it when nothing uses it.
    AwaitGone {
        address: String,
        volume: AwaitVolume,
    },
    Wipe(wipe::Wipe),
    Install(bootstrap::Install),
    Bootstrap(bootstrap::Bootstrap),
    /// The control plane's kubeconfig is written to a file that is not there yet.
    Kubeconfig {
        address: String,
        path: PathBuf,
    },
    /// The API server answers, and the nodes of these machines are Ready.
    AwaitCluster {
        kubeconfig: PathBuf,
        nodes: Vec<String>,
    },
}

impl Action {
    pub const fn changes(&self) -> bool {
        match self {
            Self::ApplyConfig(_)
            | Self::ApplyObject(_)
            | Self::DeleteObject(_)
            | Self::Wipe(_)
            | Self::Install(_)
            | Self::Bootstrap(_)
            | Self::Kubeconfig { .. } => true,
            Self::AwaitReady(_)
            | Self::AwaitVolumes { .. }
            | Self::AwaitGone { .. }
            | Self::AwaitCluster { .. } => false,
        }
    }

    /// It concerns one node; else the cluster as a whole.
    pub const fn is_of_node(&self) -> bool {
        match self {
            Self::ApplyConfig(_)
            | Self::AwaitVolumes { .. }
            | Self::AwaitGone { .. }
            | Self::Wipe(_)
            | Self::Install(_) => true,
            Self::ApplyObject(_)
            | Self::DeleteObject(_)
            | Self::AwaitReady(_)
            | Self::Bootstrap(_)
            | Self::Kubeconfig { .. }
            | Self::AwaitCluster { .. } => false,
        }
    }
}

/// A whole machine config for one node, and what must be seen before the step is done.
#[derive(Debug)]
pub struct ApplyConfig {
    pub address: String,
    /// The node has a control plane, or it is not known that it has none.
    pub control_plane: bool,
    /// The resource version of the config that this one was made from; it must still be the same.
    pub base_version: String,
    pub config: SecretString,
    pub volumes: Vec<AwaitVolume>,
    pub labels: Vec<(String, String)>,
    /// The disks that may be written, found again by serial or WWID right before.
    pub disks: Vec<ApprovedDisk>,
}

/// A volume that must be ready, and mounted at exactly this path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AwaitVolume {
    /// The volume's id, such as `u-openebs`.
    pub id: String,
    /// Nothing for a raw volume.
    pub mount: Option<String>,
}

impl std::fmt::Display for AwaitVolume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.id)?;
        self.mount.as_ref().map_or(Ok(()), |mount| write!(f, " at {mount}"))
    }
}

/// A disk that the plan allows to be written, by what does not change over a reboot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApprovedDisk {
    pub volume: String,
    /// The label of the volume's partition, such as `u-openebs`.
    pub label: String,
    /// Labels of the other partitions that may be on it.
    pub beside: Vec<String>,
    /// What is there is only mounted; nothing is made.
    pub adopted: bool,
    pub id: DiskId,
    /// Its name today, for people; never used to find it.
    pub name: String,
    /// Name, size, model and serial, for people.
    pub what: String,
}

/// Whether a volume is usable: phase ready, and a mount at exactly its path; else why not.
///
/// `status` is the phase and the last error of the volume, if the node knows it.
pub fn volume_state(wait: &AwaitVolume, status: Option<(&str, &str)>, mounted: bool) -> Result<(), String> {
    match status {
        None => Err("the node knows no such volume yet".into()),
        Some((phase, "")) if !phase.eq_ignore_ascii_case("ready") => Err(format!("phase {phase}")),
        // What a program printed that failed can be long; its first line says what failed.
        Some((phase, error)) if !phase.eq_ignore_ascii_case("ready") => {
            Err(format!("phase {phase}: {}", error.lines().next().unwrap_or_default()))
        }
        Some(_) => match &wait.mount {
            Some(mount) if !mounted => Err(format!("ready, but nothing is mounted at {mount}")),
            _ => Ok(()),
        },
    }
}
