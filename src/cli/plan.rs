//! `plan`: what apply would change; nothing is changed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Global;
use super::global::{Output, observe};
use crate::apply;
use crate::cluster::Cluster;
use crate::error::{Error, Kind, Result};
use crate::intent::Intent;
use crate::observe;
use crate::observe::identity::{self, Witness};
use crate::observe::nodes::Node;
use crate::plan::{self, Passphrases, Plan, Saved, Skipped};
use crate::report;
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
    // What can't be rendered is known before anything is asked.
    let items = stack::render(intent, &secrets)?;
    let passphrases = if part == Part::All { global.passphrases(intent)? } else { Passphrases::new() };
    let what = if part == Part::All { "reading the nodes and the cluster" } else { "reading the cluster" };
    let _busy = report::busy(global.progress, what);
    let (nodes, cluster) =
        tokio::try_join!(read_nodes(global, intent, part), connect(global, &items, connected))?;
    let members = match (&cluster, &nodes) {
        (None, _) => BTreeMap::new(),
        (Some(cluster), None) => global.members(intent, cluster).await?,
        (Some(cluster), Some((client, nodes))) => {
            let machines: Vec<Witness> = nodes.iter().map(Witness::from).collect();
            let addresses: Vec<String> = intent.nodes.iter().map(|node| node.address.clone()).collect();
            identity::prove(client, &machines, cluster).await?.members(&addresses, &machines)
        }
    };
    let hosts = members.into_iter().map(|(address, member)| (address, member.hostname)).collect();
    let items = stack::render_on(intent, &secrets, &hosts)?;
    let (planned, stack) = tokio::try_join!(
        plan_nodes(intent, part, nodes.as_ref(), &passphrases),
        plan_stack(intent, &items, cluster.as_ref())
    )?;
    let simulated = planned.simulated || stack.simulated;
    let mut plan = Plan { simulated, ..planned };
    plan.extend(stack);
    Ok(Planned { plan, talos: nodes.map(|(client, _)| client), cluster })
}

/// The machines that the file lists, and the connection that they were read through.
type Machines = (talos::Client, Vec<Node>);

async fn read_nodes(global: &Global, intent: &Intent, part: Part) -> Result<Option<Machines>> {
    if part != Part::All {
        return Ok(None);
    }
    let Some((client, addresses)) = global.talos(intent)? else { return Ok(None) };
    let nodes = observe(&client, &addresses).await?;
    Ok(Some((client, nodes)))
}

/// The cluster, where something is to be installed.
async fn connect(
    global: &Global,
    items: &[stack::Item],
    connected: Option<Cluster>,
) -> Result<Option<Cluster>> {
    match connected {
        _ if items.is_empty() => Ok(None),
        Some(cluster) => Ok(Some(cluster)),
        None => global.cluster().await.map(Some),
    }
}

async fn plan_stack(intent: &Intent, items: &[stack::Item], cluster: Option<&Cluster>) -> Result<Plan> {
    let Some(cluster) = cluster else {
        let why = "the file asks for nothing to be installed".into();
        let skipped = vec![Skipped { what: "stack".into(), why }];
        return Ok(Plan { skipped, ..Plan::default() });
    };
    let observed = observe::cluster::observe(cluster, items).await?;
    Ok(Plan { simulated: cluster.simulated(), ..plan::stack::plan(intent, items, &observed)? })
}

async fn plan_nodes(
    intent: &Intent,
    part: Part,
    machines: Option<&Machines>,
    passphrases: &Passphrases,
) -> Result<Plan> {
    let Some((client, nodes)) = machines else {
        let mut plan = Plan::default();
        let asked = !intent.volumes.is_empty() || !intent.labels.is_empty() || intent.ephemeral.is_some();
        if part == Part::All && asked {
            let why = "the file lists no nodes".into();
            plan.skipped.push(Skipped { what: "volumes and labels".into(), why });
        }
        return Ok(plan);
    };
    let mut plan = plan::machine::plan_all(intent, nodes, passphrases)?;
    if !plan.is_empty() {
        plan.reboots = Some(apply::reboots(client, &plan).await?);
    }
    Ok(plan)
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
