//! Pure planning: what differs between what is asked and what exists, as ordered steps.
//!
//! No clock, no I/O, no async. An [`Action`] holds the final bytes, so carrying it out leaves no choice open.

mod action;
pub mod backup;
pub mod bootstrap;
pub mod disks;
pub mod drill;
mod ephemeral;
pub mod first;
pub mod foreseen;
mod labels;
pub mod machine;
pub mod patches;
pub mod remove;
pub mod restore;
mod saved;
pub mod stack;
mod step;
mod target;
mod users;
mod versions;
mod volumes;
pub mod wipe;

use std::collections::BTreeMap;

pub use action::{
    ASKED, Action, AwaitBackup, AwaitRestore, BACKUP_NAME, BackupRequest, Comparison, DrillLimits,
    DrillRecord, ENDED, JobAction, Local, NODE, NodeAction, ObjectAction, RESTORE_NAME, RPO, RTO,
    RestoreRequest, SAME, SEEN, Traces, VeleroAction, WROTE, WaitAction, Wanted,
};
pub use saved::{Key, Saved, SavedStep, shared_key};
pub use step::{Effect, Risk, Step, Target, When};

use secrecy::SecretString;
use serde::Serialize;

/// How long each kind of step may wait, as the file asks for it.
pub use crate::intent::Deadlines;
use crate::intent::Passphrase;
use crate::model::disks::DiskId;
use crate::model::resources::MountFlags;

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

    /// What comes after all of this.
    pub fn then(&mut self, mut later: Self) {
        step::after(&self.steps, &mut later.steps);
        self.extend(later);
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
    /// Whether it is to be mounted without set-user-id programs, devices and, from 1.14 on, programs; where the file says so.
    pub secure: Option<bool>,
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
    /// What exists is only mounted; nothing is made.
    pub adopted: bool,
    pub id: DiskId,
    /// Its name today, for people; never used to find it.
    pub name: String,
    /// Name, size, model and serial, for people.
    pub what: String,
}

/// Whether a volume is usable: phase ready, and a mount at exactly its path, as it is asked for; else why not.
///
/// `status` is the phase and the last error of the volume, if the node knows it; `mounted` the flags of the mount at its path.
pub fn volume_state(
    wait: &AwaitVolume,
    status: Option<(&str, &str)>,
    mounted: Option<MountFlags>,
) -> Result<(), String> {
    match status {
        None => Err("the node knows no such volume yet".into()),
        Some((phase, "")) if !phase.eq_ignore_ascii_case("ready") => Err(format!("phase {phase}")),
        // What a program printed that failed can be long; its first line says what failed.
        Some((phase, error)) if !phase.eq_ignore_ascii_case("ready") => {
            Err(format!("phase {phase}: {}", error.lines().next().unwrap_or_default()))
        }
        Some(_) => match (&wait.mount, mounted) {
            (Some(mount), None) => Err(format!("ready, but nothing is mounted at {mount}")),
            // Talos changes the flags of a mounted volume some seconds after its config.
            (Some(mount), Some(flags)) if wait.secure == Some(false) && (flags.secure || flags.no_exec) => {
                Err(format!("still mounted at {mount} with nosuid, nodev or noexec"))
            }
            _ => Ok(()),
        },
    }
}
