//! A restore: what it is planned from is read, and whether one in the same words is under way.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::StorageClass;

use super::{Planned, Reach, Reached};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::intent::{Backup, Location};
use crate::judge::restore::{Contents, gone_on_with, named};
use crate::judge::store::steady;
use crate::judge::taints::{set_taints, tolerations};
use crate::judge::velero::{self, kinds};
use crate::observe::backups::backups;
use crate::observe::restores::{Found, Source, live, open, source};
use crate::plan::drill::DrillAsked;
use crate::plan::restore::{RestoreAsked, RestoreFacts};
use crate::plan::{Plan, drill, restore};
use crate::wait::{Look, Wait};

/// Reads the objects of a backup in a location; the error says why they can't be read from here.
pub trait ReadContents: AsyncFn(&Location, &str) -> std::result::Result<Contents, String> {}

impl<F: AsyncFn(&Location, &str) -> std::result::Result<Contents, String>> ReadContents for F {}

/// Plans a restore.
///
/// # Errors
/// There is no such backup, its location can't be read by Velero, or what exists stands in the way.
pub async fn plan_restore(
    reach: &Reach,
    backup: &Backup,
    from: &Source,
    asked: &RestoreAsked,
    contents: &impl ReadContents,
    connected: Option<Reached>,
) -> Result<Planned> {
    let cluster = reach.connected(connected).await?;
    let Found { backup: found, volumes, elsewhere } =
        source(&cluster, backup, from, asked.allow_partially_failed).await?;
    let name = found.metadata.name.clone().unwrap_or_default();
    let location = found.spec.storage_location.as_deref().unwrap_or_default();
    available(&cluster.get_of(Some(&backup.namespace), location).await?, location)?;
    let location = backup.all_locations().find(|one| one.name == location);
    let read = match location {
        Some(location) if !cluster.simulated() => contents(location, &name).await,
        _ => Err("a sandbox keeps no archive".to_owned()),
    };
    let objects = read.as_ref().ok();
    let facts =
        RestoreFacts { velero: &backup.namespace, backup: &found, volumes: &volumes, contents: objects };
    let words = restore::request(asked, &facts)?;
    let mut plan = match open(&cluster, &backup.namespace, &words).await? {
        Some(open) => Plan { warnings: vec![gone_on_with(&open)], ..restore::go_on(asked, &facts)? },
        None => restore::plan(asked, &facts, &live(&cluster, &asked.scope, objects).await?)?,
    };
    if asked.is_everything() && !elsewhere.is_empty() {
        let told: Vec<String> =
            elsewhere.iter().map(|(claim, older)| format!("claim {claim} (in {older})")).collect();
        plan.warnings.push(format!("older backups hold what {name} does not: {}", named(&told)));
    }
    if let Err(why) = read {
        let what = "the backup's objects are not read, so that what of them exists already is not known";
        plan.warnings.push(format!("{what}: {why}"));
    }
    plan.simulated = cluster.simulated();
    Ok(Planned::new(plan, None, Reached::Here(cluster), Vec::new()))
}

/// Plans a drill, which needs nothing but a class and a location that can be written.
///
/// # Errors
/// The cluster has no such class, or Velero can't reach the location.
pub async fn plan_drill(
    reach: &Reach,
    backup: &Backup,
    asked: &DrillAsked,
    connected: Option<Reached>,
) -> Result<Planned> {
    let cluster = reach.connected(connected).await?;
    if cluster.get_of::<StorageClass>(None, &asked.class).await?.is_none() {
        return Err(Error::invalid(format!("the cluster has no StorageClass {}", asked.class))
            .hint("--class names one that it has; `nodeprep install` makes those of the file"));
    }
    let location = &backup.location.name;
    available(&cluster.get_of(Some(&backup.namespace), location).await?, location)?;
    let nodes: Vec<Node> = cluster.list_of(None, "").await?;
    let taints = nodes.iter().flat_map(set_taints).map(|taint| (taint.key.as_str(), taint.effect.as_str()));
    let asked = DrillAsked { tolerations: tolerations(taints), ..asked.clone() };
    let plan = Plan { simulated: cluster.simulated(), ..drill::plan(backup, &asked)? };
    Ok(Planned::new(plan, None, Reached::Here(cluster), Vec::new()))
}

/// Waits until Velero has looked into the bucket of a location: before that the cluster knows of no backup there. That there is
/// none is believed of a look that came after this was asked.
///
/// # Errors
/// Velero did not look `within` this time; there is none.
pub async fn await_backups(
    reach: &Reach,
    backup: &Backup,
    location: &Location,
    events: &Events,
    within: Duration,
) -> Result<()> {
    let cluster = reach.cluster().await?;
    let (namespace, name) = (backup.namespace.as_str(), location.name.as_str());
    let asked = cluster.time().await?;
    let look = async || {
        let live: Option<kinds::BackupStorageLocation> = cluster.get_of(Some(namespace), name).await?;
        let synced = live.and_then(|live| live.status?.last_synced_time).map(|time| time.0);
        let held = backups(&cluster, namespace, &[name]).await?.len();
        Ok(match synced {
            None => Look::not_yet("Velero has not looked into the bucket yet"),
            Some(synced) if held == 0 && synced < asked => {
                Look::not_yet("no backup so far; Velero looks again once a minute")
            }
            Some(_) => Look::Done(held),
        })
    };
    let wait = Wait::new(format!("the backups of location {name}"), within, events);
    let held = wait
        .until(look)
        .await
        .map_err(|late| late.or(|what, last| Error::failed(format!("{what}: {last}"))))?;
    if held == 0 {
        let bucket = match &location.prefix {
            Some(prefix) => format!("{} below {prefix}", location.bucket),
            None => location.bucket.clone(),
        };
        return Err(Error::failed(format!("bucket {bucket} holds no backup"))
            .hint("is it the right bucket and prefix? Velero looked into it just now"));
    }
    events.say(format!("location {name} holds {held} backups"));
    Ok(())
}

/// Velero refuses a restore from a location that it can't read.
fn available(location: &Option<kinds::BackupStorageLocation>, name: &str) -> Result<()> {
    let Some(location) = location else {
        return Err(Error::invalid(format!("Velero has no location {name}"))
            .hint("`nodeprep install` makes those of the file"));
    };
    let standing = velero::Location::of(location);
    let velero::Location::Other { phase, message } = &standing else { return Ok(()) };
    let error = Error::unavailable(format!("location {name} is {phase}: {}", steady(message)));
    Err(match standing.advice(location) {
        Some(advice) => error.hint(advice.hint),
        None => error,
    })
}
