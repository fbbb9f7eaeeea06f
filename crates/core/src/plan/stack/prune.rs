//! What nodeprep installed and the file does not ask for any more: it goes, or it is named with the reason why it stays.

use std::collections::BTreeSet;

use serde_json::Value;

use super::placement::some;
use super::{diff, id};
use crate::error::{Error, Result};
use crate::intent::Intent;
use crate::judge::velero::kinds::BackupStorageLocation;
use crate::judge::velero::location_lacks;
use crate::model::cluster::{ClusterState, Leftovers};
use crate::model::object::{Deletion, read};
use crate::plan::{Action, Effect, ObjectAction, Step, Target};
use crate::stack::{COMPONENTS, StackItem};

/// The kinds whose pods would work beside those of the new form: they go before it is made.
pub(super) const WORKLOADS: [&str; 2] = ["Deployment", "DaemonSet"];

/// What goes before anything is made, what goes after all of it, and what is said of the rest.
#[derive(Debug, Default)]
pub(super) struct Pruned {
    pub first: Vec<Step>,
    pub last: Vec<Step>,
    pub warnings: Vec<String>,
}

/// # Errors
/// `Unavailable` while a backup or restore is under way that would be cut off.
pub(super) fn plan(intent: &Intent, items: &[StackItem], observed: &ClusterState) -> Result<Pruned> {
    let wanted = Wanted::of(items);
    let (mut pruned, mut left) = (Pruned::default(), Vec::new());
    for live in observed.leftovers.ours.iter().filter(|live| !wanted.has(live)) {
        match wanted.fate(intent, live, &observed.leftovers) {
            Fate::Goes(why) => {
                let step = removal(live, &why, &observed.leftovers)?;
                let first = WORKLOADS.contains(&kind(live));
                if first { pruned.first.push(step) } else { pruned.last.push(step) }
            }
            Fate::Stays(why) => pruned.warnings.push(why),
            Fate::Left => left.push(Deletion::of(live).title()),
        }
    }
    if !left.is_empty() {
        pruned.warnings.push(format!(
            "installed by nodeprep, not in the file any more, and left as it is: {}; delete with kubectl what is not \
             needed",
            left.join(", ")
        ));
    }
    if !observed.leftovers.unseen.is_empty() {
        pruned.warnings.push(format!(
            "what left the file was not looked for among {}: they may not be listed with these credentials",
            observed.leftovers.unseen.join(", ")
        ));
    }
    Ok(pruned)
}

/// The step that removes a live object.
///
/// # Errors
/// `Unavailable` while a backup or restore is under way in its namespace, and it is what carries them out.
pub(super) fn removal(live: &Value, why: &str, leftovers: &Leftovers) -> Result<Step> {
    let gone = Deletion::of(live);
    let busy = gone.namespace.as_ref().and_then(|namespace| leftovers.at_work.get(namespace));
    if let Some(busy) = busy.filter(|_| WORKLOADS.contains(&gone.kind.as_str())) {
        return Err(Error::unavailable(format!(
            "{} has to be deleted ({why}), and {} under way",
            gone.title(),
            match busy.as_slice() {
                [one] => format!("{one} is"),
                all => format!("{} are", all.join(", ")),
            }
        ))
        .hint("run again when they have ended"));
    }
    let id = id("delete", gone.namespace.as_deref(), &gone.kind, &gone.name);
    let title = format!("delete {}", gone.title());
    let step = Step::new(id, Target::Cluster, title, Action::Object(ObjectAction::Delete(gone)));
    Ok(Step { effect: Effect::Delete, why: why.to_owned(), diff: diff::deleted(live), ..step })
}

enum Fate {
    Goes(String),
    Stays(String),
    Left,
}

/// What the file asks for, by kind, namespace and name.
struct Wanted<'a>(BTreeSet<(&'a str, Option<&'a str>, &'a str)>);

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

impl<'a> Wanted<'a> {
    fn of(items: &'a [StackItem]) -> Self {
        let object = |item: &'a StackItem| match item {
            StackItem::Object(object) => Some((object.kind(), object.namespace(), object.name())),
            StackItem::Ready(_) => None,
        };
        Self(items.iter().filter_map(object).collect())
    }

    fn has(&self, live: &Value) -> bool {
        let metadata = &live["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        self.0.contains(&(kind(live), metadata["namespace"].as_str(), name))
    }

    fn fate(&self, intent: &Intent, live: &Value, leftovers: &Leftovers) -> Fate {
        let gone = Deletion::of(live);
        let listed = COMPONENTS.iter().any(|one| one.asked(intent) && one.listed.contains(&kind(live)));
        match kind(live) {
            "Namespace" => Fate::Left,
            "StorageClass" if listed => match leftovers.class_users.get(&gone.name) {
                Some(users) => Fate::Stays(used(&gone.name, users)),
                None => Fate::Goes("the file has no such class any more, and nothing names it".into()),
            },
            "BackupStorageLocation" if listed => match needed(live, leftovers) {
                None => {
                    Fate::Goes("the file has no such location any more, and nothing is kept there".into())
                }
                Some(why) => Fate::Stays(format!(
                    "{} is not in the file any more, and stays, as {why}: it goes with an `apply` once it answers and \
                     nothing needs it",
                    gone.title()
                )),
            },
            "BackupStorageLocation" => Fate::Stays(format!(
                "{} is not in the file any more, and stays: what was backed up there is restored from there; delete it \
                 with kubectl when no backup there is needed",
                gone.title()
            )),
            // Source: velero, pkg/apis/velero/v1, ScheduleSpec.UseOwnerReferencesInBackup.
            "Schedule" if live["spec"]["useOwnerReferencesInBackup"] == true => Fate::Stays(format!(
                "{} is not in the file any more, and stays: it owns its backups, which would go with it",
                gone.title()
            )),
            _ if listed => Fate::Goes(format!("the file has no such {} any more", gone.kind)),
            _ => self.moved(&gone).map_or(Fate::Left, Fate::Goes),
        }
    }

    /// Where the file has what is of this name instead.
    fn moved(&self, gone: &Deletion) -> Option<String> {
        let same = |&&(_, _, name): &&(&str, Option<&str>, &str)| name == gone.name;
        let here = |kind: &str| self.0.iter().filter(same).find(|(other, ..)| *other == kind);
        if let Some((_, Some(namespace), _)) = here(&gone.kind) {
            return Some(format!("the file has it in namespace {namespace}"));
        }
        let (kind, ..) = WORKLOADS.into_iter().find_map(here)?;
        Some(if WORKLOADS.contains(&gone.kind.as_str()) {
            format!("the file has it as a {kind}")
        } else {
            format!("a {kind} has none")
        })
    }
}

/// Why a location is needed, or may be: Velero tells what is in a bucket only as long as it answers.
fn needed(live: &Value, leftovers: &Leftovers) -> Option<String> {
    let title = Deletion::of(live);
    let place = format!("{}/{}", title.namespace.unwrap_or_default(), title.name);
    match leftovers.location_users.get(&place) {
        Some(users) if users.len() == 1 => Some(format!("{} needs it", users.join(""))),
        Some(users) => Some(format!("{} need it", some(users, 3))),
        None if !answers(live) => Some("it does not answer, and so what is kept there is not known".into()),
        None => None,
    }
}

/// Whether a location answers, and Velero has read what is in it.
fn answers(live: &Value) -> bool {
    read(live).is_ok_and(|location: BackupStorageLocation| {
        let status = location.status.as_ref();
        location_lacks(&location).is_none() && status.is_some_and(|status| status.last_synced_time.is_some())
    })
}

fn used(class: &str, users: &[String]) -> String {
    format!(
        "StorageClass {class} is not in the file any more, and stays, as {} {} it: `kubectl delete storageclass \
         {class}` when nothing does",
        some(users, 5),
        if users.len() == 1 { "names" } else { "name" }
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::intent;
    use crate::stack;

    const FILE: &str = "apiVersion: nodeprep.dev/v1alpha1\nkind: Cluster\nmetadata: {name: lab}\n\
                        provisioner: {openebs: {namespace: storage, workload: DaemonSet}}\n\
                        classes: [{name: fast, basePath: /var/mnt/fast}]\n";
    const OURS: &str = "openebs-localpv-provisioner";

    fn live(kind: &str, namespace: &str, name: &str) -> Value {
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        json!({"kind": kind, "metadata": {"name": name, "namespace": namespace, "uid": "u"}})
    }

    fn planned(ours: Vec<Value>, found: Leftovers) -> Result<Pruned> {
        let intent = intent::parse("nodeprep.yaml", FILE.as_bytes()).unwrap();
        let items = stack::render(&intent, &[]).unwrap();
        let leftovers = Leftovers { ours, ..found };
        plan(&intent, &items, &ClusterState { leftovers, ..ClusterState::default() })
    }

    #[test]
    fn each_leftover_goes_first_or_last_or_stays_and_is_named() {
        for (kind, namespace, name, fate) in [
            ("DaemonSet", "storage", OURS, "wanted"),
            ("StorageClass", "", "fast", "wanted"),
            ("Deployment", "storage", OURS, "first"),
            ("DaemonSet", "openebs", OURS, "first"),
            ("Role", "openebs", OURS, "last"),
            ("PodDisruptionBudget", "storage", OURS, "last"),
            ("StorageClass", "", "slow", "last"),
            (
                "StorageClass",
                "",
                "used",
                "StorageClass used is not in the file any more, and stays, as web/data, pv-1 name it",
            ),
            ("Namespace", "", "openebs", "left as it is: Namespace openebs"),
            ("Deployment", "velero", "velero", "left as it is: Deployment velero/velero"),
            ("Schedule", "velero", "daily", "left as it is: Schedule velero/daily"),
            (
                "BackupStorageLocation",
                "velero",
                "s3",
                "BackupStorageLocation velero/s3 is not in the file any more, and stays",
            ),
        ] {
            let users = ["web/data", "pv-1"].map(str::to_owned).to_vec();
            let found =
                Leftovers { class_users: [("used".to_owned(), users)].into(), ..Leftovers::default() };
            let pruned = planned(vec![live(kind, namespace, name)], found).unwrap();
            let told = match (&pruned.first[..], &pruned.last[..], &pruned.warnings[..]) {
                ([], [], []) => "wanted".to_owned(),
                ([_], [], []) => "first".to_owned(),
                ([], [_], []) => "last".to_owned(),
                ([], [], [warning]) => warning.clone(),
                _ => panic!("{pruned:?}"),
            };
            assert!(told.contains(fate), "{kind} {name}: {told}");
        }
    }

    #[test]
    fn what_backs_up_is_not_deleted_in_the_middle_of_it() {
        let busy = vec!["Backup nightly".to_owned(), "Restore web".to_owned()];
        let found =
            || Leftovers { at_work: [("openebs".to_owned(), busy.clone())].into(), ..Leftovers::default() };
        let error = planned(vec![live("DaemonSet", "openebs", OURS)], found()).unwrap_err();
        assert!(error.what.ends_with("Backup nightly, Restore web are under way"), "{error}");
        assert!(planned(vec![live("Role", "openebs", OURS)], found()).is_ok());
    }

    #[test]
    fn a_schedule_that_owns_its_backups_stays() {
        let mut schedule = live("Schedule", "velero", "daily");
        schedule["spec"]["useOwnerReferencesInBackup"] = true.into();
        let pruned = planned(vec![schedule], Leftovers::default()).unwrap();
        assert!(pruned.last.is_empty() && pruned.warnings[0].contains("it owns its backups"), "{pruned:?}");
    }

    #[test]
    fn a_location_goes_when_it_answers_and_nothing_needs_it() {
        const BACKUP: &str = "backup: {location: {name: s3, bucket: abc, region: x}, secrets: [a]}";
        let at = "2026-11-30T00:00:00Z";
        let answers = json!({"phase": "Available", "lastValidationTime": at, "lastSyncedTime": at});
        let users = |titles: &[&str]| titles.iter().map(|title| (*title).to_owned()).collect::<Vec<_>>();
        for (status, by, told) in [
            (answers.clone(), vec![], None),
            (answers.clone(), users(&["Backup old"]), Some("and stays, as Backup old needs it: it goes")),
            (answers.clone(), users(&["Backup a", "Schedule b"]), Some("as Backup a, Schedule b need it")),
            (json!({"phase": "Unavailable"}), vec![], Some("it does not answer")),
            (json!({"phase": "Available", "lastValidationTime": at}), vec![], Some("it does not answer")),
            (Value::Null, vec![], Some("it does not answer")),
        ] {
            let mut location = live("BackupStorageLocation", "velero", "old");
            location["status"] = status;
            let intent = intent::parse("nodeprep.yaml", format!("{FILE}{BACKUP}").as_bytes()).unwrap();
            let location_users = match by.is_empty() {
                true => [].into(),
                false => [("velero/old".to_owned(), by)].into(),
            };
            let leftovers = Leftovers { ours: vec![location], location_users, ..Leftovers::default() };
            let pruned = plan(&intent, &[], &ClusterState { leftovers, ..ClusterState::default() }).unwrap();
            assert_eq!(pruned.last.len(), usize::from(told.is_none()), "{pruned:?}");
            assert!(told.is_none_or(|told| pruned.warnings[0].contains(told)), "{pruned:?}");
        }
    }

    #[test]
    fn kinds_that_may_not_be_listed_are_named() {
        let found = Leftovers { unseen: vec!["Schedules".to_owned()], ..Leftovers::default() };
        let pruned = planned(Vec::new(), found).unwrap();
        assert!(pruned.warnings[0].contains("not looked for among Schedules"), "{pruned:?}");
    }
}
