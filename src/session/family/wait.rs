//! What is waited for in the cluster.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

use super::RunContext;
use super::node::seen::await_open;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::model::object::Ready;
use crate::plan::WaitAction;
use crate::talos::resources::{Nodename, id};
use crate::talos::{self, Client};
use crate::wait::{Look, Wait};

pub(super) async fn carry_out(action: &WaitAction, context: &RunContext, events: &Events) -> Result<bool> {
    match action {
        WaitAction::Ready(ready) => {
            let within = context.manner.deadlines.workloads.std();
            context.cluster()?.await_ready(ready, events, within).await?;
        }
        WaitAction::Cluster { kubeconfig, nodes } => {
            await_cluster(context.talos()?, context, kubeconfig, nodes, events).await?;
        }
    }
    Ok(false)
}

/// Waits until the API server answers, and until the nodes of these machines are Ready.
async fn await_cluster(
    client: &Client,
    context: &RunContext,
    kubeconfig: &Path,
    nodes: &[String],
    events: &Events,
) -> Result<()> {
    let deadline = Instant::now() + context.manner.deadlines.bootstrap.std();
    let left = || deadline.saturating_duration_since(Instant::now());
    let ready = async || {
        let cluster = Cluster::connect(Some(kubeconfig), None, client.dial()).await?;
        cluster.is_up().await.map(|()| cluster)
    };
    let wait = Wait::new("the API server", left(), events).patient();
    let cluster = wait.until(async || ready().await.map(Look::Done)).await;
    let cluster = cluster.map_err(|late| late.or(|_, last| Error::failed(last)))?;
    for address in nodes {
        let name = node_name(&client.node(address)?, left(), events).await?;
        cluster.await_ready(&Ready::Node { name }, events, left()).await?;
    }
    Ok(())
}

/// Waits until the machine knows what it is called in the cluster.
async fn node_name(node: &talos::Node, within: Duration, events: &Events) -> Result<String> {
    let name = OnceLock::new();
    let check = async || {
        let found = node.spec::<Nodename>(id::NODENAME).await?.map(|found| found.spec.nodename);
        let Some(found) = found.filter(|name| !name.is_empty()) else {
            let what = format!("the name of {} in the cluster", node.address());
            return Ok(Some((what, "it has none yet".to_owned())));
        };
        let _ = name.set(found);
        Ok(None)
    };
    await_open::<Nodename>(node, within, events, check)
        .await
        .map_err(|late| late.or(|what, last| Error::failed(format!("{}: {what}: {last}", node.address()))))?;
    Ok(name.into_inner().unwrap_or_default())
}
