//! The one way to act: every verb that changes something, and every test of one, opens a session.
//!
//! A session holds this machine's lock, looks at what a former run left, plans, asks, takes the cluster's Lease where there
//! is a cluster, plans again when somebody thought about the answer, carries the plan out journal first, and cleans up:
//! after an error, an interrupt and a panic too.

mod engine;
mod family;
mod journal;
mod lease;
mod lock;
mod outputs;
mod planned;
mod reach;
mod restoring;
mod runs;
mod tape;
mod waves;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};

use futures::FutureExt;
use tokio::sync::watch;

pub use family::{begun_on, losses, reboots};
pub use journal::{CutOff, Entry};
pub use lease::{Held, Lease, LeaseHolder, give_up};
pub use lock::Lock;
pub use planned::{ApplyRequest, Part, Planned, plan, plan_backup};
pub use reach::{Reach, Reached};
pub use restoring::{ReadContents, await_backups, plan_drill, plan_restore};
pub use runs::{ObservedNodes, RunOutcome, RunRecord, cut_offs, last_run};
pub use waves::Parallel;

use crate::cluster::Cluster;
use crate::error::{Error, Result, together};
use crate::event::Events;
use crate::plan::{Action, Deadlines, Key, NodeAction, Plan, Saved, Skipped, Step};
use crate::state::State;
use crate::talos::client::Mode;
use family::RunContext;
use tape::Tape;

/// How a plan is carried out.
#[derive(Debug, Clone)]
pub struct Manner {
    /// How machine configs are applied.
    pub mode: Mode,
    pub parallel: Parallel,
    /// A node that fails does not keep the others from their turn.
    pub keep_going: bool,
    /// What pods keep in an emptyDir may be lost when their node is drained.
    pub delete_emptydir_data: bool,
    /// The Lease may be taken over from a run of another machine that died.
    pub take_over: bool,
    pub deadlines: Deadlines,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            mode: Mode::NoReboot,
            parallel: Parallel::default(),
            keep_going: false,
            delete_emptydir_data: false,
            take_over: false,
            deadlines: Deadlines::default(),
        }
    }
}

impl Manner {
    /// The plan as it is carried out in this mode.
    ///
    /// # Errors
    /// `Kind::Refused` when it would reboot nodes that may not, or lose what pods keep there.
    fn fit(&self, mut planned: Planned) -> Result<Planned> {
        let reboots = planned.plan.reboots.as_deref().unwrap_or_default();
        if !reboots.is_empty() && matches!(self.mode, Mode::NoReboot | Mode::Try) {
            return Err(Error::refused(format!("this would reboot {}", reboots.join(", ")))
                .hint("--mode auto lets nodes reboot; --mode staged leaves it to their next boot"));
        }
        if self.mode == Mode::Auto {
            if let (Reached::Away(why), false) = (&planned.cluster, reboots.is_empty()) {
                return Err(why
                    .clone()
                    .at(format!("no pod can leave {} before it reboots", reboots.join(", "))));
            }
            let losses = planned.losses.iter();
            let refused = losses.filter_map(|losses| losses.refuse(self.delete_emptydir_data).err());
            together(refused.collect()).map_or(Ok(()), Err)?;
        }
        if self.mode == Mode::Staged {
            only_configs(&mut planned.plan);
        }
        Ok(planned)
    }
}

/// What is staged does not exist before the nodes reboot, and the stack needs it.
fn only_configs(plan: &mut Plan) {
    let config = |step: &Step| matches!(step.action, Action::Node(NodeAction::Config(_)));
    if plan.steps.iter().any(config) {
        plan.steps.retain(config);
        let why = "it needs what is staged; apply again once the nodes have rebooted".into();
        plan.skipped.push(Skipped { what: "stack".into(), why });
    }
}

/// One run of a verb on one cluster; no other one of this machine acts on that cluster while it is held.
#[derive(Debug)]
pub struct Session {
    verb: &'static str,
    cluster: String,
    state: State,
    key: Key,
    events: Events,
    tape: Tape,
    /// The record of the run that it began.
    record: Mutex<Option<RunRecord>>,
    interrupted: watch::Receiver<bool>,
    holder: LeaseHolder,
    _lock: Lock,
}

impl Session {
    /// Takes this machine's lock of the cluster with this name and state folder.
    ///
    /// # Errors
    /// `Kind::Unavailable` (exit 75): another run holds it.
    pub fn open(
        verb: &'static str,
        cluster: &str,
        state: State,
        events: Events,
        interrupted: watch::Receiver<bool>,
    ) -> Result<Self> {
        let lock = Lock::take(&state, verb)?;
        let (key, holder) = (state.key()?, LeaseHolder::this(verb, state.dir()));
        let tape = Tape::default();
        Ok(Self {
            verb,
            cluster: cluster.to_owned(),
            state,
            key,
            events: tape.of(&events),
            tape,
            record: Mutex::default(),
            interrupted,
            holder,
            _lock: lock,
        })
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn events(&self) -> &Events {
        &self.events
    }

    pub fn interrupted(&self) -> watch::Receiver<bool> {
        self.interrupted.clone()
    }

    /// The plan as a file or the journal names it.
    pub fn saved(&self, plan: &Plan) -> Saved {
        Saved::of(&self.cluster, plan, &self.key)
    }

    /// Plans, lets somebody `agree` to the plan, and carries it out. `agree` tells whether it took its time, so that the world
    /// may have moved meanwhile: then it is planned again, over the same connections, and must be the same.
    ///
    /// # Errors
    /// What planning and `agree` say; `Kind::Refused` when the world moved; `Kind::Unavailable` (exit 75) when another run
    /// holds the cluster's Lease; what the first step says that fails.
    pub async fn carry_out(
        &self,
        manner: &Manner,
        make: impl AsyncFn(Option<Reached>) -> Result<Planned>,
        agree: impl AsyncFnOnce(&Planned) -> Result<bool>,
    ) -> Result<()> {
        self.tell_cut_offs()?;
        let planned = manner.fit(make(None).await?)?;
        let saved = self.saved(&planned.plan);
        let took_time = agree(&planned).await?;
        if planned.plan.steps.is_empty() {
            return self.settle(planned.cluster.here()).await;
        }
        let cluster = planned.cluster.clone();
        let lease = self.lease(&cluster, manner).await?;
        let work = async {
            let planned = match took_time {
                false => planned,
                true => {
                    let again = manner.fit(make(Some(planned.cluster)).await?)?;
                    saved.same(&self.saved(&again.plan))?;
                    again
                }
            };
            let mut record = self.begin(self.verb, saved)?;
            record.observed(planned.nodes)?;
            let context = RunContext {
                talos: planned.talos,
                cluster: planned.cluster,
                lease: lease.as_ref().map(Lease::held),
                place: self.holder.place.clone(),
                manner: manner.clone(),
                interrupted: self.interrupted.clone(),
                listings: Mutex::default(),
            };
            let interrupted = self.interrupted.clone();
            let (plan, events) = (&planned.plan, &self.events);
            let done = engine::run(self.verb, plan, &context, events, &mut record, interrupted).await;
            *self.record.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
            done
        };
        let done = AssertUnwindSafe(work).catch_unwind().await;
        if let (Some(lease), Some(cluster)) = (lease, cluster.here()) {
            // Who took the Lease over may have nodes of its own cordoned.
            if lease.held().is_ours() {
                self.uncordon(cluster, None).await;
            }
            lease.release().await;
        }
        done.unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
    }

    /// A run begins: its plan is on record, and so is what is told from now on.
    fn begin(&self, verb: &str, saved: Saved) -> Result<RunRecord> {
        let record = RunRecord::begin(&self.state, verb, saved, &self.key)?;
        record.keep_events(&self.tape)?;
        Ok(record)
    }

    /// The record of a proof, whose test objects have the name `run`: that of the session's own run goes on, else it is one
    /// of its own.
    ///
    /// # Errors
    /// It can't be written.
    pub fn proving(&self, run: &str) -> Result<RunRecord> {
        let begun = self.record.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut record = match begun {
            Some(record) => record,
            None => self.begin("validate", self.saved(&Plan::default()))?,
        };
        record.journal.proving(run)?;
        Ok(record)
    }

    /// The cluster's Lease, where there is a cluster. One that is away can't give it: what is planned then reaches no pod.
    async fn lease(&self, cluster: &Reached, manner: &Manner) -> Result<Option<Lease>> {
        match cluster {
            Reached::Here(cluster) => Lease::take(cluster, &self.holder, manner.take_over).await.map(Some),
            Reached::Away(why) => {
                self.events.warn(format!(
                    "the cluster is away, so its lock can't keep the runs of other machines from these nodes: {}",
                    why.what
                ));
                Ok(None)
            }
            Reached::None => Ok(None),
        }
    }

    /// Says what former runs left in the middle.
    fn tell_cut_offs(&self) -> Result<()> {
        for cut in cut_offs(&self.state)? {
            self.events.warn(match cut.verb == self.verb {
                true => format!("{cut}; going on from what is there now"),
                false => {
                    format!("{cut}; `nodeprep {}` goes on from there, `nodeprep abort` gives it up", cut.verb)
                }
            });
        }
        Ok(())
    }

    /// Nothing is left to do: ends what a run of this place that was killed at its very end left open, its Lease, its cordons
    /// and its journal.
    async fn settle(&self, cluster: Option<&Cluster>) -> Result<()> {
        if let Some(cluster) = cluster {
            self.give_up(cluster).await;
        }
        runs::settle(&self.state, self.verb)
    }

    /// Gives up what a former run of this place left in the cluster: its Lease and its cordons; true when there was a Lease.
    async fn give_up(&self, cluster: &Cluster) -> bool {
        let released = give_up(cluster, &self.holder).await.unwrap_or_else(|error| {
            self.events.warn(format!("the cluster's lock was left as it is: {}", error.what));
            false
        });
        self.uncordon(cluster, Some(&self.holder.place)).await;
        released
    }

    /// Uncordons the nodes that a run left cordoned: one of this place, or any while the Lease is held.
    async fn uncordon(&self, cluster: &Cluster, place: Option<&str>) {
        match cluster.uncordon_left(place).await {
            Ok(nodes) if nodes.is_empty() => {}
            Ok(nodes) => {
                self.events.warn(format!("uncordoned {}, which nodeprep had cordoned", nodes.join(", ")))
            }
            Err(error) => {
                self.events.warn(format!("whether a node is left cordoned is not known: {}", error.what));
            }
        }
    }

    /// Gives up the runs that were cut off: their Lease, cordons and records. What was done stays done. Returns what they were.
    ///
    /// # Errors
    /// The records can't be read or written.
    pub async fn abort(&self, cluster: Option<&Cluster>) -> Result<Vec<CutOff>> {
        if let Some(cluster) = cluster
            && self.give_up(cluster).await
        {
            self.events.warn("released the cluster's lock");
        }
        runs::give_up(&self.state)
    }
}

/// What a fault of nodeprep's own is told as; where it was is on stderr already.
fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Error::failed(format!("nodeprep itself failed: {}", text.unwrap_or("it does not say why")))
        .hint("the run was cut off there: run it again to go on; please report it")
}
