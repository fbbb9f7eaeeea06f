//! Talos' volume manager: volumes are found by their label or their locator, or made on a disk that matches, or are
//! directories of Talos' own data partition; then all but raw ones are mounted.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Machine;
use super::config::release;
use super::disks::{Contents, Partition};
use super::documents::VolumeDocument;
use super::locator;
use crate::host::{FileSystem, USER_VOLUMES};
use crate::intent::VolumeType;
use crate::model::disks::select;
use crate::timers::Timers;

/// From one phase to the next.
const STEP: Duration = Duration::from_millis(250);
/// After which time what failed is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// How v1.14.1 said it, with all of mkfs' usage; shortened.
const MKFS_FAILED: &str = "error formatting XFS: failed to format filesystem: exit status 1: unknown option -d concurrency=0\n\
                           Usage: mkfs.xfs\n/* blocksize */\t\t[-b size=num]";

/// A volume on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    pub phase: Phase,
    /// Why it does not come further.
    pub error: String,
    /// Where it is mounted when it is ready; nothing of a raw volume.
    pub mount: String,
    /// With project quota.
    pub quota: bool,
    #[serde(default)]
    pub of: VolumeType,
    /// The kernel's name of the device where an existing volume was found.
    #[serde(default)]
    pub found: Option<String>,
    /// Its flags are not yet those of its document.
    #[serde(default)]
    pub remounting: bool,
    /// What was on it when it was mounted last.
    pub unmounted: Option<FileSystem>,
}

/// How far a volume has come (siderolabs/talos, block.VolumePhase).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    Waiting,
    Failed,
    /// Its locator finds nothing.
    Missing,
    Provisioned,
    Prepared,
    Ready,
}

impl Phase {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Missing => "missing",
            Self::Provisioned => "provisioned",
            Self::Prepared => "prepared",
            Self::Ready => "ready",
        }
    }
}

/// Takes every volume of the configuration one phase further, when that is due. While one of those that are made has no place,
/// those that come after it get none.
pub(super) fn settle(machine: &mut Machine, wanted: &[VolumeDocument], timers: &mut Timers, now: Timestamp) {
    let gone: Vec<String> =
        machine.volumes.keys().filter(|id| !wanted.iter().any(|v| v.id() == **id)).cloned().collect();
    for id in gone {
        if let Some(volume) = machine.volumes.remove(&id) {
            machine.host.mounts.remove(&volume.mount);
        }
        let holds = |disk: &&mut super::disks::Disk| disk.volume.as_ref() == Some(&id);
        machine.disks.iter_mut().filter(holds).for_each(|disk| disk.volume = None);
    }
    let mut wanted: Vec<&VolumeDocument> = wanted.iter().collect();
    wanted.sort_by_key(|volume| volume.order());
    let mut held_up = false;
    for volume in wanted {
        advance(machine, volume, held_up, timers, now);
        let failed = machine.volumes.get(&volume.id()).is_some_and(|volume| volume.phase == Phase::Failed);
        held_up |= failed && volume.is_made();
    }
}

fn advance(
    machine: &mut Machine,
    wanted: &VolumeDocument,
    held_up: bool,
    timers: &mut Timers,
    now: Timestamp,
) {
    let (id, of) = (wanted.id(), wanted.of());
    let new = || Volume {
        phase: Phase::Waiting,
        error: String::new(),
        mount: if of == VolumeType::Raw { String::new() } else { format!("{USER_VOLUMES}{}", wanted.name) },
        quota: wanted.filesystem.project_quota_support,
        of,
        found: None,
        remounting: false,
        unmounted: None,
    };
    let phase = machine.volumes.entry(id.clone()).or_insert_with(new).phase;
    if phase == Phase::Ready {
        return remount(machine, wanted, timers, now);
    }
    let takes = match phase {
        Phase::Failed | Phase::Missing => RETRY,
        Phase::Waiting if held_up => RETRY,
        _ => STEP,
    };
    if !timers.done(&format!("machine/{}/volume/{id}", machine.address), takes, now) {
        return;
    }
    let next = match phase {
        Phase::Prepared | Phase::Failed if mkfs_fails(machine, wanted) => Err(MKFS_FAILED.to_owned()),
        Phase::Waiting | Phase::Failed | Phase::Missing => locate(machine, wanted, held_up),
        Phase::Provisioned => Ok(Phase::Prepared),
        Phase::Prepared | Phase::Ready => {
            mount(machine, wanted);
            Ok(Phase::Ready)
        }
    };
    if let Some(volume) = machine.volumes.get_mut(&id) {
        (volume.phase, volume.error) =
            next.map_or_else(|error| (Phase::Failed, error), |next| (next, String::new()));
    }
}

fn mkfs_fails(machine: &Machine, wanted: &VolumeDocument) -> bool {
    let formats = wanted.is_made() && !wanted.format().is_empty();
    formats && device(machine, &wanted.id()).is_some_and(|(disk, ..)| disk.mkfs_fails)
}

/// The flags of a mounted volume follow its document, some seconds later.
fn remount(machine: &mut Machine, wanted: &VolumeDocument, timers: &mut Timers, now: Timestamp) {
    let (flags, key) =
        (flags(machine, wanted), format!("machine/{}/remount/{}", machine.address, wanted.name));
    let path = machine.volumes.get(&wanted.id()).map_or_else(String::new, |volume| volume.mount.clone());
    let Some(mounted) = machine.host.mounts.get_mut(&path) else { return };
    let mut differs = !mounted.options.iter().filter(|option| is_flag(option)).eq(flags.iter());
    if differs && timers.done(&key, REMOUNT, now) {
        set_flags(&mut mounted.options, flags);
        differs = false;
    }
    if let Some(volume) = machine.volumes.get_mut(&wanted.id()) {
        volume.remounting = differs;
    }
}

const FLAGS: [&str; 3] = ["nosuid", "nodev", "noexec"];
/// Seen of v1.14.1: 13 s after the call.
const REMOUNT: Duration = Duration::from_secs(13);

/// What is not to be done on a volume: `mount.secure`, which is so unless the document says otherwise, and forbids programs from
/// 1.14 on.
fn flags(machine: &Machine, wanted: &VolumeDocument) -> Vec<String> {
    let secure = wanted.mount["secure"] != false;
    let known = if release(&machine.version) >= (1, 14) { 3 } else { 2 };
    FLAGS.into_iter().take(if secure { known } else { 0 }).map(str::to_owned).collect()
}

fn is_flag(option: &str) -> bool {
    FLAGS.contains(&option)
}

/// Puts the flags after `rw`, in place of those that are there.
fn set_flags(options: &mut Vec<String>, flags: Vec<String>) {
    options.retain(|option| !is_flag(option));
    options.splice(1..1, flags);
}

/// Finds the volume, or makes it, unless it is held up.
fn locate(machine: &mut Machine, wanted: &VolumeDocument, held_up: bool) -> Result<Phase, String> {
    let label = wanted.id();
    match wanted.of() {
        VolumeType::Directory => return Ok(Phase::Provisioned),
        VolumeType::Existing => return find(machine, wanted),
        VolumeType::Partition | VolumeType::Disk | VolumeType::Raw => {}
    }
    if let Some(disk) = machine.disks.iter_mut().find(|disk| disk.holding(&label).is_some()) {
        disk.format_wiped(&label, wanted.format());
        return Ok(Phase::Provisioned);
    }
    let observed: Vec<_> = machine.disks.iter().map(super::disks::Disk::observed).collect();
    let matching =
        select(&wanted.provisioning.disk_selector.expression, &observed).map_err(|error| error.what)?;
    let disks = matching.iter().filter_map(|index| Some((*index, machine.disks.get(*index)?)));
    if wanted.of() == VolumeType::Disk && !matching.is_empty() {
        let [index] = matching[..] else {
            let paths: Vec<String> = disks.map(|(_, disk)| disk.path()).collect();
            let paths = paths.join(" ");
            return Err(format!("multiple disks matched locator for disk volume; matched disks: [{paths}]"));
        };
        if let Some(disk) = machine.disks.get_mut(index) {
            disk.give(&label, wanted.format())?;
        }
        return Ok(Phase::Provisioned);
    }
    if held_up {
        return Ok(Phase::Waiting);
    }
    if matching.is_empty() {
        return Err("no disks matched selector for volume".to_owned());
    }
    let size = |(index, disk): (usize, &super::disks::Disk)| {
        let free = disk.free()?;
        let (least, most) = wanted.sizes(free);
        (free >= least).then_some((index, most))
    };
    let Some((index, size)) = disks.clone().find_map(size) else {
        let (all, full) = (matching.len(), disks.filter(|(_, disk)| disk.free().is_some()).count());
        return Err(format!(
            "no disks matched for volume ({all} matched selector): {full} have not enough space, {} have wrong format, 0 have other \
             issues",
            all - full
        ));
    };
    let partition = Partition { label, format: wanted.format().to_owned(), size };
    if let Some(disk) = machine.disks.get_mut(index) {
        let over = matches!(disk.contents, Contents::Mbr(_));
        let (index, path) = (disk.add(partition), disk.path());
        let over = if over { " over a table it did not recognise" } else { "" };
        machine.log(format!("[talos] formatted partition {index} of {path} for {}{over}", wanted.name));
    }
    Ok(Phase::Provisioned)
}

/// Finds an existing volume. Before 1.14 one without a file system is ready too, and can't be mounted.
fn find(machine: &mut Machine, wanted: &VolumeDocument) -> Result<Phase, String> {
    let found = locator::find(&wanted.discovery.volume_selector.expression, &machine.disks)?;
    let Some((device, format)) = found else { return Ok(Phase::Missing) };
    if format.is_empty() && release(&machine.version) >= (1, 14) {
        return Err(format!("filesystem not found on /dev/{device}"));
    }
    if let Some(volume) = machine.volumes.get_mut(&wanted.id()) {
        volume.found = Some(device);
    }
    Ok(Phase::Provisioned)
}

/// The disk that holds the volume and its partition there; the disk itself at index 0.
pub(super) fn device<'a>(
    machine: &'a Machine,
    id: &str,
) -> Option<(&'a super::disks::Disk, usize, Partition)> {
    let found = machine.volumes.get(id).and_then(|volume| volume.found.as_ref());
    machine.disks.iter().find_map(|disk| {
        let (index, partition) = match found {
            Some(found) => disk.at(disk.index_of(found)?)?,
            None => disk.holding(id)?,
        };
        Some((disk, index, partition))
    })
}

fn mount(machine: &mut Machine, wanted: &VolumeDocument) {
    let id = wanted.id();
    let fresh = match wanted.of() {
        VolumeType::Raw => None,
        VolumeType::Directory => directory(machine, wanted),
        VolumeType::Partition | VolumeType::Disk | VolumeType::Existing => partition(machine, wanted),
    };
    let (Some(fresh), Some(volume)) = (fresh, machine.volumes.get_mut(&id)) else { return };
    let kept = volume.unmounted.take().map(|kept| (kept.used, kept.directories));
    let (used, directories) = kept.unwrap_or((fresh.used, BTreeMap::new()));
    machine.host.mounts.insert(volume.mount.clone(), FileSystem { used, directories, ..fresh });
}

fn partition(machine: &Machine, wanted: &VolumeDocument) -> Option<FileSystem> {
    let (disk, index, partition) = device(machine, &wanted.id()).filter(|(.., at)| !at.format.is_empty())?;
    let write = if wanted.mount["readOnly"] == true { "ro" } else { "rw" };
    let mut options = [write, "noatime"].map(str::to_owned).to_vec();
    set_flags(&mut options, flags(machine, wanted));
    if wanted.filesystem.project_quota_support {
        options.push("prjquota".to_owned());
    }
    Some(FileSystem {
        source: format!("/dev/{}", disk.partition(index)),
        kind: partition.format,
        options,
        size: partition.size,
        used: partition.size / 200,
        speed: disk.speed,
        ..FileSystem::default()
    })
}

/// A folder of what is mounted at `/var`, mounted once more; what is on it is counted apart.
fn directory(machine: &Machine, wanted: &VolumeDocument) -> Option<FileSystem> {
    let var = machine.host.mounts.get("/var")?;
    let root = format!("{}/mnt/{}", var.root, wanted.name);
    let mut options = var.options.clone();
    set_flags(&mut options, flags(machine, wanted));
    Some(FileSystem { root, options, directories: BTreeMap::new(), ..var.clone() })
}
