//! `validate`: the checks, against what exists now.

use jiff::Timestamp;

use super::Global;
use super::apply::open;
use super::global::Output;
use crate::check;
use crate::error::Result;
use crate::event::{CheckResult, Verdict};
use crate::intent::Intent;
use crate::report;
use crate::session::{RunRecord, Session};
use crate::stack;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Debug, Default, clap::Args)]
pub(super) struct Selection {
    /// Only these checks, by id.
    #[arg(long, value_delimiter = ',', value_name = "CHECK")]
    only: Vec<String>,
    /// Not these checks, by id.
    #[arg(long, value_delimiter = ',', value_name = "CHECK")]
    skip: Vec<String>,
    /// Warnings count as failures.
    #[arg(long)]
    strict: bool,
}

pub(super) async fn run(global: &Global, args: &Args) -> Result<()> {
    let intent = global.intent()?;
    let session = open(global, &intent.metadata.name, "validate", super::interrupted(global.events()))?;
    checked(global, &intent, &session, &args.selection, args.output).await
}

/// Runs the checks, prints the verdicts, and fails unless something passed and nothing failed.
pub(super) async fn checked(
    global: &Global,
    intent: &Intent,
    session: &Session,
    selection: &Selection,
    output: Output,
) -> Result<()> {
    let (now, state) = (Timestamp::now(), session.state());
    super::may_leave(state.dir());
    let reach = global.reach();
    let cluster = reach.cluster().await?;
    let members = reach.members(&intent.addresses(), &cluster).await?;
    let context = check::Context {
        intent: intent.clone(),
        cluster,
        scope: global.nodes.clone(),
        names: members.into_iter().map(|(address, member)| (address, member.name)).collect(),
        events: session.events().clone(),
        run_id: run_id(now),
        now,
        password: global.stack_secrets(intent).map(|secrets| stack::repository_password(&secrets).cloned()),
        state: state.dir().to_owned(),
    };
    let mut record = session.proving(&context.run_id)?;
    let judged = check::run(&context, &selection.only, &selection.skip, session.interrupted()).await;
    let passed = judged.as_ref().map_err(Clone::clone).and_then(|outcome| {
        keep(&mut record, outcome)?;
        outcome.passed(&selection.only, selection.strict)
    });
    record.end(passed.is_ok(), &ending(&judged, &passed))?;
    let outcome = judged?;
    match output {
        Output::Table => report::stdout(&report::verdicts_table(&outcome)),
        Output::Json => {
            report::stdout(&format!("{:#}\n", report::verdicts_json(&intent.metadata.name, &outcome)));
        }
    }
    passed
}

/// Each verdict is on record.
fn keep(record: &mut RunRecord, outcome: &check::Outcome) -> Result<()> {
    for result in &outcome.results {
        let (verdict, why) = match &result.verdict {
            Verdict::Pass { .. } => ("pass", ""),
            Verdict::Warn { why, .. } => ("warn", why.as_str()),
            Verdict::Fail { why, .. } => ("fail", why.as_str()),
            Verdict::Skip { why } => ("skip", why.as_str()),
        };
        record.journal.judged(&result.id, &result.subject.to_string(), verdict, why)?;
    }
    for unrun in &outcome.errors {
        record.journal.judged(&unrun.id, &unrun.subject.to_string(), "error", &unrun.error.what)?;
    }
    Ok(())
}

fn ending(judged: &Result<check::Outcome>, passed: &Result<()>) -> String {
    match (judged, passed) {
        (_, Err(error)) => format!("validate: {}", error.what),
        (Ok(outcome), Ok(())) => {
            let passed =
                |result: &&CheckResult| matches!(result.verdict, Verdict::Pass { .. } | Verdict::Warn { .. });
            format!("validate: {} checks passed", outcome.results.iter().filter(passed).count())
        }
        (Err(error), Ok(())) => format!("validate: {}", error.what),
    }
}

/// Names a run's test objects: the second it began and the process.
fn run_id(now: Timestamp) -> String {
    format!("{:x}-{:x}", now.as_second(), std::process::id())
}
