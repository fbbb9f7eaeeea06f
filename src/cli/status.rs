//! `status`: the journal of the last run.

use super::Global;
use crate::error::Result;
use crate::report;
use crate::session::{CutOff, Entry, Lock, cut_offs, last_run};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The journal's entries as JSON lines.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<()> {
    let intent = global.intent()?;
    let state = global.state(&intent.metadata.name)?;
    let entries = last_run(&state)?;
    if entries.is_empty() {
        report::stdout("No run yet.\n");
    }
    for entry in &entries {
        let line = if args.json { serde_json::to_string(entry).unwrap_or_default() } else { text(entry) };
        report::stdout(&format!("{line}\n"));
    }
    if args.json {
        return Ok(());
    }
    let last = CutOff::of(&entries);
    for cut in cut_offs(&state)?.iter().skip(usize::from(last.is_some())) {
        report::stdout(&format!(
            "Before it, {cut}. `nodeprep {}` goes on from there, `nodeprep abort` gives it up.\n",
            cut.verb
        ));
    }
    if let Some(cut) = last {
        let what = match (&cut.proving, Lock::is_held(&state)) {
            (_, true) => "The run is still going on.",
            (None, false) => {
                "The run did not end: it was killed. Run it again to converge, or `nodeprep abort` gives it up."
            }
            (Some(_), false) => {
                "The run did not end: it was killed while the storage was proven, and nothing of it is. `nodeprep abort` \
                 removes what it left, and `nodeprep validate` proves it."
            }
        };
        report::stdout(&format!("{what}\n"));
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
        Entry::Output { at, id, name, value } => format!("{at} noted   {id}: {name} {value}"),
        Entry::Proving { at, run } => format!("{at} proving (run {run})"),
        Entry::Judged { at, check, subject, verdict, why } => {
            let why = if why.is_empty() { String::new() } else { format!(": {why}") };
            format!("{at} {verdict:<7} {check} {subject}{why}")
        }
        Entry::End { at, ok, summary } => {
            format!("{at} {}: {summary}", if *ok { "ended well" } else { "ended" })
        }
    }
}
