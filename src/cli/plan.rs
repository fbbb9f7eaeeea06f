//! `plan`: what apply would change; nothing is changed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Global;
use super::global::{Output, observe};
use super::store::{self, Told};
use crate::apply;
use crate::cluster::{Cluster, Losses};
use crate::error::{Error, Kind, Result, together};
use crate::intent::{Intent, Provisioner};
use crate::observe;
use crate::observe::identity;
use crate::observe::nodes::Node;
use crate::plan::{self, Action, Passphrases, Plan, Saved, Skipped};
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
    let plan = &planned.plan;
    // A volume that does not get ready is pending, though there is nothing to change.
    let waits = plan.steps.iter().any(|step| matches!(step.action, Action::AwaitVolumes { .. }));
    let pending = args.exit_code && (waits || !plan.is_empty());
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
    /// What goes for ever when nodes are drained before they reboot.
    pub(super) losses: Vec<Losses>,
}

/// Reads the world and plans; secrets are decrypted first, so that a wrong key stops everything early.
/// A cluster that is connected already is taken as it is.
pub(super) async fn make(
    global: &Global,
    intent: &Intent,
    part: Part,
    connected: Option<Cluster>,
) -> Result<Planned> {
    let passphrases = if part == Part::All { global.passphrases(intent) } else { Ok(Passphrases::new()) };
    let (secrets, passphrases) = both(global.stack_secrets(intent), passphrases)?;
    // What can't be rendered is known before anything is asked.
    let items = stack::render(intent, &secrets)?;
    let what = if part == Part::All { "reading the nodes and the cluster" } else { "reading the cluster" };
    let _busy = report::busy(global.progress, what);
    let (nodes, cluster) = tokio::join!(read_nodes(global, intent, part), connect(global, &items, connected));
    let (machines, cluster) = both(nodes, cluster)?;
    let hosts = hosts(global, intent, machines.as_ref(), cluster.as_ref()).await?;
    let items = stack::render_on(intent, &secrets, &hosts)?;
    let (nodes, stack) = tokio::join!(
        plan_nodes(intent, part, machines.as_ref(), &passphrases),
        plan_stack(intent, &items, cluster.as_ref())
    );
    let (mut plan, stack) = both(nodes, stack)?;
    let (talos, nodes) = machines.map_or((None, Vec::new()), |(talos, nodes)| (Some(talos), nodes));
    if let Some(cluster) = &cluster {
        refuse_selector(intent, &nodes, cluster).await?;
    }
    plan.simulated |= stack.simulated;
    plan.extend(stack);
    let losses = match (&cluster, &talos) {
        (Some(cluster), Some(talos)) => {
            apply::losses(cluster, talos, plan.reboots.as_deref().unwrap_or_default()).await?
        }
        _ => Vec::new(),
    };
    plan.warnings.extend(losses.iter().filter_map(Losses::told));
    if !plan.simulated {
        match store::ask(global, intent, &secrets, Depth::List).await {
            Told::Nothing => {}
            Told::NotAsked(skipped) => plan.skipped.push(skipped),
            Told::Warning(warning) => plan.warnings.push(warning),
        }
    }
    Ok(Planned { plan, talos, cluster, losses })
}

/// Both, or what stands in the way of either.
fn both<A, B>(one: Result<A>, other: Result<B>) -> Result<(A, B)> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (one, other) => {
            let errors = one.err().into_iter().chain(other.err()).collect();
            Err(together(errors).unwrap_or_else(|| Error::failed("nothing was planned")))
        }
    }
}

/// The host names of the file's nodes, by address, once the machines and the cluster are proven to be one.
async fn hosts(
    global: &Global,
    intent: &Intent,
    machines: Option<&Machines>,
    cluster: Option<&Cluster>,
) -> Result<BTreeMap<String, String>> {
    let members = match (cluster, machines) {
        (None, _) => BTreeMap::new(),
        (Some(cluster), None) => global.members(intent, cluster).await?,
        (Some(cluster), Some((client, nodes))) => {
            went_away(nodes)?;
            let addresses: Vec<String> = intent.nodes.iter().map(|node| node.address.clone()).collect();
            identity::prove(client, nodes, cluster).await?.members(&addresses)
        }
    };
    Ok(members.into_iter().map(|(address, member)| (address, member.hostname)).collect())
}

/// A machine that went away while it was looked at is not asked any more.
fn went_away(nodes: &[Node]) -> Result<()> {
    let away = |node: &Node| node.disks.as_ref().err().filter(|e| e.kind == Kind::Unavailable).cloned();
    let found =
        nodes.iter().find_map(|node| Some(away(node)?.at("could not read its disks").at(&node.address)));
    found.map_or(Ok(()), Err)
}

/// The labels that the provisioner's pods want are on a node of the cluster, or will be.
async fn refuse_selector(intent: &Intent, nodes: &[Node], cluster: &Cluster) -> Result<()> {
    let Some(Provisioner::Openebs(openebs)) = &intent.provisioner else { return Ok(()) };
    let labels: Vec<String> =
        openebs.node_selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if labels.is_empty() {
        return Ok(());
    }
    let met = !cluster.list("v1", "Node", None, &labels.join(",")).await?.is_empty();
    plan::foreseen::selector(intent, nodes, met).map_or(Ok(()), Err)
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
        let warnings = plan::stack::unprotected(intent).into_iter().collect();
        return Ok(Plan { skipped, warnings, ..Plan::default() });
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
