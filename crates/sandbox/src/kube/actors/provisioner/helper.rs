//! The pods that work on the volumes' directories for the provisioner, from the nodes themselves.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::{names, objects::list, text};

/// What a helper pod does with a volume's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Init,
    Quota,
    Cleanup,
}

impl Work {
    pub(super) const ALL: [Self; 3] = [Self::Init, Self::Quota, Self::Cleanup];

    fn word(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Quota => "quota",
            Self::Cleanup => "cleanup",
        }
    }

    /// The name of its pod for a volume.
    pub(super) fn name(self, volume: &str) -> String {
        format!("{}-{volume}", self.word())
    }

    fn command(self, directory: &str, size: &str) -> Value {
        match self {
            Self::Init => json!(["mkdir", "-m", "0777", "-p", directory]),
            Self::Quota => {
                let project = format!("-c 'project -s -p {directory} 1' -c 'limit -p bhard={size} 1'");
                json!(["sh", "-c", format!("xfs_quota -x {project} /data")])
            }
            Self::Cleanup => json!(["rm", "-rf", directory]),
        }
    }

    /// The pod that does it on the volume's node.
    pub(super) fn pod(self, volume: &Value, node: &Value, image: &str, account: &str) -> Value {
        let (_, name) = names(volume);
        let base = text(volume, "/spec/local/path").rsplit_once('/').map_or("", |(base, _)| base);
        let size = text(volume, "/spec/capacity/storage");
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.name(name)},
            "spec": {
                "restartPolicy": "Never",
                "serviceAccountName": account,
                "affinity": {"nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": volume["spec"]["nodeAffinity"]["required"],
                }},
                "tolerations": tolerations(node),
                "containers": [{
                    "name": format!("local-path-{}", self.word()), "image": image, "imagePullPolicy": "IfNotPresent",
                    "command": self.command(&format!("/data/{name}"), size),
                    "securityContext": {"privileged": true},
                    "volumeMounts": [
                        {"name": "data", "mountPath": "/data"}, {"name": "dev", "mountPath": "/dev"},
                    ],
                }],
                "volumes": [
                    {"name": "data", "hostPath": {"path": base}}, {"name": "dev", "hostPath": {"path": "/dev"}},
                ],
            },
        })
    }
}

/// The nodes with these labels.
pub(super) fn affinity(labels: &BTreeMap<String, String>) -> Value {
    let terms: Vec<Value> =
        labels.iter().map(|(key, value)| json!({"key": key, "operator": "In", "values": [value]})).collect();
    json!({"nodeSelectorTerms": [{"matchExpressions": terms}]})
}

/// The labels that a volume is bound by; None when they are not one value each.
pub(super) fn labels_of(volume: &Value) -> Option<BTreeMap<String, String>> {
    let terms = list(volume, "/spec/nodeAffinity/required/nodeSelectorTerms").iter();
    let expressions = terms.flat_map(|term| list(term, "/matchExpressions"));
    let label = |expression: &Value| match list(expression, "/values") {
        [Value::String(value)] => Some((text(expression, "/key").to_owned(), value.clone())),
        _ => None,
    };
    let labels: BTreeMap<String, String> =
        expressions.filter(|expression| expression["operator"] == "In").map(label).collect::<Option<_>>()?;
    (!labels.is_empty()).then_some(labels)
}

/// The helper may run wherever the volume's pod was allowed to.
fn tolerations(node: &Value) -> Vec<Value> {
    let taints = list(node, "/spec/taints").iter();
    taints
        .map(|taint| {
            json!({"key": taint["key"], "operator": "Equal", "value": taint["value"], "effect": taint["effect"]})
        })
        .collect()
}
