//! The simulated API server: requests in, answers out. It has no clock and no sockets: the time comes with each request.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::call::Call;
use super::kinds::Kinds;
use super::object::list;
use super::openapi;
use super::route::{Route, Target, query, route};
use super::selector::Selector;
use super::status::{self, Refusal};
use super::store::{Change, Kind, Place, Store, TooOld};
use super::table::table;

/// A request as it came over the wire.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub path: String,
    pub content_type: String,
    pub body: Vec<u8>,
    /// What the client wants to have; a table for `as=Table`.
    pub accept: String,
    /// Before the first `/`, the manager of whoever names none.
    pub user_agent: String,
}

impl Request {
    pub(super) fn wants_table(&self) -> bool {
        self.accept.contains("as=Table")
    }
}

/// What goes back.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Json(u16, Value),
    Text(u16, String),
    /// Changes of the collection after this version, as they come.
    Watch(Watch),
}

/// A watch that was begun.
#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    pub(super) resource: String,
    pub(super) namespace: String,
    pub(super) selector: Selector,
    /// What was sent last.
    pub version: u64,
    /// What exists at the beginning goes first.
    pub first: Vec<Value>,
    pub bookmarks: bool,
    /// A bookmark is to say where what existed at the beginning ends.
    pub(super) initial: bool,
    /// Objects go as rows of a table.
    pub(super) table: bool,
    pub(super) api_version: String,
    pub(super) kind: String,
}

/// What a server keeps, to go on with later.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Saved {
    version: u64,
    ids: u64,
    objects: Vec<(Place, Value)>,
    logs: Vec<(String, String, String)>,
    #[serde(default)]
    denied: Vec<String>,
}

/// The server and what it keeps.
#[derive(Debug, Clone)]
pub struct Api {
    pub store: Store,
    pub(super) kinds: Kinds,
    /// How many ids were given out.
    pub(super) ids: u64,
    /// The logs of pods, by namespace and name.
    pub logs: BTreeMap<(String, String), String>,
    /// What nobody outside of the cluster may do, such as `create pods`.
    pub denied: Vec<String>,
}

impl Default for Api {
    fn default() -> Self {
        Self::new(1000)
    }
}

impl Api {
    /// A server that keeps so many changes for its watches.
    pub fn new(kept: usize) -> Self {
        let mut api = Self {
            store: Store::new(kept),
            kinds: Kinds::recorded(),
            ids: 0,
            logs: BTreeMap::new(),
            denied: Vec::new(),
        };
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            api.make_as("kube-apiserver", "POST", "/api/v1/namespaces", &body, "2026-01-01T00:00:00Z");
        }
        api
    }

    /// The same, where nobody outside of the cluster may do this.
    #[must_use]
    pub fn denying(self, denied: &[String]) -> Self {
        Self { denied: denied.to_vec(), ..self }
    }

    pub fn keep(&self) -> Saved {
        let logs =
            self.logs.iter().map(|((namespace, name), log)| (namespace.clone(), name.clone(), log.clone()));
        let objects = self.store.objects().map(|(place, object)| (place.clone(), object.clone()));
        Saved {
            version: self.store.version(),
            ids: self.ids,
            objects: objects.collect(),
            logs: logs.collect(),
            denied: self.denied.clone(),
        }
    }

    /// A server that goes on where another stopped. Watches from before begin anew.
    pub fn restore(saved: Saved, kept: usize) -> Self {
        let mut kinds = Kinds::recorded();
        for (place, object) in &saved.objects {
            if place.resource == "apiextensions.k8s.io/customresourcedefinitions" {
                kinds.learn(object);
            }
        }
        let logs = saved.logs.into_iter().map(|(namespace, name, log)| ((namespace, name), log));
        Self {
            store: Store::restore(saved.version, saved.objects, kept),
            kinds,
            ids: saved.ids,
            logs: logs.collect(),
            denied: saved.denied,
        }
    }

    /// A request of somebody in the cluster.
    pub fn make_as(&mut self, who: &str, method: &str, path: &str, body: &Value, now: &str) -> Reply {
        let content_type =
            if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request {
            method: method.into(),
            path: path.into(),
            content_type: content_type.into(),
            body: body.to_string().into_bytes(),
            user_agent: who.into(),
            accept: String::new(),
        };
        self.handle(&request, now)
    }

    /// Answers somebody outside of the cluster, who may not be allowed to do everything.
    pub fn answer(&mut self, request: &Request, now: &str) -> Reply {
        let (path, parameters) = request.path.split_once('?').unwrap_or((&request.path, ""));
        if let Route::Resource(target) = route(path)
            && let Some(verb) = verb(&request.method, &target, parameters)
            && self.denies(verb, target.group(), &target.resource())
        {
            let refusal = status::denied(verb, &target);
            return Reply::Json(refusal.code, refusal.body);
        }
        self.handle(request, now)
    }

    pub(super) fn denies(&self, verb: &str, group: &str, resource: &str) -> bool {
        let dot = if group.is_empty() { "" } else { "." };
        self.denied.contains(&format!("{verb} {resource}{dot}{group}"))
    }

    /// Answers a request; `now` is RFC 3339 in UTC.
    pub fn handle(&mut self, request: &Request, now: &str) -> Reply {
        let (path, parameters) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let answered = match route(path) {
            Route::Resource(target) => self.resource(request, &target, &query(parameters), now),
            Route::OpenApi(path) => match openapi::document(&self.kinds, &path) {
                Some(document) => Ok(Reply::Json(200, document)),
                None => Ok(Reply::Text(404, "404 page not found".into())),
            },
            Route::Version => Ok(Reply::Json(200, version(self.kinds.discover(&Route::Version)))),
            Route::Health => Ok(Reply::Text(200, "ok".into())),
            route => match self.kinds.discover(&route) {
                Some(found) => Ok(Reply::Json(200, found)),
                None => Ok(Reply::Text(404, "404 page not found".into())),
            },
        };
        answered.unwrap_or_else(|refusal| Reply::Json(refusal.code, refusal.body))
    }

    fn resource(
        &mut self,
        request: &Request,
        target: &Target,
        query: &BTreeMap<String, String>,
        now: &str,
    ) -> Result<Reply, Refusal> {
        if !self.kinds.serves(&target.api_version) {
            return Ok(Reply::Text(404, "404 page not found".into()));
        }
        let served = self.kinds.find(target).ok_or_else(status::no_such_resource)?;
        let mut call = Call { api: self, request, target, query, served, now };
        let reply = match (request.method.as_str(), &target.name, target.subresource.as_str()) {
            ("GET", Some(_), "log") => call.log(),
            ("GET", Some(_), _) => call.get(),
            ("GET", None, _) if query.get("watch").is_some_and(|watch| watch == "true" || watch == "1") => {
                call.watch()
            }
            ("GET", None, _) => call.list(),
            ("POST", None, _) => call.create(),
            ("POST", Some(_), "eviction") => call.evict(),
            ("PUT", Some(_), _) => call.replace(),
            ("PATCH", Some(_), _) => call.patch(),
            ("DELETE", Some(_), _) => call.delete(),
            ("DELETE", None, _) => call.delete_all(),
            _ => Err(status::not_allowed()),
        }?;
        Ok(match reply {
            Reply::Json(200, object) if request.method == "GET" && request.wants_table() => {
                Reply::Json(200, table(&call.served.kind, &object, now.parse().unwrap_or_default()))
            }
            reply => reply,
        })
    }

    /// What a watch has to send since it was asked last; an error event, and the end, when that is too long ago.
    pub fn changes(&self, watch: &mut Watch, now: Timestamp) -> (Vec<Value>, bool) {
        let first: Vec<Value> = watch.first.drain(..).collect();
        let mut events: Vec<Value> =
            first.iter().map(|object| json!({"type": "ADDED", "object": watch.shown(object, now)})).collect();
        if std::mem::take(&mut watch.initial) {
            let mut end = watch.bookmark();
            end["object"]["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
            events.push(end);
        }
        let changes = match self.store.since(watch.version) {
            Ok(changes) => changes,
            Err(TooOld { asked, oldest }) => {
                let refusal = status::too_old(asked, oldest);
                events.push(json!({"type": "ERROR", "object": refusal.body}));
                return (events, true);
            }
        };
        events.extend(changes.filter_map(|change| watch.event(change, now)));
        watch.version = self.store.version();
        (events, false)
    }

    pub(super) fn uid(&mut self) -> String {
        self.ids += 1;
        format!("00000000-0000-4000-8000-{:012x}", self.ids)
    }

    /// The last step of a delete: what nothing holds any more is gone.
    pub(super) fn settle(&mut self, place: &Place, object: Value) -> Value {
        if object["metadata"]["deletionTimestamp"].is_null() || held(&object) {
            return self.store.put(place.clone(), object);
        }
        self.store.remove(place);
        object
    }
}

/// What rules of access call a request.
fn verb(method: &str, target: &Target, parameters: &str) -> Option<&'static str> {
    Some(match (method, &target.name) {
        ("GET", Some(_)) => "get",
        ("GET", None) if query(parameters).get("watch").is_some_and(|watch| watch != "false") => "watch",
        ("GET", None) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", Some(_)) => "delete",
        ("DELETE", None) => "deletecollection",
        _ => return None,
    })
}

/// The version that was recorded, marked as what it is.
fn version(recorded: Option<Value>) -> Value {
    let mut version = recorded.unwrap_or_else(|| json!({}));
    let tag = version["gitVersion"].as_str().unwrap_or_default();
    version["gitVersion"] = json!(format!("{tag}+simulated"));
    version
}

/// Whether finalizers keep the object from going.
pub(super) fn held(object: &Value) -> bool {
    // A namespace has its own in its spec.
    ["/metadata/finalizers", "/spec/finalizers"].iter().any(|at| !list(object, at).is_empty())
}

impl Watch {
    /// The object as the watcher wants to have it.
    fn shown(&self, object: &Value, now: Timestamp) -> Value {
        if self.table { table(&self.kind, object, now) } else { object.clone() }
    }

    fn event(&self, change: &Change, now: Timestamp) -> Option<Value> {
        let place = &change.place;
        let ours = place.resource == self.resource
            && (self.namespace.is_empty() || place.namespace == self.namespace)
            && self.selector.holds(&change.object);
        let word = match change.kind {
            Kind::Added => "ADDED",
            Kind::Modified => "MODIFIED",
            Kind::Deleted => "DELETED",
        };
        ours.then(|| json!({"type": word, "object": self.shown(&change.object, now)}))
    }

    /// A sign of life that says how far the watch has come.
    pub fn bookmark(&self) -> Value {
        json!({"type": "BOOKMARK", "object": {
            "apiVersion": self.api_version, "kind": self.kind,
            "metadata": {"resourceVersion": self.version.to_string()},
        }})
    }
}
