//! How Velero's locations and schedules stand.

use jiff::Timestamp;
use serde_json::Value;

use super::store::{Advice, StoreAddress, advice};
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
    pub fn of(object: &'a Value) -> Self {
        let status = &object["status"];
        let (phase, validated) = (text(status, "phase"), text(status, "lastValidationTime"));
        match phase {
            "" => Self::New,
            _ if validated < changed(object) => Self::Outdated { phase },
            "Available" => Self::Available { validated: validated.parse().ok() },
            _ => Self::Other { phase, message: text(status, "message") },
        }
    }

    /// What helps against what the store said.
    pub fn advice(&self, object: &Value) -> Option<Advice> {
        let Self::Other { message, .. } = self else { return None };
        advice(message, &StoreAddress::of(object))
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
    pub fn of(object: &'a Value) -> Self {
        let status = &object["status"];
        let phase = match text(status, "phase") {
            "Enabled" => Phase::Enabled,
            "FailedValidation" => {
                let errors = items(status, "validationErrors").iter().filter_map(Value::as_str);
                Phase::Refused { errors: errors.collect(), outdated: looked(object) < changed(object) }
            }
            _ => Phase::New,
        };
        Self { paused: object["spec"]["paused"] == true, phase }
    }
}

/// When nodeprep changed an object last. Times are RFC 3339 in UTC, so their text sorts by time.
fn changed(object: &Value) -> &str {
    written(object, |field| field["manager"] == MANAGER)
}

/// When the status was written last.
fn looked(object: &Value) -> &str {
    written(object, |field| !field["fieldsV1"]["f:status"].is_null())
}

fn written(object: &Value, by: fn(&Value) -> bool) -> &str {
    let fields = items(&object["metadata"], "managedFields").iter().filter(|field| by(field));
    fields.map(|field| text(field, "time")).max().unwrap_or_default()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written_at(ours: &str, status: Value) -> Value {
        let fields = json!([
            {"manager": "nodeprep", "time": ours},
            {"manager": "velero-server", "time": "2026-01-01T00:02:00Z", "fieldsV1": {"f:status": {}}},
        ]);
        json!({"metadata": {"managedFields": fields}, "status": status})
    }

    #[test]
    fn what_a_location_says_counts_from_its_last_change_on() {
        let at = "2026-01-01T00:01:00Z";
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
            let object = written_at(at, status);
            let stands = Location::of(&object);
            assert_eq!(stands, expected);
            let lasts = stands.advice(&object).is_some_and(|advice| advice.lasting);
            assert_eq!(lasts, matches!(expected, Location::Other { .. }), "{object}");
        }
        let by_hand = json!({"status": {"phase": "Available"}});
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
            let mut object = written_at(changed, status);
            assert_eq!(Schedule::of(&object), Schedule { paused: false, phase });
            object["spec"] = json!({"paused": true});
            assert!(Schedule::of(&object).paused);
        }
    }
}
