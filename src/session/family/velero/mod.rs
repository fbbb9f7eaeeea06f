//! What Velero is asked to do. A backup or restore goes on when nodeprep does not: the next run of the same plan waits for the one
//! that is under way.

mod backup;
mod restore;

use indicatif::BinaryBytes;
use jiff::tz::TimeZone;
use tokio::time::Instant;

use super::RunContext;
use crate::cluster::Cluster;
use crate::error::Result;
use crate::event::Events;
use crate::judge::backup::VolumeProgress;
use crate::plan::VeleroAction;
use crate::session::outputs::StepRecord;

pub(super) async fn carry_out(
    action: &VeleroAction,
    context: &RunContext,
    record: &StepRecord<'_, '_>,
    events: &Events,
) -> Result<bool> {
    let cluster = context.cluster()?;
    let deadlines = &context.manner.deadlines;
    match action {
        VeleroAction::Backup(request) => backup::make(cluster, request, record, events).await,
        VeleroAction::Await(what) => {
            backup::done(cluster, what, record, deadlines.backup.std(), events).await
        }
        VeleroAction::Restore(request) => restore::make(cluster, request, record, events).await,
        VeleroAction::AwaitRestore(what) => {
            restore::done(cluster, what, record, deadlines.restore.std(), events).await
        }
    }
}

/// A name that tells when it was made, by the clock that Velero's times are of.
async fn name(cluster: &Cluster, prefix: &str) -> Result<String> {
    let now = cluster.time().await?.to_zoned(TimeZone::UTC);
    Ok(format!("{prefix}-{}", now.strftime("%Y%m%d%H%M%S")))
}

/// How fast the bytes go, to tell how long it still takes.
#[derive(Default)]
struct Rate(Option<(Instant, u64)>);

impl Rate {
    fn told(&mut self, phase: &str, volumes: VolumeProgress) -> String {
        let VolumeProgress { done, all, bytes_done, bytes } = volumes;
        if all == 0 {
            return phase.to_owned();
        }
        let (since, first) = *self.0.get_or_insert((Instant::now(), bytes_done));
        let (moved, seconds) = (bytes_done.saturating_sub(first), since.elapsed().as_secs());
        let left = bytes.saturating_sub(bytes_done);
        let left = match moved {
            0 => String::new(),
            moved => format!(", about {} s left", left.saturating_mul(seconds) / moved),
        };
        format!(
            "{phase}: {done} of {all} volumes, {} of {}{left}",
            BinaryBytes(bytes_done),
            BinaryBytes(bytes)
        )
    }
}
