//! `drill`: proves that backups restore.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Global;
use super::apply::open;
use super::backup::going_to;
use super::plan::agree;
use crate::error::{Error, Result};
use crate::intent::{Duration, Intent};
use crate::plan::drill::DrillAsked;
use crate::session::{Manner, plan_drill};
use crate::stack::drill::Amount;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The StorageClass whose volumes are tried [default: the first class of the file].
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
    /// The location of the file that the backup goes to [default: the file's `backup.location`].
    #[arg(long, value_name = "NAME")]
    location: Option<String>,
    /// 20,000 files with 1 GiB, in place of 500 with 64 MiB.
    #[arg(long)]
    full: bool,
    /// Take the cluster's lock over from a run on another machine that died.
    #[arg(long)]
    take_over: bool,
}

/// What takes longer with so few files hangs, whatever time the file gives to real ones.
const LONGEST: Duration = Duration(30 * 60);
const LONGEST_FULL: Duration = Duration(2 * 3600);

pub(super) async fn run(global: &Global, args: &Args) -> Result<()> {
    let intent = global.intent()?;
    let backup = intent.backup.as_ref().ok_or_else(|| {
        Error::invalid(format!("{} asks for no backup, so there is nothing to prove", global.file.display()))
            .hint("add `backup` with a location, and install it with `nodeprep apply`")
    })?;
    let backup = going_to(backup, args.location.as_deref())?;
    let asked = asked(&intent, args)?;
    let session = open(global, &intent.metadata.name, "drill", super::interrupted(global.events()))?;
    let mut deadlines = intent.deadlines.clone();
    let most = if args.full { LONGEST_FULL } else { LONGEST };
    deadlines.backup = deadlines.backup.min(most);
    deadlines.restore = deadlines.restore.min(most);
    let manner = Manner { take_over: args.take_over, deadlines, ..Manner::default() };
    let make = async |connected| plan_drill(&global.reach(), &backup, &asked, connected).await;
    // What it destroys it has made itself: nobody is asked.
    session.carry_out(&manner, make, agree(global, &session, true)).await
}

fn asked(intent: &Intent, args: &Args) -> Result<DrillAsked> {
    let first = intent.classes.first().map(|class| class.name.clone());
    let class = args.class.clone().or(first).ok_or_else(|| {
        Error::invalid("the file has no class whose volumes could be tried")
            .hint("--class names one of the cluster")
    })?;
    let begun = Timestamp::now();
    let id = begun.to_zoned(TimeZone::UTC).strftime("drill-%Y%m%d%H%M%S").to_string();
    let drill = intent.backup.as_ref().and_then(|backup| backup.drill.clone());
    Ok(DrillAsked {
        id,
        begun,
        class,
        amount: if args.full { Amount::FULL } else { Amount::QUICK },
        image: intent.images.shell.clone(),
        tolerations: Vec::new(),
        rto: drill.as_ref().and_then(|drill| drill.rto),
        rpo: drill.as_ref().and_then(|drill| drill.rpo),
    })
}
