//! The simulated world: machines and the cluster that they make up. A state machine: requests and time go in, answers
//! come out.

mod node;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::faults::Faults;
use super::kube::actors::{self, Stage};
use super::kube::api::Api;
use super::kube::object::{holds, text, time};
use super::kube::store::Place;
use super::machine::Machine;
use super::object_store::ObjectStore;
use super::saved::Saved;
use super::scenario::{Role, Scenario, fingerprint};
use super::timers::Timers;

/// What is served.
#[derive(Debug, Clone)]
pub struct World {
    pub api: Api,
    /// By address.
    pub machines: BTreeMap<String, Machine>,
    pub timers: Timers,
    pub faults: Faults,
    pub store: ObjectStore,
    /// For how many days the clients' certificates are good, from when the sandbox starts; those of before are not.
    pub certificate_days: i32,
    /// The store's version when everything that was due had been done; none when machines were touched since.
    settled: Option<u64>,
    /// The addresses of machines that are about to do something, or were touched.
    restless: BTreeSet<String>,
    /// The addresses of machines whose Node object, or what is published of it, may have to be told.
    untold: BTreeSet<String>,
    /// The store's version up to which the machines know of their Node objects.
    heard: u64,
    /// The store's version before the actors acted last.
    acted: Option<u64>,
    /// The sum of what the machines published.
    published: u64,
}

/// How many changes are kept for watches.
const HISTORY: usize = 10_000;
/// One thing leads to the next; more rounds than this would be a fault of the sandbox.
const ROUNDS: usize = 200;

impl World {
    /// A running cluster of the scenario's machines.
    pub fn new(scenario: &Scenario, now: Timestamp) -> Self {
        let mut world = Self {
            api: Api::new(HISTORY).denying(&scenario.denied),
            machines: BTreeMap::new(),
            timers: Timers::at(scenario.speed),
            faults: Faults(scenario.faults.clone()),
            store: scenario.object_store.clone(),
            certificate_days: scenario.certificate_days,
            ..Self::restless(BTreeMap::new(), Api::new(HISTORY))
        };
        let seed = fingerprint(&now.to_string());
        for (index, wanted) in scenario.machines.iter().enumerate() {
            let controlplane = wanted.role == Role::Controlplane;
            let (address, name) = (wanted.address(index), wanted.hostname(index));
            let config = (!wanted.maintenance).then(|| config_of(&name, controlplane));
            let disks = wanted.disks(index, scenario.seed);
            let mut machine = Machine::new(&address, &wanted.version, controlplane, disks, config);
            machine.seed = seed;
            machine.names_swap = wanted.names_swap;
            machine.taint.clone_from(&wanted.taint);
            machine.extensions.clone_from(&wanted.extensions);
            machine.clock = wanted.clock;
            machine.etcd = wanted.etcd;
            machine.host.name = name;
            machine.host.hidden = wanted.hidden.iter().cloned().collect();
            if wanted.off {
                machine.switch_off();
            }
            world.restless.insert(address.clone());
            world.machines.insert(address, machine);
        }
        let has_api = world.has_api();
        for address in scenario.machines.iter().zip(0..).map(|(wanted, index)| wanted.address(index)) {
            match world.machines.get_mut(&address).filter(|machine| machine.active.is_some()) {
                Some(machine) if has_api => node::register(&mut world.api, machine, true, now),
                Some(machine) => machine.registers = true,
                None => {}
            }
        }
        world.settle(now);
        world
    }

    /// Whether there is an API server: not before a control plane's etcd has data. A fleet without any control plane has
    /// one all the same.
    pub fn has_api(&self) -> bool {
        let mut controlplanes = self.machines.values().filter(|machine| machine.controlplane).peekable();
        controlplanes.peek().is_none() || controlplanes.any(|machine| machine.etcd_data)
    }

    /// Machines and a cluster in which everything is still to be looked at.
    fn restless(machines: BTreeMap<String, Machine>, api: Api) -> Self {
        Self {
            restless: machines.keys().cloned().collect(),
            published: machines.values().map(|machine| machine.published.revision).sum(),
            machines,
            api,
            timers: Timers::default(),
            faults: Faults::default(),
            store: ObjectStore::default(),
            certificate_days: 0,
            settled: None,
            untold: BTreeSet::new(),
            heard: 0,
            acted: None,
        }
    }

    /// Does everything that is due, and what follows from it.
    pub fn settle(&mut self, now: Timestamp) {
        let due = self.timers.next().is_some_and(|next| next <= now);
        if self.settled == Some(self.api.store.version()) && !due {
            return;
        }
        for _ in 0..ROUNDS {
            let before = self.revision();
            self.step(now);
            if self.revision() == before {
                if self.timers.next().is_none_or(|next| next > now) {
                    break;
                }
                self.timers.forget_due(now);
            }
        }
        self.settled = Some(self.api.store.version());
    }

    /// A machine to change; the next [`settle`](Self::settle) sees what follows.
    pub fn machine(&mut self, address: &str) -> Option<(&mut Machine, &mut Timers)> {
        self.settled = None;
        self.restless.insert(address.to_owned());
        Some((self.machines.get_mut(address)?, &mut self.timers))
    }

    fn step(&mut self, now: Timestamp) {
        let text = time(now);
        while self.api.settle_all(&text) {}
        let due = self.timers.due(now, |key| !key.starts_with("machine/"));
        let moved = self.settle_machines(now);
        // Nobody acts, and no machine is told of, before there is somebody to tell.
        if !self.has_api() {
            return;
        }
        self.tell(now);
        let version = self.api.store.version();
        if !due && !moved && self.acted == Some(version) {
            return;
        }
        self.acted = Some(version);
        let members = self.machines.values_mut().filter(|machine| machine.active.is_some());
        let hosts = members.map(|machine| (machine.host.name.clone(), &mut machine.host));
        let mut stage = Stage {
            api: &mut self.api,
            hosts: hosts.collect(),
            timers: &mut self.timers,
            store: &mut self.store,
            now,
        };
        actors::act(&mut stage);
    }

    /// Lets machines that are about to do something do it; whether one looks otherwise to what runs on it.
    fn settle_machines(&mut self, now: Timestamp) -> bool {
        let mut moved = false;
        let has_etcd = self.machines.values().any(Machine::takes_members);
        for address in std::mem::take(&mut self.restless) {
            let Some(machine) = self.machines.get_mut(&address) else { continue };
            if has_etcd {
                machine.join_etcd(&mut self.timers, now);
            }
            self.published += news(machine, &mut self.timers, now);
            if machine.host != machine.host_seen {
                machine.host_seen = machine.host.clone();
                moved = true;
            }
            if !machine.rests() {
                self.restless.insert(address.clone());
            }
            self.untold.insert(address);
        }
        moved
    }

    /// Whose Node object changed hears of it.
    fn hear(&mut self) {
        let version = self.api.store.version();
        if version == self.heard {
            return;
        }
        let of = |name: &str| self.machines.values().find(|machine| machine.host.name == name);
        match self.api.store.since(self.heard) {
            Ok(changes) => {
                let nodes = changes.filter(|change| change.place.resource == "/nodes");
                let found = nodes.filter_map(|change| Some(of(&change.place.name)?.address.clone()));
                self.untold.extend(found);
            }
            Err(_) => self.untold.extend(self.machines.keys().cloned()),
        }
        self.heard = version;
    }

    /// Machines register their Node objects, label them and learn of them.
    fn tell(&mut self, now: Timestamp) {
        self.hear();
        let (api, timers) = (&mut self.api, &mut self.timers);
        for address in std::mem::take(&mut self.untold) {
            let Some(machine) = self.machines.get_mut(&address) else { continue };
            if machine.registers && !machine.rebooting {
                node::register(api, machine, false, now);
                machine.registers = false;
            }
            let place = Place::global("/nodes", &machine.host.name);
            let version = |api: &Api| {
                let node = api.store.get(&place);
                node.map_or_else(String::new, |node| text(node, "/metadata/resourceVersion").to_owned())
            };
            let accord = (version(api), machine.published.revision);
            if machine.accord == accord {
                continue;
            }
            // Until both are in accord it is told again.
            self.untold.insert(address.clone());
            if node::label(api, machine, timers, now) {
                machine.accord = accord;
            }
            let node = api.store.get(&place).map(|node| {
                json!({
                    "nodename": machine.host.name, "nodeReady": holds(node, "Ready"),
                    "unschedulable": node["spec"]["unschedulable"] == true,
                    "labels": node["metadata"]["labels"], "annotations": node["metadata"]["annotations"],
                })
            });
            if machine.node != node {
                machine.node = node;
                machine.dirty = true;
                self.published += news(machine, timers, now);
                if !machine.rests() {
                    self.restless.insert(address);
                }
            }
        }
    }

    /// The machines of the cluster, as discovery knows them: specs by name.
    pub fn members(&self) -> BTreeMap<String, Value> {
        self.machines.values().filter(|machine| machine.active.is_some()).map(member).collect()
    }

    pub(super) fn keep(&self) -> Saved {
        Saved {
            api: self.api.keep(),
            machines: self.machines.values().cloned().collect(),
            timers: self.timers.clone(),
            faults: self.faults.clone(),
            store: self.store.clone(),
            certificate_days: self.certificate_days,
            configs: None,
        }
    }

    pub(super) fn restore(saved: Saved) -> Self {
        let machines = saved.machines.into_iter().map(|machine| (machine.address.clone(), machine));
        Self {
            timers: saved.timers,
            faults: saved.faults,
            store: saved.store,
            certificate_days: saved.certificate_days,
            ..Self::restless(machines.collect(), Api::restore(saved.api, HISTORY))
        }
    }

    /// Counts up with every change that somebody may wait for.
    pub fn revision(&self) -> u64 {
        self.api.store.version() + self.published
    }

    /// When the next thing is due.
    pub fn next(&self) -> Option<Timestamp> {
        self.timers.next()
    }
}

/// Lets a machine do what it is about to do; how much it published by it.
fn news(machine: &mut Machine, timers: &mut Timers, now: Timestamp) -> u64 {
    let before = machine.published.revision;
    machine.settle(timers, now);
    machine.published.revision - before
}

/// Whatever is not real says so with this word.
pub const SIMULATED: &str = "simulated";

fn member(machine: &Machine) -> (String, Value) {
    let kind = if machine.controlplane { "controlplane" } else { "worker" };
    let spec = json!({
        "nodeId": format!("{SIMULATED}-{}", machine.host.name), "addresses": [machine.address], "hostname": machine.host.name,
        "machineType": kind, "operatingSystem": format!("Talos ({})", machine.version),
    });
    (machine.host.name.clone(), spec)
}

/// The configuration of a machine that is up. It has comments and a secret, as a real one has.
fn config_of(name: &str, controlplane: bool) -> String {
    let kind = if controlplane { "controlplane" } else { "worker" };
    format!(
        "version: v1alpha1 # the schema's version\ndebug: false\npersist: true\nmachine:\n    type: {kind}\n    \
         token: sim000.0123456789abcdef # not a real one\n    network:\n        hostname: {name}\n    \
         # Nothing is installed: this machine is simulated.\n    install:\n        disk: /dev/sda\n        wipe: false\n\
         cluster:\n    id: c2ltdWxhdGVk\n    secret: c2VjcmV0IG9mIG5vdGhpbmc=\n    controlPlane:\n        \
         endpoint: https://127.0.0.1:6443\n    clusterName: sandbox\n"
    )
}
