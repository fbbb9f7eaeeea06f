//! `remove`: takes a volume away from nodes, and its data with it.

use jiff::Timestamp;

use super::Global;
use super::backup::BackupFirst;
use super::discover::targets;
use super::plan::agree;
use super::wipe::{Tokens, Typed, open};
use crate::error::{Error, Result, all};
use crate::model::node::Node;
use crate::observe::claims::users;
use crate::observe::identity;
use crate::observe::nodes::observe_answering;
use crate::plan::Plan;
use crate::plan::remove::{RemoveRequest, find, plan, refuse_unknown};
use crate::session::{Planned, Reached};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The volume; --nodes says of which nodes.
    #[arg(long, value_name = "NAME")]
    volume: String,
    #[command(flatten)]
    tokens: Tokens,
    #[command(flatten)]
    backup_first: BackupFirst,
    /// Unmount it only; its partition and data stay, and Talos adopts them when the volume is asked for again.
    #[arg(long)]
    keep_data: bool,
    /// This PersistentVolume, CSI driver or object is known to have no data on the volume, though it may by all that can be
    /// seen.
    #[arg(long, value_name = "NAME")]
    unused_by: Vec<String>,
    /// Do not ask the cluster what of it lies there.
    #[arg(long)]
    ignore_cluster: bool,
    /// Carry the plan out unasked; it is no token.
    #[arg(short, long)]
    yes: bool,
    /// Take the cluster's lock over from a run on another machine that died.
    #[arg(long)]
    take_over: bool,
}

pub(super) async fn run(global: &Global, args: &Args) -> Result<()> {
    if global.nodes.is_empty() {
        return Err(
            Error::invalid("no nodes are named").hint("name the nodes that lose the volume with --nodes")
        );
    }
    args.backup_first.carry_out(global, args.take_over).await?;
    let (session, manner) = open(global, "remove", args.take_over)?;
    let typed = args.tokens.typed();
    let make = async |connected| make(global, args, &typed, connected).await;
    session.carry_out(&manner, make, agree(global, &session, args.yes)).await
}

async fn make(global: &Global, args: &Args, typed: &Typed, connected: Option<Reached>) -> Result<Planned> {
    let (client, addresses) = targets(global)?;
    let reach = global.reach();
    let asked = match &connected {
        None if !args.ignore_cluster => Some(reach.cluster().await.map_err(not_asked)?),
        _ => None,
    };
    let nodes = observe_answering(&client, &addresses, Timestamp::now()).await?;
    let cluster = match (connected, asked) {
        (Some(cluster), _) => cluster,
        (None, Some(cluster)) => {
            // What another cluster does not know of says nothing.
            identity::prove(&client, &nodes, &cluster).await?;
            Reached::Here(cluster)
        }
        // Only its lock is wanted.
        (None, None) => reach.cluster_of(&client, &nodes).await?,
    };
    let users = match cluster.here().filter(|_| !args.ignore_cluster) {
        Some(cluster) => Some(users(cluster).await.map_err(not_asked)?),
        None => None,
    };
    let in_file =
        global.file.exists() && global.intent()?.volumes.iter().any(|volume| volume.name == args.volume);
    if !in_file {
        refuse_unknown(&nodes, &args.volume)?;
    }
    let asked = RemoveRequest { volume: &args.volume, keep_data: args.keep_data, unused_by: &args.unused_by };
    let removals = nodes.iter().map(|node| find(node, asked, users.as_ref()));
    let removals: Vec<_> = all(removals)?;
    let wipes: Vec<_> = removals.iter().filter_map(|removal| removal.wipe.clone()).collect();
    let tokens = typed.for_wipes(&wipes)?;
    let simulated = nodes.iter().any(Node::simulated);
    let mut plan = Plan { simulated, ..plan(removals, &tokens)? };
    if in_file {
        let (name, file) = (&args.volume, global.file.display());
        plan.warnings
            .push(format!("{file} still asks for volume {name}: the next apply would make it again"));
    }
    Ok(Planned::new(plan, Some(client), cluster, nodes))
}

fn not_asked(error: Error) -> Error {
    Error::refused(format!("the cluster could not be asked which of its volumes lie there: {}", error.what))
        .hint("--ignore-cluster removes the volume all the same, with whatever lies on it")
}
