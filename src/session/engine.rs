//! Executes a plan: of each step, the journal first, then the deed, then the look at what came of it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::stream::{self, StreamExt};
use tokio::sync::watch;

use super::waves::{Lane, waves};
use super::{Held, Journal, Manner, Reached, bootstrap, config, install, node, wipe};
use crate::cluster::Outcome;
use crate::error::{Error, Kind, Result};
use crate::event::{Events, PROTOCOL, What};
use crate::plan::{Action, Plan, Step};
use crate::talos;

/// What the steps need: connections, and how they are carried out.
#[derive(Debug)]
pub(super) struct RunContext {
    pub talos: Option<talos::Client>,
    pub cluster: Reached,
    /// The cluster's lock, where there is a cluster.
    pub lease: Option<Held>,
    /// Who the run is, for others that come after it ([`super::LeaseHolder::place`]).
    pub place: String,
    pub manner: Manner,
}

impl RunContext {
    /// # Errors
    /// The cluster's lock is not ours any more.
    pub(super) async fn still_ours(&self) -> Result<()> {
        match &self.lease {
            Some(lease) => lease.sure(self.manner.deadlines.reboot.std()).await,
            None => Ok(()),
        }
    }
}

/// Carries out every step, in waves of nodes and at last for the cluster. The first that fails ends the run when the steps
/// that are under way have ended; or, where that is asked for, only keeps the cluster's own steps from being done.
pub(super) async fn run(
    verb: &str,
    plan: &Plan,
    context: &RunContext,
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
    let run = Run { context, events, journal: Mutex::new(journal), interrupted, ended: Mutex::default() };
    for wave in waves(&plan.steps, context.manner.parallel) {
        if run.goes_on(wave.nodes) {
            let lanes = stream::iter(&wave.lanes);
            lanes.for_each_concurrent(wave.at_once, |lane| run.lane(lane, wave.nodes)).await;
        }
    }
    let Ended { changed, failed } = run.ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    let journal = run.journal.into_inner().unwrap_or_else(PoisonError::into_inner);
    let others = failed.len().saturating_sub(1);
    let Some((index, id, error)) = failed.into_iter().next() else {
        let summary = format!("{verb}: done, {changed} {}", if changed == 1 { "change" } else { "changes" });
        journal.end(true, &summary)?;
        events.send(What::RunFinished { ok: true, summary });
        return Ok(());
    };
    let more = if others == 0 { String::new() } else { format!(", and {others} more failed") };
    let summary = format!("{verb}: stopped at step {} of {steps}{more}", index + 1);
    journal.end(false, &format!("{summary} ({id}): {}", error.what))?;
    events.send(What::RunFinished { ok: false, summary });
    Err(error)
}

/// A run that is under way.
struct Run<'a> {
    context: &'a RunContext,
    events: &'a Events,
    journal: Mutex<&'a mut Journal>,
    interrupted: watch::Receiver<bool>,
    ended: Mutex<Ended>,
}

/// What became of steps.
#[derive(Default)]
struct Ended {
    changed: usize,
    /// Place in the plan, id and error, in the order in which they failed.
    failed: Vec<(usize, String, Error)>,
}

impl Run<'_> {
    /// Whether a further step is begun: of a node, or of the cluster, which needs all nodes.
    fn goes_on(&self, of_node: bool) -> bool {
        self.ended().failed.is_empty() || of_node && self.context.manner.keep_going
    }

    fn ended(&self) -> MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn lane(&self, lane: &Lane<'_>, of_node: bool) {
        for (index, step) in lane {
            if !self.goes_on(of_node) {
                return;
            }
            let result = self.one(step).await;
            let mut ended = self.ended();
            match result {
                Ok(changed) => ended.changed += usize::from(changed),
                Err(error) => {
                    ended.failed.push((*index, step.id.clone(), error));
                    return;
                }
            }
        }
    }

    async fn one(&self, step: &Step) -> Result<bool> {
        let mut interrupted = self.interrupted.clone();
        tokio::select! {
            biased;
            Ok(_) = interrupted.wait_for(|stop| *stop) => {
                return Err(Error::new(Kind::Interrupted, format!("interrupted before step {}", step.id)));
            }
            ours = self.context.still_ours() => ours?,
        }
        let events = self.events.of(&step.target, &step.id);
        self.journal(|journal| journal.started(&step.id))?;
        events.send(What::StepStarted { title: step.title.clone() });
        let result = tokio::select! {
            result = execute(step, self.context, &events) => result,
            error = stop_waiting(step, self.interrupted.clone()) => Err(error),
        };
        match result {
            Ok(changed) => {
                self.journal(|journal| journal.done(&step.id, changed))?;
                events.send(What::StepDone { changed });
                Ok(changed)
            }
            Err(error) => {
                self.journal(|journal| journal.failed(&step.id, &error.what))?;
                events.send(What::StepFailed { error: error.what.clone(), hint: error.hint.clone() });
                Err(error)
            }
        }
    }

    fn journal<T>(&self, write: impl FnOnce(&mut Journal) -> T) -> T {
        write(&mut self.journal.lock().unwrap_or_else(PoisonError::into_inner))
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
async fn execute(step: &Step, context: &RunContext, events: &Events) -> Result<bool> {
    let no = |what: &str| Error::failed(format!("step {} needs a connection to the {what}", step.id));
    let talos = || context.talos.as_ref().ok_or_else(|| no("machine API"));
    let cluster = || context.cluster.here().ok_or_else(|| no("cluster"));
    let deadlines = &context.manner.deadlines;
    let (volumes, workloads) = (deadlines.volumes.std(), deadlines.workloads.std());
    let begin = deadlines.bootstrap.std();
    match &step.action {
        Action::ApplyConfig(work) => return config::apply_config(talos()?, work, context, events).await,
        Action::Wipe(work) => return wipe::wipe(talos()?, work, context, events).await,
        Action::ApplyObject(object) => {
            let applied = cluster()?.apply(&object.value, false, object.create_only).await?;
            return Ok(applied.outcome() != Outcome::Unchanged);
        }
        Action::DeleteObject(gone) => return cluster()?.remove(gone, events, workloads).await,
        Action::AwaitVolumes { address, volumes: wanted } => {
            node::await_volumes(talos()?, address, wanted, volumes, events).await?;
        }
        Action::AwaitGone { address, volume } => {
            node::await_gone(talos()?, address, volume, volumes, events).await?;
        }
        Action::Install(work) => return install::install(talos()?, work, context, events).await,
        Action::Bootstrap(work) => return bootstrap::bootstrap(talos()?, work, begin, events).await,
        Action::Kubeconfig { address, path } => {
            return bootstrap::kubeconfig(talos()?, address, path, begin, events).await;
        }
        Action::AwaitCluster { kubeconfig, nodes } => {
            bootstrap::await_cluster(talos()?, context, kubeconfig, nodes, events).await?;
        }
        Action::AwaitReady(ready) => cluster()?.await_ready(ready, events, workloads).await?,
    }
    Ok(false)
}
