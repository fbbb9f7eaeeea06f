//! A first `nodeprep.yaml`: from what other tools' files say, what the nodes' disks are, and what somebody answers.

mod text;

use std::collections::BTreeMap;

use super::import::{Import, Key, Secret, UserVolume};
use super::validate::dns_label;
use super::{Duration, FilesystemType, Location, MaxSize, Mount, Size, VolumeType};
use crate::error::{Error, Result};
use crate::model::disks::{Disk, Selector, USER_VOLUME};

pub use text::text;

/// The label that leads the provisioner's pods to the nodes.
const LABEL: &str = "openebs.io/storage-node";
/// Where the passphrases of volumes are, beside the file.
pub const VOLUME_SECRETS: &str = "secrets/volumes.sops.yaml";
/// Where the store's credentials are, beside the file.
pub const BACKUP_SECRETS: &str = "secrets/velero.sops.yaml";
/// What a volume is given at least, where its disks are large enough.
pub const MIN_SIZE: Size = Size(100 << 30);

/// What the file is made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answers {
    /// The cluster's name.
    pub name: String,
    pub nodes: Vec<Node>,
    pub volumes: Vec<Volume>,
    /// The first class is to be the cluster's default.
    pub default_class: bool,
    pub backup: Backup,
    /// What is to be known of the file, as comments at its head.
    pub notes: Vec<String>,
}

/// What is said of backups.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Backup {
    #[default]
    Unsaid,
    Refused,
    To(Location),
}

/// A node, and what is different about the volumes there; nothing for one that is left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    pub address: String,
    /// What people call it.
    pub about: String,
    pub different: BTreeMap<String, Option<Different>>,
}

/// What is different about a volume on one node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Different {
    pub matches: Option<String>,
    pub min_size: Option<Size>,
    pub max_size: Option<MaxSize>,
}

/// A volume of all nodes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Volume {
    pub name: String,
    pub kind: VolumeType,
    pub matches: Option<String>,
    pub min_size: Option<Size>,
    pub max_size: Option<MaxSize>,
    pub grow: Option<bool>,
    pub filesystem: Option<FilesystemType>,
    pub quota: bool,
    pub encryption: Vec<Key>,
    pub mount: Mount,
    pub trim: Option<Duration>,
    pub scrub: Option<Duration>,
}

/// Which disks a volume could have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Proposal {
    /// A preset; nothing when no node has a free NVMe disk.
    pub matches: Option<&'static str>,
    /// Addresses of nodes without one.
    pub without: Vec<String>,
    /// Nodes on which the preset can't choose, and the disks that it can't choose from: the preset that takes it, and words
    /// for people.
    pub undecided: BTreeMap<String, Vec<(String, String)>>,
    /// The size of the smallest disk that the preset chooses.
    pub smallest: Option<u64>,
}

/// Proposes a selector for a volume by the disks of the nodes, with their addresses.
///
/// # Errors
/// The presets themselves can't be evaluated.
pub fn propose(volume: &str, nodes: &[(&str, &[Disk])]) -> Result<Proposal> {
    let id = format!("{USER_VOLUME}{volume}");
    let mut proposal = Proposal::default();
    let mut one_each = true;
    for (address, disks) in nodes {
        let ours = |disk: &Disk| disk.has_volume(&id) && !disk.uses.strays.contains(&id);
        let usable = |disk: &Disk| disk.eligible.is_ok() || ours(disk);
        let nvme = Selector::parse("nvme")?.choose(disks, |_| false)?;
        let nvme: Vec<&Disk> = nvme.into_iter().filter_map(|i| disks.get(i)).collect();
        let free: Vec<&Disk> = nvme.iter().copied().filter(|disk| usable(disk)).collect();
        let held = free.iter().copied().find(|disk| ours(disk));
        let largest = free.iter().map(|disk| disk.spec.size).max();
        let best: Vec<&Disk> = match held {
            Some(held) => vec![held],
            None => free.into_iter().filter(|disk| Some(disk.spec.size) == largest).collect(),
        };
        match best[..] {
            [] => proposal.without.push((*address).to_owned()),
            [disk] => {
                one_each &= nvme.len() == 1;
                proposal.smallest = Some(proposal.smallest.map_or(disk.spec.size, |s| s.min(disk.spec.size)));
            }
            _ => {
                let preset = |disk: &&Disk| {
                    let (field, value) = disk.marks(disks).into_iter().next()?;
                    Some((format!("{field}:{value}"), format!("{} ({field} {value})", disk.id)))
                };
                proposal.undecided.insert((*address).to_owned(), best.iter().filter_map(preset).collect());
                one_each = false;
                proposal.smallest = proposal.smallest.into_iter().chain(largest).min();
            }
        }
    }
    if proposal.smallest.is_some() {
        proposal.matches = Some(if one_each { "nvme" } else { "largest-free-nvme" });
    }
    Ok(proposal)
}

/// What a volume on disks of this size is given at least.
pub fn min_size(smallest: Option<u64>) -> Size {
    let most = smallest.map_or(MIN_SIZE.0, |size| size / 10 * 8);
    let unit: u64 = if most < 1 << 30 { 1 << 20 } else { 1 << 30 };
    MIN_SIZE.min(Size((most / unit * unit).max(unit)))
}

/// The cluster's name as the file takes it: small letters, digits and dashes.
pub fn cluster_name(text: &str) -> Option<String> {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = text.chars().take(63).map(letter).collect();
    let name = name.trim_matches('-').to_owned();
    dns_label(&name).then_some(name)
}

/// The volumes of a file, and what single nodes have differently: the first node that has a volume says what it is. Notes
/// say what the file has and this one does not take.
///
/// # Errors
/// A volume that is encrypted in one way on one node and in another way on another.
pub fn from_import(import: &Import, min: Option<Size>) -> Result<Answers> {
    let mut answers = Answers { notes: import.notes.clone(), ..Answers::default() };
    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    for machine in &import.machines {
        for volume in &machine.volumes {
            if answers.volumes.iter().any(|known| known.name == volume.name) {
                continue;
            }
            let said = said(volume, min);
            if let Some(size) = said.min_size.filter(|_| volume.min_size.is_none() && min.is_none()) {
                answers.notes.push(format!(
                    "{}: volume {} has no minSize there. {size} is asked for here, and is to be written there as well.",
                    volume.place, volume.name
                ));
            }
            first.insert(&volume.name, &machine.name);
            answers.volumes.push(said);
        }
    }
    for machine in &import.machines {
        let about = if machine.control_plane { ", control plane" } else { "" };
        let address = machine.addresses.first().cloned().unwrap_or_default();
        let mut node = Node { address, about: format!("{}{about}", machine.name), ..Node::default() };
        for volume in &answers.volumes {
            let Some(there) = machine.volumes.iter().find(|here| here.name == volume.name) else {
                node.different.extend([(volume.name.clone(), None)]);
                continue;
            };
            let here = said(there, min);
            if here == *volume {
                continue;
            }
            let (name, machine) = (&volume.name, &machine.name);
            if here.encryption != volume.encryption {
                let other = first.get(name.as_str()).copied().unwrap_or_default();
                let what = format!(
                    "{}: volume {name} is encrypted otherwise on {machine} than on {other}",
                    there.place
                );
                return Err(Error::invalid(what)
                    .hint("a volume is encrypted alike on all nodes of a nodeprep.yaml: make one for each kind of node, with --nodes"));
            }
            if !alike(&here, volume) {
                answers.notes.push(format!(
                    "{}: more is said of volume {name} on {machine} than a node can have differently: look it over.",
                    there.place
                ));
            }
            node.different
                .extend(different(here, volume).map(|different| (volume.name.clone(), Some(different))));
        }
        answers.nodes.push(node);
    }
    Ok(answers)
}

/// A volume as this file takes it. A least size that is not said must not be above the largest one.
fn said(volume: &UserVolume, min: Option<Size>) -> Volume {
    let kind = volume.kind.unwrap_or_default();
    let sized = matches!(kind, VolumeType::Partition | VolumeType::Raw);
    let invented = || {
        let most = volume.max_size.and_then(MaxSize::bytes).map_or(MIN_SIZE, Size);
        min.unwrap_or_else(|| most.min(MIN_SIZE))
    };
    Volume {
        name: volume.name.clone(),
        kind,
        matches: volume.matches.as_deref().map(short),
        min_size: volume.min_size.or_else(|| sized.then(invented)),
        max_size: volume.max_size,
        grow: volume.grow,
        filesystem: volume.filesystem,
        quota: volume.quota == Some(true),
        encryption: volume.encryption.clone(),
        mount: volume.mount.clone(),
        trim: volume.trim,
        scrub: volume.scrub,
    }
}

/// Nothing is different but what a node's own entry can say.
fn alike(here: &Volume, volume: &Volume) -> bool {
    let same = Volume {
        matches: here.matches.clone(),
        min_size: here.min_size,
        max_size: here.max_size,
        ..volume.clone()
    };
    *here == same
        && here.matches.is_some() == volume.matches.is_some()
        && (here.max_size.is_some() || volume.max_size.is_none())
}

fn different(here: Volume, volume: &Volume) -> Option<Different> {
    let different = Different {
        matches: here.matches.filter(|matches| Some(matches) != volume.matches.as_ref()),
        min_size: here.min_size.filter(|size| Some(*size) != volume.min_size),
        max_size: here.max_size.filter(|size| Some(*size) != volume.max_size),
    };
    Some(different).filter(|different| *different != Different::default())
}

/// What a passphrase is called in its SOPS file.
fn passphrase_key(volume: &Volume, slot: usize) -> String {
    if slot == 0 { volume.name.clone() } else { format!("{}-{slot}", volume.name) }
}

/// The passphrases of the volumes, by what they are called in their SOPS file.
pub fn passphrases(answers: &Answers) -> BTreeMap<String, Secret> {
    let keys = |volume: &Volume| -> Vec<(String, Secret)> {
        let named = |(slot, key): (usize, &Key)| match key {
            Key::Static(secret) => Some((passphrase_key(volume, slot), secret.clone())),
            Key::NodeId | Key::Tpm | Key::Kms(_) => None,
        };
        volume.encryption.iter().enumerate().filter_map(named).collect()
    };
    answers.volumes.iter().flat_map(keys).collect()
}

/// `disk.serial == "S"` as the preset `serial:S`; any other expression as it is.
fn short(expression: &str) -> String {
    for field in ["serial", "wwid"] {
        let quoted = expression.strip_prefix(&format!("disk.{field} == "));
        let value = quoted.and_then(|quoted| quoted.strip_prefix('"')?.strip_suffix('"'));
        if let Some(value) = value.filter(|value| !value.is_empty() && !value.contains(['"', '\\'])) {
            return format!("{field}:{value}");
        }
    }
    expression.to_owned()
}

/// Whether an answer can be the cluster's name.
pub fn is_cluster_name(text: &str) -> bool {
    dns_label(text)
}
