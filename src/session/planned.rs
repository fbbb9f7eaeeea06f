//! What the file asks for, beside what exists: the plan of nodes and stack, and the connections that it was made through.

use std::collections::BTreeMap;

use super::{Reach, Reached};
use crate::cluster::{Cluster, Losses};
use crate::error::{Error, Kind, Result, both};
use crate::intent::{Backup, Duration, Intent};
use crate::judge::coverage::Scope;
use crate::model::cluster::Leftovers;
use crate::model::node::Node;
use crate::observe;
use crate::observe::identity;
use crate::observe::nodes::observe_answering;
use crate::plan::{self, Passphrases, Plan, Skipped};
use crate::stack::{self, StackSecret};
use crate::talos::Client;

/// Which part of the file is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    All,
    Stack,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct ApplyRequest<'a> {
    pub intent: &'a Intent,
    pub part: Part,
    /// The nodes of the file that are in scope.
    pub addresses: &'a [String],
    pub secrets: &'a [StackSecret],
    pub passphrases: &'a Passphrases,
}

/// A plan, and the connections it was made through.
#[derive(Debug)]
pub struct Planned {
    pub plan: Plan,
    pub talos: Option<Client>,
    pub cluster: Reached,
    /// The machines as they were found.
    pub nodes: Vec<Node>,
    /// What goes for ever when nodes are drained before they reboot.
    pub losses: Vec<Losses>,
}

impl Planned {
    /// Of a plan that no node reboots by.
    pub fn new(plan: Plan, talos: Option<Client>, cluster: Reached, nodes: Vec<Node>) -> Self {
        Self { plan, talos, cluster, nodes, losses: Vec::new() }
    }
}

/// The machines that the file lists, and the connection that they were read through.
type Machines = (Client, Vec<Node>);

/// Reads the world and plans. A cluster that is connected already is taken as it is.
///
/// # Errors
/// All that stands in the way, of nodes and stack alike.
pub async fn plan(reach: &Reach, asked: &ApplyRequest<'_>, connected: Option<Reached>) -> Result<Planned> {
    let ApplyRequest { intent, part, secrets, passphrases, .. } = *asked;
    // What can't be rendered is known before anything is asked.
    let installs = !stack::render(intent, secrets)?.is_empty();
    let (machines, cluster) = tokio::join!(read_nodes(reach, asked), async {
        match connected {
            Some(cluster) => Ok(Some(cluster)),
            None if installs => reach.cluster().await.map(|cluster| Some(Reached::Here(cluster))),
            None => Ok(None),
        }
    });
    let (machines, cluster) = both(machines, cluster)?;
    let cluster = match (cluster, &machines) {
        (Some(cluster), _) => cluster,
        (None, Some((client, nodes))) => reach.cluster_of(client, nodes).await?,
        (None, None) => Reached::None,
    };
    let hosts = hosts(reach, intent, machines.as_ref(), cluster.here()).await?;
    let items = stack::render_on(intent, secrets, &hosts)?;
    let (nodes, stack) = tokio::join!(
        plan_nodes(intent, part, machines.as_ref(), passphrases),
        plan_stack(intent, &items, cluster.here())
    );
    let (mut plan, stack) = both(nodes, stack)?;
    let (talos, nodes) = machines.map_or((None, Vec::new()), |(talos, nodes)| (Some(talos), nodes));
    if let Some(cluster) = cluster.here() {
        refuse_selector(intent, &nodes, cluster).await?;
    }
    plan.simulated |= stack.simulated;
    plan.then(stack);
    let losses = match (cluster.here(), &talos) {
        (Some(cluster), Some(talos)) => {
            super::losses(cluster, talos, plan.reboots.as_deref().unwrap_or_default()).await?
        }
        _ => Vec::new(),
    };
    plan.warnings.extend(losses.iter().filter_map(Losses::told));
    Ok(Planned { plan, talos, cluster, nodes, losses })
}

/// Reads which claims are in a scope, and plans their backup.
///
/// # Errors
/// There is no such namespace; the claims can't be read.
pub async fn plan_backup(
    reach: &Reach,
    backup: &Backup,
    scope: &Scope,
    ttl: Duration,
    connected: Option<Reached>,
) -> Result<Planned> {
    let cluster = reach.connected(connected).await?;
    if let Scope::Namespaces(names) = scope {
        for name in names {
            if cluster.get("v1", "Namespace", None, name).await?.is_none() {
                return Err(Error::invalid(format!("there is no namespace {name} to back up")));
            }
        }
    }
    let coverage = observe::backups::coverage(&cluster, &backup.namespace, scope).await?;
    let plan = plan::backup::plan(backup, scope, ttl, coverage)?;
    let plan = Plan { simulated: cluster.simulated(), ..plan };
    Ok(Planned::new(plan, None, Reached::Here(cluster), Vec::new()))
}

/// The host names of the file's nodes, by address, once the machines and the cluster are proven to be one.
async fn hosts(
    reach: &Reach,
    intent: &Intent,
    machines: Option<&Machines>,
    cluster: Option<&Cluster>,
) -> Result<BTreeMap<String, String>> {
    let addresses = intent.addresses();
    let members = match (cluster, machines) {
        (None, _) => BTreeMap::new(),
        (Some(cluster), None) => reach.members(&addresses, cluster).await?,
        (Some(cluster), Some((client, nodes))) => {
            went_away(nodes)?;
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
    let Some(openebs) = &intent.provisioner.openebs else { return Ok(()) };
    let labels: Vec<String> =
        openebs.node_selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if labels.is_empty() {
        return Ok(());
    }
    let met = !cluster.list("v1", "Node", None, &labels.join(",")).await?.is_empty();
    plan::foreseen::selector(intent, nodes, met).map_or(Ok(()), Err)
}

async fn read_nodes(reach: &Reach, asked: &ApplyRequest<'_>) -> Result<Option<Machines>> {
    if asked.part != Part::All || asked.addresses.is_empty() {
        return Ok(None);
    }
    let client = reach.talos()?;
    let nodes = observe_answering(&client, asked.addresses, (reach.clock)()).await?;
    Ok(Some((client, nodes)))
}

async fn plan_stack(intent: &Intent, items: &[stack::StackItem], cluster: Option<&Cluster>) -> Result<Plan> {
    if items.is_empty() {
        let why = "the file asks for nothing to be installed".into();
        let skipped = vec![Skipped { what: "stack".into(), why }];
        let leftovers = match cluster {
            Some(cluster) => observe::cluster::leftovers(cluster).await?,
            None => Leftovers::default(),
        };
        return Ok(Plan { skipped, ..plan::stack::plan_nothing(intent, leftovers)? });
    }
    let Some(cluster) = cluster else { return Ok(Plan::default()) };
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
        plan.reboots = Some(super::reboots(client, &plan).await?);
    }
    Ok(plan)
}
