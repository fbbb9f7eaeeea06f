use super::*;

fn schedule(scene: &mut Scene, spec: &Value) {
    let mut all =
        json!({"schedule": "0 2 * * *", "template": {"includedNamespaces": ["shop"], "ttl": "48h0m0s"}});
    json_patch::merge(&mut all, spec);
    let metadata = json!({"name": "daily", "namespace": "velero", "labels": {"team": "one"}});
    scene.apply(json!({"apiVersion": "velero.io/v1", "kind": "Schedule", "metadata": metadata, "spec": all}));
    scene.settle(&VELERO);
}

/// Velero at a time of the first of January.
fn at(scene: &mut Scene, time: &str) {
    scene.now = format!("2026-01-01T{time}Z").parse().unwrap_or_default();
    scene.settle(&VELERO);
}

fn backups(scene: &Scene) -> Vec<String> {
    scene.names("velero.io/backups", "velero")
}

#[test]
fn a_schedule_makes_its_backups_when_they_are_due() {
    let mut scene = bare();
    scene.delete(DEFAULT);
    schedule(&mut scene, &json!({}));
    assert_eq!(status(&scene, "schedules", "daily"), json!({"phase": "Enabled"}));
    assert_eq!(scene.timers.next().map(|due| due.to_string()).as_deref(), Some("2026-01-01T02:00:01Z"));
    at(&mut scene, "02:00:00");
    assert_eq!(backups(&scene), [""; 0], "not before its time has passed");
    at(&mut scene, "02:00:01");
    assert_eq!(backups(&scene), ["daily-20260101020001"]);
    let made = scene.get("velero.io/backups", "velero", "daily-20260101020001").unwrap_or_default();
    let labels = &made["metadata"]["labels"];
    assert_eq!((&labels["velero.io/schedule-name"], &labels["team"]), (&json!("daily"), &json!("one")));
    assert_eq!(
        (&made["spec"]["includedNamespaces"], &made["spec"]["ttl"]),
        (&json!(["shop"]), &json!("48h0m0s"))
    );
    assert_eq!(status(&scene, "schedules", "daily")["lastBackup"], "2026-01-01T02:00:01Z");
    at(&mut scene, "23:59:59");
    assert_eq!(backups(&scene).len(), 1);
    scene.pass(5 * 60 * 60, &VELERO);
    assert_eq!(backups(&scene), ["daily-20260101020001", "daily-20260102045959"], "one for what was missed");
}

#[test]
fn a_schedule_that_rests_or_is_wrong_makes_none() {
    let late = |spec: Value| {
        let mut scene = bare();
        schedule(&mut scene, &spec);
        at(&mut scene, "02:00:01");
        scene
    };
    let paused = late(json!({"paused": true}));
    assert_eq!((backups(&paused), status(&paused, "schedules", "daily")), (vec![], Value::Null));
    for (line, why) in [
        ("", "Schedule must be a non-empty valid Cron expression"),
        ("nightly", "invalid schedule: expected exactly 5 fields, found 1: [nightly]"),
        ("0 25 * * *", "invalid schedule: end of range (25) above maximum (23): 25"),
    ] {
        let mut scene = late(json!({"schedule": line}));
        let wrong = json!({"phase": "FailedValidation", "validationErrors": [why]});
        assert_eq!((backups(&scene), status(&scene, "schedules", "daily")), (vec![], wrong));
        scene.patch(&format!("{HOME}/schedules/daily"), &json!({"spec": {"schedule": "0 2 * * *"}}));
        scene.settle(&VELERO);
        assert_eq!(text(&status(&scene, "schedules", "daily"), "/phase"), "Enabled");
        assert_eq!(backups(&scene).len(), 1);
    }
}

#[test]
fn a_line_that_names_no_day_is_always_due() {
    let mut scene = bare();
    scene.delete(DEFAULT);
    schedule(&mut scene, &json!({"schedule": "0 0 30 2 *"}));
    scene.pass(61, &VELERO);
    scene.pass(61, &VELERO);
    assert_eq!(backups(&scene).len(), 3, "{:?}", backups(&scene));
}

#[test]
fn what_is_due_can_be_left_out_once() {
    let mut scene = bare();
    schedule(&mut scene, &json!({"paused": true}));
    at(&mut scene, "03:00:00");
    let on = json!({"spec": {"paused": false, "skipImmediately": true}});
    scene.patch(&format!("{HOME}/schedules/daily"), &on);
    scene.settle(&VELERO);
    assert_eq!(backups(&scene), [""; 0]);
    assert_eq!(status(&scene, "schedules", "daily")["lastSkipped"], "2026-01-01T03:00:00Z");
    scene.pass(24 * 60 * 60, &VELERO);
    assert_eq!(backups(&scene), ["daily-20260102030000"]);
}

#[test]
fn a_schedule_waits_for_its_backup_before_it_makes_another() {
    let mut scene = bare();
    schedule(&mut scene, &json!({"schedule": "* * * * *"}));
    let labels = json!({"velero.io/schedule-name": "daily"});
    let metadata = json!({"name": "going", "namespace": "velero", "labels": labels});
    let going = json!({"phase": "InProgress", "startTimestamp": "2026-01-01T00:00:00Z"});
    scene.apply(json!({"apiVersion": "velero.io/v1", "kind": "Backup", "metadata": metadata, "spec": {}, "status": going}));
    scene.pass(61, &VELERO);
    assert_eq!(backups(&scene), ["going"]);
    scene.pass(10, &VELERO);
    assert_eq!(backups(&scene).len(), 2, "{:?}", status(&scene, "backups", "going"));
}

#[test]
fn a_restore_of_a_schedule_takes_the_newest_backup_that_went_well() {
    let mut scene = bare();
    scene.settle(&VELERO);
    for (name, phase, start) in [
        ("old", "Completed", "2026-01-01T00:00:01Z"),
        ("good", "Completed", "2026-01-01T00:00:02Z"),
        ("bad", "PartiallyFailed", "2026-01-01T00:00:03Z"),
    ] {
        let metadata =
            json!({"name": name, "namespace": "velero", "labels": {"velero.io/schedule-name": "daily"}});
        scene.apply(json!({
            "apiVersion": "velero.io/v1", "kind": "Backup", "metadata": metadata, "spec": {"storageLocation": "default"},
            "status": {"phase": phase, "startTimestamp": start},
        }));
    }
    restore(&mut scene, &json!({"backupName": null, "scheduleName": "daily"}));
    scene.settle(&VELERO);
    let restore = scene.get("velero.io/restores", "velero", "r").unwrap_or_default();
    assert_eq!((text(&restore, "/spec/backupName"), text(&restore, "/status/phase")), ("good", "InProgress"));
}
