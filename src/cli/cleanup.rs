//! `cleanup`: removes what tests left in the cluster.

use jiff::Timestamp;

use super::Global;
use super::apply::open;
use crate::check::{self, Cleaned};
use crate::error::Result;
use crate::report;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(global: &Global, _args: &Args) -> Result<()> {
    let intent = global.intent()?;
    // A run that still goes on holds the lock, and removes its own.
    let session = open(global, &intent.metadata.name, "cleanup", super::interrupted(global.events()))?;
    let cluster = global.reach().cluster().await?;
    let cleaned = check::cleanup(&cluster, session.state().dir(), Timestamp::now(), session.events()).await?;
    if cleaned == Cleaned::default() {
        report::stdout("Nothing was left.\n");
    }
    told(&cleaned);
    Ok(())
}

/// Says what was removed, and what may be of a run that goes on elsewhere.
pub(super) fn told(cleaned: &Cleaned) {
    for namespace in &cleaned.namespaces {
        report::stdout(&format!("removed namespace {namespace} and what was in it\n"));
    }
    for (namespace, expires) in &cleaned.alive {
        report::stdout(&format!(
            "left namespace {namespace}: a run of another machine may still use it; it is removed after {expires}\n"
        ));
    }
}
