//! What a real Talos v1.11.5 sent (tests/wire, written by `record`), read by the adapter's own types: a node of the lab
//! with a system disk, two empty NVMe disks and one that holds data, before nodeprep changed anything and (`applied/`)
//! after it gave the first of them to the volume `openebs`.

use std::collections::BTreeSet;

use jiff::Timestamp;
use nodeprep::model::disks::udev::{self, Record};
use nodeprep::model::disks::{Disk, Facts, Holder, join, unproven};
use nodeprep::talos::proto::cosi::resource::{self as cosi, ListResponse};
use nodeprep::talos::proto::machine::{MountsResponse, VersionResponse};
use nodeprep::talos::resources::{
    BlockDevice, DiscoveredVolume, DiskSpec, Item, MachineConfig, MachineStatus, MachineType, MountStatus,
    NodeLabel, Nodename, PlatformMetadata, Resource, SecurityState, Spec, SystemDisk, VolumeStatus,
};
use nodeprep_sandbox::machine::{Apply, Mode};
use nodeprep_sandbox::scenario::Scenario;
use nodeprep_sandbox::world::World;
use proptest::prelude::*;
use prost::Message;
use serde_json::Value;

fn replies<T: Message + Default>(name: &str) -> Vec<T> {
    let bytes = std::fs::read(super::record::folder().join(format!("{name}.bin"))).unwrap();
    let (mut rest, mut found) = (bytes.as_slice(), Vec::new());
    while !rest.is_empty() {
        found.push(T::decode_length_delimited(&mut rest).unwrap());
    }
    found
}

fn items<T: Spec>() -> Vec<Item<T>> {
    items_of("")
}

fn items_of<T: Spec>(folder: &str) -> Vec<Item<T>> {
    let resources = replies::<ListResponse>(&format!("{folder}{}", T::TYPE))
        .into_iter()
        .map(|reply| reply.resource.unwrap());
    resources.map(|resource| Resource::from(resource).decode().unwrap()).collect()
}

fn only<T: Spec>() -> T {
    let mut items = items();
    assert_eq!(items.len(), 1, "{}", T::TYPE);
    items.remove(0).spec
}

/// Of the applied one only the shorter list was recorded, which says the same of partitions.
fn mounts(folder: &str) -> Vec<Item<MountStatus>> {
    let name = if folder.is_empty() { MountStatus::TYPE } else { "applied/MountStatuses.runtime.talos.dev" };
    let found = replies::<ListResponse>(name).into_iter().map(|reply| reply.resource.unwrap());
    found.map(|resource| Resource::from(resource).decode().unwrap()).collect()
}

/// udev's records are files, which were not recorded: it is to have found nothing more than Talos did.
fn disks(folder: &str) -> Vec<Disk> {
    let facts = Facts {
        disks: items_of::<DiskSpec>(folder),
        system_disk: items_of::<SystemDisk>(folder).pop().map(|system| system.spec.disk_id),
        devices: items_of::<BlockDevice>(folder),
        discovered: items_of::<DiscoveredVolume>(folder),
        volumes: Some(items_of::<VolumeStatus>(folder)),
        mounts: mounts(folder),
        ..Facts::default()
    };
    let asked = unproven(&facts).map(|(id, _)| (id.to_owned(), Ok(Record::default()))).collect();
    join(&Facts { udev: asked, ..facts })
}

#[test]
fn its_disks_are_told_apart_by_what_they_hold() {
    let disks = disks("");
    let rows: Vec<_> = disks
        .iter()
        .filter(|disk| !disk.is_memory())
        .map(|disk| {
            (disk.id.as_str(), disk.spec.serial.as_str(), disk.spec.transport.as_str(), disk.eligible.is_ok())
        })
        .collect();
    assert_eq!(
        rows,
        [
            ("nvme0n1", "NVME-AAA0001", "nvme", true),
            ("nvme1n1", "NVME-BBB0001", "nvme", true),
            ("nvme2n1", "NVME-CCC0001", "nvme", false),
            ("vda", "SYS0001", "virtio", false),
        ]
    );
    assert!(disks.iter().any(|disk| disk.id == "vda" && disk.system && disk.holder == Holder::System));
    assert!(disks.iter().any(|disk| disk.id == "nvme2n1" && disk.holder.to_string().contains("xfs")));
    assert!(disks.iter().all(|disk| disk.spec.size > 0 || disk.is_memory()), "sizes are read");
    let system = disks.iter().find(|disk| disk.system).unwrap();
    assert!(system.uses.mounts.contains(&"/var".to_owned()), "{:?}", system.uses);
}

#[test]
fn udev_is_asked_about_the_disks_on_which_talos_sees_nothing() {
    let facts = Facts {
        disks: items::<DiskSpec>(),
        devices: items::<BlockDevice>(),
        discovered: items::<DiscoveredVolume>(),
        ..Facts::default()
    };
    let paths: Vec<_> = unproven(&facts).map(|(id, device)| (id, udev::path(device))).collect();
    let expected = [("nvme0n1", "/run/udev/data/b259:2"), ("nvme1n1", "/run/udev/data/b259:1")];
    assert_eq!(paths, expected.map(|(id, path)| (id, path.to_owned())));
    assert!(join(&facts).iter().all(|disk| disk.eligible.is_err()), "without an answer none is free");
}

#[test]
fn a_disk_that_was_given_away_is_the_volumes() {
    let disks = disks("applied/");
    let disk = disks.iter().find(|disk| disk.id == "nvme0n1").unwrap();
    assert_eq!(disk.holder, Holder::Volume("u-openebs".into()));
    assert!(disk.eligible.is_err() && disk.uses.strays.is_empty());
    assert_eq!(disk.uses.volumes, [("u-openebs".to_owned(), "ready".to_owned())]);
    assert_eq!(disk.uses.mounts, ["/var/mnt/openebs"]);
    let volumes = items_of::<VolumeStatus>("applied/");
    let volume = volumes.iter().find(|volume| volume.id == "u-openebs").unwrap();
    assert_eq!((volume.spec.phase.as_str(), volume.spec.location.as_str()), ("ready", "/dev/nvme0n1p1"));
    let mounts = mounts("applied/");
    assert!(mounts.iter().any(|m| m.spec.target == "/var/mnt/openebs" && m.spec.source == "/dev/nvme0n1p1"));
}

#[test]
fn its_volumes_and_mounts_are_read() {
    let volumes = items::<VolumeStatus>();
    let ephemeral = volumes.iter().find(|volume| volume.id == "EPHEMERAL").unwrap();
    assert_eq!((ephemeral.spec.phase.as_str(), ephemeral.spec.location.as_str()), ("ready", "/dev/vda4"));
    let mounts = items::<MountStatus>();
    assert!(mounts.iter().any(|m| m.spec.target == "/var" && m.spec.source == "/dev/vda4"));
    assert!(mounts.iter().any(|m| m.spec.target == "/etc/cni" && m.spec.source.is_empty()));
    let sizes = replies::<MountsResponse>("Mounts").remove(0).messages.remove(0).stats;
    assert!(
        sizes
            .iter()
            .any(|stat| stat.mounted_on == "/var" && stat.size > stat.available && stat.available > 0)
    );
}

#[test]
fn what_it_says_of_itself_is_read() {
    let version = replies::<VersionResponse>("Version").remove(0).messages.remove(0);
    assert_eq!(version.version.unwrap().tag, "v1.11.5");
    assert_eq!(version.platform.unwrap().mode, "metal");
    assert_eq!(only::<MachineType>().0, "controlplane");
    assert_eq!(only::<Nodename>().nodename, "talos-1");
    assert_eq!(only::<PlatformMetadata>().platform, "metal");
    assert!(!only::<SecurityState>().secure_boot);
    let status = only::<MachineStatus>();
    assert!(!status.status.ready && !status.status.unmet_conditions.is_empty());
    let labels = items::<NodeLabel>();
    assert!(labels.iter().any(|label| label.spec.key == "node-role.kubernetes.io/control-plane"));
}

/// The keys of a type's specs as the real Talos wrote them, before and after it was given a volume.
fn keys_of(kind: &str) -> BTreeSet<String> {
    let recorded = ["", "applied/"].map(|folder| format!("{folder}{kind}"));
    let there = |name: &&String| super::record::folder().join(format!("{name}.bin")).exists();
    let replies = recorded.iter().filter(there).flat_map(|name| replies::<ListResponse>(name));
    let specs =
        replies.map(|reply| serde_yaml::from_str(&Resource::from(reply.resource.unwrap()).yaml).unwrap());
    keys(specs)
}

fn keys(specs: impl Iterator<Item = Value>) -> BTreeSet<String> {
    specs.flat_map(|spec| spec.as_object().cloned().unwrap_or_default()).map(|(key, _)| key).collect()
}

#[test]
fn the_sandbox_says_it_in_the_same_words() {
    let (now, address) = (Timestamp::UNIX_EPOCH, "10.5.0.2");
    let mut scenario = Scenario::of(1);
    scenario.machines[0].version = "v1.11.5".to_owned();
    let mut world = World::new(&scenario, now);
    let (machine, timers) = world.machine(address).unwrap();
    let volume = "---\napiVersion: v1alpha1\nkind: UserVolumeConfig\nname: openebs\nprovisioning:\n  diskSelector: \
        {match: disk.serial == \"SIMA0001\"}\n  minSize: 2GiB\n  grow: true\n";
    let config = [machine.active.as_deref().unwrap(), volume].concat();
    let asked = Apply { config: &config, mode: Mode::NoReboot, dry_run: false, try_timeout: None };
    machine.apply(&asked, timers, now).unwrap();
    for second in 0..5 {
        world.settle(Timestamp::from_second(second).unwrap());
    }
    let published = &world.machines[address].published;
    assert!(
        published
            .of("VolumeStatuses.block.talos.dev")
            .any(|(id, r)| id == "u-openebs" && r.spec["phase"] == "ready")
    );
    let mut compared = 0;
    for kind in published.types.keys() {
        let real = keys_of(kind);
        let ours = keys(published.of(kind).map(|(_, resource)| resource.spec.clone()));
        if real.is_empty() {
            continue;
        }
        compared += 1;
        let invented: Vec<_> = ours.difference(&real).collect();
        assert!(invented.is_empty(), "{kind}: {invented:?} are not in {real:?}");
    }
    assert!(compared >= 11, "{compared}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_spec_makes_reading_it_panic(yaml in "[ -~\\n]{0,60}", proto in prop::collection::vec(any::<u8>(), 0..40)) {
        let resource = Resource::from(cosi::Resource {
            metadata: None,
            spec: Some(cosi::Spec { proto_spec: proto, yaml_spec: yaml }),
        });
        let _ = resource.decode::<DiskSpec>();
        let _ = resource.decode::<VolumeStatus>();
        let config = resource.decode::<MachineConfig>();
        prop_assert!(config.is_err() || !resource.proto.is_empty(), "nothing is never a config");
    }
}
