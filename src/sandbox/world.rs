//! The simulated world: machines and the cluster that they make up. A state machine: requests and time go in, answers
//! come out.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::faults::Faults;
use super::kube::actors::{self, Stage};
use super::kube::api::Api;
use super::kube::store::Place;
use super::machine::Machine;
use super::object_store::ObjectStore;
use super::saved::Saved;
use super::scenario::{Role, Scenario};
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
    /// The revision when everything that was due had been done; none when machines were touched since.
    settled: Option<u64>,
}

/// How many changes are kept for watches.
const HISTORY: usize = 10_000;
/// From the configuration to the Node object's label.
const LABEL: Duration = Duration::from_millis(300);
/// One thing leads to the next; more rounds than this would be a fault of the sandbox.
const ROUNDS: usize = 200;
/// Which labels Talos set is kept there, so that it leaves others alone (siderolabs/talos, constants).
const OWNED_LABELS: &str = "talos.dev/owned-labels";

impl World {
    /// A running cluster of the scenario's machines.
    pub fn new(scenario: &Scenario, now: Timestamp) -> Self {
        let mut world = Self {
            api: Api::new(HISTORY),
            machines: BTreeMap::new(),
            timers: Timers::at(scenario.speed),
            faults: Faults(scenario.faults.clone()),
            store: scenario.object_store.clone(),
            settled: None,
        };
        for (index, wanted) in scenario.machines.iter().enumerate() {
            let controlplane = wanted.role == Role::Controlplane;
            let (address, name) = (wanted.address(index), wanted.hostname(index));
            let config = config_of(&name, controlplane);
            let mut machine = Machine::new(
                &address,
                &wanted.version,
                controlplane,
                wanted.disks(index, scenario.seed),
                config,
            );
            machine.container = wanted.container;
            machine.names_swap = wanted.names_swap;
            machine.host.name = name;
            machine.host.hidden = wanted.hidden.iter().cloned().collect();
            world.register(&machine, wanted.taint.as_deref(), now);
            world.machines.insert(address, machine);
        }
        world.settle(now);
        world
    }

    fn register(&mut self, machine: &Machine, taint: Option<&str>, now: Timestamp) {
        let name = &machine.host.name;
        let mut labels = json!({
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "amd64",
        });
        let wanted = &machine.wanted_labels;
        let owned: Vec<&String> = wanted.keys().collect();
        for (key, value) in wanted {
            labels[key] = json!(value);
        }
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": labels, "annotations": {OWNED_LABELS: json!(owned).to_string()}},
            "spec": {"taints": taint.map(|text| json!([taint_of(text)]))},
        });
        let now = time(now);
        self.api.make_as("kubelet", "POST", "/api/v1/nodes", &node, &now);
        let condition = |kind: &str, status: &str, reason: &str, message: &str| {
            json!({"type": kind, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": now, "lastTransitionTime": now})
        };
        let status = json!({"status": {
            "addresses": [
                {"type": "InternalIP", "address": machine.address}, {"type": "Hostname", "address": name},
            ],
            "capacity": {"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "200Gi"},
            "allocatable": {"cpu": "8", "memory": "31Gi", "pods": "110", "ephemeral-storage": "190Gi"},
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ],
            "nodeInfo": {
                "architecture": "amd64", "operatingSystem": "linux", "kernelVersion": "simulated",
                "osImage": format!("Talos ({}) {SIMULATED}", machine.version), "kubeletVersion": "v1.34.4",
                "containerRuntimeVersion": "containerd://simulated", "machineID": name, "systemUUID": name,
                "bootID": name, "kubeProxyVersion": "",
            },
        }});
        let path = format!("/api/v1/nodes/{name}/status");
        self.api.make_as("kubelet", "PATCH", &path, &status, &now);
    }

    /// Does everything that is due, and what follows from it.
    pub fn settle(&mut self, now: Timestamp) {
        let due = self.timers.next().is_some_and(|next| next <= now);
        if self.settled == Some(self.revision()) && !due {
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
        self.settled = Some(self.revision());
    }

    /// A machine to change; the next [`settle`](Self::settle) sees what follows.
    pub fn machine(&mut self, address: &str) -> Option<(&mut Machine, &mut Timers)> {
        self.settled = None;
        Some((self.machines.get_mut(address)?, &mut self.timers))
    }

    fn step(&mut self, now: Timestamp) {
        let text = time(now);
        while self.api.settle_all(&text) {}
        for machine in self.machines.values_mut() {
            machine.settle(&mut self.timers, now);
        }
        self.tell(now);
        let hosts = self.machines.values_mut().map(|machine| (machine.host.name.clone(), &mut machine.host));
        let mut stage = Stage {
            api: &mut self.api,
            hosts: hosts.collect(),
            timers: &mut self.timers,
            store: &self.store,
            now,
        };
        actors::act(&mut stage);
    }

    /// Machines learn of their Node objects, and label them.
    fn tell(&mut self, now: Timestamp) {
        let names: Vec<(String, String)> =
            self.machines.values().map(|m| (m.address.clone(), m.host.name.clone())).collect();
        for (address, name) in names {
            self.label(&address, &name, now);
            let node = self.api.store.get(&Place::global("/nodes", &name));
            let node = node.map(|node| {
                let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
                let ready = conditions.any(|c| c["type"] == "Ready" && c["status"] == "True");
                json!({
                    "nodename": name, "nodeReady": ready, "unschedulable": node["spec"]["unschedulable"] == true,
                    "labels": node["metadata"]["labels"], "annotations": node["metadata"]["annotations"],
                })
            });
            if let Some(machine) = self.machines.get_mut(&address)
                && machine.node != node
            {
                machine.node = node;
                machine.dirty = true;
                machine.settle(&mut self.timers, now);
            }
        }
    }

    /// The machines of the cluster, as discovery knows them: specs by name.
    pub fn members(&self) -> BTreeMap<String, Value> {
        self.machines.values().map(member).collect()
    }

    /// Sets the labels that the configuration asks for, and takes away those that it asked for before. A label that
    /// somebody else set is left alone.
    fn label(&mut self, address: &str, name: &str, now: Timestamp) {
        let Some(machine) = self.machines.get(address).filter(|machine| !machine.rebooting) else { return };
        let wanted = &machine.wanted_labels;
        let Some(node) = self.api.store.get(&Place::global("/nodes", name)) else { return };
        let owned = node["metadata"]["annotations"][OWNED_LABELS].as_str().unwrap_or("[]");
        let owned: Vec<String> = serde_json::from_str(owned).unwrap_or_default();
        let there = &node["metadata"]["labels"];
        let ours = |key: &String| there[key].is_null() || owned.contains(key);
        let mut labels = json!({});
        for (key, value) in wanted.iter().filter(|(key, value)| ours(key) && there[*key] != json!(value)) {
            labels[key] = json!(value);
        }
        for key in owned.iter().filter(|key| !wanted.contains_key(*key) && !there[*key].is_null()) {
            labels[key] = Value::Null;
        }
        if labels.as_object().is_some_and(serde_json::Map::is_empty)
            || !self.timers.done(&format!("machine/{address}/labels"), LABEL, now)
        {
            return;
        }
        let keys: Vec<&String> = wanted.keys().filter(|key| ours(key)).collect();
        let annotations = json!({OWNED_LABELS: json!(keys).to_string()});
        let patch = json!({"metadata": {"labels": labels, "annotations": annotations}});
        self.api.make_as("talos", "PATCH", &format!("/api/v1/nodes/{name}"), &patch, &time(now));
    }

    pub(super) fn keep(&self) -> Saved {
        Saved {
            api: self.api.keep(),
            machines: self.machines.values().cloned().collect(),
            timers: self.timers.clone(),
            faults: self.faults.clone(),
            store: self.store.clone(),
        }
    }

    pub(super) fn restore(saved: Saved) -> Self {
        let machines = saved.machines.into_iter().map(|machine| (machine.address.clone(), machine));
        Self {
            api: Api::restore(saved.api, HISTORY),
            machines: machines.collect(),
            timers: saved.timers,
            faults: saved.faults,
            store: saved.store,
            settled: None,
        }
    }

    /// Counts up with every change that somebody may wait for.
    pub fn revision(&self) -> u64 {
        let machines: u64 = self.machines.values().map(|machine| machine.published.revision).sum();
        self.api.store.version() + machines
    }

    /// When the next thing is due.
    pub fn next(&self) -> Option<Timestamp> {
        self.timers.next()
    }
}

/// Whatever is not real says so with this word.
pub const SIMULATED: &str = "simulated";

/// As objects carry times.
pub fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn member(machine: &Machine) -> (String, Value) {
    let kind = if machine.controlplane { "controlplane" } else { "worker" };
    let spec = json!({
        "nodeId": format!("{SIMULATED}-{}", machine.host.name), "addresses": [machine.address], "hostname": machine.host.name,
        "machineType": kind, "operatingSystem": format!("Talos ({})", machine.version),
    });
    (machine.host.name.clone(), spec)
}

/// `key=value:Effect` or `key:Effect`.
fn taint_of(text: &str) -> Value {
    let (key, effect) = text.split_once(':').unwrap_or((text, "NoSchedule"));
    let (key, value) = key.split_once('=').unwrap_or((key, ""));
    json!({"key": key, "value": value, "effect": effect})
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
