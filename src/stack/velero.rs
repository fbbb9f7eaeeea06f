//! Velero with file-system backup to one S3 location, and its schedules.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{Item, StackSecret, object, objects, template};
use crate::error::{Error, Result};
use crate::intent::{Backup, Intent};
use crate::packed;
use crate::plan::{Object, Ready};

const COMPONENT: &str = "velero";

/// The Secret with the store's credentials, and its key: an AWS credentials file.
pub const CLOUD_SECRET: (&str, &str) = ("cloud-credentials", "cloud");
/// The Secret with the password of every backup repository, and its key. Velero makes one with a public default when
/// it starts without; changing it later makes every backup unreadable.
pub const REPOSITORY_SECRET: (&str, &str) = ("velero-repo-credentials", "repository-password");

const HINT: &str = "`backup.secrets` must hold the Secrets cloud-credentials (key cloud) and velero-repo-credentials \
                    (key repository-password)";

pub(super) fn render(intent: &Intent, backup: &Backup, secrets: &[StackSecret]) -> Result<Vec<Item>> {
    let namespace = &backup.namespace;
    let mut items = Vec::new();
    let values = json!({"namespace": namespace});
    let source = include_str!("../../manifests/namespace.yaml.j2");
    items.extend(objects(COMPONENT, template::fill("namespace.yaml.j2", source, &values)?));
    items.extend(crds()?);
    let source = include_str!("../../manifests/velero/rbac.yaml.j2");
    items.extend(objects(COMPONENT, template::fill("velero/rbac.yaml.j2", source, &values)?));
    // Before the server: it would make a repository password of its own, with a public value.
    items.extend(secret_objects(namespace, secrets)?.into_iter().map(Item::Object));

    let credentials = credentials_mark(secrets);
    let values = json!({
        "namespace": namespace,
        "image": intent.images.velero,
        "plugin_image": intent.images.velero_plugin,
        "credentials": credentials,
        "server": backup.server,
        "agent": backup.node_agent,
    });
    let source = include_str!("../../manifests/velero/server.yaml.j2");
    items.extend(objects(COMPONENT, template::fill("velero/server.yaml.j2", source, &values)?));
    let source = include_str!("../../manifests/velero/node-agent.yaml.j2");
    items.extend(objects(COMPONENT, template::fill("velero/node-agent.yaml.j2", source, &values)?));
    let workload = |kind: &str, name: &str| {
        Item::Ready(Ready::Workload { kind: kind.into(), namespace: namespace.clone(), name: name.into() })
    };
    items.extend([workload("Deployment", "velero"), workload("DaemonSet", "node-agent")]);

    let values = json!({ "namespace": namespace, "location": backup.location, "credentials": credentials });
    let source = include_str!("../../manifests/velero/location.yaml.j2");
    items.extend(objects(COMPONENT, template::fill("velero/location.yaml.j2", source, &values)?));
    items.push(Item::Ready(Ready::BackupLocation { namespace: namespace.clone(), name: "default".into() }));
    for schedule in &backup.schedules {
        let namespaces =
            if schedule.namespaces.is_empty() { vec!["*".into()] } else { schedule.namespaces.clone() };
        let values = json!({
            "namespace": namespace,
            "namespaces": namespaces,
            "name": schedule.name,
            "cron": schedule.cron,
            "ttl": schedule.ttl.to_string(),
        });
        let source = include_str!("../../manifests/velero/schedule.yaml.j2");
        items.extend(objects(COMPONENT, template::fill("velero/schedule.yaml.j2", source, &values)?));
    }
    Ok(items)
}

/// Changes when the credentials change, so that Velero starts again with the new ones and its location is looked at
/// anew. Keyed by the repository password: who can read the annotation can't try guesses of a weak store key.
fn credentials_mark(secrets: &[StackSecret]) -> String {
    let mut digest = Sha256::new();
    for (name, key) in [REPOSITORY_SECRET, CLOUD_SECRET] {
        let value = secrets.iter().find(|secret| secret.name == name).and_then(|secret| secret.data.get(key));
        let value = value.map_or("", |value| value.expose_secret());
        digest.update((value.len() as u64).to_be_bytes());
        digest.update(value);
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Every CRD of the release, as its own `velero install --crds-only --dry-run` prints them: the server does not start
/// when one is missing.
fn crds() -> Result<Vec<Item>> {
    let crds = template::documents("velero/crds.yaml", &packed::velero_crds())?;
    let names: Vec<String> =
        crds.iter().filter_map(|crd| crd["metadata"]["name"].as_str()).map(str::to_owned).collect();
    let waits = names.into_iter().map(|name| Item::Ready(Ready::Crd { name }));
    Ok(objects(COMPONENT, crds).chain(waits).collect())
}

/// Both Secrets, checked: their names, their keys, no value empty or still encrypted.
fn secret_objects(namespace: &str, secrets: &[StackSecret]) -> Result<Vec<Object>> {
    let needed = [CLOUD_SECRET, REPOSITORY_SECRET];
    if let Some(other) = secrets.iter().find(|secret| !needed.iter().any(|(name, _)| *name == secret.name)) {
        return Err(
            Error::invalid(format!("Secret `{}` is not one that Velero needs", other.name)).hint(HINT)
        );
    }
    needed.into_iter().map(|(name, key)| secret_object(namespace, secrets, name, key)).collect()
}

fn secret_object(namespace: &str, secrets: &[StackSecret], name: &str, key: &str) -> Result<Object> {
    let invalid = |what: String| Err(Error::invalid(what).hint(HINT));
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
    Ok(Object { secret: true, create_only: name == REPOSITORY_SECRET.0, ..object(COMPONENT, value) })
}
