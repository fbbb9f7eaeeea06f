//! `apply`: plan, confirm, carry out, prove.

use super::global::Output;
use super::plan::{Part, confirm, make};
use super::{Global, validate};
use crate::apply::{self, Journal, Lock, World};
use crate::error::Result;
use crate::intent::Intent;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Carry the plan out unasked.
    #[arg(short, long)]
    yes: bool,
    /// Do not prove the storage afterwards.
    #[arg(long)]
    no_validate: bool,
}

pub async fn run(global: &Global, args: &Args) -> Result<()> {
    let intent = global.intent()?;
    let interrupted = super::interrupted();
    carry_out(global, &intent, "apply", Part::All, args.yes, interrupted.clone()).await?;
    if args.no_validate || intent.classes.is_empty() {
        return Ok(());
    }
    validate::checked(global, &intent, &validate::Selection::default(), args.output, interrupted).await
}

/// Plans one part and carries it out under the lock.
pub(super) async fn carry_out(
    global: &Global,
    intent: &Intent,
    verb: &str,
    part: Part,
    yes: bool,
    interrupted: tokio::sync::watch::Receiver<bool>,
) -> Result<()> {
    let cluster = &intent.metadata.name;
    let state = global.state(cluster)?;
    let _lock = Lock::take(&state, verb)?;
    let planned = make(global, intent, part).await?;
    confirm(&planned.plan, yes, global.verbose)?;
    if planned.plan.steps.is_empty() {
        return Ok(());
    }
    let mut journal = Journal::begin(&state, verb, cluster, &planned.plan)?;
    let world = World { talos: planned.talos, cluster: planned.cluster };
    let events = global.events();
    apply::run(verb, &planned.plan, &world, &events, &mut journal, interrupted).await
}
