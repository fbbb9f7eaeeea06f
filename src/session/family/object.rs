//! What is done to one object of the cluster.

use super::RunContext;
use crate::cluster::Outcome;
use crate::error::Result;
use crate::event::Events;
use crate::plan::ObjectAction;

pub(super) async fn carry_out(action: &ObjectAction, context: &RunContext, events: &Events) -> Result<bool> {
    let cluster = context.cluster()?;
    match action {
        ObjectAction::Apply(object) => {
            let applied = cluster.send(object, false).await?;
            Ok(applied.outcome() != Outcome::Unchanged)
        }
        ObjectAction::Delete(gone) => {
            cluster.remove(gone, events, context.manner.deadlines.workloads.std()).await
        }
    }
}
