//! Who has data on a volume that is to go, by every path that leads to it; what can't be told counts as a user.

use crate::config_doc::ConfigDoc;
use crate::error::{Error, Result};
use crate::intent::same_address;
use crate::model::HOSTNAME;
use crate::model::claims::{KubeNode, Users};
use crate::model::disks::{Disk, Partition, RAW_VOLUME};
use crate::model::mounts::MOUNTS;
use crate::model::node::Node;
use crate::yaml;

/// CSI drivers that keep nothing on the disks of nodes, by the names that they register.
const REMOTE: [&str; 22] = [
    "blob.csi.azure.com",
    "block.csi.vultr.com",
    "cephfs.manila.csi.openstack.org",
    "cinder.csi.openstack.org",
    "csi.cert-manager.io",
    "csi.hetzner.cloud",
    "csi.san.synology.com",
    "csi.spiffe.io",
    "csi.tigera.io",
    "csi.trident.netapp.io",
    "csi.vsphere.vmware.com",
    "disk.csi.azure.com",
    "dobs.csi.digitalocean.com",
    "ebs.csi.aws.com",
    "efs.csi.aws.com",
    "file.csi.azure.com",
    "filestore.csi.storage.gke.io",
    "linodebs.csi.linode.com",
    "nfs.csi.k8s.io",
    "pd.csi.storage.gke.io",
    "secrets-store.csi.k8s.io",
    "smb.csi.k8s.io",
];
/// So many volumes of a driver are named.
const NAMED: usize = 3;

/// A volume's place on a node, by all that leads there.
struct VolumePlace<'a> {
    id: &'a str,
    /// Where it is mounted.
    mounts: Vec<String>,
    /// What the kubelet sees elsewhere than where it lies: destination and source.
    binds: Vec<(String, String)>,
    disks: &'a [Disk],
    /// The disks and partitions that it takes.
    own: Vec<(&'a Disk, Option<&'a Partition>)>,
    /// Of the partition, and of the file system on it, where Talos tells them.
    partition_uuid: Option<&'a str>,
    uuid: Option<&'a str>,
}

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Here,
    /// To a folder that the volume is mounted below.
    Above,
    Elsewhere,
    /// To a device, and not to one that the node tells of.
    Unknown,
}

/// Refuses while something of the cluster has data on the volume, or may have; `unused` names what is known to have none.
pub(super) fn refuse(
    node: &Node,
    doc: &ConfigDoc,
    (id, mount): (&str, Option<&str>),
    users: &Users,
    unused: &[String],
) -> Result<()> {
    let place = VolumePlace::of(node, doc, (id, mount));
    let here = here(node, users);
    let what = mount.map_or_else(|| format!("volume {id}"), str::to_owned);
    let sure = sure(&place, &here, users, &static_pods(doc));
    if !sure.is_empty() {
        return Err(Error::refused(format!(
            "{}: {what} holds data of the cluster: {}",
            node.address,
            sure.join(", ")
        ))
        .hint("move or delete the claims and pods first, and PersistentVolumes that were kept"));
    }
    let mut maybe = maybe(&place, &here, users);
    maybe.retain(|(name, _)| !unused.contains(name));
    if maybe.is_empty() {
        return Ok(());
    }
    let flags: Vec<String> = maybe.iter().map(|(name, _)| format!("--unused-by {}", quoted(name))).collect();
    let told: Vec<String> = maybe.into_iter().map(|(_, told)| told).collect();
    Err(Error::refused(format!("{}: {what} may hold data of the cluster: {}", node.address, told.join("; ")))
        .hint(format!("if it is known that none of their data lies there: {}", flags.join(" "))))
}

fn quoted(name: &str) -> String {
    if name.contains(' ') { format!("'{name}'") } else { name.to_owned() }
}

/// What has data there.
fn sure(
    place: &VolumePlace<'_>,
    here: &[&KubeNode],
    users: &Users,
    own: &[(String, Vec<String>)],
) -> Vec<String> {
    let reaches = |paths: &[String], least: fn(At) -> bool| paths.iter().any(|path| least(place.at(path)));
    let volumes = users.volumes.iter().filter(|volume| {
        volume.can_be_on(here, &users.nodes)
            && reaches(&volume.paths, |at| matches!(at, At::Here | At::Above))
    });
    let pods = users.pods.iter().filter(|pod| {
        pod.is_there && pod.can_be_on(here) && pod.paths.iter().any(|path| place.is_mounted_by(path))
    });
    let pools = users
        .pools
        .iter()
        .filter(|pool| pool.can_be_on(here, &users.nodes) && reaches(&pool.paths, |at| at == At::Here));
    let own = own.iter().filter(|(_, paths)| paths.iter().any(|path| place.is_mounted_by(path)));
    let named = volumes.map(ToString::to_string).chain(pods.map(|pod| pod.name.clone()));
    named.chain(pools.map(|pool| pool.title.clone())).chain(own.map(|(name, _)| name.clone())).collect()
}

/// What may have data there: its name, and why.
fn maybe(place: &VolumePlace<'_>, here: &[&KubeNode], users: &Users) -> Vec<(String, String)> {
    let unknown = |paths: &[String]| {
        let path = paths.iter().find(|path| place.at(path) == At::Unknown)?;
        Some(format!("{path} is no device that the node tells of"))
    };
    let mut found = Vec::new();
    for volume in users.volumes.iter().filter(|volume| volume.can_be_on(here, &users.nodes)) {
        found.extend(unknown(&volume.paths).map(|why| (volume.name.clone(), format!("{volume}: {why}"))));
    }
    for pod in users.pods.iter().filter(|pod| pod.can_be_on(here)) {
        let Mounts { sure, disk } = place.mounts_of(&pod.paths);
        let why = match (sure && !pod.is_there, disk) {
            (true, _) => "it mounts it when it runs".to_owned(),
            (false, Some(path)) => format!("{path} is no device that the node tells of"),
            (false, None) => continue,
        };
        found.push((pod.name.clone(), format!("{}: {why}", pod.name)));
    }
    for pool in users.pools.iter().filter(|pool| pool.can_be_on(here, &users.nodes)) {
        found.extend(unknown(&pool.paths).map(|why| (pool.title.clone(), format!("{}: {why}", pool.title))));
    }
    if place.id.starts_with(RAW_VOLUME) {
        found.extend(drivers(here, users));
    }
    found
}

/// CSI drivers that may have a raw volume for their own: they run on the node, or have volumes that can be on it.
fn drivers(here: &[&KubeNode], users: &Users) -> Vec<(String, String)> {
    let is_here = |name: &str| here.is_empty() || here.iter().any(|node| node.name == name);
    let running = users.drivers.iter().filter(|(node, _)| is_here(node)).flat_map(|(_, drivers)| drivers);
    let with_volumes = users.volumes.iter().filter(|volume| volume.can_be_on(here, &users.nodes));
    let with_volumes = with_volumes.filter_map(|volume| volume.driver.as_ref());
    let attached = users.attached.iter().filter(|attached| is_here(&attached.node));
    let mut drivers: Vec<&String> =
        running.chain(with_volumes).chain(attached.map(|attached| &attached.driver)).collect();
    drivers.sort();
    drivers.dedup();
    drivers.retain(|driver| !driver.is_empty() && !REMOTE.contains(&driver.as_str()));
    let told = |driver: &String| {
        let of = |volume: &&crate::model::claims::Claimed| {
            volume.driver.as_ref() == Some(driver) && volume.can_be_on(here, &users.nodes)
        };
        let volumes: Vec<String> = users.volumes.iter().filter(of).map(ToString::to_string).collect();
        let more = volumes.len().saturating_sub(NAMED);
        let mut named = volumes.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        if more > 0 {
            named = format!("{named} and {more} more");
        }
        let with = if named.is_empty() { String::new() } else { format!(" ({named})") };
        (driver.clone(), format!("CSI driver {driver}{with} may keep its volumes on it"))
    };
    drivers.into_iter().map(told).collect()
}

/// The nodes of the cluster that the machine can be, by name, by address and by the label of its host name.
fn here<'a>(node: &Node, users: &'a Users) -> Vec<&'a KubeNode> {
    let name = node.hostname.as_ref().ok().and_then(Option::as_deref);
    let labels = node.labels.as_ref().ok().and_then(Option::as_ref);
    let host = labels.and_then(|labels| labels.get(HOSTNAME));
    let is = |found: &&KubeNode| {
        Some(found.name.as_str()) == name
            || found.addresses.iter().any(|address| same_address(address, &node.address))
            || host.is_some() && found.labels.get(HOSTNAME) == host
    };
    users.nodes.iter().filter(is).collect()
}

/// Pods that the kubelet runs from the machine config, and the folders that they mount.
fn static_pods(doc: &ConfigDoc) -> Vec<(String, Vec<String>)> {
    let legacy = doc.legacy();
    let pods = legacy.as_ref().and_then(|legacy| legacy.root.get(&["machine", "pods"]));
    let pod = |pod: &yaml::Node| {
        let name = pod.get(&["metadata", "name"]).and_then(yaml::Node::text).unwrap_or("without a name");
        let volumes = pod.get(&["spec", "volumes"]).map(yaml::Node::items).unwrap_or_default();
        let paths = volumes.iter().filter_map(|volume| volume.get(&["hostPath", "path"])?.text());
        (format!("static pod {name} of the machine config"), paths.map(str::to_owned).collect())
    };
    pods.map(yaml::Node::items).unwrap_or_default().iter().map(pod).collect()
}

/// What the kubelet mounts elsewhere than where it lies.
fn binds(doc: &ConfigDoc) -> Vec<(String, String)> {
    let legacy = doc.legacy();
    let mounts = legacy.as_ref().and_then(|legacy| legacy.root.get(&["machine", "kubelet", "extraMounts"]));
    let bind = |mount: &yaml::Node| {
        let path = |key: &str| mount.get(&[key])?.text().map(clean);
        Some((path("destination")?, path("source")?))
    };
    mounts.map(yaml::Node::items).unwrap_or_default().iter().filter_map(bind).collect()
}

/// Of the paths that a pod mounts.
struct Mounts<'p> {
    sure: bool,
    disk: Option<&'p String>,
}

impl<'a> VolumePlace<'a> {
    fn of(node: &'a Node, doc: &ConfigDoc, (id, mount): (&'a str, Option<&str>)) -> Self {
        let disks = node.disks.as_deref().unwrap_or_default();
        let mut own = Vec::new();
        for disk in disks.iter().filter(|disk| disk.has_volume(id)) {
            let parts: Vec<_> = disk.partitions.iter().filter(|part| part.label == id).collect();
            own.extend(parts.iter().map(|part| (disk, Some(*part))));
            if parts.is_empty() {
                own.push((disk, None));
            }
        }
        let device = |source: &str| {
            own.iter().any(|(disk, part)| {
                source.strip_prefix("/dev/") == Some(part.map_or(disk.id.as_str(), |part| &part.id))
            })
        };
        let others = node.mounts.iter().flatten().filter(|mount| device(&mount.source));
        let mounts = mount.map(str::to_owned).into_iter().chain(others.map(|mount| mount.target.clone()));
        let mounts = mounts.collect();
        let status = node.volumes.iter().flatten().find(|volume| volume.id == id).map(|volume| &volume.spec);
        let known = |uuid: &'a String| (!uuid.is_empty()).then_some(uuid.as_str());
        Self {
            id,
            mounts,
            binds: binds(doc),
            disks,
            own,
            partition_uuid: status.and_then(|status| known(&status.partition_uuid)),
            uuid: status.and_then(|status| known(&status.uuid)),
        }
    }

    fn at(&self, path: &str) -> At {
        let path = clean(path);
        match path.strip_prefix("/dev/") {
            Some(name) => self.device(&path, name),
            None => self.folder(&path),
        }
    }

    fn folder(&self, path: &str) -> At {
        let seen = self.binds.iter().filter_map(|(destination, source)| {
            within(path, destination).map(|rest| clean(&format!("{source}/{rest}")))
        });
        let ways: Vec<String> = seen.chain([path.to_owned()]).collect();
        let any = |leads: fn(&str, &str) -> bool| {
            ways.iter().any(|way| self.mounts.iter().any(|mount| leads(way, mount)))
        };
        if any(|way, mount| within(way, mount).is_some()) {
            At::Here
        } else if any(|way, mount| within(mount, way).is_some()) {
            At::Above
        } else {
            At::Elsewhere
        }
    }

    fn device(&self, path: &str, name: &str) -> At {
        let lies = |here: bool| if here { At::Here } else { At::Elsewhere };
        if let Some(rest) = name.strip_prefix("disk/by-partlabel/") {
            return lies(rest == self.id);
        }
        let same = |known: Option<&str>, uuid: &str| match known {
            Some(known) => lies(known.eq_ignore_ascii_case(uuid)),
            None if self.own.is_empty() => At::Elsewhere,
            None => At::Unknown,
        };
        if let Some(uuid) = name.strip_prefix("disk/by-partuuid/") {
            return same(self.partition_uuid, uuid);
        }
        if let Some(uuid) = name.strip_prefix("disk/by-uuid/") {
            return same(self.uuid, uuid);
        }
        if let Some((disk, part)) = self.known(path, name) {
            return lies(self.own.iter().any(|(own, own_part)| {
                own.id == disk.id
                    && match (own_part, part) {
                        (Some(own), Some(index)) => own.index == index,
                        // The whole of a disk holds all of its partitions.
                        _ => true,
                    }
            }));
        }
        // What lies on top of disks is told by their list.
        let stacked = ["mapper/", "dm-", "md"].iter().any(|prefix| name.starts_with(prefix));
        let free = self.own.iter().all(|(disk, _)| disk.uses.uppers.is_empty());
        if self.own.is_empty() || stacked && free { At::Elsewhere } else { At::Unknown }
    }

    /// The disk that a path names, and the place of the partition in its table.
    fn known(&self, path: &str, name: &str) -> Option<(&'a Disk, Option<u32>)> {
        self.disks.iter().find_map(|disk| {
            if disk.id == name || disk.symlinks().any(|link| link == path) {
                return Some((disk, None));
            }
            if let Some(part) = disk.partitions.iter().find(|part| part.id == name) {
                return Some((disk, Some(part.index)));
            }
            let index = |link: String| path.strip_prefix(&link)?.strip_prefix("-part")?.parse().ok();
            Some((disk, Some(disk.symlinks().find_map(index)?)))
        })
    }

    /// Whether a pod with this path has the volume before it: below its mount, or by the folder of all volumes.
    fn is_mounted_by(&self, path: &str) -> bool {
        match self.at(path) {
            At::Here => true,
            // What mounts all of the node does so to look at it.
            At::Above => clean(path) == clean(MOUNTS),
            At::Elsewhere | At::Unknown => false,
        }
    }

    fn mounts_of<'p>(&self, paths: &'p [String]) -> Mounts<'p> {
        let disk = |path: &&String| clean(path).starts_with("/dev/disk/") && self.at(path) == At::Unknown;
        Mounts { sure: paths.iter().any(|path| self.is_mounted_by(path)), disk: paths.iter().find(disk) }
    }
}

/// What a path says after a folder's; nothing when it lies elsewhere.
fn within<'p>(path: &'p str, folder: &str) -> Option<&'p str> {
    if folder == "/" {
        return Some(path.trim_start_matches('/'));
    }
    let rest = path.strip_prefix(folder)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// The same path without `.`, `..`, and slashes that say nothing.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::{clean, within};

    #[test]
    fn a_path_is_the_same_however_it_is_spelled() {
        for (path, expected) in [
            ("/var/mnt/data", "/var/mnt/data"),
            ("/var/mnt/data/", "/var/mnt/data"),
            ("//var/./mnt//data/.", "/var/mnt/data"),
            ("/var/mnt/other/../data", "/var/mnt/data"),
            ("/../..", "/"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
        assert_eq!(within("/var/mnt/data2", "/var/mnt/data"), None);
        assert_eq!(within("/var/mnt/data/a", "/var/mnt/data"), Some("a"));
        assert_eq!(within("/var", "/"), Some("var"));
    }
}
