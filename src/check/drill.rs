//! The newest drill passed, and none is due.

use super::{Check, Per, Run, Stop, Subject};
use crate::event::Verdict;
use crate::intent::Drill;
use crate::judge::drill::{DRILLS, DrillOutcome, Standing, standing};

pub(super) const CHECK: Check = Check {
    id: "drill",
    title: "a drill proved, not long ago, that backups restore",
    per: Per::Backup,
    needs: &[],
    judge: |run, subject| Box::pin(judge(run, subject)),
};

const HINT: &str = "`nodeprep drill` restores fresh files and says what does not work";

async fn judge(run: &Run<'_>, _: &Subject<'_>) -> Result<Verdict, Stop> {
    let Some(backup) = &run.ctx.intent.backup else {
        return Ok(Verdict::Skip { why: "the file has no `backup`".into() });
    };
    let cluster = &run.ctx.cluster;
    let live = cluster.get("v1", "ConfigMap", Some(&backup.namespace), DRILLS).await?;
    let data = live.map(|mut live| live["data"].take()).unwrap_or_default();
    Ok(verdict(standing(&data, backup.drill.as_ref(), cluster.time().await?), backup.drill.as_ref()))
}

fn verdict(standing: Standing, drill: Option<&Drill>) -> Verdict {
    match (standing, drill) {
        (Standing::Proven { ago, outcome }, _) => Verdict::pass(told(&outcome, ago)),
        (Standing::Never, None) => {
            Verdict::Skip { why: "no drill was run, and the file asks for none (`backup.drill`)".into() }
        }
        (Standing::Never, Some(_)) => Verdict::fail("no drill was ever run", HINT),
        (Standing::Failed(outcome), _) => {
            Verdict::fail(format!("the newest drill, which ended at {}, failed", outcome.at), HINT)
        }
        (Standing::Overdue { ago, outcome }, drill) => {
            let every =
                drill.map_or_else(String::new, |drill| format!(", and one is due every {}", drill.every));
            Verdict::fail(format!("{}{every}", told(&outcome, ago)), HINT)
        }
    }
}

fn told(outcome: &DrillOutcome, ago: i64) -> String {
    let seconds = |took: Option<u64>| took.map_or_else(|| "?".to_owned(), |took| took.to_string());
    let hours = ago / 3600;
    format!(
        "passed {hours} h ago with class {}: RTO {} s, RPO {} s",
        outcome.class,
        seconds(outcome.rto),
        seconds(outcome.rpo)
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_drill_that_passed_and_is_not_due_passes() {
        let outcome: DrillOutcome =
            serde_json::from_value(json!({"at": "2026-01-01T00:00:00Z", "class": "c", "passed": true}))
                .unwrap();
        let drill: Drill = serde_json::from_value(json!({"every": "24h"})).unwrap();
        let fails = |standing, drill| matches!(verdict(standing, drill), Verdict::Fail { .. });
        let proven = verdict(Standing::Proven { ago: 7200, outcome: outcome.clone() }, None);
        assert_eq!(proven, Verdict::pass("passed 2 h ago with class c: RTO ? s, RPO ? s"));
        assert!(matches!(verdict(Standing::Never, None), Verdict::Skip { .. }));
        assert!(fails(Standing::Never, Some(&drill)));
        assert!(
            fails(Standing::Failed(outcome.clone()), None),
            "a drill that failed counts whoever asked for it"
        );
        assert!(fails(Standing::Overdue { ago: 90_000, outcome }, Some(&drill)));
    }
}
