//! Which disk a volume goes to: exactly one, that holds nothing, or that holds this very volume already, or that the
//! volume is said to share.

use crate::error::{Error, Result};
use crate::intent::{Volume, VolumeType};
use crate::model::disks::{
    Disk, EXISTING_VOLUME, Holder, Partition, RAW_VOLUME, Selector, USER_VOLUME, select,
};
use crate::plan::ApprovedDisk;

/// What a partition table and the alignment of partitions take at most, in bytes.
const TABLE: u64 = 4 << 20;
/// Partitions of Talos itself (siderolabs/talos, pkg/machinery/constants).
const TALOS: [&str; 11] = [
    "EFI",
    "BIOS",
    "BOOT",
    "META",
    "STATE",
    "EPHEMERAL",
    "IMAGECACHE",
    // From 1.14 on these can have partitions of their own.
    "ETCD",
    "CRI",
    "KUBELET",
    "LOG",
];
/// File systems that Talos mounts as existing volumes.
const MOUNTABLE: [&str; 3] = ["xfs", "ext4", "vfat"];

/// The disk for a volume on one node.
#[derive(Debug)]
pub struct Choice {
    pub how: How,
    pub disk: ApprovedDisk,
    /// The CEL expression that this disk alone matches, or the volume to adopt on it. A disk that holds the volume
    /// may have none.
    pub selector: Option<String>,
}

/// What the disk is to the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It is empty and will be written.
    Empty,
    /// It is in use, and its free space will be written.
    Beside,
    /// The volume exists already.
    Holds,
    /// It has a file system that will be mounted.
    Adopts,
}

/// The label of a volume's partition, and the id of the volume; a directory's id alone.
pub fn id(volume: &Volume) -> String {
    let prefix = match volume.kind {
        VolumeType::Raw => RAW_VOLUME,
        VolumeType::Existing => EXISTING_VOLUME,
        VolumeType::Partition | VolumeType::Disk | VolumeType::Directory => USER_VOLUME,
    };
    format!("{prefix}{}", volume.name)
}

/// Chooses for one of a node's volumes, or refuses with the candidates listed ([`crate::error::Kind::Refused`]).
///
/// Every disk that the selector matches counts, also one that could not be used: Talos itself takes the first
/// that fits, so an expression that matches two disks may take the other one tomorrow.
pub fn choose(volume: &Volume, all: &[Volume], disks: &[Disk]) -> Result<Choice> {
    choose_one(volume, all, disks).map_err(|e| e.at(format!("volume {}", volume.name)))
}

fn choose_one(volume: &Volume, all: &[Volume], disks: &[Disk]) -> Result<Choice> {
    let disk = matched(volume, disks)?;
    if let Some(other) = disks.iter().find(|other| other.id != disk.id && holds(other, volume)) {
        return Err(Error::refused(format!(
            "{} has a partition {} already, and the selector matches {}",
            describe(other),
            id(volume),
            describe(disk)
        ))
        .hint(format!(
            "Talos takes the one that is there; select that disk, or, if nothing on it is needed: `nodeprep wipe --volume {} --wipe-disk {}`",
            volume.name,
            other.token(disks).unwrap_or_else(|| "SERIAL".into())
        )));
    }
    let how = if volume.kind == VolumeType::Existing {
        How::Adopts
    } else if holds(disk, volume) {
        How::Holds
    } else {
        free(volume, all, disk, disks)?
    };
    let selector = match (how, pin(disk, disks)) {
        (How::Adopts, Ok(pinned)) => Some(adopted(volume, disk, &pinned)?),
        (_, Ok(pinned)) => Some(pinned),
        (How::Holds, Err(_)) => None,
        (_, Err(error)) => return Err(error),
    };
    Ok(Choice { how, disk: approve(volume, all, disk, disks, how == How::Adopts), selector })
}

fn approve(volume: &Volume, all: &[Volume], disk: &Disk, disks: &[Disk], adopted: bool) -> ApprovedDisk {
    let label = id(volume);
    let sharing = sharing(volume, all, disk, disks).into_iter().map(id);
    let mut beside: Vec<String> = disk.partitions.iter().map(|p| p.label.clone()).chain(sharing).collect();
    beside.retain(|other| *other != label);
    beside.sort();
    beside.dedup();
    ApprovedDisk {
        volume: volume.name.clone(),
        label,
        beside,
        adopted,
        id: disk.identity(),
        name: disk.id.clone(),
        what: describe(disk),
    }
}

/// The one disk that the volume's selector matches.
pub(super) fn matched<'a>(volume: &Volume, disks: &'a [Disk]) -> Result<&'a Disk> {
    let selector = Selector::parse(&volume.disk.matches)?;
    let matched = selector.choose(disks, |disk| holds(disk, volume))?;
    let matched: Vec<&Disk> = matched.into_iter().filter_map(|i| disks.get(i)).collect();
    match matched[..] {
        [disk] => Ok(disk),
        _ => Err(not_one(volume, &matched, disks)),
    }
}

/// Whether the volume is on the disk, as far as its label tells.
pub(super) fn holds(disk: &Disk, volume: &Volume) -> bool {
    match volume.kind {
        VolumeType::Partition | VolumeType::Raw => {
            let label = id(volume);
            disk.partitions.iter().any(|partition| partition.label == label)
        }
        VolumeType::Disk => disk.partitions.is_empty() && disk.holder == Holder::Volume(id(volume)),
        VolumeType::Directory | VolumeType::Existing => false,
    }
}

/// Whether a disk that does not hold the volume can take it.
fn free(volume: &Volume, all: &[Volume], disk: &Disk, disks: &[Disk]) -> Result<How> {
    let how = match &disk.eligible {
        Ok(()) => How::Empty,
        Err(_) if volume.disk.shared && disk.is_held() => {
            partitions_known(disk, &sharing(volume, all, disk, disks))?;
            How::Beside
        }
        Err(why) => {
            return Err(Error::refused(format!("{} is not free: {why}", describe(disk)))
                .hint(way_out(volume, all, disk, disks)));
        }
    };
    if volume.kind == VolumeType::Disk && disk.holder != Holder::Nothing {
        return Err(Error::refused(format!("{} holds an empty partition table", describe(disk)))
            .hint("Talos makes a volume of type disk only where there is none: choose type partition"));
    }
    let space = disk.spec.size.saturating_sub(TABLE);
    fits(volume, space, &sharing(volume, all, disk, disks), disk)?;
    Ok(how)
}

/// What to do about a disk that is not free: a volume of the node goes only as a volume, Talos' own disk never.
fn way_out(volume: &Volume, all: &[Volume], disk: &Disk, disks: &[Disk]) -> String {
    let another = "nodeprep writes to empty disks only; choose another disk";
    if disk.system {
        return "Talos itself is on it: choose another disk, with `!system_disk` in the selector, or let the volume have a \
                part of this one: disk: {match: …, shared: true} and a maxSize"
            .into();
    }
    let tells = !matches!(disk.holder, Holder::Nothing | Holder::Unknown(_)) && disk.unfit().is_none();
    let Some(token) = disk.token(disks).filter(|_| tells) else { return another.to_owned() };
    let used = disk.uses.volumes.iter().map(|(id, _)| id);
    let held = disk.partitions.iter().map(|part| &part.label).filter(|id| !disk.uses.strays.contains(id));
    let name = |id: &'_ String| {
        let name = [USER_VOLUME, RAW_VOLUME].iter().find_map(|of| id.strip_prefix(of));
        name.map(str::to_owned)
    };
    let other = used.chain(held).find_map(name);
    match other {
        Some(old) if all.iter().any(|listed| listed.name == old) => another.to_owned(),
        Some(old) => format!(
            "a volume can't be renamed: keep its name, or, if its data are not needed: `nodeprep remove --volume {old} \
             --wipe-disk {token}`, then {} is made there",
            volume.name
        ),
        None if !disk.uses.mounts.is_empty() || !disk.uses.uppers.is_empty() => another.to_owned(),
        None => format!(
            "{another}, or, if nothing on it is needed: `nodeprep wipe --disk {} --wipe-disk {token}`",
            disk.id
        ),
    }
}

/// The other volumes that share this disk with the volume.
fn sharing<'a>(volume: &Volume, all: &'a [Volume], disk: &Disk, disks: &[Disk]) -> Vec<&'a Volume> {
    let here = |other: &&Volume| {
        other.disk.shared
            && other.name != volume.name
            && matched(other, disks).is_ok_and(|found| found.id == disk.id)
    };
    if volume.disk.shared { all.iter().filter(here).collect() } else { Vec::new() }
}

/// A disk may be shared with volumes of the file, and with Talos on its own disk; with nothing else.
fn partitions_known(disk: &Disk, sharing: &[&Volume]) -> Result<()> {
    let ours = |partition: &Partition| {
        sharing.iter().any(|other| holds(disk, other) && id(other) == partition.label)
    };
    let talos = |partition: &Partition| disk.system && TALOS.contains(&partition.label.as_str());
    let stranger = disk.partitions.iter().find(|p| !ours(p) && !talos(p) || p.size == 0);
    let what = match stranger {
        Some(partition) if partition.label.is_empty() => format!("partition {}", partition.id),
        Some(partition) => format!("partition {} ({})", partition.id, partition.label),
        None if disk.partitions.is_empty() => disk.holder.to_string(),
        None => return Ok(()),
    };
    Err(Error::refused(format!("{} can't be shared: it holds {what}", describe(disk))).hint(
        "a disk is shared with volumes of the file and with Talos itself only, and their sizes must be known",
    ))
}

/// The volume and those that share its disk all have room.
fn fits(volume: &Volume, space: u64, sharing: &[&Volume], disk: &Disk) -> Result<()> {
    let taken = disk.partitions.iter().fold(0, |sum: u64, partition| sum.saturating_add(partition.size));
    let to_come = sharing.iter().filter(|other| !holds(disk, other));
    let to_come = to_come.filter_map(|other| other.max_size?.bytes());
    let reserved = to_come.fold(0, u64::saturating_add);
    let free = space.saturating_sub(taken).saturating_sub(reserved);
    let least = volume.min_size.map_or(0, |size| size.0);
    let size = volume.max_size.map_or(free, |most| most.of(free));
    let most = volume.max_size.and_then(crate::intent::MaxSize::bytes).filter(|_| volume.disk.shared);
    let what = describe(disk);
    let least_text = volume.min_size.map_or_else(String::new, |size| size.to_string());
    if taken == 0 && reserved == 0 && free < least {
        return Err(Error::refused(format!("{what} is smaller than minSize {least_text}"))
            .hint("lower minSize or choose a larger disk"));
    }
    if free < least || most.is_some_and(|most| free < most) {
        let hint = if disk.system {
            "lower maxSize, or choose another disk; EPHEMERAL gives nothing back: a smaller one is made only by a reset of it, and all that is on it is lost: `talosctl patch machineconfig` its VolumeConfig with a maxSize, then `talosctl reset --system-labels-to-wipe EPHEMERAL --reboot`"
        } else {
            "lower maxSize of the volumes that share the disk, or choose a larger disk"
        };
        return Err(Error::refused(format!("{what} has only {} left for it", human(free))).hint(hint));
    }
    if size < least {
        let most = volume.max_size.map_or_else(String::new, |most| most.to_string());
        return Err(Error::refused(format!(
            "{what} has {} free: maxSize {most} of it is less than minSize {least_text}",
            human(free)
        ))
        .hint("raise maxSize, lower minSize or choose a larger disk"));
    }
    Ok(())
}

/// What finds the file system to adopt on the disk, and no other.
fn adopted(volume: &Volume, disk: &Disk, pinned: &str) -> Result<String> {
    let hint = "an existing volume is a partition by its label, or a file system on the whole disk; `nodeprep discover -o json` shows both";
    let refuse = |what: String| Err(Error::refused(format!("{}: {what}", describe(disk))).hint(hint));
    let Some(label) = &volume.partition else {
        return match &disk.holder {
            Holder::Filesystem { kind, .. } if disk.partitions.is_empty() => {
                mountable(kind, disk)?;
                Ok(format!("volume.name == {} && {pinned}", cel_string(kind)))
            }
            holder => refuse(format!("the whole disk is no file system, it holds {holder}")),
        };
    };
    if TALOS.contains(&label.as_str()) {
        return refuse(format!("partition {label} is Talos' own"));
    }
    let found: Vec<&Partition> = disk.partitions.iter().filter(|p| p.label == *label).collect();
    let [partition] = found[..] else {
        return refuse(format!("it has {} partitions with the label {label}", found.len()));
    };
    mountable(&partition.format, disk)?;
    Ok(format!("volume.partition_label == {} && {pinned}", cel_string(label)))
}

fn mountable(format: &str, disk: &Disk) -> Result<()> {
    if MOUNTABLE.contains(&format) {
        return Ok(());
    }
    let format = if format.is_empty() { "nothing that Talos recognises" } else { format };
    Err(Error::refused(format!("{}: to be adopted, but it holds {format}", describe(disk)))
        .hint(format!("Talos mounts {}", MOUNTABLE.join(", "))))
}

/// The expression by serial or WWID that this disk alone matches.
fn pin(disk: &Disk, disks: &[Disk]) -> Result<String> {
    if disk.identity().is_empty() {
        return Err(Error::refused(format!("{} has neither serial nor WWID", describe(disk)))
            .hint("its name may mean another disk after a reboot, so nodeprep does not write to it"));
    }
    // The other disks' are compared as they are: that the expression means this value is seen on the disk itself.
    let means =
        |expression: &String| select(expression, std::slice::from_ref(disk)).is_ok_and(|found| found == [0]);
    let marks = disk.marks(disks).into_iter();
    let mut pins = marks.map(|(field, value)| format!("disk.{field} == {}", cel_string(&value)));
    match pins.find(means) {
        Some(pin) if disk.twin(disks).is_none() => Ok(pin),
        _ => {
            Err(Error::refused(format!("another disk says it has the serial or WWID of {}", describe(disk)))
                .hint("they may be one disk seen twice; nodeprep can't tell them apart safely"))
        }
    }
}

/// The approved disk, found again by what does not change, is still empty or holds only what the plan knows of.
pub fn still(approved: &ApprovedDisk, disks: &[Disk]) -> Result<()> {
    let what = format!("the approved disk {}", approved.what);
    let disk = approved.id.find(disks).map_err(|error| error.at(&what))?;
    let ours = |label: &String| *label == approved.label || approved.beside.contains(label);
    let known = if disk.partitions.is_empty() {
        disk.holder == Holder::Volume(approved.label.clone())
    } else {
        disk.is_held() && disk.partitions.iter().all(|partition| ours(&partition.label))
    };
    match &disk.eligible {
        Err(why) if !known && !approved.adopted => {
            Err(Error::refused(format!("{what} is not free any more: {why}"))
                .hint("run it again, to plan from what is there now"))
        }
        _ => Ok(()),
    }
}

fn not_one(volume: &Volume, matched: &[&Disk], all: &[Disk]) -> Error {
    let list = |disks: &mut dyn Iterator<Item = &Disk>| {
        disks.map(|disk| format!("\n  {}{}", describe(disk), state(disk))).collect::<String>()
    };
    let expression = &volume.disk.matches;
    if matched.is_empty() {
        let real = list(&mut all.iter().filter(|d| !matches!(d.holder, Holder::System) && !d.is_memory()));
        return Error::refused(format!("no disk matches `{expression}`; the node has:{real}"))
            .hint("correct the selector; `nodeprep discover --select` tries one");
    }
    let found = list(&mut matched.iter().copied());
    Error::refused(format!("`{expression}` matches {} disks:{found}", matched.len()))
        .hint("make it match exactly one, for example by its serial: disk.serial == \"…\"")
}

fn state(disk: &Disk) -> String {
    disk.eligible.as_ref().err().map_or_else(|| " — free".to_owned(), |why| format!(" — {why}"))
}

pub(super) fn describe(disk: &Disk) -> String {
    let part =
        |name: &str, value: &str| if value.is_empty() { String::new() } else { format!(", {name} {value}") };
    let spec = &disk.spec;
    format!(
        "{} ({}{}{})",
        disk.id,
        human(spec.size),
        part("model", &spec.model),
        part("serial", &spec.serial)
    )
}

/// A CEL string literal; CEL and JSON escape quotes and backslashes alike.
pub(super) fn cel_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Bytes as people read them: `4.0GiB`.
pub fn human(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{value:.1}{}", units[unit]) }
}
