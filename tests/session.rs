//! The session: what every changing verb does before its first step and after its last one, whatever comes between.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use nodeprep::check;
use nodeprep::cluster::Cluster;
use nodeprep::dial;
use nodeprep::error::Kind;
use nodeprep::event::{Event, EventKind};
use nodeprep::model::node::Node;
use nodeprep::plan::{Plan, Saved};
use nodeprep::session::{
    self, LeaseHolder, Manner, ObservedNodes, Planned, Reached, RunOutcome, RunRecord, cut_offs,
};
use nodeprep::talos::client::Mode;
use nodeprep_sandbox::fleet::{Gate, Moment};
use nodeprep_sandbox::machine::Etcd;
use nodeprep_sandbox::scenario::Scenario;
use serde_json::json;

use crate::common::nodeprep;
use crate::fleet::{Session, paused};
use crate::laws::changes;
use crate::one_cluster::{Served, on};
use crate::quorum::{before_14, cordoned, deploy_on, moves, plan_reboot};

async fn fleet(machines: &str) -> Session {
    Session::start(&before_14(&format!("machines: [{machines}]"))).await
}

/// Lets a Deployment have a pod on the node, whose eviction a disruption budget refuses for 20 seconds.
async fn keep_busy(session: &Session, node: &str) {
    let budget = "{where: kubernetes, call: 'POST /api/v1/namespaces/default/pods/*', times: 7, error: Cannot evict pod, code: 429}";
    let faults = Scenario::parse("s.yaml", &format!("machines: [{{}}]\nfaults: [{budget}]")).unwrap().faults;
    session.fleet.look().faults.0.extend(faults);
    deploy_on(session, node).await;
}

fn auto() -> Manner {
    Manner { mode: Mode::Auto, delete_emptydir_data: true, ..Manner::default() }
}

#[test]
fn a_file_that_installs_nothing_has_its_nodes_drained_under_the_lease_all_the_same() {
    paused(async {
        let mut session = fleet("{role: controlplane}, {role: worker}").await;
        session.apply().await.unwrap();
        session.intent.provisioner = Default::default();
        session.intent.classes.clear();
        session.intent.backup = None;
        let planned = plan_reboot(&session, "10.5.0.3", false).await;
        assert!(planned.cluster.here().is_some(), "{:?}", planned.cluster);
        session.carry_out(planned, &auto()).await.unwrap();
        let told = moves(&session.fleet.calls());
        let told: Vec<&str> = told.iter().map(String::as_str).collect();
        assert!(
            matches!(told[..], ["lock", "cordon", "evict velero", .., "apply", "uncordon", "unlock"]),
            "{told:?}"
        );
    });
}

#[test]
fn a_cluster_that_is_away_has_no_node_rebooted_under_its_pods() {
    paused(async {
        let session = fleet("{role: controlplane}, {role: worker}").await;
        let planned = plan_reboot(&session, "10.5.0.3", false).await;
        let away = Reached::Away(nodeprep::error::Error::unavailable("it does not answer"));
        let error = session.carry_out(Planned { cluster: away, ..planned }, &auto()).await.unwrap_err();
        assert!(error.kind == Kind::Unavailable && error.what.contains("no pod can leave"), "{error}");
        assert!(moves(&session.fleet.calls()).is_empty());
    });
}

#[test]
fn quorum_and_lease_are_judged_after_the_drain_right_before_the_write() {
    for (what, kind, words) in [
        ("quorum", Kind::Refused, "its quorum is 2"),
        ("lease", Kind::Unavailable, "taken over by there/state (nodeprep apply, pid 2)"),
    ] {
        paused(async {
            let session = fleet("{role: controlplane}, {role: controlplane}, {role: controlplane}").await;
            session.apply().await.unwrap();
            keep_busy(&session, "talos-3").await;
            let planned = plan_reboot(&session, "10.5.0.4", true).await;
            let (fleet, once) = (Arc::downgrade(&session.fleet), AtomicBool::new(false));
            session.fleet.set_gate(Some(Gate::new(move |call, moment| {
                let cordons = call.call.starts_with("PATCH /api/v1/nodes/") && moment == Moment::Acted;
                if cordons && !once.swap(true, Ordering::SeqCst) {
                    fleet.upgrade().unwrap().act(|world, _| match what {
                        "quorum" => {
                            let machine = world.machine("10.5.0.3").unwrap().0;
                            machine.etcd = Etcd::Stopped;
                        }
                        _ => {
                            let theirs =
                                json!({"spec": {"holderIdentity": "there/state (nodeprep apply, pid 2)"}});
                            let path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/nodeprep";
                            world.api.make_as("nodeprep", "PATCH", path, &theirs, "2026-01-01T00:00:00Z");
                        }
                    });
                }
                false
            })));
            let error = session.carry_out(planned, &auto()).await.unwrap_err();
            session.fleet.set_gate(None);
            let told = moves(&session.fleet.calls());
            assert!(error.kind == kind && error.what.contains(words), "{what}: {error}");
            assert!(!told.iter().any(|one| one == "apply"), "{what}: {told:?}");
        });
    }
}

#[test]
fn nodes_that_a_living_run_of_another_machine_cordoned_stay_so() {
    paused(async {
        let session = fleet("{role: controlplane}, {role: worker}, {role: worker}").await;
        session.apply().await.unwrap();
        let cluster = session.cluster().await.unwrap();
        let own = LeaseHolder::this("apply", session.state().dir()).place;
        assert!(cluster.cordon("talos-2", "there/state").await.unwrap());
        assert!(cluster.cordon("talos-3", &own).await.unwrap());
        session.apply().await.unwrap();
        assert_eq!(cordoned(&session), ["talos-2"], "nothing was left to do but for one's own");
        // Under the Lease nobody else is alive.
        session.carry_out(plan_reboot(&session, "10.5.0.4", false).await, &auto()).await.unwrap();
        assert!(cordoned(&session).is_empty());
    });
}

#[test]
fn what_another_verb_cut_off_is_neither_forgotten_nor_called_done() {
    paused(async {
        let session = fleet("{role: controlplane}").await;
        let state = session.state();
        let cut = |verb: &str| {
            let saved = Saved::of("sandbox", &Plan::default(), &[0; 64]);
            RunRecord::begin(&state, verb, saved, &[0; 64]).unwrap().journal.started("a").unwrap();
        };
        let verbs = || -> Vec<String> { cut_offs(&state).unwrap().into_iter().map(|cut| cut.verb).collect() };
        cut("wipe");
        cut("remove");
        assert_eq!(verbs(), ["remove", "wipe"]);
        session.apply().await.unwrap();
        assert_eq!(verbs(), ["remove", "wipe"], "apply does not do what they were to do");
        let told = session.told.lock().unwrap().concat();
        assert!(told.contains("`nodeprep wipe` goes on from there, `nodeprep abort` gives it up"), "{told}");
        // Its own next run goes on with it.
        cut("wipe");
        assert_eq!(verbs(), ["wipe", "remove"]);
        let given_up = session.open("abort").unwrap().abort(None).await.unwrap();
        assert_eq!(given_up.len(), 2);
        assert!(verbs().is_empty());
    });
}

#[test]
fn a_run_keeps_its_plan_its_events_and_the_machines_as_they_were_found() {
    paused(async {
        let session = fleet("{role: controlplane}, {role: worker}").await;
        session.apply().await.unwrap();
        let last = session.state().dir().join("last");
        let read = |name: &str| std::fs::read_to_string(last.join(name)).unwrap();
        let observed: ObservedNodes = serde_json::from_str(&read("observed.json")).unwrap();
        assert_eq!(serde_json::to_string(&observed).unwrap(), read("observed.json"));
        let disks = |node: &Node| node.disks.as_ref().unwrap().len();
        assert!(observed.nodes.len() == 2 && observed.nodes.iter().all(|node| disks(node) > 1));
        let events: Vec<Event> =
            read("events.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kinds: Vec<&EventKind> = events.iter().map(|event| &event.what).collect();
        let [EventKind::RunStarted { .. }, .., EventKind::RunFinished { ok: true, .. }] = kinds[..] else {
            panic!("{kinds:?}")
        };
        let outcome: RunOutcome = serde_json::from_str(&read("outcome.json")).unwrap();
        assert!(outcome.ok && outcome.id == "000001-apply", "{outcome:?}");
        assert_eq!(Saved::parse("plan.json", &read("plan.json")).unwrap().cluster, "sandbox");
        let all = ["plan.json", "journal.jsonl", "events.jsonl", "observed.json", "outcome.json"]
            .map(read)
            .concat();
        for secret in ["PRIVATE KEY", "aws_secret_access_key", "aescbc"] {
            assert!(!all.contains(secret), "{secret}");
        }
    });
}

#[test]
fn test_objects_of_a_run_elsewhere_are_removed_once_they_have_expired() {
    paused(async {
        let session = fleet("{role: controlplane}").await;
        let (cluster, folder) = (session.cluster().await.unwrap(), tempfile::tempdir().unwrap());
        let now = session.fleet.now();
        for (run, hours) in [("old", -1), ("alive", 1)] {
            let expires = now.checked_add(jiff::SignedDuration::from_hours(hours)).unwrap();
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
                "name": format!("nodeprep-{run}"),
                "labels": {"app.kubernetes.io/managed-by": "nodeprep", "nodeprep.dev/run": run},
                "annotations": {"nodeprep.dev/expires": expires.to_string()}}});
            cluster.apply(&namespace).await.unwrap();
        }
        let cleaned = check::cleanup(&cluster, folder.path(), now, &session.events).await.unwrap();
        assert_eq!(cleaned.namespaces, ["nodeprep-old"]);
        let alive: Vec<&str> = cleaned.alive.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(alive, ["nodeprep-alive"]);
        assert!(cluster.get("v1", "Namespace", None, "nodeprep-alive").await.unwrap().is_some());
    });
}

#[test]
fn a_bootstrap_is_planned_again_when_somebody_thought_about_it() {
    paused(async {
        let text = "machines: [{role: controlplane, maintenance: true, version: v1.13.9}]";
        let session = Session::start(&Scenario::parse("s.yaml", text).unwrap()).await;
        let made = Cell::new(0);
        let make = async |_| {
            made.set(made.get() + 1);
            let mut planned = session.plan_bootstrap().await?;
            if made.get() == 2 {
                planned.plan.steps.truncate(1);
            }
            Ok(planned)
        };
        let run = session.open("bootstrap").unwrap();
        let error = run.carry_out(&Manner::default(), make, async |_| Ok(true)).await.unwrap_err();
        assert_eq!((error.kind, made.get()), (Kind::Refused, 2), "{error}");
        assert!(changes(&session.fleet.calls()).is_empty());
    });
}

#[test]
fn a_panic_lets_the_lease_go_and_uncordons_like_an_error_does() {
    paused(async {
        let session = fleet("{role: controlplane}, {role: worker}").await;
        session.apply().await.unwrap();
        let cluster = session.cluster().await.unwrap();
        let again = Cell::new(false);
        let make = async |connected| {
            assert!(!again.replace(true), "a fault of nodeprep's own");
            let planned = session.planned(connected).await?;
            let own = LeaseHolder::this("apply", session.state().dir()).place;
            cluster.cordon("talos-2", &own).await?;
            Ok(Planned { plan: plan_reboot(&session, "10.5.0.3", false).await.plan, ..planned })
        };
        let run = session.open("apply").unwrap();
        let error = run.carry_out(&auto(), make, async |_| Ok(true)).await.unwrap_err();
        assert!(error.what.contains("nodeprep itself failed: a fault of nodeprep's own"), "{error}");
        assert!(cordoned(&session).is_empty());
        let leases: Api<Lease> = Api::namespaced(cluster.client(), "kube-system");
        assert!(leases.get_opt("nodeprep").await.unwrap().is_none());
    });
}

/// As a person types them, on a fleet that is served.
#[test]
fn verbs_on_disks_wait_for_the_run_of_another_machine_too() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let machine = "{role: controlplane, address: 10.5.0.2, disks: [\
        {name: nvme0n1, size: 1TB, serial: FREE}, {name: nvme1n1, size: 800GB, serial: HELD, holds: xfs}, \
        {name: sda, size: 200GB, serial: SYS, holds: talos}]}";
    let fleet = Served::start(folder.path(), "a", &format!("speed: 20\nmachines: [{machine}]\n"));
    let (code, text) = on(&fleet, &fleet, "apply --yes --no-validate");
    assert_eq!(code, Some(0), "{text}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let lease = runtime.block_on(async {
        let kubeconfig = fleet.folder.join("kubeconfig");
        let cluster = Cluster::connect(Some(&kubeconfig), None, &dial::tcp()).await.unwrap();
        let other = LeaseHolder { place: "there/state".into(), run: "nodeprep apply, pid 2".into() };
        session::Lease::take(&cluster, &other, false).await.unwrap()
    });
    let verbs = [
        "wipe --nodes 10.5.0.2 --wipe-disk HELD --yes",
        "remove --volume openebs --nodes 10.5.0.2 --wipe-disk FREE --yes",
    ];
    for verb in verbs {
        let (code, text) = on(&fleet, &fleet, verb);
        assert_eq!(code, Some(75), "{verb}: {text}");
        assert!(text.contains("another run holds the cluster's lock: there/state"), "{verb}: {text}");
    }
    runtime.block_on(lease.release());
    for verb in verbs {
        let (code, text) = on(&fleet, &fleet, verb);
        assert_eq!(code, Some(0), "{verb}: {text}");
    }
}

#[test]
fn json_lines_hold_the_plan_and_all_that_is_told_by_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = nodeprep(folder.path());
    let output =
        command.args("apply --sandbox --yes --no-validate --progress jsonl".split(' ')).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let events: Vec<Event> = said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(events.iter().map(|event| event.seq).eq(1..=events.len() as u64), "one stream: {said}");
    let plan = events.iter().find_map(|event| match &event.what {
        EventKind::Planned { plan, .. } => Some(plan),
        _ => None,
    });
    assert!(plan.unwrap()["steps"].as_array().unwrap().len() > 20, "{said}");
    let told = |words: &str| {
        events
            .iter()
            .any(|event| matches!(&event.what, EventKind::Message { message } if message.contains(words)))
    };
    assert!(told("simulated: the nodes"), "{said}");
}
