//! What of a volume needs which Talos, and what each Talos makes of it
//! (siderolabs/talos, pkg/machinery/config/types/block, by release).

use crate::error::{Error, Result};
use crate::intent::{MaxSize, Volume, VolumeType};
use crate::model::node::Version;

/// Talos knows user volumes from this release on; before, a volume is named by its device, which may change.
const USER_VOLUMES: (u64, u64) = (1, 10);

/// Refuses a Talos that is read and never written to.
pub(super) fn writable(version: &Version) -> Result<()> {
    if release(version) >= USER_VOLUMES {
        return Ok(());
    }
    Err(Error::refused(format!("Talos {} has no user volumes", version.tag))
        .hint("upgrade to Talos 1.10 or later first; older versions name disks by device, which is not safe"))
}

/// What this Talos does not have of a volume, each with the release that has it.
pub(super) fn unsupported(volume: &Volume, version: &Version) -> Vec<Error> {
    let (name, tag) = (&volume.name, &version.tag);
    if let Err(error) = writable(version) {
        return vec![error];
    }
    let lacks = needs(volume).into_iter().filter(|(wanted, _, first)| *wanted && release(version) < *first);
    let mut errors: Vec<Error> = lacks
        .map(|(_, what, (major, minor))| {
            Error::refused(format!("volume {name}: Talos {tag} has no {what}"))
                .hint(format!("upgrade to Talos {major}.{minor} or later, or take it out of the file"))
        })
        .collect();
    if let (VolumeType::Raw, Some(most @ (MaxSize::AllBut(_) | MaxSize::AllButPercent(_))), true) =
        (volume.kind, volume.max_size, errors.is_empty())
    {
        let what =
            format!("volume {name}: Talos {tag} gives a raw volume {most} as its size, not all but that");
        errors.push(Error::refused(what).hint("write maxSize in bytes or in percent"));
    }
    errors
}

fn needs(volume: &Volume) -> [(bool, &'static str, (u64, u64)); 12] {
    let kind = volume.kind;
    let most = volume.max_size;
    [
        (kind == VolumeType::Raw, "raw volumes", (1, 11)),
        (kind == VolumeType::Existing, "existing volumes", (1, 11)),
        (volume.filesystem.project_quota, "filesystem.projectQuota", (1, 11)),
        (kind == VolumeType::Disk, "volumes of type disk", (1, 12)),
        (kind == VolumeType::Directory, "volumes of type directory", (1, 12)),
        (matches!(most, Some(MaxSize::Percent(_))), "maxSize in percent", (1, 12)),
        (matches!(most, Some(MaxSize::AllBut(_) | MaxSize::AllButPercent(_))), "negative maxSize", (1, 13)),
        (volume.mount.secure.is_some() && kind != VolumeType::Directory, "mount.secure", (1, 13)),
        (
            volume.mount.secure.is_some() && kind == VolumeType::Directory,
            "mount.secure of a directory",
            (1, 14),
        ),
        (volume.mount.disable_access_time.is_some(), "mount.disableAccessTime", (1, 13)),
        (volume.trim.is_some(), "trim", (1, 14)),
        (volume.scrub.is_some(), "scrub", (1, 14)),
    ]
}

/// What people should know of a volume that this Talos is about to make.
pub(super) fn note(volume: &Volume, version: &Version) -> Option<String> {
    let name = &volume.name;
    let mounted = volume.kind != VolumeType::Raw;
    if mounted && volume.mount.secure.is_none() && release(version) >= (1, 14) {
        return Some(format!(
            "volume {name} is mounted noexec, the default of Talos 1.14: programs on it don't run unless mount.secure is false"
        ));
    }
    // Up to 1.13.2 the kubelet's view of /var/mnt takes in no new mounts.
    let (major, minor, patch) = version.parsed;
    ((major, minor) == (1, 13) && patch < 3 && mounted).then(|| {
        format!("Talos {} shows volume {name} to its kubelet only after the kubelet's restart", version.tag)
    })
}

pub(super) const fn release(version: &Version) -> (u64, u64) {
    (version.parsed.0, version.parsed.1)
}
