//! `apply`: plan, confirm, carry out, prove.

use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::backup::BackupFirst;
use super::global::Output;
use super::plan::{PlanKey, confirm, make};
use super::store::{self, StoreFinding};
use super::{Global, validate};
use crate::error::{Error, Result};
use crate::intent::Intent;
use crate::plan::Saved;
use crate::s3::Depth;
use crate::session::{Manner, Parallel, Part, Planned, Session};
use crate::talos::client::Mode;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    rollout: Rollout,
    #[command(flatten)]
    backup_first: BackupFirst,
    /// Do not prove the storage afterwards.
    #[arg(long)]
    no_validate: bool,
}

/// How a plan is carried out.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Consent {
    /// Carry the plan out unasked.
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Carry out exactly the plan of this file, which `plan --out` wrote, or refuse because the world moved.
    #[arg(long, value_name = "FILE")]
    pub(super) plan: Option<PathBuf>,
    #[command(flatten)]
    pub(super) key: PlanKey,
    /// Take the cluster's lock over from a run on another machine that died.
    #[arg(long)]
    pub(super) take_over: bool,
}

/// How nodes have their turn.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Rollout {
    /// How machine configs are applied.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    mode: ApplyMode,
    /// So many workers at the same time, or such a part of them. Control planes have their turn one by one, before them.
    #[arg(long, value_name = "N|P%", default_value_t)]
    parallel: Parallel,
    /// When a node fails, go on with the other nodes; the cluster's own steps still wait for all of them.
    #[arg(long)]
    keep_going: bool,
    /// What pods keep in an emptyDir may be lost when a node is drained before it reboots.
    #[arg(long)]
    delete_emptydir_data: bool,
}

/// How machine configs are applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ApplyMode {
    /// At once; refused when that would reboot a node.
    #[default]
    NoReboot,
    /// At once; nodes reboot where they must.
    Auto,
    /// At the nodes' next boot.
    Staged,
    /// At once, and kept only when everything that is asked for is there; else the node takes it back.
    Try,
}

impl From<ApplyMode> for Mode {
    fn from(way: ApplyMode) -> Self {
        match way {
            ApplyMode::NoReboot => Self::NoReboot,
            ApplyMode::Auto => Self::Auto,
            ApplyMode::Staged => Self::Staged,
            ApplyMode::Try => Self::Try,
        }
    }
}

impl Rollout {
    fn manner(&self, intent: &Intent, consent: &Consent) -> Manner {
        Manner {
            mode: self.mode.into(),
            parallel: self.parallel,
            keep_going: self.keep_going,
            delete_emptydir_data: self.delete_emptydir_data,
            take_over: consent.take_over,
            deadlines: intent.deadlines.clone(),
        }
    }
}

pub(super) async fn run(global: &Global, args: &Args) -> Result<()> {
    let intent = global.intent()?;
    args.backup_first.carry_out(global, args.consent.take_over).await?;
    let session = open(global, &intent.metadata.name, "apply", super::interrupted(global.events()))?;
    carry_out(global, &intent, &session, Part::All, &args.consent, &args.rollout).await?;
    // What is staged does not exist yet.
    if args.no_validate || args.rollout.mode == ApplyMode::Staged {
        return Ok(());
    }
    prove(global, &intent, &session, args.output).await
}

/// A session on the cluster of this name.
pub(super) fn open(
    global: &Global,
    cluster: &str,
    verb: &'static str,
    interrupted: watch::Receiver<bool>,
) -> Result<Session> {
    Session::open(verb, cluster, global.state(cluster)?, global.events(), interrupted)
}

/// The storage and its backup are proven, where there is any.
async fn prove(global: &Global, intent: &Intent, session: &Session, output: Output) -> Result<()> {
    if intent.classes.is_empty() && intent.backup.is_none() {
        return Ok(());
    }
    validate::checked(global, intent, session, &validate::Selection::default(), output).await
}

/// What follows a bootstrap: everything else that the file asks for.
pub(super) async fn all(
    global: &Global,
    intent: &Intent,
    consent: &Consent,
    no_validate: bool,
    output: Output,
    interrupted: watch::Receiver<bool>,
) -> Result<()> {
    let session = open(global, &intent.metadata.name, "apply", interrupted)?;
    carry_out(global, intent, &session, Part::All, consent, &Rollout::default()).await?;
    if no_validate { Ok(()) } else { prove(global, intent, &session, output).await }
}

/// Plans one part, and carries it out.
pub(super) async fn carry_out(
    global: &Global,
    intent: &Intent,
    session: &Session,
    part: Part,
    consent: &Consent,
    rollout: &Rollout,
) -> Result<()> {
    let reviewed = consent.plan.as_deref().map(read_plan).transpose()?;
    let key = consent.key.read("--plan", consent.plan.as_deref())?;
    let make = async |connected| make(global, intent, part, connected).await;
    let agree = async |planned: &Planned| {
        if let Some(reviewed) = &reviewed {
            reviewed.same(&match &key {
                Some(key) => Saved::of(session.cluster(), &planned.plan, key),
                None => session.saved(&planned.plan),
            })?;
        }
        confirm(global, &intent.metadata.name, &planned.plan, consent.yes || reviewed.is_some())?;
        if !planned.plan.steps.is_empty() && !planned.plan.simulated {
            for found in store::ask(global, intent, &global.stack_secrets(intent)?, Depth::Write).await {
                if let StoreFinding::Warning(warning) = found {
                    session.events().warn(warning);
                }
            }
        }
        Ok(!consent.yes)
    };
    session.carry_out(&rollout.manner(intent, consent), make, agree).await
}

fn read_plan(path: &Path) -> Result<Saved> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::invalid(format!("can't read the plan {name}: {e}")))?;
    Saved::parse(&name, &text)
}
