//! The disks of a machine and who owns their bytes: a pure join of what Talos tells in several places.

use std::fmt;

use crate::talos::resources::{BlockDevice, DiscoveredVolume, DiskSpec, Item, VolumeStatus};

mod selector;

pub use selector::{NEWEST, Release, Selector, accept, select};

/// What Talos says about a machine's disks; the input of [`join`].
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub disks: Vec<Item<DiskSpec>>,
    /// The id of the disk Talos is installed on.
    pub system_disk: Option<String>,
    pub devices: Vec<Item<BlockDevice>>,
    pub discovered: Vec<Item<DiscoveredVolume>>,
    pub volumes: Vec<Item<VolumeStatus>>,
}

/// One disk, as far as the kernel calls it one.
#[derive(Debug, Clone, PartialEq)]
pub struct Disk {
    /// The kernel's name at this boot, such as `nvme0n1`; it can be another disk's at the next.
    pub id: String,
    /// Model, serial, WWID, size and the rest, as Talos tells them.
    pub spec: DiskSpec,
    /// Whether Talos is installed on it.
    pub system: bool,
    pub holder: Holder,
    /// Ordered by their place in the table.
    pub partitions: Vec<Partition>,
    /// Why the disk cannot be given to a new volume as it is.
    pub eligible: Result<(), String>,
}

/// A partition of a disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Partition {
    /// The kernel's name, such as `nvme0n1p1`.
    pub id: String,
    /// From 1; 0 when unknown.
    pub index: u32,
    /// The partition's own label, such as `u-openebs`.
    pub label: String,
    /// The format that was recognised on it, or nothing.
    pub format: String,
    /// Bytes; 0 when unknown, as in an MBR table.
    pub size: u64,
}

/// Who owns the bytes of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Talos itself, of this or of an earlier installation.
    System,
    /// The one user volume of this name, and nothing else.
    UserVolume(String),
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
    /// In use by something that could not be recognised, or not looked at yet.
    Unknown,
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Gpt,
    /// Talos recognises no other table, so whatever has partitions and no recognised table is taken for an MBR.
    Mbr,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("Talos"),
            Self::UserVolume(name) => write!(f, "user volume {name}"),
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
            Self::Unknown => f.write_str("something unknown"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

/// Partition labels that only a Talos installation has (siderolabs/talos, pkg/machinery/constants).
const TALOS_LABELS: [&str; 3] = ["META", "STATE", "EPHEMERAL"];

/// What the label of a user volume's partition or file system begins with.
const USER_VOLUME: &str = "u-";

/// What the kernel names devices that are no disks of their own.
const VIRTUAL: [(&str, &str); 6] = [
    ("loop", "a loop device"),
    ("dm-", "a device-mapper device"),
    ("md", "a RAID array"),
    ("zram", "compressed memory"),
    ("ram", "a RAM disk"),
    ("zd", "a ZFS volume"),
];

impl Disk {
    /// Whether it is memory, or an image that Talos itself mounts: nobody looks for those.
    pub fn is_memory(&self) -> bool {
        ["loop", "zram", "ram"].iter().any(|prefix| self.id.starts_with(prefix))
    }

    /// Whether the only thing against it is what it holds.
    pub fn is_held(&self) -> bool {
        self.system || self.eligible.as_ref().is_err_and(|why| *why == held(&self.holder))
    }
}

/// Joins everything that is known into one row per disk, ordered by id.
pub fn join(facts: &Facts) -> Vec<Disk> {
    let mut disks: Vec<Disk> = facts.disks.iter().map(|disk| join_one(facts, disk)).collect();
    disks.sort_by(|a, b| a.id.cmp(&b.id));
    disks
}

fn join_one(facts: &Facts, disk: &Item<DiskSpec>) -> Disk {
    let Item { id, spec, .. } = disk;
    let system = facts.system_disk.as_ref() == Some(id);
    let partitions = partitions(facts, id);
    let holder = if system { Holder::System } else { holder(facts, disk, &partitions) };
    let eligible = eligible(id, spec, system, &holder);
    Disk { id: id.clone(), spec: spec.clone(), system, holder, partitions, eligible }
}

/// The partitions the kernel lists, with what was recognised on them. The kernel also knows those of tables that
/// Talos does not recognise.
fn partitions(facts: &Facts, disk: &str) -> Vec<Partition> {
    let recognised =
        facts.discovered.iter().filter(|found| found.spec.kind == "partition" && found.spec.parent == disk);
    let mut partitions: Vec<Partition> = recognised
        .map(|Item { id, spec, .. }| Partition {
            id: id.clone(),
            index: spec.partition_index,
            label: spec.partition_label.clone(),
            format: spec.name.clone(),
            size: spec.size,
        })
        .collect();
    let listed =
        facts.devices.iter().filter(|device| device.spec.kind == "partition" && device.spec.parent == disk);
    for Item { id, spec, .. } in listed {
        if partitions.iter().all(|partition| partition.id != *id) {
            let label = spec.partition_name.clone();
            let index = spec.partition_number;
            partitions.push(Partition { id: id.clone(), index, label, ..Partition::default() });
        }
    }
    partitions.sort_by(|a, b| (a.index, &a.id).cmp(&(b.index, &b.id)));
    partitions
}

fn holder(facts: &Facts, disk: &Item<DiskSpec>, partitions: &[Partition]) -> Holder {
    if partitions.iter().any(|partition| TALOS_LABELS.contains(&partition.label.as_str())) {
        return Holder::System;
    }
    if let [only] = partitions
        && let Some(name) = only.label.strip_prefix(USER_VOLUME)
    {
        return Holder::UserVolume(name.to_owned());
    }
    let whole = facts.discovered.iter().find(|found| found.id == disk.id).map(|found| &found.spec);
    if let Some(name) = whole_disk_volume(facts, disk, whole) {
        return Holder::UserVolume(name);
    }
    let formats = partitions.iter().map(|partition| partition.format.as_str());
    let mut formats = formats.chain(whole.map(|whole| whole.name.as_str()));
    if let Some(stack) = formats.find_map(stack) {
        return stack;
    }
    if let Some(upper) = upper(facts, disk, partitions) {
        return if is_raid(upper) { Holder::Raid } else { Holder::Unknown };
    }
    let count = partitions.len();
    match whole.map(|whole| (whole.name.as_str(), &whole.label)) {
        Some(("gpt", _)) => Holder::PartitionTable { table: Table::Gpt, partitions: count },
        Some(("talosmeta", _)) => Holder::System,
        Some(("", _)) if count == 0 => Holder::Nothing,
        Some(("", _)) => Holder::PartitionTable { table: Table::Mbr, partitions: count },
        Some((kind, label)) => Holder::Filesystem { kind: kind.to_owned(), label: label.clone() },
        None => Holder::Unknown,
    }
}

/// The user volume that takes the whole disk without a partition table.
fn whole_disk_volume(
    facts: &Facts,
    disk: &Item<DiskSpec>,
    whole: Option<&DiscoveredVolume>,
) -> Option<String> {
    let by_status = facts
        .volumes
        .iter()
        .find(|volume| !volume.spec.location.is_empty() && volume.spec.location == disk.spec.dev_path);
    let name = by_status.and_then(|volume| volume.id.strip_prefix(USER_VOLUME));
    name.or_else(|| whole.and_then(|whole| whole.label.strip_prefix(USER_VOLUME))).map(str::to_owned)
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

/// The device that lies on top of the disk or of one of its partitions.
fn upper<'a>(facts: &'a Facts, disk: &Item<DiskSpec>, partitions: &[Partition]) -> Option<&'a str> {
    let is_ours =
        |name: &String| *name == disk.id || partitions.iter().any(|partition| partition.id == *name);
    let disks = facts.disks.iter().filter(|upper| upper.spec.secondary_disks.iter().any(is_ours));
    let devices = facts.devices.iter().filter(|upper| upper.spec.secondaries.iter().any(is_ours));
    disks.map(|upper| upper.id.as_str()).chain(devices.map(|upper| upper.id.as_str())).next()
}

fn is_raid(id: &str) -> bool {
    id.strip_prefix("md")
        .is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit() || next == '_'))
}

fn held(holder: &Holder) -> String {
    format!("holds {holder}")
}

fn eligible(id: &str, spec: &DiskSpec, system: bool, holder: &Holder) -> Result<(), String> {
    let virtual_kind = VIRTUAL.iter().find(|(prefix, _)| match *prefix {
        "md" => is_raid(id),
        prefix => id.starts_with(prefix),
    });
    match (virtual_kind, holder) {
        _ if system => Err("is the disk Talos is installed on".into()),
        (Some((_, kind)), _) => Err(format!("is {kind}")),
        _ if spec.cdrom => Err("is a CD-ROM".into()),
        _ if spec.readonly => Err("is read-only".into()),
        (None, Holder::Nothing | Holder::PartitionTable { table: Table::Gpt, partitions: 0 }) => Ok(()),
        (None, holder) => Err(held(holder)),
    }
}

#[cfg(test)]
mod tests;
