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
    let wiping = Wiping { node: client.node(&work.address)?, work, within, events };
    let deadline = Instant::now() + within;
    // What a first call that was refused may have wiped in part.
    let mut begun: Option<Devices> = None;
    loop {
        let Some(devices) = wiping.devices(begun.as_ref()).await? else {
            if let Some(wiped) = &begun {
                wiping.await_no_ghost(wiped).await?;
            }
            return Ok(begun.is_some());
        };
        match wiping.call(&devices, work.zeroes).await {
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
    within: Duration,
    events: &'a Events,
}

impl Wiping<'_> {
    /// What is to be wiped, if anything is left: the disk as the plan saw it or, once a wipe has `begun`, what is left of it.
    async fn devices(&self, begun: Option<&Devices>) -> Result<Option<Devices>> {
        let work = self.work;
        let no_more_than = |left: &Devices| begun.is_some_and(|all| left.iter().all(|one| all.contains(one)));
        match look(work, &nodes::disks(&self.node).await?)? {
            Now::Wiped => Ok(None),
            Now::Same(devices) => Ok(Some(devices)),
            Now::Other(left) if no_more_than(&left) => Ok(Some(left)),
            Now::Other(_) => {
                let what = format!("{}: {} holds something else by now", work.address, work.what);
                Err(Error::refused(what).hint("run it again, to plan from what is there now"))
            }
        }
    }

    async fn call(&self, devices: &[(String, bool)], zeroes: bool) -> Result<()> {
        let devices = devices.iter().map(|(name, drop)| Device { name: name.clone(), drop: *drop });
        self.node.wipe(&devices.collect::<Vec<_>>(), zeroes).await
    }

    /// The node says it is done; wait until it also sees so.
    async fn await_wiped(&self) -> Result<()> {
        let Self { node, work, within, events } = self;
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
    /// kernel looks again when somebody has written to the disk; where nothing else is on it, the empty table is wiped for
    /// that. That acts, so it goes by time, and not by news, which it makes itself.
    async fn await_no_ghost(&self, wiped: &Devices) -> Result<()> {
        let Self { node, work, within, events } = self;
        let deadline = Instant::now() + *within;
        for look in 1.. {
            let Some(ghost) = ghost(work, wiped, &nodes::disks(node).await?) else { break };
            if Instant::now() >= deadline {
                events.warn(format!("{}: the node shows the partition until it reboots", work.what));
                break;
            }
            let what = format!("{} to be seen without the partition", work.what);
            events.waiting(what, "the node still shows it");
            if ghost.alone
                && look % PATIENCE == 0
                && let Err(error) = self.call(&[(ghost.disk, false)], false).await
            {
                events.waiting(format!("{} to be let go of", work.what), error.what);
            }
            tokio::time::sleep(RECHECK).await;
        }
        Ok(())
    }

    /// A lost reply is settled by looking: what is wiped was wiped, and what is as before was not.
    async fn lost(&self, error: Error) -> Result<()> {
        if self.work.zeroes {
            return Err(error.hint(UNSEEN));
        }
        self.events.warn("the reply to the wipe was lost; looking at the disk");
        let deadline = Instant::now() + self.within;
        while Instant::now() < deadline {
            tokio::time::sleep(RECHECK).await;
            let Ok(disks) = nodes::disks(&self.node).await else { continue };
            match look(self.work, &disks)? {
                Now::Wiped => return Ok(()),
                Now::Same(_) => return Err(error.hint("nothing was wiped: run it again")),
                Now::Other(_) => {}
            }
        }
        Err(error.hint("a part of the disk was wiped: run it again"))
    }
}
