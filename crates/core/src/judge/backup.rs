//! How far a backup is, and what it holds: by its volumes, never by its phase alone. Velero calls a backup Completed of which
//! a volume was skipped, and before 1.18.3 also one that has lost what is needed to restore them (velero-io/velero #9986).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::coverage::Covered;
use crate::error::Code;
use crate::model::said::{self, By};

/// On a PodVolumeBackup: the uid of its claim, and of its backup.
const CLAIM_UID: &str = "velero.io/pvc-uid";
pub const BACKUP_UID: &str = "velero.io/backup-uid";

/// A Backup, as far as it is judged.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Backup {
    pub metadata: ObjectMeta,
    pub spec: BackupSpec,
    pub status: BackupStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackupSpec {
    pub storage_location: String,
    pub included_namespaces: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackupStatus {
    pub phase: String,
    pub failure_reason: String,
    pub validation_errors: Vec<String>,
    pub errors: u64,
    pub warnings: u64,
    pub start_timestamp: Option<String>,
    pub completion_timestamp: Option<String>,
    pub expiration: Option<String>,
    pub progress: Option<ItemProgress>,
    pub hook_status: Option<HookStatus>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ItemProgress {
    pub total_items: u64,
    pub items_backed_up: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HookStatus {
    pub hooks_failed: u64,
}

/// The files of one volume on their way into a backup.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PodVolumeBackup {
    pub metadata: ObjectMeta,
    pub spec: VolumeSpec,
    pub status: VolumeStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeSpec {
    pub pod: PodReference,
    pub volume: String,
    pub node: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PodReference {
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeStatus {
    pub phase: String,
    pub message: String,
    #[serde(rename = "snapshotID")]
    pub snapshot_id: String,
    pub progress: Bytes,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Bytes {
    pub total_bytes: u64,
    pub bytes_done: u64,
}

impl Backup {
    /// Velero does nothing more with it.
    pub fn ended(&self) -> bool {
        matches!(
            self.status.phase.as_str(),
            "Completed" | "PartiallyFailed" | "Failed" | "FailedValidation" | "Deleting"
        )
    }

    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
}

impl PodVolumeBackup {
    /// Whether it was read for this backup.
    pub fn is_for(&self, backup: &Backup) -> bool {
        let of = self.metadata.labels.as_ref().and_then(|labels| labels.get(BACKUP_UID));
        of.is_some() && of == backup.metadata.uid.as_ref()
    }

    fn is_of(&self, covered: &Covered) -> bool {
        let labels = self.metadata.labels.as_ref();
        match labels.and_then(|labels| labels.get(CLAIM_UID)) {
            Some(uid) => *uid == covered.uid,
            None => {
                let pod = &self.spec.pod;
                (&pod.namespace, &pod.name, &self.spec.volume)
                    == (&covered.claim.namespace, &covered.pod, &covered.volume)
            }
        }
    }

    /// Velero found no files, and so made no snapshot.
    fn is_empty(&self) -> bool {
        let VolumeStatus { message, snapshot_id, .. } = &self.status;
        snapshot_id.is_empty() && said::code(By::Velero, message) == Some(Code::EmptyVolume)
    }

    /// Why its files are not all in the backup.
    fn fault(&self) -> Option<String> {
        let VolumeStatus { phase, message, snapshot_id, progress } = &self.status;
        if phase != "Completed" {
            let phase = if phase.is_empty() { "New" } else { phase };
            let said = if message.is_empty() { String::new() } else { format!(": {message}") };
            return Some(format!("it is {phase}{said}"));
        }
        if self.is_empty() {
            return None;
        }
        if snapshot_id.is_empty() {
            return Some("it is Completed, and has no snapshot".into());
        }
        (progress.bytes_done != progress.total_bytes)
            .then(|| format!("{} of {} bytes were read", progress.bytes_done, progress.total_bytes))
    }
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
    let BackupStatus { phase, failure_reason, validation_errors, errors, hook_status, .. } = &backup.status;
    let mut evidence = Evidence::default();
    if phase != "Completed" {
        let reasons = validation_errors.iter().chain((!failure_reason.is_empty()).then_some(failure_reason));
        let reasons: Vec<&str> = reasons.map(String::as_str).collect();
        let said = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
        evidence.faults.push(format!("it is {phase}{said}"));
    }
    if *errors > 0 {
        evidence.faults.push(format!("Velero counts {errors} errors"));
    }
    let failed = hook_status.as_ref().map_or(0, |hooks| hooks.hooks_failed);
    if failed > 0 {
        evidence.faults.push(format!("{failed} of its hooks failed"));
    }
    for covered in wanted {
        let found: Vec<&PodVolumeBackup> = volumes.iter().filter(|volume| volume.is_of(covered)).collect();
        // A claim of several pods is read once for each: one good reading is enough.
        match found.iter().find(|volume| volume.fault().is_none()) {
            Some(good) => {
                let bytes = (!good.is_empty()).then_some(good.status.progress.bytes_done);
                evidence.claims.insert(covered.claim.to_string(), bytes);
            }
            None => {
                let why = found.first().and_then(|volume| volume.fault());
                let why = why.unwrap_or_else(|| "no volume of it was read".into());
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
    pub fn of(volumes: &[PodVolumeBackup]) -> Self {
        let over = |volume: &&PodVolumeBackup| {
            matches!(volume.status.phase.as_str(), "Completed" | "Failed" | "Canceled")
        };
        let sum = |part: fn(&Bytes) -> u64| {
            volumes.iter().map(|volume| part(&volume.status.progress)).fold(0, u64::saturating_add)
        };
        Self {
            done: volumes.iter().filter(over).count(),
            all: volumes.len(),
            bytes_done: sum(|bytes| bytes.bytes_done),
            bytes: sum(|bytes| bytes.total_bytes),
        }
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
