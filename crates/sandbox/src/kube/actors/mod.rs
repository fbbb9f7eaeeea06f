//! What runs in the simulated cluster: its controllers, scheduler and kubelets, and the programs in its pods. They have
//! no clock and no sockets either; they read and write objects as every client of the API server does.

mod csi;
mod kubelet;
mod namespaces;
mod objects;
mod programs;
mod provisioner;
#[cfg(test)]
mod scene;
mod scheduler;
mod velero;
mod volumes;
mod workloads;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::api::{Api, Reply};
use super::object::{ending, names, text, time};
use super::store::Place;
use crate::host::Host;
use crate::object_store::ObjectStore;
use crate::timers::Timers;

/// What the actors have to work with.
#[derive(Debug)]
pub struct Stage<'a> {
    pub api: &'a mut Api,
    /// By node name.
    pub hosts: BTreeMap<String, &'a mut Host>,
    pub timers: &'a mut Timers,
    /// Where backups go.
    pub store: &'a mut ObjectStore,
    pub now: Timestamp,
}

/// Lets every actor do once what is due; true when something changed.
pub fn act(stage: &mut Stage<'_>) -> bool {
    let before = stage.api.store.version();
    namespaces::act(stage);
    // Before the controllers: on a busy machine this is late, and a pod that ended meanwhile was not ready all the time.
    kubelet::act(stage);
    workloads::act(stage);
    volumes::act(stage);
    scheduler::act(stage);
    provisioner::act(stage);
    csi::act(stage);
    velero::act(stage);
    stage.api.store.version() != before
}

impl Stage<'_> {
    /// The time as objects carry it.
    pub fn time(&self) -> String {
        time(self.now)
    }

    /// See [`Timers::done`].
    pub fn done(&mut self, key: &str, takes: Duration) -> bool {
        self.timers.done(key, takes, self.now)
    }

    /// The objects of a resource such as `/pods` or `apps/deployments`, in one namespace or (empty) in all.
    pub fn all(&self, resource: &str, namespace: &str) -> Vec<Value> {
        self.api.store.list(resource, namespace).map(|(_, object)| object.clone()).collect()
    }

    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Value> {
        let place = Place { resource: resource.into(), namespace: namespace.into(), name: name.into() };
        self.api.store.get(&place)
    }

    /// A request of an actor; the error is the server's message.
    pub fn ask(&mut self, who: &str, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let now = self.time();
        match self.api.make_as(who, method, path, body, &now) {
            Reply::Json(200..=299, object) => Ok(object),
            Reply::Json(_, status) => Err(status["message"].as_str().unwrap_or_default().to_owned()),
            Reply::Text(_, text) => Err(text),
            Reply::Watch(_) => Err("a watch".to_owned()),
        }
    }

    /// Merges a patch into an object.
    pub fn patch(&mut self, who: &str, path: &str, patch: &Value) -> Result<Value, String> {
        self.ask(who, "PATCH", path, patch)
    }

    /// Tells of something that happened to an object; told again, it is only counted.
    pub fn event(&mut self, who: &str, kind: &str, about: &Value, reason: &str, message: &str) {
        let now = self.time();
        self.api.event(who, kind, about, reason, message, &now);
    }

    /// Tells of it, unless it was told before.
    pub fn event_once(&mut self, who: &str, kind: &str, about: &Value, reason: &str, message: &str) {
        let now = self.time();
        self.api.event_once(who, kind, about, reason, message, &now);
    }
}

/// A reference that makes an object go with its owner.
pub fn owned_by(owner: &Value) -> Value {
    json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    }])
}
