//! `wipe`: a disk, or a leftover volume's partition, by the token that names its serial.

use super::Global;
use super::discover::targets;
use super::global::observe;
use super::plan::confirm;
use crate::apply::{self, Journal, Lock, Parallel, World};
use crate::error::{Error, Kind, Result};
use crate::intent::Deadlines;
use crate::plan::wipe::{Asked, Wipe, find, plan};
use crate::plan::{Plan, Saved};
use crate::talos::client::Mode;
use crate::{report, talos};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A disk by its name of today, such as nvme1n1, of the one node that --nodes names.
    #[arg(long, value_name = "NAME", conflicts_with = "volume")]
    disk: Vec<String>,
    /// The partitions of a volume that the nodes' configs do not ask for, such as a former cluster's.
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
    #[command(flatten)]
    tokens: Tokens,
    /// Overwrite every byte, which takes hours, instead of signatures and partition tables.
    #[arg(long)]
    zeroes: bool,
    /// Carry the plan out unasked; it is no token.
    #[arg(short, long)]
    yes: bool,
}

/// What allows disks to be wiped.
#[derive(Debug, clap::Args)]
pub struct Tokens {
    /// The serial (or WWID) of a disk that may be wiped; without it, it is to be typed.
    #[arg(long = "wipe-disk", value_name = "SERIAL")]
    wipe_disk: Vec<String>,
}

pub async fn run(global: &Global, args: &Args) -> Result<()> {
    let tokens = &args.tokens.wipe_disk;
    if args.disk.is_empty() && args.volume.is_none() && tokens.is_empty() {
        return Err(Error::invalid("nothing is named that is to be wiped")
            .hint("--wipe-disk SERIAL names a disk; `nodeprep discover` shows the serials"));
    }
    carry_out(global, "wipe", args.yes, async |client, addresses| {
        let nodes = observe(client, addresses).await?;
        let asked = Asked { disks: &args.disk, volume: args.volume.as_deref(), tokens, zeroes: args.zeroes };
        let found = find(&nodes, asked)?;
        let tokens = args.tokens.with_typed(&found.wipes)?;
        let simulated = nodes.iter().any(crate::observe::nodes::Node::simulated);
        Ok(Plan { simulated, ..plan(found, &tokens)? })
    })
    .await
}

impl Tokens {
    /// The tokens given, and those that are typed now where somebody is there to type.
    pub(super) fn with_typed(&self, wipes: &[Wipe]) -> Result<Vec<String>> {
        let mut tokens = self.wipe_disk.clone();
        let somebody = report::somebody();
        for wipe in wipes.iter().filter(|wipe| !self.wipe_disk.contains(&wipe.token)) {
            if somebody {
                tokens.push(typed(&told(wipe), &wipe.token)?);
            }
        }
        Ok(tokens)
    }
}

fn told(wipe: &Wipe) -> String {
    let part = wipe.partition.as_ref().map(|label| format!("partition {label} of ")).unwrap_or_default();
    format!(
        "{}: {part}{} is to be wiped; the disk holds {}. Nothing of it can be brought back.",
        wipe.address, wipe.what, wipe.contents
    )
}

/// Asks for the serial; another word is as good as none.
pub(super) fn typed(told: &str, token: &str) -> Result<String> {
    report::stderr(&format!("{told}\n"));
    let answer = dialoguer::Input::<String>::new()
        .with_prompt("Type its serial if all of it may be lost, or nothing to stop")
        .allow_empty(true)
        .interact_text();
    match answer {
        Ok(text) if text.trim() == token => Ok(token.to_owned()),
        Ok(_) => Err(Error::refused("that is not its serial; nothing was changed")),
        Err(e) => Err(Error::new(Kind::Interrupted, format!("no answer ({e}); nothing was changed"))),
    }
}

/// Plans by a function and carries the plan out under the lock.
pub(super) async fn carry_out(
    global: &Global,
    verb: &str,
    yes: bool,
    make: impl AsyncFnOnce(&talos::Client, &[String]) -> Result<Plan>,
) -> Result<()> {
    let (cluster, deadlines) = if global.file.exists() {
        let intent = global.intent()?;
        (intent.metadata.name, intent.deadlines)
    } else {
        (global.talos_context()?.name, Deadlines::default())
    };
    let (client, addresses) = targets(global)?;
    let state = global.state(&cluster)?;
    let _lock = Lock::take(&state, verb)?;
    let plan = make(&client, &addresses).await?;
    confirm(&plan, yes, global.verbose)?;
    if plan.steps.is_empty() {
        return Ok(());
    }
    let key = state.key()?;
    let mut journal = Journal::begin(&state, verb, Saved::of(&cluster, &plan, &key), &key)?;
    let world = World {
        talos: Some(client),
        cluster: None,
        mode: Mode::NoReboot,
        lease: None,
        parallel: Parallel::Nodes(1),
        keep_going: false,
        delete_emptydir_data: false,
        deadlines,
    };
    apply::run(verb, &plan, &world, &global.events(), &mut journal, super::interrupted()).await
}
