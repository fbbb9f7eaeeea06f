//! Which claims a file-system backup takes along, and why another is left out.
//! Source: velero-io/velero pkg/podvolume/{backupper.go, util.go} (v1.18): it reads the files of a volume through a running pod
//! that mounts it, and skips the rest with a word in its log at most.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

/// With this label, set to `true`, Velero leaves an object out.
const EXCLUDED: &str = "velero.io/exclude-from-backup";
/// The pod's volumes that are left out, by their names in the pod.
const LEFT_OUT: &str = "backup.velero.io/backup-volumes-excludes";

/// What of the cluster is backed up.
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
            Self::Labels(_) => write!(f, "what has the label {}", self.selector()),
        }
    }
}

impl Scope {
    /// As a list of objects is asked for it; empty where labels decide nothing.
    pub fn selector(&self) -> String {
        let Self::Labels(labels) = self else { return String::new() };
        labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    }

    /// Whether a claim is in it; of pods with labels, those are `pods` that have them all.
    fn takes(&self, claim: &PersistentVolumeClaim, pods: &[Pod]) -> bool {
        let name = name_of(&claim.metadata);
        match self {
            Self::All => true,
            Self::Namespaces(names) => names.contains(&name.namespace),
            Self::Labels(labels) => {
                let has = claim.metadata.labels.as_ref();
                let labelled = |(key, value)| has.and_then(|has| has.get(key)) == Some(value);
                // A pod that is taken along brings its claims.
                labels.iter().map(|(key, value)| (key, value)).all(labelled)
                    || users(&name, pods).next().is_some()
            }
        }
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

/// Why the files of a claim are in no backup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeftOut {
    /// No pod has it.
    Unused,
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
    /// By a label of the claim, of its pod or of its PersistentVolume.
    ByLabel {
        of: String,
    },
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unused => f.write_str("no pod mounts it, and Velero reads files through a running pod"),
            Self::NotRunning { pod, phase } => write!(f, "its pod {pod} is {phase}, not Running"),
            Self::HostPath { volume } => {
                write!(f, "its PersistentVolume {volume} is a hostPath, which Velero skips")
            }
            Self::Block => f.write_str("it is a block volume, which Velero does not read"),
            Self::NotMounted { pod } => write!(f, "no container of pod {pod} mounts it"),
            Self::ByPod { pod } => write!(f, "pod {pod} leaves it out by its annotation {LEFT_OUT}"),
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

/// What a backup of some namespaces takes along.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    pub covered: Vec<Covered>,
    pub left_out: BTreeMap<ClaimName, LeftOut>,
}

impl Coverage {
    /// Of those of the claims that are in the scope, where every volume of a pod goes through the file-system backup unless the
    /// pod says otherwise. `pods` are those that [`Scope::selector`] asks for.
    pub fn of(
        scope: &Scope,
        claims: &[PersistentVolumeClaim],
        pods: &[Pod],
        volumes: &[PersistentVolume],
    ) -> Self {
        let mut coverage = Self::default();
        for claim in claims.iter().filter(|claim| scope.takes(claim, pods)) {
            let found = look(claim, pods, volumes);
            match found {
                Ok(covered) => coverage.covered.push(covered),
                Err(why) => {
                    coverage.left_out.insert(name_of(&claim.metadata), why);
                }
            }
        }
        coverage.covered.sort();
        coverage
    }
}

fn look(
    claim: &PersistentVolumeClaim,
    pods: &[Pod],
    volumes: &[PersistentVolume],
) -> Result<Covered, LeftOut> {
    let name = name_of(&claim.metadata);
    let spec = claim.spec.clone().unwrap_or_default();
    if excluded(&claim.metadata) {
        return Err(LeftOut::ByLabel { of: format!("claim {name}") });
    }
    let bound = spec.volume_name.as_deref().unwrap_or_default();
    if let Some(volume) = volumes.iter().find(|volume| volume.metadata.name.as_deref() == Some(bound)) {
        if volume.spec.as_ref().is_some_and(|spec| spec.host_path.is_some()) {
            return Err(LeftOut::HostPath { volume: bound.to_owned() });
        }
        if excluded(&volume.metadata) {
            return Err(LeftOut::ByLabel { of: format!("PersistentVolume {bound}") });
        }
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(LeftOut::Block);
    }
    let mut why = LeftOut::Unused;
    for (pod, volume) in users(&name, pods) {
        match through(pod, volume) {
            Ok(()) => {
                return Ok(Covered {
                    claim: name.clone(),
                    uid: claim.metadata.uid.clone().unwrap_or_default(),
                    pod: pod.metadata.name.clone().unwrap_or_default(),
                    volume: volume.name.clone(),
                });
            }
            Err(reason) => why = reason,
        }
    }
    Err(why)
}

/// The pods that have the claim, and as which of their volumes.
fn users<'a>(claim: &ClaimName, pods: &'a [Pod]) -> impl Iterator<Item = (&'a Pod, &'a Volume)> {
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
fn through(pod: &Pod, volume: &Volume) -> Result<(), LeftOut> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    if excluded(&pod.metadata) {
        return Err(LeftOut::ByLabel { of: format!("pod {name}") });
    }
    let annotations = pod.metadata.annotations.clone().unwrap_or_default();
    let listed = annotations.get(LEFT_OUT).map(String::as_str).unwrap_or_default();
    if listed.split(',').any(|left_out| left_out.trim() == volume.name) {
        return Err(LeftOut::ByPod { pod: name });
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    if phase != "Running" {
        return Err(LeftOut::NotRunning { pod: name, phase });
    }
    let spec = pod.spec.clone().unwrap_or_default();
    let mut mounted = spec.containers.iter().flat_map(|container| container.volume_mounts.iter().flatten());
    match mounted.any(|mount| mount.name == volume.name) {
        true => Ok(()),
        false => Err(LeftOut::NotMounted { pod: name }),
    }
}

fn excluded(metadata: &ObjectMeta) -> bool {
    metadata.labels.as_ref().and_then(|labels| labels.get(EXCLUDED)).is_some_and(|value| value == "true")
}

fn name_of(metadata: &ObjectMeta) -> ClaimName {
    ClaimName {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(labels: Value, mode: &str) -> PersistentVolumeClaim {
        let value = json!({
            "metadata": {"name": "data", "namespace": "a", "uid": "u", "labels": labels},
            "spec": {"volumeName": "pv", "volumeMode": mode},
        });
        serde_json::from_value(value).unwrap()
    }

    fn pod(metadata: Value, phase: &str, mounts: Value) -> Pod {
        let mut value = json!({
            "metadata": {"name": "p", "namespace": "a"},
            "spec": {"containers": [{"name": "c", "volumeMounts": mounts}],
                     "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]},
            "status": {"phase": phase},
        });
        for (key, part) in metadata.as_object().unwrap() {
            value["metadata"][key] = part.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn volume(source: Value) -> PersistentVolume {
        let mut value = json!({"metadata": {"name": "pv"}, "spec": source});
        value["spec"]["capacity"] = json!({"storage": "1Gi"});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_claim_is_covered_through_a_running_pod_that_mounts_it_and_else_the_reason_is_told() {
        let mounts = json!([{"name": "v", "mountPath": "/data"}]);
        let (none, local) = (json!({}), json!({"local": {"path": "/x"}}));
        let running = |metadata: Value| vec![pod(metadata, "Running", mounts.clone())];
        let out = json!({"annotations": {LEFT_OUT: "other, v"}});
        let label = json!({EXCLUDED: "true"});
        for (claim, pods, source, why) in [
            (claim(none.clone(), "Filesystem"), running(none.clone()), &local, None),
            (claim(none.clone(), "Filesystem"), Vec::new(), &local, Some("no pod mounts it")),
            (
                claim(none.clone(), "Filesystem"),
                vec![pod(none.clone(), "Pending", mounts.clone())],
                &local,
                Some("pod p is Pending"),
            ),
            (
                claim(none.clone(), "Filesystem"),
                vec![pod(none.clone(), "Running", json!([]))],
                &local,
                Some("no container of pod p"),
            ),
            (claim(none.clone(), "Filesystem"), running(out), &local, Some("pod p leaves it out")),
            (
                claim(none.clone(), "Filesystem"),
                running(json!({"labels": label})),
                &local,
                Some("pod p has the label"),
            ),
            (claim(label, "Filesystem"), running(none.clone()), &local, Some("claim a/data has the label")),
            (claim(none.clone(), "Block"), running(none.clone()), &local, Some("block volume")),
            (
                claim(none.clone(), "Filesystem"),
                running(none.clone()),
                &json!({"hostPath": {"path": "/x"}}),
                Some("is a hostPath"),
            ),
        ] {
            let coverage =
                Coverage::of(&Scope::All, std::slice::from_ref(&claim), &pods, &[volume(source.clone())]);
            let told = coverage.left_out.values().next().map(ToString::to_string);
            assert_eq!(told.is_some(), why.is_some(), "{told:?} {why:?}");
            assert!(told.unwrap_or_default().contains(why.unwrap_or_default()), "{why:?}");
            assert_eq!(coverage.covered.len(), usize::from(why.is_none()));
        }
    }

    #[test]
    fn one_running_pod_of_several_is_enough_and_a_pods_own_claim_is_its() {
        let mounts = json!([{"name": "v", "mountPath": "/data"}]);
        let pods = [
            pod(json!({}), "Succeeded", mounts.clone()),
            pod(json!({"name": "q"}), "Running", mounts.clone()),
        ];
        let coverage = Coverage::of(&Scope::All, &[claim(json!({}), "Filesystem")], &pods, &[]);
        assert_eq!(coverage.covered[0].pod, "q");

        let mut own = pod(json!({}), "Running", mounts);
        let spec = own.spec.as_mut().unwrap();
        spec.volumes = serde_json::from_value(json!([{"name": "v", "ephemeral": {}}])).unwrap();
        let mut made = claim(json!({}), "Filesystem");
        made.metadata.name = Some("p-v".into());
        // A pod that is taken along for its labels brings the claim that was made for it.
        for scope in [Scope::All, Scope::Labels(vec![("app".into(), "p".into())])] {
            let (made, own) = (std::slice::from_ref(&made), std::slice::from_ref(&own));
            assert_eq!(Coverage::of(&scope, made, own, &[]).covered.len(), 1, "{scope}");
        }
    }
}
