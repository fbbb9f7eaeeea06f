//! `backup`: asks Velero for a backup and sees that every claim is in it; and what backups there are.

mod coverage;
mod list;

use super::Global;
use super::apply::open;
use super::global::Output;
use super::plan::agree;
use crate::error::{Error, Result};
use crate::intent::{Backup as Asked, Duration, Intent, kept};
use crate::judge::coverage::Scope;
use crate::session::{Manner, plan_backup};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// How long the backup is kept, such as 720h.
    #[arg(long, value_name = "TIME", default_value = "720h", value_parser = kept)]
    ttl: Duration,
    /// The location of the file that it goes to [default: the file's `backup.location`].
    #[arg(long, value_name = "NAME")]
    location: Option<String>,
    /// Take the cluster's lock over from a run on another machine that died.
    #[arg(long)]
    take_over: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// The backups in the file's locations, the newest first.
    List {
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// What one backup holds: which claims, how many bytes, since when, where; and what it lacks.
    Describe {
        name: String,
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Every claim of the cluster: the last good backup that holds its files, or why none does. Exit 3 while one is uncovered.
    Coverage {
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct ScopeArgs {
    /// Everything in the cluster.
    #[arg(long)]
    all: bool,
    /// These namespaces.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    namespaces: Vec<String>,
    /// What has these labels, such as app=db.
    #[arg(long, value_delimiter = ',', value_name = "KEY=VALUE", value_parser = label)]
    selector: Vec<(String, String)>,
}

fn label(text: &str) -> std::result::Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty() && !key.ends_with('!'));
    let (key, value) = pair.ok_or("a label is written KEY=VALUE; Velero is asked for no other selectors")?;
    Ok((key.to_owned(), value.trim_start_matches('=').to_owned()))
}

impl ScopeArgs {
    fn scope(&self) -> Scope {
        match (self.all, self.namespaces.is_empty()) {
            (true, _) => Scope::All,
            (false, false) => Scope::Namespaces(self.namespaces.clone()),
            (false, true) => Scope::Labels(self.selector.clone()),
        }
    }
}

pub(super) async fn run(global: &Global, args: &Args) -> Result<()> {
    let intent = global.intent()?;
    let backup = asked(global, &intent)?;
    match &args.verb {
        Some(Verb::List { output }) => list::list(global, backup, *output).await,
        Some(Verb::Describe { name, output }) => list::describe(global, backup, name, *output).await,
        Some(Verb::Coverage { output }) => coverage::coverage(global, backup, *output).await,
        None => {
            let backup = going_to(backup, args.location.as_deref())?;
            make(global, &intent, &backup, &args.scope.scope(), args.ttl, args.take_over).await
        }
    }
}

/// The backup of the file, where nothing else is said going to the location of this name.
pub(super) fn going_to(backup: &Asked, location: Option<&str>) -> Result<Asked> {
    let Some(name) = location else { return Ok(backup.clone()) };
    backup.going_to(name).ok_or_else(|| {
        let names: Vec<&str> = backup.all_locations().map(|location| location.name.as_str()).collect();
        Error::invalid(format!("the file has no location {name}"))
            .hint(format!("--location takes one of {}", names.join(", ")))
    })
}

/// A switch of verbs that may lose something.
#[derive(Debug, clap::Args)]
pub(super) struct BackupFirst {
    /// Back up everything first, and go on only when every claim is in that backup.
    #[arg(long)]
    backup_first: bool,
}

impl BackupFirst {
    /// Backs up, where that is asked for.
    ///
    /// # Errors
    /// The file has no backup, or not every claim is in it: then nothing else is to be done.
    pub(super) async fn carry_out(&self, global: &Global, take_over: bool) -> Result<()> {
        if !self.backup_first {
            return Ok(());
        }
        let intent = global.intent()?;
        make(global, &intent, asked(global, &intent)?, &Scope::All, FIRST_KEPT, take_over)
            .await
            .map_err(|error| error.at("backing up first; nothing else was done"))
    }
}

/// How long such a backup is kept.
const FIRST_KEPT: Duration = Duration(720 * 3600);

/// The backup that the file asks for.
fn asked<'a>(global: &Global, intent: &'a Intent) -> Result<&'a Asked> {
    intent.backup.as_ref().ok_or_else(|| {
        Error::invalid(format!("{} asks for no backup", global.file.display()))
            .hint("add `backup` with a location, and install it with `nodeprep apply`")
    })
}

async fn make(
    global: &Global,
    intent: &Intent,
    backup: &Asked,
    scope: &Scope,
    ttl: Duration,
    take_over: bool,
) -> Result<()> {
    let session = open(global, &intent.metadata.name, "backup", super::interrupted(global.events()))?;
    let manner = Manner { take_over, deadlines: intent.deadlines.clone(), ..Manner::default() };
    let make = async |connected| plan_backup(&global.reach(), backup, scope, ttl, connected).await;
    // A backup adds something and changes nothing else: nobody is asked.
    session.carry_out(&manner, make, agree(global, &session, true)).await
}

/// So many seconds, as kubectl writes an age.
fn span(seconds: i64) -> String {
    match seconds {
        ..0 => "-".to_owned(),
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
