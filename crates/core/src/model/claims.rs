//! What of the cluster may have its data on a node's own disks: volumes, pods, CSI drivers.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::NodeSelectorTerm;
use serde::Deserialize;
use serde_json::Value;

use super::affinity::{Fit, fit};

/// All of the cluster, whatever its phase: the data of a released volume and of a pod that has ended are still there.
#[derive(Debug, Clone, Default)]
pub struct Users {
    pub nodes: Vec<KubeNode>,
    pub volumes: Vec<Claimed>,
    /// Pods, and what would make some and has none.
    pub pods: Vec<Mounting>,
    /// The CSI drivers that run on each node, by its name.
    pub drivers: BTreeMap<String, BTreeSet<String>>,
    pub attached: Vec<Attached>,
    pub pools: Vec<Pool>,
}

/// A node as the cluster knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeNode {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub addresses: Vec<String>,
}

/// A PersistentVolume whose bytes may be a node's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    pub name: String,
    /// `namespace/name`.
    pub claim: Option<String>,
    /// Of type `local` or `hostPath`; or what a CSI driver noted of it.
    pub paths: Vec<String>,
    pub driver: Option<String>,
    /// The terms of its node affinity.
    pub terms: Vec<NodeSelectorTerm>,
}

/// A pod with folders or devices of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounting {
    /// `pod namespace/name`.
    pub name: String,
    /// Nothing when it has none yet.
    pub node: Option<String>,
    pub selector: BTreeMap<String, String>,
    pub paths: Vec<String>,
    /// It is there; else it is only what would make it.
    pub is_there: bool,
}

/// A volume that a CSI driver has attached to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    pub node: String,
    pub driver: String,
    pub volume: String,
}

/// An object that names disks or folders of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub title: String,
    /// Its own name, and the node's that it is said to be of.
    pub of: Vec<String>,
    pub paths: Vec<String>,
}

/// Objects as the cluster lists them.
#[derive(Debug, Default)]
pub struct Lists {
    pub nodes: Vec<Value>,
    pub volumes: Vec<Value>,
    pub pods: Vec<Value>,
    pub drivers: Vec<Value>,
    pub attached: Vec<Value>,
    /// What makes pods: its kind, where their template lies in it, and the objects.
    pub makers: Vec<(&'static str, &'static str, Vec<Value>)>,
    /// In which storage systems note their disks: the kind and the objects.
    pub pools: Vec<(&'static str, Vec<Value>)>,
}

impl From<&Lists> for Users {
    fn from(lists: &Lists) -> Self {
        let idle = lists.makers.iter().flat_map(|(kind, template, makers)| {
            makers.iter().filter_map(|maker| idle(kind, maker, template))
        });
        let pools =
            lists.pools.iter().flat_map(|(kind, pools)| pools.iter().map(|pool| Pool::read(kind, pool)));
        let mut pools: Vec<Pool> = pools.filter(|pool| !pool.paths.is_empty()).collect();
        pools.sort_by(|a, b| a.title.cmp(&b.title));
        pools.dedup_by(|a, b| a.title == b.title);
        Self {
            nodes: lists.nodes.iter().map(KubeNode::read).collect(),
            volumes: lists.volumes.iter().filter_map(Claimed::read).collect(),
            pods: lists.pods.iter().filter_map(pod).chain(idle).collect(),
            drivers: lists.drivers.iter().map(|node| (name(node), driver_names(node))).collect(),
            attached: lists.attached.iter().map(Attached::read).collect(),
            pools,
        }
    }
}

impl KubeNode {
    fn read(node: &Value) -> Self {
        let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
        let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
        Self {
            name: name(node),
            labels: labels.map(|(key, value)| (key.clone(), text(value))).collect(),
            addresses: addresses.map(|address| text(&address["address"])).collect(),
        }
    }

    /// Whether terms of a node affinity allow it; what is not understood allows all.
    fn fits(&self, terms: &[NodeSelectorTerm]) -> bool {
        fit(terms, &self.name, &self.labels) != Fit::No
    }
}

impl Claimed {
    fn read(object: &Value) -> Option<Self> {
        let spec = &object["spec"];
        let csi = &spec["csi"];
        let of_node = [&spec["local"]["path"], &spec["hostPath"]["path"]];
        let mut paths: Vec<String> =
            of_node.iter().filter_map(|path| path.as_str().map(str::to_owned)).collect();
        paths_in(csi, &mut paths);
        let driver = csi["driver"].as_str().map(str::to_owned);
        let claim = &spec["claimRef"];
        let claim = claim["name"].as_str().map(|name| format!("{}/{name}", text(&claim["namespace"])));
        // Of terms that can't be read nothing is certain, as of none.
        let terms = &spec["nodeAffinity"]["required"]["nodeSelectorTerms"];
        let terms = Vec::deserialize(terms).unwrap_or_default();
        (driver.is_some() || !paths.is_empty()).then(|| Self {
            name: name(object),
            claim,
            paths,
            driver,
            terms,
        })
    }

    /// Whether its bytes can be on one of these nodes: no other of the cluster is the one that its affinity names. A node
    /// that the cluster does not know can be any.
    pub fn can_be_on(&self, here: &[&KubeNode], all: &[KubeNode]) -> bool {
        let mut fitting = all.iter().filter(|node| node.fits(&self.terms)).peekable();
        here.is_empty() || fitting.peek().is_none() || fitting.any(|node| here.contains(&node))
    }
}

impl std::fmt::Display for Claimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PersistentVolume {}", self.name)?;
        self.claim.as_ref().map_or(Ok(()), |claim| write!(f, " (claim {claim})"))
    }
}

fn pod(pod: &Value) -> Option<Mounting> {
    let spec = &pod["spec"];
    let node = spec["nodeName"].as_str().filter(|node| !node.is_empty()).map(str::to_owned);
    mounting(format!("pod {}", full_name(pod)), node, spec, true)
}

/// What makes pods and has none at the moment.
fn idle(kind: &str, maker: &Value, template: &str) -> Option<Mounting> {
    let count = |key: &str| maker.pointer(key).and_then(Value::as_u64);
    let has_pods = match kind {
        "CronJob" => false,
        "DaemonSet" => count("/status/desiredNumberScheduled") != Some(0),
        _ => count("/spec/replicas") != Some(0),
    };
    let spec = maker.pointer(template).filter(|_| !has_pods)?;
    mounting(format!("{kind} {}", full_name(maker)), None, spec, false)
}

fn mounting(name: String, node: Option<String>, spec: &Value, is_there: bool) -> Option<Mounting> {
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let paths = volumes.filter_map(|volume| volume["hostPath"]["path"].as_str().map(str::to_owned));
    let paths: Vec<String> = paths.collect();
    let selector = spec["nodeSelector"].as_object().into_iter().flatten();
    let selector = selector.map(|(key, value)| (key.clone(), text(value))).collect();
    (!paths.is_empty()).then_some(Mounting { name, node, selector, paths, is_there })
}

impl Mounting {
    /// Whether it is, or can come to be, on one of these nodes; one that the cluster does not know can be any.
    pub fn can_be_on(&self, here: &[&KubeNode]) -> bool {
        let fits = |node: &&KubeNode| match &self.node {
            Some(name) => *name == node.name,
            None => self.selector.iter().all(|(key, value)| node.labels.get(key) == Some(value)),
        };
        here.is_empty() || here.iter().any(fits)
    }
}

impl Attached {
    fn read(object: &Value) -> Self {
        let spec = &object["spec"];
        let volume = text(&spec["source"]["persistentVolumeName"]);
        Self { node: text(&spec["nodeName"]), driver: text(&spec["attacher"]), volume }
    }
}

impl Pool {
    fn read(kind: &str, object: &Value) -> Self {
        let mut paths = Vec::new();
        paths_in(&object["spec"], &mut paths);
        let of = [name(object), text(&object["spec"]["node"])].into();
        Self { title: format!("{kind} {}", full_name(object)), of, paths }
    }

    /// Whether it is not said to be of another node.
    pub fn can_be_on(&self, here: &[&KubeNode], all: &[KubeNode]) -> bool {
        let named = |node: &KubeNode| self.of.contains(&node.name);
        here.is_empty() || here.iter().any(|node| named(node)) || !all.iter().any(named)
    }
}

/// Every text below a value that can be a path, without the scheme that some write before it.
fn paths_in(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            let path = text.split_once("://").map_or(text.as_str(), |(_, path)| path);
            let path = path.split(['?', '#']).next().unwrap_or(path);
            if path.starts_with('/') {
                found.push(path.to_owned());
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths_in(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| paths_in(field, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn driver_names(node: &Value) -> BTreeSet<String> {
    let drivers = node["spec"]["drivers"].as_array().into_iter().flatten();
    drivers.map(|driver| text(&driver["name"])).collect()
}

fn name(object: &Value) -> String {
    text(&object["metadata"]["name"])
}

fn full_name(object: &Value) -> String {
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{}", name(object)),
        None => name(object),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    const HOSTNAME: &str = "kubernetes.io/hostname";

    fn node(name: &str, zone: &str) -> KubeNode {
        KubeNode::read(&json!({
            "metadata": {"name": name, "labels": {HOSTNAME: format!("{name}.lan"), "zone": zone}},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("10.0.0.{zone}")}]},
        }))
    }

    #[test]
    fn a_volume_is_on_a_node_unless_it_is_certain_that_it_is_on_another() {
        let all = [node("n1", "1"), node("n2", "2")];
        let rule = |key: &str, operator: &str, values: &[&str]| json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]);
        let field = |name: &str| json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]);
        let either = json!([rule("zone", "In", &["2"])[0], rule("zone", "In", &["1"])[0]]);
        for (name, terms, expected) in [
            ("its hostname", rule(HOSTNAME, "In", &["n1.lan"]), true),
            ("another's hostname", rule(HOSTNAME, "In", &["n2.lan"]), false),
            ("a hostname that no node has any more", rule(HOSTNAME, "In", &["n1"]), true),
            ("its zone", rule("zone", "In", &["1"]), true),
            ("another's zone", rule("zone", "In", &["2"]), false),
            ("not in its zone", rule("zone", "NotIn", &["1"]), false),
            ("a label that both have", rule("zone", "Exists", &[]), true),
            ("an operator that nobody knows", rule("zone", "Near", &["2"]), true),
            ("another's name", field("n2"), false),
            ("one of two", either, true),
            ("no affinity", json!([]), true),
            ("nothing", Value::Null, true),
        ] {
            let spec =
                json!({"local": {"path": "/p"}, "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}});
            let volume = Claimed::read(&json!({"metadata": {"name": "pv"}, "spec": spec})).unwrap();
            assert_eq!(volume.can_be_on(&[&all[0]], &all), expected, "{name}");
            assert!(volume.can_be_on(&[], &all), "{name}: a node that the cluster does not know");
        }
    }

    #[test]
    fn what_may_have_bytes_on_a_node_is_read_with_its_paths() {
        let spec = json!({"csi": {"driver": "d", "volumeHandle": "h", "volumeAttributes": {"pool": "aio:///dev/sdb?size=1"}},
            "claimRef": {"namespace": "db", "name": "data-0"}});
        let volume = Claimed::read(&json!({"metadata": {"name": "pv"}, "spec": spec})).unwrap();
        assert_eq!((volume.paths, volume.driver.as_deref()), (vec!["/dev/sdb".to_owned()], Some("d")));
        assert_eq!(Claimed::read(&json!({"spec": {"nfs": {"path": "/x"}}})), None);
        let volumes = json!([{"hostPath": {"path": "/a"}}, {"emptyDir": {}}]);
        let metadata = json!({"namespace": "x", "name": "y"});
        let found =
            pod(&json!({"metadata": metadata, "spec": {"nodeName": "n1", "volumes": volumes}})).unwrap();
        assert_eq!(
            (found.name.as_str(), found.node.as_deref(), &found.paths[..]),
            ("pod x/y", Some("n1"), &["/a".to_owned()][..])
        );
        assert!(pod(&json!({"metadata": metadata, "spec": {"volumes": [{"emptyDir": {}}]}})).is_none());
        let template = json!({"spec": {"volumes": volumes, "nodeSelector": {"zone": "1"}}});
        let all = [node("n1", "1"), node("n2", "2")];
        for (kind, spec, path, idles) in [
            ("Deployment", json!({"replicas": 0, "template": template}), "/spec/template/spec", true),
            ("Deployment", json!({"replicas": 1, "template": template}), "/spec/template/spec", false),
            ("Deployment", json!({"template": template}), "/spec/template/spec", false),
            (
                "CronJob",
                json!({"jobTemplate": {"spec": {"template": template}}}),
                "/spec/jobTemplate/spec/template/spec",
                true,
            ),
        ] {
            let found = idle(kind, &json!({"metadata": metadata, "spec": spec}), path);
            assert_eq!(found.is_some(), idles, "{kind}");
            if let Some(found) = found {
                assert!(found.can_be_on(&[&all[0]]) && !found.can_be_on(&[&all[1]]) && !found.is_there);
            }
        }
        let pool = Pool::read(
            "DiskPool",
            &json!({"metadata": metadata, "spec": {"node": "n1", "disks": ["uring:///dev/sdb"]}}),
        );
        assert_eq!((pool.title.as_str(), &pool.paths[..]), ("DiskPool x/y", &["/dev/sdb".to_owned()][..]));
        assert!(pool.can_be_on(&[&all[0]], &all) && !pool.can_be_on(&[&all[1]], &all));
    }
}
