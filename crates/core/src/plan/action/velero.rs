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
}

/// A Restore that has to bring back every volume that is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct AwaitRestore {
    /// The step that makes it.
    pub of: String,
    /// Velero's.
    pub namespace: String,
    pub wanted: Vec<ReadVolume>,
    pub scope: RestoreScope,
    /// The claims that it brings back without files, and why: then it is one that does not bring back what was asked for.
    pub bare: BTreeMap<ClaimName, String>,
}

impl Family for VeleroAction {
    fn changes(&self) -> bool {
        matches!(self, Self::Backup(_) | Self::Restore(_))
    }

    fn digest(&self, digest: &mut Digest) {
        match self {
            Self::Backup(BackupRequest { namespace, prefix, spec }) => {
                digest.text("backup").text(namespace).text(prefix).text(&spec.to_string())
            }
            Self::Await(what) => digest.text("await backup").text(&format!("{what:?}")),
            Self::Restore(RestoreRequest { namespace, prefix, words, .. }) => {
                digest.text("restore").text(namespace).text(prefix).text(words)
            }
            Self::AwaitRestore(what) => digest.text("await restore").text(&format!("{what:?}")),
        };
    }
}
