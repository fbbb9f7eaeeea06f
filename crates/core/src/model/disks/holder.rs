//! Who owns the bytes of a disk: what Talos recognises, what lies on top, and, where Talos sees nothing, what udev saw.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Facts, Partition, USER_VOLUME, is_raid, is_volume, udev, volume_named};
use crate::model::resources::{DiscoveredVolume, DiskSpec, Item};

/// Who owns the bytes of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holder {
    /// Talos itself, of this or of an earlier installation.
    System,
    /// The one volume of this id, and nothing else.
    Volume(String),
    Lvm,
    Zfs,
    Raid,
    Ceph,
    Luks,
    /// A file system or swap on the whole disk, and its label.
    Filesystem {
        kind: String,
        label: String,
    },
    /// A partition table with this many partitions that are not one user volume.
    PartitionTable {
        table: Table,
        partitions: usize,
    },
    /// It cannot be told, for this reason.
    Unknown(String),
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Table {
    Gpt,
    /// Talos recognises no other table, so whatever has partitions and no recognised table is taken for an MBR.
    Mbr,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("Talos"),
            Self::Volume(id) => f.write_str(&volume_named(id)),
            Self::Lvm => f.write_str("LVM"),
            Self::Zfs => f.write_str("ZFS"),
            Self::Raid => f.write_str("a RAID array"),
            Self::Ceph => f.write_str("Ceph"),
            Self::Luks => f.write_str("LUKS"),
            Self::Filesystem { kind, label } if label.is_empty() => f.write_str(kind),
            Self::Filesystem { kind, label } => write!(f, "{kind} {label:?}"),
            Self::PartitionTable { table, partitions } => {
                let table = match table {
                    Table::Gpt => "a GPT",
                    Table::Mbr => "an MBR",
                };
                let plural = if *partitions == 1 { "" } else { "s" };
                write!(f, "{table} with {partitions} partition{plural}")
            }
            Self::Unknown(_) => f.write_str("unknown"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

impl Holder {
    /// Whether a new volume can go there: nothing, or an empty table of the sort that Talos makes.
    pub fn is_free(&self) -> bool {
        matches!(self, Self::Nothing | Self::PartitionTable { table: Table::Gpt, partitions: 0 })
    }
}

/// Partition labels that only a Talos installation has (siderolabs/talos, pkg/machinery/constants).
const TALOS_LABELS: [&str; 3] = ["META", "STATE", "EPHEMERAL"];

/// What Talos recognised on the whole of a disk; nothing when it has not looked yet.
pub(super) fn whole<'a>(facts: &'a Facts, disk: &str) -> Option<&'a DiscoveredVolume> {
    facts.discovered.iter().find(|found| found.id == disk).map(|found| &found.spec)
}

pub(super) fn holder(facts: &Facts, disk: &Item<DiskSpec>, partitions: &[Partition]) -> Holder {
    if partitions.iter().any(|partition| TALOS_LABELS.contains(&partition.label.as_str())) {
        return Holder::System;
    }
    if let [only] = partitions
        && is_volume(&only.label)
    {
        return Holder::Volume(only.label.clone());
    }
    let whole = whole(facts, &disk.id);
    if let Some(id) = whole_disk_volume(facts, disk, whole) {
        return Holder::Volume(id);
    }
    let formats = partitions.iter().map(|partition| partition.format.as_str());
    let mut formats = formats.chain(whole.map(|whole| whole.name.as_str()));
    if let Some(stack) = formats.find_map(stack) {
        return stack;
    }
    if let Some(upper) = uppers(facts, disk, partitions).first() {
        let why = format!("{upper} lies on it");
        return if is_raid(upper) { Holder::Raid } else { Holder::Unknown(why) };
    }
    let count = partitions.len();
    match whole.map(|whole| (whole.name.as_str(), &whole.label)) {
        Some(("gpt", _)) => Holder::PartitionTable { table: Table::Gpt, partitions: count },
        Some(("talosmeta", _)) => Holder::System,
        Some(("", _)) if count == 0 => blank(facts, disk),
        Some(("", _)) => Holder::PartitionTable { table: Table::Mbr, partitions: count },
        Some((kind, label)) => Holder::Filesystem { kind: kind.to_owned(), label: label.clone() },
        None => Holder::Unknown("Talos has not looked at it yet".into()),
    }
}

/// A disk on which Talos recognises nothing is blank only when udev has looked and recognised nothing either.
fn blank(facts: &Facts, disk: &Item<DiskSpec>) -> Holder {
    let foreign =
        || Holder::Filesystem { kind: "a file system that Talos does not know".into(), label: String::new() };
    match facts.udev.get(&disk.id) {
        Some(Ok(record)) => match record.holder() {
            Holder::Nothing if udev::has_content_link(&disk.spec) => foreign(),
            holder => holder,
        },
        _ if udev::has_content_link(&disk.spec) => foreign(),
        unread => {
            let why = unread.and_then(|record| record.as_ref().err()).map_or("was not asked", String::as_str);
            Holder::Unknown(format!(
                "Talos sees nothing, but does not know MBR, NTFS or RAID; udev does, and {why}"
            ))
        }
    }
}

/// The user volume that takes the whole disk without a partition table.
fn whole_disk_volume(
    facts: &Facts,
    disk: &Item<DiskSpec>,
    whole: Option<&DiscoveredVolume>,
) -> Option<String> {
    let mut placed = facts.volumes.iter().flatten().filter(|volume| !volume.spec.location.is_empty());
    let by_status = placed.find(|volume| volume.spec.location == disk.spec.dev_path);
    let mut ids = by_status.map(|volume| &volume.id).into_iter().chain(whole.map(|whole| &whole.label));
    ids.find(|id| id.starts_with(USER_VOLUME)).cloned()
}

/// Formats that put other devices on top of themselves.
fn stack(format: &str) -> Option<Holder> {
    match format {
        "lvm2-pv" => Some(Holder::Lvm),
        "zfs" => Some(Holder::Zfs),
        "bluestore" => Some(Holder::Ceph),
        "luks" => Some(Holder::Luks),
        raid if raid.contains("raid") => Some(Holder::Raid),
        _ => None,
    }
}

/// The devices that lie on top of the disk or of one of its partitions.
pub(super) fn uppers(facts: &Facts, disk: &Item<DiskSpec>, partitions: &[Partition]) -> Vec<String> {
    let is_ours =
        |name: &String| *name == disk.id || partitions.iter().any(|partition| partition.id == *name);
    let disks = facts.disks.iter().filter(|upper| upper.spec.secondary_disks.iter().any(is_ours));
    let devices = facts.devices.iter().filter(|upper| upper.spec.secondaries.iter().any(is_ours));
    let mut uppers: Vec<String> =
        disks.map(|upper| upper.id.clone()).chain(devices.map(|upper| upper.id.clone())).collect();
    uppers.sort();
    uppers.dedup();
    uppers
}
