//! `validate`: the checks, against what is there now.

use jiff::Timestamp;

use super::Global;
use super::global::Output;
use crate::check;
use crate::error::Result;
use crate::intent::Intent;
use crate::report;
use crate::stack;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Debug, Default, clap::Args)]
pub struct Selection {
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

pub async fn run(global: &Global, args: &Args) -> Result<()> {
    let intent = global.intent()?;
    checked(global, &intent, &args.selection, args.output, super::interrupted()).await
}

/// Runs the checks, prints the verdicts, and fails unless something passed and nothing failed.
pub(super) async fn checked(
    global: &Global,
    intent: &Intent,
    selection: &Selection,
    output: Output,
    interrupted: tokio::sync::watch::Receiver<bool>,
) -> Result<()> {
    let now = Timestamp::now();
    let context = check::Context {
        intent: intent.clone(),
        cluster: global.cluster().await?,
        events: global.events(),
        run_id: run_id(now),
        now,
        password: global.stack_secrets(intent).map(|secrets| stack::repository_password(&secrets).cloned()),
        state: global.state(&intent.metadata.name)?.dir().to_owned(),
    };
    let outcome = check::run(&context, &selection.only, &selection.skip, interrupted).await?;
    match output {
        Output::Table => report::stdout(&report::verdicts_table(&outcome)),
        Output::Json => {
            report::stdout(&format!("{:#}\n", report::verdicts_json(&intent.metadata.name, &outcome)));
        }
    }
    outcome.passed(&selection.only, selection.strict)
}

/// Names a run's test objects: the second it began and the process.
fn run_id(now: Timestamp) -> String {
    format!("{:x}-{:x}", now.as_second(), std::process::id())
}
