//! The verbs that change something.

use serde_json::{Value, json};

use super::api::{Reply, held};
use super::budget;
use super::call::Call;
use super::fields::written;
use super::manage;
use super::merge;
use super::object::FOREGROUND;
use super::patch;
use super::psa;
use super::route::Target;
use super::rules;
use super::status::{self, MODIFIED, Refusal, Subject};
use super::store::Place;

impl Call<'_> {
    pub(super) fn create(&mut self) -> Result<Reply, Refusal> {
        let mut object = self.known(self.body()?)?;
        if self.served.kind == "SelfSubjectAccessReview" {
            let asked = &object["spec"]["resourceAttributes"];
            let text = |key: &str| asked[key].as_str().unwrap_or_default();
            let slash = if text("subresource").is_empty() { "" } else { "/" };
            let resource = format!("{}{slash}{}", text("resource"), text("subresource"));
            let allowed = !self.api.denies(text("verb"), text("group"), &resource);
            object["status"] = json!({"allowed": allowed});
            object["metadata"] = json!({});
            let object = manage::update(None, &object, &self.served.of, &self.writer(false), self.now);
            return Ok(Reply::Json(201, object));
        }
        if let (Value::Null, Some(prefix)) =
            (&object["metadata"]["name"], object["metadata"]["generateName"].as_str())
        {
            let name = format!("{prefix}{:05x}", self.api.ids + 1);
            object["metadata"]["name"] = json!(name);
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if self.api.store.get(&self.place(&name)).is_some() {
            return Err(status::already_exists(&self.named(&name)));
        }
        let writer = self.writer(false);
        let mut object = self.born(object)?;
        object = manage::update(None, &object, &self.served.of, &writer, self.now);
        rules::begin(&self.served.kind, &mut object);
        self.keep(201, object)
    }

    /// What every new object gets, once it is sure that it may be made.
    fn born(&mut self, mut object: Value) -> Result<Value, Refusal> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.admitted_to(&name)?;
        object["apiVersion"] = json!(self.target.api_version);
        object["kind"] = json!(self.served.kind);
        if !self.target.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(self.target.namespace);
        }
        object["metadata"]["uid"] = json!(self.api.uid());
        object["metadata"]["creationTimestamp"] = json!(self.now);
        if self.served.counts_generations() {
            object["metadata"]["generation"] = json!(1);
        }
        rules::fill(&self.served.kind, &mut object);
        self.valid(None, &object)?;
        self.secure(&name, &object)?;
        Ok(object)
    }

    /// A namespace must be there, and not about to go.
    fn admitted_to(&self, name: &str) -> Result<(), Refusal> {
        let namespace = &self.target.namespace;
        if !self.served.namespaced || namespace.is_empty() {
            return Ok(());
        }
        let Some(found) = self.namespace() else {
            return Err(status::not_found(&Subject { group: "", kind: "namespaces", name: namespace }));
        };
        if found["metadata"]["deletionTimestamp"].is_null() {
            return Ok(());
        }
        Err(status::ending(&self.named(name), namespace))
    }

    fn namespace(&self) -> Option<&Value> {
        self.api.store.get(&Place::global("/namespaces", &self.target.namespace))
    }

    fn valid(&self, old: Option<&Value>, new: &Value) -> Result<(), Refusal> {
        let causes = rules::causes(&self.served.kind, old, new);
        if causes.is_empty() {
            return Ok(());
        }
        let name = new["metadata"]["name"].as_str().unwrap_or_default();
        Err(status::invalid(&self.of_kind(name), &causes))
    }

    /// Pod Security, for pods.
    fn secure(&self, name: &str, object: &Value) -> Result<(), Refusal> {
        if self.served.kind != "Pod" {
            return Ok(());
        }
        let level = self.namespace().and_then(|found| found["metadata"]["labels"][psa::ENFORCE].as_str());
        let exempt = self.target.namespace == "kube-system";
        let level = if exempt { "privileged" } else { level.unwrap_or(psa::DEFAULT) };
        match psa::refused(&object["spec"], level) {
            Some(why) => Err(status::forbidden(&self.named(name), &why)),
            None => Ok(()),
        }
    }

    /// Keeps what was written, unless it is a dry run or nothing changed.
    fn keep(&mut self, code: u16, mut object: Value) -> Result<Reply, Refusal> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let place = self.place(&name);
        let old = self.api.store.get(&place).cloned();
        if let Some(old) = &old {
            if *old == object {
                return Ok(Reply::Json(code, object));
            }
            if self.served.counts_generations() && old["spec"] != object["spec"] {
                let generation = old["metadata"]["generation"].as_u64().unwrap_or_default() + 1;
                object["metadata"]["generation"] = json!(generation);
            }
        }
        if self.dry() {
            return Ok(Reply::Json(code, object));
        }
        let kept = self.api.settle(&place, object);
        if self.served.kind == "CustomResourceDefinition" {
            self.api.kinds.learn(&kept);
        }
        Ok(Reply::Json(code, kept))
    }

    pub(super) fn replace(&mut self) -> Result<Reply, Refusal> {
        let old = self.found()?;
        let new = self.known(self.body()?)?;
        self.fresh(&old, &new)?;
        self.write(&old, new)
    }

    /// A version that the writer saw must still be the newest.
    fn fresh(&self, old: &Value, new: &Value) -> Result<(), Refusal> {
        let seen = &new["metadata"]["resourceVersion"];
        if seen.is_null() || *seen == old["metadata"]["resourceVersion"] {
            return Ok(());
        }
        Err(status::conflict(&self.named(&self.name()), MODIFIED))
    }

    /// Writes a whole object over the old one.
    fn write(&mut self, old: &Value, mut new: Value) -> Result<Reply, Refusal> {
        self.carry(old, &mut new);
        rules::fill(&self.served.kind, &mut new);
        self.valid(Some(old), &new)?;
        let new = manage::update(Some(old), &new, &self.served.of, &self.writer(false), self.now);
        self.keep(200, new)
    }

    /// What no writer changes: the object's identity, and the status or everything but it.
    fn carry(&self, old: &Value, new: &mut Value) {
        for key in [
            "uid",
            "creationTimestamp",
            "generation",
            "resourceVersion",
            "name",
            "namespace",
            "deletionTimestamp",
        ] {
            let value = &old["metadata"][key];
            if !value.is_null() {
                new["metadata"][key] = value.clone();
            }
        }
        new["apiVersion"] = old["apiVersion"].clone();
        new["kind"] = old["kind"].clone();
        if self.target.subresource == "status" {
            let status = new["status"].clone();
            let metadata = new["metadata"].clone();
            *new = old.clone();
            new["metadata"] = metadata;
            new["status"] = status;
        } else if self.served.has_status && !old["status"].is_null() {
            new["status"] = old["status"].clone();
        }
    }

    pub(super) fn patch(&mut self) -> Result<Reply, Refusal> {
        if self.request.content_type.starts_with("application/apply-patch") {
            return self.apply();
        }
        let old = self.found()?;
        let patch: Value = serde_json::from_slice(&self.request.body)
            .map_err(|error| status::bad_request(format!("error decoding patch: {error}")))?;
        let new = patch::apply(&self.request.content_type, &old, &patch, &self.served.of)?;
        self.fresh(&old, &new)?;
        let new = self.known(new)?;
        self.write(&old, new)
    }

    fn apply(&mut self) -> Result<Reply, Refusal> {
        if self.parameter("fieldManager").is_empty() {
            let cause = status::Cause::required("fieldManager", "is required for apply patch");
            let at = Subject { group: "meta.k8s.io", kind: "PatchOptions", name: "" };
            return Err(status::invalid(&at, &[cause]));
        }
        let config = self.body()?;
        if !config["metadata"]["managedFields"].is_null() {
            return Err(status::bad_request("metadata.managedFields must be nil"));
        }
        self.typed(&config)?;
        let name = self.name();
        let live = self.api.store.get(&self.place(&name)).cloned();
        let force = self.parameter("force") == "true";
        let writer = self.writer(true);
        let applied = manage::apply(live.as_ref(), &config, &self.served.of, &writer, force, self.now)
            .map_err(|conflicts| status::apply_conflict(&conflicts))?;
        match live {
            None => {
                let mut object = self.born(applied)?;
                rules::begin(&self.served.kind, &mut object);
                self.keep(201, object)
            }
            Some(old) if old == applied => Ok(Reply::Json(200, old)),
            Some(old) => {
                let mut new = applied;
                self.fresh(&old, &new)?;
                self.carry(&old, &mut new);
                rules::fill(&self.served.kind, &mut new);
                self.valid(Some(&old), &new)?;
                self.keep(200, new)
            }
        }
    }

    /// A config must fit its types, whatever else is asked.
    fn typed(&self, config: &Value) -> Result<(), Refusal> {
        let faults = merge::faults(config, &self.served.of);
        let Some(fault) = faults.first() else { return Ok(()) };
        let (group, version) = (self.target.group(), self.target.version());
        let namespace = config["metadata"]["namespace"].as_str().unwrap_or_default();
        Err(status::internal(format!(
            "failed to create typed patch object ({namespace}/{}; {group}/{version}, Kind={}): {}: {}",
            self.name(),
            self.served.kind,
            written(&fault.way),
            fault.what
        )))
    }

    /// As a delete, unless a disruption budget is used up.
    pub(super) fn evict(&mut self) -> Result<Reply, Refusal> {
        let pod = self.found()?;
        let budgets = self.api.store.list("policy/poddisruptionbudgets", &self.target.namespace);
        let pods = || self.api.store.list("/pods", &self.target.namespace).map(|(_, pod)| pod);
        if budgets.map(|(_, budget)| budget).any(|budget| budget::forbids(budget, &pod, pods())) {
            return Err(status::staged(429, budget::REFUSAL));
        }
        self.delete()?;
        let done =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        Ok(Reply::Json(201, done))
    }

    pub(super) fn delete(&mut self) -> Result<Reply, Refusal> {
        let mut object = self.found()?;
        let name = self.name();
        let options: Value = serde_json::from_slice(&self.request.body).unwrap_or_default();
        let (wanted, uid) = (&options["preconditions"]["uid"], &object["metadata"]["uid"]);
        if !wanted.is_null() && wanted != uid {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let why = format!(
                "the UID in the precondition ({}) does not match the UID in record ({}). The object might have been \
                 deleted and then recreated",
                text(wanted),
                text(uid)
            );
            return Err(status::conflict(&Subject { group: "", ..self.of_kind(&name) }, &why));
        }
        if self.served.kind == "Namespace"
            && ["default", "kube-system", "kube-public"].contains(&name.as_str())
        {
            return Err(status::forbidden(&self.named(&name), "this namespace may not be deleted"));
        }
        let uid = uid.clone();
        // Of the others, the garbage collector takes the finalizer off in the same moment.
        let owns = ["Deployment", "DaemonSet", "ReplicaSet", "Job"].contains(&self.served.kind.as_str());
        if owns && options["propagationPolicy"] == "Foreground" {
            foreground(&mut object);
        }
        let waits = self.served.kind == "Namespace"
            || self.served.kind == "CustomResourceDefinition"
            || held(&object)
            || (self.served.kind == "Pod" && lingers(&object, &options));
        if self.dry() {
            return Ok(Reply::Json(200, object));
        }
        if !waits {
            self.api.store.remove(&self.place(&name));
            return Ok(Reply::Json(200, status::deleted(&self.named(&name), &uid)));
        }
        if object["metadata"]["deletionTimestamp"].is_null() {
            object["metadata"]["deletionTimestamp"] = json!(self.now);
            match self.served.kind.as_str() {
                "Namespace" => object["status"]["phase"] = json!("Terminating"),
                "CustomResourceDefinition" => {
                    object["metadata"]["finalizers"] = json!(["customresourcecleanup.apiextensions.k8s.io"]);
                    let ending = json!({
                        "type": "Terminating", "status": "True", "reason": "InstanceDeletionPending",
                        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
                        "lastTransitionTime": self.now,
                    });
                    if let Some(conditions) = object["status"]["conditions"].as_array_mut() {
                        conditions.push(ending);
                    }
                }
                "Pod" => object["metadata"]["deletionGracePeriodSeconds"] = grace(&object, &options),
                _ => object["metadata"]["deletionGracePeriodSeconds"] = json!(0),
            }
            object = self.api.store.put(self.place(&name), object);
        }
        Ok(Reply::Json(200, object))
    }

    pub(super) fn delete_all(&mut self) -> Result<Reply, Refusal> {
        let chosen = self.chosen(&self.selector()?);
        for object in &chosen {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
            let target = Target { name: Some(name), namespace, ..self.target.clone() };
            Call { api: self.api, target: &target, served: self.served.clone(), ..*self }.delete()?;
        }
        self.list()
    }
}

/// The object stays until the garbage collector has seen what it owns go.
fn foreground(object: &mut Value) {
    let finalizers = &mut object["metadata"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(all) if all.iter().any(|one| one == FOREGROUND) => {}
        Some(all) => all.push(json!(FOREGROUND)),
        None => *finalizers = json!([FOREGROUND]),
    }
}

/// How long a pod has to end, in seconds.
fn grace(pod: &Value, options: &Value) -> Value {
    let own = &pod["spec"]["terminationGracePeriodSeconds"];
    if options["gracePeriodSeconds"].is_null() { own.clone() } else { options["gracePeriodSeconds"].clone() }
}

/// Whether a pod's kubelet has to end it first.
fn lingers(pod: &Value, options: &Value) -> bool {
    let over = ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase);
    !pod["spec"]["nodeName"].is_null() && !over && grace(pod, options) != 0
}
