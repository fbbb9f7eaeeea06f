//! How far a backup is, and what it holds: by its volumes, never by its phase alone. Velero calls a backup Completed of which
//! a volume was skipped, and before 1.18.3 also one that has lost what is needed to restore them (velero-io/velero #9986).

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::coverage::Covered;
use super::pods::some;
use super::velero::kinds::{Backup, Bytes, Custom, PodVolumeBackup, VolumeBackupSpec, VolumeStatus};
use crate::error::Code;
use crate::model::said::{self, By};

/// On a PodVolumeBackup: the uid and the name of its claim, and the uid of its backup.
const CLAIM_UID: &str = "velero.io/pvc-uid";
const CLAIM_NAME: &str = "velero.io/pvc-name";
pub const BACKUP_UID: &str = "velero.io/backup-uid";
/// On a Backup: the name of the schedule that it is of.
const SCHEDULE: &str = "velero.io/schedule-name";

/// Velero does nothing more with it.
pub fn has_ended(backup: &Backup) -> bool {
    matches!(phase(backup), "Completed" | "PartiallyFailed" | "Failed" | "FailedValidation" | "Deleting")
}

/// The schedule that it is of.
pub fn schedule_of(backup: &Backup) -> Option<&str> {
    backup.metadata.labels.as_ref()?.get(SCHEDULE).map(String::as_str)
}

/// Whether it takes everything, but for namespaces that it leaves out.
pub fn is_of_everything(backup: &Backup) -> bool {
    let spec = &backup.spec;
    let namespaces = spec.included_namespaces.as_deref().unwrap_or_default();
    let labels =
        spec.label_selector.is_some() || spec.or_label_selectors.as_ref().is_some_and(|any| !any.is_empty());
    !labels && (namespaces.is_empty() || namespaces.iter().any(|name| name == "*"))
}

/// When it began, or, where it never did, when it was asked for.
pub fn began(backup: &Backup) -> Option<Timestamp> {
    let started = backup.status.as_ref().and_then(|status| status.start_timestamp.as_ref());
    started.or(backup.metadata.creation_timestamp.as_ref()).map(|time| time.0)
}

/// What Velero calls its state; `New` where it has not looked at it.
pub fn phase(backup: &Backup) -> &str {
    let phase = backup.status.as_ref().and_then(|status| status.phase.as_deref());
    phase.filter(|phase| !phase.is_empty()).unwrap_or("New")
}

/// Why Velero did not take or make it, in its words.
pub fn reasons(backup: &Backup) -> Vec<String> {
    let Some(status) = &backup.status else { return Vec::new() };
    let reasons = status.validation_errors.iter().flatten().chain(&status.failure_reason);
    reasons.filter(|reason| !reason.is_empty()).cloned().collect()
}

/// Whether a volume was read for this backup.
pub fn is_for(volume: &PodVolumeBackup, backup: &Backup) -> bool {
    let of = volume.metadata.labels.as_ref().and_then(|labels| labels.get(BACKUP_UID));
    of.is_some() && of == backup.metadata.uid.as_ref()
}

/// Whether a volume was read for this claim.
fn is_of(volume: &PodVolumeBackup, covered: &Covered) -> bool {
    let labels = volume.metadata.labels.as_ref();
    // Of a claim that was planned before it was made the uid is not known.
    match labels.and_then(|labels| labels.get(CLAIM_UID)).filter(|_| !covered.uid.is_empty()) {
        Some(uid) => *uid == covered.uid,
        None => {
            let VolumeBackupSpec { pod, volume, .. } = &volume.spec;
            (pod.namespace.as_deref(), pod.name.as_deref(), volume.as_deref())
                == (Some(&covered.claim.namespace), Some(&covered.pod), Some(&covered.volume))
        }
    }
}

/// What was read of a volume.
enum Read {
    Bytes(u64),
    /// Velero found no files, and so made no snapshot.
    Nothing,
    Fault(String),
}

fn read(volume: &PodVolumeBackup) -> Read {
    let Some(status) = &volume.status else { return Read::Fault("it is New".into()) };
    let message = some(&status.message);
    match some(&status.phase) {
        "Completed" => {}
        phase => {
            let phase = if phase.is_empty() { "New" } else { phase };
            let said = if message.is_empty() { String::new() } else { format!(": {message}") };
            return Read::Fault(format!("it is {phase}{said}"));
        }
    }
    if some(&status.snapshot_id).is_empty() {
        return match said::code(By::Velero, message) {
            Some(Code::EmptyVolume) => Read::Nothing,
            _ => Read::Fault("it is Completed, and has no snapshot".into()),
        };
    }
    match status.progress.unwrap_or_default() {
        Bytes { bytes_done, total_bytes } if bytes_done == total_bytes => Read::Bytes(bytes_done),
        Bytes { bytes_done, total_bytes } => {
            Read::Fault(format!("{bytes_done} of {total_bytes} bytes were read"))
        }
    }
}

/// One volume on its way into a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReadVolume {
    /// The claim, as `namespace/name`; none for a volume that is of no claim.
    pub claim: Option<String>,
    pub pod: String,
    /// Its name in the pod.
    pub volume: String,
    pub node: String,
    /// The bytes that were read into a snapshot; none where there were no files, or when it is at fault.
    pub bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The uploader's name for what was read.
    #[serde(skip)]
    pub snapshot: String,
}

impl ReadVolume {
    /// The namespace that its pod was in.
    pub fn namespace(&self) -> &str {
        self.pod.split_once('/').map_or("", |(namespace, _)| namespace)
    }
}

impl fmt::Display for ReadVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.claim {
            Some(claim) => write!(f, "claim {claim}"),
            None => write!(f, "volume {} of pod {}", self.volume, self.pod),
        }
    }
}

/// What was read for a backup, volume by volume.
pub fn volumes_read(volumes: &[PodVolumeBackup]) -> Vec<ReadVolume> {
    let one = |volume: &PodVolumeBackup| {
        let VolumeBackupSpec { pod, volume: name, node } = &volume.spec;
        let claim = volume.metadata.annotations.as_ref().and_then(|all| all.get(CLAIM_NAME));
        let (bytes, fault) = match read(volume) {
            Read::Bytes(bytes) => (Some(bytes), None),
            Read::Nothing => (None, None),
            Read::Fault(why) => (None, Some(why)),
        };
        ReadVolume {
            claim: claim.map(|claim| format!("{}/{claim}", some(&pod.namespace))),
            pod: format!("{}/{}", some(&pod.namespace), some(&pod.name)),
            volume: some(name).to_owned(),
            node: some(node).to_owned(),
            bytes,
            fault,
            snapshot: volume.status.as_ref().map_or("", |status| some(&status.snapshot_id)).to_owned(),
        }
    };
    let mut read: Vec<ReadVolume> = volumes.iter().map(one).collect();
    read.sort_by(|a, b| (&a.pod, &a.volume).cmp(&(&b.pod, &b.volume)));
    read
}

/// What a backup that has ended holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The bytes of each claim that is in it, by `namespace/name`; none for one that had no files.
    pub claims: BTreeMap<String, Option<u64>>,
    /// What it lacks, one line each; with one of them nothing that was asked for is called backed up.
    pub faults: Vec<String>,
}

/// Judges a backup that has ended by its phase, its errors and hooks, and each claim by the volume that was read of it.
pub fn evidence(backup: &Backup, volumes: &[PodVolumeBackup], wanted: &[Covered]) -> Evidence {
    let status = backup.status.clone().unwrap_or_default();
    let mut evidence = Evidence::default();
    if phase(backup) != "Completed" {
        let reasons = reasons(backup);
        let said = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
        evidence.faults.push(format!("it is {}{said}", phase(backup)));
    }
    if let Some(errors) = status.errors.filter(|errors| *errors != 0) {
        evidence.faults.push(format!("Velero counts {errors} errors"));
    }
    if let Some(failed) =
        status.hook_status.and_then(|hooks| hooks.hooks_failed).filter(|failed| *failed != 0)
    {
        evidence.faults.push(format!("{failed} of its hooks failed"));
    }
    for covered in wanted {
        // A claim of several pods is read once for each: one good reading is enough.
        let mut fault = None;
        let found =
            volumes.iter().filter(|volume| is_of(volume, covered)).find_map(|volume| match read(volume) {
                Read::Bytes(bytes) => Some(Some(bytes)),
                Read::Nothing => Some(None),
                Read::Fault(why) => {
                    fault.get_or_insert(why);
                    None
                }
            });
        match found {
            Some(bytes) => {
                evidence.claims.insert(covered.claim.to_string(), bytes);
            }
            None => {
                let why = fault.unwrap_or_else(|| "no volume of it was read".into());
                evidence.faults.push(format!("claim {}: {why}", covered.claim));
            }
        }
    }
    evidence
}

/// How far the volumes are: those that are done, all of them, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VolumeProgress {
    pub done: usize,
    pub all: usize,
    pub bytes_done: u64,
    pub bytes: u64,
}

impl VolumeProgress {
    /// Of the volumes of a backup or of a restore.
    pub fn of<S>(volumes: &[Custom<S, VolumeStatus>]) -> Self {
        let mut progress = Self { all: volumes.len(), ..Self::default() };
        for status in volumes.iter().filter_map(|volume| volume.status.as_ref()) {
            let over = matches!(status.phase.as_deref(), Some("Completed" | "Failed" | "Canceled"));
            let bytes = status.progress.unwrap_or_default();
            progress.done += usize::from(over);
            progress.bytes_done = progress.bytes_done.saturating_add(bytes.bytes_done);
            progress.bytes = progress.bytes.saturating_add(bytes.total_bytes);
        }
        progress
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::super::coverage::ClaimName;
    use super::*;

    fn wanted() -> Vec<Covered> {
        let claim = ClaimName { namespace: "a".into(), name: "data".into() };
        vec![Covered { claim, uid: "u".into(), pod: "p".into(), volume: "v".into() }]
    }

    fn volume(metadata: Value, status: Value) -> PodVolumeBackup {
        let spec = json!({"pod": {"namespace": "a", "name": "p"}, "volume": "v"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn a_backup_holds_a_claim_only_when_all_of_its_files_were_read_into_a_snapshot() {
        let of = json!({"labels": {CLAIM_UID: "u"}});
        let bytes = json!({"totalBytes": 7, "bytesDone": 7});
        let good = json!({"phase": "Completed", "snapshotID": "s", "progress": bytes});
        let without = |key: &str| {
            let mut status = good.clone();
            status.as_object_mut().unwrap().remove(key);
            status
        };
        let mut short = good.clone();
        short["progress"]["bytesDone"] = json!(6);
        for (status, volumes, fault) in [
            (json!({"phase": "Completed"}), vec![volume(of.clone(), good.clone())], None),
            (json!({"phase": "Completed"}), vec![volume(json!({}), good.clone())], None),
            (json!({"phase": "Completed"}), vec![], Some("claim a/data: no volume of it was read")),
            (
                json!({"phase": "Completed"}),
                vec![volume(json!({"labels": {CLAIM_UID: "other"}}), good.clone())],
                Some("no volume of it was read"),
            ),
            (
                json!({"phase": "Completed"}),
                vec![volume(of.clone(), without("snapshotID"))],
                Some("no snapshot"),
            ),
            (json!({"phase": "Completed"}), vec![volume(of.clone(), short)], Some("6 of 7 bytes")),
            (
                json!({"phase": "Completed"}),
                vec![volume(of.clone(), json!({"phase": "Failed", "message": "why"}))],
                Some("it is Failed: why"),
            ),
            (
                json!({"phase": "Completed", "errors": 2}),
                vec![volume(of.clone(), good.clone())],
                Some("2 errors"),
            ),
            (
                json!({"phase": "Completed", "hookStatus": {"hooksFailed": 1}}),
                vec![volume(of.clone(), good.clone())],
                Some("1 of its hooks"),
            ),
            (
                json!({"phase": "PartiallyFailed"}),
                vec![volume(of.clone(), good.clone())],
                Some("it is PartiallyFailed"),
            ),
            (
                json!({"phase": "FailedValidation", "validationErrors": ["x", "y"]}),
                vec![volume(of, good)],
                Some("it is FailedValidation: x; y"),
            ),
        ] {
            let backup: Backup = serde_json::from_value(json!({"status": status})).unwrap();
            let Evidence { claims, faults } = evidence(&backup, &volumes, &wanted());
            assert_eq!(faults.is_empty(), fault.is_none(), "{faults:?}");
            assert!(faults.join("; ").contains(fault.unwrap_or_default()), "{faults:?}");
            assert!(fault.is_some() || claims.get("a/data") == Some(&Some(7)));
        }
        let empty = json!({"phase": "Completed", "message": "volume was empty so no snapshot was taken"});
        let backup: Backup = serde_json::from_value(json!({"status": {"phase": "Completed"}})).unwrap();
        let evidence = evidence(&backup, &[volume(json!({}), empty)], &wanted());
        assert_eq!((evidence.claims.get("a/data"), evidence.faults.len()), (Some(&None), 0));
    }

    #[test]
    fn a_backup_of_everything_names_no_namespace_and_no_labels() {
        for (spec, everything) in [
            (json!({}), true),
            (json!({"includedNamespaces": ["*"], "excludedNamespaces": ["kube-*"]}), true),
            (json!({"includedNamespaces": ["shop"]}), false),
            (json!({"includedNamespaces": ["*"], "labelSelector": {"matchLabels": {"a": "b"}}}), false),
            (json!({"orLabelSelectors": [{"matchLabels": {"a": "b"}}]}), false),
        ] {
            let backup: Backup = serde_json::from_value(json!({"spec": spec})).unwrap();
            assert_eq!(is_of_everything(&backup), everything, "{spec}");
        }
    }

    #[test]
    fn of_several_readings_of_a_claim_one_good_one_is_enough_and_progress_is_their_sum() {
        let of = json!({"labels": {CLAIM_UID: "u"}});
        let bytes = |done: u64| json!({"totalBytes": 10, "bytesDone": done});
        let volumes = [
            volume(of.clone(), json!({"phase": "Failed", "progress": bytes(4)})),
            volume(of, json!({"phase": "Completed", "snapshotID": "s", "progress": bytes(10)})),
        ];
        let backup: Backup = serde_json::from_value(json!({"status": {"phase": "Completed"}})).unwrap();
        assert_eq!(evidence(&backup, &volumes, &wanted()).faults, Vec::<String>::new());
        let progress = VolumeProgress { done: 2, all: 2, bytes_done: 14, bytes: 20 };
        assert_eq!(VolumeProgress::of(&volumes), progress);
    }
}
