//! What drills proved, and whether one is due.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::intent::Drill;

/// The ConfigMap in Velero's namespace with the drills of before.
pub const DRILLS: &str = "nodeprep-drills";
/// So many of them are kept.
const KEPT: usize = 20;

/// What came of a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrillOutcome {
    /// When it ended, by the cluster's clock.
    pub at: Timestamp,
    pub class: String,
    pub passed: bool,
    /// What came back, in words; nothing when it did not come so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<String>,
    /// How long the restore and the backup took, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo: Option<u64>,
}

/// The ConfigMap's data with one more, without the oldest.
pub fn kept(former: &Value, id: &str, outcome: &DrillOutcome) -> BTreeMap<String, String> {
    let mut all = outcomes(former);
    all.push((id.to_owned(), outcome.clone()));
    all.sort_by_key(|(_, outcome)| outcome.at);
    let from = all.len().saturating_sub(KEPT);
    let text = |outcome: &DrillOutcome| serde_json::to_string(outcome).unwrap_or_default();
    all[from..].iter().map(|(id, outcome)| (id.clone(), text(outcome))).collect()
}

/// The drills in the ConfigMap's data; what is none is left out.
pub fn outcomes(data: &Value) -> Vec<(String, DrillOutcome)> {
    let entries = data.as_object().into_iter().flatten();
    entries.filter_map(|(id, text)| Some((id.clone(), serde_json::from_str(text.as_str()?).ok()?))).collect()
}

/// How the drills stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The newest passed, and none is due; so many seconds ago.
    Proven {
        ago: i64,
        outcome: DrillOutcome,
    },
    Never,
    Failed(DrillOutcome),
    /// The newest is so many seconds old.
    Overdue {
        ago: i64,
        outcome: DrillOutcome,
    },
}

/// How they stand; without a `drill` in the file none is ever overdue.
pub fn standing(data: &Value, drill: Option<&Drill>, now: Timestamp) -> Standing {
    let newest = outcomes(data).into_iter().map(|(_, outcome)| outcome).max_by_key(|outcome| outcome.at);
    let Some(outcome) = newest else { return Standing::Never };
    let ago = now.duration_since(outcome.at);
    let every = drill.and_then(|drill| SignedDuration::try_from(drill.every.std()).ok());
    let every = every.unwrap_or(SignedDuration::MAX);
    match outcome.passed {
        false => Standing::Failed(outcome),
        true if ago > every => Standing::Overdue { ago: ago.as_secs(), outcome },
        true => Standing::Proven { ago: ago.as_secs(), outcome },
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outcome(at: i64, passed: bool) -> DrillOutcome {
        let at = Timestamp::from_second(at).unwrap();
        DrillOutcome { at, class: "c".into(), passed, compared: None, rto: Some(9), rpo: None }
    }

    #[test]
    fn the_newest_drill_counts_and_what_is_none_does_not() {
        let drill: Drill = serde_json::from_value(json!({"every": "1h"})).unwrap();
        let now = Timestamp::from_second(10_000).unwrap();
        let data = |all: &[DrillOutcome]| {
            let mut data = json!({"other": "text"});
            for one in all {
                data[one.at.to_string()] = serde_json::to_string(one).unwrap().into();
            }
            data
        };
        let (old, new) = (outcome(1_000, true), outcome(9_000, true));
        let failed = outcome(9_500, false);
        for (all, wanted) in [
            (vec![], Standing::Never),
            (vec![old.clone()], Standing::Overdue { ago: 9_000, outcome: old.clone() }),
            (vec![new.clone(), old.clone()], Standing::Proven { ago: 1_000, outcome: new.clone() }),
            (vec![new, failed.clone(), old], Standing::Failed(failed)),
        ] {
            assert_eq!(standing(&data(&all), Some(&drill), now), wanted);
        }
    }

    #[test]
    fn the_oldest_drills_are_forgotten() {
        let mut data = json!({});
        for at in 1..=30 {
            data = json!(kept(&data, &format!("d{at}"), &outcome(at, true)));
        }
        let all = outcomes(&data);
        assert_eq!(all.len(), KEPT);
        assert!(all.iter().all(|(_, outcome)| outcome.at.as_second() > 10), "{all:?}");
    }
}
