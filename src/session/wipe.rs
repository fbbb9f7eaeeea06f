//! Wiping a disk: found again by serial and WWID right before the call, and looked at after it.

use std::time::Duration;

use tokio::time::Instant;

use super::engine::RunContext;
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
/// For so long it is looked for where its disk may not be written to.
const LINGERS: Duration = Duration::from_secs(30);
/// So many looks, one after the other, settle that a call whose reply was lost was not made: the first may be of before it.
const LOOKS: usize = 5;
/// How it says that the table does not know the partition any more, while discovery still shows it.
const OUT_OF_TABLE: &str = "failed to delete partition: partition";
const UNSEEN: &str = "whether every byte was overwritten can't be seen: run it again";

/// True when something was wiped; false when nothing was left to wipe.
pub(super) async fn wipe(
    client: &Client,
    work: &Wipe,
    context: &RunContext,
    events: &Events,
) -> Result<bool> {
    let within = context.manner.deadlines.volumes.std();
    let wiping = Wiping { node: client.node(&work.address)?, work, context, within, events };
    let deadline = Instant::now() + within;
    // What a first call that was refused may have wiped in part.
    let mut begun: Option<Devices> = None;
    loop {
        let Some(devices) = wiping.devices(begun.as_ref(), deadline).await? else {
            if let Some(wiped) = &begun {
                wiping.await_no_ghost(wiped).await?;
            }
            return Ok(begun.is_some());
        };
        context.still_ours().await?;
        match wiping.call(&devices, work.zeroes).await {
            Ok(()) if work.partition.is_none() => {
                wiping.await_no_ghost(&devices).await?;
                return wiping.await_wiped().await.map(|()| true);
            }
            Ok(()) => {
                wiping.await_wiped().await?;
                return wiping.await_no_ghost(&devices).await.map(|()| true);
            }
            Err(error) if error.kind == Kind::Unavailable => return wiping.lost(error).await.map(|()| true),
            Err(error) if !passes(&error, begun.is_some()) || Instant::now() >= deadline => {
                return Err(error);
            }
            Err(error) if work.zeroes => return Err(error.hint(UNSEEN)),
            Err(error) => {
                begun.get_or_insert(devices);
                events.waiting(format!("{} to be let go of", work.what), error.what);
                tokio::time::sleep(RECHECK).await;
            }
        }
    }
}

/// Kernel names in the order in which they are wiped, and whether each is taken out of its table then.
type Devices = Vec<(String, bool)>;

/// Whether a refusal is only for the moment: after a first one, the partition may be out of its table already.
fn passes(error: &Error, begun: bool) -> bool {
    error.what.contains(BUSY) || begun && error.what.contains(OUT_OF_TABLE)
}

/// One disk that is being wiped.
struct Wiping<'a> {
    node: Node,
    work: &'a Wipe,
    context: &'a RunContext,
    within: Duration,
    events: &'a Events,
}

impl Wiping<'_> {
    /// What is to be wiped, if anything is left: the disk as the plan saw it or, once a wipe has `begun`, what is left of it.
    async fn devices(&self, begun: Option<&Devices>, deadline: Instant) -> Result<Option<Devices>> {
        let work = self.work;
        let no_more_than = |left: &Devices| begun.is_some_and(|all| left.iter().all(|one| all.contains(one)));
        loop {
            match look(work, &nodes::disks(&self.node).await?)? {
                Now::Wiped => return Ok(None),
                Now::Same(devices) => return Ok(Some(devices)),
                Now::Other(left) if left.is_empty() && Instant::now() < deadline => {
                    self.events.waiting(format!("{} to be looked at", work.what), "the node has not done so");
                    tokio::time::sleep(RECHECK).await;
                }
                Now::Other(left) if !left.is_empty() && no_more_than(&left) => return Ok(Some(left)),
                Now::Other(_) => {
                    let what = format!("{}: {} holds something else by now", work.address, work.what);
                    return Err(Error::refused(what).hint("run it again, to plan from what is there now"));
                }
            }
        }
    }

    async fn call(&self, devices: &[(String, bool)], zeroes: bool) -> Result<()> {
        let devices = devices.iter().map(|(name, drop)| Device { name: name.clone(), drop: *drop });
        self.node.wipe(&devices.collect::<Vec<_>>(), zeroes).await
    }

    /// The node says it is done; wait until it also sees so.
    async fn await_wiped(&self) -> Result<()> {
        let Self { node, work, within, events, .. } = self;
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
        await_open::<DiscoveredVolume>(node, *within, events, check).await.map_err(|late| {
            let open = |what, last| {
                Error::failed(format!("{}: {what} was wiped, but is not seen as empty: {last}", work.address))
            };
            late.or(open).hint("`nodeprep discover` shows what is seen on it; run it again")
        })
    }

    /// When the kernel does not let go of a partition that is taken out of its table, the node may go on showing it. The
    /// kernel looks again when somebody has written to the disk. So a disk that was to be wiped as a whole is wiped again,
    /// where nothing else is on it; the table of one that was to lose a partition is nobody's to write. That acts, so it
    /// goes by time, and not by news, which it makes itself.
    async fn await_no_ghost(&self, wiped: &Devices) -> Result<()> {
        let Self { node, work, within, events, .. } = self;
        let whole = work.partition.is_none();
        let deadline = Instant::now() + if whole { *within } else { LINGERS.min(*within) };
        for look in 1.. {
            let Some(ghost) = ghost(work, wiped, &nodes::disks(node).await?) else { break };
            if Instant::now() >= deadline {
                events.warn(format!("{}: the node shows the partition until it reboots", work.what));
                break;
            }
            let what = format!("{} to be seen without the partition", work.what);
            events.waiting(what, "the node still shows it");
            self.context.still_ours().await?;
            if whole
                && ghost.alone
                && look % PATIENCE == 0
                && let Err(error) = self.call(&[(ghost.disk, false)], false).await
            {
                events.waiting(format!("{} to be let go of", work.what), error.what);
            }
            tokio::time::sleep(RECHECK).await;
        }
        Ok(())
    }

    /// A lost reply is settled by looking: what is wiped was wiped. What is as before was not, when it stays so: the node
    /// may be at it still, and tells of its disks a little later than they change.
    async fn lost(&self, error: Error) -> Result<()> {
        if self.work.zeroes || self.work.is_blind() {
            return Err(error.hint(UNSEEN));
        }
        self.events.warn("the reply to the wipe was lost; looking at the disk");
        let deadline = Instant::now() + self.within;
        let mut same = 0;
        while Instant::now() < deadline && same < LOOKS {
            tokio::time::sleep(RECHECK).await;
            let Ok(disks) = nodes::disks(&self.node).await else { continue };
            same = match look(self.work, &disks)? {
                Now::Wiped => return Ok(()),
                Now::Same(_) => same + 1,
                Now::Other(_) => 0,
            };
        }
        Err(error.hint(match same {
            0 => "a part of the disk was wiped, or all of it; it is not seen yet: run it again",
            _ => "the disk is as it was before the call; nothing was wiped: run it again",
        }))
    }
}
