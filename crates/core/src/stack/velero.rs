//! Velero with file-system backup to S3 locations, and its schedules.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::pbkdf2;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::{Component, Sources, StackItem, StackSecret, object, objects, template};
use crate::error::{Error, Result};
use crate::intent::{Backup, Duration, LabelSelector, Location, Schedule};
use crate::model::object::{Object, Ready};

pub(super) const COMPONENT: Component = Component {
    id: ID,
    listed: &["Schedule", "BackupStorageLocation"],
    asked: |intent| intent.backup.is_some(),
    render,
};

const ID: &str = "velero";

/// The key of the store's credentials in their Secret, whose name the file may choose: an AWS credentials file.
pub const CLOUD_KEY: &str = "cloud";
/// The Secret with the password of every backup repository, and its key. Velero makes one with a public default when
/// it starts without; changing it later makes every backup unreadable.
pub const REPOSITORY_SECRET: (&str, &str) = ("velero-repo-credentials", "repository-password");

fn render(sources: &Sources<'_>) -> Result<Vec<StackItem>> {
    let Sources { intent, secrets, .. } = *sources;
    let Some(backup) = &intent.backup else { return Ok(Vec::new()) };
    let namespace = &backup.namespace;
    let mut items = Vec::new();
    let values = json!({"namespace": namespace});
    let source = include_str!("../../../../manifests/namespace.yaml.j2");
    items.extend(objects(ID, template::fill("namespace.yaml.j2", source, &values)?));
    items.extend(crds()?);
    let source = include_str!("../../../../manifests/velero/rbac.yaml.j2");
    items.extend(objects(ID, template::fill("velero/rbac.yaml.j2", source, &values)?));
    // Before the server: it would make a repository password of its own, with a public value.
    items.extend(secret_objects(backup, secrets)?.into_iter().map(StackItem::Object));

    let values = json!({
        "namespace": namespace,
        "credentials_secret": backup.credentials_secret,
        "image": intent.images.velero,
        "plugin_image": intent.images.velero_plugin,
        "credentials": credentials_mark(&backup.credentials_secret, secrets),
        "server": backup.server,
        "agent": backup.node_agent,
    });
    let source = include_str!("../../../../manifests/velero/server.yaml.j2");
    items.extend(objects(ID, template::fill("velero/server.yaml.j2", source, &values)?));
    let source = include_str!("../../../../manifests/velero/node-agent.yaml.j2");
    items.extend(objects(ID, template::fill("velero/node-agent.yaml.j2", source, &values)?));
    let workload = |kind: &str, name: &str| {
        StackItem::Ready(Ready::Workload {
            kind: kind.into(),
            namespace: namespace.clone(),
            name: name.into(),
        })
    };
    items.extend([workload("Deployment", "velero"), workload("DaemonSet", "node-agent")]);

    // The default one last: while there are two, Velero takes that from one of them.
    for location in backup.locations.iter().chain([&backup.location]) {
        items.extend(objects(ID, location_objects(backup, location, secrets)?));
    }
    let locations = backup.all_locations().map(|location| location.name.clone());
    items.extend(
        locations.map(|name| StackItem::Ready(Ready::BackupLocation { namespace: namespace.clone(), name })),
    );
    let all = schedules(backup)?;
    items.extend(objects(ID, all));
    // Velero does not look at one that is paused.
    let awaited = backup.schedules.iter().filter(|schedule| !schedule.paused);
    let names = awaited.map(|schedule| schedule.name().to_owned());
    items.extend(names.map(|name| StackItem::Ready(Ready::Schedule { namespace: namespace.clone(), name })));
    Ok(items)
}

/// The Schedules of the file, as they are sent.
///
/// # Errors
/// `Failed` when the template is broken.
pub fn schedules(backup: &Backup) -> Result<Vec<Value>> {
    backup.schedules.iter().map(|schedule| manifest(backup, schedule)).collect()
}

/// What a backup on demand asks for: what the template of a schedule does. All namespaces when none is named, and everything in
/// them when no labels are.
///
/// # Errors
/// `Failed` when the template is broken.
pub fn backup_spec(
    backup: &Backup,
    namespaces: &[String],
    label_selector: Option<LabelSelector>,
    ttl: Duration,
) -> Result<Value> {
    let schedule = Schedule {
        name: Some("on-demand".into()),
        ttl: Some(ttl),
        namespaces: Some(namespaces.to_vec()),
        label_selector,
        default_volumes_to_fs_backup: true,
        ..Schedule::default()
    };
    Ok(manifest(backup, &schedule)?["spec"]["template"].take())
}

fn manifest(backup: &Backup, schedule: &Schedule) -> Result<Value> {
    let source = include_str!("../../../../manifests/velero/schedule.yaml.j2");
    let (mut namespaces, excluded) = (schedule.namespaces(), schedule.excluded_namespaces());
    if namespaces.is_empty() {
        namespaces.push("*".into());
    }
    // Source: velero, pkg/util/collections/includes_excludes.go, GlobalIncludesExcludes.ShouldInclude.
    let all_but = namespaces == ["*"] && !excluded.is_empty() && schedule.label_selector.is_none();
    let values = json!({
        "namespace": backup.namespace,
        "location": backup.location_of(schedule),
        "namespaces": namespaces,
        "excluded_namespaces": excluded,
        "cluster_resources": all_but,
        "label_selector": schedule.label_selector,
        "default_volumes_to_fs_backup": schedule.default_volumes_to_fs_backup,
        "hooks": schedule.hooks,
        "name": schedule.name(),
        "cron": schedule.cron(),
        "paused": schedule.paused,
        "ttl": schedule.ttl().to_string(),
    });
    let mut made = template::fill("velero/schedule.yaml.j2", source, &values)?;
    made.pop().ok_or_else(|| Error::failed("velero/schedule.yaml.j2 holds no Schedule"))
}

fn location_objects(backup: &Backup, location: &Location, secrets: &[StackSecret]) -> Result<Vec<Value>> {
    let values = json!({
        "namespace": backup.namespace,
        "location": location,
        "default": location.name == backup.location.name,
        "url": location.url.as_deref().map(|url| url.trim_end_matches('/')),
        "ca_cert": location.ca_cert.as_deref().map(|pem| BASE64_STANDARD.encode(pem)),
        "credentials": credentials_mark(backup.credentials_of(location), secrets),
    });
    let source = include_str!("../../../../manifests/velero/location.yaml.j2");
    template::fill("velero/location.yaml.j2", source, &values)
}

/// Changes when the store's credentials in the Secret of this name change, so that Velero starts again with the new ones and its location is looked at
/// anew. Nothing else goes into it: who holds the store's key, and so the repositories, could try guesses of their password
/// on a mark that it is part of. Who may only read the pods could try guesses of a weak store key: so each costs time, and
/// the mark is short, which lets many wrong ones pass.
fn credentials_mark(name: &str, secrets: &[StackSecret]) -> String {
    const ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(19_999);
    let secret = secrets.iter().find(|secret| secret.name == name);
    let value =
        secret.and_then(|secret| secret.data.get(CLOUD_KEY)).map_or("", |value| value.expose_secret());
    let mut mark = [0; 4];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        ROUNDS,
        b"nodeprep.dev/credentials",
        value.as_bytes(),
        &mut mark,
    );
    mark.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The repository's password in the file's secrets.
pub fn repository_password(secrets: &[StackSecret]) -> Option<&SecretString> {
    let secret = secrets.iter().find(|secret| secret.name == REPOSITORY_SECRET.0)?;
    secret.data.get(REPOSITORY_SECRET.1)
}

/// Every CRD of the release, as its own `velero install --crds-only --dry-run` prints them: the server does not start
/// when one is missing.
fn crds() -> Result<Vec<StackItem>> {
    let crds =
        template::documents("velero/crds.yaml", include_str!("../../../../manifests/velero/crds.yaml"))?;
    let names: Vec<String> =
        crds.iter().filter_map(|crd| crd["metadata"]["name"].as_str()).map(str::to_owned).collect();
    let waits = names.into_iter().map(|name| StackItem::Ready(Ready::Crd { name }));
    Ok(objects(ID, crds).chain(waits).collect())
}

/// All Secrets, checked: their names, their keys, no value empty or still encrypted.
fn secret_objects(backup: &Backup, secrets: &[StackSecret]) -> Result<Vec<Object>> {
    let of_stores = backup.locations.iter().map(|location| backup.credentials_of(location));
    let of_stores: BTreeSet<&str> = of_stores.chain([backup.credentials_secret.as_str()]).collect();
    let hint = format!(
        "`backup.secrets` must hold the Secrets {} (key {CLOUD_KEY}) and {} (key {}); `credentialsSecret` names the first",
        of_stores.iter().copied().collect::<Vec<_>>().join(", "),
        REPOSITORY_SECRET.0,
        REPOSITORY_SECRET.1
    );
    let needed: Vec<(&str, &str)> =
        of_stores.into_iter().map(|name| (name, CLOUD_KEY)).chain([REPOSITORY_SECRET]).collect();
    if let Some(other) = secrets.iter().find(|secret| !needed.iter().any(|(name, _)| *name == secret.name)) {
        return Err(
            Error::invalid(format!("Secret `{}` is not one that Velero needs", other.name)).hint(hint)
        );
    }
    let object = |(name, key)| secret_object(&backup.namespace, secrets, name, key);
    needed.into_iter().map(object).collect::<Result<_>>().map_err(|error| error.hint(hint))
}

fn secret_object(namespace: &str, secrets: &[StackSecret], name: &str, key: &str) -> Result<Object> {
    let invalid = |what: String| Err(Error::invalid(what));
    let mut named = secrets.iter().filter(|secret| secret.name == name);
    let Some(secret) = named.next() else {
        return invalid(format!("Secret `{name}` is missing from the files in `backup.secrets`"));
    };
    if named.next().is_some() {
        return invalid(format!("Secret `{name}` is there more than once in the files in `backup.secrets`"));
    }
    if !secret.data.contains_key(key) {
        return invalid(format!("Secret `{name}` has no key `{key}`"));
    }
    let mut data = Map::new();
    for (key, value) in &secret.data {
        let value = value.expose_secret();
        if value.trim().is_empty() {
            return invalid(format!("Secret `{name}`: the value of `{key}` is empty"));
        }
        if value.starts_with("ENC[AES256_GCM,") {
            return invalid(format!("Secret `{name}`: the value of `{key}` is still encrypted"));
        }
        data.insert(key.clone(), Value::String(BASE64_STANDARD.encode(value)));
    }
    let value = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": name, "namespace": namespace },
        "type": "Opaque",
        "data": data,
    });
    Ok(Object { secret: true, create_only: name == REPOSITORY_SECRET.0, ..object(ID, value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_tells_new_credentials_and_nothing_of_the_repositorys_password() {
        let secret = |name: &str, key: &str, value: &str| StackSecret {
            name: name.into(),
            data: [(key.to_owned(), SecretString::from(value))].into(),
        };
        let mark = |cloud, password| {
            let secrets =
                [secret("s3", CLOUD_KEY, cloud), secret(REPOSITORY_SECRET.0, REPOSITORY_SECRET.1, password)];
            credentials_mark("s3", &secrets)
        };
        assert_eq!(mark("key=a", "one"), mark("key=a", "another"), "the password can't be guessed by it");
        assert_ne!(mark("key=a", "one"), mark("key=b", "one"));
        assert_eq!(mark("key=a", "one").len(), 8, "short, so that many wrong guesses fit");
    }
}
