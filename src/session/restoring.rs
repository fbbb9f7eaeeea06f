//! A restore: what it is planned from is read, and whether one in the same words is under way.

use super::{Planned, Reach, Reached};
use crate::error::{Error, Result};
use crate::intent::{Backup, Location};
use crate::judge::restore::{Contents, is_open};
use crate::judge::store::steady;
use crate::judge::velero::{self, kinds};
use crate::observe::restores::{Source, live, source};
use crate::plan::restore::{RestoreAsked, RestoreFacts};
use crate::plan::{Plan, restore};
use crate::stack::MANAGED_BY;

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
    let cluster = match connected {
        Some(Reached::Here(cluster)) => cluster,
        _ => reach.cluster().await?,
    };
    let (found, volumes) = source(&cluster, backup, from, asked.allow_partially_failed).await?;
    let name = found.metadata.name.clone().unwrap_or_default();
    let location = found.spec.storage_location.as_deref().unwrap_or_default();
    available(&cluster.get_of(Some(&backup.namespace), location).await?, location)?;
    let location = backup.all_locations().find(|one| one.name == location);
    let read = match location {
        Some(location) if !cluster.simulated() => contents(location, &name).await,
        _ => Err("a sandbox keeps no archive".to_owned()),
    };
    let objects = read.as_ref().ok();
    let live = live(&cluster, &asked.part, objects).await?;
    let facts = RestoreFacts {
        velero: &backup.namespace,
        backup: &found,
        volumes: &volumes,
        contents: objects,
        live: &live,
    };
    let words = restore::request(asked, &facts)?;
    let ours = format!("{}={}", MANAGED_BY.0, MANAGED_BY.1);
    let restores: Vec<kinds::Restore> = cluster.list_of(Some(&backup.namespace), &ours).await?;
    let mut plan = match restores.iter().find(|restore| is_open(restore, &words)) {
        Some(open) => {
            let name = open.metadata.name.as_deref().unwrap_or_default();
            let plan = restore::go_on(asked, &facts)?;
            let told = format!("restore {name} was begun by a run that was cut off: it is gone on with");
            Plan { warnings: vec![told], ..plan }
        }
        None => restore::plan(asked, &facts)?,
    };
    if let Err(why) = read {
        let what = "the backup's objects are not read, so that what of them exists already is not known";
        plan.warnings.push(format!("{what}: {why}"));
    }
    plan.simulated = cluster.simulated();
    Ok(Planned::new(plan, None, Reached::Here(cluster), Vec::new()))
}

/// Velero refuses a restore from a location that it can't read.
fn available(location: &Option<kinds::BackupStorageLocation>, name: &str) -> Result<()> {
    let Some(location) = location else {
        return Err(Error::invalid(format!("Velero has no location {name}"))
            .hint("`nodeprep install` makes those of the file"));
    };
    match velero::Location::of(location) {
        velero::Location::Other { phase, message } => {
            let error = Error::unavailable(format!("location {name} is {phase}: {}", steady(message)));
            Err(match velero::Location::of(location).advice(location) {
                Some(advice) => error.hint(advice.hint),
                None => error,
            })
        }
        _ => Ok(()),
    }
}
