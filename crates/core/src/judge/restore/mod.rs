//! What a restore is to bring back, and whether it did: volume by volume, never by its phase alone.
//! Source: velero-io/velero pkg/restore/restore.go, pkg/podvolume/restorer.go (v1.18).

mod contents;
mod obstacles;

use std::collections::BTreeMap;

pub use contents::{Contents, Entry};
pub use obstacles::{Live, Obstacles, named, obstacles};

use super::backup::ReadVolume;
use super::coverage::ClaimName;
use super::pods::some;
use super::velero::kinds::{Bytes, PodVolumeRestore, Restore};

/// On a PodVolumeRestore: the uid of its restore.
pub const RESTORE_UID: &str = "velero.io/restore-uid";
/// On a Restore that nodeprep made: all that it was asked for by, and what came of it. Without the second, nobody has judged it yet.
pub const REQUEST: &str = "nodeprep.dev/request";
pub const JUDGED: &str = "nodeprep.dev/judged";

/// Which part of a backup is restored, and as what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreScope {
    /// The namespaces of the backup; none means all.
    pub namespaces: Vec<String>,
    /// Namespaces that are not restored: what is in them is of this cluster's own installation.
    pub left_out: Vec<String>,
    /// The new name of a namespace, by its old one.
    pub mappings: BTreeMap<String, String>,
    /// The new StorageClass of claims, by their old one.
    pub classes: BTreeMap<String, String>,
}

impl RestoreScope {
    pub fn takes(&self, namespace: &str) -> bool {
        let named = |names: &[String]| names.iter().any(|name| name == namespace);
        !named(&self.left_out) && (self.namespaces.is_empty() || named(&self.namespaces))
    }

    /// The namespace that what was in this one goes to.
    pub fn target<'a>(&'a self, namespace: &'a str) -> &'a str {
        self.mappings.get(namespace).map_or(namespace, String::as_str)
    }

    /// Where something goes that was called `namespace/name`.
    fn place(&self, name: &str) -> ClaimName {
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        ClaimName { namespace: self.target(namespace).to_owned(), name: name.to_owned() }
    }

    /// The claim that a volume comes back as.
    pub fn claim(&self, volume: &ReadVolume) -> Option<ClaimName> {
        volume.claim.as_deref().map(|claim| self.place(claim))
    }

    fn pod(&self, volume: &ReadVolume) -> ClaimName {
        self.place(&volume.pod)
    }
}

/// Velero does nothing more with it.
pub fn has_ended(restore: &Restore) -> bool {
    matches!(phase(restore), "Completed" | "PartiallyFailed" | "Failed" | "FailedValidation")
}

/// What Velero calls its state; `New` where it has not looked at it.
pub fn phase(restore: &Restore) -> &str {
    let phase = restore.status.as_ref().map_or("", |status| some(&status.phase));
    if phase.is_empty() { "New" } else { phase }
}

/// Whether it was asked for in these words, and nobody has judged it.
pub fn is_open(restore: &Restore, words: &str) -> bool {
    let note = |key: &str| restore.metadata.annotations.as_ref().and_then(|all| all.get(key));
    note(REQUEST).is_some_and(|request| request == words) && note(JUDGED).is_none()
}

/// What is said when a Restore is not begun anew.
pub fn gone_on_with(name: &str) -> String {
    format!("restore {name} was begun by a run that was cut off: it is gone on with")
}

/// What came back of a restore that has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Returned {
    /// The volumes whose files are back, and their bytes together.
    pub volumes: usize,
    pub bytes: u64,
    /// What did not come back, one line each.
    pub faults: Vec<String>,
}

/// Judges a restore that has ended by its phase, its errors, and each volume by what was written into it. `claims` are those that
/// exist now.
pub fn returned(
    restore: &Restore,
    volumes: &[PodVolumeRestore],
    wanted: &[ReadVolume],
    scope: &RestoreScope,
    claims: &[ClaimName],
) -> Returned {
    let status = restore.status.clone().unwrap_or_default();
    let mut returned = Returned::default();
    if phase(restore) != "Completed" {
        let reasons = status.validation_errors.iter().flatten().chain(&status.failure_reason);
        let said: String = reasons.map(|reason| format!(": {reason}")).collect();
        returned.faults.push(format!("it is {}{said}", phase(restore)));
    }
    if let Some(errors) = status.errors.filter(|errors| *errors != 0) {
        returned.faults.push(format!("Velero counts {errors} errors"));
    }
    for volume in wanted {
        let gone = scope.claim(volume).filter(|claim| !claims.contains(claim));
        let came = match (&gone, &volume.fault, volume.bytes) {
            (_, Some(why), _) => Err(format!("its files are not in the backup: {why}")),
            (Some(claim), None, _) => Err(format!("there is no claim {claim}")),
            (None, None, None) => Ok(0),
            (None, None, Some(bytes)) => written(volume, bytes, volumes, scope),
        };
        match came {
            Ok(bytes) => {
                returned.volumes += 1;
                returned.bytes = returned.bytes.saturating_add(bytes);
            }
            Err(why) => returned.faults.push(format!("{volume}: {why}")),
        }
    }
    returned
}

/// The bytes of a volume that were written, or why not all of them.
fn written(
    wanted: &ReadVolume,
    bytes: u64,
    volumes: &[PodVolumeRestore],
    scope: &RestoreScope,
) -> Result<u64, String> {
    let pod = scope.pod(wanted);
    let is_it = |volume: &&PodVolumeRestore| {
        let of = &volume.spec.pod;
        some(&volume.spec.snapshot_id) == wanted.snapshot
            && (some(&of.namespace), some(&of.name)) == (pod.namespace.as_str(), pod.name.as_str())
    };
    let Some(volume) = volumes.iter().find(is_it) else {
        return Err(format!("nothing was written: Velero made no pod {pod} that waits for it"));
    };
    let status = volume.status.clone().unwrap_or_default();
    let said = some(&status.message);
    match (some(&status.phase), status.progress.unwrap_or_default()) {
        ("Completed", Bytes { bytes_done, total_bytes })
            if bytes_done == total_bytes && bytes_done >= bytes =>
        {
            Ok(bytes_done)
        }
        ("Completed", Bytes { bytes_done, .. }) => Err(format!("{bytes_done} of {bytes} bytes were written")),
        (phase, _) => {
            let phase = if phase.is_empty() { "New" } else { phase };
            Err(format!("it is {phase}{}{said}", if said.is_empty() { "" } else { ": " }))
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn wanted() -> ReadVolume {
        ReadVolume {
            claim: Some("a/data".into()),
            pod: "a/p".into(),
            volume: "v".into(),
            bytes: Some(7),
            snapshot: "s".into(),
            ..ReadVolume::default()
        }
    }

    fn volume(status: Value) -> PodVolumeRestore {
        let spec = json!({"pod": {"namespace": "b", "name": "p"}, "volume": "v", "snapshotID": "s"});
        from_value(json!({"spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn a_restore_is_good_only_when_every_volume_of_the_backup_was_written_whole() {
        let (all, scope) =
            (json!({"totalBytes": 7, "bytesDone": 7}), json!({"totalBytes": 7, "bytesDone": 6}));
        let less = json!({"totalBytes": 6, "bytesDone": 6});
        let done = |progress: &Value| json!({"phase": "Completed", "progress": progress});
        let completed = json!({"phase": "Completed"});
        let failed = json!({"phase": "Failed", "message": "no space", "progress": scope});
        let empty = ReadVolume { bytes: None, ..wanted() };
        let lost = ReadVolume { fault: Some("it is Failed".into()), bytes: None, ..wanted() };
        let elsewhere = ReadVolume { pod: "a/q".into(), ..wanted() };
        let other = ReadVolume { snapshot: "t".into(), ..wanted() };
        let unclaimed = ReadVolume { claim: None, ..wanted() };
        for (restore, written, wanted, fault) in [
            (completed.clone(), vec![volume(done(&all))], wanted(), None),
            (completed.clone(), vec![volume(done(&all))], unclaimed, None),
            (completed.clone(), vec![], empty, None),
            (completed.clone(), vec![], wanted(), Some("claim a/data: nothing was written")),
            (completed.clone(), vec![volume(done(&all))], elsewhere, Some("no pod b/q")),
            (completed.clone(), vec![volume(done(&all))], other, Some("nothing was written")),
            (completed.clone(), vec![volume(done(&scope))], wanted(), Some("6 of 7 bytes")),
            (completed.clone(), vec![volume(done(&less))], wanted(), Some("6 of 7 bytes")),
            (completed.clone(), vec![volume(failed)], wanted(), Some("claim a/data: it is Failed: no space")),
            (completed.clone(), vec![volume(json!({}))], wanted(), Some("it is New")),
            (completed, vec![], lost, Some("its files are not in the backup: it is Failed")),
            (
                json!({"phase": "Completed", "errors": 1}),
                vec![volume(done(&all))],
                wanted(),
                Some("1 errors"),
            ),
            (
                json!({"phase": "FailedValidation", "validationErrors": ["x", "y"]}),
                vec![volume(done(&all))],
                wanted(),
                Some("it is FailedValidation: x: y"),
            ),
        ] {
            let restore: Restore = from_value(json!({"status": restore})).unwrap();
            let scope =
                RestoreScope { mappings: [("a".into(), "b".into())].into(), ..RestoreScope::default() };
            let there = [ClaimName { namespace: "b".into(), name: "data".into() }];
            let came = returned(&restore, &written, &[wanted], &scope, &there);
            assert_eq!(came.faults.is_empty(), fault.is_none(), "{came:?} {fault:?}");
            assert!(came.faults.join("; ").contains(fault.unwrap_or_default()), "{came:?} {fault:?}");
        }
        let restore: Restore = from_value(json!({"status": {"phase": "Completed"}})).unwrap();
        let came = returned(&restore, &[volume(done(&all))], &[wanted()], &RestoreScope::default(), &[]);
        assert_eq!(came.faults, ["claim a/data: there is no claim a/data"]);
    }
}
