//! The size of Talos' own data partition: settled when it is made, at a node's first boot.

use super::disks::{describe, human, matched};
use crate::config_doc::ConfigDoc;
use crate::error::{Error, Result};
use crate::intent::{MaxSize, Volume};
use crate::model::disks::Disk;
use crate::model::node::Version;
use crate::plan::versions::release;
use crate::yaml::{Node, Stream};

pub(super) const KIND: &str = "VolumeConfig";
pub(super) const NAME: &str = "EPHEMERAL";

/// Caps `EPHEMERAL`, if it is not made yet; true when that changed the config.
///
/// # Errors
/// The partition exists already: its size can't be changed any more, and Talos would take no notice.
pub(super) fn cap(doc: &mut ConfigDoc, disks: &[Disk], version: &Version, most: MaxSize) -> Result<bool> {
    let first = match most {
        MaxSize::Bytes(_) => (1, 0),
        MaxSize::Percent(_) => (1, 12),
        MaxSize::AllBut(_) | MaxSize::AllButPercent(_) => (1, 13),
    };
    if release(version) < first {
        return Err(Error::refused(format!("Talos {} can't cap {NAME} at {most}", version.tag))
            .hint("write ephemeral.maxSize in bytes"));
    }
    if there(doc)? == Some(most) {
        return Ok(false);
    }
    let partitions = disks.iter().flat_map(|disk| &disk.partitions);
    if let Some(made) = partitions.into_iter().find(|partition| partition.label == NAME) {
        let size = human(made.size);
        return Err(Error::refused(format!(
            "{NAME} is made already, with {size}: maxSize {most} would change nothing"
        ))
        .hint("its size is settled at the first boot: take `ephemeral` out of the file; or, when all that is on it may be lost, `talosctl patch machineconfig` its VolumeConfig with that maxSize, then `talosctl reset --system-labels-to-wipe EPHEMERAL --reboot`"));
    }
    doc.upsert_document(KIND, NAME, &document(most))
}

/// What Talos' other partitions take of its disk at most, in bytes: those to boot from, META and STATE.
const OTHERS: u64 = 2560 << 20;

/// Whether the disk that Talos is about to be installed on will have room for the volumes that share it: what `EPHEMERAL`
/// is given at the first boot it never gives back.
pub(super) fn leaves_room(most: Option<MaxSize>, volumes: &[Volume], disks: &[Disk]) -> Result<()> {
    let shares =
        |volume: &&Volume| volume.disk.shared && matched(volume, disks).is_ok_and(|disk| disk.system);
    let shared: Vec<&Volume> = volumes.iter().filter(shares).collect();
    let (Some(volume), Some(disk)) = (shared.first(), disks.iter().find(|disk| disk.system)) else {
        return Ok(());
    };
    let Some(most) = most else {
        return Err(Error::refused(format!(
            "volume {} shares the disk that Talos is to be installed on, and {NAME} would take all of it",
            volume.name
        ))
        .hint(
            "say how much Talos keeps, such as ephemeral: {maxSize: 100GiB}: it is settled at the first boot",
        ));
    };
    let space = disk.spec.size.saturating_sub(OTHERS);
    let wanted = shared.iter().filter_map(|volume| volume.max_size?.bytes()).fold(0, u64::saturating_add);
    let left = space.saturating_sub(most.of(space));
    if wanted <= left {
        return Ok(());
    }
    Err(Error::refused(format!(
        "{} will have {} left beside Talos with {NAME} of {most}, and the volumes that share it want {}",
        describe(disk),
        human(left),
        human(wanted)
    ))
    .hint("lower ephemeral.maxSize or the volumes' maxSize now: it is settled at the first boot"))
}

/// The document that caps it.
pub(super) fn document(most: MaxSize) -> String {
    format!("apiVersion: v1alpha1\nkind: {KIND}\nname: {NAME}\nprovisioning:\n  maxSize: {most}\n")
}

/// The cap in the config.
pub(super) fn there(doc: &ConfigDoc) -> Result<Option<MaxSize>> {
    let Some(text) = doc.get_document(KIND, NAME) else { return Ok(None) };
    let stream = Stream::parse(text)?;
    let root = stream.documents().first().map(|document| &document.root);
    let most = root.and_then(|root| root.get(&["provisioning", "maxSize"])).and_then(Node::text);
    Ok(most.and_then(|text| MaxSize::parse(text).ok()))
}
