//! The object store, asked from this machine before Velero asks it: what it says is a hint.

use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::Global;
use crate::dial;
use crate::intent::{Backup, Intent};
use crate::judge::store::{StoreAddress, advice};
use crate::plan::Skipped;
use crate::s3::{self, Answer, Depth, Key, Store};
use crate::stack::{CLOUD_KEY, StackSecret};

/// What is to be known about the store.
#[derive(Debug)]
pub(super) enum StoreFinding {
    Nothing,
    NotAsked(Skipped),
    Warning(String),
}

/// Asks the store of the file, where there is one and nothing is simulated.
pub(super) async fn ask(
    global: &Global,
    intent: &Intent,
    secrets: &[StackSecret],
    depth: Depth,
) -> StoreFinding {
    let Some(backup) = intent.backup.as_ref().filter(|_| global.simulated.is_none()) else {
        return StoreFinding::Nothing;
    };
    let Some(key) = key(backup, secrets) else {
        let secret = &backup.credentials_secret;
        return StoreFinding::Warning(format!(
            "Secret {secret} holds no access key: below `[default]`, `{CLOUD_KEY}` needs aws_access_key_id and \
             aws_secret_access_key"
        ));
    };
    let not_asked = |why: &str| {
        let why = format!("not reached from here ({why}); Velero's own validation decides");
        StoreFinding::NotAsked(Skipped { what: "looking at the store".into(), why })
    };
    let location = &backup.location;
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
    match s3::ask(&store(backup, key), depth, &dial::tcp(), Timestamp::now()).await {
        Answer::Works => StoreFinding::Nothing,
        Answer::Unreached(why) => not_asked(&why),
        Answer::Refused(why) => {
            let hint = advice(&why, &asked).map_or_else(String::new, |advice| format!("; {}", advice.hint));
            StoreFinding::Warning(format!("the store, asked from here, refuses: {why}{hint}"))
        }
    }
}

fn key(backup: &Backup, secrets: &[StackSecret]) -> Option<Key> {
    let secret = secrets.iter().find(|secret| secret.name == backup.credentials_secret)?;
    Key::read(secret.data.get(CLOUD_KEY)?.expose_secret())
}

fn store(backup: &Backup, key: Key) -> Store {
    let location = &backup.location;
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
