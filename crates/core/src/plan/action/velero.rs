//! What Velero is asked to do.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Family;
use crate::judge::backup::ReadVolume;
use crate::judge::coverage::{ClaimName, Covered, LeftOut};
use crate::judge::restore::RestoreScope;
use crate::plan::saved::Digest;

#[derive(Debug)]
pub enum VeleroAction {
    /// A Backup is made, or one gone on with that a run of the same step began. Its output [`BACKUP_NAME`] is the name.
    Backup(BackupRequest),
    /// The Backup that step `of` made has ended, and holds what was wanted.
    Await(AwaitBackup),
    /// A Restore is made, or one gone on with that was asked for in the same words and that nobody has judged. Its output
    /// [`RESTORE_NAME`] is the name.
    Restore(RestoreRequest),
    /// The Restore that step `of` made has ended, and brought back what was wanted.
    AwaitRestore(AwaitRestore),
    /// A Restore and a Backup that the run made are gone, the Backup from its store too.
    Forget(Traces),
}

/// The output of the step that makes a Backup: its name.
pub const BACKUP_NAME: &str = "backup";

/// A Backup that is to be made; it gets its name when it is made, so that two never have the same.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupRequest {
    /// Velero's.
    pub namespace: String,
    /// What its name begins with.
    pub prefix: String,
    pub spec: Value,
}

/// Outputs in seconds since 1970, by the cluster's clock: when a Restore was asked for, and when a Backup ended.
pub const ASKED: &str = "asked";
pub const ENDED: &str = "ended";

/// A Backup that has to hold every claim of its scope.
#[derive(Debug, Clone, PartialEq)]
pub struct AwaitBackup {
    /// The step that makes it.
    pub of: String,
    /// Velero's.
    pub namespace: String,
    pub wanted: Vec<Covered>,
    /// The claims that it can't hold, which makes it one that does not hold what was asked for.
    pub left_out: BTreeMap<ClaimName, LeftOut>,
    /// The step that says (as [`super::WROTE`]) when what is to be in it was written: it must have begun after that.
    pub newer_than: Option<String>,
}

/// The output of the step that makes a Restore: its name.
pub const RESTORE_NAME: &str = "restore";

/// A Restore that is to be made; it gets its name when it is made.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoreRequest {
    /// Velero's.
    pub namespace: String,
    /// What its name begins with.
    pub prefix: String,
    pub spec: Value,
    /// All that it is asked for by: one that was asked for in the same words is the same.
    pub words: String,
    /// The step that makes its backup, where that has no name yet.
    pub backup: Option<String>,
    /// The step whose node (as [`super::NODE`]) its pods keep away from, where there is another one.
    pub away_from: Option<String>,
}

/// A Restore that has to bring back every volume that is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct AwaitRestore {
    /// The step that makes it.
    pub of: String,
    /// Velero's.
    pub namespace: String,
    pub wanted: Wanted,
    pub scope: RestoreScope,
    /// The claims that it brings back without files, and why: then it is one that does not bring back what was asked for.
    pub bare: BTreeMap<ClaimName, String>,
}

/// The volumes that a restore has to bring back.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    Volumes(Vec<ReadVolume>),
    /// Those of the backup that this step made, of which there is at least one.
    OfBackup(String),
}

/// What steps made that is to go, as far as they did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// Velero's.
    pub namespace: String,
    pub backup: String,
    pub restore: String,
}

impl Family for VeleroAction {
    fn changes(&self) -> bool {
        matches!(self, Self::Backup(_) | Self::Restore(_) | Self::Forget(_))
    }

    fn digest(&self, digest: &mut Digest) {
        match self {
            Self::Backup(BackupRequest { namespace, prefix, spec }) => {
                digest.text("backup").text(namespace).text(prefix).text(&spec.to_string())
            }
            Self::Await(what) => digest.text("await backup").text(&format!("{what:?}")),
            Self::Restore(request) => digest.text("restore").text(&format!("{request:?}")),
            Self::Forget(traces) => digest.text("forget").text(&format!("{traces:?}")),
            Self::AwaitRestore(what) => digest.text("await restore").text(&format!("{what:?}")),
        };
    }
}
