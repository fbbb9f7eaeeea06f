//! Velero's kinds, as far as they are judged.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::{NamespaceResourceScope, Resource};
use serde::Deserialize;
use serde_json::Value;

pub type BackupStorageLocation = Custom<LocationSpec, LocationStatus>;
pub type Schedule = Custom<ScheduleSpec, ScheduleStatus>;
pub type Backup = Custom<BackupSpec, BackupStatus>;
pub type Restore = Custom<RestoreSpec, RestoreStatus>;
pub type PodVolumeBackup = Custom<VolumeBackupSpec, VolumeStatus>;
pub type PodVolumeRestore = Custom<VolumeRestoreSpec, VolumeStatus>;
pub type BackupRepository = Custom<RepositorySpec, RepositoryStatus>;

/// An object of one of these kinds.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Custom<S, T> {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: S,
    pub status: Option<T>,
}

/// What a kind is called.
pub trait Named {
    const KIND: &'static str;
    const PLURAL: &'static str;
}

impl<S: Named, T> Resource for Custom<S, T> {
    const API_VERSION: &'static str = "velero.io/v1";
    const GROUP: &'static str = "velero.io";
    const KIND: &'static str = S::KIND;
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = S::PLURAL;
    type Scope = NamespaceResourceScope;
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocationSpec {
    pub object_storage: Option<ObjectStorage>,
    pub config: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectStorage {
    pub bucket: Option<String>,
    pub ca_cert: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocationStatus {
    pub phase: Option<String>,
    pub last_validation_time: Option<Time>,
    pub last_synced_time: Option<Time>,
    pub message: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ScheduleSpec {
    pub schedule: Option<String>,
    pub paused: Option<bool>,
    /// Compared as it is.
    pub template: Value,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScheduleStatus {
    pub phase: Option<String>,
    pub validation_errors: Option<Vec<String>>,
    pub last_skipped: Option<Time>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupSpec {
    pub storage_location: Option<String>,
    pub included_namespaces: Option<Vec<String>>,
    pub label_selector: Option<Value>,
    pub or_label_selectors: Option<Vec<Value>>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupStatus {
    pub phase: Option<String>,
    pub start_timestamp: Option<Time>,
    pub completion_timestamp: Option<Time>,
    pub expiration: Option<Time>,
    pub validation_errors: Option<Vec<String>>,
    pub failure_reason: Option<String>,
    pub errors: Option<i64>,
    pub warnings: Option<i64>,
    pub hook_status: Option<HookStatus>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HookStatus {
    pub hooks_attempted: Option<i64>,
    pub hooks_failed: Option<i64>,
}

/// The files of one volume on their way into a backup.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VolumeBackupSpec {
    pub pod: PodReference,
    /// Its name in the pod.
    pub volume: Option<String>,
    /// Where its files are read.
    pub node: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PodReference {
    pub namespace: Option<String>,
    pub name: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeStatus {
    pub phase: Option<String>,
    pub message: Option<String>,
    #[serde(rename = "snapshotID")]
    pub snapshot_id: Option<String>,
    pub progress: Option<Bytes>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bytes {
    pub total_bytes: u64,
    pub bytes_done: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RepositorySpec {
    pub volume_namespace: Option<String>,
    pub backup_storage_location: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RepositoryStatus {
    pub phase: Option<String>,
    pub message: Option<String>,
}

/// Nothing of it is judged.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct RestoreSpec {}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreStatus {
    pub phase: Option<String>,
    pub start_timestamp: Option<Time>,
    pub completion_timestamp: Option<Time>,
    pub validation_errors: Option<Vec<String>>,
    pub failure_reason: Option<String>,
    pub errors: Option<i64>,
    pub warnings: Option<i64>,
}

/// The files of one volume on their way out of a backup.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeRestoreSpec {
    pub pod: PodReference,
    /// Its name in the pod.
    pub volume: Option<String>,
    /// What was read of the volume that it was.
    #[serde(rename = "snapshotID")]
    pub snapshot_id: Option<String>,
}

impl Named for LocationSpec {
    const KIND: &'static str = "BackupStorageLocation";
    const PLURAL: &'static str = "backupstoragelocations";
}

impl Named for ScheduleSpec {
    const KIND: &'static str = "Schedule";
    const PLURAL: &'static str = "schedules";
}

impl Named for BackupSpec {
    const KIND: &'static str = "Backup";
    const PLURAL: &'static str = "backups";
}

impl Named for VolumeBackupSpec {
    const KIND: &'static str = "PodVolumeBackup";
    const PLURAL: &'static str = "podvolumebackups";
}

impl Named for RestoreSpec {
    const KIND: &'static str = "Restore";
    const PLURAL: &'static str = "restores";
}

impl Named for VolumeRestoreSpec {
    const KIND: &'static str = "PodVolumeRestore";
    const PLURAL: &'static str = "podvolumerestores";
}

impl Named for RepositorySpec {
    const KIND: &'static str = "BackupRepository";
    const PLURAL: &'static str = "backuprepositories";
}
