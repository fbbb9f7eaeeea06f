//! A first `nodeprep.yaml`: from what other tools' files say, what the nodes' disks are, and what somebody answers.

use std::collections::BTreeMap;

use super::import::{Import, UserVolume};
use super::validate::dns_label;
use super::{API_VERSION, KIND, MaxSize, Size};
use crate::error::{Error, Result};
use crate::observe::disks::{Disk, Selector, USER_VOLUME};
use crate::yaml;

/// The label that leads the provisioner's pods to the nodes.
const LABEL: &str = "openebs.io/storage-node";
/// What a volume is given at least, where its disks are large enough.
pub const MIN_SIZE: Size = Size(100 << 30);

/// What the file is made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answers {
    /// The cluster's name.
    pub name: String,
    pub nodes: Vec<Node>,
    pub volumes: Vec<Volume>,
    /// What is to be known of the file, as comments at its head.
    pub notes: Vec<String>,
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
    /// `partition`, `disk` or `directory`.
    pub kind: String,
    pub matches: Option<String>,
    pub min_size: Option<Size>,
    pub max_size: Option<MaxSize>,
    pub filesystem: Option<String>,
    pub quota: bool,
}

/// Which disks a volume could have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Proposal {
    /// A preset; nothing when no node has a free NVMe disk.
    pub matches: Option<&'static str>,
    /// Addresses of nodes without one.
    pub without: Vec<String>,
    /// Nodes on which the preset can't choose, and the disks that it can't choose from: serial, and words for people.
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
                let words = |disk: &&Disk| {
                    (disk.spec.serial.clone(), format!("{} (serial {})", disk.id, disk.spec.serial))
                };
                proposal.undecided.insert((*address).to_owned(), best.iter().map(words).collect());
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

/// The volumes of a file, and what single nodes have different: the first node that has a volume says what it is. Notes
/// say what the file has and this one does not take.
///
/// # Errors
/// A volume of a type that nodeprep does not know.
pub fn from_import(import: &Import, min: Option<Size>) -> Result<Answers> {
    let mut answers = Answers::default();
    let said = |volume: &UserVolume| -> Result<Volume> {
        if !["partition", "disk", "directory"].contains(&volume.kind.as_str()) {
            return Err(Error::invalid(format!(
                "{}: volume {} is of type {}",
                import.file, volume.name, volume.kind
            ))
            .hint("give --volume and --match, and write that volume by hand"));
        }
        let sized = volume.kind == "partition";
        Ok(Volume {
            name: volume.name.clone(),
            kind: volume.kind.clone(),
            matches: volume.matches.as_deref().map(short),
            min_size: volume.min_size.or(min).or(Some(MIN_SIZE)).filter(|_| sized),
            max_size: volume.max_size.filter(|_| sized),
            filesystem: volume.filesystem.clone().filter(|_| volume.kind != "directory"),
            quota: volume.quota && volume.kind != "directory",
        })
    };
    for volume in import.machines.iter().flat_map(|machine| &machine.volumes) {
        if answers.volumes.iter().any(|known| known.name == volume.name) {
            continue;
        }
        let name = &volume.name;
        if volume.encrypted {
            answers.notes.push(format!("Volume {name} is encrypted: write its `encryption` here as well."));
        }
        if volume.kind == "partition" && volume.min_size.is_none() && min.is_none() {
            let file = &import.file;
            answers.notes.push(format!(
                "Volume {name} has no minSize in {file}, and needs the same one there as here."
            ));
        }
        answers.volumes.push(said(volume)?);
    }
    for machine in &import.machines {
        let about = if machine.control_plane { ", control plane" } else { "" };
        let address = machine.addresses.first().cloned().unwrap_or_default();
        let mut node = Node { address, about: format!("{}{about}", machine.name), ..Node::default() };
        for volume in &answers.volumes {
            let here = machine.volumes.iter().find(|here| here.name == volume.name).map(said).transpose()?;
            match here {
                None => node.different.extend([(volume.name.clone(), None)]),
                Some(here) if here == *volume => {}
                Some(here) => {
                    if !alike(&here, volume) {
                        let (name, file) = (&volume.name, &import.file);
                        answers.notes.push(format!("{file} says more of volume {name} on {} than a node can have differently: look it over.", machine.name));
                    }
                    node.different.extend(
                        different(here, volume).map(|different| (volume.name.clone(), Some(different))),
                    );
                }
            }
        }
        answers.nodes.push(node);
    }
    Ok(answers)
}

/// Nothing is different but what a node's own entry can say.
fn alike(here: &Volume, volume: &Volume) -> bool {
    let of = |volume: &Volume| (volume.kind.clone(), volume.filesystem.clone(), volume.quota);
    of(here) == of(volume)
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

const HEAD: &str = "\
# Written by `nodeprep init`; `nodeprep schema` tells every key there is.
# `nodeprep plan` shows what this would change, `nodeprep apply` does it and proves the result.
";
const NODES: &str = "
# The nodes' machine API addresses. What one node has differently stands below its address.
nodes:
";
const VOLUMES: &str = "
# A volume on each node; Talos mounts it at /var/mnt/<name>. `match` must find exactly one disk of a node, that is empty or
# holds this volume already: a CEL expression over disk.*, or nvme, ssd, serial:…, wwid:… or largest-free-nvme.
volumes:
";
const PROVISIONER: &str = "
# What makes claims into directories on the volumes.
provisioner:
  openebs:
    nodeSelector:
";
const CLASSES: &str = "
# `default: true` makes one of them the cluster's default class.
classes:
";
const BACKUP: &str = "
# Backups by Velero to an S3 store, with the credentials in a SOPS file:
# backup:
#   location: {bucket: backups, region: us-east-1, url: \"https://s3.example.com\", pathStyle: true}
#   secrets: [secrets/velero.sops.yaml]
#   schedules: [{name: daily, cron: 0 2 * * *}]
";

/// The text of the file.
pub fn text(answers: &Answers) -> String {
    let mut text = HEAD.to_owned();
    for note in &answers.notes {
        text.push_str(&format!("# {}\n", comment(note)));
    }
    let name = yaml::string(&answers.name);
    text.push_str(&format!("apiVersion: {API_VERSION}\nkind: {KIND}\nmetadata:\n  name: {name}\n{NODES}"));
    answers.nodes.iter().for_each(|node| text.push_str(&node_text(node, answers)));
    let label = format!("{LABEL}: \"true\"");
    text.push_str(&format!("\n# Set on every node, through its machine config.\nlabels:\n  {label}\n"));
    if answers.volumes.is_empty() {
        return text;
    }
    text.push_str(VOLUMES);
    answers.volumes.iter().for_each(|volume| text.push_str(&volume_text(volume)));
    text.push_str(&format!("{PROVISIONER}      {label}\n{CLASSES}"));
    for (i, volume) in answers.volumes.iter().enumerate() {
        let mut class = "openebs-hostpath".to_owned();
        if i > 0 {
            class = format!("openebs-{}", volume.name.to_ascii_lowercase().trim_matches('-'));
        }
        let path = yaml::string(&format!("/var/mnt/{}", volume.name));
        text.push_str(&format!("  - name: {}\n    basePath: {path}\n", yaml::string(&class)));
    }
    text.push_str(BACKUP);
    text
}

fn node_text(node: &Node, answers: &Answers) -> String {
    let about = if node.about.is_empty() { String::new() } else { format!(" # {}", comment(&node.about)) };
    let mut text = format!("  - address: {}{about}\n", yaml::string(&node.address));
    let without = |volume: &Volume| node.different.get(&volume.name) == Some(&None);
    if !answers.volumes.is_empty() && answers.volumes.iter().all(without) {
        // The provisioner's pods have no business there either.
        text.push_str(&format!("    labels:\n      {LABEL}: null\n"));
    }
    if !node.different.is_empty() {
        text.push_str("    volumes:\n");
    }
    for (name, different) in &node.different {
        let name = yaml::string(name);
        let Some(different) = different else {
            text.push_str(&format!("      {name}: null # left out here\n"));
            continue;
        };
        text.push_str(&format!("      {name}:\n"));
        if let Some(matches) = &different.matches {
            text.push_str(&format!("        disk:\n          match: {}\n", selector(matches)));
        }
        text.push_str(&sizes(different.min_size, different.max_size, "        "));
    }
    text
}

fn volume_text(volume: &Volume) -> String {
    let mut text = format!("  - name: {}\n", yaml::string(&volume.name));
    if !matches!(volume.kind.as_str(), "" | "partition") {
        text.push_str(&format!("    type: {}\n", yaml::string(&volume.kind)));
    }
    if let Some(matches) = &volume.matches {
        text.push_str(&format!("    disk:\n      match: {}\n", selector(matches)));
    }
    text.push_str(&sizes(volume.min_size, volume.max_size, "    "));
    if volume.filesystem.is_some() || volume.quota {
        text.push_str("    filesystem:\n");
    }
    if let Some(kind) = &volume.filesystem {
        text.push_str(&format!("      type: {}\n", yaml::string(kind)));
    }
    if volume.quota {
        text.push_str("      projectQuota: true\n");
    }
    text
}

fn sizes(least: Option<Size>, most: Option<MaxSize>, indent: &str) -> String {
    let least = least.map(|size| format!("{indent}minSize: {size}\n"));
    let most = most.map(|size| format!("{indent}maxSize: {}\n", yaml::string(&size.to_string())));
    least.into_iter().chain(most).collect()
}

/// The text on one line, whatever is in it.
fn comment(text: &str) -> String {
    let breaks = |c: char| {
        c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
    };
    text.chars().map(|c| if breaks(c) { ' ' } else { c }).collect()
}

/// CEL has quotes of its own, so that single ones around it read best.
fn selector(text: &str) -> String {
    let plain = yaml::string(text);
    if plain == text || text.chars().any(char::is_control) {
        return plain;
    }
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether an answer can be the cluster's name.
pub fn is_cluster_name(text: &str) -> bool {
    dns_label(text)
}
