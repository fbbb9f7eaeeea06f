//! Whether each schedule of the file is there, works, and has made the backups that were due. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

use super::Finding;
use crate::intent::{Cron, Duration};
use crate::judge::backup::{began, has_ended, phase, reasons, schedule_of};
use crate::judge::protection::may_be_late;
use crate::judge::store::{StoreAddress, advice};
use crate::judge::velero::kinds::{self, Backup};
use crate::judge::velero::{Phase, Schedule};

/// One that has been running for longer hangs.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);
/// What of a template makes a backup hold less, where the file does not say it.
const NARROWS: [&str; 8] = [
    "excludedNamespaces",
    "includedResources",
    "excludedResources",
    "includedNamespaceScopedResources",
    "excludedNamespaceScopedResources",
    "labelSelector",
    "orLabelSelectors",
    "resourcePolicy",
];

/// The stores of the file's locations, by their names.
type Stores<'a> = BTreeMap<&'a str, StoreAddress>;

/// `wanted` are the file's schedules as they are sent, `live` and `backups` those of Velero's namespace. What is kept in
/// other locations than the file's does not count: it may be another cluster's.
pub(super) fn judge(
    wanted: &[Value],
    live: &[kinds::Schedule],
    backups: &[Backup],
    stores: &Stores<'_>,
    now: Timestamp,
) -> Vec<Finding> {
    let unknown = StoreAddress::default();
    let mut found: Vec<Finding> = wanted
        .iter()
        .map(|wanted| {
            let (name, location) = (name(wanted), wanted["spec"]["template"]["storageLocation"].as_str());
            let live = live.iter().find(|one| named(&one.metadata) == name);
            let ours = |one: &Backup| kept_at(one).is_some_and(|location| stores.contains_key(location));
            let of_it = |one: &&Backup| schedule_of(one) == Some(name) && ours(one);
            let store = location.and_then(|location| stores.get(location)).unwrap_or(&unknown);
            schedule(wanted, live, &backups.iter().filter(of_it).collect::<Vec<_>>(), store, now)
        })
        .collect();
    if wanted.is_empty() {
        found.push(Finding::warn(
            "the file has no `backup.schedules`: nothing is backed up on its own",
            "add a schedule, such as {name: daily, cron: \"0 2 * * *\"}",
        ));
    }
    found.extend(newest_by_hand(wanted, backups, stores));
    found
}

/// The newest backup in the file's locations, when it is of no schedule of the file, and is no good.
fn newest_by_hand(wanted: &[Value], backups: &[Backup], stores: &Stores<'_>) -> Option<Finding> {
    let store = |backup: &Backup| stores.get(kept_at(backup)?);
    let all = backups.iter().filter(|backup| finished(backup) && store(backup).is_some());
    let newest = all.max_by_key(|backup| began(backup))?;
    let told = wanted.iter().any(|schedule| schedule_of(newest) == Some(name(schedule)));
    if told { None } else { bad(newest, store(newest)?) }
}

fn kept_at(backup: &Backup) -> Option<&str> {
    backup.spec.storage_location.as_deref()
}

fn schedule(
    wanted: &Value,
    live: Option<&kinds::Schedule>,
    backups: &[&Backup],
    store: &StoreAddress,
    now: Timestamp,
) -> Finding {
    let name = name(wanted);
    let Some(live) = live else {
        return Finding::fault(
            format!("there is no Schedule {name}: nothing is backed up by it"),
            "make it with `nodeprep apply`",
        );
    };
    let Schedule { paused, phase } = Schedule::of(live);
    let asked = wanted["spec"]["paused"] == true;
    match (asked, paused) {
        (true, true) => {
            return Finding::warn(
                format!("schedule {name} is `paused` by the file: it makes no backups"),
                "take `paused` out of the file when it is to make some again, and `nodeprep apply`",
            );
        }
        (false, true) => {
            return Finding::fault(
                format!("schedule {name} is paused: it makes no backups"),
                format!("`velero schedule unpause {name}`, or write `paused: true` into the file"),
            );
        }
        (true, false) => {
            return Finding::fault(
                format!("schedule {name} is not as the file asks: it is not paused"),
                "`nodeprep apply` puts back what the file says",
            );
        }
        (false, false) => {}
    }
    if let Phase::Refused { errors, .. } = &phase {
        return Finding::fault(
            format!("schedule {name} is refused by Velero, and makes no backups: {}", errors.join("; ")),
            "correct it in the file, and `nodeprep apply`",
        );
    }
    if let Some(differs) = differs(wanted, live) {
        return Finding::fault(
            format!("schedule {name} is not as the file asks: {differs}"),
            "`nodeprep apply` puts back what the file says; what somebody else added has to be taken out by hand",
        );
    }
    match phase {
        Phase::Enabled => made(wanted, live, backups, store, now),
        Phase::New | Phase::Refused { .. } => Finding::fault(
            format!("Velero has not looked at schedule {name} yet"),
            "read Velero's log, and validate again",
        ),
    }
}

/// Where the live one says something else than the file, or leaves more out.
fn differs(wanted: &Value, live: &kinds::Schedule) -> Option<String> {
    let other = |path: &str, wanted: &Value, live: &Value| {
        (wanted != live).then(|| {
            format!(
                "{path} is {}, not {wanted}",
                if live.is_null() { "not there".into() } else { live.to_string() }
            )
        })
    };
    let (of_wanted, template) = (&wanted["spec"], &live.spec.template);
    let fields = of_wanted["template"].as_object().into_iter().flatten();
    let line = live.spec.schedule.as_deref().map_or(Value::Null, Value::from);
    let mut all: Vec<String> = other("schedule", &of_wanted["schedule"], &line).into_iter().collect();
    let told = fields.filter(|(key, wanted)| !alike(key, wanted, &template[key.as_str()]));
    all.extend(told.filter_map(|(key, wanted)| other(key, wanted, &template[key])));
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    for key in NARROWS {
        let value = &template[key];
        if of_wanted["template"][key].is_null() && !empty(value) {
            all.push(format!("{key} is {value}, of which the file says nothing"));
        }
    }
    (!all.is_empty()).then(|| all.join(", "))
}

/// Whether a field of the template means the same in two forms.
fn alike(key: &str, wanted: &Value, live: &Value) -> bool {
    let span = |value: &Value| value.as_str().and_then(|text| Duration::parse(text).ok());
    let all = |value: &Value| value.is_null() || *value == json!([]) || *value == json!(["*"]);
    match key {
        "ttl" => span(wanted).is_some() && span(wanted) == span(live),
        "includedNamespaces" => all(wanted) && all(live),
        // There are no snapshots of local volumes, whatever it says.
        "snapshotVolumes" => true,
        _ => wanted == live,
    }
}

/// Whether the backups that were due were made. When one is due is Velero's own rule: the first time that the line names
/// after the last backup, or else after the schedule was made or told to skip.
fn made(
    wanted: &Value,
    live: &kinds::Schedule,
    backups: &[&Backup],
    store: &StoreAddress,
    now: Timestamp,
) -> Finding {
    let name = named(&live.metadata);
    let line = live.spec.schedule.as_deref().unwrap_or_default();
    let Ok(cron) = Cron::parse(line) else {
        return Finding::fault(
            format!("schedule {name} has no cron line: `{line}`"),
            "correct it in the file, and `nodeprep apply`",
        );
    };
    let mut done: Vec<&Backup> = backups.iter().copied().filter(|backup| finished(backup)).collect();
    done.sort_by_key(|backup| began(backup));
    let newest = done.last().copied();
    let hooks = wanted["spec"]["template"].get("hooks").is_some();
    let no_good = newest.and_then(|newest| bad(newest, store).or_else(|| idle(newest).filter(|_| hooks)));
    if let Some(fault) = no_good {
        return fault;
    }
    let created = time(&live.metadata.creation_timestamp).unwrap_or(now);
    let since = match newest.and_then(began) {
        Some(began) => began.max(created),
        None => live
            .status
            .as_ref()
            .and_then(|status| time(&status.last_skipped))
            .map_or(created, |skipped| skipped.max(created)),
    };
    let Some(due) = cron.next(since) else {
        return Finding::fault(
            format!("schedule {name} is never due: no day is as `{line}` says"),
            "correct it in the file",
        );
    };
    let late = may_be_late(&cron, due);
    let overdue = due.checked_add(late).is_ok_and(|limit| now > limit);
    let last = newest.map(|newest| named(&newest.metadata)).zip(newest.and_then(began));
    let last = last
        .map_or_else(|| "no backup so far".to_owned(), |(name, at)| format!("newest backup {name} of {at}"));
    let going = |backup: &&&Backup| !has_ended(backup);
    let running = backups.iter().filter(going).max_by_key(|backup| began(backup));
    match running.and_then(|backup| Some((named(&backup.metadata), began(backup)?))) {
        Some((backup, at)) if overdue && now.duration_since(at) > LONGEST => Finding::fault(
            format!(
                "backup {backup} of schedule {name} has been running since {at}, and Velero begins no other beside it; \
                 {last}"
            ),
            format!(
                "`velero backup describe {backup} --details` says what it waits for; restart Velero to end it"
            ),
        ),
        Some((backup, at)) if due <= now => {
            Finding::Fine(format!("schedule {name}: {backup} is running since {at}, {last}"))
        }
        _ if overdue => Finding::fault(
            format!(
                "schedule {name} has made no good backup since the one that was due at {due} ({late:#} late is allowed, \
                 and it is {now}): {last}"
            ),
            format!("read Velero's log, and make one: `velero backup create --from-schedule {name}`"),
        ),
        _ if newest.is_none() => Finding::Fine(format!("schedule {name}: {last}, first backup due at {due}")),
        _ => Finding::Fine(format!("schedule {name}: {last}, next due at {due}")),
    }
}

/// What is wrong with a backup that came to its end.
fn bad(backup: &Backup, store: &StoreAddress) -> Option<Finding> {
    let phase = phase(backup);
    let hooks = backup.status.as_ref().and_then(|status| status.hook_status.clone()).unwrap_or_default();
    let failed = hooks.hooks_failed.unwrap_or_default();
    if phase == "Completed" && failed == 0 {
        return None;
    }
    let name = named(&backup.metadata);
    let mut said = reasons(backup);
    if failed > 0 {
        said.push(format!("{failed} of {} hooks failed", hooks.hooks_attempted.unwrap_or_default()));
    }
    let errors = backup.status.as_ref().and_then(|status| status.errors);
    if let Some(errors) = errors.filter(|errors| *errors > 0) {
        said.push(format!("{errors} errors"));
    }
    let said = if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) };
    let look = || {
        format!(
            "`velero backup describe {name} --details` and `velero backup logs {name}` say what is missing in it"
        )
    };
    let hint = advice(&said, store).map_or_else(look, |advice| advice.hint);
    Some(Finding::fault(format!("the newest backup, {name}, is {phase}{said}"), hint))
}

/// A backup of a schedule with hooks, of which none found a pod.
fn idle(backup: &Backup) -> Option<Finding> {
    let hooks = backup.status.as_ref()?.hook_status.clone().unwrap_or_default();
    let why = format!(
        "the newest backup, {}, has run none of its schedule's hooks: they are for no pod that was in it",
        named(&backup.metadata)
    );
    let hint = "compare `namespaces` and `labelSelector` of the hooks with the pods' own";
    (hooks.hooks_attempted.unwrap_or_default() == 0).then(|| Finding::fault(why, hint))
}

/// It came to an end, and is not on its way out.
fn finished(backup: &Backup) -> bool {
    has_ended(backup) && phase(backup) != "Deleting"
}

fn time(time: &Option<Time>) -> Option<Timestamp> {
    time.as_ref().map(|time| time.0)
}

fn named(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// Of a schedule as it is sent.
fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::from_value;

    use super::*;

    fn wanted() -> Value {
        json!({"metadata": {"name": "daily"}, "spec": {"schedule": "0 2 * * *", "template": {
            "storageLocation": "default", "ttl": "720h0m0s", "includedNamespaces": ["*"],
            "defaultVolumesToFsBackup": true, "snapshotVolumes": false}}})
    }

    /// The file's, as it is live since the first of the month, changed so.
    fn live(change: Value) -> kinds::Schedule {
        let mut live = wanted();
        let rest = json!({"metadata": {"creationTimestamp": "2026-11-01T00:00:00Z"}, "status": {"phase": "Enabled"}});
        json_patch::merge(&mut live, &rest);
        json_patch::merge(&mut live, &change);
        from_value(live).unwrap()
    }

    fn backup(at: &str, phase: &str) -> Backup {
        from_value(json!({"metadata": {"name": format!("daily-{at}"), "labels": {"velero.io/schedule-name": "daily"}, "creationTimestamp": at},
            "spec": {"storageLocation": "default"}, "status": {"phase": phase, "startTimestamp": at}}))
        .unwrap()
    }

    fn stores() -> Stores<'static> {
        [("default", StoreAddress::default())].into()
    }

    fn judged(live: Option<kinds::Schedule>, backups: &[Backup], now: &str) -> Finding {
        let live: Vec<kinds::Schedule> = live.into_iter().collect();
        let mut found = judge(&[wanted()], &live, backups, &stores(), now.parse().unwrap());
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn a_schedule_is_there_works_and_is_as_the_file_asks() {
        let good = [backup("2026-11-21T02:00:05Z", "Completed")];
        let now = "2026-11-21T10:00:00Z";
        assert!(matches!(judged(Some(live(json!({}))), &good, now), Finding::Fine(_)));
        let refused =
            json!({"status": {"phase": "FailedValidation", "validationErrors": ["invalid schedule: x"]}});
        for (live, word) in [
            (None, "there is no Schedule daily"),
            (Some(live(json!({"spec": {"paused": true}}))), "paused"),
            (Some(live(refused)), "refused by Velero, and makes no backups: invalid schedule: x"),
            (Some(live(json!({"status": {"phase": null}}))), "has not looked"),
            (
                Some(live(json!({"spec": {"schedule": "0 2 1 1 *"}}))),
                "schedule is \"0 2 1 1 *\", not \"0 2 * * *\"",
            ),
            (
                Some(live(json!({"spec": {"template": {"includedNamespaces": ["web"]}}}))),
                "includedNamespaces is [\"web\"]",
            ),
            (
                Some(live(json!({"spec": {"template": {"defaultVolumesToFsBackup": null}}}))),
                "defaultVolumesToFsBackup is not there",
            ),
            (
                Some(live(json!({"spec": {"template": {"excludedNamespaces": ["databases"]}}}))),
                "excludedNamespaces is [\"databases\"]",
            ),
            (
                Some(live(json!({"spec": {"template": {"labelSelector": {"matchLabels": {"a": "b"}}}}}))),
                "labelSelector",
            ),
        ] {
            let Finding::Fault { why, .. } = judged(live, &good, now) else { panic!("{word}") };
            assert!(why.contains(word), "{why}");
        }
        // Other words for the same.
        let other = json!({"spec": {"template": {"ttl": "720h", "includedNamespaces": null, "snapshotVolumes": null}}});
        assert!(matches!(judged(Some(live(other)), &good, now), Finding::Fine(_)));
        // What the server fills in narrows nothing.
        let filled = json!({"spec": {"template": {"hooks": {}, "metadata": {}, "excludedNamespaces": [], "csiSnapshotTimeout": "0s"}}});
        assert!(matches!(judged(Some(live(filled)), &good, now), Finding::Fine(_)));
    }

    #[test]
    fn a_backup_that_was_due_and_is_not_there_or_no_good_is_a_fault() {
        let (good, part) = ("Completed", "PartiallyFailed");
        for (backups, now, word) in [
            // Made and good, until the next one is too late.
            (vec![("2026-11-20T02:00:05Z", good)], "2026-11-20T10:00:00Z", None),
            (vec![("2026-11-20T02:00:05Z", good)], "2026-11-21T07:59:00Z", None),
            (
                vec![("2026-11-20T02:00:05Z", good)],
                "2026-11-21T08:01:00Z",
                Some("due at 2026-11-21T02:00:00Z (6h late is allowed"),
            ),
            (
                vec![("2026-11-10T02:00:05Z", good)],
                "2026-11-21T08:01:00Z",
                Some("due at 2026-11-11T02:00:00Z"),
            ),
            // The newest counts, in whatever order they come.
            (
                vec![("2026-11-20T02:00:05Z", good), ("2026-11-19T02:00:05Z", part)],
                "2026-11-20T10:00:00Z",
                None,
            ),
            (
                vec![("2026-11-20T02:00:05Z", part), ("2026-11-19T02:00:05Z", good)],
                "2026-11-20T10:00:00Z",
                Some("is PartiallyFailed"),
            ),
            (vec![("2026-11-20T02:00:05Z", "Failed")], "2026-11-20T10:00:00Z", Some("is Failed")),
            (
                vec![("2026-11-20T02:00:05Z", "FailedValidation")],
                "2026-11-20T10:00:00Z",
                Some("is FailedValidation"),
            ),
            (
                vec![("2026-11-20T02:00:05Z", "Deleting"), ("2026-11-10T02:00:05Z", good)],
                "2026-11-20T10:00:00Z",
                Some("no good backup"),
            ),
            // One that runs is waited for, but not for ever.
            (
                vec![("2026-11-19T02:00:05Z", good), ("2026-11-20T02:00:05Z", "InProgress")],
                "2026-11-20T23:00:00Z",
                None,
            ),
            (
                vec![("2026-11-19T02:00:05Z", good), ("2026-11-20T02:00:05Z", "InProgress")],
                "2026-11-21T08:10:00Z",
                Some("has been running since"),
            ),
            (vec![("2026-11-20T02:00:05Z", "Queued")], "2026-11-20T10:00:00Z", None),
            // None so far.
            (vec![], "2026-11-01T01:00:00Z", None),
            (vec![], "2026-11-01T08:01:00Z", Some("no backup so far")),
            // Of a cluster before this one.
            (vec![("2026-10-01T02:00:05Z", good)], "2026-11-01T07:00:00Z", None),
        ] {
            let backups: Vec<Backup> = backups.iter().map(|(at, phase)| backup(at, phase)).collect();
            match (judged(Some(live(json!({}))), &backups, now), word) {
                (Finding::Fine(_), None) => {}
                (Finding::Fault { why, .. }, Some(word)) => assert!(why.contains(word), "{now}: {why}"),
                (found, _) => panic!("{backups:?} at {now}: {found:?}"),
            }
        }
    }

    #[test]
    fn hooks_that_failed_or_found_no_pod_are_faults() {
        let hooks = json!({"spec": {"template": {"hooks": {"resources": [{"name": "dump"}]}}}});
        let mut wanted = wanted();
        json_patch::merge(&mut wanted, &hooks);
        for (status, word) in [
            (json!({"hooksAttempted": 2}), None),
            (json!({"hooksAttempted": 2, "hooksFailed": 1}), Some("is Completed: 1 of 2 hooks failed")),
            (json!({}), Some("has run none of its schedule's hooks")),
            (Value::Null, Some("has run none of its schedule's hooks")),
        ] {
            let mut backup = backup("2026-11-20T02:00:05Z", "Completed");
            backup.status.as_mut().unwrap().hook_status = from_value(status).unwrap();
            let now = "2026-11-20T10:00:00Z".parse().unwrap();
            let found = judge(&[wanted.clone()], &[live(hooks.clone())], &[backup], &stores(), now);
            match (&found[..], word) {
                ([Finding::Fine(_)], None) => {}
                ([Finding::Fault { why, .. }], Some(word)) => assert!(why.contains(word), "{why}"),
                _ => panic!("{word:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn each_schedule_is_judged_by_its_own_backups_and_a_paused_one_is_told() {
        let named = |name: &str, more: Value| {
            let mut object = wanted();
            json_patch::merge(&mut object, &json!({"metadata": {"name": name}}));
            json_patch::merge(&mut object, &more);
            object
        };
        let offsite = json!({"spec": {"template": {"storageLocation": "offsite"}}});
        let paused = json!({"spec": {"paused": true}});
        let wanted = [
            wanted(),
            named("far", offsite.clone()),
            named("rests", paused.clone()),
            named("goes", paused.clone()),
        ];
        let named_live = |name: &str, more: &Value| {
            let mut all = json!({"metadata": {"name": name}});
            json_patch::merge(&mut all, more);
            live(all)
        };
        let none = json!({});
        let all = [
            live(none.clone()),
            named_live("far", &offsite),
            named_live("rests", &paused),
            named_live("goes", &none),
        ];
        let mut far = backup("2026-11-20T02:00:05Z", "PartiallyFailed");
        far.metadata.labels = Some([("velero.io/schedule-name".to_owned(), "far".to_owned())].into());
        far.spec.storage_location = Some("offsite".into());
        // In a location that is not the file's: of another cluster.
        let mut foreign = backup("2026-11-20T03:00:05Z", "Failed");
        foreign.spec.storage_location = Some("foreign".into());
        let backups = [backup("2026-11-20T02:00:05Z", "Completed"), far, foreign];
        let stores = ["default", "offsite"].map(|name| (name, StoreAddress::default())).into();
        let found = judge(&wanted, &all, &backups, &stores, "2026-11-20T10:00:00Z".parse().unwrap());
        let [
            Finding::Fine(_),
            Finding::Fault { why: far, .. },
            Finding::Warn { why: rests, .. },
            Finding::Fault { why: goes, .. },
        ] = &found[..]
        else {
            panic!("{found:?}")
        };
        assert!(far.contains("is PartiallyFailed"), "{far}");
        assert!(rests.contains("`paused` by the file"), "{rests}");
        assert!(goes.contains("it is not paused"), "{goes}");
    }

    #[test]
    fn one_that_is_not_due_yet_says_when_it_will_be() {
        let found = judged(Some(live(json!({}))), &[], "2026-11-01T01:00:00Z");
        assert_eq!(
            found,
            Finding::Fine(
                "schedule daily: no backup so far, first backup due at 2026-11-01T02:00:00Z".into()
            )
        );
        // What was to be skipped was not due.
        let skipped = live(json!({"status": {"lastSkipped": "2026-11-09T12:00:00Z"}}));
        assert!(
            matches!(judged(Some(skipped), &[], "2026-11-10T01:00:00Z"), Finding::Fine(said) if said.contains("due at 2026-11-10T02:00:00Z"))
        );
    }

    #[test]
    fn a_file_without_schedules_warns_and_a_bad_backup_by_hand_is_a_fault() {
        let now = "2026-11-21T10:00:00Z".parse().unwrap();
        assert!(matches!(judge(&[], &[], &[], &stores(), now)[..], [Finding::Warn { .. }]));
        let mut by_hand = backup("2026-11-21T03:00:00Z", "PartiallyFailed");
        by_hand.metadata.labels = None;
        by_hand.status.as_mut().unwrap().errors = Some(3);
        let found = judge(
            &[wanted()],
            &[live(json!({}))],
            &[backup("2026-11-21T02:00:05Z", "Completed"), by_hand],
            &stores(),
            now,
        );
        assert!(
            matches!(&found[..], [Finding::Fine(_), Finding::Fault { why, .. }] if why.ends_with("is PartiallyFailed: 3 errors")),
            "{found:?}"
        );
    }
}
