//! What a machine publishes of itself, as the resources of Talos; names and fields are those of a recorded real one
//! (`tests/wire`).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::disks::pretty;
use super::documents::DIRECTORY_FLAGS;
use super::install::has_maintenance_service;
use super::volumes::{Phase, device};
use super::{Extension, Machine, config, volumes};
use crate::host::FileSystem;
use crate::intent::{self, VolumeType};

/// A type of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    /// Such as `Disks.block.talos.dev`.
    pub name: &'static str,
    pub namespace: &'static str,
    /// Shorter names that talosctl takes.
    pub aliases: &'static [&'static str],
    /// What talosctl shows in columns: a title and a path in the spec.
    pub columns: &'static [(&'static str, &'static str)],
    /// Only an administrator may read it.
    pub sensitive: bool,
}

const fn kind(
    name: &'static str,
    namespace: &'static str,
    aliases: &'static [&'static str],
    columns: &'static [(&'static str, &'static str)],
) -> Type {
    Type { name, namespace, aliases, columns, sensitive: false }
}

/// The type of the machine's configuration, and the id of that of the next boot.
pub(crate) const MACHINE_CONFIG: &str = "MachineConfigs.config.talos.dev";
pub(crate) const PERSISTENT_CONFIG: &str = "persistent";

/// All types that are published.
pub const TYPES: [Type; 19] = [
    kind(
        "Disks.block.talos.dev",
        "runtime",
        &["disk", "disks"],
        &[
            ("Size", "{.pretty_size}"),
            ("Read Only", "{.readonly}"),
            ("Transport", "{.transport}"),
            ("Rotational", "{.rotational}"),
            ("WWID", "{.wwid}"),
            ("Model", "{.model}"),
            ("Serial", "{.serial}"),
        ],
    ),
    kind("SystemDisks.block.talos.dev", "runtime", &["systemdisk", "systemdisks"], &[("Disk", "{.diskID}")]),
    kind("BlockDevices.block.talos.dev", "runtime", &["blockdevice", "blockdevices"], &[("Type", "{.type}")]),
    kind(
        "DiscoveredVolumes.block.talos.dev",
        "runtime",
        &["discoveredvolume", "discoveredvolumes", "dv"],
        &[
            ("Type", "{.type}"),
            ("Size", "{.pretty_size}"),
            ("Discovered", "{.name}"),
            ("Label", "{.label}"),
            ("PartitionLabel", "{.partition_label}"),
        ],
    ),
    kind(
        "VolumeStatuses.block.talos.dev",
        "runtime",
        &["volumestatus", "volumestatuses", "vs"],
        &[("Type", "{.type}"), ("Phase", "{.phase}"), ("Location", "{.location}"), ("Size", "{.prettySize}")],
    ),
    kind(
        "MountStatuses.block.talos.dev",
        "runtime",
        &["mountstatus", "mountstatuses", "ms"],
        &[("Source", "{.source}"), ("Target", "{.target}")],
    ),
    kind(
        "MountStatuses.runtime.talos.dev",
        "runtime",
        &["mounts"],
        &[("Source", "{.source}"), ("Target", "{.target}"), ("Filesystem Type", "{.filesystemType}")],
    ),
    kind(
        "MachineStatuses.runtime.talos.dev",
        "runtime",
        &["machinestatus", "machinestatuses"],
        &[("Stage", "{.stage}"), ("Ready", "{.status.ready}")],
    ),
    kind(
        "ExtensionStatuses.runtime.talos.dev",
        "runtime",
        &["extensionstatus", "extensionstatuses", "extensions"],
        &[("Name", "{.metadata.name}"), ("Version", "{.metadata.version}")],
    ),
    kind(
        "TimeStatuses.v1alpha1.talos.dev",
        "runtime",
        &["timestatus", "timestatuses"],
        &[("Synced", "{.synced}")],
    ),
    kind("PlatformMetadatas.talos.dev", "runtime", &["platformmetadata"], &[("Platform", "{.platform}")]),
    kind("SecurityStates.talos.dev", "runtime", &["securitystate"], &[("SecureBoot", "{.secureBoot}")]),
    kind(
        "Services.v1alpha1.talos.dev",
        "runtime",
        &["service", "services", "svc"],
        &[("Running", "{.running}"), ("Healthy", "{.healthy}")],
    ),
    kind(
        "Members.cluster.talos.dev",
        "cluster",
        &["member", "members"],
        &[
            ("Hostname", "{.hostname}"),
            ("Machine Type", "{.machineType}"),
            ("OS", "{.operatingSystem}"),
            ("Addresses", "{.addresses}"),
        ],
    ),
    kind("MachineTypes.config.talos.dev", "config", &["machinetype"], &[]),
    Type {
        sensitive: true,
        ..kind(MACHINE_CONFIG, "config", &["machineconfig", "machineconfigs", "mc"], &[])
    },
    kind("Nodenames.kubernetes.talos.dev", "k8s", &["nodename", "nodenames"], &[("Nodename", "{.nodename}")]),
    kind(
        "NodeStatuses.kubernetes.talos.dev",
        "k8s",
        &["nodestatus", "nodestatuses"],
        &[("Ready", "{.nodeReady}")],
    ),
    Type {
        sensitive: true,
        ..kind(
            "NodeLabelSpecs.k8s.talos.dev",
            "k8s",
            &["nodelabelspec", "nodelabelspecs"],
            &[("Value", "{.value}")],
        )
    },
];

/// A resource as it was published last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    pub version: u64,
    pub created: Timestamp,
    pub updated: Timestamp,
    pub spec: Value,
}

/// Everything a machine publishes, by type and id.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Published {
    pub types: BTreeMap<String, BTreeMap<String, Resource>>,
    /// Counts up with every change.
    pub revision: u64,
}

/// Specs by type and id.
pub type Specs = BTreeMap<String, BTreeMap<String, Value>>;

impl Published {
    /// Publishes these instead; what did not change keeps its version.
    pub fn replace(&mut self, mut fresh: Specs, now: Timestamp) {
        let mut changes = 0;
        for (kind, known) in &mut self.types {
            let specs = fresh.remove(kind).unwrap_or_default();
            let before = known.len();
            known.retain(|id, _| specs.contains_key(id));
            changes += before - known.len();
            for (id, spec) in specs {
                let old = known.get(&id).filter(|old| old.spec != spec);
                if known.contains_key(&id) && old.is_none() {
                    continue;
                }
                let (version, created) = old.map_or((1, now), |old| (old.version + 1, old.created));
                known.insert(id, Resource { version, created, updated: now, spec });
                changes += 1;
            }
        }
        for (kind, specs) in fresh {
            changes += specs.len();
            let new = |spec| Resource { version: 1, created: now, updated: now, spec };
            self.types.insert(kind, specs.into_iter().map(|(id, spec)| (id, new(spec))).collect());
        }
        self.revision += changes as u64;
    }

    pub fn of(&self, kind: &str) -> impl Iterator<Item = (&String, &Resource)> {
        self.types.get(kind).into_iter().flatten()
    }
}

/// Everything that a machine says of itself. Its peers it knows from the world, see `World::members`.
pub fn render(machine: &Machine) -> Specs {
    let mut specs = Specs::new();
    let mut put = |kind: &str, id: &str, spec: Value| {
        specs.entry(kind.to_owned()).or_default().insert(id.to_owned(), spec);
    };
    if !machine.container {
        disks(machine, &mut put);
    }
    volumes_and_mounts(machine, &mut put);
    about(machine, &mut put);
    extensions_and_clock(machine, &mut put);
    specs
}

type Put<'a> = &'a mut dyn FnMut(&str, &str, Value);

fn disks(machine: &Machine, put: Put<'_>) {
    for (place, disk) in (0..).zip(&machine.disks) {
        put("Disks.block.talos.dev", &disk.name, disk.spec());
        disk.discovered()
            .into_iter()
            .for_each(|(id, spec)| put("DiscoveredVolumes.block.talos.dev", &id, spec));
        disk.devices(place).into_iter().for_each(|(id, spec)| put("BlockDevices.block.talos.dev", &id, spec));
    }
    if let Some(system) = machine.system_disk() {
        let spec = json!({"diskID": system.name, "devPath": system.path()});
        put("SystemDisks.block.talos.dev", "system-disk", spec);
    }
}

fn volumes_and_mounts(machine: &Machine, put: Put<'_>) {
    if machine.active.is_none() {
        return;
    }
    let ephemeral = machine.host.mounts.get("/var");
    let location = ephemeral.map_or("", |mounted| mounted.source.as_str());
    let kind = if machine.container { "directory" } else { "partition" };
    let mut status = json!({"phase": "ready", "type": kind, "mountSpec": {"targetPath": "/var", "projectQuotaSupport": false}});
    if !machine.container {
        status["location"] = json!(location);
        status["mountLocation"] = json!(location);
        status["filesystem"] = json!("xfs");
    }
    put("VolumeStatuses.block.talos.dev", "EPHEMERAL", status);
    for (id, volume) in &machine.volumes {
        put("VolumeStatuses.block.talos.dev", id, volume_status(machine, id, volume));
    }
    for (point, mounted) in machine.host.mounts.iter().filter(|_| !machine.rebooting) {
        mount_status(machine, point, mounted, put);
    }
}

/// What is mounted at a point, in both of the lists.
fn mount_status(machine: &Machine, point: &str, mounted: &FileSystem, put: Put<'_>) {
    let volume = machine.volumes.iter().find(|(_, volume)| volume.mount == point);
    let id = volume.map_or("EPHEMERAL", |(id, _)| id.as_str());
    let has = |flag: &str| mounted.options.iter().any(|option| option == flag);
    // Directories are in the longer list only.
    let directory = !mounted.root.is_empty();
    if !directory {
        let spec = json!({
            "source": mounted.source, "target": point, "filesystemType": mounted.kind, "options": [], "encrypted": false,
        });
        put("MountStatuses.runtime.talos.dev", id, spec);
    }
    let (source, kind) =
        if directory { ("", "none") } else { (mounted.source.as_str(), mounted.kind.as_str()) };
    let mut asked = json!({
        "volumeID": id, "parentID": if volume.is_some() { "/var/mnt" } else { "" }, "readOnly": has("ro"),
        "requesters": ["block.VolumeConfigController"], "requesterIDs": [id],
    });
    let release = config::release(&machine.version);
    // Before 1.14 a directory has its flags of what it lies on, and is asked for none.
    let flags = release >= if directory { DIRECTORY_FLAGS } else { (1, 13) };
    for (flag, key) in [("nosuid", "secure"), ("noexec", "noExec")] {
        if flags && has(flag) {
            asked[key] = json!(true);
        }
    }
    let mut spec = json!({
        "source": source, "target": point, "filesystem": kind, "readOnly": has("ro"),
        "projectQuotaSupport": !directory && has("prjquota"),
    });
    if release >= (1, 12) {
        (asked["detached"], spec["detached"]) = (json!(false), json!(false));
    }
    spec["spec"] = asked;
    put("MountStatuses.block.talos.dev", id, spec);
}

fn volume_status(machine: &Machine, id: &str, volume: &volumes::Volume) -> Value {
    let kind = match volume.of {
        VolumeType::Disk | VolumeType::Directory => volume.of.name(),
        VolumeType::Partition | VolumeType::Raw | VolumeType::Existing => "partition",
    };
    let mut status = json!({"phase": volume.phase.name(), "type": kind});
    let name = volume.mount.trim_start_matches(crate::host::USER_VOLUMES);
    if volume.of != VolumeType::Raw {
        status["mountSpec"] = json!({"targetPath": name, "parentId": "/var/mnt", "projectQuotaSupport": volume.quota, "fileMode": 493});
    }
    if volume.of == VolumeType::Directory {
        status["mountSpec"]["bindTarget"] = json!(name);
    }
    if !volume.error.is_empty() {
        status["errorMessage"] = json!(volume.error);
    }
    let settled = !matches!(volume.phase, Phase::Waiting | Phase::Failed | Phase::Missing);
    if let Some((disk, index, partition)) = device(machine, id).filter(|_| settled) {
        let path = format!("/dev/{}", disk.partition(index));
        for (key, value) in [
            ("location", json!(path)),
            ("mountLocation", json!(path)),
            ("size", json!(partition.size)),
            ("prettySize", json!(pretty(partition.size))),
        ] {
            status[key] = value;
        }
        if !partition.format.is_empty() {
            status["filesystem"] = json!(partition.format);
        }
        if index > 0 {
            status["partitionIndex"] = json!(index);
            status["parentLocation"] = json!(disk.path());
        }
    }
    if !matches!(volume.of, VolumeType::Raw | VolumeType::Directory) {
        upkeep(machine, id, &mut status);
    }
    status
}

/// Trim and scrub of a volume (from 1.14 on): its own, else what a `FilesystemTrimConfig` or a `FilesystemScrubConfig` says of all.
fn upkeep(machine: &Machine, id: &str, status: &mut Value) {
    let config = machine.config();
    let own = config.volumes.iter().find(|volume| volume.id() == id);
    for (what, own, of_all) in [
        ("trim", own.map(|volume| &volume.trim), &config.trim),
        ("scrub", own.map(|volume| &volume.scrub), &config.scrub),
    ] {
        let own = own.filter(|own| !own.is_null());
        let every = own.and_then(|own| own["interval"].as_str()).or(of_all["interval"].as_str());
        let enabled = own.map_or(every.is_some(), |own| own["enabled"] != false);
        if enabled && let Ok(every) = intent::Duration::parse(every.unwrap_or("168h")) {
            status[format!("{what}Enabled")] = json!(true);
            status[format!("{what}Interval")] = json!(every.to_string());
        }
    }
}

fn about(machine: &Machine, put: Put<'_>) {
    let name = machine.host.name.as_str();
    let platform = if machine.container { "container" } else { "metal" };
    put("PlatformMetadatas.talos.dev", "platformmetadata", json!({"platform": platform}));
    put("SecurityStates.talos.dev", "securitystate", json!({"secureBoot": false}));
    let stage = match (&machine.active, machine.rebooting) {
        (_, true) => "rebooting",
        (Some(_), false) => "running",
        (None, false) => "maintenance",
    };
    let status = json!({"ready": !machine.rebooting, "unmetConditions": []});
    put("MachineStatuses.runtime.talos.dev", "machine", json!({"stage": stage, "status": status}));
    for service in services(machine) {
        put("Services.v1alpha1.talos.dev", service, {
            let runs = machine.runs(service);
            json!({"running": runs, "healthy": runs, "unknown": !runs})
        });
    }
    let kind = match (&machine.active, machine.controlplane) {
        (None, _) => "unknown",
        (Some(_), true) => "controlplane",
        (Some(_), false) => "worker",
    };
    put("MachineTypes.config.talos.dev", "machine-type", json!(kind));
    if let Some(active) = &machine.active {
        put(
            "Nodenames.kubernetes.talos.dev",
            "nodename",
            json!({"nodename": name, "hostnameVersion": "1", "skipNodeRegistration": false}),
        );
        put(MACHINE_CONFIG, "v1alpha1", json!(active));
        let persistent = machine.persistent.as_ref().unwrap_or(active);
        put(MACHINE_CONFIG, PERSISTENT_CONFIG, json!(persistent));
    }
    if let Some(node) = &machine.node {
        put("NodeStatuses.kubernetes.talos.dev", name, node.clone());
    }
    for (key, value) in &machine.wanted_labels {
        put("NodeLabelSpecs.k8s.talos.dev", key, json!({"key": key, "value": value}));
    }
}

fn extensions_and_clock(machine: &Machine, put: Put<'_>) {
    for (index, Extension { name, version }) in machine.extensions.iter().enumerate() {
        let id = format!("{index:03}.{name}");
        let spec = json!({"image": format!("{id}.sqsh"), "metadata": {"name": name, "version": version}});
        put("ExtensionStatuses.runtime.talos.dev", &id, spec);
    }
    // A clock that went astray since it was synced is still called so.
    let status = json!({"synced": true, "epoch": 0, "syncDisabled": machine.container});
    put("TimeStatuses.v1alpha1.talos.dev", "node", status);
}

/// What runs on a machine.
pub fn services(machine: &Machine) -> &'static [&'static str] {
    const ALL: [&str; 7] = ["containerd", "machined", "udevd", "apid", "cri", "kubelet", "etcd"];
    let count = match (&machine.active, machine.controlplane) {
        (None, _) if has_maintenance_service(&machine.version) => 3,
        (None, _) => 4,
        (Some(_), false) => 6,
        (Some(_), true) => 7,
    };
    ALL.get(..count).unwrap_or_default()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::resources as read;
    use crate::scenario::Scenario;
    use crate::world::World;

    #[test]
    fn extensions_and_clock_are_told_in_every_mode_as_they_are_read() {
        for (machine, named, disabled) in [
            ("{}", "", false),
            ("{extensions: [{name: zfs, version: v2}, {name: a, version: v1}]}", "zfs v2, a v1", false),
            ("{maintenance: true, clock: -7s, extensions: [{name: a, version: v1}]}", "a v1", false),
            ("{container: true}", "", true),
        ] {
            let scenario = Scenario::parse("scenario", &format!("machines: [{machine}]")).unwrap();
            let world = World::new(&scenario, Timestamp::UNIX_EPOCH);
            let of =
                |kind| world.machines["10.5.0.2"].published.of(kind).map(|(_, found)| found.spec.clone());
            let extensions = of("ExtensionStatuses.runtime.talos.dev").map(|spec| {
                let read::Extension { metadata } = serde_json::from_value(spec).unwrap();
                format!("{} {}", metadata.name, metadata.version)
            });
            assert_eq!(extensions.collect::<Vec<_>>().join(", "), named, "{machine}");
            let status =
                of("TimeStatuses.v1alpha1.talos.dev").map(|spec| serde_json::from_value(spec).unwrap());
            let expected = read::TimeStatus { synced: true, sync_disabled: disabled };
            assert_eq!(status.collect::<Vec<read::TimeStatus>>(), [expected], "{machine}");
        }
    }
}
