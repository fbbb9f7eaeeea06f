//! Removing a volume from nodes: out of the config, gone from the node, and only then its partition wiped.

use secrecy::{ExposeSecret, SecretString};

use super::wipe::{self, Wipe};
use super::{Action, ApplyConfig, AwaitVolume, Plan, Skipped, Step, volumes};
use crate::config_doc::ConfigDoc;
use crate::error::{Error, Result};
use crate::observe::claims::LocalVolume;
use crate::observe::disks::{Disk, EXISTING_VOLUME, RAW_VOLUME, USER_VOLUME, volume_named};
use crate::observe::nodes::Node;

/// What asks for volumes, and what their ids begin with.
const KINDS: [(&str, &str); 3] =
    [(volumes::USER, USER_VOLUME), (volumes::RAW, RAW_VOLUME), (volumes::EXISTING, EXISTING_VOLUME)];
const HOSTNAME: &str = "kubernetes.io/hostname";

/// What is left of a volume on one node.
#[derive(Debug)]
pub struct Removal {
    address: String,
    volume: AwaitVolume,
    /// The config without it.
    config: Option<ApplyConfig>,
    diff: String,
    /// Talos still has it.
    known: bool,
    /// Its partition or disk, unless its data are to be kept.
    pub wipe: Option<Wipe>,
}

/// Finds what is to be removed; refused while something of the cluster lives there.
pub fn find(node: &Node, volume: &str, keep_data: bool, cluster: &[LocalVolume]) -> Result<Removal> {
    let address = &node.address;
    wipe::usable(node)?;
    let config = node.config.as_ref().map_err(|e| Error::new(e.kind, e.what.clone()).at(address))?;
    let config =
        config.as_ref().ok_or_else(|| Error::refused(format!("{address}: has no machine config")))?;
    let before = ConfigDoc::parse(config.text.expose_secret()).map_err(|e| e.at(address))?;
    let mut doc = before.clone();
    let (kind, id) = identity(node, &doc, volume)?;
    let mount = (!id.starts_with(RAW_VOLUME)).then(|| format!("/var/mnt/{volume}"));
    // A raw volume is reached by the link that udev makes for its partition.
    let place = mount.clone().unwrap_or_else(|| format!("/dev/disk/by-partlabel/{id}"));
    refuse_residents(node, &place, cluster)?;
    let gone = AwaitVolume { id, mount };
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
        known: node.volumes.iter().flatten().any(|status| status.id == gone.id),
        wipe: if keep_data { None } else { partition(node, &gone.id)? },
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
    let mut plan = Plan::default();
    for removal in removals {
        let before = plan.steps.len();
        let Removal { address, volume, config, diff, known, wipe } = removal;
        let gone = (config.is_some() || known).then(|| gone_step(&address, &volume));
        if let Some(config) = config {
            plan.steps.push(config_step(&address, &volume, diff, config));
        }
        plan.steps.extend(gone);
        if let Some(wipe) = wipe {
            plan.steps.push(wipe::step(wipe, tokens)?);
        }
        if plan.steps.len() == before {
            let what = format!("{address}: volume {}", volume.id);
            plan.skipped.push(Skipped { what, why: "nothing of it is there".into() });
        }
    }
    Ok(plan)
}

fn config_step(address: &str, volume: &AwaitVolume, diff: String, config: ApplyConfig) -> Step {
    let id = format!("node/{address}/config");
    let title = format!("take volume {volume} out of the config");
    Step { diff, ..Step::new(id, address, title, Action::ApplyConfig(config)) }
}

fn gone_step(address: &str, volume: &AwaitVolume) -> Step {
    let id = format!("node/{address}/gone/{}", volume.id);
    let action = Action::AwaitGone { address: address.to_owned(), volume: volume.clone() };
    Step::new(id, address, format!("volume {} gone", volume.id), action)
}

/// A removed volume's data are lost, so nothing of the cluster may be among them.
fn refuse_residents(node: &Node, folder: &str, cluster: &[LocalVolume]) -> Result<()> {
    let name = node.hostname.as_ref().ok().and_then(Option::as_deref);
    let labels = node.labels.as_ref().ok().and_then(Option::as_ref);
    let label = labels.and_then(|labels| labels.get(HOSTNAME)).map(String::as_str);
    let names: Vec<&str> = name.into_iter().chain(label).collect();
    let here: Vec<String> = cluster
        .iter()
        .filter(|volume| volume.is_on(folder, &names))
        .map(|volume| match &volume.claim {
            Some(claim) => format!("{} (claim {claim})", volume.name),
            None => volume.name.clone(),
        })
        .collect();
    if here.is_empty() {
        return Ok(());
    }
    Err(Error::refused(format!(
        "{}: {folder} holds volumes of the cluster: {}",
        node.address,
        here.join(", ")
    ))
    .hint("move or delete the claims first, and PersistentVolumes that were kept"))
}

/// The partition that holds the volume: where Talos has it, or the only one when it has it no more.
fn partition(node: &Node, id: &str) -> Result<Option<Wipe>> {
    let disks = node
        .disks
        .as_deref()
        .map_err(|e| Error::new(e.kind, format!("{}: could not read its disks: {}", node.address, e.what)))?;
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
