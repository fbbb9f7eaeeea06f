//! How each claim of a cluster is protected: by a backup that holds its files, which is fresh, and will be made again.
//!
//! What counts is what was read of the claim (PodVolumeBackups), never what a backup calls itself; and that what reads the claim
//! next is known: a schedule takes it, through a pod that runs where Velero's agent does.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;

use super::backup::{Evidence, began, evidence, has_ended, phase, schedule_of};
use super::copies::OtherCopy;
use super::coverage::{ClaimName, Covered, LeftOut, Lists, covered, is_in, name_of, users};
use super::selection::Selection;
use super::velero::kinds::{self, PodVolumeBackup};
use super::velero::{Phase, Schedule};
use crate::intent::{Backup, Cron, fits};

/// A backup may be so late: as long as the time between two, but neither less nor more than this.
const LEAST_LATE: SignedDuration = SignedDuration::from_hours(1);
const MOST_LATE: SignedDuration = SignedDuration::from_hours(6);

/// How late a backup that is due then may be.
pub fn may_be_late(cron: &Cron, due: Timestamp) -> SignedDuration {
    cron.next(due).map_or(MOST_LATE, |next| next.duration_since(due)).clamp(LEAST_LATE, MOST_LATE)
}

/// What a claim's protection is judged by.
#[derive(Debug)]
pub struct Facts<'a> {
    pub backup: &'a Backup,
    pub lists: &'a Lists,
    /// All in Velero's namespace.
    pub schedules: &'a [kinds::Schedule],
    /// Those in the file's locations, the newest first, each with the volumes that were read for it.
    pub backups: &'a [(kinds::Backup, Vec<PodVolumeBackup>)],
    pub others: &'a [OtherCopy],
    pub now: Timestamp,
}

/// The newest good backup of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastGood {
    pub backup: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    pub location: String,
    pub at: Timestamp,
    /// None when it had no files.
    pub bytes: Option<u64>,
}

/// How a claim stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Nothing good holds its data, or nothing will go on doing so.
    Uncovered,
    /// The newest good backup is too old.
    Stale,
    /// Whether a schedule takes it can't be told, and no backup holds it so far.
    Unknown,
    /// A schedule takes it, and is not due yet.
    Due,
    /// A good backup holds it, and no schedule takes it.
    Unscheduled,
    /// A good backup found no files in it.
    Empty,
    Covered,
    /// Something else than Velero keeps copies of it.
    Elsewhere,
    /// The file says why it needs no backup.
    Excepted,
    /// It has no volume yet.
    Unbound,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uncovered => "UNCOVERED",
            Self::Stale => "STALE",
            Self::Unknown => "UNKNOWN",
            Self::Due => "due",
            Self::Unscheduled => "unscheduled",
            Self::Empty => "EMPTY",
            Self::Covered => "covered",
            Self::Elsewhere => "elsewhere",
            Self::Excepted => "excepted",
            Self::Unbound => "unbound",
        })
    }
}

impl Standing {
    /// Whether the claim's data would be lost with its disk, as far as is known.
    pub fn is_fault(self) -> bool {
        matches!(self, Self::Uncovered | Self::Stale | Self::Unknown)
    }

    /// Whether somebody should look at it.
    pub fn is_warning(self) -> bool {
        matches!(self, Self::Due | Self::Unscheduled | Self::Empty)
    }
}

/// What is known of one claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Protection {
    pub claim: ClaimName,
    pub standing: Standing,
    /// Why it stands so; empty where nothing is to be said.
    pub why: String,
    /// The schedules that take it.
    pub schedules: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<LastGood>,
}

/// Every claim of the lists, by name.
pub fn judge(facts: &Facts<'_>) -> Vec<Protection> {
    let mut found: Vec<Protection> = facts.lists.claims.iter().map(|claim| of_claim(facts, claim)).collect();
    found.sort_by(|a, b| a.claim.cmp(&b.claim));
    found
}

fn of_claim(facts: &Facts<'_>, claim: &PersistentVolumeClaim) -> Protection {
    let name = name_of(&claim.metadata);
    let takers = takers(facts, claim);
    let last = last_good(facts, claim);
    let (standing, why) = match excepted(facts.backup, &name) {
        Some(reason) => (Standing::Excepted, reason),
        None => match stands(facts, claim, &takers, last.as_ref()) {
            good @ (Standing::Covered | Standing::Empty | Standing::Unbound, _) => good,
            other => elsewhere(facts, claim).unwrap_or(other),
        },
    };
    let schedules = takers.sure.iter().map(|taker| taker.name.to_owned()).collect();
    Protection { claim: name, standing, why, schedules, last }
}

/// The reason that the file gives for leaving the claim without a backup.
fn excepted(backup: &Backup, claim: &ClaimName) -> Option<String> {
    let name = claim.to_string();
    let is = |patterns: &[String]| patterns.iter().any(|pattern| fits(pattern, &name));
    backup.exceptions.iter().find(|exception| is(&exception.claims)).map(|exception| exception.reason.clone())
}

/// A schedule that takes a claim.
struct Taker<'a> {
    name: &'a str,
    cron: Option<Cron>,
}

/// Which schedules take a claim.
#[derive(Default)]
struct Takers<'a> {
    sure: Vec<Taker<'a>>,
    /// Why it is not taken, by the schedule that comes nearest.
    why: Option<LeftOut>,
    /// Of whom it can't be told.
    unsure: Vec<String>,
}

fn takers<'a>(facts: &Facts<'a>, claim: &PersistentVolumeClaim) -> Takers<'a> {
    let mut takers = Takers::default();
    for live in facts.schedules {
        let Schedule { paused, phase } = Schedule::of(live);
        if paused || matches!(phase, Phase::Refused { .. }) {
            continue;
        }
        let name = live.metadata.name.as_deref().unwrap_or_default();
        let Ok(selection) = Selection::of(&live.spec.template) else {
            takers.unsure.push(format!("what schedule {name} takes can't be read"));
            continue;
        };
        if !selection.takes_volumes() || !is_in(&selection, claim, facts.lists) {
            continue;
        }
        match covered(&selection, claim, facts.lists) {
            Ok(_) if selection.has_policy() => {
                takers.unsure.push(format!("schedule {name} has a resource policy, which may leave it out"));
            }
            Ok(_) => {
                let line = live.spec.schedule.as_deref().unwrap_or_default();
                takers.sure.push(Taker { name, cron: Cron::parse(line).ok() });
            }
            Err(why) => takers.why = Some(why),
        }
    }
    takers
}

/// What a backup that has ended says of a claim: how many bytes, or what is wrong.
fn says(
    (backup, volumes): &(kinds::Backup, Vec<PodVolumeBackup>),
    wanted: &Covered,
) -> Result<Option<u64>, String> {
    let Evidence { claims, faults } = evidence(backup, volumes, std::slice::from_ref(wanted));
    match (faults.first(), claims.into_values().next()) {
        (None, Some(bytes)) => Ok(bytes),
        (fault, _) => Err(fault.cloned().unwrap_or_default()),
    }
}

/// The claim as it is looked for among what was read: by its uid.
fn wanted(claim: &PersistentVolumeClaim) -> Covered {
    let uid = claim.metadata.uid.clone().unwrap_or_default();
    Covered { claim: name_of(&claim.metadata), uid, pod: String::new(), volume: String::new() }
}

fn last_good(facts: &Facts<'_>, claim: &PersistentVolumeClaim) -> Option<LastGood> {
    let wanted = wanted(claim);
    let kept = |backup: &kinds::Backup| {
        let expires = backup.status.as_ref().and_then(|status| status.expiration.as_ref());
        phase(backup) != "Deleting" && expires.is_none_or(|expires| expires.0 > facts.now)
    };
    facts.backups.iter().filter(|(backup, _)| has_ended(backup) && kept(backup)).find_map(|found| {
        let bytes = says(found, &wanted).ok()?;
        let (backup, _) = found;
        Some(LastGood {
            backup: backup.metadata.name.clone().unwrap_or_default(),
            schedule: schedule_of(backup).map(str::to_owned),
            location: backup.spec.storage_location.clone().unwrap_or_default(),
            at: began(backup)?,
            bytes,
        })
    })
}

fn time(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|time| time.0)
}

fn stands(
    facts: &Facts<'_>,
    claim: &PersistentVolumeClaim,
    takers: &Takers<'_>,
    last: Option<&LastGood>,
) -> (Standing, String) {
    let left_out = covered(&Selection::everything(), claim, facts.lists).err();
    if left_out == Some(LeftOut::Unbound) {
        return (Standing::Unbound, String::new());
    }
    match (last, takers.sure.is_empty()) {
        (Some(last), taken) => {
            if let Some(why) = stale(facts, claim, takers, last) {
                return (Standing::Stale, why);
            }
            match left_out.as_ref().or(takers.why.as_ref()) {
                Some(why) if taken => (Standing::Uncovered, format!("no backup reads it any more: {why}")),
                None if taken => (Standing::Unscheduled, no_schedule(takers)),
                _ if last.bytes.is_none() => (Standing::Empty, "there were no files in it".into()),
                _ => (Standing::Covered, String::new()),
            }
        }
        (None, false) => due(facts, claim, takers),
        (None, true) => match left_out.as_ref().or(takers.why.as_ref()) {
            Some(why) => (Standing::Uncovered, why.to_string()),
            None if takers.unsure.is_empty() => (Standing::Uncovered, no_schedule(takers)),
            None => (Standing::Unknown, takers.unsure.join("; ")),
        },
    }
}

fn no_schedule(takers: &Takers<'_>) -> String {
    match takers.unsure.as_slice() {
        [] => "no schedule takes it".into(),
        unsure => unsure.join("; "),
    }
}

/// The claim as something else than Velero protects it; None where nothing does.
fn elsewhere(facts: &Facts<'_>, claim: &PersistentVolumeClaim) -> Option<(Standing, String)> {
    let copy = facts.others.iter().filter(|copy| copy.is_of(claim)).max_by_key(|copy| copy.at)?;
    let Some(at) = copy.at else {
        return Some((Standing::Uncovered, format!("{} has made no good copy of it so far", copy.by)));
    };
    Some(match too_old(facts, claim, at) {
        Some(rpo) => {
            (Standing::Stale, format!("{} made its last good copy at {at}, more than {rpo:#} ago", copy.by))
        }
        None => (Standing::Elsewhere, format!("{} made a copy at {at}", copy.by)),
    })
}

/// How old the claim's data in a backup may be, where the file says it and this is older.
fn too_old(facts: &Facts<'_>, claim: &PersistentVolumeClaim, since: Timestamp) -> Option<SignedDuration> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let of_it = facts.backup.rpo.iter().filter(|(pattern, _)| fits(pattern, namespace));
    let shortest = of_it.map(|(_, rpo)| rpo.0).min()?;
    let rpo = SignedDuration::from_secs(i64::try_from(shortest).unwrap_or(i64::MAX));
    (facts.now.duration_since(since) > rpo).then_some(rpo)
}

/// Why the newest good backup is not good enough any more.
fn stale(
    facts: &Facts<'_>,
    claim: &PersistentVolumeClaim,
    takers: &Takers<'_>,
    last: &LastGood,
) -> Option<String> {
    if let Some(rpo) = too_old(facts, claim, last.at) {
        return Some(format!("its last good backup is of {}, more than {rpo:#} ago", last.at));
    }
    if let Some((backup, fault)) = failed(facts, claim, takers, Some(last.at)) {
        return Some(format!("backup {backup}, the newest that should hold it, does not: {fault}"));
    }
    // With no schedule that is in time, none goes on protecting it.
    let in_time = |taker: &Taker<'_>| {
        let cron = taker.cron.as_ref()?;
        let due = cron.next(last.at)?;
        let limit = due.checked_add(may_be_late(cron, due)).ok()?;
        Some(facts.now <= limit)
    };
    let late = !takers.sure.is_empty() && takers.sure.iter().all(|taker| in_time(taker) == Some(false));
    late.then(|| format!("its last good backup is of {}, and its schedule was due since", last.at))
}

/// The newest backup of a schedule that takes the claim which should hold it, and does not. It was begun after `since`, and when
/// the pod that mounts the claim ran already.
fn failed(
    facts: &Facts<'_>,
    claim: &PersistentVolumeClaim,
    takers: &Takers<'_>,
    since: Option<Timestamp>,
) -> Option<(String, String)> {
    let ready = ready_since(facts, claim)?;
    let of_taker = |backup: &kinds::Backup| {
        schedule_of(backup).is_some_and(|name| takers.sure.iter().any(|taker| taker.name == name))
    };
    let newest = facts.backups.iter().find(|(backup, _)| {
        let began = began(backup);
        has_ended(backup) && of_taker(backup) && began > Some(ready) && began > since
    })?;
    let fault = says(newest, &wanted(claim)).err()?;
    Some((newest.0.metadata.name.clone().unwrap_or_default(), fault))
}

/// Since when the claim could be read: the latest of its own time and that of the first pod it is read through.
fn ready_since(facts: &Facts<'_>, claim: &PersistentVolumeClaim) -> Option<Timestamp> {
    let made = time(claim.metadata.creation_timestamp.as_ref());
    let name = name_of(&claim.metadata);
    let pods = users(&name, &facts.lists.pods).map(|(pod, _)| pod);
    let started = pods.filter_map(|pod| time(pod.status.as_ref()?.start_time.as_ref()));
    made.max(started.min())
}

/// A claim that no good backup holds, and that a schedule takes.
fn due(facts: &Facts<'_>, claim: &PersistentVolumeClaim, takers: &Takers<'_>) -> (Standing, String) {
    if let Some((backup, fault)) = failed(facts, claim, takers, None) {
        return (Standing::Uncovered, format!("backup {backup} should hold it, and does not: {fault}"));
    }
    let made = time(claim.metadata.creation_timestamp.as_ref()).unwrap_or(facts.now);
    if let Some(rpo) = too_old(facts, claim, made) {
        return (Standing::Uncovered, format!("it is older than {rpo:#}, and no good backup holds it"));
    }
    let firsts = takers.sure.iter().filter_map(|taker| {
        let cron = taker.cron.as_ref()?;
        let due = cron.next(made)?;
        Some((due, due.checked_add(may_be_late(cron, due)).ok()?, taker.name))
    });
    match firsts.min() {
        Some((due, limit, schedule)) if facts.now <= limit => {
            (Standing::Due, format!("its first backup, by schedule {schedule}, is due at {due}"))
        }
        Some((due, _, schedule)) => (
            Standing::Uncovered,
            format!("schedule {schedule} was due at {due}, and no good backup holds it"),
        ),
        None => (Standing::Uncovered, "the schedules that take it are never due".into()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::intent;
    use crate::judge::copies::KEEPERS;

    const NOW: &str = "2026-11-21T10:00:00Z";

    /// A cluster with one claim, `app/data`, that a pod mounts since the first of the month; a schedule takes it daily at 02:00.
    struct World {
        claim: Value,
        pod: Value,
        schedule: Value,
        backups: Vec<Value>,
        others: Vec<Value>,
        file: &'static str,
    }

    impl World {
        fn new(backups: Vec<Value>) -> Self {
            let since = "2026-11-01T00:00:00Z";
            Self {
                claim: json!({"metadata": {"name": "data", "namespace": "app", "uid": "u", "creationTimestamp": since},
                              "spec": {"volumeName": "pv"}}),
                pod: json!({"metadata": {"name": "p", "namespace": "app"}, "status": {"phase": "Running", "startTime": since},
                            "spec": {"nodeName": "n1", "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
                                     "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/d"}]}]}}),
                schedule: json!({"metadata": {"name": "daily"}, "status": {"phase": "Enabled"}, "spec": {
                    "schedule": "0 2 * * *", "template": {"includedNamespaces": ["*"], "defaultVolumesToFsBackup": true}}}),
                backups,
                others: Vec::new(),
                file: "",
            }
        }

        fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
            change(&mut self);
            self
        }

        fn judged(self) -> Protection {
            let text = format!(
                "apiVersion: nodeprep.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: lab}}\n\
                 backup:\n  location: {{bucket: velero, region: x}}\n  secrets: [a]\n{}",
                self.file
            );
            let intent = intent::parse("nodeprep.yaml", text.as_bytes()).unwrap();
            let lists = Lists {
                claims: vec![from_value(self.claim).unwrap()],
                pods: vec![from_value(self.pod).unwrap()],
                volumes: Vec::new(),
                agents: BTreeSet::from(["n1".to_owned()]),
            };
            let backups = self.backups.into_iter().map(|backup| {
                let volumes = backup["volumes"].as_array().unwrap().clone();
                (
                    from_value(backup).unwrap(),
                    volumes.into_iter().map(|one| from_value(one).unwrap()).collect(),
                )
            });
            let (backups, schedule) = (backups.collect::<Vec<_>>(), from_value(self.schedule).unwrap());
            let facts = Facts {
                backup: &intent.backup.unwrap(),
                lists: &lists,
                schedules: &[schedule],
                backups: &backups,
                others: &self.others.iter().flat_map(KEEPERS[0].copies).collect::<Vec<_>>(),
                now: NOW.parse().unwrap(),
            };
            judge(&facts).remove(0)
        }
    }

    /// A backup of the schedule, begun then, that ended so; with what was read of the claim.
    fn backup(at: &str, phase: &str, read: Value) -> Value {
        json!({"metadata": {"name": format!("daily-{at}"), "labels": {"velero.io/schedule-name": "daily"}},
               "spec": {"storageLocation": "default"}, "status": {"phase": phase, "startTimestamp": at},
               "volumes": if read.is_null() { vec![] } else { vec![read] }})
    }

    fn read(bytes: u64) -> Value {
        json!({"metadata": {"labels": {"velero.io/pvc-uid": "u"}}, "status": {
            "phase": "Completed", "snapshotID": "s", "progress": {"totalBytes": 8, "bytesDone": bytes}}})
    }

    fn good(at: &str) -> Value {
        backup(at, "Completed", read(8))
    }

    fn table(cases: Vec<(&str, World, Standing, &str)>) {
        for (case, world, standing, why) in cases {
            let found = world.judged();
            assert_eq!(found.standing, standing, "{case}: {found:?}");
            assert!(found.why.contains(why), "{case}: {found:?}");
        }
    }

    const LAST: &str = "2026-11-21T02:00:05Z";
    const BEFORE: &str = "2026-11-20T02:00:05Z";

    #[test]
    fn a_claim_is_covered_only_while_a_good_backup_holds_it_and_a_schedule_goes_on() {
        let found = World::new(vec![good(LAST), good(BEFORE)]).judged();
        let last = found.last.clone().unwrap();
        assert_eq!(
            (found.standing, last.bytes, last.at.to_string().as_str()),
            (Standing::Covered, Some(8), LAST)
        );
        assert_eq!((found.schedules, last.schedule.as_deref()), (vec!["daily".to_owned()], Some("daily")));
        let empty = json!({"metadata": {"labels": {"velero.io/pvc-uid": "u"}}, "status": {
            "phase": "Completed", "message": "volume was empty so no snapshot was taken"}});
        let of_another =
            json!({"metadata": {"labels": {"velero.io/pvc-uid": "other"}}, "status": read(8)["status"]});
        table(vec![
            ("empty", World::new(vec![backup(LAST, "Completed", empty)]), Standing::Empty, "no files"),
            (
                "never read",
                World::new(vec![backup(LAST, "Completed", Value::Null)]),
                Standing::Uncovered,
                "no volume of it was read",
            ),
            (
                "another claim of that name",
                World::new(vec![backup(LAST, "Completed", of_another)]),
                Standing::Uncovered,
                "should hold it",
            ),
            (
                "half read",
                World::new(vec![backup(LAST, "Completed", read(7))]),
                Standing::Uncovered,
                "7 of 8 bytes",
            ),
            (
                "in a partial backup",
                World::new(vec![backup(LAST, "PartiallyFailed", read(8))]),
                Standing::Uncovered,
                "PartiallyFailed",
            ),
            (
                "lost in the newest",
                World::new(vec![backup(LAST, "Completed", Value::Null), good(BEFORE)]),
                Standing::Stale,
                "does not: claim app/data",
            ),
            (
                "newest still running",
                World::new(vec![backup(LAST, "InProgress", Value::Null), good(BEFORE)]),
                Standing::Stale,
                "was due since",
            ),
            ("overdue", World::new(vec![good(BEFORE)]), Standing::Stale, "was due since"),
            (
                "expired",
                World::new(vec![good(LAST)]).with(|world| {
                    world.backups[0]["status"]["expiration"] = json!("2026-11-21T09:00:00Z");
                }),
                Standing::Uncovered,
                "was due at",
            ),
            ("none so far", World::new(vec![]), Standing::Uncovered, "was due at 2026-11-01T02:00:00Z"),
            (
                "new",
                World::new(vec![]).with(|world| {
                    world.claim["metadata"]["creationTimestamp"] = json!("2026-11-21T09:00:00Z")
                }),
                Standing::Due,
                "by schedule daily, is due at 2026-11-22T02:00:00Z",
            ),
            (
                "its pod is new",
                World::new(vec![backup(LAST, "Completed", Value::Null), good(BEFORE)]).with(|world| {
                    world.pod["status"]["startTime"] = json!("2026-11-21T09:00:00Z");
                }),
                Standing::Stale,
                "was due since",
            ),
        ]);
    }

    #[test]
    fn why_nothing_reads_a_claim_is_told_and_what_is_not_known_is_not_called_good() {
        let never = |change: fn(&mut World)| World::new(vec![]).with(change);
        let once = |change: fn(&mut World)| World::new(vec![good(LAST)]).with(change);
        let template =
            |world: &mut World, key: &str, value: Value| world.schedule["spec"]["template"][key] = value;
        table(vec![
            (
                "paused",
                never(|world| world.schedule["spec"]["paused"] = json!(true)),
                Standing::Uncovered,
                "no schedule takes it",
            ),
            (
                "refused",
                never(|world| world.schedule["status"]["phase"] = json!("FailedValidation")),
                Standing::Uncovered,
                "no schedule",
            ),
            (
                "other namespaces",
                never(|world| world.schedule["spec"]["template"]["includedNamespaces"] = json!(["web"])),
                Standing::Uncovered,
                "no schedule takes it",
            ),
            (
                "no pods",
                World::new(vec![]).with(|world| template(world, "excludedResources", json!(["pods"]))),
                Standing::Uncovered,
                "no schedule takes it",
            ),
            (
                "no schedule any more",
                once(|world| world.schedule["spec"]["paused"] = json!(true)),
                Standing::Unscheduled,
                "no schedule",
            ),
            (
                "idle",
                never(|world| world.pod["status"]["phase"] = json!("Succeeded")),
                Standing::Uncovered,
                "is Succeeded",
            ),
            (
                "idle now",
                once(|world| world.pod["status"]["phase"] = json!("Succeeded")),
                Standing::Uncovered,
                "not Running",
            ),
            (
                "no agent",
                never(|world| world.pod["spec"]["nodeName"] = json!("n2")),
                Standing::Uncovered,
                "agent does not run on node n2",
            ),
            (
                "no agent now",
                once(|world| world.pod["spec"]["nodeName"] = json!("n2")),
                Standing::Uncovered,
                "no backup reads it any more",
            ),
            ("unbound", never(|world| world.claim["spec"] = json!({})), Standing::Unbound, ""),
            (
                "volumes by name",
                World::new(vec![]).with(|world| template(world, "defaultVolumesToFsBackup", json!(false))),
                Standing::Uncovered,
                "only volumes that a pod names",
            ),
            (
                "a policy",
                World::new(vec![]).with(|world| {
                    template(world, "resourcePolicy", json!({"kind": "configmap", "name": "x"}))
                }),
                Standing::Unknown,
                "resource policy",
            ),
            (
                "not readable",
                World::new(vec![]).with(|world| template(world, "includedNamespaces", json!(1))),
                Standing::Unknown,
                "can't be read",
            ),
        ]);
    }

    #[test]
    fn the_file_says_how_old_a_backup_may_be_and_what_needs_none() {
        let file = |world: World, file: &'static str| world.with(|world| world.file = file);
        let rpo = "  rpo: {\"*\": 26h, app: 2h}\n";
        let except = "  exceptions: [{claims: [app/*], reason: made anew}]\n";
        let young = World::new(vec![]).with(|world| {
            world.claim["metadata"]["creationTimestamp"] = json!("2026-11-21T07:00:00Z");
        });
        table(vec![
            ("too old", file(World::new(vec![good(LAST)]), rpo), Standing::Stale, "more than 2h ago"),
            ("in time", file(World::new(vec![good("2026-11-21T08:30:00Z")]), rpo), Standing::Covered, ""),
            ("not yet, for too long", file(young, rpo), Standing::Uncovered, "older than 2h"),
            ("excepted", file(World::new(vec![]), except), Standing::Excepted, "made anew"),
            (
                "another's exception",
                file(World::new(vec![]), "  exceptions: [{claims: [app/d], reason: x}]\n"),
                Standing::Uncovered,
                "",
            ),
        ]);
    }

    #[test]
    fn a_copy_of_another_tool_counts_where_velero_has_none() {
        let source = |at: &str, result: &str| {
            json!({"kind": "ReplicationSource", "metadata": {"name": "r", "namespace": "app"}, "spec": {"sourcePVC": "data"},
                   "status": {"lastSyncTime": at, "latestMoverStatus": {"result": result}}})
        };
        let with = |backups, source: Value| World::new(backups).with(|world| world.others = vec![source]);
        let short = |world: World| world.with(|world| world.file = "  rpo: {app: 2h}\n");
        table(vec![
            (
                "a copy",
                with(vec![], source(LAST, "Successful")),
                Standing::Elsewhere,
                "volsync (ReplicationSource r)",
            ),
            ("velero has one", with(vec![good(LAST)], source(LAST, "Successful")), Standing::Covered, ""),
            (
                "velero's is old",
                with(vec![good(BEFORE)], source(LAST, "Successful")),
                Standing::Elsewhere,
                "",
            ),
            ("no good copy", with(vec![], source(LAST, "Failed")), Standing::Uncovered, "no good copy"),
            (
                "an old copy",
                short(with(vec![], source(LAST, "Successful"))),
                Standing::Stale,
                "more than 2h ago",
            ),
        ]);
    }
}
