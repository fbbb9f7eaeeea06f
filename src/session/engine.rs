//! Executes a plan: of each step, the journal first, then the deed, then the look at what came of it.
//!
//! Waves say which nodes have their turn; inside of a lane a step begins when all that it needs are done. What is done at the
//! end whatever came of the run comes last, one after the other, an interrupt or not.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::stream::{self, FuturesUnordered, StreamExt};
use tokio::sync::watch;

use super::family::{self, RunContext};
use super::journal::Journal;
use super::outputs::{Outputs, StepRecord};
use super::runs::RunRecord;
use super::waves::{Lane, Wave, waves};
use crate::error::{Error, Kind, Result};
use crate::event::{EventKind, Events, PROTOCOL};
use crate::plan::{Plan, Step, When};

/// Carries out every step, in waves of nodes and at last for the cluster. The first that fails ends the run when the steps
/// that are under way have ended; or, where that is asked for, only keeps the cluster's own steps from being done.
pub(super) async fn run(
    verb: &str,
    plan: &Plan,
    context: &RunContext,
    events: &Events,
    record: &mut RunRecord,
    interrupted: watch::Receiver<bool>,
) -> Result<()> {
    let steps = plan.steps.len();
    events.send(EventKind::RunStarted {
        protocol: PROTOCOL,
        verb: verb.to_owned(),
        steps,
        simulated: plan.simulated,
    });
    let (former, journal) = (&record.former, Mutex::new(&mut record.journal));
    let (outputs, ended) = (Mutex::default(), Mutex::default());
    let run = PlanRun { context, events, journal, former, outputs, interrupted, ended };
    for wave in waves(&plan.steps, context.manner.parallel) {
        run.wave(&wave).await;
    }
    run.at_the_end(&plan.steps).await;
    let Ended { changed, mut failed, done, .. } =
        run.ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failed.is_empty() {
        failed.extend(stranded(&plan.steps, &done));
    }
    let others = failed.len().saturating_sub(1);
    let Some((index, id, error)) = failed.into_iter().next() else {
        let summary = format!("{verb}: done, {changed} {}", if changed == 1 { "change" } else { "changes" });
        record.end(true, &summary)?;
        events.send(EventKind::RunFinished { ok: true, summary });
        return Ok(());
    };
    let more = if others == 0 { String::new() } else { format!(", and {others} more failed") };
    let summary = format!("{verb}: stopped at step {} of {steps}{more}", index + 1);
    record.end(false, &format!("{summary} ({id}): {}", error.what))?;
    events.send(EventKind::RunFinished { ok: false, summary });
    Err(error)
}

/// A step that had no turn although nothing failed: what it needs is not in the plan, or comes later. Without it the run has not
/// done what was planned.
fn stranded(steps: &[Step], done: &BTreeSet<String>) -> Option<(usize, String, Error)> {
    let left = |(_, step): &(usize, &Step)| step.when == When::Needed && !done.contains(&step.id);
    let (index, step) = steps.iter().enumerate().find(left)?;
    let needs: Vec<&str> = step.needs.iter().filter(|id| !done.contains(*id)).map(String::as_str).collect();
    let why = format!("step {} had no turn: it needs {}, which was not done", step.id, needs.join(", "));
    Some((
        index,
        step.id.clone(),
        Error::failed(why).hint("this is a fault of nodeprep's plan; run `plan` and report it"),
    ))
}

/// A run that is under way.
struct PlanRun<'a> {
    context: &'a RunContext,
    events: &'a Events,
    journal: Mutex<&'a mut Journal>,
    /// What steps had left in runs of the verb that did not end well.
    former: &'a Outputs,
    outputs: Mutex<Outputs>,
    interrupted: watch::Receiver<bool>,
    ended: Mutex<Ended>,
}

/// What became of steps.
#[derive(Default)]
struct Ended {
    changed: usize,
    begun: BTreeSet<String>,
    done: BTreeSet<String>,
    /// Place in the plan, id and error, in the order in which they failed.
    failed: Vec<(usize, String, Error)>,
}

impl PlanRun<'_> {
    fn ended(&self) -> MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wave(&self, wave: &Wave<'_>) {
        let lanes = stream::iter(&wave.lanes);
        lanes.for_each_concurrent(wave.at_once, |lane| self.lane(lane, wave.steps_at_once)).await;
    }

    /// Carries out the steps of a lane, so many at the same time, each when all that it needs are done. After a failure no
    /// further one is begun, unless the run is to keep going; then only those are left out that need what failed.
    async fn lane(&self, lane: &Lane<'_>, at_once: usize) {
        let mut open: Vec<&(usize, &Step)> = lane.iter().collect();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < at_once
                && let Some(next) = open.iter().position(|(_, step)| self.may_begin(step))
            {
                let (index, step) = open.remove(next);
                running.push(self.turn(*index, step));
            }
            if running.next().await.is_none() {
                return;
            }
        }
    }

    fn may_begin(&self, step: &Step) -> bool {
        let ended = self.ended();
        let goes_on = ended.failed.is_empty() || self.context.manner.keep_going;
        goes_on && step.needs.iter().all(|id| ended.done.contains(id))
    }

    /// What cleans up after the steps that were begun, and what takes them back when the run did not succeed.
    async fn at_the_end(&self, steps: &[Step]) {
        for (index, step) in steps.iter().enumerate() {
            let wanted = {
                let ended = self.ended();
                let begun = step.needs.iter().any(|id| ended.begun.contains(id));
                match step.when {
                    When::Needed => false,
                    When::Always => begun,
                    When::Undo => begun && !ended.failed.is_empty(),
                }
            };
            if wanted {
                self.turn(index, step).await;
            }
        }
    }

    async fn turn(&self, index: usize, step: &Step) {
        let result = self.one(step).await;
        let mut ended = self.ended();
        match result {
            Ok(changed) => {
                ended.changed += usize::from(changed);
                ended.done.insert(step.id.clone());
            }
            Err(error) => ended.failed.push((index, step.id.clone(), error)),
        }
    }

    async fn one(&self, step: &Step) -> Result<bool> {
        if step.when == When::Needed {
            self.may_go_on(step).await?;
        }
        self.ended().begun.insert(step.id.clone());
        let events = self.events.of(step.target.to_string(), &step.id);
        self.journal(|journal| journal.started(&step.id))?;
        events.send(EventKind::StepStarted { title: step.title.clone() });
        let record =
            StepRecord { id: &step.id, journal: &self.journal, former: self.former, outputs: &self.outputs };
        let result = tokio::select! {
            biased;
            result = Box::pin(family::carry_out(&step.action, self.context, &record, &events)) => result,
            error = stop_waiting(step, self.interrupted.clone()) => Err(error),
        };
        match result {
            Ok(changed) => {
                self.journal(|journal| journal.done(&step.id, changed))?;
                events.send(EventKind::StepDone { changed });
                Ok(changed)
            }
            Err(error) => {
                self.journal(|journal| journal.failed(&step.id, &error.what))?;
                events.send(EventKind::StepFailed { error: error.what.clone(), hint: error.hint.clone() });
                Err(error)
            }
        }
    }

    /// # Errors
    /// The run was interrupted, or the cluster's lock is not its own any more.
    async fn may_go_on(&self, step: &Step) -> Result<()> {
        let mut interrupted = self.interrupted.clone();
        tokio::select! {
            biased;
            Ok(_) = interrupted.wait_for(|stop| *stop) => {
                Err(Error::new(Kind::Interrupted, format!("interrupted before step {}", step.id)))
            }
            ours = self.context.still_ours() => ours,
        }
    }

    fn journal<T>(&self, write: impl FnOnce(&mut Journal) -> T) -> T {
        write(&mut self.journal.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where an interrupt ends a step, it does so at once; any other is finished first, and so is what is done at the end.
async fn stop_waiting(step: &Step, mut interrupted: watch::Receiver<bool>) -> Error {
    let finishes = step.when != When::Needed || !step.action.ends_when_interrupted();
    if finishes || interrupted.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
    Error::new(Kind::Interrupted, format!("interrupted while waiting: {}", step.title))
}
