//! Waiting for what a node makes of its config: volumes, mounts, labels.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::plan::{AwaitVolume, volume_state};
use crate::talos::resources::{Item, MountStatus, NodeLabel, NodeStatus, Spec, VolumeStatus};
use crate::talos::{Client, Node};

/// A watch wakes a wait; without news, the state is read again this often, for what the watch does not cover.
pub(super) const RECHECK: Duration = Duration::from_secs(3);

/// Waits until every volume is ready and, unless it is raw, mounted at exactly its path.
pub(super) async fn await_volumes(
    client: &Client,
    address: &str,
    wanted: &[AwaitVolume],
    within: Duration,
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
    await_open::<VolumeStatus>(&node, within, events, check).await.map_err(|late| {
        let open = |what, last| {
            let seconds = within.as_secs();
            Error::failed(format!("{address}: {what} did not become ready within {seconds}s: {last}"))
        };
        late.or(open).hint(
            "`nodeprep discover` shows the node's disks and volumes; `talosctl dmesg` what the kernel said",
        )
    })
}

/// Waits until the node has no such volume any more, and nothing is mounted at its path.
pub(super) async fn await_gone(
    client: &Client,
    address: &str,
    gone: &AwaitVolume,
    within: Duration,
    events: &Events,
) -> Result<()> {
    let node = client.node(address)?;
    let check = async || {
        let (volumes, mounts) = tokio::try_join!(node.specs::<VolumeStatus>(), node.specs::<MountStatus>())?;
        let left = volumes.iter().find(|volume| volume.id == gone.id);
        let mounted = mounts.iter().any(|mount| Some(&mount.spec.target) == gone.mount.as_ref());
        let why = match left {
            _ if mounted => Some(format!("still mounted at {gone}")),
            Some(volume) => Some(format!("still there, in phase {}", volume.spec.phase)),
            None => None,
        };
        Ok(why.map(|why| (format!("volume {} to go", gone.id), why)))
    };
    await_open::<VolumeStatus>(&node, within, events, check).await.map_err(|late| {
        let open =
            |what, last| Error::failed(format!("{address}: {what}: {last}, after {}s", within.as_secs()));
        late.or(open)
            .hint("a pod that uses it keeps it mounted; stop it and run this again. Nothing was wiped")
    })
}

/// Waits until Talos wants the labels and, once the node is registered, until its Node object carries them.
pub(super) async fn await_labels(
    node: &Node,
    wanted: &[(String, String)],
    within: Duration,
    events: &Events,
) -> Result<()> {
    let check = async || {
        let specs = node.specs::<NodeLabel>().await?;
        let registered = node.specs::<NodeStatus>().await.unwrap_or_default();
        Ok(wanted.iter().find_map(|(key, value)| {
            let why = label_state(key, value, &specs, &registered).err()?;
            Some((format!("label {key}={value}"), why))
        }))
    };
    await_open::<NodeLabel>(node, within, events, check).await.map_err(|late| {
        let open =
            |what, last| Error::failed(format!("{}: {what} is not on the node: {last}", node.address()));
        late.or(open).hint("a label that somebody else set is left alone by Talos: remove it with kubectl label, and Talos sets it")
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

/// What was still open when the time was over, and why; or that the node was away by then.
pub(super) enum Late {
    Open { what: String, last: String },
    Away(Error),
}

impl Late {
    /// The error of what was open; a node that is away is said to be away.
    pub(super) fn or(self, open: impl FnOnce(String, String) -> Error) -> Error {
        match self {
            Self::Open { what, last } => open(what, last),
            Self::Away(error) => error,
        }
    }
}

/// Repeats `check` whenever a resource of type `T` changes, until nothing is open; else what was open last when the time
/// was over.
pub(super) async fn await_open<T: Spec>(
    node: &Node,
    within: Duration,
    events: &Events,
    check: impl AsyncFn() -> Result<Option<(String, String)>>,
) -> std::result::Result<(), Late> {
    let deadline = Instant::now() + within;
    let mut watch = None;
    let mut last = (String::from("the node's answer"), String::new());
    let mut away = None;
    while Instant::now() < deadline {
        away = None;
        match check().await {
            Ok(None) => return Ok(()),
            Ok(Some(open)) => last = open,
            Err(error) => {
                last.1.clone_from(&error.what);
                away = Some(error).filter(|error| error.kind == Kind::Unavailable);
            }
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
    Err(match away {
        Some(error) => Late::Away(error.at(format!("while waiting for {}", last.0))),
        None => Late::Open { what: last.0, last: last.1 },
    })
}
