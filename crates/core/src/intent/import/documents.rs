//! Patches: the documents of volumes in them, and what else in them takes disks.

use super::tree::Source;
use super::volume::UserVolume;
use crate::error::Result;
use crate::intent::VolumeType;
use crate::yaml::{Kind, Node};

/// Documents that take disks or make file systems, and that nodeprep has no word for.
const OTHERS: [&str; 8] = [
    "VolumeConfig",
    "ExistingVolumeConfig",
    "SwapVolumeConfig",
    "ExternalVolumeConfig",
    "LVMVolumeGroupConfig",
    "LVMLogicalVolumeConfig",
    "RAIDArrayConfig",
    "UnattendedInstallConfig",
];

/// Merges a patch into the volumes of a node, as Talos merges documents.
pub(super) fn apply(patch: &Source, volumes: &mut Vec<UserVolume>, notes: &mut Vec<String>) -> Result<()> {
    for root in patch.roots() {
        match (&root.kind, patch.text(root.get(&["kind"]))?) {
            (Kind::Seq { items, .. }, _) => json_patch(patch, items, notes),
            (_, Some(kind @ ("UserVolumeConfig" | "RawVolumeConfig"))) => {
                volume(patch, root, kind == "RawVolumeConfig", volumes, notes)?;
            }
            (_, Some(kind)) if OTHERS.contains(&kind) => {
                let name = patch.text(root.get(&["name"]))?.unwrap_or_default();
                let place = patch.place(root);
                notes.push(format!(
                    "{place}: {kind} {name} stays with the file it is in: nodeprep leaves it alone."
                ));
            }
            (_, Some(_)) => {}
            (_, None) => {
                if let Some(disks) = root.get(&["machine", "disks"]) {
                    machine_disks(patch, disks, notes)?;
                }
            }
        }
    }
    Ok(())
}

fn volume(
    patch: &Source,
    root: &Node,
    raw: bool,
    volumes: &mut Vec<UserVolume>,
    notes: &mut Vec<String>,
) -> Result<()> {
    let mut read = UserVolume::read(patch, root, notes)?;
    if patch.text(root.get(&["$patch"]))? == Some("delete") {
        volumes.retain(|volume| volume.name != read.name);
        return Ok(());
    }
    if raw {
        read.kind = Some(VolumeType::Raw);
    }
    match volumes.iter_mut().find(|volume| volume.name == read.name) {
        Some(known) => known.merge(read),
        None => volumes.push(read),
    }
    Ok(())
}

/// The legacy disks of a machine config, which Talos formats itself.
pub(super) fn machine_disks(source: &Source, disks: &Node, notes: &mut Vec<String>) -> Result<()> {
    for disk in source.list(Some(disks))? {
        let device = source.text(disk.get(&["device"]))?.unwrap_or("a disk");
        let partitions = disk.get(&["partitions"]).map(Node::items).unwrap_or_default();
        let mounts: Vec<&str> =
            partitions.iter().filter_map(|partition| partition.get(&["mountpoint"])?.text()).collect();
        let at =
            if mounts.is_empty() { String::new() } else { format!(", mounted at {}", mounts.join(", ")) };
        notes.push(format!(
            "{}: machine.disks takes {device}{at}: nodeprep leaves it alone, and no volume here may be on that disk.",
            source.place(disk)
        ));
    }
    Ok(())
}

/// A list of operations; only those on disks are of interest.
fn json_patch(patch: &Source, operations: &[Node], notes: &mut Vec<String>) {
    let path = |operation: &Node| operation.get(&["path"])?.text().map(str::to_owned);
    let disks = operations.iter().find(|operation| {
        path(operation).is_some_and(|path| path == "/machine" || path.starts_with("/machine/disks"))
    });
    if let Some(operation) = disks {
        notes.push(format!("{}: a JSON patch of machine.disks was not looked at.", patch.place(operation)));
    }
}
