//! `cleanup`: removes what tests left in the cluster.

use super::Global;
use crate::check;
use crate::error::Result;
use crate::report;

#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(global: &Global, _args: &Args) -> Result<()> {
    let state = global.state(&global.intent()?.metadata.name)?;
    let cluster = global.cluster().await?;
    let cleaned = check::cleanup(&cluster, state.dir(), &global.events()).await?;
    if cleaned.namespaces.is_empty() {
        report::stdout("Nothing was left.\n");
    }
    for namespace in cleaned.namespaces {
        report::stdout(&format!("removed namespace {namespace} and what was in it\n"));
    }
    Ok(())
}
