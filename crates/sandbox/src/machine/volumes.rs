//! Talos' volume manager: user volumes are found by their label or made on a disk that matches, or are directories of
//! Talos' own data partition; then they are mounted.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Machine;
use super::config::release;
use super::disks::{Contents, Partition};
use super::documents::UserVolume;
use crate::host::{FileSystem, USER_VOLUMES};
use crate::model::disks::select;
use crate::timers::Timers;

/// From one phase to the next.
const STEP: Duration = Duration::from_millis(250);
/// After which time what failed is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// How v1.14.1 said it, with all of mkfs' usage; shortened.
const MKFS_FAILED: &str = "error formatting XFS: failed to format filesystem: exit status 1: unknown option -d concurrency=0\n\
                           Usage: mkfs.xfs\n/* blocksize */\t\t[-b size=num]";

/// A user volume on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    pub phase: Phase,
    /// Why it does not come further.
    pub error: String,
    /// Where it is mounted when it is ready.
    pub mount: String,
    /// With project quota.
    pub quota: bool,
    /// It is a directory of Talos' own data partition.
    #[serde(default)]
    pub directory: bool,
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
    Provisioned,
    Prepared,
    Ready,
}

impl Phase {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Provisioned => "provisioned",
            Self::Prepared => "prepared",
            Self::Ready => "ready",
        }
    }
}

/// Takes every user volume of the configuration one phase further, when that is due.
pub(super) fn settle(machine: &mut Machine, wanted: &[UserVolume], timers: &mut Timers, now: Timestamp) {
    let gone: Vec<String> =
        machine.volumes.keys().filter(|id| !wanted.iter().any(|v| id_of(v) == **id)).cloned().collect();
    for id in gone {
        if let Some(volume) = machine.volumes.remove(&id) {
            machine.host.mounts.remove(&volume.mount);
        }
        let holds = |disk: &&mut super::disks::Disk| disk.volume.as_ref() == Some(&id);
        machine.disks.iter_mut().filter(holds).for_each(|disk| disk.volume = None);
    }
    for volume in wanted {
        advance(machine, volume, timers, now);
    }
}

fn id_of(volume: &UserVolume) -> String {
    format!("u-{}", volume.name)
}

fn advance(machine: &mut Machine, wanted: &UserVolume, timers: &mut Timers, now: Timestamp) {
    let id = id_of(wanted);
    let new = || Volume {
        phase: Phase::Waiting,
        error: String::new(),
        mount: format!("{USER_VOLUMES}{}", wanted.name),
        quota: wanted.filesystem.project_quota_support,
        directory: wanted.is_directory(),
        remounting: false,
        unmounted: None,
    };
    let phase = machine.volumes.entry(id.clone()).or_insert_with(new).phase;
    if phase == Phase::Ready {
        return remount(machine, wanted, timers, now);
    }
    let takes = if phase == Phase::Failed { RETRY } else { STEP };
    if !timers.done(&format!("machine/{}/volume/{id}", machine.address), takes, now) {
        return;
    }
    let (next, error) = match phase {
        Phase::Prepared | Phase::Failed if mkfs_fails(machine, &id) => {
            (Phase::Failed, MKFS_FAILED.to_owned())
        }
        Phase::Waiting | Phase::Failed if wanted.is_directory() => (Phase::Provisioned, String::new()),
        Phase::Waiting | Phase::Failed => match locate(machine, wanted) {
            Ok(()) => (Phase::Provisioned, String::new()),
            Err(error) => (Phase::Failed, error),
        },
        Phase::Provisioned => (Phase::Prepared, String::new()),
        Phase::Prepared | Phase::Ready => {
            mount(machine, wanted);
            (Phase::Ready, String::new())
        }
    };
    if let Some(volume) = machine.volumes.get_mut(&id) {
        volume.phase = next;
        volume.error = error;
    }
}

fn mkfs_fails(machine: &Machine, id: &str) -> bool {
    device(machine, id).is_some_and(|(disk, ..)| disk.mkfs_fails)
}

/// The flags of a mounted volume follow its document, some seconds later.
fn remount(machine: &mut Machine, wanted: &UserVolume, timers: &mut Timers, now: Timestamp) {
    let (flags, key) =
        (flags(machine, wanted), format!("machine/{}/remount/{}", machine.address, wanted.name));
    let path = format!("{USER_VOLUMES}{}", wanted.name);
    let Some(mounted) = machine.host.mounts.get_mut(&path) else { return };
    let mut differs = !mounted.options.iter().filter(|option| is_flag(option)).eq(flags.iter());
    if differs && timers.done(&key, REMOUNT, now) {
        set_flags(&mut mounted.options, flags);
        differs = false;
    }
    if let Some(volume) = machine.volumes.get_mut(&id_of(wanted)) {
        volume.remounting = differs;
    }
}

const FLAGS: [&str; 3] = ["nosuid", "nodev", "noexec"];
/// Seen of v1.14.1: 13 s after the call.
const REMOUNT: Duration = Duration::from_secs(13);

/// What is not to be done on a volume: `mount.secure`, which is so unless the document says otherwise, and forbids programs from
/// 1.14 on.
fn flags(machine: &Machine, wanted: &UserVolume) -> Vec<String> {
    let secure = wanted.mount.as_ref().is_none_or(|mount| mount["secure"] != false);
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

/// Finds the partition that carries the volume's label, or makes it.
fn locate(machine: &mut Machine, wanted: &UserVolume) -> Result<(), String> {
    let label = id_of(wanted);
    if let Some(disk) = machine.disks.iter_mut().find(|disk| disk.holding(&label).is_some()) {
        disk.format_wiped(&label, wanted.kind());
        return Ok(());
    }
    let observed: Vec<_> = machine.disks.iter().map(super::disks::Disk::observed).collect();
    let matching =
        select(&wanted.provisioning.disk_selector.expression, &observed).map_err(|error| error.what)?;
    if matching.is_empty() {
        return Err("no disks matched selector for volume".to_owned());
    }
    if wanted.is_disk() {
        let [index] = matching[..] else {
            return Err("multiple disks matched locator for disk volume".to_owned());
        };
        return machine.disks.get_mut(index).map_or(Ok(()), |disk| disk.give(&label, wanted.kind()));
    }
    let size = |index: &usize| {
        let free = machine.disks.get(*index)?.free()?;
        let (least, most) = wanted.sizes(free);
        (free >= least).then_some((*index, most))
    };
    let Some((index, size)) = matching.iter().find_map(size) else {
        return Err("not enough space on the disks that match the selector for volume".to_owned());
    };
    let partition = Partition { label, format: wanted.kind().to_owned(), size };
    if let Some(disk) = machine.disks.get_mut(index) {
        let over = matches!(disk.contents, Contents::Mbr(_));
        let (index, path) = (disk.add(partition), disk.path());
        let over = if over { " over a table it did not recognise" } else { "" };
        machine.log(format!("[talos] formatted partition {index} of {path} for {}{over}", wanted.name));
    }
    Ok(())
}

/// The disk that holds the volume and its partition there; the disk itself at index 0.
pub(super) fn device<'a>(
    machine: &'a Machine,
    id: &str,
) -> Option<(&'a super::disks::Disk, usize, Partition)> {
    machine.disks.iter().find_map(|disk| {
        let (index, partition) = disk.holding(id)?;
        Some((disk, index, partition))
    })
}

fn mount(machine: &mut Machine, wanted: &UserVolume) {
    let id = id_of(wanted);
    let fresh = if wanted.is_directory() { directory(machine, wanted) } else { partition(machine, wanted) };
    let (Some(fresh), Some(volume)) = (fresh, machine.volumes.get_mut(&id)) else { return };
    let kept = volume.unmounted.take().map(|kept| (kept.used, kept.directories));
    let (used, directories) = kept.unwrap_or((fresh.used, BTreeMap::new()));
    machine.host.mounts.insert(volume.mount.clone(), FileSystem { used, directories, ..fresh });
}

fn partition(machine: &Machine, wanted: &UserVolume) -> Option<FileSystem> {
    let (disk, index, partition) = device(machine, &id_of(wanted))?;
    let mut options = ["rw", "noatime"].map(str::to_owned).to_vec();
    set_flags(&mut options, flags(machine, wanted));
    if wanted.filesystem.project_quota_support {
        options.push("prjquota".to_owned());
    }
    Some(FileSystem {
        source: format!("/dev/{}", disk.partition(index)),
        kind: wanted.kind().to_owned(),
        options,
        size: partition.size,
        used: partition.size / 200,
        speed: disk.speed,
        ..FileSystem::default()
    })
}

/// A folder of what is mounted at `/var`, mounted once more; what is on it is counted apart.
fn directory(machine: &Machine, wanted: &UserVolume) -> Option<FileSystem> {
    let var = machine.host.mounts.get("/var")?;
    let root = format!("{}/mnt/{}", var.root, wanted.name);
    let mut options = var.options.clone();
    set_flags(&mut options, flags(machine, wanted));
    Some(FileSystem { root, options, directories: BTreeMap::new(), ..var.clone() })
}
