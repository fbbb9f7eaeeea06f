//! `plan`: what apply would change; nothing is changed.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Global;
use super::global::{Output, observe};
use super::store::{self, Told};
use crate::apply;
use crate::cluster::Cluster;
use crate::error::{Error, Kind, Result};
use crate::intent::Intent;
use crate::observe;
use crate::plan::{self, Passphrases, Plan, Saved, Skipped};
use crate::report;
use crate::s3::Depth;
use crate::stack;
use crate::state;
use crate::talos;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Exit with 4 when there is something to change.
    #[arg(long)]
    exit_code: bool,
    /// Keep the plan in this file, for `apply --plan`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub async fn run(global: &Global, args: &Args) -> Result<ExitCode> {
    let intent = global.intent()?;
    let planned = make(global, &intent, Part::All, None).await?;
    if let Some(path) = &args.out {
        let key = global.state(&intent.metadata.name)?.key()?;
        let saved = serde_json::to_vec_pretty(&Saved::of(&intent.metadata.name, &planned.plan, &key));
        let text = saved.map_err(|error| Error::failed(format!("the plan can't be written: {error}")))?;
        state::write_private(path, &text)?;
    }
    match args.output {
        Output::Table => report::stdout(&report::plan_text(&planned.plan, global.verbose)),
        Output::Json => {
            report::stdout(&format!("{:#}\n", report::plan_json(&intent.metadata.name, &planned.plan)))
        }
    }
    let pending = args.exit_code && !planned.plan.is_empty();
    Ok(ExitCode::from(if pending { Kind::Pending.exit_code() } else { 0 }))
}

/// Which part of the file is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    All,
    Stack,
}

/// A plan, and the connections it was made through.
pub(super) struct Planned {
    pub(super) plan: Plan,
    pub(super) talos: Option<talos::Client>,
    pub(super) cluster: Option<Cluster>,
}

/// Reads the world and plans; secrets are decrypted first, so that a wrong key stops everything early.
/// A cluster that is connected already is taken as it is.
pub(super) async fn make(
    global: &Global,
    intent: &Intent,
    part: Part,
    connected: Option<Cluster>,
) -> Result<Planned> {
    let secrets = global.stack_secrets(intent)?;
    let items = stack::render(intent, &secrets)?;
    let passphrases = if part == Part::All { global.passphrases(intent)? } else { Passphrases::new() };
    let what = if part == Part::All { "reading the nodes and the cluster" } else { "reading the cluster" };
    let _busy = report::busy(global.progress, what);
    let ((mut plan, talos), (stack, cluster)) = tokio::try_join!(
        plan_nodes(global, intent, part, &passphrases),
        plan_stack(global, intent, &items, connected)
    )?;
    plan.simulated |= stack.simulated;
    plan.extend(stack);
    if !plan.simulated {
        match store::ask(global, intent, &secrets, Depth::List).await {
            Told::Nothing => {}
            Told::NotAsked(skipped) => plan.skipped.push(skipped),
            Told::Warning(warning) => plan.warnings.push(warning),
        }
    }
    Ok(Planned { plan, talos, cluster })
}

async fn plan_stack(
    global: &Global,
    intent: &Intent,
    items: &[stack::Item],
    connected: Option<Cluster>,
) -> Result<(Plan, Option<Cluster>)> {
    if items.is_empty() {
        let why = "the file asks for nothing to be installed".into();
        let skipped = vec![Skipped { what: "stack".into(), why }];
        let warnings = plan::stack::unprotected(intent).into_iter().collect();
        return Ok((Plan { skipped, warnings, ..Plan::default() }, None));
    }
    let cluster = match connected {
        Some(cluster) => cluster,
        None => global.cluster().await?,
    };
    let observed = observe::cluster::observe(&cluster, items).await?;
    let plan = Plan { simulated: cluster.simulated(), ..plan::stack::plan(intent, items, &observed)? };
    Ok((plan, Some(cluster)))
}

async fn plan_nodes(
    global: &Global,
    intent: &Intent,
    part: Part,
    passphrases: &Passphrases,
) -> Result<(Plan, Option<talos::Client>)> {
    let mut plan = Plan::default();
    if part != Part::All {
        return Ok((plan, None));
    }
    let Some((client, addresses)) = global.talos(intent)? else {
        if !intent.volumes.is_empty() || !intent.labels.is_empty() || intent.ephemeral.is_some() {
            let why = "the file lists no nodes".into();
            plan.skipped.push(Skipped { what: "volumes and labels".into(), why });
        }
        return Ok((plan, None));
    };
    let nodes = plan::machine::plan_all(intent, &observe(&client, &addresses).await?, passphrases)?;
    plan.simulated |= nodes.simulated;
    plan.extend(nodes);
    if !plan.is_empty() {
        plan.reboots = Some(apply::reboots(&client, &plan).await?);
    }
    Ok((plan, Some(client)))
}

/// Asks before a plan is carried out; `--yes` answers, and without a terminal it is required.
pub(super) fn confirm(plan: &Plan, yes: bool, verbose: bool) -> Result<()> {
    report::stderr(&report::plan_text(plan, verbose));
    if yes || plan.is_empty() {
        return Ok(());
    }
    if !report::somebody() {
        return Err(
            Error::invalid("there is nobody to confirm the plan").hint("add --yes to carry it out unasked")
        );
    }
    let agreed = dialoguer::Confirm::new()
        .with_prompt("Carry this out?")
        .default(false)
        .wait_for_newline(true)
        .interact();
    match agreed {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::new(Kind::Interrupted, "not confirmed; nothing was changed")),
        Err(e) => Err(Error::new(Kind::Interrupted, format!("no answer ({e}); nothing was changed"))),
    }
}
