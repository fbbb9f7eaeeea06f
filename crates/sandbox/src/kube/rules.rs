//! What the API server adds to objects of a kind, and what it does not take.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::psa;
use super::status::Cause;

const NAME: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
    start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// What the server itself writes into a new object; nobody owns it.
pub fn begin(kind: &str, object: &mut Value) {
    match kind {
        "Namespace" => {
            object["spec"]["finalizers"] = json!(["kubernetes"]);
            object["status"] = json!({"phase": "Active"});
        }
        "PersistentVolumeClaim" => {
            default(object, "/status", &json!({"phase": "Pending"}));
            default(object, "/metadata/finalizers", &json!(["kubernetes.io/pvc-protection"]));
        }
        "PersistentVolume" => {
            default(object, "/status", &json!({"phase": "Pending"}));
            default(object, "/metadata/finalizers", &json!(["kubernetes.io/pv-protection"]));
        }
        "Pod" => default(object, "/status", &json!({"phase": "Pending", "qosClass": "BestEffort"})),
        "DaemonSet" | "Deployment" | "Job" => default(object, "/status", &json!({})),
        "CustomResourceDefinition" => {
            let stored = object["spec"]["versions"].as_array().into_iter().flatten();
            let stored =
                stored.filter(|version| version["storage"] == true).map(|version| version["name"].clone());
            let stored: Vec<Value> = stored.collect();
            default(
                object,
                "/status",
                &json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": null, "storedVersions": stored}),
            );
        }
        _ => {}
    }
}

/// What an object of the kind says where its writer says nothing.
pub fn fill(kind: &str, object: &mut Value) {
    match kind {
        "Namespace" => {
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
        }
        "Secret" => {
            default(object, "/type", &json!("Opaque"));
            strings_to_data(object);
        }
        "StorageClass" => {
            default(object, "/reclaimPolicy", &json!("Delete"));
            default(object, "/volumeBindingMode", &json!("Immediate"));
        }
        "PersistentVolumeClaim" => {
            default(object, "/spec/volumeMode", &json!("Filesystem"));
        }
        "PersistentVolume" => {
            default(object, "/spec/volumeMode", &json!("Filesystem"));
            default(object, "/spec/persistentVolumeReclaimPolicy", &json!("Retain"));
        }
        "Pod" => fill_pod(&mut object["spec"]),
        "Deployment" => {
            default(object, "/spec/replicas", &json!(1));
            default(object, "/spec/revisionHistoryLimit", &json!(10));
            default(object, "/spec/progressDeadlineSeconds", &json!(600));
            let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}});
            default(object, "/spec/strategy", &rolling);
            fill_pod(&mut object["spec"]["template"]["spec"]);
        }
        "DaemonSet" => {
            default(object, "/spec/revisionHistoryLimit", &json!(10));
            let rolling =
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
            default(object, "/spec/updateStrategy", &rolling);
            fill_pod(&mut object["spec"]["template"]["spec"]);
        }
        "Job" => {
            default(object, "/spec/backoffLimit", &json!(6));
            default(object, "/spec/completions", &json!(1));
            default(object, "/spec/parallelism", &json!(1));
            fill_pod(&mut object["spec"]["template"]["spec"]);
        }
        "CustomResourceDefinition" => default(object, "/spec/conversion", &json!({"strategy": "None"})),
        _ => {}
    }
}

fn fill_pod(spec: &mut Value) {
    for (field, value) in [
        ("/restartPolicy", json!("Always")),
        ("/dnsPolicy", json!("ClusterFirst")),
        ("/schedulerName", json!("default-scheduler")),
        ("/securityContext", json!({})),
        ("/terminationGracePeriodSeconds", json!(30)),
    ] {
        default(spec, field, &value);
    }
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let image = container["image"].as_str().unwrap_or_default();
            let latest = image.ends_with(":latest")
                || !image.rsplit('/').next().unwrap_or_default().contains([':', '@']);
            let pull = if latest { "Always" } else { "IfNotPresent" };
            for (field, value) in [
                ("/imagePullPolicy", json!(pull)),
                ("/resources", json!({})),
                ("/terminationMessagePath", json!("/dev/termination-log")),
                ("/terminationMessagePolicy", json!("File")),
            ] {
                default(container, field, &value);
            }
            for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                default(port, "/protocol", &json!("TCP"));
            }
        }
    }
}

/// Sets what does not exist; a way of names from the object down.
fn default(object: &mut Value, way: &str, value: &Value) {
    let mut at = object;
    for name in way.split('/').skip(1) {
        if !at.is_object() {
            if !at.is_null() {
                return;
            }
            *at = json!({});
        }
        at = &mut at[name];
    }
    if at.is_null() {
        *at = value.clone();
    }
}

fn strings_to_data(secret: &mut Value) {
    let Some(Value::Object(strings)) = secret.as_object_mut().and_then(|map| map.remove("stringData")) else {
        return;
    };
    for (key, text) in strings {
        secret["data"][key] = json!(BASE64_STANDARD.encode(text.as_str().unwrap_or_default()));
    }
}

/// What is wrong with an object, beyond its types; `old` is what it replaces.
pub fn causes(kind: &str, old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::from_iter(of_name(&new["metadata"]["name"]));
    match (kind, old) {
        ("Namespace", _) => causes.extend(of_level(new)),
        ("StorageClass", Some(old)) => causes.extend(of_class(old, new)),
        ("PersistentVolumeClaim", None) if new["spec"]["resources"]["requests"]["storage"].is_null() => {
            causes.push(Cause::required("spec.resources[storage]", ""));
        }
        ("PersistentVolumeClaim", Some(old)) => causes.extend(of_claim(old, new)),
        ("Deployment" | "DaemonSet" | "ReplicaSet" | "StatefulSet", _) => {
            causes.extend(of_workload(new));
            causes.extend(old.and_then(|old| of_selector(old, new)));
        }
        _ => {}
    }
    causes
}

fn of_name(name: &Value) -> Option<Cause> {
    let text = name.as_str().unwrap_or_default();
    if text.is_empty() {
        return Some(Cause::required("metadata.name", "name or generateName is required"));
    }
    let part = |part: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !part.is_empty() && part.chars().all(inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    // Roles and their bindings may be called anything that is one path segment; they hold colons.
    let ok = text.split('.').all(|one| part(&one.replace(':', "")));
    (!ok || text.len() > 253).then(|| Cause::invalid("metadata.name", name, NAME))
}

fn of_level(namespace: &Value) -> Option<Cause> {
    let level = namespace["metadata"]["labels"].get(psa::ENFORCE)?;
    let known = level.as_str().is_some_and(|level| psa::LEVELS.contains(&level));
    let field = format!("metadata.labels[{}]", psa::ENFORCE);
    (!known).then(|| Cause::invalid(&field, level, "must be one of privileged, baseline, restricted"))
}

fn of_class(old: &Value, new: &Value) -> Vec<Cause> {
    let differs = |field: &&str| old[*field] != new[*field];
    let fixed = ["parameters", "provisioner", "reclaimPolicy"].into_iter().filter(differs);
    let mut causes: Vec<Cause> =
        fixed.map(|field| Cause::forbidden(field, &format!("updates to {field} are forbidden."))).collect();
    let mode = "volumeBindingMode";
    if differs(&mode) {
        causes.push(Cause::invalid(mode, &new[mode], "field is immutable"));
    }
    causes
}

fn of_claim(old: &Value, new: &Value) -> Option<Cause> {
    let bound = old["status"]["phase"] == "Bound";
    let fixed = |claim: &Value| {
        let mut spec = claim["spec"].clone();
        if let Some(spec) = spec.as_object_mut() {
            // Binding writes the volume's name, and asks once.
            if old["spec"]["volumeName"].is_null() {
                spec.remove("volumeName");
            }
            if bound {
                spec.remove("resources");
            }
        }
        spec
    };
    let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    (fixed(old) != fixed(new)).then(|| Cause::forbidden("spec", why))
}

fn of_selector(old: &Value, new: &Value) -> Option<Cause> {
    let (old, new) = (&old["spec"]["selector"], &new["spec"]["selector"]);
    (old != new).then(|| Cause::invalid("spec.selector", new, "field is immutable"))
}

fn of_workload(workload: &Value) -> Vec<Cause> {
    let spec = &workload["spec"];
    let mut causes = Vec::new();
    if spec["selector"].is_null() {
        causes.push(Cause::required("spec.selector", ""));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let wanted = spec["selector"]["matchLabels"].as_object();
    let fits = |(key, value): (&String, &Value)| labels.get(key) == Some(value);
    if !wanted.is_some_and(|wanted| wanted.iter().all(fits)) {
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", labels, why));
    }
    match spec["template"]["spec"]["containers"].as_array() {
        None => causes.push(Cause::required("spec.template.spec.containers", "")),
        Some(containers) => {
            let without = containers.iter().enumerate().filter(|(_, container)| container["image"].is_null());
            causes.extend(without.map(|(index, _)| {
                Cause::required(&format!("spec.template.spec.containers[{index}].image"), "")
            }));
        }
    }
    causes
}
