//! `restore`: brings back what a backup holds, and sees that every volume's files came with it.

use std::collections::BTreeMap;
use std::time::Instant;

use super::apply::{Consent, Rollout, carry_out, open};
use super::backup::going_to;
use super::plan::agree;
use super::{Global, store};
use crate::error::{Error, Result};
use crate::intent::{Backup, Intent, Location};
use crate::judge::coverage::ClaimName;
use crate::judge::restore::RestoreScope;
use crate::observe::restores::Source;
use crate::plan::restore::RestoreAsked;
use crate::session::{self, Manner, Session, await_backups, plan_restore};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// These namespaces of the backup [default: all but those that the file itself installs into].
    #[arg(long, visible_alias = "namespaces", value_delimiter = ',', value_name = "NAME")]
    include_namespaces: Vec<String>,
    /// This claim alone, with its pods.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = claim, conflicts_with = "include_namespaces")]
    claim: Option<ClaimName>,
    /// What was in namespace OLD comes back in namespace NEW.
    #[arg(long, value_delimiter = ',', value_name = "OLD:NEW", value_parser = mapping)]
    namespace_mappings: Vec<(String, String)>,
    /// Claims of class OLD come back with class NEW.
    #[arg(long, value_delimiter = ',', value_name = "OLD:NEW", value_parser = mapping)]
    storage_class_mappings: Vec<(String, String)>,
    /// The location of the file whose bucket it is [default: the file's `backup.location`].
    #[arg(long, value_name = "NAME", requires = "from_bucket")]
    location: Option<String>,
    /// Claims that exist already stay as they are, and the rest is restored.
    #[arg(long)]
    skip_existing: bool,
    /// Restore from a backup that does not hold everything as well.
    #[arg(long)]
    allow_partially_failed: bool,
    /// Carry the plan out unasked.
    #[arg(short, long)]
    yes: bool,
    /// Take the cluster's lock over from a run on another machine that died.
    #[arg(long)]
    take_over: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct SourceArgs {
    /// This backup; `backup list` names them.
    #[arg(long, value_name = "NAME")]
    from_backup: Option<String>,
    /// The newest complete backup of this schedule.
    #[arg(long, value_name = "NAME")]
    from_schedule: Option<String>,
    /// On a new cluster: install what the file asks for, wait until Velero knows what the bucket holds, and restore the newest
    /// complete backup of everything.
    #[arg(long)]
    from_bucket: bool,
}

fn claim(text: &str) -> std::result::Result<ClaimName, String> {
    let (namespace, name) = text.split_once('/').ok_or("a claim is written NAMESPACE/NAME")?;
    let named = |scope: &str| !scope.is_empty() && !scope.contains('/');
    if !named(namespace) || !named(name) {
        return Err("a claim is written NAMESPACE/NAME".into());
    }
    Ok(ClaimName { namespace: namespace.to_owned(), name: name.to_owned() })
}

fn mapping(text: &str) -> std::result::Result<(String, String), String> {
    let pair = text.split_once(':').filter(|(old, new)| !old.is_empty() && !new.is_empty());
    let (old, new) = pair.ok_or("a mapping is written OLD:NEW")?;
    Ok((old.to_owned(), new.to_owned()))
}

/// The new names by the old ones; nothing is mapped twice.
fn mappings(pairs: &[(String, String)], what: &str) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (old, new) in pairs {
        if found.insert(old.clone(), new.clone()).is_some_and(|former| former != *new) {
            return Err(Error::invalid(format!("{what} {old} is mapped twice")));
        }
    }
    Ok(found)
}

impl Args {
    /// What is restored; without a name the newest backup of this location.
    fn source(&self, location: &str) -> Source {
        match (&self.source.from_backup, &self.source.from_schedule) {
            (Some(name), _) => Source::Backup(name.clone()),
            (None, Some(name)) => Source::Schedule(name.clone()),
            (None, None) => Source::Newest(location.to_owned()),
        }
    }

    fn asked(&self, intent: &Intent) -> Result<RestoreAsked> {
        let everything = self.include_namespaces.is_empty() && self.claim.is_none();
        let scope = RestoreScope {
            namespaces: self.include_namespaces.clone(),
            left_out: if everything { intent.installed_namespaces() } else { Vec::new() },
            mappings: mappings(&self.namespace_mappings, "namespace")?,
            classes: mappings(&self.storage_class_mappings, "StorageClass")?,
        };
        let taken =
            |name: &str| self.claim.as_ref().map_or(scope.takes(name), |claim| claim.namespace == name);
        if let Some(name) = scope.mappings.keys().find(|name| !taken(name)) {
            return Err(Error::invalid(format!(
                "namespace {name} is mapped, but is not one that is restored"
            )));
        }
        Ok(RestoreAsked {
            scope,
            claim: self.claim.clone(),
            skip_existing: self.skip_existing,
            allow_partially_failed: self.allow_partially_failed,
        })
    }
}

pub(super) async fn run(global: &Global, args: &Args) -> Result<()> {
    let begun = Instant::now();
    let intent = global.intent()?;
    let asked = args.asked(&intent)?;
    let backup = intent.backup.as_ref().ok_or_else(|| {
        Error::invalid(format!("{} asks for no backup", global.file.display()))
            .hint("add `backup` with the location that holds it, and install it with `nodeprep apply`")
    })?;
    let location = going_to(backup, args.location.as_deref())?.location;
    let session = open(global, &intent.metadata.name, "restore", super::interrupted(global.events()))?;
    if args.source.from_bucket {
        let consent = Consent { yes: args.yes, take_over: args.take_over, ..Consent::default() };
        carry_out(global, &intent, &session, session::Part::Stack, &consent, &Rollout::default()).await?;
        let within = intent.deadlines.workloads.std();
        await_backups(&global.reach(), backup, &location, session.events(), within).await?;
    }
    restore(global, &intent, backup, &session, (&args.source(&location.name), &asked), args).await?;
    if args.source.from_bucket {
        session.events().say(format!("RTO: {} s from the beginning of this run", begun.elapsed().as_secs()));
    }
    Ok(())
}

async fn restore(
    global: &Global,
    intent: &Intent,
    backup: &Backup,
    session: &Session,
    (from, asked): (&Source, &RestoreAsked),
    args: &Args,
) -> Result<()> {
    // Without its keys the store is not read from here; Velero has keys of its own.
    let secrets = global.stack_secrets(intent);
    let manner =
        Manner { take_over: args.take_over, deadlines: intent.deadlines.clone(), ..Manner::default() };
    let read = async |location: &Location, name: &str| {
        let secrets = secrets.as_ref().map_err(|error| error.what.clone())?;
        store::contents(location, backup.credentials_of(location), secrets, name).await
    };
    let make = async |connected| plan_restore(&global.reach(), backup, from, asked, &read, connected).await;
    session.carry_out(&manner, make, agree(global, session, args.yes)).await
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn claims_and_mappings_are_written_one_way() {
        assert_eq!(claim("a/b").unwrap().to_string(), "a/b");
        for wrong in ["a", "/b", "a/", "a/b/c", ""] {
            assert!(claim(wrong).is_err(), "{wrong}");
        }
        assert_eq!(mapping("a:b"), Ok(("a".into(), "b".into())));
        for wrong in ["a", ":b", "a:", ""] {
            assert!(mapping(wrong).is_err(), "{wrong}");
        }
        let twice = |new: &str| mappings(&[("a".into(), "b".into()), ("a".into(), new.into())], "namespace");
        assert!(twice("b").is_ok() && twice("c").unwrap_err().what.contains("namespace a is mapped twice"));
    }
}
