//! Wiping a disk: found again by serial and WWID right before the call, and looked at after it.

use std::time::Duration;

use tokio::time::Instant;

use super::node::{RECHECK, await_open};
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::observe::nodes;
use crate::plan::wipe::{Now, Wipe, ghost, look};
use crate::talos::calls::Device;
use crate::talos::resources::DiscoveredVolume;
use crate::talos::{Client, Node};

/// How Talos says that the kernel would not let go of a partition, which something looks at for a moment after it was
/// wiped. Seen on v1.11.5; by then the table may be written, or not.
const BUSY: &str = "device or resource busy";
/// So often a partition is looked for before its disk is written to.
const PATIENCE: usize = 3;
/// How it says that the table does not know the partition any more, while discovery still shows it.
const OUT_OF_TABLE: &str = "failed to delete partition: partition";
const UNSEEN: &str = "whether every byte was overwritten can't be seen: run it again";

/// True when something was wiped; false when nothing was left to wipe.
pub(super) async fn wipe(client: &Client, work: &Wipe, within: Duration, events: &Events) -> Result<bool> {
    let node = client.node(&work.address)?;
    let deadline = Instant::now() + within;
    let mut begun: Option<Vec<(String, bool)>> = None;
    loop {
        let found = match look(work, &nodes::disks(&node).await?)? {
            Now::Wiped => {
                if let Some(wiped) = &begun {
                    await_no_ghost(&node, work, wiped, within, events).await?;
                }
                return Ok(begun.is_some());
            }
            Now::Same(devices) => devices,
            // What is not as it was by our own doing, with nothing new on it, is wiped to its end.
            Now::Other(left)
                if begun.as_ref().is_some_and(|all| left.iter().all(|one| all.contains(one))) =>
            {
                left
            }
            Now::Other(_) => {
                return Err(Error::refused(format!(
                    "{}: {} holds something else by now",
                    work.address, work.what
                ))
                .hint("run it again, to plan from what is there now"));
            }
        };
        let devices: Vec<Device> =
            found.iter().map(|(name, drop)| Device { name: name.clone(), drop: *drop }).collect();
        match node.wipe(&devices, work.zeroes).await {
            Ok(()) => {
                await_wiped(&node, work, within, events).await?;
                await_no_ghost(&node, work, &found, within, events).await?;
            }
            Err(error) if error.kind == Kind::Unavailable => lost(&node, work, error, within, events).await?,
            Err(error) if !passes(&error, begun.is_some()) || Instant::now() >= deadline => {
                return Err(error);
            }
            Err(error) if work.zeroes => return Err(error.hint(UNSEEN)),
            Err(error) => {
                begun.get_or_insert(found);
                events.waiting(format!("{} to be let go of", work.what), error.what);
                tokio::time::sleep(RECHECK).await;
                continue;
            }
        }
        return Ok(true);
    }
}

/// Whether a refusal is only for the moment: after a first one, the partition may be out of its table already.
fn passes(error: &Error, begun: bool) -> bool {
    error.what.contains(BUSY) || begun && error.what.contains(OUT_OF_TABLE)
}

/// The kernel did not let go of a partition when it was taken out of its table, and may still show it. It looks again when
/// somebody has written to the disk; where nothing else is on it, the empty table is wiped for that.
async fn await_no_ghost(
    node: &Node,
    work: &Wipe,
    wiped: &[(String, bool)],
    within: Duration,
    events: &Events,
) -> Result<()> {
    let mut looked = 0;
    let deadline = Instant::now() + within;
    loop {
        let Some(left) = ghost(work, wiped, &nodes::disks(node).await?) else { return Ok(()) };
        if Instant::now() >= deadline {
            events.warn(format!("{}: its kernel shows the partition until the node reboots", work.what));
            return Ok(());
        }
        events
            .waiting(format!("{} to be seen without the partition", work.what), "the kernel still shows it");
        looked += 1;
        if left.alone && looked % PATIENCE == 0 {
            let device = Device { name: left.disk, drop: false };
            if let Err(error) = node.wipe(&[device], false).await {
                events.waiting(format!("{} to be let go of", work.what), error.what);
            }
        }
        tokio::time::sleep(RECHECK).await;
    }
}

/// The node says it is done; wait until it also sees so.
async fn await_wiped(node: &Node, work: &Wipe, within: Duration, events: &Events) -> Result<()> {
    if work.is_blind() {
        events.warn(format!("{}: the node says it was wiped; nothing else can tell", work.what));
        return Ok(());
    }
    let check = async || {
        let open = match look(work, &nodes::disks(node).await?)? {
            Now::Wiped => None,
            Now::Same(_) | Now::Other(_) => Some("the node has not looked at it again yet".to_owned()),
        };
        Ok(open.map(|why| (work.what.clone(), why)))
    };
    await_open::<DiscoveredVolume>(node, within, events, check).await.map_err(|(what, last)| {
        Error::failed(format!("{}: {what} was wiped, but is not seen as empty: {last}", work.address))
            .hint("`nodeprep discover` shows what is seen on it; run it again")
    })
}

/// A lost reply is settled by looking: what is wiped was wiped, and what is as before was not.
async fn lost(node: &Node, work: &Wipe, error: Error, within: Duration, events: &Events) -> Result<()> {
    if work.zeroes {
        return Err(error.hint(UNSEEN));
    }
    events.warn("the reply to the wipe was lost; looking at the disk");
    let deadline = Instant::now() + within;
    while Instant::now() < deadline {
        tokio::time::sleep(RECHECK).await;
        let Ok(disks) = nodes::disks(node).await else { continue };
        match look(work, &disks)? {
            Now::Wiped => return Ok(()),
            Now::Same(_) => return Err(error.hint("nothing was wiped: run it again")),
            Now::Other(_) => {}
        }
    }
    Err(error.hint("a part of the disk was wiped: run it again"))
}
