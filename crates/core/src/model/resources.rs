//! What is in Talos' resources.
//!
//! Fields: siderolabs/talos, pkg/machinery/resources. Keys that are not named here are skipped and missing ones mean zero, so
//! that older and newer releases both read.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// A decoded resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item<T> {
    pub id: String,
    pub version: String,
    pub labels: BTreeMap<String, String>,
    pub spec: T,
}

/// A block device that the kernel calls a disk, loop devices and CD-ROMs included; the id is its kernel name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct DiskSpec {
    pub dev_path: String,
    /// Bytes.
    pub size: u64,
    pub pretty_size: String,
    /// Bytes.
    pub io_size: u64,
    /// Bytes.
    pub sector_size: u64,
    pub readonly: bool,
    pub cdrom: bool,
    pub model: String,
    pub serial: String,
    pub modalias: String,
    /// Empty on many virtual machines.
    pub wwid: String,
    pub uuid: String,
    pub bus_path: String,
    pub sub_system: String,
    pub transport: String,
    pub rotational: bool,
    /// The disks below this one, as with dm and md.
    #[serde(deserialize_with = "nullable")]
    pub secondary_disks: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub symlinks: Vec<String>,
    /// From Talos 1.14 on.
    pub firmware_version: String,
}

/// The disk Talos is installed on.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SystemDisk {
    #[serde(rename = "diskID")]
    pub disk_id: String,
    pub dev_path: String,
}

/// A disk or partition as the kernel lists it, partitions of MBR tables included.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BlockDevice {
    /// `disk` or `partition`.
    #[serde(rename = "type")]
    pub kind: String,
    pub major: u32,
    pub minor: u32,
    pub partition_name: String,
    pub partition_number: u32,
    pub parent: String,
    #[serde(deserialize_with = "nullable")]
    pub secondaries: Vec<String>,
}

/// What was recognised on a disk or partition. MBR tables, NTFS, exFAT, F2FS and RAID members are not, and look empty
/// (siderolabs/go-blockdevice, blkid).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DiscoveredVolume {
    pub dev_path: String,
    /// `disk` or `partition`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The id of the disk a partition is on.
    pub parent: String,
    /// Bytes.
    pub size: u64,
    /// The format, such as `gpt` or `xfs`; empty when nothing was recognised.
    pub name: String,
    pub uuid: String,
    pub label: String,
    pub partition_uuid: String,
    pub partition_type: String,
    pub partition_label: String,
    /// From 1.
    pub partition_index: u32,
}

/// How far a volume has come; user volumes have the id `u-<name>`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeStatus {
    /// `ready` when all is well.
    #[serde(deserialize_with = "lower")]
    pub phase: String,
    #[serde(deserialize_with = "lower")]
    pub pre_fail_phase: String,
    #[serde(rename = "type", deserialize_with = "lower")]
    pub kind: String,
    /// The device, such as `/dev/nvme0n1p1`.
    pub location: String,
    /// What is mounted, which differs when encrypted.
    pub mount_location: String,
    /// The disk.
    pub parent_location: String,
    pub partition_index: i64,
    #[serde(rename = "partitionUUID")]
    pub partition_uuid: String,
    pub uuid: String,
    /// Bytes.
    pub size: u64,
    #[serde(deserialize_with = "lower")]
    pub filesystem: String,
    #[serde(deserialize_with = "lower")]
    pub encryption_provider: String,
    pub mount_spec: MountSpec,
    /// The last error, also while it is merely waiting.
    pub error_message: String,
}

/// How a volume is to be mounted.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MountSpec {
    /// For user volumes the name, below `/var/mnt`.
    pub target_path: String,
    pub project_quota_support: bool,
}

/// A volume's mount as Talos made it; the id is the volume's. Directories are here too; the list of the same name in
/// `runtime.talos.dev` leaves them out.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MountStatus {
    /// Nothing for a directory.
    pub source: String,
    pub target: String,
    #[serde(deserialize_with = "lower")]
    pub filesystem: String,
    pub read_only: bool,
    pub project_quota_support: bool,
    #[serde(deserialize_with = "lower")]
    pub encryption_provider: String,
    #[serde(rename = "spec")]
    pub flags: MountFlags,
}

/// What programs on a mounted volume may do. Before 1.14 Talos tells of no `noExec`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MountFlags {
    /// No set-user-id programs and no devices.
    pub secure: bool,
    /// No programs.
    pub no_exec: bool,
}

/// Where a machine is in its life.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct MachineStatus {
    /// Such as `maintenance` or `running`.
    #[serde(deserialize_with = "lower")]
    pub stage: String,
    pub status: Readiness,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Readiness {
    pub ready: bool,
    #[serde(deserialize_with = "nullable")]
    pub unmet_conditions: Vec<Condition>,
}

/// What keeps a machine from being ready.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Condition {
    pub name: String,
    pub reason: String,
}

/// A system extension of the machine's image.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Extension {
    pub metadata: ExtensionMetadata,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ExtensionMetadata {
    pub name: String,
    pub version: String,
}

/// Whether the clock follows a time server.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TimeStatus {
    pub synced: bool,
    pub sync_disabled: bool,
}

/// A machine of the cluster, as discovery knows it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Member {
    pub node_id: String,
    #[serde(deserialize_with = "nullable")]
    pub addresses: Vec<String>,
    pub hostname: String,
    #[serde(deserialize_with = "lower")]
    pub machine_type: String,
    pub operating_system: String,
}

/// `controlplane`, `worker`, `init` or `unknown`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct MachineType(#[serde(deserialize_with = "lower")] pub String);

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Nodename {
    pub nodename: String,
}

/// The machine's own Node object, as its kubelet may see it; the id is the node's name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStatus {
    pub nodename: String,
    pub node_ready: bool,
    pub unschedulable: bool,
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
}

/// A label the configuration asks for; the id is its key.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeLabel {
    pub key: String,
    pub value: String,
}

/// Where the machine runs, such as `metal` or `container`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PlatformMetadata {
    pub platform: String,
    pub hostname: String,
    pub region: String,
    pub zone: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SecurityState {
    pub secure_boot: bool,
    #[serde(rename = "bootedWithUKI")]
    pub booted_with_uki: bool,
}

/// Text of which only the case may differ between releases.
fn lower<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(String::deserialize(deserializer)?.to_lowercase())
}

/// `null` means empty.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
