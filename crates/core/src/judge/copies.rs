//! Copies of claims that something else than Velero keeps, by what its objects say.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::Value;

use super::coverage::{ClaimName, name_of};

/// What a copy is of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Claim(ClaimName),
    /// The claims of a CloudNativePG cluster, which carry its name in a label.
    Postgres(ClaimName),
}

/// On a claim: the name of the CloudNativePG cluster that it is of.
const POSTGRES: &str = "cnpg.io/cluster";

/// A copy, or an object that is to make some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherCopy {
    of: Source,
    /// The object that says so.
    pub by: String,
    /// When it was made; None where none was.
    pub at: Option<Timestamp>,
}

impl OtherCopy {
    pub fn is_of(&self, claim: &PersistentVolumeClaim) -> bool {
        let name = name_of(&claim.metadata);
        match &self.of {
            Source::Claim(of) => *of == name,
            Source::Postgres(cluster) => {
                let label = claim.metadata.labels.as_ref().and_then(|labels| labels.get(POSTGRES));
                cluster.namespace == name.namespace && label == Some(&cluster.name)
            }
        }
    }
}

/// A kind of which the objects tell of copies.
#[derive(Debug)]
pub struct Keeper {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub copies: fn(&Value) -> Vec<OtherCopy>,
}

/// Everything that is known to keep copies.
/// Source: backube/volsync api/v1alpha1 (ReplicationSource), home-operations/kopiur crates/api (Snapshot), cloudnative-pg api/v1
/// (Backup).
pub const KEEPERS: [Keeper; 3] = [
    Keeper { api_version: "volsync.backube/v1alpha1", kind: "ReplicationSource", copies: volsync },
    Keeper { api_version: "kopiur.home-operations.com/v1alpha1", kind: "Snapshot", copies: kopiur },
    Keeper { api_version: "postgresql.cnpg.io/v1", kind: "Backup", copies: postgres },
];

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// What an object says of a copy: made at the time at this place, if all went well.
fn copy(object: &Value, tool: &str, of: Source, well: bool, at: &str) -> OtherCopy {
    let part = |key: &str| text(object, key).unwrap_or_default();
    let by = format!("{tool} ({} {})", part("/kind"), part("/metadata/name"));
    OtherCopy { of, by, at: text(object, at).filter(|_| well).and_then(|at| at.parse().ok()) }
}

fn in_namespace_of(object: &Value, name: &str) -> ClaimName {
    let namespace = text(object, "/metadata/namespace").unwrap_or_default().to_owned();
    ClaimName { namespace, name: name.to_owned() }
}

fn volsync(object: &Value) -> Vec<OtherCopy> {
    let well = text(object, "/status/latestMoverStatus/result").is_none_or(|result| result == "Successful");
    let claim = text(object, "/spec/sourcePVC").map(|claim| Source::Claim(in_namespace_of(object, claim)));
    claim.into_iter().map(|of| copy(object, "volsync", of, well, "/status/lastSyncTime")).collect()
}

fn kopiur(object: &Value) -> Vec<OtherCopy> {
    let well = text(object, "/status/phase") == Some("Succeeded")
        && object
            .pointer("/status/stats/filesFailed")
            .and_then(Value::as_i64)
            .is_none_or(|failed| failed == 0);
    let sources = object.pointer("/status/resolved/sources").and_then(Value::as_array);
    let claims = sources.into_iter().flatten().filter_map(|source| text(source, "/pvc")?.split_once('/'));
    let claims =
        claims.map(|(namespace, name)| ClaimName { namespace: namespace.to_owned(), name: name.to_owned() });
    claims.map(|claim| copy(object, "kopiur", Source::Claim(claim), well, "/status/timing/endTime")).collect()
}

fn postgres(object: &Value) -> Vec<OtherCopy> {
    let well = text(object, "/status/phase") == Some("completed");
    let cluster =
        text(object, "/spec/cluster/name").map(|name| Source::Postgres(in_namespace_of(object, name)));
    cluster.into_iter().map(|of| copy(object, "CloudNativePG", of, well, "/status/stoppedAt")).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_copy_counts_for_its_claim_and_only_when_its_object_says_that_all_went_well() {
        let metadata = json!({"name": "x", "namespace": "a"});
        let claim = |labels: Value| -> PersistentVolumeClaim {
            from_value(json!({"metadata": {"name": "data", "namespace": "a", "labels": labels}})).unwrap()
        };
        let at = "2026-11-20T02:00:00Z";
        let volsync = |result: &str| {
            json!({"metadata": metadata, "spec": {"sourcePVC": "data"},
                   "status": {"lastSyncTime": at, "latestMoverStatus": {"result": result}}})
        };
        let kopiur = |phase: &str, failed: i64| {
            json!({"metadata": metadata, "status": {"phase": phase, "timing": {"endTime": at},
                   "stats": {"filesFailed": failed}, "resolved": {"sources": [{"pvc": "a/data"}]}}})
        };
        let postgres = |phase: &str| {
            json!({"metadata": metadata, "spec": {"cluster": {"name": "db"}},
                   "status": {"phase": phase, "stoppedAt": at}})
        };
        let of_db = json!({POSTGRES: "db"});
        for (keeper, object, labels, good) in [
            (0, volsync("Successful"), json!({}), Some(true)),
            (0, volsync("Failed"), json!({}), Some(false)),
            (1, kopiur("Succeeded", 0), json!({}), Some(true)),
            (1, kopiur("Succeeded", 1), json!({}), Some(false)),
            (1, kopiur("Failed", 0), json!({}), Some(false)),
            (2, postgres("completed"), of_db.clone(), Some(true)),
            (2, postgres("failed"), of_db, Some(false)),
            (2, postgres("completed"), json!({POSTGRES: "other"}), None),
        ] {
            let copies = (KEEPERS[keeper].copies)(&object);
            let of_it: Vec<_> = copies.iter().filter(|copy| copy.is_of(&claim(labels.clone()))).collect();
            assert_eq!(of_it.first().map(|copy| copy.at.is_some()), good, "{object}");
        }
        for keeper in KEEPERS {
            assert_eq!((keeper.copies)(&json!({"metadata": metadata})), []);
        }
    }
}
