//! The nodes that a class is judged on: those that the file gives its volume, and any other that the class allows.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use super::broken;
use crate::cluster::Cluster;
use crate::error::Result;
use crate::intent::{Class, Intent};
use crate::judge::taints::{self, CONTROL_PLANES, set_taints};
use crate::judge::workload::node_lacks;
use crate::model::HOSTNAME;

/// A Kubernetes node that is to hold volumes of a class.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StorageNode {
    /// Its name in Kubernetes; its address in the file while it has none.
    pub name: String,
    /// The value of its label `kubernetes.io/hostname`, by which pods and volumes are pinned.
    pub hostname: String,
    /// The file does not ask for volumes here; the class allows them all the same.
    pub beyond: bool,
    /// Why no probe can run here.
    pub unfit: Option<Unfit>,
    /// Its taints that somebody set: key and effect. Those of Kubernetes itself say that it is not well.
    taints: Vec<(String, String)>,
}

/// The effects of taints that keep pods away.
const KEEP: [&str; 2] = ["NoSchedule", "NoExecute"];

/// Why a node can hold no volume of a class now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unfit {
    pub why: String,
    pub hint: String,
}

/// What the nodes of a class are told from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nodes<'a> {
    pub listed: &'a [Node],
    pub intent: &'a Intent,
    /// The names in Kubernetes of the file's addresses, where the machines told them.
    pub names: &'a BTreeMap<String, String>,
    /// Only these, by address or name; all when empty.
    pub scope: &'a [String],
}

impl Nodes<'_> {
    /// The nodes of a class, by name; `live` is the class as the cluster has it.
    ///
    /// The file's nodes that get its volume; without nodes in the file those with its labels; without either every
    /// schedulable one. Besides, any that the live class allows.
    pub(super) fn of(&self, class: &Class, live: Option<&StorageClass>) -> Vec<StorageNode> {
        let mut found: BTreeMap<String, StorageNode> = BTreeMap::new();
        if self.intent.nodes.is_empty() {
            let wanted: Vec<&Node> = match self.intent.labels.is_empty() {
                true => self.open(),
                false => self.listed.iter().filter(|n| lacking(n, &self.intent.labels).is_empty()).collect(),
            };
            for node in wanted {
                let node = self.judged(node, class, live, &self.intent.labels);
                found.insert(node.name.clone(), node);
            }
        }
        let addresses = self.intent.nodes.iter().map(|node| node.address.as_str());
        for address in addresses.filter(|address| self.intent.gives(address, class)) {
            let node = match self.node(address) {
                Some(node) => self.judged(node, class, live, &self.intent.on(address).labels),
                None => absent(address),
            };
            found.insert(node.name.clone(), node);
        }
        for node in self.open().into_iter().filter(|node| is_allowed(node, live)) {
            let other = StorageNode { beyond: true, ..self.judged(node, class, live, &BTreeMap::new()) };
            if other.unfit.is_none() {
                found.entry(other.name.clone()).or_insert(other);
            }
        }
        found.into_values().filter(|node| self.in_scope(node)).collect()
    }

    /// The nodes that pods may be sent to: those that nothing keeps for others; else, where there are only control planes, those.
    fn open(&self) -> Vec<&Node> {
        let but = |tolerated: &[&str]| -> Vec<&Node> {
            let kept = |taint: &Taint| {
                KEEP.contains(&taint.effect.as_str()) && !tolerated.contains(&taint.key.as_str())
            };
            self.listed.iter().filter(|node| !set_taints(node).any(kept)).collect()
        };
        let open = but(&[]);
        if open.is_empty() { but(&CONTROL_PLANES) } else { open }
    }

    /// The names of the scope that are of no node at all.
    pub(super) fn unknown(&self) -> Vec<&str> {
        let file = |name: &String| self.intent.nodes.iter().any(|node| node.address == *name);
        let known = |name: &&String| file(name) || self.node(name).is_some();
        self.scope.iter().filter(|name| !known(name)).map(String::as_str).collect()
    }

    fn in_scope(&self, node: &StorageNode) -> bool {
        let is =
            |asked: &String| *asked == node.name || self.node(asked).is_some_and(|n| name(n) == node.name);
        self.scope.is_empty() || self.scope.iter().any(is)
    }

    /// The node that the file or the command line calls so.
    fn node(&self, address: &str) -> Option<&Node> {
        let told = self.names.get(address).map(String::as_str);
        self.listed.iter().find(|node| match told {
            Some(told) => name(node) == told,
            None => {
                let known = node.status.iter().filter_map(|s| s.addresses.as_ref()).flatten();
                name(node) == address || known.into_iter().any(|known| known.address == address)
            }
        })
    }

    fn judged(
        &self,
        node: &Node,
        class: &Class,
        live: Option<&StorageClass>,
        labels: &BTreeMap<String, String>,
    ) -> StorageNode {
        let name = name(node).to_owned();
        let hostname = labels_of(node).and_then(|l| l.get(HOSTNAME)).unwrap_or(&name).clone();
        let taints = set_taints(node).map(|taint| (taint.key.clone(), taint.effect.clone())).collect();
        StorageNode { unfit: unfit(node, class, live, labels), hostname, name, beyond: false, taints }
    }
}

fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

fn labels_of(node: &Node) -> Option<&BTreeMap<String, String>> {
    node.metadata.labels.as_ref()
}

fn absent(address: &str) -> StorageNode {
    let why = format!("the cluster has no node with the address {address}");
    let hint = "is the machine up, and has it joined (`nodeprep discover`)? What is not to hold volumes is taken out of \
                the file"
        .to_owned();
    let unfit = Some(Unfit { why, hint });
    let (name, taints) = (address.to_owned(), Vec::new());
    StorageNode { hostname: name.clone(), name, beyond: false, unfit, taints }
}

/// Why no volume of the class can be used on the node now.
fn unfit(
    node: &Node,
    class: &Class,
    live: Option<&StorageClass>,
    labels: &BTreeMap<String, String>,
) -> Option<Unfit> {
    let name = name(node);
    let missing = lacking(node, labels);
    let (why, hint) = if let Some(why) = node_lacks(node) {
        (format!("node {name} is NotReady: {why}"), format!("`kubectl describe node {name}` says more"))
    } else if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        (format!("node {name} is cordoned: no pod can be sent there"), format!("`kubectl uncordon {name}`"))
    } else if !missing.is_empty() {
        let why = format!("node {name} lacks the label {}", missing.join(", "));
        (why, "`nodeprep apply` sets it through the machine config".to_owned())
    } else if !is_allowed(node, live) {
        let why = format!("class {} does not allow node {name} (allowedTopologies)", class.name);
        (why, "`nodeprep apply` limits the class to the nodes that have its volume".to_owned())
    } else {
        return None;
    };
    Some(Unfit { why, hint })
}

/// The labels that it does not have, as text.
fn lacking(node: &Node, labels: &BTreeMap<String, String>) -> Vec<String> {
    let has = |key: &str, value: &String| labels_of(node).and_then(|labels| labels.get(key)) == Some(value);
    let missing = labels.iter().filter(|(key, value)| !has(key, value));
    missing.map(|(key, value)| format!("{key}={value}")).collect()
}

/// What lets a pod run on any of these nodes although they are kept for others.
pub(super) fn tolerations<'a>(nodes: impl IntoIterator<Item = &'a StorageNode>) -> Vec<Value> {
    let taints = nodes.into_iter().flat_map(|node| &node.taints);
    taints::tolerations(taints.map(|(key, effect)| (key.as_str(), effect.as_str())))
}

/// The CSI drivers that the kubelet of each node has registered.
pub(super) async fn drivers(cluster: &Cluster) -> Result<Vec<CSINode>> {
    let listed = Api::<CSINode>::all(cluster.client()).list(&ListParams::default()).await;
    Ok(listed.map_err(broken("can't list the drivers of nodes (CSINode)"))?.items)
}

/// Whether a node has a CSI driver.
pub(super) fn has_driver(drivers: &[CSINode], node: &str, driver: &str) -> bool {
    let on = drivers.iter().filter(|one| one.metadata.name.as_deref() == Some(node));
    on.flat_map(|one| &one.spec.drivers).any(|one| one.name == driver)
}

/// Whether the class lets its volumes be made on the node: any of its terms holds, or it has none
/// (k8s.io/component-helpers, MatchTopologySelectorTerms).
fn is_allowed(node: &Node, live: Option<&StorageClass>) -> bool {
    let terms = live.and_then(|class| class.allowed_topologies.as_deref()).unwrap_or_default();
    let value = |key: &str| labels_of(node).and_then(|labels| labels.get(key));
    let holds = |key: &str, values: &[String]| value(key).is_some_and(|value| values.contains(value));
    terms.is_empty()
        || terms.iter().any(|term| {
            let wanted = term.match_label_expressions.as_deref().unwrap_or_default();
            !wanted.is_empty() && wanted.iter().all(|one| holds(&one.key, &one.values))
        })
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn intent(labels: Value, nodes: Value) -> Intent {
        serde_json::from_value(json!({
            "apiVersion": "nodeprep.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "lab"},
            "labels": labels, "nodes": nodes,
            "volumes": [{"name": "fast", "disk": {"match": "true"}, "minSize": "1GiB"}],
        }))
        .unwrap()
    }

    /// A Ready node n1, n2, … with the address 10.0.0.1, 10.0.0.2, …, changed so.
    fn node(number: usize, change: impl Fn(&mut Value)) -> Node {
        let name = format!("n{number}");
        let mut node = json!({
            "metadata": {"name": name, "labels": {HOSTNAME: format!("{name}.lan"), "storage": "yes"}},
            "status": {
                "addresses": [{"type": "InternalIP", "address": format!("10.0.0.{number}")}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        change(&mut node);
        serde_json::from_value(node).unwrap()
    }

    fn class() -> Class {
        serde_json::from_value(json!({"name": "c", "basePath": "/var/mnt/fast"})).unwrap()
    }

    fn live(topologies: Value) -> StorageClass {
        let class = json!({"metadata": {"name": "c"}, "provisioner": "p", "allowedTopologies": topologies});
        serde_json::from_value(class).unwrap()
    }

    /// Name, whether it is beyond the file, and why it is unfit.
    fn told(nodes: &[Node], intent: &Intent, live: &StorageClass, scope: &[&str]) -> Vec<String> {
        let (names, scope) = (BTreeMap::new(), scope.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        let nodes = Nodes { listed: nodes, intent, names: &names, scope: &scope };
        let one = |node: StorageNode| {
            let beyond = if node.beyond { " beyond" } else { "" };
            let unfit = node.unfit.map(|unfit| format!(": {}", unfit.why)).unwrap_or_default();
            format!("{}{beyond}{unfit}", node.name)
        };
        nodes.of(&class(), Some(live)).into_iter().map(one).collect()
    }

    fn plain(_: &mut Value) {}
    fn unlabelled(node: &mut Value) {
        node["metadata"]["labels"] = json!({HOSTNAME: node["metadata"]["name"]});
    }
    fn cordoned(node: &mut Value) {
        node["spec"] = json!({"unschedulable": true, "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]});
    }
    fn tainted(node: &mut Value) {
        node["spec"] =
            json!({"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]});
    }
    fn off(node: &mut Value) {
        node["status"]["conditions"][0] =
            json!({"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status."});
    }

    #[test]
    fn every_node_of_the_file_has_its_place_and_its_reason() {
        let nodes = [node(1, plain), node(2, unlabelled), node(3, off), node(4, cordoned), node(5, tainted)];
        let listed = json!([
            {"address": "10.0.0.1"}, {"address": "10.0.0.2"}, {"address": "n3"}, {"address": "10.0.0.4"},
            {"address": "10.0.0.5"}, {"address": "10.0.0.9"},
        ]);
        let only = live(json!([{"matchLabelExpressions": [{"key": "storage", "values": ["yes"]}]}]));
        assert_eq!(
            told(&nodes, &intent(json!({"storage": "yes"}), listed), &only, &[]),
            [
                "10.0.0.9: the cluster has no node with the address 10.0.0.9",
                "n1",
                "n2: node n2 lacks the label storage=yes",
                "n3: node n3 is NotReady: Kubelet stopped posting node status.",
                "n4: node n4 is cordoned: no pod can be sent there",
                "n5",
            ]
        );
    }

    #[test]
    fn nodes_are_chosen_by_the_file_then_by_labels_then_all_that_take_pods() {
        let nodes = [node(1, plain), node(2, unlabelled), node(3, tainted)];
        let (any, none) = (live(Value::Null), json!({}));
        let only = live(json!([{"matchLabelExpressions": [{"key": HOSTNAME, "values": ["n1.lan"]}]}]));
        let (first, labels) = (json!([{"address": "10.0.0.1"}]), json!({"storage": "yes"}));
        let without = json!([{"address": "10.0.0.1"}, {"address": "10.0.0.2", "volumes": {"fast": null}}]);
        for (what, intent, live, scope, expected) in [
            ("neither", intent(none.clone(), json!([])), &any, vec![], vec!["n1", "n2"]),
            ("labels", intent(labels.clone(), json!([])), &any, vec![], vec!["n1", "n2 beyond", "n3"]),
            (
                "labels, limited",
                intent(labels, json!([])),
                &only,
                vec![],
                vec!["n1", "n3: class c does not allow node n3 (allowedTopologies)"],
            ),
            ("nodes", intent(none.clone(), first.clone()), &any, vec![], vec!["n1", "n2 beyond"]),
            ("nodes, limited", intent(none.clone(), first), &only, vec![], vec!["n1"]),
            ("a node without the volume", intent(none.clone(), without.clone()), &only, vec![], vec!["n1"]),
            ("one that is allowed it", intent(none.clone(), without), &any, vec![], vec!["n1", "n2 beyond"]),
            ("scope, by address", intent(none.clone(), json!([])), &any, vec!["10.0.0.2"], vec!["n2"]),
            ("scope, by name", intent(none, json!([])), &any, vec!["n1"], vec!["n1"]),
        ] {
            assert_eq!(told(&nodes, &intent, live, &scope), expected, "{what}");
        }
    }

    #[test]
    fn where_there_are_only_control_planes_they_are_proven() {
        let any = live(Value::Null);
        let nodes = [node(1, tainted), node(2, tainted)];
        assert_eq!(told(&nodes, &intent(json!({}), json!([])), &any, &[]), ["n1", "n2"]);
        assert_eq!(
            told(&[node(1, tainted), node(2, plain)], &intent(json!({}), json!([])), &any, &[]),
            ["n2"]
        );
    }

    #[test]
    fn pods_tolerate_what_keeps_a_storage_node_for_others_and_not_that_it_is_unwell() {
        let taint = |key: &str, effect: &str| json!({ "key": key, "value": "x", "effect": effect });
        let taints = [
            taint("storage", "NoSchedule"),
            taint("node.kubernetes.io/not-ready", "NoExecute"),
            taint("node.kubernetes.io/unschedulable", "NoSchedule"),
        ];
        let nodes = [node(1, |node| node["spec"] = json!({"taints": taints}))];
        let (intent, names) = (intent(json!({}), json!([{"address": "n1"}])), BTreeMap::new());
        let nodes = Nodes { listed: &nodes, intent: &intent, names: &names, scope: &[] };
        assert_eq!(
            tolerations(&nodes.of(&class(), None)),
            [json!({ "key": "storage", "operator": "Exists", "effect": "NoSchedule" })]
        );
    }

    #[test]
    fn a_name_that_is_nobodys_is_known_before_anything_is_judged() {
        let (nodes, intent) = ([node(1, plain)], intent(json!({}), json!([{"address": "10.0.0.7"}])));
        let names = BTreeMap::from([("host.lan".to_owned(), "n1".to_owned())]);
        let scope = ["n1", "10.0.0.1", "10.0.0.7", "host.lan", "n9"].map(str::to_owned);
        let nodes = Nodes { listed: &nodes, intent: &intent, names: &names, scope: &scope };
        assert_eq!(nodes.unknown(), ["n9"]);
    }

    #[test]
    fn a_class_allows_what_any_of_its_terms_allows() {
        let one = |key: &str, values: &[&str]| json!({"key": key, "values": values});
        let terms = |terms: Value| live(terms);
        let node = node(1, plain);
        for (what, class, allowed) in [
            ("no terms", terms(Value::Null), true),
            (
                "one of its values",
                terms(json!([{"matchLabelExpressions": [one("storage", &["no", "yes"])]}])),
                true,
            ),
            (
                "all of a term",
                terms(json!([{"matchLabelExpressions": [one("storage", &["yes"]), one("zone", &["a"])]}])),
                false,
            ),
            (
                "any term",
                terms(
                    json!([{"matchLabelExpressions": [one("zone", &["a"])]}, {"matchLabelExpressions": [one("storage", &["yes"])]}]),
                ),
                true,
            ),
            ("an empty term", terms(json!([{}])), false),
        ] {
            assert_eq!(is_allowed(&node, Some(&class)), allowed, "{what}");
        }
    }
}
