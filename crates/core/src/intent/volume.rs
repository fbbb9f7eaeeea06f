//! Volumes as the file asks for them.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Duration, MaxSize, Size};

/// A volume; Talos mounts it at `/var/mnt/<name>`, unless it is `raw`. Of a volume that exists, what is left out here
/// stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Volume {
    /// 1 to 34 letters, digits and dashes.
    pub name: String,
    #[serde(rename = "type", default)]
    pub kind: VolumeType,
    /// The disk it is on; for all types but `directory`.
    #[serde(default)]
    pub disk: DiskSelector,
    /// The label of the partition that an `existing` volume adopts; without it, the file system of the whole disk.
    #[serde(default)]
    pub partition: Option<String>,
    /// The least size. Required for `partition` and `raw`, so that no leftover gap of a disk is taken; for `disk`,
    /// the least size of the disk.
    #[serde(default)]
    pub min_size: Option<Size>,
    /// The largest size, for `partition` and `raw`; the whole free space without it.
    #[serde(default)]
    pub max_size: Option<MaxSize>,
    /// Lets `partition` and `raw` grow into space that becomes free.
    #[serde(default)]
    pub grow: Option<bool>,
    /// For `partition` and `disk`.
    #[serde(default)]
    pub filesystem: Filesystem,
    /// For `partition`, `disk` and `raw`.
    #[serde(default)]
    pub encryption: Option<Encryption>,
    /// For all types but `raw`.
    #[serde(default)]
    pub mount: Mount,
    /// How often the disk is told which blocks are free, such as `168h` (Talos 1.14 and later).
    #[serde(default)]
    pub trim: Option<Duration>,
    /// How often the file system is looked through for errors, such as `720h` (Talos 1.14 and later).
    #[serde(default)]
    pub scrub: Option<Duration>,
}

/// What a volume is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VolumeType {
    /// A partition with a file system. Where Talos runs in a container, which has no disks, it becomes a directory.
    #[default]
    Partition,
    /// A whole disk with a file system and no partition table (Talos 1.12 and later). In a container, a directory.
    Disk,
    /// A directory on Talos' own data partition, without a size of its own (Talos 1.12 and later).
    Directory,
    /// A partition without a file system, for those who bring their own (Talos 1.11 and later).
    Raw,
    /// A file system that exists already: it is mounted, and never formatted (Talos 1.11 and later).
    Existing,
}

impl VolumeType {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Disk => "disk",
            Self::Directory => "directory",
            Self::Raw => "raw",
            Self::Existing => "existing",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskSelector {
    /// A CEL expression over `disk.*` and `system_disk`, as Talos reads it; it must match exactly one disk, that is
    /// free or holds the volume already. Presets that stand for one: `nvme`, `ssd`, `serial:…`, `wwid:…`, and
    /// `largest-free-nvme`, which is decided on the disks of each node.
    #[serde(rename = "match")]
    pub matches: String,
    /// The volume shares its disk with other volumes that say so too, or with Talos itself; each needs a `maxSize` in
    /// bytes.
    #[serde(default)]
    pub shared: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Filesystem {
    #[serde(rename = "type")]
    pub kind: FilesystemType,
    /// Lets the kernel enforce a limit per directory (XFS, Talos 1.11 and later).
    pub project_quota: bool,
}

impl Default for Filesystem {
    fn default() -> Self {
        Self { kind: FilesystemType::Xfs, project_quota: false }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FilesystemType {
    Xfs,
    Ext4,
}

impl FilesystemType {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
        }
    }
}

/// LUKS2 under the whole volume; each of the keys opens it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Encryption {
    /// In the order of their slots; none can be added or taken away once the volume exists.
    pub keys: Vec<EncryptionKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum EncryptionKey {
    /// Made of the node's UUID: a disk that leaves its node can't be read, but by whoever knows the UUID.
    #[serde(rename = "nodeID")]
    NodeId,
    /// Sealed by the node's TPM.
    Tpm,
    /// Sealed by a key server.
    Kms(Kms),
    /// A passphrase; it is in the machine config, and in nothing that is shown.
    Static(Passphrase),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kms {
    /// Such as `https://kms.example:4443`.
    pub endpoint: String,
}

/// Where a passphrase is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Passphrase {
    /// A SOPS file with one Secret; the path counts from the file's folder.
    pub file: PathBuf,
    /// The key of the Secret's data that holds the passphrase.
    pub key: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Mount {
    /// No device files and no set-user-ID programs on it and, from Talos 1.14 on, no programs at all; Talos' default.
    /// `false` allows them all (Talos 1.13 and later).
    pub secure: Option<bool>,
    /// Reading a file does not note when (Talos 1.13 and later).
    pub disable_access_time: Option<bool>,
    /// For `existing` volumes.
    pub read_only: Option<bool>,
}

/// What is different about a volume on one node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct VolumeOverride {
    pub disk: Option<DiskSelector>,
    pub min_size: Option<Size>,
    pub max_size: Option<MaxSize>,
}

/// Talos' own data partition, `EPHEMERAL`. Its size is settled when it is made, at the node's first boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Ephemeral {
    /// Leaves the rest of the disk to volumes that are `shared`; without it, Talos takes the whole disk.
    pub max_size: MaxSize,
}
