//! One node's machine config: volumes and labels, spliced into the config that exists.

use secrecy::{ExposeSecret, SecretString};

use super::disks::{Choice, How, choose, id};
use super::patches::{Document, WantedConfig};
use super::{
    Action, ApplyConfig, ApprovedDisk, AwaitVolume, NodeAction, Passphrases, Plan, Risk, Step, Target,
    ephemeral, foreseen, labels, versions, volume_state, volumes,
};
use crate::config_doc::ConfigDoc;
use crate::error::{Error, Result, together};
use crate::intent::{Intent, Mount, OnNode, Volume, VolumeType};
use crate::model::disks::{Disk, deep};
use crate::model::mounts::mount_of;
use crate::model::node::{MachineConfig, Node, Version};

/// The steps for one node; a part that could not be read and is needed is an error.
pub fn plan(intent: &Intent, node: &Node, passphrases: &Passphrases) -> Result<Plan> {
    let errors = |errors: Vec<Error>| errors.into_iter().map(|error| on_node(error, &node.address)).collect();
    steps(intent.on(&node.address), node, passphrases).map_err(|all| in_one(errors(all)))
}

/// A thread is begun for no fewer nodes than this.
const SHARE: usize = 50;

/// The steps for several nodes, in their order; what can't be planned is all in one error.
pub fn plan_all(intent: &Intent, nodes: &[Node], passphrases: &Passphrases) -> Result<Plan> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shares = nodes.chunks(nodes.len().div_ceil(cores).max(SHARE));
    let planned: Vec<(Plan, Vec<Error>)> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            shares.map(|nodes| scope.spawn(|| deep(|| share(intent, nodes, passphrases)))).collect();
        let panicked = |_| Err(Error::failed("planning ended by a fault of nodeprep's own"));
        let ended = threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked));
        ended.map(|share| share.unwrap_or_else(|error| (Plan::default(), vec![error]))).collect()
    });
    let mut whole = Plan { simulated: nodes.iter().any(Node::simulated), ..Plan::default() };
    let (said, mut faults) = foreseen::base_paths(intent, nodes);
    for (plan, more) in planned {
        whole.extend(plan);
        faults.extend(more);
    }
    whole.warnings.extend(said);
    together(faults).map_or(Ok(whole), Err)
}

fn share(intent: &Intent, nodes: &[Node], passphrases: &Passphrases) -> (Plan, Vec<Error>) {
    let (mut whole, mut faults) = (Plan::default(), Vec::new());
    for node in nodes {
        match steps(intent.on(&node.address), node, passphrases) {
            Ok(plan) => whole.extend(plan),
            Err(errors) => faults.extend(errors.into_iter().map(|error| on_node(error, &node.address))),
        }
    }
    (whole, faults)
}

/// What stands in the way on one node, with that node in the commands that help.
fn on_node(error: Error, address: &str) -> Error {
    let hint = error.hint.as_deref().map(|hint| {
        ["wipe", "remove"].iter().fold(hint.to_owned(), |hint, verb| {
            let command = format!("`nodeprep {verb} ");
            hint.replace(&command, &format!("{command}--nodes {address} "))
        })
    });
    Error { hint, ..error }.at(address)
}

fn in_one(errors: Vec<Error>) -> Error {
    together(errors).unwrap_or_else(|| Error::failed("nothing stands in the way"))
}

fn steps(on: OnNode, node: &Node, passphrases: &Passphrases) -> Result<Plan, Vec<Error>> {
    let mut plan = Plan::default();
    let listed: Vec<String> = on.volumes.iter().map(|volume| volume.name.clone()).collect();
    let Some(Written { config, before, doc, work, warnings }) = write(on, node, passphrases)? else {
        return Ok(plan);
    };
    let address = &node.address;
    plan.warnings = warnings;
    if work.makes {
        let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
        plan.warnings.extend(foreseen::unlisted(&before, &listed).into_iter().map(|old| {
            format!(
                "{address}: volume {old} is there and not in the file: it stays, with its data. Was it renamed? \
                 `nodeprep remove --volume {old} --nodes {address}` takes it away"
            )
        }));
    }
    if doc.text() == before.text() {
        plan.warnings
            .extend(work.unready.iter().map(|(v, why)| format!("{address}: {} is not ready: {why}", v.id)));
        plan.steps.extend(await_step(address, work));
    } else {
        plan.steps.push(apply_step(node, config, &before, &doc, work));
    }
    Ok(plan)
}

/// All that the file asks of one node's machine config, whether it exists already or not; refused as a plan is.
pub fn asked(intent: &Intent, node: &Node, passphrases: &Passphrases) -> Result<WantedConfig> {
    whole(intent.on(&node.address), node, passphrases).map_err(|error| on_node(error, &node.address))
}

fn whole(on: OnNode, node: &Node, passphrases: &Passphrases) -> Result<WantedConfig> {
    let mut asked = WantedConfig::new(node);
    let Some(Written { doc, work, warnings, .. }) = write(on, node, passphrases).map_err(in_one)? else {
        return Ok(asked);
    };
    if let Some(document) = work.documents.iter().find(|document| !document.pinned) {
        let name = &document.name;
        return Err(Error::refused(format!("volume {name}: no serial or WWID tells its disk from the others"))
            .hint("a patch can't name that disk; leave the volume out for this node: nodes: [{address: …, volumes: {<name>: null}}]"));
    }
    asked.kube_node_config = doc.kube_node_config().is_some();
    asked.documents = work.documents;
    asked.labels = work.labels;
    asked.warnings = warnings;
    asked.warnings.extend(work.notes.into_iter().map(|note| format!("{}: {note}", node.address)));
    Ok(asked)
}

/// One node's config with all that is asked of it.
struct Written<'a> {
    /// The one that exists.
    config: &'a MachineConfig,
    before: ConfigDoc,
    doc: ConfigDoc,
    work: Work,
    warnings: Vec<String>,
}

/// Writes what is asked into the node's config; nothing when nothing is asked. The error is all that stands in the way.
fn write<'a>(
    on: OnNode,
    node: &'a Node,
    passphrases: &Passphrases,
) -> Result<Option<Written<'a>>, Vec<Error>> {
    let mut faults = Vec::new();
    let written = write_all(on, node, passphrases, &mut faults);
    faults.extend(written.as_ref().err().cloned());
    match written {
        Ok(written) if faults.is_empty() => Ok(written),
        _ => Err(faults),
    }
}

fn write_all<'a>(
    mut on: OnNode,
    node: &'a Node,
    passphrases: &Passphrases,
    faults: &mut Vec<Error>,
) -> Result<Option<Written<'a>>> {
    if on.volumes.is_empty() && on.labels.is_empty() && on.ephemeral.is_none() {
        return Ok(None);
    }
    let version = need("Talos version", &node.version)?;
    let mut warnings = Vec::new();
    if version.container {
        let address = &node.address;
        warnings.extend(in_container(&mut on)?.into_iter().map(|said| format!("{address}: {said}")));
    }
    let mut supported = |volume: &&Volume| {
        let lacks = versions::unsupported(volume, version);
        let good = lacks.is_empty();
        faults.extend(lacks);
        good
    };
    let volumes: Vec<Volume> = on.volumes.iter().filter(|volume| supported(volume)).cloned().collect();
    let config = config_of(node)?;
    let before = ConfigDoc::parse(config.text.expose_secret())?;
    let mut doc = before.clone();
    let mut work = Work::default();
    if !on.volumes.is_empty() || on.ephemeral.is_some() {
        let world = NodeFacts { node, version, disks: need("disks", &node.disks)?, passphrases };
        faults.extend(add_ephemeral(&mut doc, &mut work, &world, &on).err());
        let added = volumes.iter().map(|volume| add_volume(&mut doc, &mut work, &world, volume, &on.volumes));
        faults.extend(added.filter_map(Result::err));
        warnings.extend(volumes.iter().filter_map(|volume| without_programs(node, volume)));
    }
    faults.extend(labels::add(&mut doc, &mut work, node, &on)?);
    if doc.text() != before.text() {
        versions::writable(version)?;
    }
    Ok(Some(Written { config, before, doc, work, warnings }))
}

/// Of a volume that is mounted so that no program on it runs, and that nobody asked to be so: an upgrade to Talos 1.14 does that.
fn without_programs(node: &Node, volume: &Volume) -> Option<String> {
    let (mounts, path) = (node.mounts.as_ref().ok()?, mount_of(&volume.name));
    let mounted = mounts.iter().find(|mount| mount.target == path)?;
    (mounted.flags.no_exec && volume.mount.secure.is_none()).then(|| {
        format!(
            "{}: volume {} is mounted noexec, the default since Talos 1.14: programs on it don't run. mount.secure: false lets \
             them, true says that it is meant so",
            node.address, volume.name
        )
    })
}

/// What one node's new config asks for.
#[derive(Default)]
pub(super) struct Work {
    volumes: Vec<AwaitVolume>,
    unready: Vec<(AwaitVolume, String)>,
    taken: Vec<ChosenDisk>,
    /// A volume that did not exist before.
    makes: bool,
    /// What will be made: the worst of it.
    risk: Option<Risk>,
    pub(super) labels: Vec<(String, String)>,
    /// Whole, whether they are in the config already or not.
    documents: Vec<Document>,
    pub(super) titles: Vec<String>,
    notes: Vec<String>,
}

struct ChosenDisk {
    disk: ApprovedDisk,
    how: How,
    shared: bool,
    /// It can be told from all others.
    pinned: bool,
}

/// What the volumes of one node are planned from.
struct NodeFacts<'a> {
    node: &'a Node,
    version: &'a Version,
    disks: &'a [Disk],
    passphrases: &'a Passphrases,
}

/// A part that the plan can't do without; its error keeps its kind and gets the part's name.
pub(super) fn need<'a, T>(what: &str, part: &'a Result<T>) -> Result<&'a T> {
    part.as_ref().map_err(|e| {
        let error = Error::new(e.kind, format!("could not read its {what}: {}", e.what));
        error.hint(e.hint.as_deref().unwrap_or("nothing is planned for a node that can't be read"))
    })
}

/// A container has no disks: volumes become directories, and what a directory can't be is said.
fn in_container(on: &mut OnNode) -> Result<Vec<String>> {
    let mut said = Vec::new();
    if on.ephemeral.take().is_some() {
        said.push("Talos runs in a container, which has no EPHEMERAL partition to cap".to_owned());
    }
    for volume in &mut on.volumes {
        let kind = volume.kind;
        match kind {
            VolumeType::Directory => continue,
            VolumeType::Partition | VolumeType::Disk if volume.encryption.is_none() => {}
            _ => {
                let what = if volume.encryption.is_some() { "encrypted" } else { kind.name() };
                return Err(Error::refused(format!(
                    "volume {}: Talos runs in a container and has no disks, so nothing can be {what}",
                    volume.name
                ))
                .hint("leave the volume out for this node: nodes: [{address: …, volumes: {<name>: null}}]"));
            }
        }
        let name = volume.name.clone();
        said.push(format!("volume {name} is a directory: Talos runs in a container, so it has no size, file system or quota of its own"));
        let mount = Mount { secure: volume.mount.secure, ..Mount::default() };
        *volume = Volume { name, kind: VolumeType::Directory, mount, ..Volume::default() };
    }
    Ok(said)
}

fn add_ephemeral(doc: &mut ConfigDoc, work: &mut Work, world: &NodeFacts<'_>, on: &OnNode) -> Result<()> {
    if let Some(ephemeral) = on.ephemeral {
        let most = ephemeral.max_size;
        if ephemeral::cap(doc, world.disks, world.version, most)? {
            work.titles.push(format!("EPHEMERAL of at most {most}"));
        }
        work.documents.push(Document::new(ephemeral::KIND, ephemeral::NAME, &ephemeral::document(most)));
    }
    Ok(())
}

fn add_volume(
    doc: &mut ConfigDoc,
    work: &mut Work,
    world: &NodeFacts<'_>,
    volume: &Volume,
    all: &[Volume],
) -> Result<()> {
    let mount = (volume.kind != VolumeType::Raw).then(|| mount_of(&volume.name));
    let wait = AwaitVolume { id: id(volume), mount, secure: volume.mount.secure };
    let there = volumes::there(doc, volume)?;
    if there.is_none() {
        refuse_leftover(volume, world.disks)?;
    }
    let choice = match volume.kind {
        VolumeType::Directory => None,
        _ => Some(choose(volume, all, world.disks)?),
    };
    if let Some(choice) = &choice {
        work.take(volume, choice)?;
    }
    let selector = choice.as_ref().and_then(|choice| choice.selector.as_deref()).unwrap_or_default();
    let wanted = volumes::document(volume, selector, world.passphrases)?;
    if let Some(there) = &there {
        volumes::same(volume, there, &wanted)?;
    }
    work.documents.push(Document {
        there: there.is_some(),
        pinned: !selector.is_empty() || volume.kind == VolumeType::Directory,
        secret: volumes::has_passphrase(volume),
        ..Document::new(volumes::document_kind(volume), &volume.name, &wanted)
    });
    let how = choice.as_ref().map(|choice| choice.how);
    let stays = there.is_some() && matches!(how, None | Some(How::Holds));
    let text = if stays { volumes::changes(volume)? } else { wanted };
    let unready = not_ready(world.node, &wait)?;
    if doc.upsert_document(volumes::document_kind(volume), &volume.name, &text)? {
        work.changed(volume, choice.as_ref());
        work.makes |= there.is_none();
        work.notes.extend(versions::note(volume, world.version).filter(|_| !stays));
    } else {
        work.unready.extend(unready.map(|why| (wait.clone(), why)));
    }
    work.volumes.push(wait);
    Ok(())
}

impl Work {
    /// Notes the disk of a volume, if no other volume has it to itself.
    fn take(&mut self, volume: &Volume, choice: &Choice) -> Result<()> {
        let made = |how| matches!(how, How::Empty | How::Beside);
        let shared = volume.disk.shared;
        let clash = self.taken.iter().find(|taken| {
            taken.disk.name == choice.disk.name
                && (made(taken.how) || made(choice.how))
                && !(taken.shared && shared)
        });
        if let Some(ChosenDisk { disk, .. }) = clash {
            return Err(Error::refused(format!(
                "volume {}: {} is taken by volume {}",
                volume.name, disk.name, disk.volume
            ))
            .hint("give each volume a disk of its own, or let both say that they share it: disk: {match: …, shared: true}"));
        }
        self.taken.push(ChosenDisk {
            disk: choice.disk.clone(),
            how: choice.how,
            shared,
            pinned: choice.selector.is_some(),
        });
        Ok(())
    }

    /// Notes that a volume's document is new or other than before.
    fn changed(&mut self, volume: &Volume, choice: Option<&Choice>) {
        let name = &volume.name;
        let kind = match volume.kind {
            VolumeType::Partition => String::new(),
            kind => format!("{} ", kind.name()),
        };
        let place = choice.map_or_else(String::new, |choice| format!(" on {}", choice.disk.what));
        self.titles.push(format!("{kind}volume {name}{place}"));
        let risk = match choice.map(|choice| choice.how) {
            Some(How::Empty) => Risk::Format,
            Some(How::Beside) => Risk::Partition,
            _ => Risk::Low,
        };
        self.risk = self.risk.max(Some(risk));
    }
}

/// A volume of this name that no document of this node explains: Talos would adopt it as it is.
fn refuse_leftover(volume: &Volume, disks: &[Disk]) -> Result<()> {
    let id = id(volume);
    let placed = !matches!(volume.kind, VolumeType::Directory | VolumeType::Existing);
    let Some(disk) = disks.iter().find(|disk| placed && disk.has_volume(&id)) else { return Ok(()) };
    Err(Error::refused(format!(
        "volume {}: {} already has a partition {id} that this node's config does not know",
        volume.name, disk.id
    ))
    .hint(format!(
        "it may hold data of a former cluster, and Talos would adopt it; keep it under another name with type existing and its label as `partition`, or wipe it first: `nodeprep wipe --volume {} --wipe-disk {}`",
        volume.name,
        disk.token(disks).unwrap_or_else(|| "SERIAL".into())
    )))
}

/// Why a volume is not usable, or nothing when it is ready and, unless it is raw, mounted at exactly its path.
fn not_ready(node: &Node, wait: &AwaitVolume) -> Result<Option<String>> {
    let volumes = need("volumes", &node.volumes)?;
    let mounts = need("mounts", &node.mounts)?;
    let status = volumes.iter().find(|v| v.id == wait.id);
    let status = status.map(|v| (v.spec.phase.as_str(), v.spec.error_message.as_str()));
    let mounted = mounts.iter().find(|mount| Some(&mount.target) == wait.mount.as_ref());
    let mounted = mounted.map(|mount| mount.flags);
    Ok(volume_state(wait, status, mounted).err())
}

/// The step that gives a machine its first config, with all that is asked of it, and what is to be said of it.
pub(super) fn first_step(on: OnNode, node: &Node, passphrases: &Passphrases) -> Result<(Step, Vec<String>)> {
    if let Some(Written { config, before, doc, work, warnings }) =
        write(on, node, passphrases).map_err(in_one)?
    {
        return Ok((apply_step(node, config, &before, &doc, work), warnings));
    }
    let config = config_of(node)?;
    let doc = ConfigDoc::parse(config.text.expose_secret())?;
    Ok((apply_step(node, config, &doc, &doc, Work::default()), Vec::new()))
}

fn config_of(node: &Node) -> Result<&MachineConfig> {
    need("machine config", &node.config)?.as_ref().ok_or_else(|| {
        Error::refused("has no machine config yet")
            .hint("`nodeprep bootstrap` gives a machine in maintenance mode the one that the file names")
    })
}

fn apply_step(node: &Node, config: &MachineConfig, before: &ConfigDoc, doc: &ConfigDoc, work: Work) -> Step {
    let address = &node.address;
    let action = Action::Node(NodeAction::Config(ApplyConfig {
        address: address.clone(),
        control_plane: node.is_control_plane(),
        base_version: config.version.clone(),
        config: SecretString::from(doc.text()),
        volumes: work.volumes,
        labels: work.labels,
        disks: work.taken.into_iter().filter(|taken| taken.pinned).map(|taken| taken.disk).collect(),
    }));
    Step {
        why: work.notes.join("; "),
        risk: work.risk.unwrap_or(Risk::Low),
        diff: doc.diff_from(before),
        ..Step::new(format!("node/{address}/config"), Target::node(address), work.titles.join(", "), action)
    }
}

/// The config is right, but a volume does not exist yet: nothing to change, only to wait for.
fn await_step(address: &str, work: Work) -> Option<Step> {
    if work.unready.is_empty() {
        return None;
    }
    let why: Vec<String> = work.unready.iter().map(|(volume, why)| format!("{}: {why}", volume.id)).collect();
    let volumes = work.unready.into_iter().map(|(volume, _)| volume).collect();
    let action = Action::Node(NodeAction::AwaitVolumes { address: address.to_owned(), volumes });
    let step = Step::new(format!("node/{address}/volumes"), Target::node(address), "volumes ready", action);
    Some(Step { why: why.join("; "), ..step })
}
