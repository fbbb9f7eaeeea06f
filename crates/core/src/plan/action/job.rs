//! What the pods of a plan work out, and what is judged of that.

use super::Family;
use crate::intent::Duration;
use crate::plan::saved::Digest;

#[derive(Debug)]
pub enum JobAction {
    /// The pod has printed a listing of a volume's files, which later steps compare. Its outputs are [`NODE`], [`WROTE`] and [`SEEN`].
    Listing { namespace: String, pod: String },
    /// Two listings are alike; or, where a file was harmed in between, differ in that file alone. Its output is [`SAME`].
    Compare(Comparison),
    /// A drill took no longer than it may. Its outputs are [`RTO`], [`RPO`] and, when they are within the limits, [`SAME`].
    Limits(DrillLimits),
    /// What came of a drill is kept in the cluster.
    Record(DrillRecord),
}

/// Outputs: the node of the pod; when the last byte was written, by the clock of that node; when the listing was seen, by the
/// cluster's (both in seconds since 1970); what was compared; how long a restore and a backup took, in seconds.
pub const NODE: &str = "node";
pub const WROTE: &str = "wrote";
pub const SEEN: &str = "seen";
pub const SAME: &str = "same";
pub const RTO: &str = "rto";
pub const RPO: &str = "rpo";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The steps that listed.
    pub before: String,
    pub after: String,
    pub harmed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillLimits {
    /// From the request for the restore to the comparison.
    pub rto: Option<Duration>,
    /// From the last byte to the end of the backup.
    pub rpo: Option<Duration>,
    /// The steps: what was written, what was backed up, what asked for the restore, what was read.
    pub written: String,
    pub backed_up: String,
    pub restore: String,
    pub read: String,
}

/// Of which steps it consists, for who reads of it later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillRecord {
    /// Velero's namespace, which has the record.
    pub namespace: String,
    pub id: String,
    pub class: String,
    /// The steps: what compared, what saw the harm, what judged the time.
    pub compared: String,
    pub control: String,
    pub limits: String,
}

impl Family for JobAction {
    fn changes(&self) -> bool {
        matches!(self, Self::Record(_))
    }

    fn digest(&self, digest: &mut Digest) {
        digest.text("job").text(&format!("{self:?}"));
    }
}
