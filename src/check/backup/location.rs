//! What Velero says of its location and of the repositories in it.

use jiff::{SignedDuration, Timestamp};

use super::super::wait::Look;
use super::{Finding, Stop};
use crate::error::Code;
use crate::judge::store::{StoreAddress, advice};
use crate::judge::velero::Location;
use crate::judge::velero::kinds::{BackupRepository, BackupStorageLocation};
use crate::model::said::{self, By};

/// Velero validates a location every minute (its default); older than this, it has stopped.
const FRESH: SignedDuration = SignedDuration::from_mins(5);

/// What the location's status says.
pub(super) fn judge(location: &BackupStorageLocation, now: Timestamp) -> Result<Look<String>, Stop> {
    let name = location.metadata.name.as_deref().unwrap_or_default();
    let stands = Location::of(location);
    Ok(match stands {
        Location::Available { validated: Some(at) } => match now.duration_since(at) {
            age if age <= FRESH => Look::Done(format!("location {name} is Available")),
            age => Look::not_yet(format!("location {name} was last validated {age:#} ago")),
        },
        Location::Available { validated: None } => {
            Look::not_yet(format!("location {name} says Available, but not since when"))
        }
        Location::Other { phase: "Unavailable", message } => {
            let hint = stands.advice(location).map_or_else(
                || "check the bucket, the URL and the Secret cloud-credentials (or as `backup.credentialsSecret` names it)".to_owned(),
                |advice| advice.hint,
            );
            return Err(Stop::fail(format!("location {name} is Unavailable: {message}"), hint));
        }
        Location::Outdated { phase } => Look::not_yet(format!(
            "location {name} was {phase} before its last change; Velero has not looked again yet"
        )),
        Location::Other { phase, .. } => Look::not_yet(format!("location {name} is {phase}")),
        Location::New => Look::not_yet(format!("location {name} is new")),
    })
}

/// What is wrong with the repository of a namespace's volumes.
pub(super) fn repository(repository: &BackupRepository, store: &StoreAddress) -> Option<Finding> {
    let status = repository.status.as_ref().filter(|status| status.phase.as_deref() == Some("NotReady"))?;
    let namespace = repository.spec.volume_namespace.as_deref().unwrap_or_default();
    let message = status.message.as_deref().unwrap_or_default();
    let hint = if said::code(By::Velero, message) == Some(Code::WrongPassword) {
        "put the password that the repository was made with back into the Secret velero-repo-credentials; without it, \
         its backups can't be read"
            .to_owned()
    } else {
        let known = advice(message, store);
        known.map_or_else(
            || "no volume of that namespace is backed up until it is Ready: see what it says".into(),
            |advice| advice.hint,
        )
    };
    Some(Finding::fault(
        format!("the backup repository of namespace {namespace} is NotReady: {message}"),
        hint,
    ))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::wait::Open;

    fn judged(status: Value) -> Result<Look<String>, Stop> {
        let object = json!({ "apiVersion": "velero.io/v1", "kind": "BackupStorageLocation",
            "metadata": { "name": "default" }, "status": status });
        judge(&from_value(object).unwrap(), "2026-11-21T10:00:00Z".parse().unwrap())
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
            let Ok(Look::NotYet(Open { why: last, .. })) = judged(status) else { panic!("{word}") };
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
    fn a_repository_that_is_not_ready_is_a_fault_with_its_message() {
        let of = |phase: &str, message: &str| {
            let spec = json!({"volumeNamespace": "databases", "backupStorageLocation": "default"});
            let object = json!({"spec": spec, "status": {"phase": phase, "message": message}});
            repository(&from_value(object).unwrap(), &StoreAddress::default())
        };
        assert_eq!(of("Ready", ""), None);
        assert_eq!(of("New", ""), None);
        for (message, word) in [
            ("error to connect: invalid repository password", "made with"),
            ("disk on fire", "until it is Ready"),
        ] {
            let Some(Finding::Fault { why, hint }) = of("NotReady", message) else { panic!("{message}") };
            assert!(
                why.contains("databases") && why.contains(message) && hint.contains(word),
                "{why}: {hint}"
            );
        }
    }
}
