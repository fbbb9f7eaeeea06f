//! What the control plane itself does between two requests: kinds are established, namespaces end, claims wait.

use serde_json::{Value, json};

use super::api::Api;
use super::store::Place;

impl Api {
    /// Does everything that is due; true when something was.
    pub fn settle_all(&mut self, now: &str) -> bool {
        let before = self.store.version();
        self.establish_kinds(now);
        self.end_namespaces();
        self.claims_wait(now);
        self.store.version() != before
    }

    fn all(&self, resource: &str) -> Vec<(Place, Value)> {
        self.store.list(resource, "").map(|(place, object)| (place.clone(), object.clone())).collect()
    }

    fn establish_kinds(&mut self, now: &str) {
        for (place, mut crd) in self.all("apiextensions.k8s.io/customresourcedefinitions") {
            if !crd["metadata"]["deletionTimestamp"].is_null() {
                self.end_kind(&place, crd);
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
    fn end_kind(&mut self, place: &Place, mut crd: Value) {
        self.unlearn(&crd);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let resource = format!("{}/{}", text(&crd["spec"]["group"]), text(&crd["spec"]["names"]["plural"]));
        for (object, _) in self.all(&resource) {
            self.store.remove(&object);
        }
        crd["metadata"]["finalizers"] = Value::Null;
        self.store.remove(place);
    }

    fn end_namespaces(&mut self) {
        for (place, namespace) in self.all("/namespaces") {
            if namespace["metadata"]["deletionTimestamp"].is_null() {
                continue;
            }
            let within: Vec<(Place, Value)> = self
                .store
                .in_namespace(&place.name)
                .map(|(place, object)| (place.clone(), object.clone()))
                .collect();
            let held = |object: &Value| {
                object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty())
            };
            for (at, object) in within.iter().filter(|(_, object)| !held(object)) {
                let _ = object;
                self.store.remove(at);
            }
            if self.store.in_namespace(&place.name).next().is_none() {
                self.store.remove(&place);
            }
        }
    }

    /// A claim of a class that waits says so, once.
    fn claims_wait(&mut self, now: &str) {
        for (place, claim) in self.all("/persistentvolumeclaims") {
            let class = claim["spec"]["storageClassName"].as_str().unwrap_or_default();
            let class = Place {
                resource: "storage.k8s.io/storageclasses".into(),
                namespace: String::new(),
                name: class.to_owned(),
            };
            let waits =
                self.store.get(&class).is_some_and(|c| c["volumeBindingMode"] == "WaitForFirstConsumer");
            if waits && claim["status"]["phase"] == "Pending" {
                let message = "waiting for first consumer to be created before binding";
                let about = About { place: &place, object: &claim, component: "persistentvolume-controller" };
                self.event_once(&about, "WaitForFirstConsumer", message, now);
            }
        }
    }

    /// Tells of something that happened to an object, unless that was told already.
    pub fn event_once(&mut self, about: &About<'_>, reason: &str, message: &str, now: &str) {
        let About { place, object, component } = about;
        let uid = &object["metadata"]["uid"];
        let told = self.store.list("/events", &place.namespace).any(|(_, event)| {
            event["involvedObject"]["uid"] == *uid && event["reason"] == reason && event["message"] == message
        });
        if told {
            return;
        }
        let serial = self.store.version();
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": format!("{}.{serial:016x}", place.name)},
            "involvedObject": {
                "apiVersion": object["apiVersion"], "kind": object["kind"], "name": place.name,
                "namespace": place.namespace, "resourceVersion": object["metadata"]["resourceVersion"], "uid": uid,
            },
            "reason": reason, "message": message, "type": "Normal", "count": 1, "eventTime": null,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": component}, "reportingComponent": component, "reportingInstance": "",
        });
        let path = format!("/api/v1/namespaces/{}/events", place.namespace);
        self.make_as("kube-controller-manager", "POST", &path, &event, now);
    }
}

/// What an event is about, and who tells of it.
#[derive(Debug)]
pub struct About<'a> {
    pub place: &'a Place,
    pub object: &'a Value,
    pub component: &'a str,
}
