//! `apply`: plan, confirm, carry out, prove.

use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::global::Output;
use super::plan::{Part, Planned, confirm, make};
use super::store::{self, Told};
use super::{Global, validate};
use crate::apply::{self, CutOff, Holder, Journal, Lease, Lock, Parallel, World, give_up, last_run};
use crate::cluster::Cluster;
use crate::error::{Error, Result, together};
use crate::intent::Intent;
use crate::plan::{Action, Plan, Saved, Skipped, Step};
use crate::report;
use crate::s3::Depth;
use crate::state::State;
use crate::talos::client::Mode;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    care: Care,
    #[command(flatten)]
    pace: Pace,
    /// Do not prove the storage afterwards.
    #[arg(long)]
    no_validate: bool,
}

/// How a plan is carried out.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Care {
    /// Carry the plan out unasked.
    #[arg(short, long)]
    yes: bool,
    /// Carry out exactly the plan of this file, which `plan --out` wrote, or refuse because the world moved.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Take the cluster's lock over from a run on another machine that died.
    #[arg(long)]
    take_over: bool,
}

/// How nodes have their turn.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Pace {
    /// How machine configs are applied.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    mode: Way,
    /// So many workers at the same time, or such a part of them. Control planes have their turn one by one, before them.
    #[arg(long, value_name = "N|P%", default_value_t)]
    parallel: Parallel,
    /// When a node fails, go on with the other nodes; the cluster's own steps still wait for all of them.
    #[arg(long)]
    keep_going: bool,
    /// What pods keep in an emptyDir may be lost when a node is drained before it reboots.
    #[arg(long)]
    delete_emptydir_data: bool,
}

/// How machine configs are applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Way {
    /// At once; refused when that would reboot a node.
    #[default]
    NoReboot,
    /// At once; nodes reboot where they must.
    Auto,
    /// At the nodes' next boot.
    Staged,
    /// At once, and kept only when everything that is asked for is there; else the node takes it back.
    Try,
}

impl From<Way> for Mode {
    fn from(way: Way) -> Self {
        match way {
            Way::NoReboot => Self::NoReboot,
            Way::Auto => Self::Auto,
            Way::Staged => Self::Staged,
            Way::Try => Self::Try,
        }
    }
}

impl Care {
    pub(super) fn of(yes: bool, take_over: bool) -> Self {
        Self { yes, plan: None, take_over }
    }
}

pub async fn run(global: &Global, args: &Args) -> Result<()> {
    let intent = global.intent()?;
    let interrupted = super::interrupted();
    carry_out(global, &intent, "apply", Part::All, &args.care, &args.pace, interrupted.clone()).await?;
    // What is staged is not there yet.
    if args.no_validate || args.pace.mode == Way::Staged {
        return Ok(());
    }
    prove(global, &intent, args.output, interrupted).await
}

/// The storage and its backup are proven, where there is any.
async fn prove(
    global: &Global,
    intent: &Intent,
    output: Output,
    interrupted: watch::Receiver<bool>,
) -> Result<()> {
    if intent.classes.is_empty() && intent.backup.is_none() {
        return Ok(());
    }
    let _lock = Lock::take(&global.state(&intent.metadata.name)?, "apply")?;
    validate::checked(global, intent, &validate::Selection::default(), output, interrupted).await
}

/// What follows a bootstrap: everything else that the file asks for.
pub(super) async fn all(
    global: &Global,
    intent: &Intent,
    care: &Care,
    no_validate: bool,
    output: Output,
    interrupted: watch::Receiver<bool>,
) -> Result<()> {
    carry_out(global, intent, "apply", Part::All, care, &Pace::default(), interrupted.clone()).await?;
    if no_validate { Ok(()) } else { prove(global, intent, output, interrupted).await }
}

/// Plans one part, and carries it out under the locks: this machine's, and the cluster's once there is one.
pub(super) async fn carry_out(
    global: &Global,
    intent: &Intent,
    verb: &str,
    part: Part,
    care: &Care,
    pace: &Pace,
    interrupted: watch::Receiver<bool>,
) -> Result<()> {
    let name = &intent.metadata.name;
    let (state, events) = (global.state(name)?, global.events());
    let _lock = Lock::take(&state, verb)?;
    let cut = CutOff::of(&last_run(&state)?);
    if let Some(cut) = &cut {
        report::stderr(&format!("{cut}; going on from what is there now\n"));
    }
    let key = state.key()?;
    let make = async |connected| {
        let planned = make(global, intent, part, connected).await?;
        Ok::<_, Error>(Planned { plan: in_mode(pace.mode, planned.plan), ..planned })
    };
    let planned = make(None).await?;
    let saved = Saved::of(name, &planned.plan, &key);
    let reviewed = care.plan.as_deref().map(read_plan).transpose()?;
    if let Some(reviewed) = &reviewed {
        reviewed.same(&saved)?;
    }
    let reboots = planned.plan.reboots.clone().unwrap_or_default();
    if !reboots.is_empty() && matches!(pace.mode, Way::NoReboot | Way::Try) {
        return Err(Error::refused(format!("this would reboot {}", reboots.join(", ")))
            .hint("--mode auto lets nodes reboot; --mode staged leaves it to their next boot"));
    }
    if pace.mode == Way::Auto {
        let refused =
            planned.losses.iter().filter_map(|losses| losses.refuse(pace.delete_emptydir_data).err());
        together(refused.collect()).map_or(Ok(()), Err)?;
    }
    confirm(&planned.plan, care.yes || reviewed.is_some(), global.verbose)?;
    let holder = Holder::this(verb, state.dir());
    if planned.plan.steps.is_empty() {
        return settle(&state, cut.as_ref(), planned.cluster.as_ref(), &holder).await;
    }
    if !planned.plan.simulated
        && let Told::Warning(warning) =
            store::ask(global, intent, &global.stack_secrets(intent)?, Depth::Write).await
    {
        events.warn(warning);
    }
    let lease = match &planned.cluster {
        Some(cluster) => Some(Lease::take(cluster, &holder, care.take_over).await?),
        None => None,
    };
    let cluster = planned.cluster.clone();
    let done = async {
        let planned = if care.yes {
            planned
        } else {
            // Somebody thought about it: what was agreed to must still be what is to be done.
            let again = make(planned.cluster).await?;
            saved.same(&Saved::of(name, &again.plan, &key))?;
            again
        };
        let mut journal = Journal::begin(&state, verb, saved, &key)?;
        let world = World {
            talos: planned.talos,
            cluster: planned.cluster,
            mode: pace.mode.into(),
            lease: lease.as_ref().map(Lease::held),
            parallel: pace.parallel,
            keep_going: pace.keep_going,
            delete_emptydir_data: pace.delete_emptydir_data,
            deadlines: intent.deadlines.clone(),
        };
        apply::run(verb, &planned.plan, &world, &events, &mut journal, interrupted).await
    };
    let done = done.await;
    if let (Some(lease), Some(cluster)) = (lease, cluster) {
        // Who took the lock over may have nodes of its own cordoned.
        if lease.held().is_ours() {
            uncordon_left(&cluster).await;
        }
        lease.release().await;
    }
    done
}

/// Nothing is left to do: ends what a run that was killed at its very end left open, its lock and its journal.
async fn settle(
    state: &State,
    cut: Option<&CutOff>,
    cluster: Option<&Cluster>,
    holder: &Holder,
) -> Result<()> {
    if let Some(cluster) = cluster
        && let Err(error) = give_up(cluster, holder).await
    {
        report::stderr(&format!("the cluster's lock was left as it is: {}\n", error.what));
    }
    if let (Some(_), Some(cluster)) = (cut, cluster) {
        uncordon_left(cluster).await;
    }
    match cut {
        Some(cut) => Journal::reopen(state)?.end(true, &format!("nothing was left to do; {cut}")),
        None => Ok(()),
    }
}

/// A run that was cut off while a node rebooted left it cordoned.
async fn uncordon_left(cluster: &Cluster) {
    match cluster.uncordon_left().await {
        Ok(nodes) if nodes.is_empty() => {}
        Ok(nodes) => {
            report::stderr(&format!("uncordoned {}, which nodeprep had cordoned\n", nodes.join(", ")))
        }
        Err(error) => {
            report::stderr(&format!("whether a node is left cordoned is not known: {}\n", error.what))
        }
    }
}

/// What is staged is not there before the nodes reboot, and the stack needs it.
fn in_mode(mode: Way, mut plan: Plan) -> Plan {
    let config = |step: &Step| matches!(step.action, Action::ApplyConfig(_));
    if mode == Way::Staged && plan.steps.iter().any(config) {
        plan.steps.retain(config);
        let why = "it needs what is staged; apply again once the nodes have rebooted".into();
        plan.skipped.push(Skipped { what: "stack".into(), why });
    }
    plan
}

fn read_plan(path: &Path) -> Result<Saved> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::invalid(format!("can't read the plan {name}: {e}")))?;
    Saved::parse(&name, &text)
}
