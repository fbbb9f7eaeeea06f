//! What is done to one machine through the Talos API.

mod config;
mod install;
pub(super) mod quorum;
mod reboot;
pub(super) mod seen;
mod wipe;

pub use config::reboots;
pub use reboot::losses;

use super::RunContext;
use crate::error::Result;
use crate::event::Events;
use crate::plan::NodeAction;

pub(super) async fn carry_out(action: &NodeAction, context: &RunContext, events: &Events) -> Result<bool> {
    let (talos, volumes_within) = (context.talos()?, context.manner.deadlines.volumes.std());
    match action {
        NodeAction::Config(work) => config::apply_config(talos, work, context, events).await,
        NodeAction::Install(work) => install::install(talos, work, context, events).await,
        NodeAction::Wipe(work) => wipe::wipe(talos, work, context, events).await,
        NodeAction::AwaitVolumes { address, volumes } => {
            seen::await_volumes(talos, address, volumes, volumes_within, events).await.map(|()| false)
        }
        NodeAction::AwaitGone { address, volume } => {
            seen::await_gone(talos, address, volume, volumes_within, events).await.map(|()| false)
        }
    }
}
