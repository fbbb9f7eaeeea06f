//! One node's steps: look again, dry run, apply, look at what came of it.

use std::time::Duration;

use futures::StreamExt;
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::engine::STEP_DEADLINE;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::observe::nodes;
use crate::plan::{ApplyConfig, AwaitVolume, disks, volume_state};
use crate::talos::client::Mode;
use crate::talos::resources::{
    Item, MachineConfig, MountStatus, NodeLabel, NodeStatus, Spec, VolumeStatus, id,
};
use crate::talos::{Client, Node};

/// A watch wakes a wait; without news, the state is read again this often, for what the watch does not cover.
pub(super) const RECHECK: Duration = Duration::from_secs(3);

/// Applies a machine config; true when the node's config was changed.
pub(super) async fn apply_config(client: &Client, work: &ApplyConfig, events: &Events) -> Result<bool> {
    let node = client.node(&work.address)?;
    let changed = if active_config(&node).await?.spec.0.expose_secret() == work.config.expose_secret() {
        false
    } else {
        same_base(&node, work).await?;
        same_disks(&node, work).await?;
        let bytes = work.config.expose_secret().as_bytes();
        let dry = node.apply(bytes, Mode::NoReboot, true, None).await?;
        for warning in dry.warnings {
            events.warn(format!("the node warns: {warning}"));
        }
        // Once more, right before the write: somebody else may have applied meanwhile.
        same_base(&node, work).await?;
        send(&node, work).await?;
        true
    };
    await_volumes(client, &work.address, &work.volumes, events).await?;
    await_labels(&node, &work.labels, events).await?;
    Ok(changed)
}

async fn active_config(node: &Node) -> Result<Item<MachineConfig>> {
    node.spec::<MachineConfig>(id::ACTIVE_CONFIG).await?.ok_or_else(|| {
        Error::failed(format!("{}: has no machine config", node.address()))
            .hint("a node in maintenance mode is to be configured first: talosctl apply-config --insecure")
    })
}

/// The plan was made from this version of the config; a newer one would be overwritten.
async fn same_base(node: &Node, work: &ApplyConfig) -> Result<()> {
    let version = active_config(node).await?.version;
    if version == work.base_version {
        return Ok(());
    }
    Err(Error::refused(format!(
        "{}: its machine config changed since the plan was made (version {} then, {version} now)",
        node.address(),
        work.base_version
    ))
    .hint("run it again, to plan from what is there now"))
}

/// The approved disks are found again by serial and WWID, and are still what the plan saw.
async fn same_disks(node: &Node, work: &ApplyConfig) -> Result<()> {
    if work.disks.is_empty() {
        return Ok(());
    }
    let now = nodes::disks(node).await?;
    for approved in &work.disks {
        disks::still(approved, &now).map_err(|e| e.at(&work.address))?;
    }
    Ok(())
}

/// Sends the config. A lost reply is settled by looking whether the node has it.
async fn send(node: &Node, work: &ApplyConfig) -> Result<()> {
    let Err(error) = node.apply(work.config.expose_secret().as_bytes(), Mode::NoReboot, false, None).await
    else {
        return Ok(());
    };
    if error.kind != Kind::Unavailable {
        return Err(error);
    }
    let deadline = Instant::now() + STEP_DEADLINE;
    while Instant::now() < deadline {
        tokio::time::sleep(RECHECK).await;
        match active_config(node).await {
            Ok(config) if config.spec.0.expose_secret() == work.config.expose_secret() => return Ok(()),
            Ok(_) => return Err(error),
            Err(_) => {}
        }
    }
    Err(error)
}

/// Waits until every volume is ready and, unless it is raw, mounted at exactly its path.
pub(super) async fn await_volumes(
    client: &Client,
    address: &str,
    wanted: &[AwaitVolume],
    events: &Events,
) -> Result<()> {
    let node = client.node(address)?;
    let check = async || {
        let (volumes, mounts) = tokio::try_join!(node.specs::<VolumeStatus>(), node.specs::<MountStatus>())?;
        let open = wanted.iter().find_map(|wait| {
            let status = volumes.iter().find(|v| v.id == wait.id).map(|v| &v.spec);
            let status = status.map(|v| (v.phase.as_str(), v.error_message.as_str()));
            let mounted = mounts.iter().any(|mount| Some(&mount.spec.target) == wait.mount.as_ref());
            let why = volume_state(wait, status, mounted).err()?;
            Some((format!("volume {wait}"), why))
        });
        Ok(open)
    };
    await_open::<VolumeStatus>(&node, events, check).await.map_err(|(what, last)| {
        Error::failed(format!(
            "{address}: {what} did not become ready within {}s: {last}",
            STEP_DEADLINE.as_secs()
        ))
        .hint("`nodeprep discover` shows the node's disks and volumes; `talosctl dmesg` what the kernel said")
    })
}

/// Waits until the node has no such volume any more, and nothing is mounted at its path.
pub(super) async fn await_gone(
    client: &Client,
    address: &str,
    gone: &AwaitVolume,
    events: &Events,
) -> Result<()> {
    let node = client.node(address)?;
    let check = async || {
        let (volumes, mounts) = tokio::try_join!(node.specs::<VolumeStatus>(), node.specs::<MountStatus>())?;
        let left = volumes.iter().find(|volume| volume.id == gone.id);
        let mounted = mounts.iter().any(|mount| mount.spec.target == gone.mount);
        let why = match left {
            _ if mounted => Some(format!("still mounted at {}", gone.mount)),
            Some(volume) => Some(format!("still there, in phase {}", volume.spec.phase)),
            None => None,
        };
        Ok(why.map(|why| (format!("volume {} to go", gone.id), why)))
    };
    await_open::<VolumeStatus>(&node, events, check).await.map_err(|(what, last)| {
        Error::failed(format!("{address}: {what}: {last}, after {}s", STEP_DEADLINE.as_secs()))
            .hint("a pod that uses it keeps it mounted; stop it and run this again. Nothing was wiped")
    })
}

/// Waits until Talos wants the labels and, once the node is registered, until its Node object carries them.
async fn await_labels(node: &Node, wanted: &[(String, String)], events: &Events) -> Result<()> {
    let check = async || {
        let specs = node.specs::<NodeLabel>().await?;
        let registered = node.specs::<NodeStatus>().await.unwrap_or_default();
        Ok(wanted.iter().find_map(|(key, value)| {
            let why = label_state(key, value, &specs, &registered).err()?;
            Some((format!("label {key}={value}"), why))
        }))
    };
    await_open::<NodeLabel>(node, events, check).await.map_err(|(what, last)| {
        Error::failed(format!("{}: {what} is not on the node: {last}", node.address()))
            .hint("a label that somebody else set is left alone by Talos: remove it with kubectl label, and Talos sets it")
    })
}

fn label_state(
    key: &str,
    value: &str,
    specs: &[Item<NodeLabel>],
    registered: &[Item<NodeStatus>],
) -> std::result::Result<(), String> {
    if !specs.iter().any(|label| label.spec.key == key && label.spec.value == value) {
        return Err("Talos does not want it yet".into());
    }
    for node in registered {
        match node.spec.labels.get(key) {
            Some(found) if found == value => {}
            Some(found) => return Err(format!("the Node object has {key}={found}")),
            None => return Err("the Node object does not have it yet".into()),
        }
    }
    Ok(())
}

/// Repeats `check` whenever a resource of type `T` changes, until nothing is open; else what was open last.
pub(super) async fn await_open<T: Spec>(
    node: &Node,
    events: &Events,
    check: impl AsyncFn() -> Result<Option<(String, String)>>,
) -> std::result::Result<(), (String, String)> {
    let deadline = Instant::now() + STEP_DEADLINE;
    let mut watch = None;
    let mut last = (String::from("the node's answer"), String::new());
    while Instant::now() < deadline {
        match check().await {
            Ok(None) => return Ok(()),
            Ok(Some(open)) => last = open,
            Err(error) => last.1 = error.what,
        }
        events.waiting(&last.0, &last.1);
        if watch.is_none() {
            watch = node.watch(T::NAMESPACE, T::TYPE, None).await.ok().map(Box::pin);
        }
        if let Some(stream) = &mut watch {
            let news = tokio::time::timeout(RECHECK, stream.next());
            if matches!(news.await, Ok(None | Some(Err(_)))) {
                watch = None;
            }
        } else {
            tokio::time::sleep(RECHECK.min(deadline - Instant::now())).await;
        }
    }
    Err(last)
}
