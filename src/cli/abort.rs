//! `abort`: gives up a run that was cut off, cleanly.

use super::Global;
use crate::apply::{CutOff, Holder, Journal, Lock, give_up, last_run};
use crate::check;
use crate::error::Result;
use crate::report;

#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(global: &Global, _args: &Args) -> Result<()> {
    let state = global.state(&global.intent()?.metadata.name)?;
    // A run that still goes on holds it.
    let _lock = Lock::take(&state, "abort")?;
    let Some(cut) = CutOff::of(&last_run(&state)?) else {
        let left = check::left(state.dir())?;
        let also = match left.is_empty() {
            true => String::new(),
            false => {
                format!(" Test objects are left in {}: `nodeprep cleanup` removes them.", left.join(", "))
            }
        };
        report::stdout(&format!("Nothing to give up: the last run ended, or there was none.{also}\n"));
        return Ok(());
    };
    report::stdout(&format!("{cut}\n"));
    match global.cluster().await {
        Ok(cluster) => {
            for namespace in check::cleanup(&cluster, state.dir(), &global.events()).await?.namespaces {
                report::stdout(&format!("removed namespace {namespace} and what was in it\n"));
            }
            if give_up(&cluster, &Holder::this("abort", state.dir())).await? {
                report::stdout("released the cluster's lock\n");
            }
        }
        Err(error) => report::stderr(&format!("the cluster was left as it is: {}\n", error.what)),
    }
    Journal::reopen(&state)?.end(false, &format!("given up: {cut}"))?;
    report::stdout("Given up. What was done stays done; `nodeprep plan` shows what is missing.\n");
    Ok(())
}
