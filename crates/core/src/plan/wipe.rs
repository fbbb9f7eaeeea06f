//! Wiping a disk, or the partition of a volume that its machine does not have: only with the token that names the
//! disk, which is its serial, or its WWID where the serial does not tell it from others.

use super::disks::human;
use super::step::chain;
use super::{Action, NodeAction, Plan, Risk, Skipped, Step, Target};
use crate::error::{Error, Result, all};
use crate::model::disks::{
    Disk, DiskId, Holder, Partition, RAW_VOLUME, USER_VOLUME, is_volume, volume_named,
};
use crate::model::mounts::mount_of;
use crate::model::node::Node;

/// The machine API takes a wiped partition out of the table from this version on.
const FIRST_VERSION: (u64, u64) = (1, 10);

/// What is asked for. Without disks and without a volume, it is the disks that the tokens name.
#[derive(Debug, Clone, Copy, Default)]
pub struct WipeRequest<'a> {
    /// Kernel names at this boot, of the one node.
    pub disks: &'a [String],
    /// The name of the volume whose partitions are to go, wherever they are.
    pub volume: Option<&'a str>,
    pub tokens: &'a [String],
    /// Overwrite every byte, instead of signatures and tables.
    pub zeroes: bool,
}

/// A disk that is to be wiped, or one partition of it, by what does not change over a reboot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wipe {
    pub address: String,
    pub id: DiskId,
    /// What has to be said for it to be wiped.
    pub token: String,
    /// Name, size, model and serial, for people.
    pub what: String,
    /// The label of the only partition that goes.
    pub partition: Option<String>,
    pub zeroes: bool,
    /// What is on the disk, as the plan saw it.
    pub contents: String,
    /// How the same is told once the volume that has the whole disk is gone: its file system does not say whose it was.
    pub released: Option<String>,
}

impl Wipe {
    /// What is on the disk can't be seen, so that it was wiped can't be seen either.
    pub fn is_blind(&self) -> bool {
        self.contents == UNKNOWN
    }
}

/// As [`Holder::Unknown`] is written.
const UNKNOWN: &str = "unknown";

/// What would be wiped, and what has nothing on it.
#[derive(Debug, Default)]
pub struct WipeTargets {
    pub wipes: Vec<Wipe>,
    pub skipped: Vec<Skipped>,
}

/// How the disk of a wipe stands now.
#[derive(Debug, PartialEq, Eq)]
pub enum Now {
    /// Nothing is left to wipe.
    Wiped,
    /// As the plan saw it. The devices in the order in which they are wiped, and whether each is a partition that is
    /// taken out of its table then: a file system that stayed would be adopted by the next partition at its place.
    Same(Vec<(String, bool)>),
    /// Neither: a part of it was wiped, or it was written to. The devices that there are now.
    Other(Vec<(String, bool)>),
}

/// Finds what is asked for, and refuses what must not be wiped whatever token is given.
pub fn find(nodes: &[Node], asked: WipeRequest<'_>) -> Result<WipeTargets> {
    let mut found = WipeTargets::default();
    if let Some(volume) = asked.volume {
        for node in nodes {
            find_volume(&mut found, node, volume, asked.zeroes)?;
        }
        return Ok(found);
    }
    for (node, disk) in chosen(nodes, asked)? {
        let disks = disks(node)?;
        if disk.holder.is_free() && disk.uses.volumes.is_empty() {
            let what = format!("{}: {}", node.address, describe(disk));
            found.skipped.push(Skipped { what, why: "nothing is on it".into() });
            continue;
        }
        usable(node)?;
        let wipe = wipe(node, disks, disk, None, asked.zeroes)?;
        refuse_used(node, disk, None)?;
        if !found.wipes.contains(&wipe) {
            found.wipes.push(wipe);
        }
    }
    Ok(found)
}

/// The steps; each disk needs its token.
pub fn plan(found: WipeTargets, tokens: &[String]) -> Result<Plan> {
    let mut steps = all(found.wipes.into_iter().map(|wipe| step(wipe, tokens)))?;
    chain(&mut steps);
    Ok(Plan { steps, skipped: found.skipped, ..Plan::default() })
}

/// A step for a wipe that has its token.
pub(super) fn step(wipe: Wipe, tokens: &[String]) -> Result<Step> {
    if !tokens.contains(&wipe.token) {
        return Err(Error::refused(format!("{}: {} is wiped only by its token", wipe.address, wipe.what))
            .hint(format!("if all that is on it may be lost: --wipe-disk {}", wipe.token)));
    }
    let id = format!("node/{}/wipe/{}", wipe.address, wipe.token);
    let (id, title) = match &wipe.partition {
        Some(label) => (format!("{id}/{label}"), format!("wipe partition {label} of {}", wipe.what)),
        None => (id, format!("wipe {}", wipe.what)),
    };
    Ok(Step {
        why: format!("the disk holds {}", wipe.contents),
        risk: Risk::Destroy,
        ..Step::new(id, Target::node(&wipe.address), title, Action::Node(NodeAction::Wipe(wipe)))
    })
}

/// How the disk stands now, found again by serial and WWID; refused when it does not exist exactly once, or in use.
pub fn look(wipe: &Wipe, disks: &[Disk]) -> Result<Now> {
    let refused = |why: String| {
        Error::refused(format!("{}: {why}", wipe.address))
            .hint("run it again, to plan from what is there now")
    };
    let disk = wipe.id.find(disks).map_err(|error| error.at(&wipe.what).at(&wipe.address))?;
    if disk.system || disk.unfit().is_some() {
        return Err(refused(format!("{} is not a disk to wipe any more", wipe.what)));
    }
    let partition = |label: &String| disk.partitions.iter().find(|part| part.label == *label);
    // A disk that Talos has not looked at since it booted has no partitions yet.
    let seen = !matches!(disk.holder, Holder::Unknown(_));
    let wiped = match &wipe.partition {
        Some(label) => partition(label).is_none() && seen,
        None => disk.holder.is_free(),
    };
    if wiped {
        return Ok(Now::Wiped);
    }
    if let Some(use_of) = use_of(disk, None) {
        return Err(refused(format!("{} is in use: {use_of}", wipe.what)));
    }
    let devices = match &wipe.partition {
        Some(label) => partition(label).map(|part| (part.id.clone(), true)).into_iter().collect(),
        None => {
            // Only Talos' own look tells the size of a partition, and it reads no table but a GPT.
            let parts = disk.partitions.iter().map(|part| (part.id.clone(), part.size > 0));
            parts.chain([(disk.id.clone(), false)]).collect()
        }
    };
    let now = contents(disk);
    let same = now == wipe.contents || Some(&now) == wipe.released.as_ref();
    Ok(if same { Now::Same(devices) } else { Now::Other(devices) })
}

/// A partition that its table does not know any more, and the kernel still does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ghost {
    /// The disk's name.
    pub disk: String,
    /// Nothing else is on the disk.
    pub alone: bool,
}

/// What is left of partitions that were taken out of their table, by the devices that were wiped.
pub fn ghost(wipe: &Wipe, wiped: &[(String, bool)], disks: &[Disk]) -> Option<Ghost> {
    let is = |part: &Partition| {
        part.label.is_empty() && part.format.is_empty() && wiped.iter().any(|(name, _)| *name == part.id)
    };
    let disk = wipe.id.find(disks).ok().filter(|disk| disk.partitions.iter().any(is))?;
    Some(Ghost { disk: disk.id.clone(), alone: disk.partitions.iter().all(is) })
}

/// The disks that are named, each with its node.
fn chosen<'a>(nodes: &'a [Node], asked: WipeRequest<'_>) -> Result<Vec<(&'a Node, &'a Disk)>> {
    if asked.disks.is_empty() {
        return asked.tokens.iter().map(|token| by_token(nodes, token)).collect();
    }
    let [node] = nodes else {
        return Err(
            Error::invalid("a disk's name means one on every node").hint("name one node with --nodes")
        );
    };
    let all = disks(node)?;
    let named = |name: &String| {
        let id = name.strip_prefix("/dev/").unwrap_or(name);
        let disk = all.iter().find(|disk| disk.id == id);
        let missing = || {
            Error::invalid(format!("{}: no disk {name}", node.address))
                .hint("`nodeprep discover` lists the disks")
        };
        disk.map(|disk| (node, disk)).ok_or_else(missing)
    };
    asked.disks.iter().map(named).collect()
}

/// The one disk of all nodes that a token names.
fn by_token<'a>(nodes: &'a [Node], token: &str) -> Result<(&'a Node, &'a Disk)> {
    let mut found = Vec::new();
    for node in nodes {
        let is = |disk: &&Disk| disk.spec.serial == token || disk.spec.wwid == token;
        found.extend(disks(node)?.iter().filter(is).map(|disk| (node, disk)));
    }
    match found[..] {
        _ if token.is_empty() => Err(Error::invalid("--wipe-disk needs a serial")),
        [only] => Ok(only),
        [] => Err(Error::invalid(format!("no disk has the serial {token:?}"))
            .hint("`nodeprep discover -o wide` lists serials and WWIDs")),
        _ => {
            let places: Vec<_> =
                found.iter().map(|(node, disk)| format!("{} {}", node.address, disk.id)).collect();
            Err(Error::refused(format!("{token:?} names more than one disk: {}", places.join(", ")))
                .hint("one disk seen twice is not wiped; otherwise name it by its WWID"))
        }
    }
}

/// The partitions of a volume that the machine does not have.
fn find_volume(found: &mut WipeTargets, node: &Node, volume: &str, zeroes: bool) -> Result<()> {
    let all = disks(node)?;
    let ids = [USER_VOLUME, RAW_VOLUME].map(|prefix| format!("{prefix}{volume}"));
    let on =
        all.iter().flat_map(|disk| ids.iter().filter(|id| disk.has_volume(id)).map(move |id| (disk, id)));
    let on: Vec<(&Disk, &String)> = on.collect();
    if on.is_empty() {
        let what = format!("{}: volume {volume}", node.address);
        found.skipped.push(Skipped { what, why: "no disk holds it".into() });
    }
    for (disk, id) in on {
        usable(node)?;
        let wipe = wipe(node, all, disk, Some(id), zeroes)?;
        refuse_used(node, disk, None)?;
        found.wipes.push(wipe);
    }
    Ok(())
}

/// The node can be asked to wipe, and everything that tells what it uses could be read.
pub(super) fn usable(node: &Node) -> Result<()> {
    let address = &node.address;
    let unread = |what: &str, e: &Error| {
        let error = Error::new(e.kind, format!("{address}: could not read its {what}: {}", e.what));
        error.hint("nothing is wiped on a node that can't be read")
    };
    if node.maintenance {
        return Err(Error::refused(format!(
            "{address}: is in maintenance mode, so nothing proves that it is the node"
        ))
        .hint("`talosctl wipe disk --insecure` wipes there"));
    }
    let version = node.version.as_ref().map_err(|e| unread("Talos version", e))?;
    node.volumes.as_ref().map_err(|e| unread("volumes", e))?;
    node.mounts.as_ref().map_err(|e| unread("mounts", e))?;
    let (major, minor, _) = version.parsed;
    if (major, minor) < FIRST_VERSION {
        return Err(Error::refused(format!("{address}: Talos {} can't take a partition away", version.tag))
            .hint("upgrade to Talos 1.10 or later first"));
    }
    Ok(())
}

/// Refuses what the machine uses, but for the volume of one id that was taken out of use before.
pub(super) fn refuse_used(node: &Node, disk: &Disk, released: Option<&str>) -> Result<()> {
    let encrypted = |id: &str| {
        let status = node.volumes.iter().flatten().find(|volume| volume.id == id);
        status.is_some_and(|volume| !volume.spec.encryption_provider.is_empty())
    };
    // An encrypted volume lies under a device of its own for as long as it is open.
    let own = usize::from(released.is_some_and(encrypted));
    let on_top = lies_on(disk.uses.uppers.get(own..).unwrap_or_default());
    let Some(use_of) = use_of(disk, released).or_else(|| on_top.clone()) else { return Ok(()) };
    let hint = if on_top.is_some() && (on_top.as_ref() == Some(&use_of) || disk.uses.volumes.is_empty()) {
        "LVM and RAID are to be taken apart first: `talosctl` of Talos 1.14 can; before, remove what uses them"
    } else {
        "`nodeprep remove --volume NAME` takes a volume out of use and wipes its partition"
    };
    Err(Error::refused(format!("{}: {} is in use: {use_of}", node.address, describe(disk))).hint(hint))
}

/// What uses a disk, besides one volume.
fn use_of(disk: &Disk, released: Option<&str>) -> Option<String> {
    let uses = &disk.uses;
    let path = released.and_then(|id| id.strip_prefix(USER_VOLUME)).map(mount_of);
    if let Some((id, _)) = uses.volumes.iter().find(|(id, _)| Some(id.as_str()) != released) {
        return Some(format!("volume {id} lies on it"));
    }
    if let Some(mount) = uses.mounts.iter().find(|mount| path.as_ref() != Some(*mount)) {
        return Some(format!("it is mounted at {mount}"));
    }
    // A volume that the config asks for, and that Talos has not placed: it would be adopted at any moment.
    let labels = disk.partitions.iter().map(|part| &part.label).filter(|label| is_volume(label));
    let whole = match &disk.holder {
        Holder::Volume(id) => Some(id),
        _ => None,
    };
    let mut wanted = labels.chain(whole).filter(|id| Some(id.as_str()) != released);
    if let Some(id) = wanted.find(|id| !uses.strays.contains(id)) {
        return Some(format!("the node's config asks for {}", volume_named(id)));
    }
    lies_on(&uses.uppers).filter(|_| released.is_none())
}

fn lies_on(uppers: &[String]) -> Option<String> {
    (!uppers.is_empty()).then(|| format!("{} lies on it", uppers.join(", ")))
}

/// A wipe of the disk, or of its partition that is the volume of this id.
pub(super) fn wipe(
    node: &Node,
    disks: &[Disk],
    disk: &Disk,
    volume: Option<&str>,
    zeroes: bool,
) -> Result<Wipe> {
    let refused = |why: String, hint: &str| {
        Error::refused(format!("{}: {} is not wiped: {why}", node.address, describe(disk))).hint(hint)
    };
    if disk.system {
        return Err(refused("Talos is installed on it".into(), "`talosctl reset` wipes a system disk"));
    }
    if disk.holder == Holder::System && !disks.iter().any(|disk| disk.system) {
        let why = "it holds Talos, and the node does not say which disk it runs from".into();
        return Err(refused(why, "`talosctl wipe disk` wipes it, if it is not the system's"));
    }
    if let Some(why) = disk.unfit() {
        return Err(refused(format!("it {why}"), "`nodeprep discover` lists the disks"));
    }
    if let Some(twin) = disk.twin(disks) {
        let why = format!("{} says it is the same disk", twin.id);
        return Err(refused(why, "nodeprep can't tell them apart; is it one disk on two paths?"));
    }
    let id = disk.identity();
    let token = disk.token(disks).ok_or_else(|| {
        let why = if id.is_empty() {
            "it has neither serial nor WWID"
        } else {
            "another disk says the same of itself"
        };
        let hint = "its name may mean another disk after a reboot, so nodeprep does not touch it";
        refused(why.into(), hint)
    })?;
    let partition = volume.filter(|id| disk.partitions.iter().any(|part| part.label == **id));
    Ok(Wipe {
        address: node.address.clone(),
        id,
        token,
        what: describe(disk),
        partition: partition.map(str::to_owned),
        zeroes,
        contents: contents(disk),
        released: volume.and_then(|id| released(node, disk, id)),
    })
}

/// What is seen on a disk that a volume has as a whole, once the node does not have the volume any more.
fn released(node: &Node, disk: &Disk, id: &str) -> Option<String> {
    let status = &node.volumes.iter().flatten().find(|status| status.id == id)?.spec;
    let beneath = match status.encryption_provider.as_str() {
        "" => Holder::Filesystem { kind: status.filesystem.clone(), label: String::new() },
        _ => Holder::Luks,
    };
    (status.location == disk.spec.dev_path).then(|| beneath.to_string())
}

pub(super) fn disks(node: &Node) -> Result<&[Disk]> {
    node.disks.as_deref().map_err(|e| {
        let error = Error::new(e.kind, format!("{}: could not read its disks: {}", node.address, e.what));
        error.hint("nothing is wiped on a node that can't be read")
    })
}

/// What is on a disk, for people and to see whether it is still that.
fn contents(disk: &Disk) -> String {
    let parts: Vec<String> = disk
        .partitions
        .iter()
        .map(|part| format!("{} {} {}", part.index, part.label, part.format).trim_end().to_owned())
        .collect();
    let parts = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) };
    format!("{}{parts}", disk.holder)
}

fn describe(disk: &Disk) -> String {
    let spec = &disk.spec;
    let said = [("model", &spec.model), ("serial", &spec.serial)].into_iter();
    let said: String = said
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!(", {name} {value}"))
        .collect();
    format!("{} ({}{said})", disk.id, human(spec.size))
}
