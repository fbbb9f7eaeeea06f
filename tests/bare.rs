//! A sandbox whose machines have no configuration: from the first configurations to a cluster that answers.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nodeprep::cli::first_files;
use nodeprep::cluster::Cluster;
use nodeprep::error::Kind;
use nodeprep::intent;
use nodeprep::plan::Plan;
use nodeprep::session::{Manner, Planned, Reached};
use nodeprep::talos::client::{Mode, Options};
use nodeprep::talos::config::Places;
use nodeprep::talos::{Client, Context, PORT};
use nodeprep_sandbox::Sandbox;
use nodeprep_sandbox::machine::disks::Contents;
use nodeprep_sandbox::machine::{Apply, Mode as AppliedMode};
use nodeprep_sandbox::scenario::Scenario;
use nodeprep_sandbox::serve::network::Network;
use nodeprep_sandbox::world::World;
use tokio::net::TcpStream;

use crate::fleet::{Session, paused};

const BARE: &str = include_str!("../examples/bare.yaml");

fn talos(sandbox: &Sandbox) -> Client {
    let flag = Some(sandbox.talosconfig());
    let places = Places { flag, talosconfig: None, talos_home: None, home: None };
    let context = Context::load(&places, None, Timestamp::now()).unwrap();
    let options = Options { dial: sandbox.dial(), ..Options::default() };
    Client::connect(&context, &context.endpoints, &options).unwrap()
}

#[test]
fn machines_are_configured_as_the_folder_says_and_the_bootstrap_makes_a_cluster_of_them() {
    paused(async {
        let scenario = Scenario::parse("bare.yaml", BARE).unwrap();
        let sandbox =
            Sandbox::start(&scenario, None, Network::memory(), Timestamp::now(), &first_files).await.unwrap();
        let (fleet, talos) = (Arc::clone(sandbox.fleet().unwrap()), talos(&sandbox));
        let intent =
            intent::parse("nodeprep.yaml", &std::fs::read(sandbox.folder.join("nodeprep.yaml")).unwrap())
                .unwrap();
        for node in &intent.nodes {
            let path = sandbox.folder.join(node.config.as_ref().unwrap());
            let machine = talos.insecure(&node.address, None).unwrap().node(&node.address).unwrap();
            let config = std::fs::read(path).unwrap();
            machine.apply(&config, Mode::Auto, false, None).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        let etcd = async |address: &str| {
            let services = talos.node(address).unwrap().services().await.unwrap();
            services.into_iter().find(|service| service.id == "etcd").map(|service| service.state)
        };
        assert_eq!(etcd("10.5.0.2").await.as_deref(), Some("Preparing"));
        assert_eq!(etcd("10.5.0.3").await, None);
        let cluster = async || {
            let cluster = Cluster::connect(Some(&sandbox.kubeconfig()), None, &sandbox.dial()).await?;
            cluster.get("v1", "Node", None, "talos-1").await
        };
        assert!(cluster().await.is_err());
        fleet.act(|world, now| {
            let (machine, timers) = world.machine("10.5.0.2").unwrap();
            machine.bootstrap(timers, now).unwrap();
        });
        tokio::time::sleep(Duration::from_secs(30)).await;
        let node = cluster().await.unwrap().unwrap();
        assert_eq!(node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"], "");
        let config = std::fs::read_to_string(sandbox.kubeconfig()).unwrap();
        assert_eq!(fleet.kubeconfig(), Some(config.as_str()));
    });
}

#[tokio::test]
async fn machines_are_reached_by_other_processes_at_their_addresses_of_the_loopback_interface() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Not what another run of this test listens at.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let own = format!("127.{}.{low}.2", 64 + high % 64);
    let text = format!(
        "machines: [{{role: controlplane, maintenance: true, address: {own}}}, {{maintenance: true}}]"
    );
    let (scenario, folder) = (Scenario::parse("scenario", &text).unwrap(), tempfile::tempdir().unwrap());
    let start =
        || Sandbox::start(&scenario, Some(folder.path()), Network::Loopback, Timestamp::now(), &first_files);
    let sandbox = start().await.unwrap();
    assert_eq!(sandbox.maintenance()[1], (own.clone(), format!("{own}:{PORT}").parse().unwrap()));
    assert!(TcpStream::connect((own.as_str(), PORT)).await.is_ok());

    // Whoever joins the sandbox knows where the others are.
    let joined = start().await.unwrap();
    assert!(joined.joined());
    assert_eq!(joined.maintenance(), sandbox.maintenance());
    for (sandbox, address) in [(&sandbox, "10.5.0.3"), (&joined, "10.5.0.3"), (&joined, own.as_str())] {
        let machine = talos(sandbox).insecure(address, None).unwrap().node(address).unwrap();
        let stages = machine.list("runtime", "MachineStatuses.runtime.talos.dev").await.unwrap();
        assert_eq!(stages.len(), 1, "{address}");
    }
}

const TWO: &str = "machines:\n  - {maintenance: true, version: v1.13.9, role: controlplane}\n  \
                   - {maintenance: true, version: v1.13.9, role: controlplane}\n";

/// Something that happens to the fleet between the plan and the moment when it is carried out.
type Happens = fn(&mut World, Timestamp);

fn reboot(world: &mut World, address: &str, now: Timestamp) {
    let (machine, timers) = world.machine(address).unwrap();
    machine.reboot(timers, now);
}

#[test]
fn what_happens_after_the_plan_was_made_is_seen_before_a_machine_gets_its_config() {
    let cases: [(Happens, &str); 4] = [
        (
            |world, _| {
                let machine = world.machine("10.5.0.3").unwrap().0;
                let disk = machine.disks.iter_mut().find(|disk| disk.name == "sda").unwrap();
                (disk.contents, machine.dirty) = (Contents::Whole("xfs".into()), true);
            },
            "10.5.0.3: the approved disk sda",
        ),
        (
            |world, _| {
                let machine = world.machine("10.5.0.3").unwrap().0;
                machine.disks.retain(|disk| disk.name != "sda");
                machine.dirty = true;
            },
            "is not there any more",
        ),
        (|world, now| reboot(world, "10.5.0.3", now), "has another key than before"),
        (
            |world, now| {
                let (machine, timers) = world.machine("10.5.0.3").unwrap();
                let config = "version: v1alpha1\nmachine: {type: worker, ca: {crt: YQ==}, install: {disk: /dev/sda}}\ncluster: {}\n";
                let asked = Apply { config, mode: AppliedMode::Auto, dry_run: false, try_timeout: None };
                machine.apply(&asked, timers, now).unwrap();
            },
            "somebody else gave it a config",
        ),
    ];
    for (happens, word) in cases {
        paused(async {
            let session = Session::start(&Scenario::parse("two.yaml", TWO).unwrap()).await;
            let planned = session.plan_bootstrap().await.unwrap();
            session.fleet.act(happens);
            tokio::time::sleep(Duration::from_secs(30)).await;
            let before = session.fleet.look().machines["10.5.0.3"].active.clone();
            let error = session.carry_out(planned, &Manner::default()).await.unwrap_err();
            assert!(error.what.contains(word) && error.kind == Kind::Refused, "{word}: {error}");
            let after = session.fleet.look().machines["10.5.0.3"].active.clone();
            assert_eq!(before, after, "{word}");
            let calls = session.fleet.calls();
            assert!(
                !calls.iter().any(|call| call.call == "Bootstrap"),
                "{word}: etcd was begun all the same"
            );
        });
    }
}

#[test]
fn etcd_is_never_begun_beside_one_that_is_there() {
    paused(async {
        let session = Session::start(&Scenario::parse("two.yaml", TWO).unwrap()).await;
        let mut first = session.plan_bootstrap().await.unwrap();
        let begin = first.plan.steps.iter().position(|step| step.id == "cluster/etcd").unwrap();
        let mut steps = first.plan.steps.split_off(begin);
        // The run begins where the first one ends.
        let ids: Vec<String> = steps.iter().map(|step| step.id.clone()).collect();
        steps.iter_mut().for_each(|step| step.needs.retain(|id| ids.contains(id)));
        let rest = Plan { steps, ..Plan::default() };
        let rest = Planned::new(rest, first.talos.clone(), Reached::None, Vec::new());
        session.carry_out(first, &Manner::default()).await.unwrap();
        // Somebody else begins it on the other control plane meanwhile.
        session.fleet.act(|world, now| {
            let (machine, timers) = world.machine("10.5.0.3").unwrap();
            machine.bootstrap(timers, now).unwrap();
        });
        // Until it has data, and the one that the plan would ask has not joined yet.
        let has_data = |address: &str| session.fleet.look().machines[address].etcd_data;
        while !has_data("10.5.0.3") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!has_data("10.5.0.2"));
        session.carry_out(rest, &Manner::default()).await.unwrap();
        let calls = session.fleet.calls();
        assert!(!calls.iter().any(|call| call.call == "Bootstrap"), "{calls:?}");
    });
    paused(async {
        let three = format!("{TWO}  - {{maintenance: true, version: v1.13.9, role: controlplane}}\n");
        let mut session = Session::start(&Scenario::parse("three.yaml", &three).unwrap()).await;
        let mut first = session.plan_bootstrap().await.unwrap();
        let begin = first.plan.steps.iter().position(|step| step.id == "cluster/etcd").unwrap();
        first.plan.steps.truncate(begin);
        session.carry_out(first, &Manner::default()).await.unwrap();
        // A file that does not list all control planes of the cluster.
        session.intent.nodes.truncate(2);
        let error = session.bootstrap().await.unwrap_err();
        assert!(error.what.contains("talos-3 (10.5.0.4)") && error.kind == Kind::Refused, "{error}");
    });
}

/// Two control planes, and what goes wrong with the first call to begin etcd; how often, where, and how far apart it is made.
#[test]
fn a_machine_whose_answer_was_lost_is_asked_again_after_a_while_and_no_other_is() {
    for (fault, calls) in [
        ("reset: true", 2),
        ("error: overloaded", 2),
        ("dropAfterActing: true", 1),
        ("delay: 40s", 2),
        ("delay: 20s", 1),
    ] {
        paused(async {
            let text = format!("{TWO}faults: [{{where: 10.5.0.2, call: Bootstrap, times: 1, {fault}}}]\n");
            let session = Session::start(&Scenario::parse("faults.yaml", &text).unwrap()).await;
            session.bootstrap().await.unwrap();
            let made: Vec<_> =
                session.fleet.calls().into_iter().filter(|call| call.call == "Bootstrap").collect();
            assert!(
                made.iter().all(|call| call.place == "10.5.0.2") && made.len() == calls,
                "{fault}: {made:?}"
            );
            let apart = made.last().unwrap().at.duration_since(made[0].at).as_secs();
            assert!(calls == 1 || apart >= 60, "{fault}: {apart}");
            assert!(session.plan_bootstrap().await.unwrap().plan.is_empty(), "{fault}");
        });
    }
}

/// What shows a certificate of its own is a stranger or in maintenance mode: when it does not say which, both are told.
#[test]
fn a_machine_that_goes_away_in_maintenance_mode_is_not_only_called_a_stranger() {
    paused(async {
        let text = format!(
            "{TWO}faults: [{{where: 10.5.0.3, call: Get MachineStatuses.runtime.talos.dev, times: 9, reset: true}}]\n"
        );
        let session = Session::start(&Scenario::parse("faults.yaml", &text).unwrap()).await;
        let error = session.plan_bootstrap().await.unwrap_err();
        let words = ["unknown authority", "; without credentials: node 10.5.0.3: the connection broke"];
        let told = words.iter().all(|words| error.what.contains(words));
        assert!(told && error.kind == Kind::Unavailable, "{error:?}");
    });
}
