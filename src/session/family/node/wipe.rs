//! Wiping a disk: found again by serial and WWID right before the call, and looked at after it.

use std::time::Duration;

use tokio::time::Instant;

use super::super::RunContext;
use super::seen::await_open;
use crate::error::{Code, Error, Kind, Result};
use crate::event::Events;
use crate::observe::nodes;
use crate::plan::wipe::{Now, Wipe, ghost, look};
use crate::talos::calls::Device;
use crate::talos::resources::DiscoveredVolume;
use crate::talos::{Client, Node};
use crate::wait::{Late, Look, Wait};

/// So often a partition is looked for before its disk is written to.
const PATIENCE: usize = 3;
/// For so long it is looked for where its disk may not be written to.
const LINGERS: Duration = Duration::from_secs(30);
/// So many looks, one after the other, settle that a call whose reply was lost was not made: the first may be of before it.
const LOOKS: usize = 5;
const UNSEEN: &str = "whether every byte was overwritten can't be seen: run it again";

/// True when something was wiped; false when nothing was left to wipe.
pub(in crate::session) async fn wipe(
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
    let wait = Wait::new(format!("{} to be let go of", work.what), within, events).first_error_ends();
    let done = wait.until(async || wiping.attempt(&mut begun, deadline).await).await;
    done.map_err(|late| late.or(|_, last| Error::failed(last)))
}

/// Kernel names in the order in which they are wiped, and whether each is taken out of its table then.
type Devices = Vec<(String, bool)>;

/// Whether a refusal is only for the moment: after a first one, the partition may be out of its table already, while discovery
/// still shows it.
fn passes(error: &Error, begun: bool) -> bool {
    match error.code {
        Some(Code::DeviceBusy) => true,
        Some(Code::OutOfTable) => begun,
        _ => false,
    }
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
    /// One call, and what comes after it; not yet where the kernel did not let go. True when something was wiped.
    async fn attempt(&self, begun: &mut Option<Devices>, deadline: Instant) -> Result<Look<bool>> {
        let work = self.work;
        let Some(devices) = self.devices(begun.as_ref(), deadline).await? else {
            if let Some(wiped) = &*begun {
                self.await_no_ghost(wiped).await?;
            }
            return Ok(Look::Done(begun.is_some()));
        };
        self.context.still_ours().await?;
        match self.call(&devices, work.zeroes).await {
            Ok(()) if work.partition.is_none() => {
                self.await_no_ghost(&devices).await?;
                self.await_wiped().await?;
            }
            Ok(()) => {
                self.await_wiped().await?;
                self.await_no_ghost(&devices).await?;
            }
            Err(error) if error.kind == Kind::Unavailable => self.lost(error).await?,
            Err(error) if !passes(&error, begun.is_some()) => return Err(error),
            Err(error) if work.zeroes => return Err(error.hint(UNSEEN)),
            Err(error) => {
                begun.get_or_insert(devices);
                return Ok(Look::not_yet(error.what));
            }
        }
        Ok(Look::Done(true))
    }

    /// What is to be wiped, if anything is left: the disk as the plan saw it or, once a wipe has `begun`, what is left of it.
    async fn devices(&self, begun: Option<&Devices>, deadline: Instant) -> Result<Option<Devices>> {
        let work = self.work;
        let no_more_than = |left: &Devices| begun.is_some_and(|all| left.iter().all(|one| all.contains(one)));
        let other = || {
            let what = format!("{}: {} holds something else by now", work.address, work.what);
            Error::refused(what).hint("run it again, to plan from what is there now")
        };
        let wait = Wait::new(
            format!("{} to be looked at", work.what),
            deadline.saturating_duration_since(Instant::now()),
            self.events,
        );
        let seen = wait.until(async || match look(work, &nodes::disks(&self.node).await?)? {
            Now::Wiped => Ok(Look::Done(None)),
            Now::Same(devices) => Ok(Look::Done(Some(devices))),
            Now::Other(left) if left.is_empty() => Ok(Look::not_yet("the node has not done so")),
            Now::Other(left) if no_more_than(&left) => Ok(Look::Done(Some(left))),
            Now::Other(_) => Err(other()),
        });
        seen.await.map_err(|late| late.or(|_, _| other()))
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
            late.or_hint("`nodeprep discover` shows what is seen on it; run it again", |what, last| {
                Error::failed(format!("{}: {what} was wiped, but is not seen as empty: {last}", work.address))
            })
        })
    }

    /// When the kernel does not let go of a partition that is taken out of its table, the node may go on showing it. The
    /// kernel looks again when somebody has written to the disk. So a disk that was to be wiped as a whole is wiped again,
    /// where nothing else is on it; the table of one that was to lose a partition is nobody's to write. That acts, so it
    /// goes by time, and not by news, which it makes itself.
    async fn await_no_ghost(&self, wiped: &Devices) -> Result<()> {
        let Self { node, work, within, events, .. } = self;
        let whole = work.partition.is_none();
        let patience = if whole { *within } else { LINGERS.min(*within) };
        let mut looks = 0;
        let what = format!("{} to be seen without the partition", work.what);
        let gone = Wait::new(what, patience, events).first_error_ends().until(async || {
            let Some(ghost) = ghost(work, wiped, &nodes::disks(node).await?) else {
                return Ok(Look::Done(()));
            };
            looks += 1;
            self.context.still_ours().await?;
            if whole
                && ghost.alone
                && looks % PATIENCE == 0
                && let Err(error) = self.call(&[(ghost.disk, false)], false).await
            {
                return Ok(Look::not_yet(error.what));
            }
            Ok(Look::not_yet("the node still shows it"))
        });
        match gone.await {
            Err(Late::Open { .. }) => {
                events.warn(format!("{}: the node shows the partition until it reboots", work.what));
                Ok(())
            }
            other => other.map_err(|late| late.or(|_, last| Error::failed(last))),
        }
    }

    /// A lost reply is settled by looking: what is wiped was wiped. What is as before was not, when it stays so: the node
    /// may be at it still, and tells of its disks a little later than they change.
    async fn lost(&self, error: Error) -> Result<()> {
        if self.work.zeroes || self.work.is_blind() {
            return Err(error.hint(UNSEEN));
        }
        self.events.warn("the reply to the wipe was lost; looking at the disk");
        let mut same = 0;
        let wait = Wait::new(format!("{} to be looked at", self.work.what), self.within, self.events).later();
        let wiped = wait.until(async || {
            let Ok(disks) = nodes::disks(&self.node).await else {
                return Ok(Look::not_yet("the node does not tell of its disks"));
            };
            same = match look(self.work, &disks)? {
                Now::Wiped => return Ok(Look::Done(true)),
                Now::Same(_) => same + 1,
                Now::Other(_) => 0,
            };
            Ok(if same == LOOKS { Look::Done(false) } else { Look::not_yet("it is not seen as wiped") })
        });
        match wiped.await {
            Ok(true) => Ok(()),
            Err(Late::Never(error)) => Err(error),
            Ok(false) | Err(_) => Err(error.hint(match same {
                0 => "a part of the disk was wiped, or all of it; it is not seen yet: run it again",
                _ => "the disk is as it was before the call; nothing was wiped: run it again",
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_a_refusal_passes_is_in_its_code_and_not_in_its_words() {
        let busy =
            || Error::failed("device or resource busy: failed to delete partition: partition 3 out of range");
        for (error, before, begun) in [
            (busy(), false, false),
            (Error::failed("another wording").code(Code::DeviceBusy).at("node a"), true, true),
            (Error::failed("another wording").code(Code::OutOfTable).hint("x"), false, true),
            (busy().code(Code::NeedsReboot), false, false),
        ] {
            assert_eq!((passes(&error, false), passes(&error, true)), (before, begun), "{error:?}");
        }
    }
}
