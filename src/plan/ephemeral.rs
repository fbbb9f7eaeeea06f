//! The size of Talos' own data partition: settled when it is made, at a node's first boot.

use super::disks::human;
use crate::config_doc::ConfigDoc;
use crate::error::{Error, Result};
use crate::intent::MaxSize;
use crate::observe::disks::Disk;
use crate::observe::nodes::Version;
use crate::plan::versions::release;
use crate::yaml::{Node, Stream};

pub(super) const KIND: &str = "VolumeConfig";
pub(super) const NAME: &str = "EPHEMERAL";

/// Caps `EPHEMERAL`, if it is not made yet; true when that changed the config.
///
/// # Errors
/// The partition is there already: its size can't be changed any more, and Talos would take no notice.
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
        .hint("its size is settled at the first boot; take `ephemeral` out of the file, or wipe the partition with a reset of the node"));
    }
    doc.upsert_document(KIND, NAME, &document(most))
}

/// The document that caps it.
pub(super) fn document(most: MaxSize) -> String {
    format!("apiVersion: v1alpha1\nkind: {KIND}\nname: {NAME}\nprovisioning:\n  maxSize: {most}\n")
}

/// The cap in the config.
fn there(doc: &ConfigDoc) -> Result<Option<MaxSize>> {
    let Some(text) = doc.get_document(KIND, NAME) else { return Ok(None) };
    let stream = Stream::parse(text)?;
    let root = stream.documents().first().map(|document| &document.root);
    let most = root.and_then(|root| root.get(&["provisioning", "maxSize"])).and_then(Node::text);
    Ok(most.and_then(|text| MaxSize::parse(text).ok()))
}
