//! A backup on demand, as a plan: what Velero is asked for, and that it came of it.

use super::step::chain;
use super::{Action, AwaitBackup, BackupRequest, Plan, Step, Target, VeleroAction};
use crate::error::{Error, Result};
use crate::intent::{Backup, Duration, LabelSelector, NOT_FOR_EVER};
use crate::judge::coverage::{Coverage, Scope};
use crate::stack;

/// The id of the step that makes the Backup.
const MAKE: &str = "backup/make";

/// Plans a backup of the scope, kept for `ttl`; `coverage` is of the claims in it.
///
/// # Errors
/// `Invalid` for a time that Velero would take for its own default, `Failed` when the template is broken.
pub fn plan(backup: &Backup, scope: &Scope, ttl: Duration, coverage: Coverage) -> Result<Plan> {
    if ttl.0 == 0 {
        return Err(Error::invalid(
            "a backup can't be kept for 0 s: Velero takes that for its default of 30 days",
        )
        .hint(NOT_FOR_EVER));
    }
    let (namespaces, labels) = match scope {
        Scope::All => (&[] as &[String], None),
        Scope::Namespaces(names) => (names.as_slice(), None),
        Scope::Labels(labels) => (&[] as &[String], Some(labels.iter().cloned().collect())),
    };
    let selector = labels.map(|match_labels| LabelSelector { match_labels, ..LabelSelector::default() });
    let spec = stack::backup_spec(backup, namespaces, selector, ttl)?;
    let Coverage { covered, left_out } = coverage;
    let why = match covered.as_slice() {
        [] => "no claim's files are read".to_owned(),
        [one] => format!("with the files of claim {}", one.claim),
        many => format!("with the files of {} claims", many.len()),
    };
    let request = BackupRequest { namespace: backup.namespace.clone(), prefix: "nodeprep".into(), spec };
    let title = format!("back up {scope} to location {}", backup.location.name);
    let make = Step {
        why,
        ..Step::new(MAKE, Target::Cluster, title, Action::Velero(VeleroAction::Backup(request)))
    };
    let warnings = left_out.iter().map(|(claim, why)| format!("claim {claim} will not be in it: {why}"));
    let mut warnings: Vec<String> = warnings.collect();
    if covered.is_empty() && left_out.is_empty() {
        warnings.push(format!("there is no claim in {scope}: the backup holds objects alone"));
    }
    let namespace = backup.namespace.clone();
    let seen = VeleroAction::Await(AwaitBackup {
        of: MAKE.into(),
        namespace,
        wanted: covered,
        left_out,
        newer_than: None,
    });
    let seen =
        Step::new("backup/done", Target::Cluster, "wait until the backup holds it", Action::Velero(seen));
    let mut plan = Plan { steps: vec![make, seen], warnings, ..Plan::default() };
    chain(&mut plan.steps);
    Ok(plan)
}
