//! Executes a plan step by step: journal first, then the deed, then the look at what came of it.

use std::time::Duration;

use tokio::sync::watch;

use super::{Journal, config, node, wipe};
use crate::cluster::{Cluster, Outcome};
use crate::error::{Error, Kind, Result};
use crate::event::{Events, PROTOCOL, What};
use crate::plan::{Action, Plan, Step};
use crate::talos;
use crate::talos::client::Mode;

/// How long one step may wait for what it brings about.
pub(super) const STEP_DEADLINE: Duration = Duration::from_secs(300);

/// The connections that the steps need.
#[derive(Debug)]
pub struct World {
    pub talos: Option<talos::Client>,
    pub cluster: Option<Cluster>,
    /// How machine configs are applied.
    pub mode: Mode,
    /// Says when somebody else took the cluster's lock.
    pub lost: Option<watch::Receiver<Option<String>>>,
}

impl World {
    /// # Errors
    /// The cluster's lock is not ours any more.
    fn still_ours(&self) -> Result<()> {
        let by = self.lost.as_ref().and_then(|lost| lost.borrow().clone());
        by.map_or(Ok(()), |by| {
            Err(Error::unavailable(format!("the cluster's lock was taken over by {by}"))
                .hint("nothing more was changed; run this again when that run has ended"))
        })
    }
}

/// Carries out every step in order and stops at the first that fails.
pub async fn run(
    verb: &str,
    plan: &Plan,
    world: &World,
    events: &Events,
    journal: &mut Journal,
    interrupted: watch::Receiver<bool>,
) -> Result<()> {
    let steps = plan.steps.len();
    events.send(What::RunStarted {
        protocol: PROTOCOL,
        verb: verb.to_owned(),
        steps,
        simulated: plan.simulated,
    });
    let mut changed = 0;
    for (index, step) in plan.steps.iter().enumerate() {
        let result = if *interrupted.borrow() {
            Err(Error::new(Kind::Interrupted, format!("interrupted before step {}", step.id)))
        } else if let Err(error) = world.still_ours() {
            Err(error)
        } else {
            one(step, world, events, journal, interrupted.clone()).await
        };
        match result {
            Ok(did) => changed += usize::from(did),
            Err(error) => {
                let summary = format!("{verb}: stopped at step {} of {steps}", index + 1);
                journal.end(false, &format!("{summary} ({}): {}", step.id, error.what))?;
                events.send(What::RunFinished { ok: false, summary });
                return Err(error);
            }
        }
    }
    let summary = format!("{verb}: done, {changed} {}", if changed == 1 { "change" } else { "changes" });
    journal.end(true, &summary)?;
    events.send(What::RunFinished { ok: true, summary });
    Ok(())
}

async fn one(
    step: &Step,
    world: &World,
    events: &Events,
    journal: &mut Journal,
    interrupted: watch::Receiver<bool>,
) -> Result<bool> {
    let events = events.of(&step.target, &step.id);
    journal.started(&step.id)?;
    events.send(What::StepStarted { title: step.title.clone() });
    let result = tokio::select! {
        result = execute(step, world, &events) => result,
        error = stop_waiting(step, interrupted) => Err(error),
    };
    match result {
        Ok(changed) => {
            journal.done(&step.id, changed)?;
            events.send(What::StepDone { changed });
            Ok(changed)
        }
        Err(error) => {
            journal.failed(&step.id, &error.what)?;
            events.send(What::StepFailed { error: error.what.clone(), hint: error.hint.clone() });
            Err(error)
        }
    }
}

/// A step that only waits ends at once when interrupted; one that changes something is finished first.
async fn stop_waiting(step: &Step, mut interrupted: watch::Receiver<bool>) -> Error {
    if step.action.changes() || interrupted.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
    Error::new(Kind::Interrupted, format!("interrupted while waiting: {}", step.title))
}

/// True when something was changed.
async fn execute(step: &Step, world: &World, events: &Events) -> Result<bool> {
    let no = |what: &str| Error::failed(format!("step {} needs a connection to the {what}", step.id));
    match &step.action {
        Action::ApplyConfig(work) => {
            let client = world.talos.as_ref().ok_or_else(|| no("machine API"))?;
            config::apply_config(client, work, world.mode, events).await
        }
        Action::AwaitVolumes { address, volumes } => {
            let client = world.talos.as_ref().ok_or_else(|| no("machine API"))?;
            node::await_volumes(client, address, volumes, events).await.map(|()| false)
        }
        Action::AwaitGone { address, volume } => {
            let client = world.talos.as_ref().ok_or_else(|| no("machine API"))?;
            node::await_gone(client, address, volume, events).await.map(|()| false)
        }
        Action::Wipe(work) => {
            let client = world.talos.as_ref().ok_or_else(|| no("machine API"))?;
            wipe::wipe(client, work, events).await
        }
        Action::ApplyObject(object) => {
            let cluster = world.cluster.as_ref().ok_or_else(|| no("cluster"))?;
            let applied = cluster.apply(&object.value, false, object.create_only).await?;
            Ok(applied.outcome() != Outcome::Unchanged)
        }
        Action::AwaitReady(ready) => {
            let cluster = world.cluster.as_ref().ok_or_else(|| no("cluster"))?;
            cluster.await_ready(ready, events, STEP_DEADLINE).await.map(|()| false)
        }
    }
}
