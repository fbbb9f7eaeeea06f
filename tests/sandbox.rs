//! nodeprep's own adapters against the sandbox's servers, over TCP and TLS.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nodeprep::cluster::Cluster;
use nodeprep::error::Kind;
use nodeprep::event::Events;
use nodeprep::model::object::Ready;
use nodeprep::plan::{Action, ObjectAction, Plan, WaitAction, stack as planner};
use nodeprep::stack::{self, StackItem};
use nodeprep::{intent, observe};
use nodeprep_sandbox::fleet::Fleet;
use nodeprep_sandbox::kube::object::time;
use nodeprep_sandbox::scenario::Scenario;
use nodeprep_sandbox::serve::kube::{kubeconfig, serve};
use nodeprep_sandbox::serve::network::Network;
use nodeprep_sandbox::serve::pki::Authority;
use nodeprep_sandbox::world::World;
use serde_json::{Value, json};

use crate::common::secret;

const FILE: &str = "
apiVersion: nodeprep.dev/v1alpha1
kind: Cluster
metadata: {name: sandbox}
provisioner: {openebs: {}}
classes:
  - {name: openebs-hostpath, basePath: /var/mnt/openebs}
backup:
  location: {bucket: velero, region: us-east-1}
  secrets: [unused.sops.yaml]
  schedules: [{name: daily, cron: 0 2 * * *}]
";

struct Sandbox {
    fleet: Arc<Fleet>,
    client: Cluster,
}

impl Sandbox {
    async fn new() -> Self {
        let authority = Authority::new("sandbox").unwrap();
        let (fleet, client) = served(&authority, &authority).await;
        Self { fleet, client: client.unwrap() }
    }

    async fn plan(&self, items: &[StackItem]) -> nodeprep::error::Result<Plan> {
        planner::plan(&file(), items, &observe::cluster::observe(&self.client, items).await?)
    }
}

/// A fleet with a server of the one authority, and a client with a certificate of the other.
async fn served(
    authority: &Authority,
    of_client: &Authority,
) -> (Arc<Fleet>, nodeprep::error::Result<Cluster>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (now, scenario) = (Timestamp::now(), Scenario { speed: 100.0, ..Scenario::default() });
    let fleet = Fleet::new(World::new(&scenario, now), now, Network::Loopback);
    let address = serve(&fleet, authority, 0).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    let text = kubeconfig(address, authority, &of_client.client("system:masters", 365).unwrap());
    std::fs::write(&path, text.to_string()).unwrap();
    (fleet, Cluster::connect(Some(&path), None, &nodeprep::dial::tcp()).await)
}

fn file() -> intent::Intent {
    intent::parse("nodeprep.yaml", FILE.as_bytes()).unwrap()
}

fn items() -> Vec<StackItem> {
    let secrets = [
        secret(
            "cloud-credentials",
            &[("cloud", "[default]\naws_access_key_id=id\naws_secret_access_key=key\n")],
        ),
        secret("velero-repo-credentials", &[("repository-password", "own")]),
    ];
    stack::render(&file(), &secrets).unwrap()
}

#[tokio::test]
async fn the_stack_is_made_once_and_then_nothing_is_left_to_change() {
    let sandbox = Sandbox::new().await;
    let items = items();
    let first = sandbox.plan(&items).await.unwrap();
    assert!(first.changes() > 25, "{}", first.changes());
    let quiet = Events::new(String::new, |_| {});
    for step in first.steps {
        match step.action {
            Action::Object(ObjectAction::Apply(object)) => {
                let applied = sandbox.client.send(&object, false).await;
                assert!(applied.is_ok(), "{}: {applied:?}", step.title);
            }
            Action::Wait(WaitAction::Ready(ready)) => {
                sandbox.client.await_ready(&ready, &quiet, Duration::from_secs(30)).await.unwrap();
            }
            other => panic!("the stack plans no {other:?}"),
        }
    }
    let second = sandbox.plan(&items).await.unwrap();
    let left: Vec<_> = second.steps.iter().map(|step| format!("{}\n{}", step.title, step.diff)).collect();
    assert!(left.is_empty(), "{left:#?}");

    // What somebody else changes is reported, and not taken by force.
    let path = "/apis/apps/v1/namespaces/velero/deployments/velero?fieldManager=somebody";
    let patch = json!({"spec": {"replicas": 0}});
    sandbox.fleet.act(|world, now| world.api.make_as("x", "PATCH", path, &patch, &time(now)));
    let error = sandbox.plan(&items).await.unwrap_err();
    assert_eq!(error.kind, Kind::Refused);
    assert!(error.what.contains("\"somebody\" using apps/v1 manages .spec.replicas"), "{error}");
}

#[tokio::test]
async fn a_client_without_a_certificate_of_the_sandboxs_authority_is_turned_away() {
    let (authority, stranger) = (Authority::new("sandbox").unwrap(), Authority::new("other").unwrap());
    let (_fleet, client) = served(&authority, &stranger).await;
    let refused = match client {
        Ok(client) => client.get("v1", "Namespace", None, "default").await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
}

const MACHINE: &str = "
machines:
  - extensions: [{name: iscsi-tools, version: v0.2.0}]
    clock: -1m
    disks:
      - {name: nvme0n1, size: 1TB, serial: DATA1, holds: xfs}
      - {name: nvme1n1, size: 1TB, serial: OLD1, holds: u-old}
      - {name: sda, size: 250GB, serial: SYS1, holds: talos}
";

#[test]
fn all_of_a_machine_can_be_read_and_a_disk_is_free_once_it_was_wiped_by_its_token() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("scenario.yaml"), MACHINE).unwrap();
    let run = |args: &[&str], code: i32| -> String {
        let mut command = crate::common::nodeprep(folder.path());
        command.args(args).args(["--sandbox=scenario.yaml", "--sandbox-state=fleet"]);
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    };
    let node = || -> Value {
        let told: Value = serde_json::from_str(&run(&["discover", "-o", "json"], 0)).unwrap();
        told["nodes"][0].clone()
    };
    let first = node();
    assert_eq!(first["unreadable"], json!({}));
    assert_eq!(first["extensions"], json!({"iscsi-tools": "v0.2.0"}));
    assert_eq!(first["clock"]["secondsAheadOfServer"], -60.0);
    assert!(first["clock"]["secondsAheadOfHere"].as_f64().unwrap() < -30.0, "{}", first["clock"]);
    let table = run(&["discover"], 0);
    assert!(table.contains("s behind this machine's"), "{table}");

    for (wipe, code, free) in [
        (&["--disk", "nvme0n1"][..], 5, [false, false, false]),
        (&["--wipe-disk", "DATA1"][..], 0, [true, false, false]),
        (&["--volume", "old"][..], 5, [true, false, false]),
        (&["--volume", "old", "--wipe-disk", "OLD1"][..], 0, [true, true, false]),
    ] {
        run(&[&["wipe", "--yes"], wipe].concat(), code);
        let node = node();
        assert_eq!(
            [0_usize, 1, 2].map(|disk| node["disks"][disk]["free"] == true),
            free,
            "{wipe:?}: {node:#}"
        );
    }
}

#[tokio::test]
async fn a_schedule_is_waited_for_and_what_velero_says_of_a_bad_one_ends_the_wait() {
    let sandbox = Sandbox::new().await;
    let quiet = Events::new(String::new, |_| {});
    for step in sandbox.plan(&items()).await.unwrap().steps {
        match step.action {
            Action::Object(ObjectAction::Apply(object)) => {
                drop(sandbox.client.send(&object, false).await.unwrap());
            }
            Action::Wait(WaitAction::Ready(ready)) => {
                sandbox.client.await_ready(&ready, &quiet, Duration::from_secs(30)).await.unwrap();
            }
            other => panic!("the stack plans no {other:?}"),
        }
    }
    // Sent past nodeprep's own rules.
    for (name, spec, ends) in [
        ("good", json!({"schedule": "0 2 * * *", "template": {}}), None),
        (
            "bad",
            json!({"schedule": "0 25 * * *", "template": {}}),
            Some(("FailedValidation: invalid schedule: end of range (25) above maximum (23): 25", "correct")),
        ),
        (
            "still",
            json!({"schedule": "0 2 * * *", "template": {}, "paused": true}),
            Some(("it is paused", "unpause still")),
        ),
    ] {
        let metadata = json!({"name": name, "namespace": "velero"});
        let schedule =
            json!({"apiVersion": "velero.io/v1", "kind": "Schedule", "metadata": metadata, "spec": spec});
        drop(sandbox.client.apply(&schedule).await.unwrap());
        let ready = Ready::Schedule { namespace: "velero".into(), name: name.into() };
        let waited = sandbox.client.await_ready(&ready, &quiet, Duration::from_secs(30)).await;
        let Some((why, hint)) = ends else {
            waited.unwrap();
            continue;
        };
        let error = waited.unwrap_err();
        assert_eq!(error.kind, Kind::Failed);
        assert!(error.what.starts_with(&format!("Schedule velero/{name}: {why}")), "{error}");
        assert!(error.hint.is_some_and(|said| said.contains(hint)), "{name}");
    }
}

#[test]
fn the_sandbox_runs_the_newest_talos_that_the_lab_can_make() {
    let lab = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/lab/go/talos");
    let files = std::fs::read_dir(lab).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let minor = |version: &str| version.split('.').nth(1).and_then(|minor| minor.parse::<u64>().ok());
    let newest = files.max_by_key(|file| minor(file)).unwrap();
    let default = Scenario::default().machines.remove(0).version;
    assert_eq!(format!("{default}.mod"), newest);
}
