//! What Velero is asked to do.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Family;
use crate::judge::coverage::{ClaimName, Covered, LeftOut};
use crate::plan::saved::Digest;

#[derive(Debug)]
pub enum VeleroAction {
    /// A Backup is made, or one gone on with that a run of the same step began. Its output [`BACKUP_NAME`] is the name.
    Backup(BackupRequest),
    /// The Backup that step `of` made has ended, and holds what was wanted.
    Await(AwaitBackup),
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

impl Family for VeleroAction {
    fn changes(&self) -> bool {
        matches!(self, Self::Backup(_))
    }

    fn digest(&self, digest: &mut Digest) {
        match self {
            Self::Backup(BackupRequest { namespace, prefix, spec }) => {
                digest.text("backup").text(namespace).text(prefix).text(&spec.to_string())
            }
            Self::Await(what) => digest.text("await backup").text(&format!("{what:?}")),
        };
    }
}
