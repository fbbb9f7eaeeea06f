//! What steps leave for later ones, and for the run that goes on with this one: in the journal before it is used.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::journal::{Entry, Journal};
use crate::error::{Error, Result};
use crate::plan::Saved;

/// By the id of the step, and then by name.
pub(super) type Outputs = BTreeMap<String, BTreeMap<String, String>>;

/// What the steps of runs that did not end well had left, as far as the same steps are planned again. The runs are those of a
/// verb, the newest first: what came before one that ended well is over.
pub(super) fn left(runs: impl Iterator<Item = Result<Vec<Entry>>>, again: &Saved) -> Result<Outputs> {
    let mut outputs = Outputs::new();
    for entries in runs {
        let entries = entries?;
        if entries.iter().any(|entry| matches!(entry, Entry::End { ok: true, .. })) {
            break;
        }
        let planned = match entries.first() {
            Some(Entry::Begin { steps, .. }) => steps.as_slice(),
            _ => continue,
        };
        let same = |id: &str| {
            let before = planned.iter().find(|step| step.id == id);
            let now = again.steps.iter().find(|step| step.id == id);
            before.zip(now).is_some_and(|(before, now)| before.digest == now.digest)
        };
        for entry in entries.iter().rev() {
            if let Entry::Output { id, name, value, .. } = entry
                && same(id)
            {
                let of_step = outputs.entry(id.clone()).or_default();
                of_step.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    Ok(outputs)
}

/// What one step can read of others, and leave.
pub(super) struct StepRecord<'a, 'j> {
    pub(super) id: &'a str,
    pub(super) journal: &'a Mutex<&'j mut Journal>,
    /// Of a run that did not end well.
    pub(super) former: &'a Outputs,
    pub(super) outputs: &'a Mutex<Outputs>,
}

impl StepRecord<'_, '_> {
    /// What the same step left in a former run that did not end well.
    pub(super) fn former(&self, name: &str) -> Option<&str> {
        self.former.get(self.id)?.get(name).map(String::as_str)
    }

    /// Leaves something: it is on disk when this returns.
    ///
    /// # Errors
    /// It can't be written; then nothing may be done by it.
    pub(super) fn leave(&self, name: &str, value: &str) -> Result<()> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).output(self.id, name, value)?;
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        outputs.entry(self.id.to_owned()).or_default().insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// What a step that this one needs has left.
    ///
    /// # Errors
    /// It left no such thing.
    pub(super) fn of(&self, step: &str, name: &str) -> Result<String> {
        let outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let found = outputs.get(step).and_then(|outputs| outputs.get(name)).cloned();
        found.ok_or_else(|| Error::failed(format!("step {step} did not say what its {name} is")))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::plan::{Action, Key, ObjectAction, Plan, Step, Target};

    const KEY: Key = [0; 64];

    fn saved(name: &str) -> Saved {
        let value = serde_json::json!({"metadata": {"name": name}});
        let object =
            crate::model::object::Object { value, component: "t", secret: false, create_only: false };
        let step = Step::new("s", Target::Cluster, "t", Action::Object(ObjectAction::Apply(object)));
        Saved::of("home", &Plan { steps: vec![step], ..Plan::default() }, &KEY)
    }

    #[test]
    fn only_the_same_step_of_a_run_that_did_not_end_well_is_gone_on_with() {
        let at = String::new;
        let begin = |plan: &Saved| Entry::Begin {
            version: 4,
            at: at(),
            verb: "backup".into(),
            cluster: "home".into(),
            pid: 1,
            plan: String::new(),
            steps: plan.steps.iter().cloned().map(Into::into).collect(),
        };
        let output = || Entry::Output { at: at(), id: "s".into(), name: "backup".into(), value: "b".into() };
        let end = |ok| Entry::End { at: at(), ok, summary: String::new() };
        for (entries, again, found) in [
            (vec![begin(&saved("a")), output()], saved("a"), true),
            (vec![begin(&saved("a")), output(), end(false)], saved("a"), true),
            (vec![begin(&saved("a")), output(), end(true)], saved("a"), false),
            (vec![begin(&saved("a")), output()], saved("other"), false),
            (vec![begin(&saved("a"))], saved("a"), false),
            (vec![], saved("a"), false),
        ] {
            let outputs = left([Ok(entries.clone())].into_iter(), &again).unwrap();
            assert_eq!(outputs.contains_key("s"), found, "{entries:?}");
        }
        let (begun, ended) = (vec![begin(&saved("a")), output()], vec![begin(&saved("a")), end(true)]);
        for (runs, found) in [
            (vec![vec![], vec![begin(&saved("a"))], begun.clone()], true),
            (vec![vec![begin(&saved("a"))], ended, begun], false),
        ] {
            let outputs = left(runs.into_iter().map(Ok), &saved("a")).unwrap();
            assert_eq!(outputs.contains_key("s"), found, "through runs that were killed before their step");
        }
    }
}
