//! Which claims a file-system backup takes along, and why another is left out.
//! Source: velero-io/velero pkg/podvolume/{backupper.go, util.go} (v1.18): it reads the files of a volume through a running pod
//! that mounts it, and skips the rest with a word in its log at most.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Serialize;

use super::selection::Selection;
use crate::model::object::TEST_RUN;

/// With this label, set to `true`, Velero leaves an object out.
const EXCLUDED: &str = "velero.io/exclude-from-backup";
/// The pod's volumes that are left out, by their names in the pod; and those that are taken, where not all of them are.
const LEFT_OUT: &str = "backup.velero.io/backup-volumes-excludes";
const TAKEN: &str = "backup.velero.io/backup-volumes";

/// What of the cluster a person asks to back up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    All,
    Namespaces(Vec<String>),
    /// What has all of these labels.
    Labels(Vec<(String, String)>),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all namespaces"),
            Self::Namespaces(names) if names.len() == 1 => write!(f, "namespace {}", names.join("")),
            Self::Namespaces(names) => write!(f, "namespaces {}", names.join(", ")),
            Self::Labels(labels) => {
                let labels: Vec<String> =
                    labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "what has the label {}", labels.join(","))
            }
        }
    }
}

impl Scope {
    /// What a backup of the scope takes: the files of every volume unless its pod says otherwise.
    pub fn selection(&self) -> Selection {
        let all = Selection::everything();
        match self {
            Self::All => all,
            Self::Namespaces(names) => Selection { included_namespaces: Some(names.clone()), ..all },
            Self::Labels(labels) => {
                let labels = Some(labels.iter().cloned().collect());
                let selector = LabelSelector { match_labels: labels, ..LabelSelector::default() };
                Selection { label_selector: Some(selector), ..all }
            }
        }
    }
}

/// What decides whose files are read, as the cluster lists it.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    pub claims: Vec<PersistentVolumeClaim>,
    pub pods: Vec<Pod>,
    pub volumes: Vec<PersistentVolume>,
    /// The nodes on which Velero's agent runs.
    pub agents: BTreeSet<String>,
}

impl Lists {
    /// Lists without what nodeprep's own checks made; the agents are pods of Velero's namespace.
    pub fn new(
        mut claims: Vec<PersistentVolumeClaim>,
        pods: Vec<Pod>,
        volumes: Vec<PersistentVolume>,
        velero: &str,
    ) -> Self {
        claims.retain(|claim| label(&claim.metadata, TEST_RUN).is_none());
        // Source: velero pkg/nodeagent/node_agent.go: the server finds its agents by this label.
        let agent = |pod: &&Pod| {
            pod.metadata.namespace.as_deref() == Some(velero)
                && label(&pod.metadata, "name") == Some("node-agent")
                && phase(pod) == "Running"
        };
        let agents = pods.iter().filter(agent).map(|pod| node_of(pod).to_owned()).collect();
        Self { claims, pods, volumes, agents }
    }
}

/// A claim, by its namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ClaimName {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for ClaimName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Why the files of a claim are in no backup. Of several pods that have it, the one that comes nearest tells: the last of these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeftOut {
    /// It has no volume yet.
    Unbound,
    /// No pod has it.
    Unused,
    /// A pod has it that the backup does not take.
    PodNotTaken {
        pod: String,
    },
    /// No pod that has it runs; the phase of one of them.
    NotRunning {
        pod: String,
        phase: String,
    },
    HostPath {
        volume: String,
    },
    Block,
    /// No container of the pod mounts it.
    NotMounted {
        pod: String,
    },
    /// By an annotation of the pod.
    ByPod {
        pod: String,
    },
    /// The backup takes only volumes that their pods name, and this one does not.
    NotNamed {
        pod: String,
    },
    /// Velero's agent does not run on the pod's node.
    NoAgent {
        pod: String,
        node: String,
    },
    /// By a label of the claim, of its pod or of its PersistentVolume.
    ByLabel {
        of: String,
    },
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unbound => f.write_str("it has no volume yet"),
            Self::PodNotTaken { pod } => {
                write!(f, "its pod {pod} is not taken, and Velero reads files through the pod")
            }
            Self::Unused => f.write_str("no pod mounts it, and Velero reads files through a running pod"),
            Self::NotRunning { pod, phase } => write!(f, "its pod {pod} is {phase}, not Running"),
            Self::HostPath { volume } => {
                write!(f, "its PersistentVolume {volume} is a hostPath, which Velero skips")
            }
            Self::Block => f.write_str("it is a block volume, which Velero does not read"),
            Self::NotMounted { pod } => write!(f, "no container of pod {pod} mounts it"),
            Self::ByPod { pod } => write!(f, "pod {pod} leaves it out by its annotation {LEFT_OUT}"),
            Self::NotNamed { pod } => {
                write!(
                    f,
                    "only volumes that a pod names in its annotation {TAKEN} are read, and pod {pod} does not"
                )
            }
            Self::NoAgent { pod, node } => {
                write!(f, "Velero's agent does not run on node {node}, where its pod {pod} is")
            }
            Self::ByLabel { of } => write!(f, "{of} has the label {EXCLUDED}"),
        }
    }
}

/// A claim whose files are read, and through which volume of which pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Covered {
    pub claim: ClaimName,
    pub uid: String,
    pub pod: String,
    /// Its name in the pod.
    pub volume: String,
}

/// What a backup takes along.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    pub covered: Vec<Covered>,
    pub left_out: BTreeMap<ClaimName, LeftOut>,
}

impl Coverage {
    /// Of those of the claims that are in the selection.
    pub fn of(selection: &Selection, lists: &Lists) -> Self {
        let mut coverage = Self::default();
        for claim in lists.claims.iter().filter(|claim| is_in(selection, claim, lists)) {
            match covered(selection, claim, lists) {
                Ok(covered) => coverage.covered.push(covered),
                // There is nothing to lose yet.
                Err(LeftOut::Unbound) => {}
                Err(why) => {
                    coverage.left_out.insert(name_of(&claim.metadata), why);
                }
            }
        }
        coverage.covered.sort();
        coverage
    }
}

/// Whether a claim is in the selection: for itself, or since a pod that is taken brings it.
pub fn is_in(selection: &Selection, claim: &PersistentVolumeClaim, lists: &Lists) -> bool {
    let name = name_of(&claim.metadata);
    selection.takes(&claim.metadata)
        || (selection.takes_namespace(&name.namespace)
            && users(&name, &lists.pods).any(|(pod, _)| selection.takes(&pod.metadata)))
}

/// Through which pod a claim's files are read, or why they are not.
///
/// # Errors
/// Why it is left out.
pub fn covered(
    selection: &Selection,
    claim: &PersistentVolumeClaim,
    lists: &Lists,
) -> Result<Covered, LeftOut> {
    let name = name_of(&claim.metadata);
    may_be_read(claim, &name, &lists.volumes)?;
    let mut why = LeftOut::Unused;
    for (pod, volume) in users(&name, &lists.pods) {
        match through(selection, pod, volume, &lists.agents) {
            Ok(()) => {
                return Ok(Covered {
                    claim: name.clone(),
                    uid: claim.metadata.uid.clone().unwrap_or_default(),
                    pod: pod.metadata.name.clone().unwrap_or_default(),
                    volume: volume.name.clone(),
                });
            }
            Err(reason) => why = why.max(reason),
        }
    }
    Err(why)
}

/// Whether the claim and its volume are such as Velero reads.
fn may_be_read(
    claim: &PersistentVolumeClaim,
    name: &ClaimName,
    volumes: &[PersistentVolume],
) -> Result<(), LeftOut> {
    if excluded(&claim.metadata) {
        return Err(LeftOut::ByLabel { of: format!("claim {name}") });
    }
    let spec = claim.spec.clone().unwrap_or_default();
    let Some(bound) = spec.volume_name.as_deref().filter(|bound| !bound.is_empty()) else {
        return Err(LeftOut::Unbound);
    };
    if let Some(volume) = volumes.iter().find(|volume| volume.metadata.name.as_deref() == Some(bound)) {
        if volume.spec.as_ref().is_some_and(|spec| spec.host_path.is_some()) {
            return Err(LeftOut::HostPath { volume: bound.to_owned() });
        }
        if excluded(&volume.metadata) {
            return Err(LeftOut::ByLabel { of: format!("PersistentVolume {bound}") });
        }
    }
    if spec.volume_mode.as_deref() == Some("Block") { Err(LeftOut::Block) } else { Ok(()) }
}

/// The pods that have the claim, and as which of their volumes.
pub(super) fn users<'a>(claim: &ClaimName, pods: &'a [Pod]) -> impl Iterator<Item = (&'a Pod, &'a Volume)> {
    let here = |pod: &&Pod| pod.metadata.namespace.as_deref() == Some(claim.namespace.as_str());
    pods.iter().filter(here).filter_map(|pod| Some((pod, volume_of(pod, &claim.name)?)))
}

/// The pod's volume that is this claim: also one that is made for the pod alone.
fn volume_of<'a>(pod: &'a Pod, claim: &str) -> Option<&'a Volume> {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    pod.spec.as_ref()?.volumes.as_deref().unwrap_or_default().iter().find(|volume| {
        let named = volume.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == claim);
        named || (volume.ephemeral.is_some() && format!("{pod_name}-{}", volume.name) == claim)
    })
}

/// Whether Velero reads the files of the pod's volume.
fn through(
    selection: &Selection,
    pod: &Pod,
    volume: &Volume,
    agents: &BTreeSet<String>,
) -> Result<(), LeftOut> {
    let name = || pod.metadata.name.clone().unwrap_or_default();
    if excluded(&pod.metadata) {
        return Err(LeftOut::ByLabel { of: format!("pod {}", name()) });
    }
    if !selection.takes(&pod.metadata) {
        return Err(LeftOut::PodNotTaken { pod: name() });
    }
    let listed = |annotation: &str| {
        let listed = pod.metadata.annotations.as_ref().and_then(|all| all.get(annotation));
        listed.is_some_and(|names| names.split(',').any(|one| one.trim() == volume.name))
    };
    if selection.default_volumes_to_fs_backup != Some(true) {
        if !listed(TAKEN) {
            return Err(LeftOut::NotNamed { pod: name() });
        }
    } else if listed(LEFT_OUT) {
        return Err(LeftOut::ByPod { pod: name() });
    }
    if phase(pod) != "Running" {
        return Err(LeftOut::NotRunning { pod: name(), phase: phase(pod).to_owned() });
    }
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut mounted = containers.flat_map(|container| container.volume_mounts.iter().flatten());
    if !mounted.any(|mount| mount.name == volume.name) {
        return Err(LeftOut::NotMounted { pod: name() });
    }
    match node_of(pod) {
        node if agents.contains(node) => Ok(()),
        node => Err(LeftOut::NoAgent { pod: name(), node: node.to_owned() }),
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn excluded(metadata: &ObjectMeta) -> bool {
    label(metadata, EXCLUDED) == Some("true")
}

pub fn name_of(metadata: &ObjectMeta) -> ClaimName {
    ClaimName {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn claim(labels: Value, mode: &str) -> PersistentVolumeClaim {
        let value = json!({
            "metadata": {"name": "data", "namespace": "a", "uid": "u", "labels": labels},
            "spec": {"volumeName": "pv", "volumeMode": mode},
        });
        from_value(value).unwrap()
    }

    fn pod(metadata: Value, phase: &str, mounts: Value) -> Pod {
        let mut value = json!({
            "metadata": {"name": "p", "namespace": "a"},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "volumeMounts": mounts}],
                     "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]},
            "status": {"phase": phase},
        });
        for (key, part) in metadata.as_object().unwrap() {
            value["metadata"][key] = part.clone();
        }
        from_value(value).unwrap()
    }

    fn agent(node: &str) -> Pod {
        let metadata = json!({"name": node, "namespace": "velero", "labels": {"name": "node-agent"}});
        let spec = json!({"nodeName": node, "containers": []});
        from_value(json!({"metadata": metadata, "spec": spec, "status": {"phase": "Running"}})).unwrap()
    }

    fn volume(source: Value) -> PersistentVolume {
        let mut value = json!({"metadata": {"name": "pv"}, "spec": source});
        value["spec"]["capacity"] = json!({"storage": "1Gi"});
        from_value(value).unwrap()
    }

    #[test]
    fn a_claim_is_covered_through_a_running_pod_that_mounts_it_and_else_the_reason_is_told() {
        let mounts = json!([{"name": "v", "mountPath": "/data"}]);
        let (none, local) = (json!({}), json!({"local": {"path": "/x"}}));
        let files = || claim(json!({}), "Filesystem");
        let running = |metadata: Value| vec![pod(metadata, "Running", mounts.clone()), agent("n1")];
        let out = json!({"annotations": {LEFT_OUT: "other, v"}});
        let label = json!({EXCLUDED: "true"});
        let pending = vec![pod(none.clone(), "Pending", mounts.clone()), agent("n1")];
        let idle = vec![pod(none.clone(), "Running", json!([])), agent("n1")];
        let elsewhere = vec![pod(none.clone(), "Running", mounts.clone()), agent("n2")];
        for (claim, pods, source, why) in [
            (files(), running(none.clone()), &local, None),
            (files(), vec![agent("n1")], &local, Some("no pod mounts it")),
            (files(), pending, &local, Some("pod p is Pending")),
            (files(), idle, &local, Some("no container of pod p")),
            (files(), elsewhere, &local, Some("agent does not run on node n1")),
            (files(), running(out), &local, Some("pod p leaves it out")),
            (files(), running(json!({"labels": label})), &local, Some("pod p has the label")),
            (claim(label, "Filesystem"), running(none.clone()), &local, Some("claim a/data has the label")),
            (claim(none.clone(), "Block"), running(none.clone()), &local, Some("block volume")),
            (files(), running(none.clone()), &json!({"hostPath": {"path": "/x"}}), Some("is a hostPath")),
        ] {
            let lists = Lists::new(vec![claim], pods, vec![volume(source.clone())], "velero");
            let coverage = Coverage::of(&Scope::All.selection(), &lists);
            let told = coverage.left_out.values().next().map(ToString::to_string);
            assert_eq!(told.is_some(), why.is_some(), "{told:?} {why:?}");
            assert!(told.unwrap_or_default().contains(why.unwrap_or_default()), "{why:?}");
            assert_eq!(coverage.covered.len(), usize::from(why.is_none()));
        }
    }

    #[test]
    fn where_not_all_volumes_are_read_the_pod_names_those_that_are() {
        let mounts = json!([{"name": "v", "mountPath": "/data"}]);
        let some = Selection::default();
        for (annotations, covered) in [(json!({}), 0), (json!({TAKEN: "v"}), 1), (json!({TAKEN: "w"}), 0)] {
            let pods = vec![pod(json!({"annotations": annotations}), "Running", mounts.clone()), agent("n1")];
            let lists = Lists::new(vec![claim(json!({}), "Filesystem")], pods, Vec::new(), "velero");
            assert_eq!(Coverage::of(&some, &lists).covered.len(), covered);
        }
    }

    #[test]
    fn one_running_pod_of_several_is_enough_and_a_pods_own_claim_is_its() {
        let mounts = json!([{"name": "v", "mountPath": "/data"}]);
        let pods = vec![
            pod(json!({}), "Succeeded", mounts.clone()),
            pod(json!({"name": "q"}), "Running", mounts.clone()),
            agent("n1"),
        ];
        let lists = Lists::new(vec![claim(json!({}), "Filesystem")], pods, Vec::new(), "velero");
        assert_eq!(Coverage::of(&Scope::All.selection(), &lists).covered[0].pod, "q");

        let mut own = pod(json!({"labels": {"app": "p"}}), "Running", mounts);
        let spec = own.spec.as_mut().unwrap();
        spec.volumes = from_value(json!([{"name": "v", "ephemeral": {}}])).unwrap();
        let mut made = claim(json!({}), "Filesystem");
        made.metadata.name = Some("p-v".into());
        let lists = Lists::new(vec![made], vec![own, agent("n1")], Vec::new(), "velero");
        // A pod that is taken along for its labels brings the claim that was made for it.
        let labels = |value: &str| Scope::Labels(vec![("app".into(), value.into())]);
        for (scope, covered) in [(Scope::All, 1), (labels("p"), 1), (labels("q"), 0)] {
            assert_eq!(Coverage::of(&scope.selection(), &lists).covered.len(), covered, "{scope}");
        }
    }

    #[test]
    fn a_claim_with_the_labels_is_left_out_while_its_pod_has_them_not() {
        let pods = vec![pod(json!({}), "Running", json!([{"name": "v", "mountPath": "/data"}])), agent("n1")];
        let lists = Lists::new(vec![claim(json!({"app": "p"}), "Filesystem")], pods, Vec::new(), "velero");
        let scope = Scope::Labels(vec![("app".into(), "p".into())]);
        let left_out = Coverage::of(&scope.selection(), &lists).left_out;
        assert_eq!(left_out.values().next(), Some(&LeftOut::PodNotTaken { pod: "p".into() }));
    }

    #[test]
    fn what_the_checks_made_is_nobodys_data_and_without_a_volume_there_is_none() {
        let unbound = PersistentVolumeClaim { spec: None, ..claim(json!({}), "Filesystem") };
        let lists = Lists::new(vec![unbound], vec![], vec![], "velero");
        assert_eq!(Coverage::of(&Scope::All.selection(), &lists), Coverage::default());
        let lists = Lists::new(vec![claim(json!({TEST_RUN: "r"}), "Filesystem")], vec![], vec![], "velero");
        assert_eq!(Coverage::of(&Scope::All.selection(), &lists), Coverage::default());
    }
}
