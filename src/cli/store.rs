//! The object store, asked from this machine before Velero asks it: what it says is a hint.

use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::Global;
use crate::dial;
use crate::intent::{Intent, Location};
use crate::judge::restore::Contents;
use crate::judge::store::{StoreAddress, advice};
use crate::observe::contents::unpack;
use crate::plan::Skipped;
use crate::s3::{self, Answer, Depth, Key, Store};
use crate::stack::{CLOUD_KEY, StackSecret};

/// What is to be known about a store.
#[derive(Debug)]
pub(super) enum StoreFinding {
    Nothing,
    NotAsked(Skipped),
    Warning(String),
}

/// Asks the stores of the file, where there are some and nothing is simulated.
pub(super) async fn ask(
    global: &Global,
    intent: &Intent,
    secrets: &[StackSecret],
    depth: Depth,
) -> Vec<StoreFinding> {
    let backup = intent.backup.as_ref().filter(|_| global.simulated.is_none());
    let mut found = Vec::new();
    for (backup, location) in
        backup.iter().flat_map(|&backup| backup.all_locations().map(move |one| (backup, one)))
    {
        found.push(ask_one(location, backup.credentials_of(location), secrets, depth).await);
    }
    found
}

async fn ask_one(location: &Location, secret: &str, secrets: &[StackSecret], depth: Depth) -> StoreFinding {
    let Some(key) = key(secret, secrets) else {
        return StoreFinding::Warning(format!(
            "Secret {secret} holds no access key: below `[default]`, `{CLOUD_KEY}` needs aws_access_key_id and \
             aws_secret_access_key"
        ));
    };
    let not_asked = |why: &str| {
        let why = format!("not reached from here ({why}); Velero's own validation decides");
        StoreFinding::NotAsked(Skipped {
            what: format!("looking at the store of location {}", location.name),
            why,
        })
    };
    if location.url.as_deref().is_some_and(in_cluster) {
        return not_asked("its address is one of the cluster");
    }
    let asked = StoreAddress {
        bucket: location.bucket.clone(),
        region: location.region.clone(),
        url: location.url.clone(),
        path_style: location.path_style,
        no_checksums: location.checksum_algorithm.as_deref() == Some(""),
        ca: location.ca_cert.is_some(),
    };
    match s3::ask(&store(location, key), depth, &dial::tcp(), Timestamp::now()).await {
        Answer::Works => StoreFinding::Nothing,
        Answer::Unreached(why) => not_asked(&why),
        Answer::Refused(why) => {
            let hint = advice(&why, &asked).map_or_else(String::new, |advice| format!("; {}", advice.hint));
            let name = &location.name;
            StoreFinding::Warning(format!(
                "the store of location {name}, asked from here, refuses: {why}{hint}"
            ))
        }
    }
}

/// The objects of a backup; the error says why they can't be read from here.
pub(super) async fn contents(
    location: &Location,
    secret: &str,
    secrets: &[StackSecret],
    backup: &str,
) -> std::result::Result<Contents, String> {
    let key = key(secret, secrets).ok_or_else(|| format!("Secret {secret} holds no access key"))?;
    if location.url.as_deref().is_some_and(in_cluster) {
        return Err("the store's address is one of the cluster".into());
    }
    let archive = format!("backups/{backup}/{backup}.tar.gz");
    let packed = s3::get(&store(location, key), &archive, &dial::tcp(), Timestamp::now()).await?;
    unpack(&packed).map_err(|error| error.what)
}

fn key(secret: &str, secrets: &[StackSecret]) -> Option<Key> {
    let secret = secrets.iter().find(|one| one.name == secret)?;
    Key::read(secret.data.get(CLOUD_KEY)?.expose_secret())
}

fn store(location: &Location, key: Key) -> Store {
    Store {
        url: location.url.as_deref().map(|url| url.trim_end_matches('/').to_owned()),
        bucket: location.bucket.clone(),
        prefix: location.prefix.clone(),
        region: location.region.clone(),
        path_style: location.path_style,
        checksums: location.checksum_algorithm.as_deref() != Some(""),
        ca_cert: location.ca_cert.clone(),
        key,
    }
}

/// Whether only pods know the address: a Service's name.
fn in_cluster(url: &str) -> bool {
    let host = url.split("://").last().unwrap_or_default().split(['/', ':']).next().unwrap_or_default();
    !host.contains('.') && host != "localhost" && !host.starts_with('[')
        || host.ends_with(".svc")
        || host.contains(".svc.")
        || host.ends_with(".cluster.local")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_name_is_of_the_cluster_alone() {
        for inside in
            ["http://minio:9000", "http://minio.minio.svc:9000", "https://minio.minio.svc.cluster.local/"]
        {
            assert!(in_cluster(inside), "{inside}");
        }
        for outside in
            ["https://s3.lab", "http://10.0.0.5:9000", "http://[fd00::1]:9000", "http://localhost:9000"]
        {
            assert!(!in_cluster(outside), "{outside}");
        }
    }
}
