//! The API server's refusals, worded as it words them (k8s.io/apimachinery, api/errors; recorded in tests/conformance).

use serde_json::{Map, Value, json};

use super::route::Target;

/// A refusal: an HTTP status and the `Status` object that says why.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub code: u16,
    pub body: Value,
}

/// Which object a refusal speaks of.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub group: &'a str,
    /// The plural, such as `pods`; for `Invalid` and preconditions the kind.
    pub kind: &'a str,
    pub name: &'a str,
}

impl Subject<'_> {
    fn title(&self) -> String {
        let dot = if self.group.is_empty() { "" } else { "." };
        format!("{}{dot}{} {:?}", self.kind, self.group, self.name)
    }

    fn details(&self) -> Map<String, Value> {
        let pairs = [("name", self.name), ("group", self.group), ("kind", self.kind)];
        let said = pairs.into_iter().filter(|(_, value)| !value.is_empty());
        said.map(|(key, value)| (key.to_owned(), json!(value))).collect()
    }
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    pub reason: &'static str,
    pub field: String,
    pub message: String,
}

impl Cause {
    pub fn required(field: &str, why: &str) -> Self {
        let colon = if why.is_empty() { "" } else { ": " };
        Self::new("FieldValueRequired", field, format!("Required value{colon}{why}"))
    }

    pub fn forbidden(field: &str, why: &str) -> Self {
        Self::new("FieldValueForbidden", field, format!("Forbidden: {why}"))
    }

    pub fn invalid(field: &str, value: &Value, why: &str) -> Self {
        Self::new("FieldValueInvalid", field, format!("Invalid value: {value}: {why}"))
    }

    fn new(reason: &'static str, field: &str, message: String) -> Self {
        Self { reason, field: field.to_owned(), message }
    }
}

fn refusal(code: u16, reason: &str, message: String, details: Option<Value>) -> Refusal {
    let mut body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code,
    });
    if !reason.is_empty() {
        body["reason"] = json!(reason);
    }
    if let Some(details) = details {
        body["details"] = details;
    }
    Refusal { code, body }
}

/// A refusal that a scenario stages.
pub fn staged(code: u16, message: &str) -> Refusal {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        409 => "Conflict",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "",
    };
    refusal(code, reason, message.to_owned(), None)
}

pub fn not_found(at: &Subject<'_>) -> Refusal {
    refusal(404, "NotFound", format!("{} not found", at.title()), Some(Value::Object(at.details())))
}

pub fn no_such_resource() -> Refusal {
    let message = "the server could not find the requested resource".to_owned();
    refusal(404, "NotFound", message, Some(json!({})))
}

pub fn not_allowed() -> Refusal {
    let message = "the server does not allow this method on the requested resource".to_owned();
    refusal(405, "MethodNotAllowed", message, Some(json!({})))
}

pub fn already_exists(at: &Subject<'_>) -> Refusal {
    refusal(409, "AlreadyExists", format!("{} already exists", at.title()), Some(Value::Object(at.details())))
}

/// A write of an old version, or under a condition that does not hold.
pub fn conflict(at: &Subject<'_>, why: &str) -> Refusal {
    let message = format!("Operation cannot be fulfilled on {}: {why}", at.title());
    refusal(409, "Conflict", message, Some(Value::Object(at.details())))
}

pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

pub fn forbidden(at: &Subject<'_>, why: &str) -> Refusal {
    refusal(
        403,
        "Forbidden",
        format!("{} is forbidden: {why}", at.title()),
        Some(Value::Object(at.details())),
    )
}

/// A refusal of new things in a namespace that ends.
pub fn ending(at: &Subject<'_>, namespace: &str) -> Refusal {
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut refusal = forbidden(at, &why);
    refusal.body["details"]["causes"] = json!([{
        "reason": "NamespaceTerminating",
        "message": format!("namespace {namespace} is being terminated"),
        "field": "metadata.namespace",
    }]);
    refusal
}

/// A refusal by the rules of access (k8s.io/apiserver, forbiddenMessage).
pub fn denied(verb: &str, target: &Target) -> Refusal {
    let (resource, group) = (target.resource(), target.group());
    let place = match target.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let why = format!("User \"admin\" cannot {verb} resource {resource:?} in API group {group:?} {place}");
    let name = target.name.as_deref().unwrap_or_default();
    let mut refusal = forbidden(&Subject { group, kind: &target.plural, name }, &why);
    if name.is_empty() {
        let dot = if group.is_empty() { "" } else { "." };
        refusal.body["message"] = json!(format!("{}{dot}{group} is forbidden: {why}", target.plural));
    }
    refusal
}

pub fn bad_request(message: impl Into<String>) -> Refusal {
    refusal(400, "BadRequest", message.into(), None)
}

/// What the real server answers with 500, though the fault is the request's.
pub fn internal(message: impl Into<String>) -> Refusal {
    refusal(500, "", message.into(), None)
}

pub fn too_old(asked: u64, oldest: u64) -> Refusal {
    refusal(410, "Expired", format!("too old resource version: {asked} ({oldest})"), None)
}

pub fn invalid(at: &Subject<'_>, causes: &[Cause]) -> Refusal {
    let said: Vec<String> =
        causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    let said = match said.as_slice() {
        [only] => only.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    let mut details = at.details();
    details.insert("causes".into(), listed(causes));
    let message = format!("{} is invalid: {said}", at.title());
    refusal(422, "Invalid", message, Some(Value::Object(details)))
}

fn listed(causes: &[Cause]) -> Value {
    let one = |cause: &Cause| json!({"reason": cause.reason, "message": cause.message, "field": cause.field});
    causes.iter().map(one).collect()
}

/// Fields that other managers own with other values.
pub fn apply_conflict(conflicts: &[super::manage::Conflict]) -> Refusal {
    let mut owners: Vec<&str> = conflicts.iter().map(|conflict| conflict.with.as_str()).collect();
    owners.dedup();
    let several = conflicts.len() != 1;
    let mut said =
        format!("Apply failed with {} conflict{}: ", conflicts.len(), if several { "s" } else { "" });
    let each: Vec<String> = owners
        .iter()
        .map(|owner| {
            let fields: Vec<&str> =
                conflicts.iter().filter(|c| c.with == *owner).map(|c| c.field.as_str()).collect();
            match fields.as_slice() {
                [only] => format!("conflict with {owner}: {only}"),
                several => format!("conflicts with {owner}:\n- {}", several.join("\n- ")),
            }
        })
        .collect();
    said.push_str(&each.join("\n"));
    let causes: Vec<Cause> = conflicts
        .iter()
        .map(|c| Cause::new("FieldManagerConflict", &c.field, format!("conflict with {}", c.with)))
        .collect();
    refusal(409, "Conflict", said, Some(json!({"causes": listed(&causes)})))
}

/// What a delete answers when the object is gone.
pub fn deleted(at: &Subject<'_>, uid: &Value) -> Value {
    let mut details = at.details();
    details.insert("uid".into(), uid.clone());
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
