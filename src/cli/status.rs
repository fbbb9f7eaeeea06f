//! `status`: the journal of the last run.

use super::Global;
use crate::apply::{Entry, last_run};
use crate::error::Result;
use crate::report;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The journal's entries as JSON lines.
    #[arg(long)]
    json: bool,
}

pub fn run(global: &Global, args: &Args) -> Result<()> {
    let intent = global.intent()?;
    let entries = last_run(&global.state(&intent.metadata.name)?)?;
    if entries.is_empty() {
        report::stdout("No run yet.\n");
    }
    for entry in &entries {
        let line = if args.json { serde_json::to_string(entry).unwrap_or_default() } else { text(entry) };
        report::stdout(&format!("{line}\n"));
    }
    if !args.json && !entries.is_empty() && !matches!(entries.last(), Some(Entry::End { .. })) {
        report::stdout(
            "The run did not end: it is still going on, or it was killed. Run it again to converge.\n",
        );
    }
    Ok(())
}

fn text(entry: &Entry) -> String {
    match entry {
        Entry::Begin { at, verb, cluster, pid, plan, steps, .. } => {
            format!(
                "{at} {verb} of {cluster} (pid {pid}), steps: {}, plan {}",
                steps.len(),
                plan.get(..12).unwrap_or(plan)
            )
        }
        Entry::Started { at, id } => format!("{at} started {id}"),
        Entry::Done { at, id, changed: true } => format!("{at} done    {id}"),
        Entry::Done { at, id, changed: false } => format!("{at} same    {id}"),
        Entry::Failed { at, id, error } => format!("{at} failed  {id}: {error}"),
        Entry::End { at, ok, summary } => {
            format!("{at} {}: {summary}", if *ok { "ended well" } else { "ended" })
        }
    }
}
