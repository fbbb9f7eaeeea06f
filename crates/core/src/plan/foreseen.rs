//! What of the stack can be known to fail from the nodes alone: folders that no volume serves, pods that no node takes.

use std::collections::BTreeMap;

use secrecy::ExposeSecret;

use super::volumes::{EXISTING, USER};
use crate::config_doc::ConfigDoc;
use crate::error::Error;
use crate::intent::{Intent, Provisioner, VolumeType};
use crate::model::mounts::{mount_of, volume_at};
use crate::model::node::Node;
use crate::yaml;

/// What a folder of a node lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Volume,
    /// Something that the kubelet is given by hand.
    Mount,
    Nothing,
}

/// What is to be said of the folders of the classes, and which of them can't be: on no node is there a volume for it.
pub fn base_paths(intent: &Intent, nodes: &[Node]) -> (Vec<String>, Vec<Error>) {
    let (mut said, mut faults) = (Vec::new(), Vec::new());
    for class in &intent.classes {
        let Some(path) = class.base_path() else { continue };
        let external = !matches!(intent.provisioner_of(class), Some(Provisioner::Openebs(_)));
        let on: Vec<(&str, On)> =
            nodes.iter().filter_map(|node| Some((node.address.as_str(), on(intent, path, node)?))).collect();
        if on.is_empty() || on.iter().any(|(_, on)| *on == On::Volume) {
            continue;
        }
        let without: Vec<&str> =
            on.iter().filter(|(_, on)| *on == On::Nothing).map(|(address, _)| *address).collect();
        let name = &class.name;
        let what = format!("class {name}: its base path {path} lies on no volume of the file");
        if without.is_empty() {
            said.push(format!(
                "{what}, but below a mount of the kubelet's (machine.kubelet.extraMounts): whether a disk of its own is \
                 there, and how full it gets, is not known"
            ));
        } else if external {
            said.push(format!("{what}: its data would lie on Talos' own disk"));
        } else {
            let example = intent.volumes.iter().find(|volume| volume.kind != VolumeType::Raw);
            let example = example.map_or("<volume>", |volume| &volume.name);
            faults.push(
                Error::refused(format!("{what}, and the kubelet does not see it on {}", without.join(", ")))
                    .hint(format!(
                        "write basePath: {}, or list the volume below `volumes`",
                        mount_of(example)
                    )),
            );
        }
    }
    (said, faults)
}

/// Nothing where the node can't tell.
fn on(intent: &Intent, path: &str, node: &Node) -> Option<On> {
    let name = volume_at(path);
    let asked = intent.on(&node.address).volumes;
    if asked.iter().any(|volume| Some(volume.name.as_str()) == name && volume.kind != VolumeType::Raw) {
        return Some(On::Volume);
    }
    let config = node.config.as_ref().ok()?.as_ref()?;
    let doc = ConfigDoc::parse(config.text.expose_secret()).ok()?;
    if name.is_some_and(|name| [USER, EXISTING].iter().any(|kind| doc.get_document(kind, name).is_some())) {
        return Some(On::Volume);
    }
    let legacy = doc.legacy();
    let items = |keys: &[&str]| {
        legacy.as_ref().and_then(|legacy| legacy.root.get(keys)).map(yaml::Node::items).unwrap_or_default()
    };
    let below = |folder: &yaml::Node| {
        let folder = folder.text().unwrap_or_default().trim_end_matches('/');
        !folder.is_empty()
            && path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let extra = items(&["machine", "kubelet", "extraMounts"]);
    let disks = items(&["machine", "disks"])
        .iter()
        .flat_map(|disk| disk.get(&["partitions"]).map(yaml::Node::items).unwrap_or_default());
    let mounted = extra.iter().filter_map(|mount| mount.get(&["destination"]));
    let by_hand = disks.filter_map(|partition| partition.get(&["mountpoint"])).filter(|_| name.is_some());
    Some(if mounted.chain(by_hand).any(below) { On::Mount } else { On::Nothing })
}

/// Refuses labels that the provisioner's pods want of a node and that no node of the file will have; `met` when the cluster
/// has one already.
pub fn selector(intent: &Intent, nodes: &[Node], met: bool) -> Option<Error> {
    let wanted = &intent.provisioner.openebs.as_ref()?.node_selector;
    if met || wanted.is_empty() || nodes.iter().any(|node| may_have(intent, node, wanted)) {
        return None;
    }
    let labels: Vec<String> = wanted.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let labels = labels.join(",");
    Some(
        Error::refused(format!(
            "provisioner.openebs.nodeSelector: no node has {labels}{}: its pods would wait for ever",
            if nodes.is_empty() { "" } else { ", nor gets it from the file" }
        ))
        .hint(if nodes.is_empty() {
            "label a node first; `nodeprep apply` sets the labels that the file lists"
        } else {
            "list the labels below `labels` (or below those of a node), or take nodeSelector out"
        }),
    )
}

/// Whether the node has these labels once the file is applied; it may where its labels are not known.
fn may_have(intent: &Intent, node: &Node, wanted: &BTreeMap<String, String>) -> bool {
    let asked = intent.on(&node.address).labels;
    let there = node.labels.as_ref().ok().and_then(Option::as_ref);
    wanted.iter().all(|(key, value)| match asked.get(key).or_else(|| there?.get(key)) {
        Some(found) => found == value,
        None => there.is_none(),
    })
}

/// Volumes that a node has and the file does not list: one that was given another name stays, with its data.
pub(super) fn unlisted(doc: &ConfigDoc, listed: &[&str]) -> Vec<String> {
    let kinds = [USER, super::volumes::RAW];
    let of_volume = |document: crate::config_doc::ConfigDocument<'_>| {
        let kind = document.id.kind.as_deref()?;
        kinds.contains(&kind).then_some(document.id.name?)
    };
    doc.documents().filter_map(of_volume).filter(|name| !listed.contains(&name.as_str())).collect()
}
