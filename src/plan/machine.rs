//! One node's machine config: user volumes and labels, spliced into the config that is there.

use minijinja::{Environment, UndefinedBehavior, context};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::disks::{Choice, choose};
use super::labels;
use super::{Action, ApplyConfig, ApprovedDisk, AwaitVolume, Plan, Risk, Step, volume_state};
use crate::config_doc::{ConfigDoc, diff};
use crate::error::{Error, Result};
use crate::intent::{FilesystemType, Intent, Size, Volume};
use crate::observe::disks::Disk;
use crate::observe::nodes::{MachineConfig, Node};

const KIND: &str = "UserVolumeConfig";
const VOLUME_TEMPLATE: &str = include_str!("../../talos-patches/user-volume.yaml.j2");
/// Talos knows user volumes from this version on; before, a volume is named by its device, which may change.
const FIRST_VERSION: (u64, u64) = (1, 10);
/// `filesystem.projectQuotaSupport` came with this version.
const QUOTA_VERSION: (u64, u64) = (1, 11);

/// The steps for one node; a part that could not be read and is needed is an error.
pub fn plan(intent: &Intent, node: &Node) -> Result<Plan> {
    let mut plan = Plan::default();
    if intent.volumes.is_empty() && intent.labels.is_empty() {
        return Ok(plan);
    }
    let address = &node.address;
    supported(intent, node)?;
    let config = need(address, "machine config", &node.config)?.as_ref().ok_or_else(|| {
        Error::refused(format!("{address}: has no machine config yet"))
            .hint("a node in maintenance mode is to be configured first: talosctl apply-config --insecure")
    })?;
    let before = config.text.expose_secret();
    let mut doc = ConfigDoc::parse(before).map_err(|e| e.at(address))?;
    let mut work = Work::default();
    if !intent.volumes.is_empty() {
        let disks = need(address, "disks", &node.disks)?;
        for volume in &intent.volumes {
            add_volume(&mut doc, &mut work, node, volume, disks).map_err(|e| e.at(address))?;
        }
    }
    add_labels(&mut doc, &mut work, intent, node)?;
    if doc.text() == before {
        plan.warnings
            .extend(work.unready.iter().map(|(v, why)| format!("{address}: {} is not ready: {why}", v.id)));
        plan.steps.extend(await_step(address, work));
    } else {
        plan.steps.push(apply_step(address, config, before, &doc, work));
    }
    Ok(plan)
}

/// What one node's new config asks for.
#[derive(Default)]
struct Work {
    volumes: Vec<AwaitVolume>,
    unready: Vec<(AwaitVolume, String)>,
    taken: Vec<ApprovedDisk>,
    /// An empty disk will be formatted.
    empty: bool,
    labels: Vec<(String, String)>,
    titles: Vec<String>,
}

fn supported(intent: &Intent, node: &Node) -> Result<()> {
    let version = need(&node.address, "Talos version", &node.version)?;
    let (major, minor, _) = version.parsed;
    let tag = &version.tag;
    if intent.volumes.is_empty() {
        return Ok(());
    }
    if (major, minor) < FIRST_VERSION {
        return Err(Error::refused(format!("{}: Talos {tag} has no user volumes", node.address)).hint(
            "upgrade to Talos 1.10 or later first; older versions name disks by device, which is not safe",
        ));
    }
    if version.container {
        return Err(Error::refused(format!("{}: Talos runs in a container and has no disks", node.address))
            .hint("take the node's volumes out of the file, or run Talos on a machine"));
    }
    if (major, minor) < QUOTA_VERSION && intent.volumes.iter().any(|v| v.filesystem.project_quota) {
        return Err(Error::refused(format!("{}: Talos {tag} can't set projectQuota", node.address))
            .hint("upgrade to Talos 1.11 or later, or leave filesystem.projectQuota out"));
    }
    Ok(())
}

/// A part that the plan can't do without; its error keeps its kind and gets the part's name.
fn need<'a, T>(address: &str, what: &str, part: &'a Result<T>) -> Result<&'a T> {
    part.as_ref().map_err(|e| {
        let error = Error::new(e.kind, format!("{address}: could not read its {what}: {}", e.what));
        error.hint(e.hint.as_deref().unwrap_or("nothing is planned for a node that can't be read"))
    })
}

fn add_volume(
    doc: &mut ConfigDoc,
    work: &mut Work,
    node: &Node,
    volume: &Volume,
    disks: &[Disk],
) -> Result<()> {
    let wait = AwaitVolume { id: format!("u-{}", volume.name), mount: format!("/var/mnt/{}", volume.name) };
    let there = doc.get_document(KIND, &volume.name).map(str::to_owned);
    if there.is_none() {
        refuse_leftover(volume, disks)?;
    }
    let choice = choose(volume, disks)?;
    if let Some(other) = work.taken.iter().find(|taken| taken.name == choice.disk().name) {
        return Err(Error::refused(format!(
            "volume {}: {} is taken by volume {}",
            volume.name, other.name, other.volume
        ))
        .hint("one disk holds one volume; give each volume its own selector"));
    }
    work.taken.push(choice.disk().clone());
    let unready = not_ready(node, &wait)?;
    if let Some(text) = &there {
        same_volume(volume, text)?;
    }
    match (there, choice) {
        (Some(_), Choice::Holds(_)) => work.unready.extend(unready.map(|why| (wait.clone(), why))),
        (_, choice) => {
            let changed =
                doc.upsert_document(KIND, &volume.name, &volume_document(volume, choice.disk())?)?;
            if changed {
                work.titles.push(format!("volume {} on {}", volume.name, choice.describe()));
                work.empty |= matches!(choice, Choice::Empty(_));
            } else {
                work.unready.extend(unready.map(|why| (wait.clone(), why)));
            }
        }
    }
    work.volumes.push(wait);
    Ok(())
}

/// A partition with this volume's label that no document of this node explains: Talos would adopt it as it is.
fn refuse_leftover(volume: &Volume, disks: &[Disk]) -> Result<()> {
    let Some(disk) = disks.iter().find(|disk| disk.has_volume(&volume.name)) else { return Ok(()) };
    Err(Error::refused(format!(
        "volume {}: {} already has a partition u-{} that this node's config does not know",
        volume.name, disk.id, volume.name
    ))
    .hint("it may hold data of a former cluster, and Talos would adopt it; keep it under another name or wipe it first"))
}

/// An existing volume is left as it is; a different size or filesystem would need it to be made anew.
fn same_volume(volume: &Volume, text: &str) -> Result<()> {
    let there: Document = serde_yaml::from_str(text)
        .map_err(|e| Error::invalid(format!("volume {}: its document in the config: {e}", volume.name)))?;
    let fs = there.filesystem.unwrap_or_default();
    let size = |text: Option<String>| text.map(|t| Size::parse(&t).map_or(t, |size| size.to_string()));
    let kind = fs.kind.unwrap_or_else(|| FilesystemType::Xfs.name().into());
    let (wanted_min, wanted_max) = (volume.min_size.to_string(), volume.max_size.map(|s| s.to_string()));
    let differs = [
        ("minSize", size(there.provisioning.min_size), Some(wanted_min)),
        ("maxSize", size(there.provisioning.max_size), wanted_max),
        ("filesystem.type", Some(kind), Some(volume.filesystem.kind.name().to_owned())),
        (
            "filesystem.projectQuotaSupport",
            Some(fs.project_quota_support.unwrap_or(false).to_string()),
            Some(volume.filesystem.project_quota.to_string()),
        ),
    ];
    for (key, there, wanted) in differs {
        if there != wanted {
            let show = |value: Option<String>| value.unwrap_or_else(|| "not set".into());
            return Err(Error::refused(format!(
                "volume {} exists with {key} {}, the file says {}",
                volume.name,
                show(there),
                show(wanted)
            ))
            .hint("nodeprep does not change a volume that exists; set the file to what is there"));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    provisioning: Provisioning,
    filesystem: Option<Fs>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Provisioning {
    min_size: Option<String>,
    max_size: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fs {
    #[serde(rename = "type")]
    kind: Option<String>,
    project_quota_support: Option<bool>,
}

/// Why a volume is not usable, or nothing when it is ready and mounted at exactly its path.
fn not_ready(node: &Node, wait: &AwaitVolume) -> Result<Option<String>> {
    let volumes = need(&node.address, "volumes", &node.volumes)?;
    let mounts = need(&node.address, "mounts", &node.mounts)?;
    let status = volumes.iter().find(|v| v.id == wait.id);
    let status = status.map(|v| (v.spec.phase.as_str(), v.spec.error_message.as_str()));
    Ok(volume_state(wait, status, mounts.iter().any(|mount| mount.target == wait.mount)).err())
}

/// The volume document for one disk, selected by what stays the same over reboots.
fn volume_document(volume: &Volume, disk: &ApprovedDisk) -> Result<String> {
    let selector = match (&disk.wwid, &disk.serial) {
        (_, Some(serial)) => format!("disk.serial == {}", cel_string(serial)),
        (Some(wwid), None) => format!("disk.wwid == {}", cel_string(wwid)),
        (None, None) => return Err(Error::refused(format!("{} has neither serial nor WWID", disk.name))),
    };
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    templates
        .render_str(
            VOLUME_TEMPLATE,
            context! {
                name => &volume.name,
                match => format!("'{}'", selector.replace('\'', "''")),
                min_size => volume.min_size.to_string(),
                max_size => volume.max_size.map(|size| size.to_string()),
                filesystem => volume.filesystem.kind.name(),
                project_quota => volume.filesystem.project_quota,
            },
        )
        .map_err(|e| Error::failed(format!("talos-patches/user-volume.yaml.j2: {e}")))
}

/// A CEL string literal; CEL and JSON escape quotes and backslashes alike.
fn cel_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn add_labels(doc: &mut ConfigDoc, work: &mut Work, intent: &Intent, node: &Node) -> Result<()> {
    let role = need(&node.address, "machine type", &node.machine_type)?.as_deref().unwrap_or("worker");
    for (key, value) in &intent.labels {
        labels::allowed(key, role).map_err(|e| e.at(&node.address))?;
        if doc.set_node_label(key, value)? {
            work.titles.push(format!("label {key}={value}"));
        }
        work.labels.push((key.clone(), value.clone()));
    }
    Ok(())
}

fn apply_step(address: &str, config: &MachineConfig, before: &str, doc: &ConfigDoc, work: Work) -> Step {
    Step {
        id: format!("node/{address}/config"),
        target: address.to_owned(),
        title: work.titles.join(", "),
        why: String::new(),
        risk: if work.empty { Risk::Format } else { Risk::Low },
        diff: diff(before, doc.text()),
        creates: false,
        action: Action::ApplyConfig(ApplyConfig {
            address: address.to_owned(),
            base_version: config.version.clone(),
            config: SecretString::from(doc.text()),
            volumes: work.volumes,
            labels: work.labels,
            disks: work.taken,
        }),
    }
}

/// The config is right, but a volume is not there yet: nothing to change, only to wait for.
fn await_step(address: &str, work: Work) -> Option<Step> {
    let why: Vec<String> = work.unready.iter().map(|(volume, why)| format!("{}: {why}", volume.id)).collect();
    (!why.is_empty()).then(|| Step {
        id: format!("node/{address}/volumes"),
        target: address.to_owned(),
        title: "volumes ready".into(),
        why: why.join("; "),
        risk: Risk::None,
        diff: String::new(),
        creates: false,
        action: Action::AwaitVolumes {
            address: address.to_owned(),
            volumes: work.unready.into_iter().map(|(volume, _)| volume).collect(),
        },
    })
}
