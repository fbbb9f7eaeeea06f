//! The disks of a machine and who owns their bytes: a pure join of what Talos tells in several places.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::resources::{BlockDevice, DiscoveredVolume, DiskSpec, Item, MountStatus, VolumeStatus};

mod holder;
mod identity;
pub mod kernel;
mod selector;
pub mod udev;

pub use holder::{Holder, Table};
pub use identity::DiskId;
pub use selector::{NEWEST, Release, Selector, accept, deep, select};

/// What a machine says about its disks; the input of [`join`].
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub disks: Vec<Item<DiskSpec>>,
    /// The id of the disk Talos is installed on.
    pub system_disk: Option<String>,
    pub devices: Vec<Item<BlockDevice>>,
    pub discovered: Vec<Item<DiscoveredVolume>>,
    /// Nothing when they could not be read.
    pub volumes: Option<Vec<Item<VolumeStatus>>>,
    pub mounts: Vec<Item<MountStatus>>,
    /// What udev recognised on the disks of [`unproven`], or why that is not known; by id.
    pub udev: BTreeMap<String, Result<udev::Record, String>>,
}

/// One disk, as far as the kernel calls it one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// What this machine does with it.
    pub uses: Uses,
    /// Why the disk cannot be given to a new volume as it is.
    pub eligible: Result<(), String>,
}

/// A partition of a disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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

/// What a machine does with a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uses {
    /// Volumes of this machine that lie on it, and the phase of each.
    pub volumes: Vec<(String, String)>,
    /// Where it, or a partition of it, is mounted.
    pub mounts: Vec<String>,
    /// Devices on top of it, such as `dm-0`.
    pub uppers: Vec<String>,
    /// Ids of volumes that lie on it and are none of this machine's: it has no such volume, or has it elsewhere.
    /// Talos adopts such a partition, with its old data, as soon as a volume of this id is asked for.
    pub strays: Vec<String>,
}

/// What the id of a user volume begins with, which is the label of its partition or file system too.
pub const USER_VOLUME: &str = "u-";
/// What the id of a raw volume begins with, and the label of its partition.
pub const RAW_VOLUME: &str = "r-";
/// What the id of an existing volume begins with; nothing on a disk is labelled so.
pub const EXISTING_VOLUME: &str = "e-";

/// Whether a label is the id of a volume.
pub fn is_volume(label: &str) -> bool {
    label.starts_with(USER_VOLUME) || label.starts_with(RAW_VOLUME)
}

/// The volume of this id, for people: `user volume openebs`.
pub fn volume_named(id: &str) -> String {
    match (id.strip_prefix(USER_VOLUME), id.strip_prefix(RAW_VOLUME)) {
        (Some(name), _) => format!("user volume {name}"),
        (_, Some(name)) => format!("raw volume {name}"),
        _ => format!("volume {id}"),
    }
}

/// What the kernel names devices that are no disks of their own.
const VIRTUAL: [(&str, &str); 9] = [
    ("loop", "a loop device"),
    ("dm-", "a device-mapper device"),
    ("md", "a RAID array"),
    ("zram", "compressed memory"),
    ("ram", "a RAM disk"),
    ("zd", "a ZFS volume"),
    ("nbd", "a network block device"),
    ("rbd", "a Ceph RBD image"),
    ("drbd", "a DRBD device"),
];

impl Disk {
    /// Whether it is memory, or an image that Talos itself mounts: nobody looks for those.
    pub fn is_memory(&self) -> bool {
        ["loop", "zram", "ram"].iter().any(|prefix| self.id.starts_with(prefix))
    }

    /// Whether the only thing against it is what it holds, and that is known.
    pub fn is_held(&self) -> bool {
        let told = !matches!(self.holder, Holder::Unknown(_)) && self.uses.strays.is_empty();
        self.system || told && self.unfit().is_none() && !self.holder.is_free()
    }

    /// Who owns its bytes, for people.
    pub fn holds(&self) -> String {
        match &self.holder {
            Holder::Volume(id) if self.uses.strays.contains(id) => format!("leftover {}", volume_named(id)),
            holder => holder.to_string(),
        }
    }

    /// Whether the bytes of the volume of this id are on it, on the whole of it or on a partition.
    pub fn has_volume(&self, id: &str) -> bool {
        matches!(&self.holder, Holder::Volume(held) if held == id)
            || self.partitions.iter().any(|partition| partition.label == id)
    }

    /// The other paths of the device, such as `/dev/disk/by-id/…`, without a slash at their end.
    pub fn symlinks(&self) -> impl Iterator<Item = String> {
        self.spec.symlinks.iter().map(|link| link.trim_end_matches('/').to_owned())
    }

    /// Why it is no disk whose bytes could ever be changed, if so: memory, another device's face, or read-only.
    pub fn unfit(&self) -> Option<String> {
        unfit(&self.id, &self.spec)
    }

    /// Another disk of the machine that says it is the same one: the same WWID, or the same serial where a WWID does
    /// not tell them apart.
    pub fn twin<'a>(&self, disks: impl IntoIterator<Item = &'a Self>) -> Option<&'a Self> {
        disks.into_iter().find(|other| is_twin((&self.id, &self.spec), (&other.id, &other.spec)))
    }
}

/// Joins everything that is known into one row per disk, ordered by id.
pub fn join(facts: &Facts) -> Vec<Disk> {
    let mut disks: Vec<Disk> = facts.disks.iter().map(|disk| join_one(facts, disk)).collect();
    disks.sort_by(|a, b| a.id.cmp(&b.id));
    disks
}

/// The disks on which Talos recognises nothing, and on which it would not recognise everything: udev is to be asked.
pub fn unproven(facts: &Facts) -> impl Iterator<Item = (&str, &BlockDevice)> {
    let blank = move |disk: &&Item<DiskSpec>| {
        unfit(&disk.id, &disk.spec).is_none()
            && holder::whole(facts, &disk.id).is_some_and(|whole| whole.name.is_empty())
    };
    facts.disks.iter().filter(blank).filter_map(move |disk| {
        let device = facts.devices.iter().find(|device| device.id == disk.id)?;
        Some((disk.id.as_str(), &device.spec))
    })
}

fn join_one(facts: &Facts, disk: &Item<DiskSpec>) -> Disk {
    let Item { id, spec, .. } = disk;
    let system = facts.system_disk.as_ref() == Some(id);
    let partitions = partitions(facts, id);
    let holder = if system { Holder::System } else { holder::holder(facts, disk, &partitions) };
    let uses = uses(facts, disk, &holder, &partitions);
    let eligible = eligible(facts, disk, system, &holder, &uses);
    Disk { id: id.clone(), spec: spec.clone(), system, holder, partitions, uses, eligible }
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

fn uses(facts: &Facts, disk: &Item<DiskSpec>, holder: &Holder, partitions: &[Partition]) -> Uses {
    let ours = |path: &str| {
        path == disk.spec.dev_path && !path.is_empty()
            || path.strip_prefix("/dev/").is_some_and(|name| partitions.iter().any(|part| part.id == name))
    };
    let placed: Vec<&Item<VolumeStatus>> =
        facts.volumes.iter().flatten().filter(|volume| ours(&volume.spec.location)).collect();
    // What is encrypted is mounted from a device of its own.
    let mounted = |source: &str| {
        ours(source) || placed.iter().any(|volume| !source.is_empty() && volume.spec.mount_location == source)
    };
    let mounts = facts.mounts.iter().filter(|mount| mounted(&mount.spec.source));
    let mut mounts: Vec<String> = mounts.map(|mount| mount.spec.target.clone()).collect();
    mounts.sort();
    mounts.dedup();
    Uses {
        volumes: placed.iter().map(|volume| (volume.id.clone(), volume.spec.phase.clone())).collect(),
        mounts,
        uppers: holder::uppers(facts, disk, partitions),
        strays: strays(facts, disk, holder, partitions),
    }
}

/// The volumes on a disk that the machine does not have, or has elsewhere.
fn strays(facts: &Facts, disk: &Item<DiskSpec>, holder: &Holder, partitions: &[Partition]) -> Vec<String> {
    let Some(volumes) = &facts.volumes else { return Vec::new() };
    let parts = partitions
        .iter()
        .filter(|part| is_volume(&part.label))
        .map(|part| (part.label.as_str(), format!("/dev/{}", part.id)));
    let whole = match holder {
        Holder::Volume(id) if partitions.is_empty() => Some((id.as_str(), disk.spec.dev_path.clone())),
        _ => None,
    };
    let stray = |(id, place): &(&str, String)| {
        let known = volumes.iter().find(|volume| volume.id == *id);
        known.is_none_or(|volume| !volume.spec.location.is_empty() && volume.spec.location != *place)
    };
    parts.chain(whole).filter(stray).map(|(id, _)| id.to_owned()).collect()
}

fn is_raid(id: &str) -> bool {
    id.strip_prefix("md")
        .is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit() || next == '_'))
}

fn unfit(id: &str, spec: &DiskSpec) -> Option<String> {
    let virtual_kind = VIRTUAL.iter().find(|(prefix, _)| match *prefix {
        "md" => is_raid(id),
        prefix => id.starts_with(prefix),
    });
    match virtual_kind {
        Some((_, kind)) => Some(format!("is {kind}")),
        None if spec.cdrom => Some("is a CD-ROM".into()),
        None if spec.readonly => Some("is read-only".into()),
        None => None,
    }
}

fn is_twin((id, ours): (&str, &DiskSpec), (other, theirs): (&str, &DiskSpec)) -> bool {
    if id == other || unfit(other, theirs).is_some() {
        return false;
    }
    let (ours, theirs) = (DiskId::of(ours), DiskId::of(theirs));
    if ours.wwid.is_none() || theirs.wwid.is_none() {
        ours.serial.is_some() && ours.serial == theirs.serial
    } else {
        ours.wwid == theirs.wwid
    }
}

fn held(holder: &Holder, uses: &Uses) -> String {
    match holder {
        Holder::Unknown(why) => format!("may hold something: {why}"),
        Holder::Volume(id) if uses.strays.contains(id) => {
            format!(
                "holds {} of another cluster or time: this node's config has no such volume there",
                volume_named(id)
            )
        }
        holder => format!("holds {holder}"),
    }
}

fn eligible(
    facts: &Facts,
    disk: &Item<DiskSpec>,
    system: bool,
    holder: &Holder,
    uses: &Uses,
) -> Result<(), String> {
    let Item { id, spec, .. } = disk;
    if system {
        return Err("is the disk Talos is installed on".into());
    }
    if let Some(why) = unfit(id, spec) {
        return Err(why);
    }
    if !holder.is_free() {
        return Err(held(holder, uses));
    }
    if let Some(upper) = uses.uppers.first() {
        return Err(format!("is in use: {upper} lies on it"));
    }
    if let Some(mount) = uses.mounts.first() {
        return Err(format!("is mounted at {mount}"));
    }
    let ours = DiskId::of(spec);
    if ours.is_empty() {
        return Err("has neither serial nor WWID, so it can't be told from another after a reboot".into());
    }
    let twin = facts.disks.iter().find(|other| is_twin((id, spec), (&other.id, &other.spec)));
    twin.map_or(Ok(()), |twin| {
        let what =
            if ours.wwid.is_none() || DiskId::of(&twin.spec).wwid.is_none() { "serial" } else { "WWID" };
        Err(format!("has the same {what} as {}: one disk seen twice?", twin.id))
    })
}

#[cfg(test)]
mod tests;
