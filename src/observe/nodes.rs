//! The machines and what is on them, read through the Talos machine API.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use secrecy::ExposeSecret;

use crate::config_doc;
use crate::error::{Error, Kind, Result};
use crate::model::disks::{self, Disk, Facts, kernel, udev};
use crate::model::node::{
    MAINTENANCE, MachineConfig, Mount, Node, Observed, Status, Version, all_answered, parse_version,
};
use crate::talos::proto::machine::MountStat;
use crate::talos::resources::{
    self, Item, MachineStatus, MountStatus, NodeLabel, NodeStatus, Nodename, VolumeStatus, id,
};
use crate::talos::{self, Client};

/// How many machines are read at the same time.
pub const AT_ONCE: usize = 32;

/// Reads several machines, so many at a time that thousands can be asked for; in the order given.
pub async fn observe_all(client: &Client, addresses: &[String], now: Timestamp) -> Result<Vec<Node>> {
    stream::iter(addresses).map(|address| observe(client, address, now)).buffered(AT_ONCE).try_collect().await
}

/// Reads all machines; those of which nothing at all could be read are an error that names them.
pub async fn observe_answering(client: &Client, addresses: &[String], now: Timestamp) -> Result<Vec<Node>> {
    let nodes = observe_all(client, addresses, now).await?;
    all_answered(&nodes).map(|()| nodes)
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

/// Without a date on which credentials expire there are none: what they are needed for does not exist either.
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

async fn version(node: &talos::Node) -> Observed<Version> {
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

pub(super) async fn hostname(node: &talos::Node) -> Observed<Option<String>> {
    let found = node.spec::<Nodename>(id::NODENAME).await?;
    Ok(found.map(|found| found.spec.nodename).filter(|name| !name.is_empty()))
}

async fn machine_type(node: &talos::Node) -> Observed<Option<String>> {
    let found = node.spec::<resources::MachineType>(id::MACHINE_TYPE).await?;
    Ok(found.map(|found| found.spec.0).filter(|kind| kind != "unknown"))
}

async fn status(node: &talos::Node) -> Observed<Status> {
    let found = node.spec::<MachineStatus>(id::MACHINE).await?;
    let MachineStatus { stage, status } = found.map(|found| found.spec).unwrap_or_default();
    let unmet = status.unmet_conditions.into_iter().map(|unmet| format!("{}: {}", unmet.name, unmet.reason));
    Ok(Status { stage, ready: status.ready, unmet: unmet.collect() })
}

/// The disks of one machine alone, read anew.
pub async fn disks(node: &talos::Node) -> Observed<Vec<Disk>> {
    storage(node).await.disks
}

/// What depends on each other: disks tell of volumes and mounts, which are parts of their own.
struct Storage {
    disks: Observed<Vec<Disk>>,
    volumes: Observed<Vec<Item<VolumeStatus>>>,
    mounts: Observed<Vec<Mount>>,
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
fn away<T>(part: &Observed<T>) -> Option<Error> {
    part.as_ref().err().filter(|error| error.kind == Kind::Unavailable).cloned()
}

/// What is known of the disks, but for volumes, mounts and udev's records.
async fn facts(node: &talos::Node) -> Observed<Facts> {
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
async fn kernel(node: &talos::Node) -> Observed<Option<kernel::Kernel>> {
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
async fn udev(node: &talos::Node, facts: &Facts) -> Observed<BTreeMap<String, Result<udev::Record, String>>> {
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
    let MountStatus { source, target, filesystem, flags, .. } = mount.spec;
    let found = sizes.iter().rev().find(|stat| stat.mounted_on == target);
    let (size, available) = (found.map(|stat| stat.size), found.map(|stat| stat.available));
    Mount { source, target, filesystem, size, available, flags }
}

async fn wanted_labels(node: &talos::Node) -> Observed<BTreeMap<String, String>> {
    let found = node.specs::<NodeLabel>().await?;
    Ok(found.into_iter().map(|label| (label.spec.key, label.spec.value)).collect())
}

pub(super) async fn labels(node: &talos::Node) -> Observed<Option<BTreeMap<String, String>>> {
    let found = node.specs::<NodeStatus>().await?;
    Ok(found.into_iter().next().map(|status| status.spec.labels))
}

pub(super) async fn config(node: &talos::Node) -> Observed<Option<MachineConfig>> {
    let found = node.spec::<resources::MachineConfig>(id::ACTIVE_CONFIG).await?;
    Ok(found.map(|found| {
        config_doc::hold_fields(found.spec.0.expose_secret());
        MachineConfig { text: found.spec.0, version: found.version }
    }))
}
