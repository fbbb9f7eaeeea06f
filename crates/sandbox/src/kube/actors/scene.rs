//! A small cluster for the tests of the actors: its API server, its machines and its clock.

#![expect(clippy::unwrap_used)]

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Stage, act, objects, text};
use crate::host::{FileSystem, Host};
use crate::kube::api::{Api, Reply};
use crate::kube::store::Place;
use crate::object_store::ObjectStore;
use crate::timers::Timers;

/// Where the machines mount the disk for volumes.
pub(super) const BASE: &str = "/var/mnt/openebs";

/// One of those that act, such as the scheduler.
pub(super) type Actor = fn(&mut Stage<'_>);

pub(super) struct Scene {
    pub(super) api: Api,
    pub(super) hosts: BTreeMap<String, Host>,
    pub(super) timers: Timers,
    pub(super) store: ObjectStore,
    pub(super) now: Timestamp,
}

impl Scene {
    /// Machines of these names, each with a disk for volumes and a Node object that is Ready.
    pub(super) fn new(names: &[&str]) -> Self {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let (api, timers, store) = (Api::default(), Timers::default(), ObjectStore::default());
        let mut scene = Self { api, hosts: BTreeMap::new(), timers, store, now };
        for name in names {
            scene.hosts.insert((*name).to_owned(), machine(name));
            scene.apply(node(name));
        }
        scene
    }

    /// Makes an object and returns it as it is kept.
    pub(super) fn apply(&mut self, object: Value) -> Value {
        let title = format!("{} {}", object["kind"], object["metadata"]["name"]);
        self.try_apply(object).unwrap_or_else(|refusal| panic!("{title}: {refusal}"))
    }

    pub(super) fn try_apply(&mut self, object: Value) -> Result<Value, String> {
        let path = collection(&object);
        self.ask("POST", &path, &object)
    }

    /// A request of the test itself.
    pub(super) fn ask(&mut self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        self.stage(|stage| stage.ask("test", method, path, body))
    }

    pub(super) fn patch(&mut self, path: &str, patch: &Value) -> Value {
        self.ask("PATCH", path, patch).unwrap_or_else(|refusal| panic!("{path}: {refusal}"))
    }

    /// Deletes an object, or all of a collection.
    pub(super) fn delete(&mut self, path: &str) {
        self.ask("DELETE", path, &Value::Null).unwrap_or_else(|refusal| panic!("{path}: {refusal}"));
    }

    /// Does something with what the actors see.
    pub(super) fn stage<T>(&mut self, what: impl FnOnce(&mut Stage<'_>) -> T) -> T {
        let hosts = self.hosts.iter_mut().map(|(name, host)| (name.clone(), host)).collect();
        let (api, timers, store) = (&mut self.api, &mut self.timers, &mut self.store);
        what(&mut Stage { api, hosts, timers, store, now: self.now })
    }

    /// Lets everything happen that happens within so many seconds.
    pub(super) fn run(&mut self, seconds: i64) {
        let end = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        loop {
            self.rest();
            self.timers.forget_due(self.now);
            match self.timers.next().filter(|next| *next <= end) {
                Some(next) => self.now = next,
                None => break,
            }
        }
        self.now = end;
    }

    /// Lets everything happen that happens now; what never comes to rest, fails.
    fn rest(&mut self) {
        for _ in 0..1000 {
            let now = self.stage(|stage| stage.time());
            let settled = self.api.settle_all(&now);
            let acted = self.stage(act);
            if !settled && !acted {
                return;
            }
        }
        panic!("the actors never come to rest");
    }

    /// Lets only these act until nothing changes any more; it fails when that takes them more than ten rounds each.
    pub(super) fn settle(&mut self, actors: &[Actor]) {
        for _ in 0..10 * actors.len() {
            let before = self.api.store.version();
            self.stage(|stage| actors.iter().for_each(|act| act(stage)));
            if self.api.store.version() == before {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Lets so many seconds pass at once, and these act then.
    pub(super) fn pass(&mut self, seconds: i64, actors: &[Actor]) {
        self.now += SignedDuration::from_secs(seconds);
        self.settle(actors);
    }

    /// An object of a resource such as `/pods` or `apps/deployments`; the namespace is empty for those of the cluster.
    pub(super) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let place = Place { resource: resource.into(), namespace: namespace.into(), name: name.into() };
        self.api.store.get(&place).cloned()
    }

    /// The objects of a resource, in one namespace or (empty) in all.
    pub(super) fn all(&self, resource: &str, namespace: &str) -> Vec<Value> {
        self.api.store.list(resource, namespace).map(|(_, object)| object.clone()).collect()
    }

    /// The names of a resource's objects.
    pub(super) fn names(&self, resource: &str, namespace: &str) -> Vec<String> {
        self.api.store.list(resource, namespace).map(|(place, _)| place.name.clone()).collect()
    }

    /// What was told in a namespace, as `Reason: message`, in the order of its telling.
    pub(super) fn events(&self, namespace: &str) -> Vec<String> {
        let mut events = self.all("/events", namespace);
        let serial =
            |event: &Value| text(event, "/metadata/name").rsplit('.').next().unwrap_or_default().to_owned();
        events.sort_by_key(serial);
        events
            .iter()
            .map(|event| format!("{}: {}", text(event, "/reason"), text(event, "/message")))
            .collect()
    }

    /// The log of a pod.
    pub(super) fn log(&mut self, namespace: &str, pod: &str) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log");
        match self.api.make_as("test", "GET", &path, &Value::Null, "2026-01-01T00:00:00Z") {
            Reply::Text(200, log) => log,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn host(&mut self, name: &str) -> &mut Host {
        self.hosts.get_mut(name).unwrap()
    }
}

/// A machine with its system disk, and a disk for volumes.
fn machine(name: &str) -> Host {
    const GB: u64 = 1_000_000_000;
    let disk = |source: &str, size: u64| FileSystem {
        source: source.into(),
        kind: "xfs".into(),
        options: ["rw", "nosuid", "nodev", "relatime"].map(str::to_owned).into(),
        size,
        ..FileSystem::default()
    };
    Host {
        name: name.to_owned(),
        mounts: [("/var", disk("/dev/sda4", 100 * GB)), (BASE, disk("/dev/nvme0n1p1", 1000 * GB))]
            .map(|(point, disk)| (point.to_owned(), disk))
            .into(),
        ..Host::default()
    }
}

fn node(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", "kubernetes.io/hostname": name,
            "openebs.io/storage-node": "true",
        }},
        "status": {
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
            "nodeInfo": {
                "architecture": "amd64", "operatingSystem": "linux", "osImage": "Talos (v1.13.0)",
                "kubeletVersion": "v1.34.0", "containerRuntimeVersion": "containerd://2.1.4",
                "kernelVersion": "6.12.0-talos", "kubeProxyVersion": "", "bootID": "", "machineID": "", "systemUUID": "",
            },
        },
    })
}

/// The path by which an object is made.
fn collection(object: &Value) -> String {
    const OF_THE_CLUSTER: [&str; 7] = [
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "Namespace",
        "Node",
        "PersistentVolume",
        "StorageClass",
    ];
    let kind = text(object, "/kind");
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    let namespace = if OF_THE_CLUSTER.contains(&kind) { "" } else { namespace };
    objects::collection(text(object, "/apiVersion"), kind, namespace)
}
