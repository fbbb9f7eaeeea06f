//! How volumes are mounted: what Talos makes of `mount.secure`, and when that is called done.

use std::time::Duration;

use nodeprep::intent;
use nodeprep::model::resources::MountFlags;
use nodeprep_sandbox::scenario::Scenario;

use crate::fleet::{Session, paused};

const PATH: &str = "/var/mnt/openebs";

/// The flags of the volume's mount, and what the plan warns of it.
async fn mounted(session: &Session) -> (MountFlags, Vec<String>) {
    // A machine takes no config while it is busy with the one before.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let planned = session.plan().await.unwrap();
    assert!(planned.plan.is_empty(), "{:?}", planned.plan.steps);
    let mounts = planned.nodes[1].mounts.as_ref().unwrap();
    let mount = mounts.iter().find(|mount| mount.target == PATH).unwrap();
    (mount.flags, planned.plan.warnings.into_iter().filter(|warning| warning.contains("noexec")).collect())
}

#[test]
fn a_volume_that_is_mounted_without_programs_unasked_is_told_and_a_change_is_done_when_it_is_seen() {
    for (version, no_exec) in [("v1.13.9", false), ("v1.14.1", true)] {
        paused(async {
            let machine = |role: &str| format!("{{role: {role}, version: {version}}}");
            let text = format!("machines: [{}, {}]", machine("controlplane"), machine("worker"));
            let mut session = Session::start(&Scenario::parse("s.yaml", &text).unwrap()).await;
            session.apply().await.unwrap();
            let (flags, warnings) = mounted(&session).await;
            assert_eq!(flags, MountFlags { secure: true, no_exec }, "{version}");
            assert_eq!(warnings.len(), if no_exec { 2 } else { 0 }, "one for each machine: {warnings:?}");

            session.intent.volumes[0].mount.secure = Some(true);
            session.apply().await.unwrap();
            let (flags, warnings) = mounted(&session).await;
            assert!(flags.secure && warnings.is_empty(), "it is meant so: {warnings:?}");

            // Talos takes 13 s for it.
            session.intent.volumes[0].mount.secure = Some(false);
            session.apply().await.unwrap();
            let (flags, warnings) = mounted(&session).await;
            assert_eq!((flags, warnings.len()), (MountFlags::default(), 0), "{version}");
        });
    }
}

#[test]
fn a_volume_that_fails_again_and_again_is_not_waited_for_to_the_deadline_and_its_first_line_is_told() {
    paused(async {
        let disk = "{name: nvme0n1, size: 1TB, serial: SIMA0001, mkfsFails: true}";
        let text = format!(
            "machines: [{{version: v1.14.1, disks: [{{name: sda, size: 50GiB, holds: talos}}, {disk}]}}]"
        );
        let session = Session::start(&Scenario::parse("s.yaml", &text).unwrap()).await;
        let began = tokio::time::Instant::now();
        let error = session.apply().await.unwrap_err();
        assert!(
            error.what.contains("has failed again and again: phase failed: error formatting XFS"),
            "{error}"
        );
        assert!(!error.what.contains("Usage"), "{error}");
        let took = began.elapsed();
        assert!(
            (100..150).contains(&took.as_secs()),
            "{took:?}, and the deadline is {:?}",
            session.intent.deadlines.volumes
        );
        let told = session.told.lock().unwrap().concat();
        assert!(told.contains("error formatting XFS") && !told.contains("blocksize"), "{told}");

        // What the file asks for is not there, though the config has it.
        let planned = session.plan().await.unwrap();
        let why: Vec<_> = planned.plan.steps.iter().map(|step| step.why.as_str()).collect();
        assert!(
            why.iter().any(|why| why.contains("u-openebs: phase failed: error formatting XFS")),
            "{why:?}"
        );
    });
}

/// A machine of this release with a disk for a partition and one with an XFS of before, and a file that asks for this.
async fn with_disks(version: &str, volumes: &str) -> Session {
    let disks = "{name: sda, size: 50GiB, holds: talos}, {name: nvme0n1, size: 1TB, serial: A}, {name: nvme1n1, size: 1TB, serial: B, holds: xfs}";
    let text = format!("machines: [{{version: {version}, disks: [{disks}]}}]");
    let mut session = Session::start(&Scenario::parse("s.yaml", &text).unwrap()).await;
    let file = format!(
        "apiVersion: nodeprep.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: a}}\nnodes: [{{address: 10.5.0.2}}]\nvolumes: [{volumes}]\n"
    );
    session.intent = intent::parse("nodeprep.yaml", file.as_bytes()).unwrap();
    session
}

#[test]
fn an_upgrade_that_makes_every_kind_of_volume_noexec_is_told_of_each() {
    paused(async {
        let match_b = "disk: {match: 'serial:B'}";
        let volumes = format!(
            "{{name: part, disk: {{match: 'serial:A'}}, minSize: 1GiB}}, {{name: old, type: existing, {match_b}}}, \
             {{name: folder, type: directory}}"
        );
        let session = with_disks("v1.13.9", &volumes).await;
        session.apply().await.unwrap();
        let told = async || {
            tokio::time::sleep(Duration::from_secs(20)).await;
            let planned = session.plan().await.unwrap();
            assert!(planned.plan.is_empty(), "{:?}", planned.plan.steps);
            planned.plan.warnings.into_iter().filter(|warning| warning.contains("noexec")).collect::<Vec<_>>()
        };
        assert_eq!(told().await, Vec::<String>::new());
        session.fleet.act(|world, now| {
            let (machine, timers) = world.machine("10.5.0.2").unwrap();
            machine.version = "v1.14.1".to_owned();
            machine.reboot(timers, now);
        });
        let told = told().await;
        for name in ["part", "old", "folder"] {
            assert!(
                told.iter().any(|told| told.contains(&format!("volume {name} is mounted noexec"))),
                "{told:?}"
            );
        }
    });
}

#[test]
fn a_volume_that_waits_for_one_that_failed_is_not_waited_for_and_that_one_is_named() {
    paused(async {
        // Talos makes the smaller one first, and what somebody else asked for comes before both.
        let volumes = "{name: data, disk: {match: 'serial:A'}, minSize: 1GiB}";
        let session = with_disks("v1.14.1", volumes).await;
        session.fleet.act(|world, _| {
            let machine = world.machine("10.5.0.2").unwrap().0;
            let raw = "---\napiVersion: v1alpha1\nkind: RawVolumeConfig\nname: bare\nprovisioning:\n  \
                       diskSelector: {match: 'disk.serial == \"B\"'}\n  minSize: 1GiB\n  maxSize: 1GiB\n";
            let config = machine.active.take().unwrap() + raw;
            (machine.active, machine.persistent) = (Some(config.clone()), Some(config));
            machine.dirty = true;
        });
        let began = tokio::time::Instant::now();
        let error = session.apply().await.unwrap_err();
        assert!(error.what.contains("u-data") && error.what.contains("as r-bare comes first"), "{error}");
        assert!(error.what.contains("1 have wrong format"), "{error}");
        assert!((100..150).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    });
}

#[test]
fn a_raw_volume_of_all_but_some_space_is_refused_as_talos_makes_it_as_small_as_that() {
    paused(async {
        let sizes = |most: &str| {
            format!("{{name: bare, type: raw, disk: {{match: 'serial:A'}}, minSize: 1GiB, maxSize: {most}}}")
        };
        let session = with_disks("v1.14.1", &sizes("-2GiB")).await;
        let error = session.plan().await.unwrap_err();
        assert!(error.what.contains("gives a raw volume -2GiB as its size"), "{error}");
        // What Talos makes of it, whoever asks.
        session.fleet.act(|world, _| {
            let machine = world.machine("10.5.0.2").unwrap().0;
            let raw = "---\napiVersion: v1alpha1\nkind: RawVolumeConfig\nname: bare\nprovisioning:\n  \
                       diskSelector: {match: 'disk.serial == \"A\"'}\n  minSize: 1GiB\n  maxSize: -2GiB\n";
            let config = machine.active.take().unwrap() + raw;
            (machine.active, machine.persistent) = (Some(config.clone()), Some(config));
            machine.dirty = true;
        });
        tokio::time::sleep(Duration::from_secs(20)).await;
        let node = session.fleet.act(|world, _| world.machine("10.5.0.2").unwrap().0.published.clone());
        let (_, status) = node.of("VolumeStatuses.block.talos.dev").find(|(id, _)| *id == "r-bare").unwrap();
        assert_eq!((&status.spec["phase"], &status.spec["size"]), (&"ready".into(), &(2_u64 << 30).into()));
    });
}
