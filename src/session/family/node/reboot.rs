//! A reboot that a machine config brings about: the node's pods leave before it, and it takes new ones after it.

use std::future::Future;

use super::super::super::Reached;
use super::super::RunContext;
use super::seen::await_open;
use crate::cluster::{Cluster, Losses};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::model::object::Ready;
use crate::talos::resources::{MachineStatus, Nodename, id};
use crate::talos::{Client, Node};
use crate::wait::Late;

/// What is another one after each boot (as talosctl tells that a node has rebooted).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Drains the node, does what makes it reboot, and waits until it is back; it is uncordoned whatever comes of it.
pub(in crate::session) async fn around(
    context: &RunContext,
    node: &Node,
    events: &Events,
    write: impl Future<Output = Result<()>>,
) -> Result<()> {
    let boot = boot_id(node).await?;
    if let Reached::Away(why) = &context.cluster {
        let away = why.clone().at(format!("{}: no pod can leave it before it reboots", node.address()));
        return Err(away.hint("run it again when the API server answers, or with --mode staged"));
    }
    let Some((cluster, name)) = member(context.cluster.here(), node).await? else {
        write.await?;
        return await_boot(context, node, &boot, events).await;
    };
    let (manner, deadlines) = (&context.manner, &context.manner.deadlines);
    cluster.losses(&name).await?.refuse(manner.delete_emptydir_data)?;
    let ours = cluster.cordon(&name, &context.place).await?;
    let done = async {
        cluster.drain(&name, manner.delete_emptydir_data, deadlines.drain.std(), events).await?;
        write.await?;
        await_boot(context, node, &boot, events).await?;
        let ready = Ready::Node { name: name.clone() };
        cluster.await_ready(&ready, events, deadlines.reboot.std()).await
    };
    let done = done.await;
    if ours && let Err(error) = cluster.uncordon(&name).await {
        events.warn(format!("node {name} is still cordoned: {}", error.what));
        // Where it failed before, that is what there is to say.
        return done.and(Err(error.hint(format!("kubectl uncordon {name}"))));
    }
    done
}

/// What goes for ever when these nodes are drained before they reboot; nothing is changed.
pub async fn losses(cluster: &Cluster, client: &Client, addresses: &[String]) -> Result<Vec<Losses>> {
    let mut all = Vec::new();
    for address in addresses {
        if let Some((cluster, name)) = member(Some(cluster), &client.node(address)?).await? {
            all.push(cluster.losses(&name).await?);
        }
    }
    Ok(all)
}

/// The cluster's name of the node, once it is one of its nodes.
async fn member<'a>(cluster: Option<&'a Cluster>, node: &Node) -> Result<Option<(&'a Cluster, String)>> {
    let Some(cluster) = cluster else { return Ok(None) };
    let Some(found) = node.spec::<Nodename>(id::NODENAME).await? else { return Ok(None) };
    let name = found.spec.nodename;
    Ok(cluster.get("v1", "Node", None, &name).await?.map(|_| (cluster, name)))
}

async fn boot_id(node: &Node) -> Result<Vec<u8>> {
    let missing = || Error::failed(format!("{}: has no {BOOT_ID}", node.address()));
    node.read(BOOT_ID, 64).await?.ok_or_else(missing)
}

async fn await_boot(context: &RunContext, node: &Node, before: &[u8], events: &Events) -> Result<()> {
    let within = context.manner.deadlines.reboot.std();
    let check = async || {
        let why = match node.spec::<MachineStatus>(id::MACHINE).await? {
            _ if boot_id(node).await? == before => Some("it has not gone down yet".to_owned()),
            Some(status) if status.spec.status.ready => None,
            Some(status) => Some(format!("it is {}", status.spec.stage)),
            None => Some("it does not say how it is yet".to_owned()),
        };
        Ok(why.map(|why| ("the node to reboot".to_owned(), why)))
    };
    await_open::<MachineStatus>(node, within, events, check).await.map_err(|late| {
        let what =
            |last| format!("{}: did not come back within {}s: {last}", node.address(), within.as_secs());
        let error = match late {
            Late::Open { last, .. } => Error::failed(what(last)),
            Late::Away { error, .. } => Error::unavailable(what(error.what)),
            Late::Never(error) => return error,
        };
        error.hint("its console shows more; run this again when it is back")
    })
}
