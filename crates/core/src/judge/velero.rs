//! How Velero's locations and schedules stand.

pub mod kinds;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

use self::kinds::BackupStorageLocation;
use super::pods::{short, some};
use super::store::{Advice, StoreAddress, advice, steady};
use crate::model::object::MANAGER;

/// How a BackupStorageLocation stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Location<'a> {
    /// Velero has not looked at it.
    New,
    /// What it says is older than its last change: Velero looks again only once a minute.
    Outdated {
        phase: &'a str,
    },
    /// And since when, where it says so.
    Available {
        validated: Option<Timestamp>,
    },
    Other {
        phase: &'a str,
        message: &'a str,
    },
}

impl<'a> Location<'a> {
    pub fn of(location: &'a BackupStorageLocation) -> Self {
        let Some(status) = &location.status else { return Self::New };
        let validated = status.last_validation_time.as_ref().map(|time| time.0);
        match some(&status.phase) {
            "" => Self::New,
            phase if outdated(&location.metadata, validated) => Self::Outdated { phase },
            "Available" => Self::Available { validated },
            phase => Self::Other { phase, message: some(&status.message) },
        }
    }

    /// What helps against what the store said.
    pub fn advice(&self, location: &BackupStorageLocation) -> Option<Advice> {
        let Self::Other { message, .. } = self else { return None };
        advice(message, &StoreAddress::of(location))
    }
}

/// What a backup location lacks.
pub fn location_lacks(location: &BackupStorageLocation) -> Option<String> {
    match Location::of(location) {
        Location::New => Some("Velero has not looked at it yet".into()),
        Location::Outdated { phase } => {
            Some(format!("{phase} before its last change; Velero has not looked again yet"))
        }
        Location::Available { validated: None } => Some("Available, but it does not say since when".into()),
        Location::Available { validated: Some(_) } => None,
        Location::Other { phase, message } => Some(short(&format!("{phase}: {}", steady(message)))),
    }
}

/// How a Schedule stands.
#[derive(Debug, PartialEq, Eq)]
pub struct Schedule<'a> {
    /// Velero makes no backups of it, and does not look at it either.
    pub paused: bool,
    pub phase: Phase<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Phase<'a> {
    New,
    Enabled,
    /// Velero makes no backups of it. It may have been changed since Velero looked.
    Refused {
        errors: Vec<&'a str>,
        outdated: bool,
    },
}

impl<'a> Schedule<'a> {
    pub fn of(schedule: &'a kinds::Schedule) -> Self {
        let status = schedule.status.as_ref();
        let phase = match status.map_or("", |status| some(&status.phase)) {
            "Enabled" => Phase::Enabled,
            "FailedValidation" => {
                let errors = status.and_then(|status| status.validation_errors.as_deref());
                let errors = errors.unwrap_or_default().iter().map(String::as_str).collect();
                let outdated = looked(&schedule.metadata) < changed(&schedule.metadata);
                Phase::Refused { errors, outdated }
            }
            _ => Phase::New,
        };
        Self { paused: schedule.spec.paused == Some(true), phase }
    }
}

/// Velero takes a schedule or says what is wrong with it, but does not look at one that is paused.
pub fn schedule_lacks(schedule: &kinds::Schedule) -> Option<String> {
    let Schedule { paused, phase } = Schedule::of(schedule);
    match phase {
        Phase::Enabled => None,
        _ if paused => Some("it is paused, so Velero does not look at it".into()),
        Phase::New => Some("Velero has not looked at it yet".into()),
        Phase::Refused { outdated: true, .. } => {
            Some("refused before its last change; Velero has not looked again yet".into())
        }
        Phase::Refused { errors, .. } => Some(short(&format!("FailedValidation: {}", errors.join("; ")))),
    }
}

/// What helps against what a schedule lacks; it stays.
pub fn schedule_hint(schedule: &kinds::Schedule) -> Option<String> {
    let ObjectMeta { namespace, name, .. } = &schedule.metadata;
    let Schedule { paused, phase } = Schedule::of(schedule);
    match phase {
        Phase::Enabled => None,
        _ if paused => {
            Some(format!("`velero -n {} schedule unpause {}`, and run again", some(namespace), some(name)))
        }
        Phase::Refused { outdated: false, .. } => {
            Some("Velero makes no backups of it: correct the schedule in the file".into())
        }
        Phase::New | Phase::Refused { .. } => None,
    }
}

/// Whether Velero may have looked at a location before its last change. Times are whole seconds: a look in the second of the
/// change may be of either, unless the location was made in that second.
fn outdated(metadata: &ObjectMeta, validated: Option<Timestamp>) -> bool {
    let (changed, made) = (changed(metadata), metadata.creation_timestamp.as_ref().map(|time| time.0));
    validated < changed || (validated.is_some() && validated == changed && made != changed)
}

/// When nodeprep changed an object last.
fn changed(metadata: &ObjectMeta) -> Option<Timestamp> {
    written(metadata, |field| some(&field.manager) == MANAGER)
}

/// When the status was written last.
fn looked(metadata: &ObjectMeta) -> Option<Timestamp> {
    written(metadata, |field| field.fields_v1.as_ref().is_some_and(|fields| !fields.0["f:status"].is_null()))
}

fn written(metadata: &ObjectMeta, by: fn(&ManagedFieldsEntry) -> bool) -> Option<Timestamp> {
    let fields = metadata.managed_fields.iter().flatten().filter(|field| by(field));
    fields.filter_map(|field| field.time.as_ref()).map(|time| time.0).max()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::model::object::read;

    fn written_at(ours: &str, status: Value) -> Value {
        let fields = json!([
            {"manager": "nodeprep", "time": ours},
            {"manager": "velero-server", "time": "2026-01-01T00:02:00Z", "fieldsV1": {"f:status": {}}},
        ]);
        json!({"metadata": {"managedFields": fields}, "status": status})
    }

    #[test]
    fn what_a_location_says_counts_from_its_last_change_on() {
        let (changed, at) = ("2026-01-01T00:01:00Z", "2026-01-01T00:01:01Z");
        for (status, expected) in [
            (json!({}), Location::New),
            (Value::Null, Location::New),
            (
                json!({"phase": "Available", "lastValidationTime": at}),
                Location::Available { validated: at.parse().ok() },
            ),
            (
                json!({"phase": "Available", "lastValidationTime": "2026-01-01T00:00:59Z"}),
                Location::Outdated { phase: "Available" },
            ),
            // In the second of the change, before or after.
            (
                json!({"phase": "Available", "lastValidationTime": changed}),
                Location::Outdated { phase: "Available" },
            ),
            (json!({"phase": "Available"}), Location::Outdated { phase: "Available" }),
            (
                json!({"phase": "Unavailable", "lastValidationTime": "2026-01-01T00:00:59Z", "message": "x"}),
                Location::Outdated { phase: "Unavailable" },
            ),
            (
                json!({"phase": "Unavailable", "lastValidationTime": at, "message": "InvalidAccessKeyId"}),
                Location::Other { phase: "Unavailable", message: "InvalidAccessKeyId" },
            ),
        ] {
            let object = written_at(changed, status);
            let location = read(&object).unwrap();
            let stands = Location::of(&location);
            assert_eq!(stands, expected);
            let lasts = stands.advice(&location).is_some_and(|advice| advice.lasting);
            assert_eq!(lasts, matches!(expected, Location::Other { .. }), "{object}");
        }
        let mut made = written_at(changed, json!({"phase": "Available", "lastValidationTime": changed}));
        made["metadata"]["creationTimestamp"] = changed.into();
        let validated = changed.parse().ok();
        assert_eq!(Location::of(&read(&made).unwrap()), Location::Available { validated });
        let by_hand = from_value(json!({"status": {"phase": "Available"}})).unwrap();
        assert_eq!(Location::of(&by_hand), Location::Available { validated: None });
    }

    #[test]
    fn a_schedule_is_refused_by_what_velero_says_of_its_newest_form() {
        let refused = json!({"phase": "FailedValidation", "validationErrors": ["a", "b"]});
        for (changed, status, phase) in [
            ("2026-01-01T00:01:00Z", json!({"phase": "Enabled"}), Phase::Enabled),
            ("2026-01-01T00:01:00Z", json!({"phase": "New"}), Phase::New),
            ("2026-01-01T00:01:00Z", Value::Null, Phase::New),
            (
                "2026-01-01T00:01:00Z",
                refused.clone(),
                Phase::Refused { errors: vec!["a", "b"], outdated: false },
            ),
            ("2026-01-01T00:03:00Z", refused, Phase::Refused { errors: vec!["a", "b"], outdated: true }),
        ] {
            let mut schedule = read(&written_at(changed, status)).unwrap();
            assert_eq!(Schedule::of(&schedule), Schedule { paused: false, phase });
            schedule.spec.paused = Some(true);
            assert!(Schedule::of(&schedule).paused);
        }
    }

    #[test]
    fn a_location_is_available_only_when_velero_looked_after_the_last_change() {
        let lacks = |looked: &str, phase: &str| {
            let location = json!({
                "metadata": {"managedFields": [{"manager": "nodeprep", "time": "2026-01-01T00:01:00Z"},
                                               {"manager": "velero-server", "time": "2026-01-01T00:09:00Z"}]},
                "status": {"phase": phase, "lastValidationTime": looked, "message": "InvalidAccessKeyId: unknown\n  status code: 403"}
            });
            location_lacks(&from_value(location).unwrap())
        };
        assert_eq!(lacks("2026-01-01T00:01:01Z", "Available"), None);
        assert!(lacks("2026-01-01T00:01:00Z", "Available").is_some());
        assert!(lacks("2026-01-01T00:00:59Z", "Available").is_some());
        let lack = lacks("2026-01-01T00:02:00Z", "Unavailable").unwrap_or_default();
        assert_eq!(lack, "Unavailable: InvalidAccessKeyId: unknown status code: 403");
        assert!(location_lacks(&BackupStorageLocation::default()).is_some());
    }
}
