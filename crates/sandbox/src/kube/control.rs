//! What the control plane itself does between two requests: kinds are established, claims wait.

use serde_json::{Value, json};

use super::api::Api;
use super::store::Place;

/// By this annotation the scheduler tells a claim's provisioner where its pod goes.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

impl Api {
    /// Does everything that is due; true when something was.
    pub fn settle_all(&mut self, now: &str) -> bool {
        let before = self.store.version();
        self.establish_kinds(now);
        self.claims_wait(now);
        self.store.version() != before
    }

    fn all(&self, resource: &str) -> Vec<(Place, Value)> {
        self.store.list(resource, "").map(|(place, object)| (place.clone(), object.clone())).collect()
    }

    fn establish_kinds(&mut self, now: &str) {
        for (place, mut crd) in self.all("apiextensions.k8s.io/customresourcedefinitions") {
            if !crd["metadata"]["deletionTimestamp"].is_null() {
                self.end_kind(&place, &crd);
                continue;
            }
            if !crd["status"]["conditions"].is_null() {
                continue;
            }
            let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now});
            crd["status"]["acceptedNames"] = crd["spec"]["names"].clone();
            crd["status"]["conditions"] = json!([
                condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            ]);
            let path =
                format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}/status", place.name);
            self.make_as("kube-apiserver", "PUT", &path, &crd, now);
        }
    }

    /// A kind goes with all its objects.
    fn end_kind(&mut self, place: &Place, crd: &Value) {
        self.kinds.learn(crd);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let resource = format!("{}/{}", text(&crd["spec"]["group"]), text(&crd["spec"]["names"]["plural"]));
        for (object, _) in self.all(&resource) {
            self.store.remove(&object);
        }
        self.store.remove(place);
    }

    /// A claim of a class that waits says so, once.
    fn claims_wait(&mut self, now: &str) {
        for (_, claim) in self.all("/persistentvolumeclaims") {
            let class = claim["spec"]["storageClassName"].as_str().unwrap_or_default();
            let class = self.store.get(&Place::global("storage.k8s.io/storageclasses", class));
            let waits = class.is_some_and(waits) && selected_node(&claim).is_empty();
            if waits && claim["status"]["phase"] == "Pending" {
                let message = "waiting for first consumer to be created before binding";
                let who = "persistentvolume-controller";
                self.event_once(who, "Normal", &claim, "WaitForFirstConsumer", message, now);
            }
        }
    }

    /// Whether an event said this of the object already.
    pub fn told(&self, about: &Value, reason: &str, message: &str) -> bool {
        self.find_event(about, reason, message).is_some()
    }

    fn find_event(&self, about: &Value, reason: &str, message: &str) -> Option<Value> {
        let like = place_of_events(about);
        let mut events = self.store.named(&like).map(|(_, event)| event);
        let found = events.find(|event| {
            event["involvedObject"]["uid"] == about["metadata"]["uid"]
                && event["reason"] == reason
                && event["message"] == message
        });
        found.cloned()
    }

    /// Tells of something that happened to an object, unless it was told before.
    pub fn event_once(
        &mut self,
        who: &str,
        kind: &str,
        about: &Value,
        reason: &str,
        message: &str,
        now: &str,
    ) {
        if !self.told(about, reason, message) {
            self.event(who, kind, about, reason, message, now);
        }
    }

    /// Tells of something that happened to an object; what was told before is counted. `kind` is Normal or Warning.
    pub fn event(&mut self, who: &str, kind: &str, about: &Value, reason: &str, message: &str, now: &str) {
        let place = place_of_events(about);
        let path = format!("/api/v1/namespaces/{}/events", place.namespace);
        if let Some(told) = self.find_event(about, reason, message) {
            let count = told["count"].as_u64().unwrap_or_default() + 1;
            let path = format!("{path}/{}", told["metadata"]["name"].as_str().unwrap_or_default());
            self.make_as(who, "PATCH", &path, &json!({"count": count, "lastTimestamp": now}), now);
            return;
        }
        let serial = self.store.version();
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": format!("{}{serial:016x}", place.name)},
            "involvedObject": {
                "apiVersion": about["apiVersion"], "kind": about["kind"], "name": about["metadata"]["name"],
                "namespace": about["metadata"]["namespace"], "uid": about["metadata"]["uid"],
                "resourceVersion": about["metadata"]["resourceVersion"],
            },
            "reason": reason, "message": message, "type": kind, "count": 1, "eventTime": null,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": who}, "reportingComponent": who, "reportingInstance": "",
        });
        // The volume controller is a part of the controller manager, in whose name it writes.
        let writer = if who == "persistentvolume-controller" { "kube-controller-manager" } else { who };
        self.make_as(writer, "POST", &path, &event, now);
    }
}

/// Where the events of an object are: in its namespace, and their names begin with its own.
fn place_of_events(about: &Value) -> Place {
    let text = |key: &str| about["metadata"][key].as_str().unwrap_or_default();
    let namespace = if text("namespace").is_empty() { "default" } else { text("namespace") };
    Place { resource: "/events".into(), namespace: namespace.into(), name: format!("{}.", text("name")) }
}

/// Whether claims of a class wait for the node of their first pod.
pub fn waits(class: &Value) -> bool {
    class["volumeBindingMode"] == "WaitForFirstConsumer"
}

/// The node that a claim's pod goes to; empty before that is known.
pub fn selected_node(claim: &Value) -> &str {
    claim["metadata"]["annotations"][SELECTED_NODE].as_str().unwrap_or_default()
}
