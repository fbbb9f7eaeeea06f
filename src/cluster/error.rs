//! From kube's errors to ours: one function, so that every verb says the same of the same failure.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use kube::client::AuthError;
use kube::core::Status;

use super::MANAGER;
use crate::config_doc;
use crate::dial::TlsFault;
use crate::error::{Code, Error, Kind, chain};
use crate::model::said::{self, By};

/// Maps an error of the Kubernetes API; `what` is the object or the cluster it happened to.
pub fn from_kube(what: &str, error: kube::Error) -> Error {
    let login_failed = match &error {
        kube::Error::Auth(error) => Some(error),
        other => find::<AuthError>(other),
    };
    if let Some(error) = login_failed {
        return Error::invalid(format!("{what}: can't log in: {}", login(error)))
            .hint("run the login command of the kubeconfig by hand, or name another --context");
    }
    match error {
        kube::Error::Api(status) => from_status(what, &status),
        kube::Error::InferConfig(_)
        | kube::Error::InferKubeconfig(_)
        | kube::Error::ProxyProtocolUnsupported { .. }
        | kube::Error::RustlsTls(_) => Error::invalid(format!("{what}: {}", chain(&error))),
        kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => {
            match find::<rustls::Error>(&error) {
                Some(error) => from_tls(what, error),
                None => from_transport(what, &chain(&error)),
            }
        }
        other => Error::failed(format!("{what}: {}", config_doc::words(&chain(&other)))),
    }
}

/// What `/readyz` answers before the API server is ready says of every part of it whether that is, a line each: those that
/// are not are named.
pub(super) fn not_ready(what: &str, error: kube::Error) -> Error {
    let kube::Error::Api(status) = &error else { return from_kube(what, error) };
    let open = status.message.lines().filter_map(|line| line.trim().strip_prefix("[-]")?.split(' ').next());
    let open: Vec<&str> = open.collect();
    match open.is_empty() {
        true => from_kube(what, error),
        false => Error::unavailable(format!("{what}: not ready yet: {}", open.join(", "))),
    }
}

/// The API server did not answer in time.
pub(super) fn silent(what: &str, after: Duration) -> Error {
    Error::unavailable(format!("{what}: no answer of the API server within {} s", after.as_secs()))
        .hint("is the API server up, and reachable from here?")
}

/// Why nobody could be logged in. What a login command prints is not said: it may be a token, and so may its arguments.
fn login(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecStart(error) => {
            format!("the login command of the kubeconfig can't be run: {error}")
        }
        AuthError::AuthExecRun { out, .. } => {
            format!(
                "the login command of the kubeconfig failed ({}); what it printed is not shown",
                out.status
            )
        }
        AuthError::AuthExecParse(_) => {
            "what the login command of the kubeconfig printed is no ExecCredential; it is not shown".into()
        }
        AuthError::AuthExec(_) => "the auth provider of the kubeconfig failed".into(),
        other => config_doc::words(&chain(other)),
    }
}

/// Finds an error of one type in a chain of causes; that of an I/O error is what it was made of.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    let made_of = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let within = made_of.and_then(|inner| find(inner as &(dyn StdError + 'static)));
    within.or_else(|| find(error.source()?))
}

fn from_tls(what: &str, error: &rustls::Error) -> Error {
    let fault = TlsFault::of(error);
    let hint = match fault {
        TlsFault::Stranger | TlsFault::Unacceptable => {
            "this kubeconfig is not of this cluster, or the cluster's CA was replaced: get a new one \
             (`talosctl kubeconfig`), or name another with --kubeconfig or --context"
        }
        TlsFault::NotNow => "check the clocks of this machine and of the control plane",
        TlsFault::NotForName => {
            "use an address that the API server's certificate has, or add it to cluster.apiServer.certSANs"
        }
        TlsFault::OursExpired | TlsFault::WantsOurs | TlsFault::RefusesOurs => {
            "the client certificate has expired, or is of another cluster: get a new kubeconfig (`talosctl kubeconfig`)"
        }
        TlsFault::Other => "is this the Kubernetes API, usually port 6443?",
    };
    Error::invalid(format!("{what}: {} ({error})", fault.what("kubeconfig"))).hint(hint)
}

fn from_transport(what: &str, text: &str) -> Error {
    let text = text.strip_prefix("ServiceError: ").unwrap_or(text);
    if let Some(code) = said::code(By::Tls, text) {
        return Error::invalid(format!("{what}: {text}"))
            .code(code)
            .hint("this kubeconfig is not of this cluster, or its certificates were renewed: get a new one");
    }
    Error::unavailable(format!("{what}: can't reach the API server: {text}"))
        .hint("is the API server up, and reachable from here?")
}

fn from_status(what: &str, status: &Status) -> Error {
    let message = config_doc::words(status.message.trim());
    let message = message.as_str();
    if status.reason == "Unauthorized" || status.code == 401 {
        return Error::invalid(format!(
            "{what}: the cluster does not accept these credentials (Unauthorized)"
        ))
        .hint("the client certificate or token has expired, or is of another cluster: get a new kubeconfig");
    }
    if status.is_forbidden() {
        let code = said::code(By::Kubernetes, &status.message);
        let error = match forbidden_action(message) {
            Some(action) if code == Some(Code::LacksRights) => {
                Error::invalid(format!("{what}: not allowed to {action}"))
                    .hint(format!("the API server says: {message}"))
            }
            _ => Error::failed(format!("{what}: refused by admission: {message}")),
        };
        return Error { code, ..error };
    }
    if let Some(conflict) = Conflict::of(status) {
        return Error::refused(format!("{what}: {conflict}")).hint(
            "let the other manager keep the object (change the intent to match), or let it give up these fields; \
             nodeprep never takes a field by force",
        );
    }
    match status.code {
        429 | 502..=504 => Error::unavailable(format!("{what}: the API server is busy: {message}")),
        _ if status.reason == "ServerTimeout" || status.reason == "Timeout" => {
            Error::unavailable(format!("{what}: {message}"))
        }
        _ if message.is_empty() => Error::new(Kind::Failed, format!("{what}: HTTP status {}", status.code)),
        _ => Error::failed(format!("{what}: {message}")),
    }
}

/// `patch deployments.apps in namespace velero`, read from the text that RBAC writes.
fn forbidden_action(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("\" cannot ")?;
    let (verb, rest) = rest.split_once(" resource \"")?;
    let (resource, rest) = rest.split_once('"')?;
    let group =
        rest.split_once("in API group \"").and_then(|(_, r)| r.split_once('"')).map_or("", |(g, _)| g);
    let dot = if group.is_empty() { "" } else { "." };
    let place = match rest.split_once("in the namespace \"").and_then(|(_, r)| r.split_once('"')) {
        Some((namespace, _)) => format!(" in namespace {namespace}"),
        None => " in the whole cluster".into(),
    };
    Some(format!("{verb} {resource}{dot}{group}{place}"))
}

/// Fields that another manager holds.
#[derive(Debug)]
pub(super) struct Conflict {
    /// The manager, as the server writes it, and the field.
    fields: Vec<(String, String)>,
}

impl Conflict {
    /// A 409 of server-side apply; None for any other conflict.
    pub(super) fn of(status: &Status) -> Option<Self> {
        let causes = &status.details.as_ref()?.causes;
        let fields: Vec<_> = causes
            .iter()
            .filter(|cause| cause.reason == "FieldManagerConflict")
            .map(|cause| {
                let manager = cause.message.strip_prefix("conflict with ").unwrap_or(&cause.message);
                (manager.to_owned(), cause.field.clone())
            })
            .collect();
        (!fields.is_empty()).then_some(Self { fields })
    }

    /// Whether the fields are nodeprep's own, held from a create or an older apiVersion.
    pub(super) fn is_own(&self) -> bool {
        let own = format!("\"{MANAGER}\"");
        self.fields.iter().all(|(manager, _)| manager.starts_with(&own))
    }
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut managers: Vec<&str> = self.fields.iter().map(|(manager, _)| manager.as_str()).collect();
        managers.sort_unstable();
        managers.dedup();
        for (i, manager) in managers.into_iter().enumerate() {
            let fields: Vec<&str> =
                self.fields.iter().filter(|(m, _)| m == manager).map(|(_, field)| field.as_str()).collect();
            let and = if i == 0 { "" } else { "; " };
            write!(f, "{and}{manager} manages {}", fields.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::response::{StatusCause, StatusDetails};

    fn status(code: u16, reason: &str, message: &str) -> Status {
        Status::failure(message, reason).with_code(code)
    }

    /// As v1.34.4 answered while it started, but for most of its lines.
    #[test]
    fn what_keeps_an_api_server_from_being_ready_is_named() {
        let text = "[+]ping ok\n[+]log ok\n[-]etcd-readiness failed: reason withheld\n[+]informer-sync ok\n\
                    [-]poststarthook/rbac/bootstrap-roles failed: reason withheld\nreadyz check failed\n";
        let told = |text: &str| kube::Error::Api(Box::new(status(500, "", text)));
        let error = not_ready("lab", told(text));
        assert_eq!(error.what, "lab: not ready yet: etcd-readiness, poststarthook/rbac/bootstrap-roles");
        assert_eq!(error.kind, Kind::Unavailable);
        assert_eq!(not_ready("lab", told("no such host")).what, "lab: no such host");
    }

    #[test]
    fn every_answer_of_the_api_server_has_its_kind_and_says_what_to_do() {
        let rbac = "deployments.apps \"velero\" is forbidden: User \"dev\" cannot patch resource \
                    \"deployments\" in API group \"apps\" in the namespace \"velero\"";
        let core = "namespaces is forbidden: User \"dev\" cannot create resource \"namespaces\" in API group \
                    \"\" at the cluster scope";
        let psa = "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": privileged";
        let cases = [
            (status(401, "Unauthorized", "Unauthorized"), Kind::Invalid, "Unauthorized"),
            (
                status(403, "Forbidden", rbac),
                Kind::Invalid,
                "not allowed to patch deployments.apps in namespace velero",
            ),
            (
                status(403, "Forbidden", core),
                Kind::Invalid,
                "not allowed to create namespaces in the whole cluster",
            ),
            (status(403, "Forbidden", psa), Kind::Failed, "violates PodSecurity"),
            (status(422, "Invalid", "spec.x: Required value"), Kind::Failed, "spec.x: Required value"),
            (status(409, "Conflict", "object has been modified"), Kind::Failed, "has been modified"),
            (status(503, "ServiceUnavailable", "etcd down"), Kind::Unavailable, "etcd down"),
            (status(500, "ServerTimeout", "try again"), Kind::Unavailable, "try again"),
            (status(404, "NotFound", ""), Kind::Failed, "HTTP status 404"),
        ];
        for (status, kind, text) in cases {
            let error = from_kube("Deployment velero/velero", kube::Error::Api(Box::new(status)));
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.what.starts_with("Deployment velero/velero: "), "{error}");
            assert!(error.what.contains(text), "{error} should say {text}");
        }
    }

    #[test]
    fn a_conflict_names_the_other_manager_and_the_fields() {
        let cause = |manager: &str, field: &str| StatusCause {
            reason: "FieldManagerConflict".into(),
            message: format!("conflict with {manager}"),
            field: field.into(),
        };
        let conflict = |causes| {
            let details = StatusDetails {
                name: String::new(),
                group: String::new(),
                kind: String::new(),
                uid: String::new(),
                causes,
                retry_after_seconds: 0,
            };
            status(409, "Conflict", "Apply failed with 2 conflicts").with_details(details)
        };
        let other = conflict(vec![
            cause("\"kubectl-edit\" using apps/v1", ".spec.replicas"),
            cause("\"kubectl-edit\" using apps/v1", ".spec.paused"),
        ]);
        assert!(!Conflict::of(&other).is_some_and(|c| c.is_own()));
        let error = from_kube("Deployment a/b", kube::Error::Api(Box::new(other)));
        assert_eq!(error.kind, Kind::Refused);
        assert_eq!(
            error.what,
            "Deployment a/b: \"kubectl-edit\" using apps/v1 manages .spec.replicas, .spec.paused"
        );
        let own = conflict(vec![cause("\"nodeprep\" using v1", ".data.cloud")]);
        assert!(Conflict::of(&own).is_some_and(|c| c.is_own()));
        let both = conflict(vec![cause("\"nodeprep\" using v1", ".a"), cause("\"helm\" using v1", ".b")]);
        assert!(!Conflict::of(&both).is_some_and(|c| c.is_own()));
    }

    #[test]
    fn a_broken_connection_is_unavailable_and_a_wrong_authority_is_invalid() {
        for (text, kind) in [
            (
                "client error (Connect): tcp connect error: Connection refused (os error 111)",
                Kind::Unavailable,
            ),
            ("client error (Connect): invalid peer certificate: UnknownIssuer", Kind::Invalid),
        ] {
            let error = from_kube("context lab", kube::Error::Service(text.into()));
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.hint.is_some());
        }
    }
}
