//! `plan`: what apply would change; nothing is changed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::Global;
use super::global::Output;
use super::store::{self, StoreFinding};
use crate::error::{Error, Kind, Result, both};
use crate::event::EventKind;
use crate::intent::Intent;
use crate::plan::{Action, Key, NodeAction, Passphrases, Plan, Saved, shared_key};
use crate::report::{self, Progress};
use crate::s3::Depth;
use crate::session::{self, ApplyRequest, Part, Planned, Reached, Session};
use crate::state;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Exit with 4 when there is something to change.
    #[arg(long)]
    exit_code: bool,
    /// Keep the plan in this file, for `apply --plan`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    key: PlanKey,
}

/// What a kept plan is recognised by.
#[derive(Debug, Default, clap::Args)]
pub(super) struct PlanKey {
    /// The plan is compared by the key in this file, which has 32 bytes or more, so that it may be made on one machine and carried
    /// out on another; else by a key of this machine. Who has both files can try guesses of the secrets in the plan.
    #[arg(long, value_name = "FILE")]
    plan_key: Option<PathBuf>,
}

impl PlanKey {
    /// The key in the file; None where none is named. It goes with the option that names the plan's file.
    pub(super) fn read(&self, with: &str, plan: Option<&Path>) -> Result<Option<Key>> {
        if self.plan_key.is_some() && plan.is_none() {
            return Err(Error::invalid(format!("--plan-key is for a plan in a file: it goes with {with}")));
        }
        let read = |path: &PathBuf| {
            let name = path.display().to_string();
            let bytes = std::fs::read(path)
                .map_err(|e| Error::invalid(format!("can't read the plan's key {name}: {e}")))?;
            shared_key(&name, &bytes)
        };
        self.plan_key.as_ref().map(read).transpose()
    }
}

pub(super) async fn run(global: &Global, args: &Args) -> Result<ExitCode> {
    let key = args.key.read("--out", args.out.as_deref())?;
    let intent = global.intent()?;
    let planned = make(global, &intent, Part::All, None).await?;
    if let Some(path) = &args.out {
        let key = key.map_or_else(|| global.state(&intent.metadata.name)?.key(), Ok)?;
        let saved = serde_json::to_vec_pretty(&Saved::of(&intent.metadata.name, &planned.plan, &key));
        let text = saved.map_err(|error| Error::failed(format!("the plan can't be written: {error}")))?;
        state::write_private(path, &text)?;
    }
    match args.output {
        Output::Table => report::stdout(&report::plan_text(&planned.plan, global.verbose)),
        Output::Json => {
            report::stdout(&format!("{:#}\n", report::plan_json(&intent.metadata.name, &planned.plan)))
        }
    }
    let plan = &planned.plan;
    // A volume that does not get ready is pending, though there is nothing to change.
    let waits =
        plan.steps.iter().any(|step| matches!(step.action, Action::Node(NodeAction::AwaitVolumes { .. })));
    let pending = args.exit_code && (waits || !plan.is_empty());
    Ok(ExitCode::from(if pending { Kind::Pending.exit_code() } else { 0 }))
}

/// Reads the world and plans; secrets are decrypted first, so that a wrong key stops everything early.
/// A cluster that is connected already is taken as it is.
pub(super) async fn make(
    global: &Global,
    intent: &Intent,
    part: Part,
    connected: Option<Reached>,
) -> Result<Planned> {
    let passphrases = if part == Part::All { global.passphrases(intent) } else { Ok(Passphrases::new()) };
    let (secrets, passphrases) = both(global.stack_secrets(intent), passphrases)?;
    let addresses = if part == Part::All { global.addresses(intent)? } else { Vec::new() };
    let asked =
        ApplyRequest { intent, part, addresses: &addresses, secrets: &secrets, passphrases: &passphrases };
    let what = if part == Part::All { "reading the nodes and the cluster" } else { "reading the cluster" };
    let busy = report::busy(global.progress, what);
    let mut planned = session::plan(&global.reach(), &asked, connected).await?;
    drop(busy);
    if !planned.plan.simulated {
        for found in store::ask(global, intent, &secrets, Depth::List).await {
            match found {
                StoreFinding::Nothing => {}
                StoreFinding::NotAsked(skipped) => planned.plan.skipped.push(skipped),
                StoreFinding::Warning(warning) => planned.plan.warnings.push(warning),
            }
        }
    }
    Ok(planned)
}

/// Asks before a plan is carried out; `--yes` answers, and without a terminal it is required.
pub(super) fn confirm(global: &Global, cluster: &str, plan: &Plan, yes: bool) -> Result<()> {
    let text = report::plan_text(plan, global.verbose);
    // Nobody is asked about what was not shown.
    if !yes && global.progress == Progress::None {
        report::stderr(&text);
    }
    global.events().send(EventKind::Planned { text, plan: report::plan_json(cluster, plan) });
    if yes || plan.is_empty() {
        return Ok(());
    }
    if !report::somebody() {
        return Err(
            Error::invalid("there is nobody to confirm the plan").hint("add --yes to carry it out unasked")
        );
    }
    let agreed = dialoguer::Confirm::new()
        .with_prompt("Carry this out?")
        .default(false)
        .wait_for_newline(true)
        .interact();
    match agreed {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::new(Kind::Interrupted, "not confirmed; nothing was changed")),
        Err(e) => Err(Error::new(Kind::Interrupted, format!("no answer ({e}); nothing was changed"))),
    }
}

/// Asks before the plan is carried out, unless `yes` answers.
pub(super) fn agree(
    global: &Global,
    session: &Session,
    yes: bool,
) -> impl AsyncFnOnce(&Planned) -> Result<bool> {
    async move |planned: &Planned| {
        confirm(global, session.cluster(), &planned.plan, yes)?;
        Ok(!yes)
    }
}
