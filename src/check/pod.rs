//! The pods and jobs of the checks, as Pod Security's `restricted` level wants them.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::judge::taints::beside_control_planes;
use crate::model::HOSTNAME;
use crate::model::frame;

/// Where a probe's claim is mounted.
pub(super) const DATA: &str = "/data";
/// The label by which a probe's pod is found, whether a job made it or not.
pub(super) const PROBE: &str = "nodeprep.dev/probe";
/// The name of a probe's container.
pub(super) const CONTAINER: &str = "probe";
const NOBODY: u32 = 65534;

/// One pod that does some work with a claim, prints the framed result and ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe<'a> {
    pub name: &'a str,
    pub image: &'a str,
    /// Shell commands; the first that fails ends the work.
    pub work: &'a str,
    pub claim: &'a str,
    /// The values of the label `kubernetes.io/hostname` that its node may have; any node when empty. Never
    /// `spec.nodeName`: that bypasses the scheduler, and a claim that waits for its first consumer would wait for ever.
    pub hosts: &'a [String],
    /// Beside those of control planes.
    pub tolerations: &'a [Value],
}

impl Probe<'_> {
    pub(super) fn pod(&self) -> Result<Pod> {
        typed(json!({
            "metadata": { "name": self.name, "labels": { PROBE: self.name } },
            "spec": self.spec(),
        }))
    }

    /// A job that tries once and gives up after `seconds`.
    pub(super) fn job(&self, seconds: u64) -> Result<Job> {
        typed(json!({
            "metadata": { "name": self.name },
            "spec": {
                "backoffLimit": 0,
                "activeDeadlineSeconds": seconds,
                "template": { "metadata": { "labels": { PROBE: self.name } }, "spec": self.spec() },
            },
        }))
    }

    fn spec(&self) -> Value {
        let mut spec = json!({
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": NOBODY, "runAsGroup": NOBODY, "fsGroup": NOBODY,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "tolerations": beside_control_planes(self.tolerations),
            "containers": [{
                "name": CONTAINER,
                "image": self.image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/sh", "-c", frame::script(self.work)],
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
                "volumeMounts": [
                    { "name": "data", "mountPath": DATA },
                    { "name": "tmp", "mountPath": "/tmp" },
                ],
            }],
            "volumes": [
                { "name": "data", "persistentVolumeClaim": { "claimName": self.claim } },
                { "name": "tmp", "emptyDir": {} },
            ],
        });
        match self.hosts {
            [] => {}
            [host] => spec["nodeSelector"] = json!({ HOSTNAME: host }),
            hosts => {
                let any = json!({ "key": HOSTNAME, "operator": "In", "values": hosts });
                let terms = json!({ "nodeSelectorTerms": [{ "matchExpressions": [any] }] });
                spec["affinity"]["nodeAffinity"] =
                    json!({ "requiredDuringSchedulingIgnoredDuringExecution": terms });
            }
        }
        spec
    }
}

/// The typed object of a literal; an error would be a mistake of ours.
pub(super) fn typed<K: DeserializeOwned>(value: Value) -> Result<K> {
    serde_json::from_value(value)
        .map_err(|e| Error::failed(format!("an object of the checks is malformed: {e}")))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;

    use super::*;

    fn probe(hosts: &[String]) -> Probe<'_> {
        let (image, work) = ("busybox:1.36", "true");
        Probe { name: "pvc-1", image, work, claim: "pvc-1", hosts, tolerations: &[] }
    }

    /// Every rule of the `restricted` level (Pod Security Standards, v1.34), and of `baseline` below it.
    fn assert_restricted(spec: &PodSpec) {
        for shared in [spec.host_network, spec.host_pid, spec.host_ipc] {
            assert_ne!(shared, Some(true));
        }
        assert_eq!(spec.host_users, None);
        let pod = spec.security_context.as_ref().unwrap();
        assert_eq!(pod.run_as_non_root, Some(true));
        assert_eq!(
            (pod.run_as_user, pod.run_as_group, pod.fs_group),
            (Some(65534), Some(65534), Some(65534))
        );
        assert_eq!(pod.seccomp_profile.as_ref().unwrap().type_, "RuntimeDefault");
        assert!(pod.sysctls.is_none() && pod.se_linux_options.is_none() && pod.app_armor_profile.is_none());
        assert!(spec.init_containers.is_none() && spec.ephemeral_containers.is_none());
        assert_eq!(spec.containers.len(), 1);
        for container in &spec.containers {
            let security = container.security_context.as_ref().unwrap();
            assert_eq!(security.allow_privilege_escalation, Some(false));
            assert_eq!(security.read_only_root_filesystem, Some(true));
            assert_ne!(security.privileged, Some(true));
            let capabilities = security.capabilities.as_ref().unwrap();
            assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]));
            assert_eq!(capabilities.add, None);
            assert!(security.proc_mount.is_none() && security.run_as_user.is_none());
            assert!(container.ports.is_none(), "no host ports");
            assert!(container.lifecycle.is_none() && container.liveness_probe.is_none());
            assert_eq!(container.image_pull_policy.as_deref(), Some("IfNotPresent"));
        }
        for volume in spec.volumes.as_ref().unwrap() {
            let allowed = volume.persistent_volume_claim.is_some() || volume.empty_dir.is_some();
            assert!(allowed, "{volume:?}");
        }
        assert_eq!(spec.automount_service_account_token, Some(false));
        assert_eq!(spec.termination_grace_period_seconds, Some(1));
        assert_eq!(spec.restart_policy.as_deref(), Some("Never"));
    }

    #[test]
    fn pods_and_jobs_conform_to_restricted_pod_security() {
        let host = ["n1".to_owned()];
        assert_restricted(probe(&host).pod().unwrap().spec.as_ref().unwrap());
        let job = probe(&host).job(60).unwrap().spec.unwrap();
        assert_eq!((job.backoff_limit, job.active_deadline_seconds), (Some(0), Some(60)));
        assert_restricted(job.template.spec.as_ref().unwrap());
    }

    #[test]
    fn hosts_are_asked_of_the_scheduler_and_never_a_node_name() {
        let hosts = ["n1".to_owned(), "n2".to_owned()];
        let pinned = probe(&hosts[..1]).pod().unwrap().spec.unwrap();
        assert_eq!((pinned.node_name, pinned.affinity), (None, None));
        assert_eq!(pinned.node_selector.unwrap()["kubernetes.io/hostname"], "n1");
        let either = probe(&hosts).pod().unwrap().spec.unwrap();
        assert_eq!((either.node_name, either.node_selector), (None, None));
        let affinity = either.affinity.unwrap().node_affinity.unwrap();
        let terms = affinity.required_during_scheduling_ignored_during_execution.unwrap().node_selector_terms;
        let wanted = &terms[0].match_expressions.as_ref().unwrap()[0];
        assert_eq!(
            (wanted.key.as_str(), wanted.values.as_deref()),
            ("kubernetes.io/hostname", Some(&hosts[..]))
        );
        let free = probe(&[]).pod().unwrap().spec.unwrap();
        assert_eq!((free.node_name, free.node_selector, free.affinity), (None, None, None));
    }
}
