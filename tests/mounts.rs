//! How volumes are mounted: what Talos makes of `mount.secure`, and when that is called done.

use std::time::Duration;

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
