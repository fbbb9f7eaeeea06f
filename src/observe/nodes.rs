//! The machines and what is on them, read through the Talos machine API.

use std::collections::BTreeMap;
use std::fmt;

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use super::disks::{self, Disk, Facts, kernel, udev};
use crate::config_doc;
use crate::error::{Error, Kind, Result};
use crate::talos::proto::machine::MountStat;
use crate::talos::resources::{
    self, Item, MachineStatus, MountStatus, NodeLabel, NodeStatus, Nodename, VolumeStatus, id,
};
use crate::talos::{self, Client};

/// A part of what was observed; that it could not be read is data too.
pub type Part<T> = Result<T>;

/// How many machines are read at the same time.
pub const AT_ONCE: usize = 32;

/// The stage of a machine that waits for its first configuration.
pub const MAINTENANCE: &str = "maintenance";

/// A machine as it is.
#[derive(Debug)]
pub struct Node {
    /// The address it was asked for by.
    pub address: String,
    pub version: Part<Version>,
    /// Its name in Kubernetes, if it has one yet.
    pub hostname: Part<Option<String>>,
    /// `controlplane` or `worker`; nothing in maintenance mode.
    pub machine_type: Part<Option<String>>,
    pub status: Part<Status>,
    /// Empty in a container, which sees no disks.
    pub disks: Part<Vec<Disk>>,
    /// Volumes by id; a user volume's is `u-<name>`.
    pub volumes: Part<Vec<Item<VolumeStatus>>>,
    pub mounts: Part<Vec<Mount>>,
    /// The labels the configuration asks for.
    pub wanted_labels: Part<BTreeMap<String, String>>,
    /// The labels on the Node object, if the machine can see it.
    pub labels: Part<Option<BTreeMap<String, String>>>,
    /// The configuration in force; nothing in maintenance mode.
    pub config: Part<Option<MachineConfig>>,
    /// It has no configuration yet and was read without credentials, so nothing proves that it is the machine.
    pub maintenance: bool,
    /// Of the key that it showed in maintenance mode, as its console prints it.
    pub fingerprint: Option<String>,
    /// Whole days until the client certificate in use expires; nothing when none was shown.
    pub cert_days_left: Option<i64>,
}

/// The Talos a machine runs, and what it runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// As Talos writes it, such as `v1.11.5`.
    pub tag: String,
    /// Major, minor and patch; anything after them is left out.
    pub parsed: (u64, u64, u64),
    /// Such as `metal`.
    pub platform: String,
    /// Whether the machine is a container, which has no disks of its own and cannot reboot.
    pub container: bool,
    /// Such as `amd64`.
    pub arch: String,
    /// Whether it is of a sandbox, which says so where others say of which commit they are.
    pub simulated: bool,
}

impl Version {
    /// That of a metal machine, by the tag of its installer's image; nothing when that is not tagged with a version.
    pub fn of_image(image: &str) -> Option<Self> {
        let name = image.split('@').next()?.rsplit('/').next()?;
        Self::of_tag(name.split_once(':')?.1)
    }

    /// That of a metal machine, by its tag, such as `v1.11.5`; nothing when the tag is no version.
    pub fn of_tag(tag: &str) -> Option<Self> {
        let parsed = parse_version(tag)?;
        let platform = "metal".to_owned();
        let (tag, arch) = (tag.to_owned(), String::new());
        Some(Self { tag, parsed, platform, container: false, arch, simulated: false })
    }
}

/// Where a machine is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Such as `maintenance`, `booting` or `running`.
    pub stage: String,
    pub ready: bool,
    /// What keeps it from being ready: name and reason.
    pub unmet: Vec<String>,
}

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub source: String,
    pub target: String,
    pub filesystem: String,
    /// Bytes, where they could be read.
    pub size: Option<u64>,
    /// Bytes, where they could be read.
    pub available: Option<u64>,
}

/// A machine's configuration: all its documents, and the version of the resource that holds them.
#[derive(Clone)]
pub struct MachineConfig {
    pub text: SecretString,
    pub version: String,
}

impl fmt::Debug for MachineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineConfig").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Node {
    /// Whether it is of a sandbox.
    pub fn simulated(&self) -> bool {
        self.version.as_ref().is_ok_and(|version| version.simulated)
    }

    /// Whether it has a control plane; it may have one where that could not be read.
    pub fn is_control_plane(&self) -> bool {
        match &self.machine_type {
            Ok(kind) => kind.as_deref().is_some_and(is_control_plane),
            Err(_) => true,
        }
    }

    /// Whether anything answers at its address. In maintenance mode an older Talos does not tell its version.
    pub fn answers(&self) -> bool {
        self.version.is_ok() || self.status.is_ok()
    }

    /// The parts that could not be read, by name.
    pub fn faults(&self) -> Vec<(&'static str, &Error)> {
        fn fault<'a, T>(name: &'static str, part: &'a Part<T>) -> Option<(&'static str, &'a Error)> {
            part.as_ref().err().map(|error| (name, error))
        }
        let faults = [
            fault("version", &self.version),
            fault("hostname", &self.hostname),
            fault("machine type", &self.machine_type),
            fault("status", &self.status),
            fault("disks", &self.disks),
            fault("volumes", &self.volumes),
            fault("mounts", &self.mounts),
            fault("wanted labels", &self.wanted_labels),
            fault("labels", &self.labels),
            fault("config", &self.config),
        ];
        faults.into_iter().flatten().collect()
    }
}

/// Reads several machines, so many at a time that thousands can be asked for; in the order given.
pub async fn observe_all(client: &Client, addresses: &[String], now: Timestamp) -> Result<Vec<Node>> {
    stream::iter(addresses).map(|address| observe(client, address, now)).buffered(AT_ONCE).try_collect().await
}

/// Reads all machines; those of which nothing at all could be read are an error that names them.
pub async fn observe_answering(client: &Client, addresses: &[String], now: Timestamp) -> Result<Vec<Node>> {
    let nodes = observe_all(client, addresses, now).await?;
    all_answered(&nodes).map(|()| nodes)
}

/// An error that names the machines of which nothing at all could be read.
pub fn all_answered(nodes: &[Node]) -> Result<()> {
    let silent = nodes.iter().filter(|node| !node.answers());
    let mut dead = silent.filter_map(|node| node.version.as_ref().err().map(|error| (&node.address, error)));
    let Some((_, first)) = dead.next() else { return Ok(()) };
    let others: Vec<&str> = dead.map(|(address, _)| address.as_str()).collect();
    let also =
        if others.is_empty() { String::new() } else { format!(" (and so it is with {})", others.join(", ")) };
    Err(Error { what: format!("{}{also}", first.what), ..first.clone() })
}

/// Reads everything of one machine at once. A machine that shows a certificate of nobody's is read again without
/// credentials, and taken for one in maintenance mode when it says so. It is an error only when `address` cannot be a
/// machine's.
pub async fn observe(client: &Client, address: &str, now: Timestamp) -> Result<Node> {
    let node = read(&client.node(address)?, now, client.expires()).await;
    if !node.version.as_ref().is_err_and(talos::is_stranger) {
        return Ok(node);
    }
    let insecure = client.insecure(address, None)?;
    let bare = read(&insecure.node(address)?, now, None).await;
    Ok(match &bare.status {
        Ok(status) if status.stage == MAINTENANCE => Node { fingerprint: insecure.fingerprint(), ..bare },
        // That nothing answers there tells nothing more of a server that was reached, and is another cluster's.
        Err(error)
            if error.kind == Kind::Unavailable && !node.version.as_ref().is_err_and(talos::is_wrong_ca) =>
        {
            let why = format!("without credentials: {}", error.what);
            let version = node.version.map_err(|stranger| Error {
                what: format!("{}; {why}", stranger.what),
                code: stranger.code,
                ..error.clone()
            });
            Node { version, ..node }
        }
        _ => node,
    })
}

/// The connection that a node was read through.
pub fn handle(client: &Client, node: &Node) -> Result<talos::Node> {
    if node.maintenance {
        client.insecure(&node.address, node.fingerprint.as_deref())?.node(&node.address)
    } else {
        client.node(&node.address)
    }
}

/// Without a date on which credentials expire there are none: what they are needed for is not there either.
async fn read(node: &talos::Node, now: Timestamp, expires: Option<Timestamp>) -> Node {
    let maintenance = expires.is_none();
    let (version, hostname, machine_type, status, storage, wanted_labels, labels, config) = tokio::join!(
        version(node),
        hostname(node),
        machine_type(node),
        status(node),
        storage(node),
        async { if maintenance { Ok(BTreeMap::new()) } else { wanted_labels(node).await } },
        async { if maintenance { Ok(None) } else { labels(node).await } },
        async { if maintenance { Ok(None) } else { config(node).await } },
    );
    let Storage { disks, volumes, mounts } = storage;
    Node {
        address: node.address().to_owned(),
        version,
        hostname,
        machine_type,
        status,
        disks,
        volumes,
        mounts,
        wanted_labels,
        labels,
        config,
        maintenance,
        fingerprint: None,
        cert_days_left: expires.map(|expires| talos::config::days_between(now, expires)),
    }
}

async fn version(node: &talos::Node) -> Part<Version> {
    let reply = node.version().await?;
    let info = reply.version.unwrap_or_default();
    let platform = reply.platform.unwrap_or_default();
    let parsed = parse_version(&info.tag).ok_or_else(|| {
        Error::failed(format!("node {}: its version {:?} is not one", node.address(), info.tag))
    })?;
    let container = platform.mode.eq_ignore_ascii_case("container");
    let simulated = info.sha == "simulated";
    Ok(Version { tag: info.tag, parsed, platform: platform.name, container, arch: info.arch, simulated })
}

/// Reads `v1.11.5`, `1.11.5` or `v1.14.0-alpha.2`.
fn parse_version(tag: &str) -> Option<(u64, u64, u64)> {
    let plain = tag.strip_prefix('v').unwrap_or(tag);
    let plain = plain.split(['-', '+']).next()?;
    let mut numbers = plain.split('.').map(str::parse);
    let version = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    numbers.next().is_none().then_some(version)
}

pub(super) async fn hostname(node: &talos::Node) -> Part<Option<String>> {
    let found = node.spec::<Nodename>(id::NODENAME).await?;
    Ok(found.map(|found| found.spec.nodename).filter(|name| !name.is_empty()))
}

/// Whether machines of this type have a control plane.
pub fn is_control_plane(machine_type: &str) -> bool {
    ["controlplane", "init"].iter().any(|kind| machine_type.eq_ignore_ascii_case(kind))
}

async fn machine_type(node: &talos::Node) -> Part<Option<String>> {
    let found = node.spec::<resources::MachineType>(id::MACHINE_TYPE).await?;
    Ok(found.map(|found| found.spec.0).filter(|kind| kind != "unknown"))
}

async fn status(node: &talos::Node) -> Part<Status> {
    let found = node.spec::<MachineStatus>(id::MACHINE).await?;
    let MachineStatus { stage, status } = found.map(|found| found.spec).unwrap_or_default();
    let unmet = status.unmet_conditions.into_iter().map(|unmet| format!("{}: {}", unmet.name, unmet.reason));
    Ok(Status { stage, ready: status.ready, unmet: unmet.collect() })
}

/// The disks of one machine alone, read anew.
pub async fn disks(node: &talos::Node) -> Part<Vec<Disk>> {
    storage(node).await.disks
}

/// What depends on each other: disks tell of volumes and mounts, which are parts of their own.
struct Storage {
    disks: Part<Vec<Disk>>,
    volumes: Part<Vec<Item<VolumeStatus>>>,
    mounts: Part<Vec<Mount>>,
}

async fn storage(node: &talos::Node) -> Storage {
    let (facts, volumes, mounts, sizes) =
        tokio::join!(facts(node), node.specs::<VolumeStatus>(), node.specs::<MountStatus>(), node.mounts());
    let disks = match (facts, away(&volumes).or_else(|| away(&mounts))) {
        (Ok(facts), None) => {
            let volumes = volumes.as_ref().ok().cloned();
            let mounts = mounts.as_ref().ok().cloned().unwrap_or_default();
            let facts = Facts { volumes, mounts, ..facts };
            udev(node, &facts).await.map(|udev| disks::join(&Facts { udev, ..facts }))
        }
        (Err(error), _) | (_, Some(error)) => Err(error),
    };
    // The call that tells sizes does not work everywhere (not in maintenance mode); the mounts are there without.
    let sizes = sizes.unwrap_or_default();
    let mounts = mounts.map(|mounts| mounts.into_iter().map(|mount| sized(mount, &sizes)).collect());
    Storage { disks, volumes, mounts }
}

/// Why a machine that is away did not tell this. What it does not tell at all is known of it, and no reason to ask again.
fn away<T>(part: &Part<T>) -> Option<Error> {
    part.as_ref().err().filter(|error| error.kind == Kind::Unavailable).cloned()
}

/// What is known of the disks, but for volumes, mounts and udev's records.
async fn facts(node: &talos::Node) -> Part<Facts> {
    let (disks, system, devices, discovered) = tokio::try_join!(
        node.specs(),
        node.spec::<resources::SystemDisk>(id::SYSTEM_DISK),
        node.specs(),
        node.specs()
    )?;
    let system_disk = system.map(|found| found.spec.disk_id).filter(|disk| !disk.is_empty());
    let mut facts = Facts { disks, system_disk, devices, discovered, ..Facts::default() };
    if kernel::is_needed(&facts)
        && let Some(kernel) = kernel(node).await?
    {
        kernel::drop_deleted(&mut facts, &kernel);
    }
    Ok(facts)
}

/// What the kernel has; nothing when that may not be read, so that all partitions count that are listed.
///
/// # Errors
/// The machine is away.
async fn kernel(node: &talos::Node) -> Part<Option<kernel::Kernel>> {
    match node.read(kernel::PATH, kernel::LONGEST).await {
        Ok(list) => Ok(list.and_then(|list| kernel::Kernel::parse(&String::from_utf8_lossy(&list)))),
        Err(error) if error.kind == Kind::Unavailable => Err(error),
        Err(_) => Ok(None),
    }
}

/// What udev recognised where Talos recognised nothing; why that is not known is data too.
///
/// # Errors
/// The machine is away.
async fn udev(node: &talos::Node, facts: &Facts) -> Part<BTreeMap<String, Result<udev::Record, String>>> {
    let read = |(id, device): (&str, &resources::BlockDevice)| {
        let (id, path) = (id.to_owned(), udev::path(device));
        async move {
            let record = match node.read(&path, udev::LONGEST).await {
                Ok(Some(bytes)) => udev::Record::parse(&String::from_utf8_lossy(&bytes))
                    .ok_or_else(|| "is not done with it yet".to_owned()),
                Ok(None) => Err("has no record of it yet".to_owned()),
                Err(error) if error.kind == Kind::Unavailable => return Err(error),
                Err(error) => Err(format!("its record could not be read: {}", error.what)),
            };
            Ok((id, record))
        }
    };
    let records = futures::future::try_join_all(disks::unproven(facts).map(read)).await?;
    Ok(records.into_iter().collect())
}

fn sized(mount: Item<MountStatus>, sizes: &[MountStat]) -> Mount {
    let MountStatus { source, target, filesystem, .. } = mount.spec;
    let found = sizes.iter().rev().find(|stat| stat.mounted_on == target);
    let (size, available) = (found.map(|stat| stat.size), found.map(|stat| stat.available));
    Mount { source, target, filesystem, size, available }
}

async fn wanted_labels(node: &talos::Node) -> Part<BTreeMap<String, String>> {
    let found = node.specs::<NodeLabel>().await?;
    Ok(found.into_iter().map(|label| (label.spec.key, label.spec.value)).collect())
}

pub(super) async fn labels(node: &talos::Node) -> Part<Option<BTreeMap<String, String>>> {
    let found = node.specs::<NodeStatus>().await?;
    Ok(found.into_iter().next().map(|status| status.spec.labels))
}

pub(super) async fn config(node: &talos::Node) -> Part<Option<MachineConfig>> {
    let found = node.spec::<resources::MachineConfig>(id::ACTIVE_CONFIG).await?;
    Ok(found.map(|found| {
        config_doc::hold_fields(found.spec.0.expose_secret());
        MachineConfig { text: found.spec.0, version: found.version }
    }))
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn reads_the_versions_talos_writes_and_no_others() {
        let table = [
            ("v1.11.5", Some((1, 11, 5))),
            ("1.9.0", Some((1, 9, 0))),
            ("v1.14.0-alpha.2", Some((1, 14, 0))),
            ("v1.15.0-alpha.0-12-g1234abc-dirty", Some((1, 15, 0))),
            ("v1.11", None),
            ("v1.11.5.6", None),
            ("", None),
            ("dev", None),
        ];
        for (tag, expected) in table {
            assert_eq!(parse_version(tag), expected, "{tag}");
        }
    }
}
