//! One request on its way through the server: what it asks for, and the verbs that only read.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::api::{Api, Reply, Request, Watch};
use super::fields::{Fields, written};
use super::kinds::Served;
use super::manage::Writer;
use super::merge;
use super::object::list;
use super::route::Target;
use super::selector::Selector;
use super::status::{self, Cause, Refusal, Subject};
use super::store::Place;

/// One request on its way through the server.
pub(super) struct Call<'a> {
    pub(super) api: &'a mut Api,
    pub(super) request: &'a Request,
    pub(super) target: &'a Target,
    pub(super) query: &'a BTreeMap<String, String>,
    pub(super) served: Arc<Served>,
    pub(super) now: &'a str,
}

impl Call<'_> {
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    pub(super) fn dry(&self) -> bool {
        self.parameter("dryRun") == "All"
    }

    pub(super) fn place(&self, name: &str) -> Place {
        Place {
            resource: self.served.resource.clone(),
            namespace: self.target.namespace.clone(),
            name: name.to_owned(),
        }
    }

    pub(super) fn named<'a>(&'a self, name: &'a str) -> Subject<'a> {
        Subject { group: self.target.group(), kind: &self.target.plural, name }
    }

    pub(super) fn of_kind<'a>(&'a self, name: &'a str) -> Subject<'a> {
        Subject { group: self.target.group(), kind: &self.served.kind, name }
    }

    pub(super) fn name(&self) -> String {
        self.target.name.clone().unwrap_or_default()
    }

    pub(super) fn found(&self) -> Result<Value, Refusal> {
        let name = self.name();
        self.api.store.get(&self.place(&name)).cloned().ok_or_else(|| status::not_found(&self.named(&name)))
    }

    pub(super) fn writer(&self, applies: bool) -> Writer {
        let name = match self.parameter("fieldManager") {
            "" => {
                self.request.user_agent.split('/').next().filter(|name| !name.is_empty()).unwrap_or("unknown")
            }
            name => name,
        };
        Writer {
            name: name.to_owned(),
            applies,
            api_version: self.target.api_version.clone(),
            subresource: self.target.subresource.clone(),
        }
    }

    pub(super) fn get(&self) -> Result<Reply, Refusal> {
        Ok(Reply::Json(200, self.found()?))
    }

    pub(super) fn log(&self) -> Result<Reply, Refusal> {
        let pod = self.found()?;
        let ended = |one: &Value| !one["lastState"]["terminated"].is_null();
        if self.parameter("previous") == "true" && !list(&pod, "/status/containerStatuses").iter().any(ended)
        {
            let (name, container) = (self.name(), self.parameter("container"));
            let why = format!("previous terminated container {container:?} in pod {name:?} not found");
            return Err(status::bad_request(why));
        }
        let key = (self.target.namespace.clone(), self.name());
        Ok(Reply::Text(200, self.api.logs.get(&key).cloned().unwrap_or_default()))
    }

    pub(super) fn selector(&self) -> Result<Selector, Refusal> {
        Selector::parse(&self.served.kind, self.parameter("labelSelector"), self.parameter("fieldSelector"))
    }

    pub(super) fn chosen(&self, selector: &Selector) -> Vec<Value> {
        let all = self.api.store.list(&self.served.resource, &self.target.namespace);
        all.map(|(_, object)| object).filter(|object| selector.holds(object)).cloned().collect()
    }

    pub(super) fn list(&self) -> Result<Reply, Refusal> {
        let items: Vec<Value> = self
            .chosen(&self.selector()?)
            .into_iter()
            .map(|mut item| {
                // The list says it once for all.
                if let Some(item) = item.as_object_mut() {
                    item.shift_remove("apiVersion");
                    item.shift_remove("kind");
                }
                item
            })
            .collect();
        Ok(Reply::Json(
            200,
            json!({
                "kind": format!("{}List", self.served.kind),
                "apiVersion": self.target.api_version,
                "metadata": {"resourceVersion": self.api.store.version().to_string()},
                "items": items,
            }),
        ))
    }

    pub(super) fn watch(&self) -> Result<Reply, Refusal> {
        let selector = self.selector()?;
        let asked = self.parameter("resourceVersion");
        let fresh = asked.is_empty() || asked == "0";
        let initial = self.parameter("sendInitialEvents") == "true";
        if initial && self.parameter("resourceVersionMatch") != "NotOlderThan" {
            let at = Subject { group: "meta.k8s.io", kind: "ListOptions", name: "" };
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            return Err(status::invalid(&at, &[Cause::forbidden("resourceVersionMatch", why)]));
        }
        let bookmarks = self.parameter("allowWatchBookmarks") == "true";
        let version = match asked.parse() {
            _ if fresh => self.api.store.version(),
            Ok(version) => version,
            Err(_) => {
                let parsing = format!("strconv.ParseUint: parsing {asked:?}: invalid syntax");
                return Err(status::internal(format!(
                    "resourceVersion: Invalid value: {asked:?}: {parsing}"
                )));
            }
        };
        Ok(Reply::Watch(Watch {
            resource: self.served.resource.clone(),
            namespace: self.target.namespace.clone(),
            first: if fresh || initial { self.chosen(&selector) } else { Vec::new() },
            selector,
            version: if initial { self.api.store.version() } else { version },
            bookmarks,
            initial: initial && bookmarks,
            table: self.request.wants_table(),
            api_version: self.target.api_version.clone(),
            kind: self.served.kind.clone(),
        }))
    }

    /// The body as an object of this kind.
    pub(super) fn body(&self) -> Result<Value, Refusal> {
        let body: Value = serde_json::from_slice(&self.request.body)
            .ok()
            .or_else(|| serde_yaml::from_slice(&self.request.body).ok())
            .filter(Value::is_object)
            .ok_or_else(|| status::bad_request("the body of the request is not an object"))?;
        let kind = &self.served.kind;
        let said = body["kind"].as_str().unwrap_or(kind);
        if said != kind {
            let version = self.target.version();
            let why = format!("converting ({version}.{said}) to (core.{kind}): unknown conversion");
            return Err(self.unfit(said, &why));
        }
        let namespace = body["metadata"]["namespace"].as_str().unwrap_or(&self.target.namespace);
        if namespace != self.target.namespace {
            return Err(status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        Ok(body)
    }

    fn unfit(&self, said: &str, why: &str) -> Refusal {
        let (kind, version) = (&self.served.kind, self.target.version());
        status::bad_request(format!("{said} in version {version:?} cannot be handled as a {kind}: {why}"))
    }

    /// What the types do not know: an error where that is wanted, else left out.
    pub(super) fn known(&self, object: Value) -> Result<Value, Refusal> {
        let mut unknown = merge::faults(&object, &self.served.of);
        unknown.retain(|fault| fault.what == merge::UNKNOWN);
        if unknown.is_empty() {
            return Ok(object);
        }
        if self.parameter("fieldValidation") == "Strict" {
            let fields = unknown.iter().map(|fault| written(&fault.way));
            let said: Vec<String> =
                fields.map(|field| format!("unknown field {:?}", field.trim_start_matches('.'))).collect();
            return Err(self.unfit(&self.served.kind, &format!("strict decoding error: {}", said.join(", "))));
        }
        let mut gone = Fields::default();
        unknown.iter().for_each(|fault| gone.insert(&fault.way));
        Ok(merge::remove(&object, &gone, &self.served.of).unwrap_or_else(|| json!({})))
    }
}
