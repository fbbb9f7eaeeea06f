//! Objects of any kind: read, applied, listed, deleted, as plain JSON values.

use std::time::Duration;

use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GetParams, ListParams, Patch, PatchParams, PostParams,
    Preconditions, Request,
};
use kube::core::GroupVersion;
use kube::discovery::{Scope, pinned_group};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{Conflict, from_kube};
use super::{Cluster, MANAGER};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::model::object::{Deletion, Object, read, title_of};
use crate::wait::{Look, Wait};

/// An object before and after an apply.
#[derive(Clone)]
pub struct Applied {
    /// None when it did not exist.
    pub before: Option<Value>,
    /// As the server keeps it now, or would keep it (dry run).
    pub after: Value,
}

impl std::fmt::Debug for Applied {
    /// Without the contents: they may be a Secret's.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Applied").field("outcome", &self.outcome()).finish_non_exhaustive()
    }
}

/// What an apply did. Says nothing about a dry run, which leaves the version as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Created,
    Changed,
    Unchanged,
}

impl Applied {
    pub fn outcome(&self) -> Outcome {
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        match &self.before {
            None => Outcome::Created,
            Some(before) if version(before) == version(&self.after) => Outcome::Unchanged,
            Some(_) => Outcome::Changed,
        }
    }
}

/// The parts of an object that address it.
struct Address<'a> {
    api_version: &'a str,
    kind: &'a str,
    namespace: Option<&'a str>,
    name: &'a str,
}

impl<'a> Address<'a> {
    fn of(object: &'a Value) -> Result<Self> {
        let text = |value: &'a Value, key: &str| value[key].as_str().filter(|s| !s.is_empty());
        match (text(object, "apiVersion"), text(object, "kind"), text(&object["metadata"], "name")) {
            (Some(api_version), Some(kind), Some(name)) => {
                Ok(Self { api_version, kind, namespace: object["metadata"]["namespace"].as_str(), name })
            }
            _ => Err(Error::invalid("an object without apiVersion, kind or metadata.name can't be applied")),
        }
    }

    fn title(&self) -> String {
        title_of(self.kind, self.namespace, self.name)
    }
}

impl Cluster {
    /// Makes the object be as given (server-side apply, manager `nodeprep`, strict about unknown fields). A field
    /// that another manager holds with another value is an error that names both; it is never taken by force.
    pub async fn apply(&self, object: &Value) -> Result<Applied> {
        self.patched(object, &PatchParams::apply(MANAGER)).await
    }

    /// Makes the object where there is none; one that exists stays as it is.
    pub async fn create(&self, object: &Value) -> Result<Applied> {
        self.created(object, false).await
    }

    /// Makes the object of a plan be as given, by its own rule. A `dry_run` changes nothing.
    pub async fn send(&self, object: &Object, dry_run: bool) -> Result<Applied> {
        match object.create_only {
            true => self.created(&object.value, dry_run).await,
            false => {
                self.patched(&object.value, &PatchParams { dry_run, ..PatchParams::apply(MANAGER) }).await
            }
        }
    }

    async fn patched(&self, object: &Value, params: &PatchParams) -> Result<Applied> {
        let at = Address::of(object)?;
        let before = self.get(at.api_version, at.kind, at.namespace, at.name).await?;
        let params = params.clone().validation_strict();
        let after = match self.patch(&at, object, &params).await {
            // Fields that nodeprep itself holds under another operation or version are its own to change.
            Err(kube::Error::Api(status)) if Conflict::of(&status).is_some_and(|c| c.is_own()) => {
                self.patch(&at, object, &params.force()).await
            }
            other => other,
        };
        after.map(|after| Applied { before, after }).map_err(|e| from_kube(&at.title(), e))
    }

    async fn patch(&self, at: &Address<'_>, object: &Value, params: &PatchParams) -> kube::Result<Value> {
        let path = self.path(at.api_version, at.kind, at.namespace).await?;
        let request = Request::new(path).patch(at.name, params, &Patch::Apply(object));
        self.client.request(request.map_err(kube::Error::BuildRequest)?).await
    }

    /// Changes fields of an object that exists, by a merge patch.
    ///
    /// # Errors
    /// There is no such object, or it can't be changed.
    pub async fn merge(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        change: &Value,
    ) -> Result<()> {
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let result = async {
            let path = self.path(api_version, kind, namespace).await?;
            let request = Request::new(path).patch(name, &params, &Patch::Merge(change));
            self.client.request::<Value>(request.map_err(kube::Error::BuildRequest)?).await
        };
        result.await.map(drop).map_err(|e| from_kube(&title_of(kind, namespace, name), e))
    }

    async fn created(&self, object: &Value, dry_run: bool) -> Result<Applied> {
        let at = Address::of(object)?;
        if let Some(live) = self.get(at.api_version, at.kind, at.namespace, at.name).await? {
            return Ok(Applied { after: live.clone(), before: Some(live) });
        }
        let params = PostParams { dry_run, field_manager: Some(MANAGER.into()) };
        let result = async {
            let path = self.path(at.api_version, at.kind, at.namespace).await?;
            let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
            let request = Request::new(path).create(&params, body).map_err(kube::Error::BuildRequest)?;
            self.client.request::<Value>(request).await
        };
        match result.await {
            Ok(after) => Ok(Applied { before: None, after }),
            // Somebody made it in between: it stays as they made it.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let live =
                    self.get(at.api_version, at.kind, at.namespace, at.name).await?.ok_or_else(|| {
                        Error::unavailable(format!(
                            "{}: is being created and deleted by somebody else",
                            at.title()
                        ))
                    })?;
                Ok(Applied { before: Some(live.clone()), after: live })
            }
            Err(error) => Err(from_kube(&at.title(), error)),
        }
    }

    /// The object; None when it, its namespace or its kind does not exist.
    pub async fn get(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>> {
        let result = async {
            let path = self.path(api_version, kind, namespace).await?;
            let request = Request::new(path).get(name, &GetParams::default());
            self.client.request::<Value>(request.map_err(kube::Error::BuildRequest)?).await
        };
        match result.await {
            Ok(object) => Ok(Some(object)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(from_kube(&title_of(kind, namespace, name), error)),
        }
    }

    /// The objects of a kind, in one namespace or in all; none when the kind is not served. `selector` is a label
    /// selector, empty for all.
    pub async fn list(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Vec<Value>> {
        let params = ListParams::default().labels(selector);
        let result = async {
            let path = self.path(api_version, kind, namespace).await?;
            let request = Request::new(path).list(&params).map_err(kube::Error::BuildRequest)?;
            self.client.request::<Value>(request).await
        };
        match result.await {
            Ok(mut list) => Ok(match list["items"].take() {
                Value::Array(items) => items,
                _ => Vec::new(),
            }),
            Err(error) if is_missing(&error) => Ok(Vec::new()),
            Err(error) => Err(from_kube(&title_of(kind, namespace, "(list)"), error)),
        }
    }

    /// The objects of a kind, as the kind has them; as `list` otherwise.
    ///
    /// # Errors
    /// One that can't be read is named: nothing is known of it, so it is not left out.
    pub async fn list_of<K: k8s_openapi::Resource + DeserializeOwned>(
        &self,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Vec<K>> {
        let listed = self.list(K::API_VERSION, K::KIND, namespace, selector).await?;
        listed.iter().map(read).collect()
    }

    /// The object, as its kind has it; as `get` otherwise.
    ///
    /// # Errors
    /// It can't be read.
    pub async fn get_of<K: k8s_openapi::Resource + DeserializeOwned>(
        &self,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<K>> {
        let found = self.get(K::API_VERSION, K::KIND, namespace, name).await?;
        found.as_ref().map(read).transpose()
    }

    /// Deletes this very object and what it owns, and waits until both are gone; false when it did not exist.
    ///
    /// # Errors
    /// `Refused` when another object has its name by now, `Failed` when it is still there after `within`.
    pub async fn remove(&self, gone: &Deletion, events: &Events, within: Duration) -> Result<bool> {
        let title = gone.title();
        let uid = Some(gone.uid.clone());
        let params = DeleteParams::foreground().preconditions(Preconditions { uid, resource_version: None });
        let result = async {
            let path = self.path(&gone.api_version, &gone.kind, gone.namespace.as_deref()).await?;
            let request = Request::new(path).delete(&gone.name, &params);
            self.client.request::<Value>(request.map_err(kube::Error::BuildRequest)?).await
        };
        match result.await {
            Ok(_) => {}
            Err(error) if is_missing(&error) => return Ok(false),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                return Err(Error::refused(format!("{title}: another one has its name by now"))
                    .hint("plan again: the cluster changed meanwhile"));
            }
            Err(error) => return Err(from_kube(&title, error)),
        }
        self.await_removed(gone, events, within).await.map(|()| true)
    }

    async fn await_removed(&self, gone: &Deletion, events: &Events, within: Duration) -> Result<()> {
        let removed =
            Wait::new(gone.title(), within, events).every(Duration::from_millis(500)).until(async || {
                let look =
                    self.get(&gone.api_version, &gone.kind, gone.namespace.as_deref(), &gone.name).await?;
                Ok(match look {
                    Some(live) if live["metadata"]["uid"] == *gone.uid => Look::not_yet(held_by(&live)),
                    _ => Look::Done(()),
                })
            });
        removed.await.map_err(|late| {
            late.or_hint("`kubectl get -o yaml` shows what its finalizers wait for", |what, last| {
                Error::failed(format!("{what}: still there after {} s: {last}", within.as_secs()))
            })
        })
    }

    /// Whether the cluster serves a kind.
    pub async fn serves(&self, api_version: &str, kind: &str) -> Result<bool> {
        match self.resource(api_version, kind).await {
            Ok(_) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(from_kube(&format!("{api_version} {kind}"), error)),
        }
    }

    /// A typed-less API for watches.
    pub(super) async fn api(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
    ) -> kube::Result<Api<DynamicObject>> {
        let (resource, scope) = self.resource(api_version, kind).await?;
        Ok(match (scope, namespace) {
            (Scope::Namespaced, Some(namespace)) => {
                Api::namespaced_with(self.client.clone(), namespace, &resource)
            }
            _ => Api::all_with(self.client.clone(), &resource),
        })
    }

    async fn path(&self, api_version: &str, kind: &str, namespace: Option<&str>) -> kube::Result<String> {
        let (resource, scope) = self.resource(api_version, kind).await?;
        let namespace = namespace.filter(|_| scope == Scope::Namespaced);
        Ok(DynamicObject::url_path(&resource, namespace))
    }

    /// Finds a kind by discovery. Only what was found is remembered, so a new CRD is seen at once.
    async fn resource(&self, api_version: &str, kind: &str) -> kube::Result<(ApiResource, Scope)> {
        let mut known = self.kinds.lock().await;
        if let Some(found) = known.get(api_version).and_then(|kinds| kinds.get(kind)) {
            return Ok(found.clone());
        }
        let missing = || {
            let message = format!("the cluster does not serve {api_version} {kind}");
            kube::Error::Api(kube::core::Status::failure(&message, "NotFound").with_code(404).boxed())
        };
        let version: GroupVersion = api_version.parse().map_err(|_| missing())?;
        let group = match pinned_group(&self.client, &version).await {
            Err(kube::Error::Discovery(_)) => return Err(missing()),
            // A group that is not served has no path, and the API server's 404 is plain text. The core group always
            // has one: without it, something else than an API server answers.
            Err(kube::Error::Api(status)) if status.code == 404 && !version.group.is_empty() => {
                return Err(missing());
            }
            other => other?,
        };
        let kinds: super::Kinds = group
            .versioned_resources(&version.version)
            .into_iter()
            .map(|(resource, capabilities)| (resource.kind.clone(), (resource, capabilities.scope)))
            .collect();
        let found = kinds.get(kind).cloned();
        known.insert(api_version.to_owned(), kinds);
        found.ok_or_else(missing)
    }
}

/// What keeps an object that was deleted.
fn held_by(live: &Value) -> String {
    let finalizers = live["metadata"]["finalizers"].as_array();
    let names: Vec<&str> = finalizers.into_iter().flatten().filter_map(Value::as_str).collect();
    match names.as_slice() {
        [] => "it is being deleted".into(),
        ["foregroundDeletion"] => "what it owns goes first".into(),
        names => format!("its finalizers {} are not done", names.join(", ")),
    }
}

/// The object, its namespace or its kind does not exist.
fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}
