//! `wipe`: a disk, or a leftover volume's partition, by the token that names its serial.

use std::cell::RefCell;

use jiff::Timestamp;

use super::Global;
use super::backup::BackupFirst;
use super::discover::targets;
use super::plan::agree;
use crate::error::{Error, Kind, Result};
use crate::model::node::Node;
use crate::observe::nodes::observe_answering;
use crate::plan::wipe::{Wipe, WipeRequest, find, plan};
use crate::plan::{Deadlines, Plan};
use crate::report;
use crate::session::{Manner, Parallel, Planned, Reached, Session};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A disk by its name of today, such as nvme1n1, of the one node that --nodes names.
    #[arg(long, value_name = "NAME", conflicts_with = "volume")]
    disk: Vec<String>,
    /// The partitions of a volume that the nodes' configs do not ask for, such as a former cluster's.
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
    #[command(flatten)]
    tokens: Tokens,
    #[command(flatten)]
    backup_first: BackupFirst,
    /// Overwrite every byte, which takes hours, instead of signatures and partition tables.
    #[arg(long)]
    zeroes: bool,
    /// Carry the plan out unasked; it is no token.
    #[arg(short, long)]
    yes: bool,
    /// Take the cluster's lock over from a run on another machine that died.
    #[arg(long)]
    take_over: bool,
}

/// What allows disks to be wiped.
#[derive(Debug, clap::Args)]
pub(super) struct Tokens {
    /// The serial (or WWID) of a disk that may be wiped; without it, it is to be typed.
    #[arg(long = "wipe-disk", value_name = "SERIAL")]
    wipe_disk: Vec<String>,
}

pub(super) async fn run(global: &Global, args: &Args) -> Result<()> {
    let tokens = &args.tokens.wipe_disk;
    if args.disk.is_empty() && args.volume.is_none() && tokens.is_empty() {
        return Err(Error::invalid("nothing is named that is to be wiped")
            .hint("--wipe-disk SERIAL names a disk; `nodeprep discover` shows the serials"));
    }
    args.backup_first.carry_out(global, args.take_over).await?;
    let (session, manner) = open(global, "wipe", args.take_over)?;
    let (reach, typed) = (global.reach(), args.tokens.typed());
    let make = async |connected: Option<Reached>| {
        let (client, addresses) = targets(global)?;
        let nodes = observe_answering(&client, &addresses, Timestamp::now()).await?;
        let cluster = match connected {
            Some(cluster) => cluster,
            None => reach.cluster_of(&client, &nodes).await?,
        };
        let asked =
            WipeRequest { disks: &args.disk, volume: args.volume.as_deref(), tokens, zeroes: args.zeroes };
        let found = find(&nodes, asked)?;
        let tokens = typed.for_wipes(&found.wipes)?;
        let simulated = nodes.iter().any(Node::simulated);
        let plan = Plan { simulated, ..plan(found, &tokens)? };
        Ok(Planned::new(plan, Some(client), cluster, nodes))
    };
    session.carry_out(&manner, make, agree(global, &session, args.yes)).await
}

impl Tokens {
    /// The tokens given, and those that are typed where somebody is there to type.
    pub(super) fn typed(&self) -> Typed {
        Typed::beside(&self.wipe_disk)
    }
}

/// Tokens, with those that were typed: nobody is asked for one twice.
#[derive(Debug)]
pub(super) struct Typed(RefCell<Vec<String>>);

impl Typed {
    pub(super) fn beside(given: &[String]) -> Self {
        Self(RefCell::new(given.to_vec()))
    }

    /// All of them, once the wanted ones that are missing, each with what it is about, were asked for.
    pub(super) fn with(&self, wanted: impl IntoIterator<Item = (String, String)>) -> Result<Vec<String>> {
        let mut tokens = self.0.borrow_mut();
        for (token, about) in wanted {
            if report::somebody() && !tokens.contains(&token) {
                tokens.push(ask(&about, &token)?);
            }
        }
        Ok(tokens.clone())
    }

    pub(super) fn for_wipes(&self, wipes: &[Wipe]) -> Result<Vec<String>> {
        self.with(wipes.iter().map(|wipe| (wipe.token.clone(), told(wipe))))
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
fn ask(about: &str, token: &str) -> Result<String> {
    report::stderr(&format!("{about}\n"));
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

/// A session on the file's cluster or, without a file, on that of the talosconfig; and how its plans are carried out.
pub(super) fn open(global: &Global, verb: &'static str, take_over: bool) -> Result<(Session, Manner)> {
    let (cluster, deadlines) = if global.file.exists() {
        let intent = global.intent()?;
        (intent.metadata.name, intent.deadlines)
    } else {
        (global.reach().talos_context()?.name, Deadlines::default())
    };
    let interrupted = super::interrupted(global.events());
    let session = super::apply::open(global, &cluster, verb, interrupted)?;
    Ok((session, Manner { parallel: Parallel::Nodes(1), take_over, deadlines, ..Manner::default() }))
}
