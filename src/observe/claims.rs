//! The volumes of the cluster that lie on a node's own disks.

use std::path::Path;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::error::Result;

const HOSTNAME: &str = "kubernetes.io/hostname";

/// A PersistentVolume of type `local` or `hostPath`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalVolume {
    pub name: String,
    pub path: String,
    /// `namespace/name`.
    pub claim: Option<String>,
    /// The hosts it can be on; nothing when it does not say so in a way that is understood.
    pub hosts: Option<Vec<String>>,
}

/// All of the cluster, whatever their phase: the data of a released one are still there.
pub async fn local_volumes(cluster: &Cluster) -> Result<Vec<LocalVolume>> {
    let found = cluster.list("v1", "PersistentVolume", None, "").await?;
    Ok(found.iter().filter_map(LocalVolume::read).collect())
}

impl LocalVolume {
    fn read(object: &Value) -> Option<Self> {
        let spec = &object["spec"];
        let path = spec["local"]["path"].as_str().or_else(|| spec["hostPath"]["path"].as_str())?;
        let claim = &spec["claimRef"];
        let claim = claim["name"]
            .as_str()
            .map(|name| format!("{}/{name}", claim["namespace"].as_str().unwrap_or_default()));
        let terms = spec["nodeAffinity"]["required"]["nodeSelectorTerms"].as_array();
        let hosts = terms.filter(|terms| !terms.is_empty()).and_then(|terms| {
            let all: Option<Vec<Vec<String>>> = terms.iter().map(hosts).collect();
            all.map(|all| all.concat())
        });
        Some(Self {
            name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            path: path.to_owned(),
            claim,
            hosts,
        })
    }

    /// Whether it can lie below this folder of the node with these names; a node without a name can be any.
    pub fn is_on(&self, folder: &str, names: &[&str]) -> bool {
        let elsewhere = self.hosts.as_ref().is_some_and(|hosts| {
            !names.is_empty() && hosts.iter().all(|host| !names.contains(&host.as_str()))
        });
        Path::new(&self.path).starts_with(folder) && !elsewhere
    }
}

/// The hosts that one term of an affinity allows, if it names them.
fn hosts(term: &Value) -> Option<Vec<String>> {
    let rules = |key: &str| term[key].as_array().cloned().unwrap_or_default();
    let of_label = rules("matchExpressions").into_iter().filter(|rule| rule["key"] == HOSTNAME);
    let of_field = rules("matchFields").into_iter().filter(|rule| rule["key"] == "metadata.name");
    let named = of_label.chain(of_field).find(|rule| rule["operator"] == "In")?;
    let values = named["values"].as_array()?;
    Some(values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn volume(source: Value, terms: Value) -> Option<LocalVolume> {
        let mut spec = source;
        spec["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": terms}});
        spec["claimRef"] = json!({"namespace": "db", "name": "data-0"});
        LocalVolume::read(&json!({"metadata": {"name": "pvc-1"}, "spec": spec}))
    }

    #[test]
    fn a_volume_is_on_a_node_unless_it_is_certain_that_it_is_not() {
        let on = |hosts: &[&str]| json!([{"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": hosts}]}]);
        let local = |path: &str| json!({"local": {"path": path}});
        let here = "/var/mnt/openebs/pvc-1";
        let not_in =
            json!([{"matchExpressions": [{"key": HOSTNAME, "operator": "NotIn", "values": ["n2"]}]}]);
        let zone = json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]);
        let field = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]);
        let either = json!([on(&["n2"])[0], on(&["n1"])[0]]);
        let table = [
            ("local, here", local(here), on(&["n1"]), true),
            ("hostPath, here", json!({"hostPath": {"path": here}}), on(&["n1"]), true),
            ("local, by another name of the node", local(here), on(&["host-1"]), true),
            ("the folder itself", local("/var/mnt/openebs/"), on(&["n1"]), true),
            ("local, on another node", local(here), on(&["n2"]), false),
            ("by field, on another node", local(here), field, false),
            ("on this or another", local(here), either, true),
            ("another volume's folder", local("/var/mnt/openebs2/pvc-1"), on(&["n1"]), false),
            ("hostPath without affinity", json!({"hostPath": {"path": here}}), json!([]), true),
            ("affinity by zone", local(here), zone, true),
            ("affinity by exclusion", local(here), not_in, true),
        ];
        for (name, source, terms, expected) in table {
            let volume = volume(source, terms).unwrap();
            assert_eq!(volume.is_on("/var/mnt/openebs", &["n1", "host-1"]), expected, "{name}");
            assert_eq!(volume.claim.as_deref(), Some("db/data-0"));
        }
        let elsewhere = volume(local(here), on(&["n2"])).unwrap();
        assert!(elsewhere.is_on("/var/mnt/openebs", &[]), "a node without a name can be any");
        assert_eq!(volume(json!({"csi": {"driver": "x"}}), on(&["n1"])), None);
    }
}
