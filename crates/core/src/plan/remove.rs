//! Removing a volume from nodes: out of the config, gone from the node, and only then its partition wiped.

use std::collections::BTreeSet;

use secrecy::{ExposeSecret, SecretString};

use super::step::chain;
use super::wipe::{self, Wipe};
use super::{Action, ApplyConfig, AwaitVolume, NodeAction, Plan, Skipped, Step, Target, users, volumes};
use crate::config_doc::ConfigDoc;
use crate::error::{Error, Result, together};
use crate::model::claims::Users;
use crate::model::disks::{Disk, EXISTING_VOLUME, Holder, RAW_VOLUME, USER_VOLUME, volume_named};
use crate::model::mounts::mount_of;
use crate::model::node::Node;

/// What asks for volumes, and what their ids begin with.
const KINDS: [(&str, &str); 3] =
    [(volumes::USER, USER_VOLUME), (volumes::RAW, RAW_VOLUME), (volumes::EXISTING, EXISTING_VOLUME)];

/// What is to be removed.
#[derive(Debug, Clone, Copy)]
pub struct RemoveRequest<'a> {
    pub volume: &'a str,
    pub keep_data: bool,
    /// What may have data on the volume by all that can be seen, and is known to have none.
    pub unused_by: &'a [String],
}

/// What is left of a volume on one node.
#[derive(Debug)]
pub struct Removal {
    address: String,
    volume: AwaitVolume,
    /// The config without it.
    config: Option<ApplyConfig>,
    diff: String,
    /// Talos still has it, or has it mounted.
    known: bool,
    /// Its partition or disk, unless its data are to be kept.
    pub wipe: Option<Wipe>,
}

/// Finds what is to be removed; refused while something of the cluster lives there, and, where the cluster was not asked,
/// whatever lives there.
pub fn find(node: &Node, asked: RemoveRequest<'_>, users: Option<&Users>) -> Result<Removal> {
    let (address, volume) = (&node.address, asked.volume);
    wipe::usable(node)?;
    wipe::disks(node)?;
    let config = node.config.as_ref().map_err(|e| Error::new(e.kind, e.what.clone()).at(address))?;
    let config =
        config.as_ref().ok_or_else(|| Error::refused(format!("{address}: has no machine config")))?;
    let before = ConfigDoc::parse(config.text.expose_secret()).map_err(|e| e.at(address))?;
    let mut doc = before.clone();
    let (kind, id) = identity(node, &doc, volume)?;
    let mount = (!id.starts_with(RAW_VOLUME)).then(|| mount_of(volume));
    if let Some(users) = users {
        users::refuse(node, &doc, (&id, mount.as_deref()), users, asked.unused_by)?;
    }
    let gone = AwaitVolume { id, mount, secure: None };
    let there = doc.remove_document(kind, volume).map_err(|e| e.at(address))?;
    let apply = there.then(|| ApplyConfig {
        address: address.clone(),
        control_plane: node.is_control_plane(),
        base_version: config.version.clone(),
        config: SecretString::from(doc.text()),
        volumes: Vec::new(),
        labels: Vec::new(),
        disks: Vec::new(),
    });
    Ok(Removal {
        address: address.clone(),
        diff: if there { doc.diff_from(&before) } else { String::new() },
        config: apply,
        known: node.volumes.iter().flatten().any(|status| status.id == gone.id)
            || node.mounts.iter().flatten().any(|mounted| Some(&mounted.target) == gone.mount.as_ref()),
        wipe: if asked.keep_data { None } else { partition(node, &gone.id)? },
        volume: gone,
    })
}

/// The kind of document that asks for the volume, and the volume's id: as the config says, else as what is left of it.
fn identity(node: &Node, doc: &ConfigDoc, volume: &str) -> Result<(&'static str, String)> {
    let ids = KINDS.map(|(kind, prefix)| (kind, format!("{prefix}{volume}")));
    let asked: Vec<_> = ids.iter().filter(|(kind, _)| doc.get_document(kind, volume).is_some()).collect();
    if let [_, _, ..] = asked[..] {
        return Err(Error::refused(format!("{}: its config has several volumes {volume}", node.address))
            .hint("take out all but one of them with `talosctl edit machineconfig`"));
    }
    let left = |(_, id): &&(&str, String)| {
        node.volumes.iter().flatten().any(|status| status.id == *id)
            || node.disks.iter().flatten().any(|disk| disk.has_volume(id))
    };
    let [user, ..] = &ids;
    let (kind, id) = asked.first().copied().or_else(|| ids.iter().find(left)).unwrap_or(user);
    Ok((kind, id.clone()))
}

/// The steps, in the order that loses nothing when one fails; each wipe needs its token.
pub fn plan(removals: Vec<Removal>, tokens: &[String]) -> Result<Plan> {
    let (mut plan, mut faults) = (Plan::default(), Vec::new());
    for removal in removals {
        let before = plan.steps.len();
        let Removal { address, volume, config, diff, known, wipe } = removal;
        let gone = (config.is_some() || known).then(|| gone_step(&address, &volume));
        if let Some(config) = config {
            plan.steps.push(config_step(&address, &volume, diff, config));
        }
        plan.steps.extend(gone);
        let wiped = wipe.map(|wipe| wipe::step(wipe, tokens)).transpose();
        plan.steps.extend(wiped.unwrap_or_else(|error| {
            faults.push(error);
            None
        }));
        if plan.steps.len() == before {
            let what = format!("{address}: volume {}", volume.id);
            plan.skipped.push(Skipped { what, why: "nothing of it is there".into() });
        }
    }
    chain(&mut plan.steps);
    together(faults).map_or(Ok(plan), Err)
}

fn config_step(address: &str, volume: &AwaitVolume, diff: String, config: ApplyConfig) -> Step {
    let id = format!("node/{address}/config");
    let title = format!("take volume {volume} out of the config");
    Step { diff, ..Step::new(id, Target::node(address), title, Action::Node(NodeAction::Config(config))) }
}

fn gone_step(address: &str, volume: &AwaitVolume) -> Step {
    let id = format!("node/{address}/gone/{}", volume.id);
    let action = Action::Node(NodeAction::AwaitGone { address: address.to_owned(), volume: volume.clone() });
    Step::new(id, Target::node(address), format!("volume {} gone", volume.id), action)
}

/// The names of the volumes that a node has, or has the partitions of.
pub fn names(node: &Node) -> BTreeSet<String> {
    let asked = node.config.as_ref().ok().and_then(Option::as_ref);
    let doc = asked.and_then(|config| ConfigDoc::parse(config.text.expose_secret()).ok());
    let asked = doc.iter().flat_map(ConfigDoc::documents).filter_map(|document| {
        KINDS
            .iter()
            .any(|(kind, _)| document.id.kind.as_deref() == Some(*kind))
            .then_some(document.id.name)?
    });
    let partitions = node.disks.iter().flatten().flat_map(|disk| {
        let whole = match &disk.holder {
            Holder::Volume(id) => Some(id.clone()),
            _ => None,
        };
        disk.partitions.iter().map(|part| part.label.clone()).chain(whole)
    });
    let ids = node.volumes.iter().flatten().map(|status| status.id.clone()).chain(partitions);
    let named =
        ids.filter_map(|id| KINDS.iter().find_map(|(_, prefix)| id.strip_prefix(prefix)).map(str::to_owned));
    asked.chain(named).collect()
}

/// A name that no node knows is a mistake: nothing would be removed, and somebody thinks that it was.
pub fn refuse_unknown(nodes: &[Node], volume: &str) -> Result<()> {
    let all: BTreeSet<String> = nodes.iter().flat_map(names).collect();
    if all.contains(volume) {
        return Ok(());
    }
    let listed = all.into_iter().collect::<Vec<_>>().join(", ");
    let hint =
        if listed.is_empty() { "they have no volumes".to_owned() } else { format!("they have: {listed}") };
    let addresses: Vec<&str> = nodes.iter().map(|node| node.address.as_str()).collect();
    Err(Error::invalid(format!("no volume {volume} on {}, and none in the file", addresses.join(", ")))
        .hint(hint))
}

/// The partition that holds the volume: where Talos has it, or the only one when it has it no more.
fn partition(node: &Node, id: &str) -> Result<Option<Wipe>> {
    let disks = wipe::disks(node)?;
    let holding: Vec<&Disk> = disks.iter().filter(|disk| disk.has_volume(id)).collect();
    let stray = |disk: &&&Disk| disk.uses.strays.iter().any(|stray| stray == id);
    let own: Vec<&Disk> = holding.iter().filter(|disk| !stray(disk)).copied().collect();
    let disk = match (own.as_slice(), holding.as_slice()) {
        ([], []) => return Ok(None),
        ([only], _) | ([], [only]) => only,
        _ => {
            return Err(Error::refused(format!(
                "{}: more than one disk holds {}",
                node.address,
                volume_named(id)
            ))
            .hint("`nodeprep wipe --volume` wipes them, once the config asks for it no more: --keep-data"));
        }
    };
    let wipe = wipe::wipe(node, disks, disk, Some(id), false)?;
    wipe::refuse_used(node, disk, Some(id))?;
    Ok(Some(wipe))
}
