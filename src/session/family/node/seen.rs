//! Waiting for what a node makes of its config: volumes, mounts, labels.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::model::disks::EXISTING_VOLUME;
use crate::plan::{AwaitVolume, volume_state};
use crate::talos::resources::{Item, MountStatus, NodeLabel, NodeStatus, Spec, VolumeStatus};
use crate::talos::{Client, Node};
use crate::wait::{Late, Look, Open, Wait};
use futures::StreamExt;

/// The phase of what Talos could not do; it tries it again every 30 s.
const FAILED: &str = "failed";
/// The phase of what Talos has not begun with.
const WAITING: &str = "waiting";
/// What fails with the same words after three more tries has failed.
const FAILS_FOR: Duration = Duration::from_secs(100);

/// Which volume fails with which words, and since when.
#[derive(Default)]
struct Failing(Option<(String, Instant)>);

impl Failing {
    /// Whether this has failed for good.
    fn for_good(&mut self, words: String) -> bool {
        match &self.0 {
            Some((said, since)) if *said == words => since.elapsed() >= FAILS_FOR,
            _ => {
                self.0 = Some((words, Instant::now()));
                false
            }
        }
    }
}

/// Waits until every volume is ready and, unless it is raw, mounted at exactly its path.
pub(in crate::session) async fn await_volumes(
    client: &Client,
    address: &str,
    wanted: &[AwaitVolume],
    within: Duration,
    events: &Events,
) -> Result<()> {
    let (node, mut failing) = (client.node(address)?, Failing::default());
    let check = async || {
        let (volumes, mounts) = tokio::try_join!(node.specs::<VolumeStatus>(), node.specs::<MountStatus>())?;
        Ok(open_volume(wanted, &volumes, &mounts))
    };
    let hint =
        "`nodeprep discover` shows the node's disks and volumes; `talosctl dmesg` what the kernel said";
    let look = async || match check().await {
        Ok(Some((what, why, true))) if failing.for_good(format!("{what}: {why}")) => {
            Err(Error::failed(format!("{address}: {what} has failed again and again: {why}")).hint(hint))
        }
        checked => forgiving(checked.map(|open| open.map(|(what, why, _)| (what, why)))),
    };
    await_look::<VolumeStatus>(&node, within, events, look).await.map_err(|late| {
        late.or_hint(hint, |what, last| {
            let seconds = within.as_secs();
            Error::failed(format!("{address}: {what} did not become ready within {seconds}s: {last}"))
        })
    })
}

/// A volume that is not done: which, why, and whether that is a failure.
type OpenVolume = (String, String, bool);

/// The first of these volumes that has failed, else the first that is not done. Talos makes volumes one after the other: one
/// that waits for one that failed has failed too.
fn open_volume(
    wanted: &[AwaitVolume],
    volumes: &[Item<VolumeStatus>],
    mounts: &[Item<MountStatus>],
) -> Option<OpenVolume> {
    let failed = |volume: &&Item<VolumeStatus>| volume.spec.phase == FAILED;
    let in_the_way = volumes.iter().find(|volume| failed(volume) && !volume.id.starts_with(EXISTING_VOLUME));
    let open = |wait: &AwaitVolume| {
        let status = volumes.iter().find(|volume| volume.id == wait.id);
        let said = status.map(|volume| (volume.spec.phase.as_str(), volume.spec.error_message.as_str()));
        let mounted = mounts.iter().find(|mount| Some(&mount.spec.target) == wait.mount.as_ref());
        let why = volume_state(wait, said, mounted.map(|mount| mount.spec.flags)).err()?;
        let what = format!("volume {wait}");
        Some(match (said, in_the_way) {
            (Some((WAITING, _)), Some(first)) => {
                let error = first.spec.error_message.lines().next().unwrap_or_default();
                (what, format!("{why}, as {} comes first and has failed: {error}", first.id), true)
            }
            (said, _) => (what, why, said.is_some_and(|(phase, _)| phase == FAILED)),
        })
    };
    let mut open: Vec<OpenVolume> = wanted.iter().filter_map(open).collect();
    let first = open.iter().position(|(.., failed)| *failed).unwrap_or_default();
    (!open.is_empty()).then(|| open.swap_remove(first))
}

/// Waits until the node has no such volume any more, and nothing is mounted at its path.
pub(in crate::session) async fn await_gone(
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
        late.or_hint(
            "a pod that uses it keeps it mounted; stop it and run this again. Nothing was wiped",
            |what, last| Error::failed(format!("{address}: {what}: {last}, after {}s", within.as_secs())),
        )
    })
}

/// Waits until Talos wants the labels and, once the node is registered, until its Node object carries them.
pub(in crate::session) async fn await_labels(
    node: &Node,
    wanted: &[(String, String)],
    within: Duration,
    events: &Events,
) -> Result<()> {
    let check = async || {
        let (specs, registered) = tokio::try_join!(node.specs::<NodeLabel>(), node.specs::<NodeStatus>())?;
        Ok(wanted.iter().find_map(|(key, value)| {
            let why = label_state(key, value, &specs, &registered).err()?;
            Some((format!("label {key}={value}"), why))
        }))
    };
    await_open::<NodeLabel>(node, within, events, check).await.map_err(|late| {
        let hint = "a label that somebody else set is left alone by Talos: remove it with kubectl label, and Talos sets it";
        late.or(|what, last| {
            Error::failed(format!("{}: {what} is not on the node: {last}", node.address())).hint(hint)
        })
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

/// What is still open on a node, and why.
pub(in crate::session) type NotYet = Option<(String, String)>;

/// Repeats `check` whenever a resource of type `T` changes, until nothing is open. A node that starts may refuse what it will
/// answer later; only what was refused for good ends the wait.
pub(in crate::session) async fn await_open<T: Spec>(
    node: &Node,
    within: Duration,
    events: &Events,
    check: impl AsyncFn() -> Result<NotYet>,
) -> std::result::Result<(), Late> {
    await_look::<T>(node, within, events, async || forgiving(check().await)).await
}

/// What a look found. What failed may be answered the next time.
fn forgiving(checked: Result<NotYet>) -> Result<Look<()>> {
    match checked {
        Ok(None) => Ok(Look::Done(())),
        Ok(Some((what, why))) => Ok(Look::NotYet(Open { what: Some(what), why })),
        Err(error) if error.kind == Kind::Failed => Ok(Look::not_yet(error.what)),
        Err(error) => Err(error),
    }
}

/// Looks again whenever a resource of type `T` changes.
async fn await_look<T: Spec>(
    node: &Node,
    within: Duration,
    events: &Events,
    look: impl AsyncFnMut() -> Result<Look<()>>,
) -> std::result::Result<(), Late> {
    let mut watch = None;
    let wake = async |most| {
        if watch.is_none() {
            watch = node.watch(T::NAMESPACE, T::TYPE, None).await.ok().map(Box::pin);
        }
        let Some(stream) = &mut watch else { return tokio::time::sleep(most).await };
        if matches!(tokio::time::timeout(most, stream.next()).await, Ok(None | Some(Err(_)))) {
            watch = None;
        }
    };
    Wait::new("the node's answer", within, events).woken(look, wake).await
}
