//! What of the cluster may have its data on a node's own disks, from the objects that it lists.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod, PodSpec};
use k8s_openapi::api::storage::v1::{CSINode, VolumeAttachment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::pods::some;
use crate::model::affinity::terms;
use crate::model::claims::{Attached, Claimed, KubeNode, Mounting, Pool, Users};

/// Objects as the cluster lists them.
#[derive(Debug, Default)]
pub struct Lists {
    pub nodes: Vec<Node>,
    pub volumes: Vec<PersistentVolume>,
    pub pods: Vec<Pod>,
    pub drivers: Vec<CSINode>,
    pub attached: Vec<VolumeAttachment>,
    pub deployments: Vec<Deployment>,
    pub stateful_sets: Vec<StatefulSet>,
    pub daemon_sets: Vec<DaemonSet>,
    pub cron_jobs: Vec<CronJob>,
    /// In which storage systems note their disks: the kind and the objects.
    pub pools: Vec<(&'static str, Vec<Value>)>,
}

/// What the lists say.
pub fn users(lists: &Lists) -> Users {
    let pools = lists.pools.iter().flat_map(|(kind, pools)| pools.iter().map(|one| pool(kind, one)));
    let mut pools: Vec<Pool> = pools.filter(|pool| !pool.paths.is_empty()).collect();
    pools.sort_by(|a, b| a.title.cmp(&b.title));
    pools.dedup_by(|a, b| a.title == b.title);
    Users {
        nodes: lists.nodes.iter().map(node).collect(),
        volumes: lists.volumes.iter().filter_map(claimed).collect(),
        pods: lists.pods.iter().filter_map(pod).chain(idle(lists)).collect(),
        drivers: lists.drivers.iter().map(drivers).collect(),
        attached: lists.attached.iter().map(attached).collect(),
        pools,
    }
}

fn node(node: &Node) -> KubeNode {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    KubeNode {
        name: name(&node.metadata),
        labels: node.metadata.labels.clone().unwrap_or_default(),
        addresses: addresses.map(|address| address.address.clone()).collect(),
    }
}

fn claimed(volume: &PersistentVolume) -> Option<Claimed> {
    let spec = volume.spec.as_ref()?;
    let local = spec.local.as_ref().map(|local| local.path.clone());
    let host_path = spec.host_path.as_ref().map(|host_path| host_path.path.clone());
    let mut paths: Vec<String> = local.into_iter().chain(host_path).collect();
    if let Some(csi) = &spec.csi {
        let noted = csi.volume_attributes.iter().flat_map(|attributes| attributes.values());
        paths.extend(noted.chain([&csi.volume_handle]).filter_map(|text| path(text)));
    }
    let driver = spec.csi.as_ref().map(|csi| csi.driver.clone());
    let claim = spec.claim_ref.as_ref().and_then(|claim| {
        let name = claim.name.as_ref()?;
        Some(format!("{}/{name}", some(&claim.namespace)))
    });
    (driver.is_some() || !paths.is_empty()).then(|| Claimed {
        name: name(&volume.metadata),
        claim,
        paths,
        driver,
        terms: terms(volume).to_vec(),
    })
}

fn pod(pod: &Pod) -> Option<Mounting> {
    let spec = pod.spec.as_ref()?;
    let node = spec.node_name.clone().filter(|node| !node.is_empty());
    mounting(format!("pod {}", full_name(&pod.metadata)), node, spec, true)
}

/// What makes pods and has none at the moment.
fn idle(lists: &Lists) -> impl Iterator<Item = Mounting> {
    let deployments = lists.deployments.iter().filter(|one| one.spec.replicas == Some(0));
    let deployments = deployments.map(|one| ("Deployment", &one.metadata, &one.spec.template));
    let sets = lists.stateful_sets.iter().filter(|one| one.spec.replicas == Some(0));
    let sets = sets.map(|one| ("StatefulSet", &one.metadata, &one.spec.template));
    let nowhere =
        |set: &&DaemonSet| set.status.as_ref().is_some_and(|status| status.desired_number_scheduled == 0);
    let daemons = lists.daemon_sets.iter().filter(nowhere);
    let daemons = daemons.map(|one| ("DaemonSet", &one.metadata, &one.spec.template));
    let jobs = lists
        .cron_jobs
        .iter()
        .filter_map(|one| Some(("CronJob", &one.metadata, &one.spec.job_template.spec.as_ref()?.template)));
    let makers = deployments.chain(sets).chain(daemons).chain(jobs);
    makers.filter_map(|(kind, metadata, template)| {
        mounting(format!("{kind} {}", full_name(metadata)), None, template.spec.as_ref()?, false)
    })
}

fn mounting(name: String, node: Option<String>, spec: &PodSpec, is_there: bool) -> Option<Mounting> {
    let volumes = spec.volumes.iter().flatten().filter_map(|volume| volume.host_path.as_ref());
    let paths: Vec<String> = volumes.map(|host_path| host_path.path.clone()).collect();
    let selector = spec.node_selector.clone().unwrap_or_default();
    (!paths.is_empty()).then_some(Mounting { name, node, selector, paths, is_there })
}

fn drivers(node: &CSINode) -> (String, BTreeSet<String>) {
    let drivers = node.spec.drivers.iter().map(|driver| driver.name.clone());
    (name(&node.metadata), drivers.collect())
}

fn attached(object: &VolumeAttachment) -> Attached {
    let volume = object.spec.source.persistent_volume_name.clone().unwrap_or_default();
    Attached { node: object.spec.node_name.clone(), driver: object.spec.attacher.clone(), volume }
}

/// Of kinds that nothing is known of but that they name disks.
fn pool(kind: &str, object: &Value) -> Pool {
    let mut paths = Vec::new();
    paths_in(&object["spec"], &mut paths);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = text(&object["metadata"]["name"]);
    let full_name = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.clone(),
    };
    Pool { title: format!("{kind} {full_name}"), of: vec![name, text(&object["spec"]["node"])], paths }
}

/// Every path below a value.
fn paths_in(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.extend(path(text)),
        Value::Array(items) => items.iter().for_each(|item| paths_in(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| paths_in(field, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A text that can be a path, without the scheme that some write before it.
fn path(text: &str) -> Option<String> {
    let path = text.split_once("://").map_or(text, |(_, path)| path);
    let path = path.split(['?', '#']).next().unwrap_or(path);
    path.starts_with('/').then(|| path.to_owned())
}

fn name(metadata: &ObjectMeta) -> String {
    some(&metadata.name).to_owned()
}

fn full_name(metadata: &ObjectMeta) -> String {
    match &metadata.namespace {
        Some(namespace) => format!("{namespace}/{}", name(metadata)),
        None => name(metadata),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{from_value, json};

    use super::*;
    use crate::model::object;

    fn read<K: DeserializeOwned>(object: Value) -> K {
        from_value(object).unwrap()
    }

    const HOSTNAME: &str = "kubernetes.io/hostname";

    fn kube_node(name: &str, zone: &str) -> KubeNode {
        node(&read(json!({
            "metadata": {"name": name, "labels": {HOSTNAME: format!("{name}.lan"), "zone": zone}},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("10.0.0.{zone}")}]},
        })))
    }

    #[test]
    fn a_volume_is_on_a_node_unless_it_is_certain_that_it_is_on_another() {
        let all = [kube_node("n1", "1"), kube_node("n2", "2")];
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
            let volume = claimed(&read(json!({"metadata": {"name": "pv"}, "spec": spec}))).unwrap();
            assert_eq!(volume.can_be_on(&[&all[0]], &all), expected, "{name}");
            assert!(volume.can_be_on(&[], &all), "{name}: a node that the cluster does not know");
        }
    }

    #[test]
    fn what_may_have_bytes_on_a_node_is_read_with_its_paths() {
        let spec = json!({"csi": {"driver": "d", "volumeHandle": "h", "volumeAttributes": {"pool": "aio:///dev/sdb?size=1"}},
            "claimRef": {"namespace": "db", "name": "data-0"}});
        let volume = claimed(&read(json!({"metadata": {"name": "pv"}, "spec": spec}))).unwrap();
        assert_eq!((volume.paths, volume.driver.as_deref()), (vec!["/dev/sdb".to_owned()], Some("d")));
        assert_eq!(claimed(&read(json!({"spec": {"nfs": {"server": "s", "path": "/x"}}}))), None);
        let volumes = json!([{"hostPath": {"path": "/a"}}, {"emptyDir": {}}]);
        let metadata = json!({"namespace": "x", "name": "y"});
        let found = pod(&read(json!({"metadata": metadata, "spec": {"nodeName": "n1", "volumes": volumes}})))
            .unwrap();
        assert_eq!(
            (found.name.as_str(), found.node.as_deref(), &found.paths[..]),
            ("pod x/y", Some("n1"), &["/a".to_owned()][..])
        );
        assert!(pod(&read(json!({"metadata": metadata, "spec": {"volumes": [{"emptyDir": {}}]}}))).is_none());
        let template = json!({"spec": {"volumes": volumes, "nodeSelector": {"zone": "1"}}});
        let all = [kube_node("n1", "1"), kube_node("n2", "2")];
        let deployment = |replicas: Value| Lists {
            deployments: vec![read(
                json!({"metadata": metadata, "spec": {"replicas": replicas, "template": template}}),
            )],
            ..Lists::default()
        };
        let daemon_set = |wanted: Option<u32>| Lists {
            daemon_sets: vec![read(json!({"metadata": metadata, "spec": {"template": template},
                "status": wanted.map(|wanted| json!({"desiredNumberScheduled": wanted}))}))],
            ..Lists::default()
        };
        let job_template = json!({"spec": {"template": template}});
        let cron_job = read(json!({"metadata": metadata, "spec": {"jobTemplate": job_template}}));
        let set = read(json!({"metadata": metadata, "spec": {"replicas": 0, "template": template}}));
        for (what, lists, idles) in [
            ("Deployment of none", deployment(json!(0)), true),
            ("Deployment of one", deployment(json!(1)), false),
            ("Deployment that does not say", deployment(Value::Null), false),
            ("StatefulSet of none", Lists { stateful_sets: vec![set], ..Lists::default() }, true),
            ("DaemonSet that fits nowhere", daemon_set(Some(0)), true),
            ("DaemonSet on a node", daemon_set(Some(1)), false),
            ("DaemonSet that nobody has looked at", daemon_set(None), false),
            ("CronJob", Lists { cron_jobs: vec![cron_job], ..Lists::default() }, true),
        ] {
            let found = idle(&lists).next();
            assert_eq!(found.is_some(), idles, "{what}");
            if let Some(found) = found {
                assert!(found.can_be_on(&[&all[0]]) && !found.can_be_on(&[&all[1]]) && !found.is_there);
            }
        }
        let pool = pool(
            "DiskPool",
            &json!({"metadata": metadata, "spec": {"node": "n1", "disks": ["uring:///dev/sdb"]}}),
        );
        assert_eq!((pool.title.as_str(), &pool.paths[..]), ("DiskPool x/y", &["/dev/sdb".to_owned()][..]));
        assert!(pool.can_be_on(&[&all[0]], &all) && !pool.can_be_on(&[&all[1]], &all));
    }

    #[test]
    fn an_object_that_cannot_be_read_is_an_error_that_names_it() {
        let metadata = json!({"namespace": "x", "name": "y"});
        let pod = json!({"metadata": metadata, "spec": {"volumes": "none"}});
        let error = object::read::<Pod>(&pod).unwrap_err();
        assert!(error.what.starts_with("Pod x/y: what the API server says of it can't be read: "), "{error}");
        let volume = json!({"metadata": {"name": "pv"}, "spec": {"nodeAffinity": {"required": []}}});
        assert!(
            object::read::<PersistentVolume>(&volume)
                .is_err_and(|e| e.what.starts_with("PersistentVolume pv: "))
        );
    }
}
