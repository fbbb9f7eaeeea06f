//! What is to be known about the backup before it is carried out.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use subtle::ConstantTimeEq;

use crate::intent::{Backup, Cron, Intent, Location};
use crate::model::cluster::ClusterState;
use crate::stack::REPOSITORY_SECRET;

/// Why a live repository password is a fault.
pub const DIFFERS: &str = "is not the one of the file, and nodeprep never replaces it: all backups so far are encrypted \
                           with the live one, and who restores with the file's can't read them";
/// What helps.
pub const OLD_AND_NEW: &str = "put the live password into `backup.secrets`: old backups need it; or, for a new password, take \
                               a new bucket or `backup.location.prefix`, keep the old password for the old backups, and \
                               delete the Secret and the BackupRepository objects";

/// Whether two passwords are the same to Velero, which cuts white space off; in a time that does not tell how much of them is.
pub fn same(wanted: &SecretString, live: &[u8]) -> bool {
    wanted.expose_secret().trim().as_bytes().ct_eq(live.trim_ascii()).into()
}

pub(super) fn warnings(intent: &Intent, observed: &ClusterState) -> Vec<String> {
    let Some(backup) = &intent.backup else { return unprotected(intent).into_iter().collect() };
    let mut said: Vec<String> = password(observed).into_iter().collect();
    said.extend(in_the_clear(backup));
    said.extend(backup.all_locations().filter_map(dots));
    if backup.schedules.is_empty() {
        said.push("nothing is backed up on its own: the file has no `backup.schedules`".into());
    }
    let never =
        |line: &str| Cron::parse(line).is_ok_and(|cron| cron.next(jiff::Timestamp::UNIX_EPOCH).is_none());
    for schedule in backup.schedules.iter().filter(|schedule| never(schedule.cron())) {
        said.push(format!(
            "schedule {} names a day that never comes, which Velero takes as due each minute: `{}`",
            schedule.name(),
            schedule.cron()
        ));
    }
    let paused = backup.schedules.iter().filter(|schedule| schedule.paused);
    said.extend(
        paused.map(|schedule| format!("schedule {} is `paused`: it makes no backups", schedule.name())),
    );
    said
}

/// Said where there is no backup at all.
pub fn unprotected(intent: &Intent) -> Option<String> {
    intent.backup.is_none().then(|| "nothing is backed up: the file has no `backup`".into())
}

/// The password that is live is another one than the file's.
fn password(observed: &ClusterState) -> Option<String> {
    let (name, key) = REPOSITORY_SECRET;
    let of_it = |state: &&crate::model::cluster::ObjectState| {
        state.wanted.kind() == "Secret" && state.wanted.name() == name && state.wanted.create_only
    };
    let state = observed.objects.iter().find(of_it)?;
    let value = |object: &serde_json::Value| {
        let bytes = BASE64_STANDARD.decode(object["data"][key].as_str()?).ok()?;
        Some(SecretSlice::from(bytes))
    };
    let (wanted, live) = (value(&state.wanted.value)?, value(state.live.as_ref()?)?);
    let wanted = SecretString::from(std::str::from_utf8(wanted.expose_secret()).ok()?);
    let differs = !same(&wanted, live.expose_secret());
    differs.then(|| format!("{} {DIFFERS}; {OLD_AND_NEW}", state.wanted.title()))
}

/// What stores that are spoken to without TLS give away.
pub fn in_the_clear(backup: &Backup) -> Option<String> {
    let urls = backup.all_locations().filter_map(|location| location.url.as_deref());
    let urls: BTreeSet<&str> = urls.filter(|url| url.starts_with("http://")).collect();
    if urls.is_empty() {
        return None;
    }
    let url = urls.into_iter().collect::<Vec<_>>().join(", ");
    Some(format!(
        "the store is spoken to in the clear ({url}): who listens reads the names and contents of all objects in a backup, \
         Secrets too, and can change what is sent; the files of volumes are encrypted by their repository, and of the \
         secret key only signatures are sent"
    ))
}

/// A certificate for all buckets of a store names one part before the store's own name.
fn dots(location: &Location) -> Option<String> {
    let clear = location.url.as_deref().is_some_and(|url| url.starts_with("http://"));
    let uncovered = location.bucket.contains('.') && !location.path_style && !clear;
    let bucket = &location.bucket;
    uncovered.then(|| format!("no certificate for all buckets covers the dots in {bucket}: set `backup.location.pathStyle: true`"))
}
