//! `abort`: gives up the runs that were cut off, cleanly.

use jiff::Timestamp;

use super::Global;
use super::apply::open;
use super::cleanup::told;
use crate::check;
use crate::error::Result;
use crate::report;
use crate::session::cut_offs;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(global: &Global, _args: &Args) -> Result<()> {
    let intent = global.intent()?;
    // A run that still goes on holds the lock.
    let session = open(global, &intent.metadata.name, "abort", super::interrupted(global.events()))?;
    let left = check::left(session.state().dir())?;
    if cut_offs(session.state())?.is_empty() {
        let also = match left.is_empty() {
            true => String::new(),
            false => {
                format!(" Test objects are left in {}: `nodeprep cleanup` removes them.", left.join(", "))
            }
        };
        report::stdout(&format!("Nothing to give up: the last run ended, or there was none.{also}\n"));
        return Ok(());
    }
    let cluster = match global.reach().cluster().await {
        Ok(cluster) => {
            told(&check::cleanup(&cluster, session.state().dir(), Timestamp::now(), session.events()).await?);
            Some(cluster)
        }
        Err(error) => {
            session.events().warn(format!("the cluster was left as it is: {}", error.what));
            None
        }
    };
    for cut in session.abort(cluster.as_ref()).await? {
        report::stdout(&format!("given up: {cut}\n"));
    }
    report::stdout("What was done stays done; `nodeprep plan` shows what is missing.\n");
    Ok(())
}
