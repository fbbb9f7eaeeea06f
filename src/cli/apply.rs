//! `apply`: plan, confirm, carry out, prove.

use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::global::Output;
use super::plan::{Part, confirm, make};
use super::{Global, validate};
use crate::apply::{self, CutOff, Holder, Journal, Lease, Lock, World, last_run};
use crate::error::{Error, Result};
use crate::intent::Intent;
use crate::plan::{Action, Plan, Saved, Skipped, Step};
use crate::report;
use crate::talos::client::Mode;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    care: Care,
    /// How machine configs are applied.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    mode: Way,
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

pub async fn run(global: &Global, args: &Args) -> Result<()> {
    let intent = global.intent()?;
    let interrupted = super::interrupted();
    carry_out(global, &intent, "apply", Part::All, &args.care, args.mode, interrupted.clone()).await?;
    // What is staged is not there yet.
    if args.no_validate || args.mode == Way::Staged || intent.classes.is_empty() {
        return Ok(());
    }
    validate::checked(global, &intent, &validate::Selection::default(), args.output, interrupted).await
}

/// Plans one part, and carries it out under the locks: this machine's, and the cluster's once there is one.
pub(super) async fn carry_out(
    global: &Global,
    intent: &Intent,
    verb: &str,
    part: Part,
    care: &Care,
    mode: Way,
    interrupted: watch::Receiver<bool>,
) -> Result<()> {
    let name = &intent.metadata.name;
    let (state, events) = (global.state(name)?, global.events());
    let _lock = Lock::take(&state, verb)?;
    if let Some(cut) = CutOff::of(&last_run(&state)?) {
        report::stderr(&format!("{cut}; going on from what is there now\n"));
    }
    let key = state.key()?;
    let mut planned = make(global, intent, part, None).await?;
    planned.plan = in_mode(mode, planned.plan);
    let saved = Saved::of(name, &planned.plan, &key);
    let reviewed = care.plan.as_deref().map(read_plan).transpose()?;
    if let Some(reviewed) = &reviewed {
        reviewed.same(&saved)?;
    }
    let reboots = planned.plan.reboots.clone().unwrap_or_default();
    if !reboots.is_empty() && matches!(mode, Way::NoReboot | Way::Try) {
        return Err(Error::refused(format!("this would reboot {}", reboots.join(", ")))
            .hint("--mode auto lets nodes reboot; --mode staged leaves it to their next boot"));
    }
    confirm(&planned.plan, care.yes || reviewed.is_some(), global.verbose)?;
    if planned.plan.steps.is_empty() {
        return Ok(());
    }
    let holder = Holder::this(verb, state.dir());
    let lease = match &planned.cluster {
        Some(cluster) => Some(Lease::take(cluster, &holder, care.take_over).await?),
        None => None,
    };
    let done = async {
        let planned = if care.yes {
            planned
        } else {
            // Somebody thought about it: what was agreed to must still be what is to be done.
            let mut again = make(global, intent, part, planned.cluster).await?;
            again.plan = in_mode(mode, again.plan);
            saved.same(&Saved::of(name, &again.plan, &key))?;
            again
        };
        let mut journal = Journal::begin(&state, verb, saved, &key)?;
        let world = World {
            talos: planned.talos,
            cluster: planned.cluster,
            mode: mode.into(),
            lost: lease.as_ref().map(Lease::lost),
        };
        apply::run(verb, &planned.plan, &world, &events, &mut journal, interrupted).await
    };
    let done = done.await;
    if let Some(lease) = lease {
        lease.release().await;
    }
    done
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
