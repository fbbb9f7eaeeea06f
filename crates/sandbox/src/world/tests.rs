#![expect(clippy::unwrap_used)]

use super::*;
use crate::machine::{Apply, Mode};

const MACHINES: &str =
    "machines: [{role: controlplane}, {maintenance: true, taint: a=b:NoSchedule}, {off: true}]";
const CONFIG: &str = "version: v1alpha1\nmachine:\n  type: worker\n  ca: {crt: c2lt}\n  install: {disk: /dev/sda}\n  \
                      nodeLabels: {rack: one}\n  network: {hostname: new}\ncluster: {}\n";

fn world(scenario: &str) -> World {
    World::new(&Scenario::parse("scenario", scenario).unwrap(), Timestamp::UNIX_EPOCH)
}

/// Lets the time between these seconds pass.
fn run(world: &mut World, begin: i64, end: i64) {
    let [begin, end] = [begin, end].map(|second| Timestamp::from_second(second).unwrap());
    world.settle(begin);
    while let Some(next) = world.next().filter(|next| *next <= end) {
        world.settle(next);
    }
    world.settle(end);
}

fn ready(world: &World, name: &str) -> Option<bool> {
    world.api.store.get(&Place::global("/nodes", name)).map(|node| holds(node, "Ready"))
}

#[test]
fn a_new_machine_becomes_a_member_by_its_first_configuration() {
    let mut world = world(MACHINES);
    let names = |world: &World| world.members().into_keys().collect::<Vec<_>>();
    assert_eq!((names(&world), ready(&world, "talos-2")), (vec!["talos-1".into(), "talos-3".into()], None));
    let asked = Apply { config: CONFIG, mode: Mode::Auto, dry_run: false, try_timeout: None };
    let (machine, timers) = world.machine("10.5.0.3").unwrap();
    machine.apply(&asked, timers, Timestamp::UNIX_EPOCH).unwrap();
    run(&mut world, 0, 10);
    assert_eq!(ready(&world, "new"), None);
    run(&mut world, 10, 60);
    assert_eq!((names(&world).join(" "), ready(&world, "new")), ("new talos-1 talos-3".into(), Some(true)));
    let node = world.api.store.get(&Place::global("/nodes", "new")).unwrap();
    assert_eq!(node["metadata"]["labels"]["rack"], "one");
    assert_eq!(node["spec"]["taints"], json!([{"key": "a", "value": "b", "effect": "NoSchedule"}]));
    assert_eq!(world.machines["10.5.0.3"].node.as_ref().unwrap()["nodeReady"], true);
}

#[test]
fn a_machine_that_is_off_stays_off_and_its_node_is_not_ready() {
    let mut world = world(MACHINES);
    run(&mut world, 0, 3600);
    assert!(world.machines["10.5.0.4"].rebooting);
    assert_eq!((ready(&world, "talos-1"), ready(&world, "talos-3")), (Some(true), Some(false)));
}

#[test]
fn what_somebody_takes_away_is_set_again_and_what_is_deleted_comes_back_with_a_reboot() {
    let mut world = world("machines: [{role: controlplane}]");
    run(&mut world, 0, 10);
    let label = |world: &World| {
        let node = world.api.store.get(&Place::global("/nodes", "talos-1"));
        node.map(|node| node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"].clone())
    };
    let patch = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": null}}});
    world.api.make_as("x", "PATCH", "/api/v1/nodes/talos-1", &patch, "1970-01-01T00:00:10Z");
    assert_eq!(label(&world), Some(Value::Null));
    run(&mut world, 10, 20);
    assert_eq!(label(&world), Some(json!("")));
    world.api.make_as("x", "DELETE", "/api/v1/nodes/talos-1", &Value::Null, "1970-01-01T00:00:20Z");
    run(&mut world, 20, 30);
    assert_eq!((label(&world), world.machines["10.5.0.2"].node.clone()), (None, None));
    let (machine, timers) = world.machine("10.5.0.2").unwrap();
    machine.reboot(timers, Timestamp::from_second(30).unwrap());
    run(&mut world, 30, 60);
    assert_eq!((label(&world), ready(&world, "talos-1")), (Some(json!("")), Some(true)));
}

const BARE: &str = "machines: [{role: controlplane, maintenance: true}, {role: controlplane, maintenance: true}, \
                    {maintenance: true}]";

/// Gives a machine its first configuration at this second.
fn configure(world: &mut World, address: &str, kind: &str, second: i64) {
    let config = CONFIG.replace("worker", kind).replace("  network: {hostname: new}\n", "");
    let asked = Apply { config: &config, mode: Mode::Auto, dry_run: false, try_timeout: None };
    let (machine, timers) = world.machine(address).unwrap();
    machine.apply(&asked, timers, Timestamp::from_second(second).unwrap()).unwrap();
}

fn bootstrap(world: &mut World, address: &str, second: i64) {
    let (machine, timers) = world.machine(address).unwrap();
    machine.bootstrap(timers, Timestamp::from_second(second).unwrap()).unwrap();
}

#[test]
fn a_cluster_begins_with_the_bootstrap_of_one_control_plane_and_the_others_join() {
    let mut world = world(BARE);
    assert!(!world.has_api());
    configure(&mut world, "10.5.0.2", "controlplane", 0);
    configure(&mut world, "10.5.0.4", "worker", 0);
    run(&mut world, 0, 3600);
    let first = &world.machines["10.5.0.2"];
    assert!(first.active.is_some() && !first.runs("etcd") && !first.etcd_data && !world.has_api());
    assert_eq!((ready(&world, "talos-1"), ready(&world, "talos-3")), (None, None));
    bootstrap(&mut world, "10.5.0.2", 3600);
    run(&mut world, 3600, 3601);
    assert!(world.machines["10.5.0.2"].runs("etcd") && world.has_api());
    assert_eq!((ready(&world, "talos-1"), ready(&world, "talos-3")), (Some(false), Some(false)));
    run(&mut world, 3601, 3610);
    assert_eq!((ready(&world, "talos-1"), ready(&world, "talos-3")), (Some(true), Some(true)));
    assert_eq!(world.machines["10.5.0.2"].node.as_ref().unwrap()["nodeReady"], true);
    let node = world.api.store.get(&Place::global("/nodes", "talos-3")).unwrap();
    assert_eq!(node["metadata"]["labels"]["rack"], "one");
    configure(&mut world, "10.5.0.3", "controlplane", 3610);
    run(&mut world, 3610, 3640);
    assert!(world.machines["10.5.0.3"].runs("etcd") && world.machines["10.5.0.3"].etcd_data);
    assert_eq!(ready(&world, "talos-2"), Some(true));
}

#[test]
fn a_control_plane_joins_no_etcd_that_is_down() {
    let mut world = world(&BARE.replace("plane, maintenance: true}, {r", "plane}, {r"));
    let (machine, timers) = world.machine("10.5.0.2").unwrap();
    machine.reboot(timers, Timestamp::UNIX_EPOCH);
    machine.switch_off();
    configure(&mut world, "10.5.0.3", "controlplane", 0);
    run(&mut world, 0, 3600);
    let waits = &world.machines["10.5.0.3"];
    assert!(waits.active.is_some() && !waits.etcd_data && world.has_api());
}

#[test]
fn a_cluster_without_etcd_is_one_whose_control_planes_all_wait_for_it() {
    for (machines, has_api) in [
        ("{role: controlplane}, {maintenance: true}", true),
        ("{role: controlplane}, {role: controlplane, maintenance: true}", true),
        ("{role: controlplane, etcd: stopped}", true),
        ("{role: controlplane, off: true}", true),
        ("{container: true}, {}", true),
        ("{maintenance: true}", true),
        ("{role: controlplane, maintenance: true}, {maintenance: true}", false),
        ("{role: controlplane, maintenance: true}, {}", false),
    ] {
        let mut world = world(&format!("machines: [{machines}]"));
        run(&mut world, 0, 60);
        assert_eq!(world.has_api(), has_api, "{machines}");
    }
    // What is configured already comes to the cluster when there is one.
    let mut world = world("machines: [{role: controlplane, maintenance: true}, {}]");
    configure(&mut world, "10.5.0.2", "controlplane", 0);
    run(&mut world, 0, 60);
    assert_eq!(ready(&world, "talos-2"), None);
    bootstrap(&mut world, "10.5.0.2", 60);
    run(&mut world, 60, 120);
    assert_eq!((ready(&world, "talos-1"), ready(&world, "talos-2")), (Some(true), Some(true)));
}
