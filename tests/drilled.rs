//! A drill from end to end on a simulated fleet: that it passes only when what came back was compared, that each fault makes it fail
//! with its reason, and that nothing of it stays.

use nodeprep::error::{Error, Kind, Result};
use nodeprep::judge::drill::{DRILLS, DrillOutcome, outcomes};
use nodeprep::plan::drill::DrillAsked;
use nodeprep::session::{self, Manner};
use nodeprep::stack::drill::Amount;
use nodeprep_sandbox::scenario::Scenario;

use crate::fleet::{Session, paused};
use crate::restore::delete;

async fn session() -> Session {
    let text = "machines: [{role: controlplane}, {role: worker}, {role: worker}]";
    let session = Session::start(&Scenario::parse("s.yaml", text).unwrap()).await;
    session.apply().await.unwrap();
    session
}

fn asked(session: &Session, id: &str) -> DrillAsked {
    DrillAsked {
        id: format!("drill-{id}"),
        begun: session.fleet.now(),
        class: "openebs-hostpath".into(),
        amount: Amount { files: 40, bytes: 1 << 20 },
        image: session.intent.images.shell.clone(),
        tolerations: Vec::new(),
        rto: None,
        rpo: None,
    }
}

async fn drill(session: &Session, asked: &DrillAsked) -> Result<()> {
    let reach = session.reach(session.kubeconfig());
    let backup = session.intent.backup.clone().unwrap();
    let make = async |connected| session::plan_drill(&reach, &backup, asked, connected).await;
    session.open("drill")?.carry_out(&Manner::default(), make, async |_| Ok(false)).await
}

/// The drill fails, and is on record as one that did.
async fn fails(session: &Session, asked: &DrillAsked) -> Error {
    let error = drill(session, asked).await.unwrap_err();
    assert_eq!(recorded(session).await.last().map(|outcome| outcome.passed), Some(false), "{error}");
    error
}

async fn recorded(session: &Session) -> Vec<DrillOutcome> {
    let cluster = session.cluster().await.unwrap();
    let live = cluster.get("v1", "ConfigMap", Some("velero"), DRILLS).await.unwrap().unwrap_or_default();
    let mut all: Vec<DrillOutcome> =
        outcomes(&live["data"]).into_iter().map(|(_, outcome)| outcome).collect();
    all.sort_by_key(|outcome| outcome.at);
    all
}

/// Nothing that a drill made is left in the cluster.
async fn is_clean(session: &Session) {
    let cluster = session.cluster().await.unwrap();
    for (version, kind, namespace) in [
        ("v1", "Namespace", None),
        ("velero.io/v1", "Backup", Some("velero")),
        ("velero.io/v1", "Restore", Some("velero")),
        ("v1", "PersistentVolume", None),
    ] {
        let listed = cluster.list(version, kind, namespace, "").await.unwrap();
        let left: Vec<_> = listed
            .iter()
            .filter_map(|object| object["metadata"]["name"].as_str())
            .filter(|name| name.contains("drill") || kind == "PersistentVolume")
            .collect();
        assert!(left.is_empty(), "{kind}: {left:?}");
    }
}

/// Waits until the drill destroys its files.
async fn destroyed(session: &Session) {
    for _ in 0..2000 {
        if told(session).contains("drill/destroy") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    panic!("{}", told(session));
}

fn told(session: &Session) -> String {
    session.told.lock().unwrap().join("\n")
}

#[test]
fn a_drill_passes_when_every_file_came_back_and_a_changed_byte_is_seen() {
    paused(async {
        let session = session().await;
        drill(&session, &asked(&session, "1")).await.unwrap();
        let told = told(&session);
        for wanted in ["came back as they were", "and nothing else", "(RTO)"] {
            assert!(told.contains(wanted), "{wanted}: {told}");
        }
        let recorded = recorded(&session).await;
        assert!(recorded[0].passed && recorded[0].rto.is_some() && recorded[0].rpo.is_some(), "{recorded:?}");
        is_clean(&session).await;
    });
}

#[test]
fn a_drill_that_takes_longer_than_the_file_allows_fails() {
    paused(async {
        let session = session().await;
        let slow = DrillAsked { rto: Some(nodeprep::intent::Duration(1)), ..asked(&session, "1") };
        let error = fails(&session, &slow).await;
        assert_eq!(error.kind, Kind::CheckFailed);
        assert!(error.what.contains("more than the 1s of `backup.drill`"), "{error}");
        is_clean(&session).await;
    });
}

#[test]
fn without_agents_a_drill_fails_before_anything_is_destroyed() {
    paused(async {
        let session = session().await;
        delete(&session, ("apps/v1", "DaemonSet", Some("velero"), "node-agent")).await;
        let error = fails(&session, &asked(&session, "1")).await;
        assert_eq!(error.kind, Kind::CheckFailed);
        assert!(error.what.contains("does not hold what was asked for"), "{error}");
        assert!(!told(&session).contains("drill/destroy"), "{}", told(&session));
        is_clean(&session).await;
    });
}

#[test]
fn a_bucket_that_goes_in_the_middle_makes_the_drill_fail() {
    paused(async {
        let session = session().await;
        let asked = asked(&session, "1");
        let away = async {
            destroyed(&session).await;
            session.fleet.act(|world, _| world.store.objects.clear());
        };
        let (error, ()) = tokio::join!(fails(&session, &asked), away);
        assert_eq!(error.kind, Kind::CheckFailed, "{error}");
        assert!(error.what.contains("did not bring all of it back"), "{error}");
    });
}

#[test]
fn a_changed_snapshot_is_seen_file_by_file() {
    paused(async {
        let session = session().await;
        let asked = asked(&session, "1");
        // One file of what lies in the store becomes another one.
        let harm = async {
            destroyed(&session).await;
            session.fleet.act(|world, _| harm_a_snapshot(world));
        };
        let (error, ()) = tokio::join!(fails(&session, &asked), harm);
        assert_eq!(error.kind, Kind::CheckFailed, "{error}");
        assert!(error.what.contains("what came back is not what was written"), "{error}");
        is_clean(&session).await;
    });
}

fn harm_a_snapshot(world: &mut nodeprep_sandbox::world::World) {
    let snapshots = world.store.objects.iter_mut().filter(|(key, _)| key.contains("kopia"));
    let mut files = snapshots.filter_map(|(_, snapshot)| snapshot["files"].as_object_mut()).flatten();
    let (_, file) =
        files.find(|(name, _)| name.starts_with("small/000/")).expect("a snapshot with small files");
    file["sha256"] = "00".repeat(32).into();
}

#[test]
fn an_interrupted_drill_leaves_nothing_and_is_no_failed_one() {
    paused(async {
        let session = session().await;
        let asked = asked(&session, "1");
        let interrupt = async {
            destroyed(&session).await;
            session.interrupt();
        };
        let (done, ()) = tokio::join!(drill(&session, &asked), interrupt);
        assert_eq!(done.unwrap_err().kind, Kind::Interrupted);
        assert!(recorded(&session).await.is_empty());
        is_clean(&session).await;
    });
}

#[test]
fn a_class_that_the_cluster_has_not_is_named() {
    paused(async {
        let session = session().await;
        let error =
            drill(&session, &DrillAsked { class: "fast".into(), ..asked(&session, "1") }).await.unwrap_err();
        assert_eq!(
            (error.kind, error.what.as_str()),
            (Kind::Invalid, "the cluster has no StorageClass fast")
        );
        assert!(recorded(&session).await.is_empty());
    });
}
