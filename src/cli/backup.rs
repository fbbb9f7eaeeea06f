//! `backup`: asks Velero for a backup and sees that every claim is in it; lists the backups.

use indicatif::BinaryBytes;
use jiff::Timestamp;

use super::Global;
use super::apply::open;
use super::global::Output;
use super::plan::agree;
use crate::error::{Error, Kind, Result};
use crate::intent::{Backup as Asked, Duration, Intent, kept};
use crate::judge::backup::{VolumeProgress, phase};
use crate::judge::coverage::Scope;
use crate::judge::protection::Protection;
use crate::judge::velero::kinds::{Backup, PodVolumeBackup};
use crate::observe::backups::{backups, protection};
use crate::report;
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
    let backup = intent.backup.as_ref().ok_or_else(|| {
        Error::invalid(format!("{} asks for no backup", global.file.display()))
            .hint("add `backup` with a location, and install it with `nodeprep apply`")
    })?;
    match &args.verb {
        Some(Verb::List { output }) => list(global, backup, *output).await,
        Some(Verb::Coverage { output }) => coverage(global, backup, *output).await,
        None => make(global, args, &intent, &going_to(backup, args.location.as_deref())?).await,
    }
}

fn going_to(backup: &Asked, location: Option<&str>) -> Result<Asked> {
    let Some(name) = location else { return Ok(backup.clone()) };
    backup.going_to(name).ok_or_else(|| {
        let names: Vec<&str> = backup.all_locations().map(|location| location.name.as_str()).collect();
        Error::invalid(format!("the file has no location {name}"))
            .hint(format!("--location takes one of {}", names.join(", ")))
    })
}

async fn make(global: &Global, args: &Args, intent: &Intent, backup: &Asked) -> Result<()> {
    let session = open(global, &intent.metadata.name, "backup", super::interrupted(global.events()))?;
    let manner =
        Manner { take_over: args.take_over, deadlines: intent.deadlines.clone(), ..Manner::default() };
    let scope = args.scope.scope();
    let make = async |connected| plan_backup(&global.reach(), backup, &scope, args.ttl, connected).await;
    // A backup adds something and changes nothing else: nobody is asked.
    session.carry_out(&manner, make, agree(global, &session, true)).await
}

async fn list(global: &Global, backup: &Asked, output: Output) -> Result<()> {
    let cluster = global.reach().cluster().await?;
    let locations: Vec<&str> = backup.all_locations().map(|location| location.name.as_str()).collect();
    let found = backups(&cluster, &backup.namespace, &locations).await?;
    let now = cluster.time().await?;
    if output == Output::Json {
        let items: Vec<_> = found.iter().map(|(backup, volumes)| json(backup, volumes)).collect();
        let list = serde_json::json!({
            "apiVersion": crate::intent::API_VERSION, "kind": "BackupList", "items": items,
        });
        report::stdout(&format!("{list:#}\n"));
        return Ok(());
    }
    let header = ["NAME", "STATUS", "VOLUMES", "SIZE", "AGE", "EXPIRES IN", "LOCATION"];
    let rows = found.iter().map(|(backup, volumes)| row(backup, volumes, now)).collect();
    report::stdout(&report::table(&header, rows));
    Ok(())
}

async fn coverage(global: &Global, backup: &Asked, output: Output) -> Result<()> {
    let cluster = global.reach().cluster().await?;
    let mut claims = protection(&cluster, backup).await?;
    let now = cluster.time().await?;
    if output == Output::Json {
        let list = serde_json::json!({
            "apiVersion": crate::intent::API_VERSION, "kind": "CoverageList", "items": claims,
        });
        report::stdout(&format!("{list:#}\n"));
    } else {
        // The worst first.
        claims.sort_by_key(|claim| claim.standing);
        let header = ["CLAIM", "STATUS", "LAST GOOD BACKUP", "AGE", "SIZE", "SCHEDULES", "WHY"];
        report::stdout(&report::table(&header, claims.iter().map(|claim| claim_row(claim, now)).collect()));
    }
    let faults = claims.iter().filter(|claim| claim.standing.is_fault()).count();
    if faults == 0 {
        return Ok(());
    }
    Err(Error::new(
        Kind::CheckFailed,
        format!("{faults} of {} claims are not protected by a backup", claims.len()),
    )
    .hint("let a schedule of `backup.schedules` take them, or say in `backup.exceptions` why they need none"))
}

fn claim_row(claim: &Protection, now: Timestamp) -> Vec<String> {
    let last = claim.last.as_ref();
    let or_dash = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into());
    vec![
        claim.claim.to_string(),
        claim.standing.to_string(),
        or_dash(last.map(|last| last.backup.clone())),
        or_dash(last.map(|last| span(now.as_second() - last.at.as_second()))),
        or_dash(last.map(|last| BinaryBytes(last.bytes.unwrap_or_default()).to_string())),
        or_dash(Some(claim.schedules.join(", "))),
        claim.why.clone(),
    ]
}

fn json(backup: &Backup, volumes: &[PodVolumeBackup]) -> serde_json::Value {
    let (progress, status) = (VolumeProgress::of(volumes), backup.status.clone().unwrap_or_default());
    serde_json::json!({
        "name": backup.metadata.name,
        "phase": phase(backup),
        "namespaces": backup.spec.included_namespaces,
        "location": backup.spec.storage_location,
        "volumes": progress.all,
        "volumesDone": progress.done,
        "bytes": progress.bytes_done,
        "started": status.start_timestamp,
        "completed": status.completion_timestamp,
        "expires": status.expiration,
        "errors": status.errors.unwrap_or_default(),
        "warnings": status.warnings.unwrap_or_default(),
    })
}

fn row(backup: &Backup, volumes: &[PodVolumeBackup], now: Timestamp) -> Vec<String> {
    let (progress, status) = (VolumeProgress::of(volumes), backup.status.clone().unwrap_or_default());
    let between = |from: Option<Timestamp>, to: Option<Timestamp>| match (from, to) {
        (Some(from), Some(to)) => span(to.as_second() - from.as_second()),
        _ => "-".into(),
    };
    vec![
        backup.metadata.name.clone().unwrap_or_default(),
        phase(backup).to_owned(),
        format!("{}/{}", progress.done, progress.all),
        BinaryBytes(progress.bytes_done).to_string(),
        between(status.start_timestamp.map(|time| time.0), Some(now)),
        between(Some(now), status.expiration.map(|time| time.0)),
        backup.spec.storage_location.clone().unwrap_or_default(),
    ]
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
