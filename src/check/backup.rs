//! Backups have somewhere to go: Velero runs, its location answers, and its repository has a password of its own.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};

use super::provisioner::{Workload, standing, workloads_of};
use super::wait::{Look, until};
use super::{Check, Per, Run, Stop, Subject, broken};
use crate::cluster::{Standing, Steady, store};
use crate::event::Verdict;

pub const CHECK: Check = Check {
    id: "backup",
    title: "Velero runs, and its backup location answers",
    per: Per::Cluster,
    needs: &[],
    judge: |run, subject| Box::pin(judge(run, subject)),
};

const LOCATION: &str = "default";
/// Velero validates a location every minute (its default); older than this, it has stopped.
const FRESH: SignedDuration = SignedDuration::from_mins(5);
const REPOSITORY_SECRET: &str = "velero-repo-credentials";
/// The public password that Velero makes when it finds none (velero.io, file-system backup).
const PUBLIC_PASSWORD: &[u8] = b"static-passw0rd";
/// The name that Velero's server looks for on its nodes.
const NODE_AGENT: &str = "node-agent";

async fn judge(run: &Run<'_>, subject: &Subject<'_>) -> Result<Verdict, Stop> {
    let Some(backup) = &run.ctx.intent.backup else {
        return Ok(Verdict::skip("the file asks for no backup"));
    };
    let namespace = backup.namespace.as_str();
    let limit = run.ctx.intent.validation.timeout.std();
    let steady = tokio::sync::Mutex::new(Steady::default());
    let ready = until(&subject.events, "Velero to be ready", limit, || async {
        running(run, namespace, &mut *steady.lock().await).await
    });
    if let Err(last) = ready.await? {
        let hint = format!(
            "`kubectl -n {namespace} describe pods` says more; node-agent needs the namespace's label \
                            pod-security.kubernetes.io/enforce=privileged"
        );
        return Ok(Verdict::fail(last, hint));
    }
    repository_password(run, namespace).await?;
    let located = until(&subject.events, "the backup location to be validated", limit, || async {
        location(&read_location(run, namespace).await?, run.ctx.time())
    });
    Ok(match located.await? {
        Ok(summary) => Verdict::pass(summary),
        Err(last) => {
            Verdict::fail(last, format!("read Velero's log: kubectl -n {namespace} logs deployment/velero"))
        }
    })
}

/// Whether the server and the agents are ready, and stay so.
async fn running(run: &Run<'_>, namespace: &str, steady: &mut Steady) -> Result<Look<()>, Stop> {
    let all = workloads_of(run, namespace).await?;
    let name =
        |workload: &Workload| workload.object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let (servers, agents): (Vec<Workload>, Vec<Workload>) =
        all.into_iter().partition(|workload| workload.kind == "Deployment");
    let server = servers.into_iter().find(|server| {
        let labels = &server.object["metadata"]["labels"];
        name(server) == "velero"
            || ["app.kubernetes.io/name", "component"].iter().any(|key| labels[*key] == "velero")
    });
    let Some(server) = server else {
        return Err(Stop::fail(format!("Velero's server is not in namespace {namespace}"), INSTALL));
    };
    let Some(agents) = agents.into_iter().find(|agents| name(agents) == NODE_AGENT) else {
        return Err(Stop::fail(
            format!(
                "there is no DaemonSet {NODE_AGENT} in namespace {namespace}: local volumes can't be backed up"
            ),
            "install it with `nodeprep apply` (Helm: `deployNodeAgent: true`)",
        ));
    };
    Ok(match standing(run, &[server, agents], steady).await? {
        Standing::Ready => Look::Done(()),
        Standing::NotYet(why) | Standing::Stuck(why) => Look::NotYet(why),
    })
}

const INSTALL: &str = "install Velero with `nodeprep apply`, or correct `backup.namespace`";

/// The repository's password must be there and not be the one that everybody knows. It is never shown.
async fn repository_password(run: &Run<'_>, namespace: &str) -> Result<(), Stop> {
    let secrets = Api::<Secret>::namespaced(run.ctx.cluster.client(), namespace);
    let secret = secrets.get_opt(REPOSITORY_SECRET).await;
    let secret = secret.map_err(broken(format!("can't read Secret {namespace}/{REPOSITORY_SECRET}")))?;
    match password_fault(secret.as_ref()) {
        None => Ok(()),
        Some((why, hint)) => Err(Stop::fail(format!("Secret {namespace}/{REPOSITORY_SECRET} {why}"), hint)),
    }
}

fn password_fault(secret: Option<&Secret>) -> Option<(&'static str, &'static str)> {
    let hint = "put a Secret velero-repo-credentials with key `repository-password` of your own into \
                `backup.secrets` (SOPS) before the first backup";
    let Some(secret) = secret else { return Some(("is missing: Velero would use its public default", hint)) };
    match secret.data.as_ref().and_then(|data| data.get("repository-password")) {
        Some(password) if password.0.trim_ascii() == PUBLIC_PASSWORD => Some((
            "holds Velero's public default password: anybody who can read the bucket can read the backups",
            "a repository's password can't be changed: make a new bucket or prefix, put your own password into \
             `backup.secrets` (SOPS), delete the Secret and the BackupRepository objects, and back up again",
        )),
        Some(password) if !password.0.trim_ascii().is_empty() => None,
        _ => Some(("has no `repository-password`", hint)),
    }
}

async fn read_location(run: &Run<'_>, namespace: &str) -> Result<DynamicObject, Stop> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("velero.io", "v1", "BackupStorageLocation"));
    let api = Api::<DynamicObject>::namespaced_with(run.ctx.cluster.client(), namespace, &kind);
    let found = api.get_opt(LOCATION).await;
    let found = found.map_err(broken(format!("can't read BackupStorageLocation {namespace}/{LOCATION}")))?;
    found.ok_or_else(|| {
        Stop::fail(format!("there is no BackupStorageLocation {namespace}/{LOCATION}"), INSTALL)
    })
}

/// What the location's status says.
fn location(location: &DynamicObject, now: Timestamp) -> Result<Look<String>, Stop> {
    let status = &location.data["status"];
    let text = |key: &str| status[key].as_str().unwrap_or_default();
    match text("phase") {
        "Available" => {
            let validated: Option<Timestamp> = text("lastValidationTime").parse().ok();
            match validated.map(|at| now.duration_since(at)) {
                Some(age) if age <= FRESH => Ok(Look::Done(format!("location {LOCATION} is Available"))),
                Some(age) => Ok(Look::NotYet(format!("location {LOCATION} was last validated {age:#} ago"))),
                None => Ok(Look::NotYet(format!("location {LOCATION} says Available, but not since when"))),
            }
        }
        "Unavailable" => {
            let message = text("message");
            Err(Stop::fail(format!("location {LOCATION} is Unavailable: {message}"), location_hint(message)))
        }
        phase => Ok(Look::NotYet(format!(
            "location {LOCATION} is {}",
            if phase.is_empty() { "new" } else { phase }
        ))),
    }
}

fn location_hint(message: &str) -> &'static str {
    store::refusal(message).map_or("check the bucket, the URL and the Secret cloud-credentials", |r| r.hint)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judged(status: Value) -> Result<Look<String>, Stop> {
        let object = json!({ "apiVersion": "velero.io/v1", "kind": "BackupStorageLocation",
            "metadata": { "name": "default" }, "status": status });
        location(&serde_json::from_value(object).unwrap(), "2026-11-21T10:00:00Z".parse().unwrap())
    }

    #[test]
    fn only_a_location_validated_of_late_is_available() {
        let at = |time: &str| json!({ "phase": "Available", "lastValidationTime": time });
        assert!(matches!(judged(at("2026-11-21T09:59:10Z")), Ok(Look::Done(_))));
        assert!(
            matches!(judged(at("2026-11-21T10:00:20Z")), Ok(Look::Done(_))),
            "the store's clock may be ahead"
        );
        for (status, word) in [
            (at("2026-11-21T09:50:00Z"), "last validated"),
            (json!({ "phase": "Available" }), "not since when"),
            (json!({}), "is new"),
            (Value::Null, "is new"),
        ] {
            let Ok(Look::NotYet(last)) = judged(status) else { panic!("{word}") };
            assert!(last.contains(word), "{last}");
        }
    }

    #[test]
    fn an_unavailable_location_fails_with_the_fix_for_its_message() {
        for (message, word) in [
            (
                "rpc error: code = Unknown desc = operation error S3: ListObjectsV2, StatusCode: 403, api error \
              InvalidAccessKeyId: The AWS Access Key Id you provided does not exist in our records.",
                "aws_access_key_id",
            ),
            ("api error SignatureDoesNotMatch: The request signature we calculated", "aws_secret_access_key"),
            ("api error NoSuchBucket: The specified bucket does not exist", "backup.location.bucket"),
            (
                "tls: failed to verify certificate: x509: certificate signed by unknown authority",
                "public authority",
            ),
            ("dial tcp: lookup s3.lan on 10.96.0.10:53: no such host", "DNS"),
            ("api error RequestTimeTooSkewed: The difference", "clock"),
            ("something new", "cloud-credentials"),
        ] {
            let Err(Stop::Fault { why, hint }) =
                judged(json!({ "phase": "Unavailable", "message": message }))
            else {
                panic!("{message}")
            };
            assert!(why.contains(message) && hint.contains(word), "{hint}");
        }
    }

    #[test]
    fn the_repositorys_password_must_be_ones_own_and_is_never_shown() {
        let secret = |data: Value| -> Secret {
            serde_json::from_value(json!({ "metadata": {}, "data": data })).unwrap()
        };
        assert!(
            password_fault(Some(&secret(json!({ "repository-password": "b3duIHNlY3JldA==" })))).is_none()
        );
        for (given, word) in [
            (None, "missing"),
            (Some(secret(json!({}))), "no `repository-password`"),
            (Some(secret(json!({ "repository-password": "" }))), "no `repository-password`"),
            (Some(secret(json!({ "repository-password": "c3RhdGljLXBhc3N3MHJk" }))), "public default"),
            (Some(secret(json!({ "repository-password": "c3RhdGljLXBhc3N3MHJkCg==" }))), "public default"),
        ] {
            let (why, hint) = password_fault(given.as_ref()).unwrap();
            assert!(why.contains(word) && hint.contains("backup.secrets"), "{why}");
            assert!(!why.contains("passw0rd") && !hint.contains("passw0rd"));
        }
    }
}
