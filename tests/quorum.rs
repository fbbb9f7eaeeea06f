//! Control planes are touched only while etcd is well; a node that reboots is drained before and uncordoned after.

use std::time::Duration;

use nodeprep::error::Kind;
use nodeprep::model::object::Ready;
use nodeprep::plan::{Action, ApplyConfig, NodeAction, Plan, Step, Target};
use nodeprep::session::{self, Manner, Planned, Reached};
use nodeprep::talos::client::Mode;
use nodeprep::talos::resources::{MachineConfig, id};
use nodeprep_sandbox::fleet::Call;
use nodeprep_sandbox::scenario::Scenario;
use secrecy::ExposeSecret;
use serde_json::json;

use crate::fleet::{Session, paused};
use crate::laws::is_lease;

/// Machines whose Talos reboots for some changes of its config, as it does before 1.14.
pub(crate) fn before_14(scenario: &str) -> Scenario {
    let mut scenario = Scenario::parse("s.yaml", scenario).unwrap();
    scenario.machines.iter_mut().for_each(|machine| "v1.13.9".clone_into(&mut machine.version));
    scenario
}

async fn session(scenario: &str) -> Session {
    Session::start(&before_14(scenario)).await
}

/// The steps of nodes alone, whose configs now also hold what Talos reboots for.
fn rebooting(mut plan: Plan) -> Plan {
    plan.steps.retain(|step| step.target.is_node());
    for step in &mut plan.steps {
        if let Action::Node(NodeAction::Config(work)) = &mut step.action {
            work.config =
                work.config.expose_secret().replacen("machine:\n", "machine:\n    files: []\n", 1).into();
        }
    }
    plan
}

/// The machines that a config was really sent to.
fn applied(calls: &[Call]) -> Vec<&str> {
    let wrote = |call: &&Call| {
        call.call == "ApplyConfiguration" && call.change.as_ref().is_some_and(|asked| !asked.dry)
    };
    calls.iter().filter(wrote).map(|call| call.place.as_str()).collect()
}

#[test]
fn control_planes_have_their_turn_only_while_etcd_is_well() {
    for (etcd, reboot, expected, why) in [
        (["running", "running", "running"], false, 3, ""),
        (["running", "running", "running"], true, 3, ""),
        (["stopped", "running", "running"], false, 0, "etcd does not run, it is Preparing"),
        (["running", "stopped", "running"], false, 1, "10.5.0.3: etcd does not run"),
        (
            ["running", "stopped", "running"],
            true,
            0,
            "etcd has 1 of 3 members without this node, and its quorum is 2",
        ),
        (["running", "stopped", "stopped"], false, 0, "no leader"),
        (["running", "nospace", "running"], false, 0, "etcd has the alarm NOSPACE on talos-2"),
        (["running", "running", "corrupt"], true, 0, "etcd has the alarm CORRUPT on talos-3"),
    ] {
        paused(async {
            let machines = etcd.map(|etcd| format!("{{role: controlplane, etcd: {etcd}}}")).join(", ");
            let session = session(&format!("machines: [{machines}]")).await;
            let mut planned = session.plan().await.unwrap();
            let mode = if reboot { Mode::Auto } else { Mode::NoReboot };
            if reboot {
                planned.plan = rebooting(planned.plan);
            }
            session.fleet.calls();
            let done = session.carry_out(planned, &Manner { mode, ..Manner::default() }).await;
            let calls = session.fleet.calls();
            assert_eq!(applied(&calls).len(), expected, "{etcd:?}, reboot {reboot}: {done:?}");
            match done {
                Ok(()) => assert_eq!(why, ""),
                Err(error) => {
                    assert!(!why.is_empty() && error.what.contains(why), "{etcd:?}: {error}");
                    assert_eq!(error.kind, Kind::Refused, "{error}");
                }
            }
        });
    }
}

#[test]
fn before_the_cluster_is_bootstrapped_there_is_no_etcd_to_keep() {
    paused(async {
        let session = session("machines: [{role: controlplane, etcd: stopped}]").await;
        let mut planned = session.plan().await.unwrap();
        planned.plan.steps.retain(|step| step.target.is_node());
        session.carry_out(Planned { cluster: Reached::None, ..planned }, &Manner::default()).await.unwrap();
    });
}

/// What is changed of nodes, pods and the Lease, in order.
pub(crate) fn moves(calls: &[Call]) -> Vec<String> {
    let asked = calls.iter().filter(|call| call.change.as_ref().is_some_and(|change| !change.dry));
    let told = asked.filter_map(|call| {
        let body = call.change.as_ref().map_or("", |change| change.body.as_str());
        let pod = call.call.split('/').nth(6).unwrap_or_default();
        Some(match call.call.as_str() {
            "ApplyConfiguration" => "apply".to_owned(),
            path if path.ends_with("/eviction") => {
                format!("evict {}", pod.split('-').next().unwrap_or_default())
            }
            path if path.starts_with("PATCH /api/v1/nodes/") && body.contains("true") => "cordon".to_owned(),
            path if path.starts_with("PATCH /api/v1/nodes/") => "uncordon".to_owned(),
            path if path.starts_with("DELETE") && is_lease(call) => "unlock".to_owned(),
            path if path.starts_with("POST") && is_lease(call) => "lock".to_owned(),
            _ => return None,
        })
    });
    told.collect()
}

/// Lets a Deployment have a pod on the node.
pub(crate) async fn deploy_on(session: &Session, node: &str) {
    let cluster = session.cluster().await.unwrap();
    let labels = json!({"app": "web"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {
                "containers": [{"name": "web", "image": "registry.k8s.io/pause:3.10"}],
                "nodeSelector": {"kubernetes.io/hostname": node},
                "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}],
            },
        }},
    });
    cluster.apply(&deployment).await.unwrap();
    let ready =
        Ready::Workload { kind: "Deployment".into(), namespace: "default".into(), name: "web".into() };
    cluster.await_ready(&ready, &session.events, Duration::from_secs(60)).await.unwrap();
}

/// A plan of one step, after which the node at this address reboots.
pub(crate) async fn plan_reboot(session: &Session, address: &str, control_plane: bool) -> Planned {
    let mut planned = session.plan().await.unwrap();
    let node = planned.talos.as_ref().unwrap().node(address).unwrap();
    let config = node.spec::<MachineConfig>(id::ACTIVE_CONFIG).await.unwrap().unwrap();
    let text = config.spec.0.expose_secret().replacen("machine:\n", "machine:\n    files: []\n", 1);
    let work = ApplyConfig {
        address: address.into(),
        control_plane,
        base_version: config.version,
        config: text.into(),
        volumes: Vec::new(),
        labels: Vec::new(),
        disks: Vec::new(),
    };
    planned.plan = Plan {
        steps: vec![Step::new(
            "config",
            Target::node(address),
            "reboot",
            Action::Node(NodeAction::Config(work)),
        )],
        ..Plan::default()
    };
    session.fleet.calls();
    planned
}

/// A worker with a Deployment's pod on it, and what is made of a reboot there.
async fn reboot(faults: &str) -> (Session, Vec<String>, Result<(), nodeprep::error::Error>) {
    reboot_with(faults, true, None).await
}

/// The same, where what is in an emptyDir may be lost or not, and with one more object of the cluster.
async fn reboot_with(
    faults: &str,
    delete_emptydir_data: bool,
    more: Option<serde_json::Value>,
) -> (Session, Vec<String>, Result<(), nodeprep::error::Error>) {
    let machines = "{role: controlplane}, {role: worker}";
    let session = session(&format!("machines: [{machines}]\nfaults: [{faults}]")).await;
    session.apply().await.unwrap();
    deploy_on(&session, "talos-2").await;
    if let Some(more) = more {
        session.cluster().await.unwrap().apply(&more).await.unwrap();
    }
    let planned = plan_reboot(&session, "10.5.0.3", false).await;
    let manner = Manner { mode: Mode::Auto, delete_emptydir_data, ..Manner::default() };
    let done = session.carry_out(planned, &manner).await;
    let mut moved = moves(&session.fleet.calls());
    moved.retain(|one| one != "lock" && one != "unlock");
    (session, moved, done)
}

/// The names of the nodes that take no new pods.
pub(crate) fn cordoned(session: &Session) -> Vec<String> {
    let world = session.fleet.look();
    let nodes = world.api.store.list("/nodes", "");
    let cordoned = nodes.filter(|(_, node)| node["spec"]["unschedulable"] == true);
    cordoned.map(|(place, _)| place.name.clone()).collect()
}

#[test]
fn a_node_that_reboots_is_drained_before_and_uncordoned_after() {
    paused(async {
        let (session, moved, done) = reboot("").await;
        done.unwrap();
        assert_eq!(moved, ["cordon", "evict web", "evict velero", "apply", "uncordon"]);
        assert!(cordoned(&session).is_empty() && session.fleet.look().machines["10.5.0.3"].boots == 1);
    });
}

#[test]
fn what_a_drain_would_lose_is_refused_before_anything_is_done_to_the_node() {
    let lone = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lone", "namespace": "default"},
        "spec": {"nodeName": "talos-2", "containers": [{"name": "a", "image": "registry.k8s.io/pause:3.10"}]},
    });
    for (given_up, more, words) in [
        (false, None, ["(plugins, scratch)", "emptyDir"]),
        (true, Some(lone), ["default/lone", "nothing would make anew"]),
    ] {
        paused(async {
            let (session, moved, done) = reboot_with("", given_up, more).await;
            let error = done.unwrap_err();
            assert_eq!(error.kind, Kind::Refused, "{error}");
            assert!(words.iter().all(|word| error.what.contains(word)), "{error}");
            assert!(moved.is_empty() && cordoned(&session).is_empty(), "{moved:?}");
            assert_eq!(session.fleet.look().machines["10.5.0.3"].boots, 0);
            let (cluster, talos) =
                (session.cluster().await.unwrap(), session.plan().await.unwrap().talos.unwrap());
            let told = session::losses(&cluster, &talos, &["10.5.0.3".into()]).await.unwrap();
            assert!(told[0].told().unwrap().contains(words[0]), "{told:?}");
        });
    }
}

#[test]
fn a_disruption_budget_is_waited_for_and_a_node_that_is_not_drained_does_not_reboot() {
    let budget = "error: Cannot evict pod as it would violate the pod's disruption budget., code: 429";
    for (times, evictions, boots) in [(", times: 3", 4, 1), ("", 101, 0)] {
        paused(async {
            let call = "POST /api/v1/namespaces/default/pods/*";
            let fault = format!("{{where: kubernetes, call: '{call}', {budget}{times}}}");
            let (session, moved, done) = reboot(&fault).await;
            assert_eq!(moved.iter().filter(|one| *one == "evict web").count(), evictions, "{moved:?}");
            assert_eq!(moved.last().unwrap(), "uncordon");
            assert!(cordoned(&session).is_empty());
            assert_eq!(session.fleet.look().machines["10.5.0.3"].boots, boots);
            if boots == 0 {
                let error = done.unwrap_err();
                assert!(
                    error.what.contains("not drained within 300s")
                        && error.what.contains("disruption budget"),
                    "{error}"
                );
            }
        });
    }
}

#[test]
fn what_a_killed_run_left_cordoned_is_uncordoned_and_what_others_cordoned_is_not() {
    paused(async {
        let session = session("machines: [{role: controlplane}, {role: worker}, {role: worker}]").await;
        let cluster = session.cluster().await.unwrap();
        assert!(cluster.cordon("talos-1", "here").await.unwrap(), "ours");
        assert!(cluster.cordon("talos-1", "here").await.unwrap(), "ours still, in another run");
        assert!(cluster.cordon("talos-3", "there").await.unwrap(), "of another machine's run");
        session.fleet.act(|world, _| {
            let body = json!({"spec": {"unschedulable": true}});
            world.api.make_as("kubectl", "PATCH", "/api/v1/nodes/talos-2", &body, "2026-01-01T00:00:00Z");
        });
        assert!(!cluster.cordon("talos-2", "here").await.unwrap(), "somebody's");
        assert_eq!(cluster.uncordon_left(Some("here")).await.unwrap(), ["talos-1"]);
        assert_eq!(cluster.uncordon_left(None).await.unwrap(), ["talos-3"], "by who holds the Lease");
        assert_eq!(cordoned(&session), ["talos-2"], "the other one");
        assert!(cluster.uncordon_left(None).await.unwrap().is_empty());
    });
}
