//! What a step does. Actions belong to families, a file each, which alone know whether one changes anything, whether an
//! interrupt ends it, and what decides what it does.
//!
//! The other half of a family, how its actions are carried out, is in the program's `session/family`: this crate is pure.

mod job;
mod local;
mod node;
mod object;
mod velero;
mod wait;

pub use job::{Comparison, DrillLimits, DrillRecord, JobAction, NODE, RPO, RTO, SAME, SEEN, WROTE};
pub use local::Local;
pub use node::NodeAction;
pub use object::ObjectAction;
pub use velero::{
    ASKED, AwaitBackup, AwaitRestore, BACKUP_NAME, BackupRequest, ENDED, RESTORE_NAME, RestoreRequest,
    Traces, VeleroAction, Wanted,
};
pub use wait::WaitAction;

use super::bootstrap::Bootstrap;
use super::saved::Digest;

/// How a step is carried out; it holds the final bytes.
#[derive(Debug)]
pub enum Action {
    /// On one machine.
    Node(NodeAction),
    /// An object of the cluster.
    Object(ObjectAction),
    /// A condition that is waited for.
    Wait(WaitAction),
    /// etcd is begun, once for each cluster.
    Etcd(Bootstrap),
    /// A backup or a restore, and what becomes of it.
    Velero(VeleroAction),
    /// What pods work out.
    Job(JobAction),
    /// On the machine that nodeprep runs on.
    Local(Local),
}

/// What the engine asks of each action.
pub(super) trait Family {
    /// Whether it changes anything; else it only waits.
    fn changes(&self) -> bool;

    /// Whether an interrupt ends it; else it is finished first.
    fn ends_when_interrupted(&self) -> bool {
        !self.changes()
    }

    /// Everything that decides what it does, and the state that it was planned from.
    fn digest(&self, digest: &mut Digest);
}

impl Action {
    fn family(&self) -> &dyn Family {
        match self {
            Self::Node(action) => action,
            Self::Object(action) => action,
            Self::Wait(action) => action,
            Self::Etcd(action) => action,
            Self::Velero(action) => action,
            Self::Job(action) => action,
            Self::Local(action) => action,
        }
    }

    pub fn changes(&self) -> bool {
        self.family().changes()
    }

    pub fn ends_when_interrupted(&self) -> bool {
        self.family().ends_when_interrupted()
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        self.family().digest(digest);
    }
}

impl Family for Bootstrap {
    fn changes(&self) -> bool {
        true
    }

    fn digest(&self, digest: &mut Digest) {
        digest.text("bootstrap").text(&format!("{self:?}"));
    }
}
