//! Why a claim of a check stays Pending or its pod does not run, by what the cluster says, and what to do about it.

use super::words as say;
use crate::config_doc;
use crate::model::said::{POD_SECURITY, READ_ONLY, Words};

/// What a sign was seen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Claim,
    /// The check's own pod or job.
    Pod,
    /// The pod that makes the directory for the provisioner.
    Helper,
}

/// An event or a status, as the API told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    pub on: On,
    pub name: String,
    pub reason: String,
    pub message: String,
}

impl Sign {
    /// A volume is being made for the claim.
    pub fn is_made(&self) -> bool {
        self.on == On::Claim && say::OF_PROVISIONER.begin(&self.reason)
    }

    /// A volume was asked for, or is being made, for the claim.
    pub fn is_asked_for(&self) -> bool {
        self.on == On::Claim && say::OF_PROVISIONER.are_in(&self.reason)
    }

    pub fn has_failed(&self) -> bool {
        say::PROVISIONING_FAILED.are(&self.reason)
    }

    /// A pod waits for its image.
    pub fn is_of_image(&self) -> bool {
        say::OF_IMAGE.are_in(&self.reason)
    }
}

/// What a sign means for the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// The storage is at fault, and waiting will not heal it.
    FaultNow,
    /// The storage is at fault, if it is still so when the time is over.
    Fault,
    /// The check itself could not run.
    NotRun,
    /// The check itself could not run, and waiting will not heal it.
    NotRunNow,
}

impl Means {
    /// There is nothing to wait for.
    pub fn now(self) -> bool {
        matches!(self, Self::FaultNow | Self::NotRunNow)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    pub means: Means,
    pub why: String,
    pub hint: String,
}

/// What the hints name.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    pub class: &'a str,
    pub base_path: &'a str,
    /// The provisioner's name in the class.
    pub provisioner: &'a str,
    /// The provisioner's namespace.
    pub namespace: &'a str,
}

struct Rule {
    on: &'static [On],
    /// Any of these in `reason: message`; whatever it says, where there are none.
    said: &'static [Words],
    means: Means,
    why: &'static str,
    hint: &'static str,
}

const ANY: &[On] = &[On::Claim, On::Pod, On::Helper];
const CLAIM: &[On] = &[On::Claim];
const POD: &[On] = &[On::Pod];
const HELPER: &[On] = &[On::Helper];

/// Trying again seldom brings the image.
const HOPELESS_IMAGE: &[Words] =
    &[say::IMAGE_NEVER, say::IMAGE_NAME, say::IMAGE_BACK_OFF, say::IMAGE_NOT_THERE];
const HELPER_IMAGE: &str = "set `images.helper` to an image the nodes can pull (a mirror, for an air-gapped cluster), then \
               `nodeprep apply`";
const POD_IMAGE: &str =
    "set `images.shell` and `images.fio` to images the nodes can pull (a mirror, for an air-gapped cluster)";

/// The first rule that matches any sign speaks: what is certain and specific comes first.
const RULES: &[Rule] = &[
    Rule {
        on: CLAIM,
        said: &[POD_SECURITY],
        means: Means::FaultNow,
        why: "Pod Security refuses the provisioner's helper pods",
        hint: "kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged --overwrite",
    },
    Rule {
        on: POD,
        said: &[POD_SECURITY],
        means: Means::NotRun,
        why: "Pod Security refuses the check's own pod, although it keeps the restricted level",
        hint: "look for a policy stricter than `restricted` for new namespaces",
    },
    Rule {
        on: CLAIM,
        said: &[say::NO_NODE_CHOSEN],
        means: Means::FaultNow,
        why: "the class binds at once, before a pod has chosen a node",
        hint: "the binding mode can't be changed in place: `kubectl delete storageclass {class}` (volumes stay), \
               then make it again with `volumeBindingMode: WaitForFirstConsumer` (`nodeprep apply`)",
    },
    Rule {
        on: POD,
        said: &[say::NO_PATH],
        means: Means::FaultNow,
        why: "the kubelet does not see the volume's directory, though the provisioner made it",
        hint: "the kubelet sees `/var/mnt/<user volume>` by itself: put the base path {base_path} on a Talos user \
               volume; any other path needs an entry in `machine.kubelet.extraMounts` (bind, rshared, rw). If it is \
               one: is the disk mounted on that node (`nodeprep discover`)? Talos 1.13.0 to 1.13.2 show a new volume \
               only after `talosctl service kubelet restart`",
    },
    Rule {
        on: ANY,
        said: &[READ_ONLY],
        means: Means::FaultNow,
        why: "the base path is read-only on that node",
        hint: "only a mounted user volume is writable below /var/mnt: make the user volume of {base_path} ready \
               (`nodeprep plan`), or move the class to a path that is",
    },
    Rule {
        on: CLAIM,
        said: &[say::NO_CLASS],
        means: Means::FaultNow,
        why: "the storage class does not exist",
        hint: "make class {class} with `nodeprep apply`",
    },
    Rule {
        on: CLAIM,
        said: &[say::NO_HOSTNAME],
        means: Means::FaultNow,
        why: "the node has no label kubernetes.io/hostname",
        hint: "restart that node's kubelet so that it registers its hostname label again",
    },
    Rule {
        on: CLAIM,
        said: &[say::UNDER_ROOT],
        means: Means::FaultNow,
        why: "the provisioner refuses a base path directly under /",
        hint: "give class {class} a deeper base path, such as /var/mnt/openebs",
    },
    Rule {
        on: CLAIM,
        said: &[say::QUOTA_ORDER, say::QUOTA_FORMAT],
        means: Means::FaultNow,
        why: "the class has a quota the provisioner can't read",
        hint: "correct the XFSQuota or EXT4Quota entry in the class's annotation cas.openebs.io/config",
    },
    Rule {
        on: CLAIM,
        said: &[say::NO_LOCAL_PATH, say::NODE_NOT_LISTED],
        means: Means::FaultNow,
        why: "the provisioner has no path for that node",
        hint: "add the node, or DEFAULT_PATH_FOR_NON_LISTED_NODES, with path {base_path} to nodePathMap in the \
               provisioner's ConfigMap (namespace {namespace})",
    },
    Rule {
        on: HELPER,
        said: HOPELESS_IMAGE,
        means: Means::FaultNow,
        why: "the image of the provisioner's helper pod can't be had",
        hint: HELPER_IMAGE,
    },
    Rule {
        on: HELPER,
        said: &[say::IMAGE_PULL],
        means: Means::Fault,
        why: "the image of the provisioner's helper pod can't be had",
        hint: HELPER_IMAGE,
    },
    Rule {
        on: CLAIM,
        said: &[say::HELPER_LATE],
        means: Means::FaultNow,
        why: "the provisioner's helper pod did not finish in time: its image, a taint or Pod Security",
        hint: "kubectl -n {namespace} get pods,events shows the helper pod; check that its image can be pulled on \
               the node, and its Pod Security label",
    },
    Rule {
        on: HELPER,
        said: &[],
        means: Means::Fault,
        why: "the provisioner's helper pod does not get done",
        hint: "kubectl -n {namespace} describe pods",
    },
    Rule {
        on: CLAIM,
        said: &[say::THERE_ALREADY],
        means: Means::Fault,
        why: "a helper pod of an earlier try is in the way",
        hint: "delete the left-over helper pod in namespace {namespace}",
    },
    Rule {
        on: CLAIM,
        said: &[say::PROVISIONING_FAILED],
        means: Means::Fault,
        why: "the provisioner failed",
        hint: "read the provisioner's log in namespace {namespace}",
    },
    Rule {
        on: POD,
        said: HOPELESS_IMAGE,
        means: Means::NotRunNow,
        why: "the image of the check's pod can't be had",
        hint: POD_IMAGE,
    },
    Rule {
        on: POD,
        said: &[say::IMAGE_PULL],
        means: Means::NotRun,
        why: "the image of the check's pod can't be had",
        hint: POD_IMAGE,
    },
    Rule {
        on: POD,
        said: &[say::VOLUME_AFFINITY_BEFORE, say::VOLUME_AFFINITY],
        means: Means::Fault,
        why: "the volume is on a node that the pod can't go to",
        hint: "was the node renamed, cordoned or lost? A local volume stays on its node",
    },
    Rule {
        on: POD,
        said: &[say::UNBOUND],
        means: Means::Fault,
        why: "the class binds at once, and its claim is not bound",
        hint: "make class {class} again with `volumeBindingMode: WaitForFirstConsumer`",
    },
    Rule {
        on: POD,
        said: &[say::CORDONED],
        means: Means::NotRun,
        why: "the node is cordoned",
        hint: "kubectl uncordon the node, or leave it out",
    },
    Rule {
        on: POD,
        said: &[say::TAINTED, say::NO_ROOM, say::TOO_MANY],
        means: Means::NotRun,
        why: "the scheduler finds no node for the check's pod",
        hint: "free the node, or remove the taint; a node that is not Ready is tainted by Kubernetes itself",
    },
    Rule {
        on: CLAIM,
        said: &[say::PROVISIONING],
        means: Means::Fault,
        why: "the provisioner is at it, and was not done in time",
        hint: "kubectl -n {namespace} get pods,events shows its helper pod and what that waits for; on a slow node give \
               `validation.timeout` more time",
    },
    Rule {
        on: CLAIM,
        said: &[say::EXTERNAL],
        means: Means::Fault,
        why: "the provisioner does not answer",
        hint: "is the provisioner in namespace {namespace} running, and does it serve the name {provisioner} that \
               class {class} asks for?",
    },
    Rule {
        on: POD,
        said: &[say::FAILED_MOUNT, say::FAILED_ATTACH],
        means: Means::Fault,
        why: "the kubelet can't mount the volume",
        hint: "look at the node's disk and mounts (`nodeprep discover`)",
    },
    Rule {
        on: POD,
        said: &[
            say::FAILED_SCHEDULING,
            say::UNSCHEDULABLE,
            say::FAILED_CREATE,
            say::CONTAINER_CONFIG,
            say::CREATE_CONTAINER,
            say::RUN_CONTAINER,
            say::FAILED,
        ],
        means: Means::NotRun,
        why: "the check's pod does not start",
        hint: "the message is the cluster's own; its events tell more: `kubectl get events -A`",
    },
];

/// What the signs say, if any of them is known. What held up a claim is over once it has its volume.
pub fn explain(signs: &[Sign], names: &Names<'_>) -> Option<Why> {
    let provisioned = signs.iter().any(|sign| sign.on == On::Claim && say::PROVISIONED.are(&sign.reason));
    let over = |sign: &Sign| provisioned && sign.on == On::Claim;
    RULES.iter().find_map(|rule| {
        let speaks = |sign: &&Sign| rule.on.contains(&sign.on) && !over(sign) && rule.matches(sign);
        let sign = signs.iter().rev().find(speaks)?;
        Some(Why {
            means: rule.means,
            why: format!("{}: {}", rule.why, quote(sign)),
            hint: fill(rule.hint, names),
        })
    })
}

impl Rule {
    fn matches(&self, sign: &Sign) -> bool {
        let text = format!("{}: {}", sign.reason, sign.message);
        self.said.is_empty() || self.said.iter().any(|words| words.are_in(&text))
    }
}

/// A sign in one line.
pub fn quote(sign: &Sign) -> String {
    let what = match sign.on {
        On::Claim => "claim",
        On::Pod => "pod",
        On::Helper => "helper pod",
    };
    let message = config_doc::words(sign.message.trim());
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    format!("{what} {}: {}{message}", sign.name, sign.reason)
}

fn fill(hint: &str, names: &Names<'_>) -> String {
    hint.replace("{class}", names.class)
        .replace("{base_path}", names.base_path)
        .replace("{provisioner}", names.provisioner)
        .replace("{namespace}", names.namespace)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NAMES: Names<'_> = Names {
        class: "openebs-hostpath",
        base_path: "/var/mnt/openebs",
        provisioner: "openebs.io/local",
        namespace: "openebs",
    };

    fn sign(on: On, reason: &str, message: &str) -> Sign {
        Sign { on, name: "x".into(), reason: reason.into(), message: message.into() }
    }

    #[test]
    fn every_known_text_has_its_meaning_and_a_hint_that_names_the_fix() {
        use Means::{Fault, FaultNow, NotRun, NotRunNow};
        use On::{Claim, Helper, Pod};
        for (on, reason, message, means, in_hint) in [
            (
                Claim,
                "ProvisioningFailed",
                "failed to provision volume with StorageClass \"openebs-hostpath\": pods \"init-pvc-1\" is forbidden: \
                 violates PodSecurity \"baseline:latest\": hostPath volumes (volumes \"data\", \"dev\")",
                FaultNow,
                "kubectl label namespace openebs pod-security.kubernetes.io/enforce=privileged --overwrite",
            ),
            (
                Pod,
                "FailedCreate",
                "pods \"fio-1\" is forbidden: violates PodSecurity \"x\"",
                NotRun,
                "restricted",
            ),
            (
                Claim,
                "ProvisioningFailed",
                "configuration error, no node was specified",
                FaultNow,
                "WaitForFirstConsumer",
            ),
            (
                Pod,
                "FailedMount",
                "MountVolume.NewMounter initialization failed for volume \"pvc-1\" : \
                 path \"/var/mnt/openebs/pvc-1\" does not exist",
                FaultNow,
                "extraMounts",
            ),
            (
                Pod,
                "Failed",
                "mkdir /var/mnt/openebs: read-only file system",
                FaultNow,
                "user volume of /var/mnt/openebs",
            ),
            (
                Claim,
                "ProvisioningFailed",
                "storageclass.storage.k8s.io \"x\" not found",
                FaultNow,
                "openebs-hostpath",
            ),
            (
                Claim,
                "ProvisioningFailed",
                "configuration error, node{n1} hostname is empty",
                FaultNow,
                "label",
            ),
            (Claim, "ProvisioningFailed", "path should not be under root directory", FaultNow, "deeper"),
            (Claim, "ProvisioningFailed", "invalid format for limit grace", FaultNow, "XFSQuota"),
            (Claim, "ProvisioningFailed", "no local path available on node n1", FaultNow, "nodePathMap"),
            (Helper, "ImagePullBackOff", "Back-off pulling image", FaultNow, "images.helper"),
            (Helper, "ErrImagePull", "dial tcp: i/o timeout", Fault, "images.helper"),
            (Helper, "Pending", "anything", Fault, "kubectl -n openebs describe pods"),
            (Claim, "ProvisioningFailed", "create process timeout after 120 seconds", FaultNow, "helper pod"),
            (Claim, "ProvisioningFailed", "pods \"init-pvc-1\" already exists", Fault, "left-over"),
            (Claim, "ProvisioningFailed", "something new", Fault, "log"),
            (Claim, "ExternalProvisioning", "Waiting for a volume to be created", Fault, "openebs.io/local"),
            (
                Claim,
                "Provisioning",
                "External provisioner is provisioning volume for claim \"a/b\"",
                Fault,
                "helper pod",
            ),
            (Pod, "ErrImagePull", "not found", NotRunNow, "images.shell"),
            (Pod, "ErrImagePull", "dial tcp: i/o timeout", NotRun, "images.shell"),
            (Pod, "ImagePullBackOff", "Back-off pulling image \"x\"", NotRunNow, "images.shell"),
            (Pod, "InvalidImageName", "Failed to apply default image tag", NotRunNow, "images.shell"),
            (
                Pod,
                "FailedScheduling",
                "2 node(s) didn't match PersistentVolume's node affinity",
                Fault,
                "renamed",
            ),
            (Pod, "FailedScheduling", "1 node(s) had volume node affinity conflict", Fault, "renamed"),
            (
                Pod,
                "FailedScheduling",
                "pod has unbound immediate PersistentVolumeClaims",
                Fault,
                "WaitForFirstConsumer",
            ),
            (Pod, "FailedScheduling", "1 node(s) were unschedulable", NotRun, "uncordon"),
            (Pod, "FailedScheduling", "0/3 nodes are available: 3 Insufficient cpu", NotRun, "free the node"),
            (Pod, "FailedMount", "timed out waiting for the condition", Fault, "discover"),
            (Pod, "CreateContainerConfigError", "x", NotRun, "events"),
        ] {
            let why = explain(&[sign(on, reason, message)], &NAMES)
                .unwrap_or_else(|| panic!("{reason}: {message}"));
            assert_eq!(why.means, means, "{reason}: {message}");
            assert!(why.hint.contains(in_hint), "{reason}: {}", why.hint);
            assert!(why.why.contains(message), "quoted: {}", why.why);
            assert!(!why.hint.contains('{'), "{}", why.hint);
        }
    }

    #[test]
    fn the_specific_sign_outranks_the_general_one() {
        let signs = [
            sign(On::Claim, "ExternalProvisioning", "Waiting for a volume to be created"),
            sign(On::Claim, "ProvisioningFailed", "violates PodSecurity \"baseline:latest\""),
            sign(On::Pod, "FailedScheduling", "0/3 nodes are available"),
        ];
        assert!(explain(&signs, &NAMES).unwrap().why.starts_with("Pod Security refuses the provisioner"));
    }

    #[test]
    fn what_held_up_a_claim_is_over_once_it_has_its_volume() {
        let mut signs = vec![
            sign(On::Claim, "ExternalProvisioning", "Waiting for a volume to be created"),
            sign(On::Claim, "ProvisioningFailed", "something new"),
            sign(On::Claim, "ProvisioningSucceeded", "Successfully provisioned volume pvc-1"),
        ];
        assert_eq!(explain(&signs, &NAMES), None);
        signs.push(sign(On::Pod, "FailedMount", "timed out waiting for the condition"));
        assert!(explain(&signs, &NAMES).unwrap().why.starts_with("the kubelet can't mount"));
    }

    #[test]
    fn ordinary_waiting_is_not_a_fault() {
        let signs = [
            sign(
                On::Claim,
                "WaitForFirstConsumer",
                "waiting for first consumer to be created before binding",
            ),
            sign(On::Pod, "Scheduled", "Successfully assigned"),
            sign(On::Pod, "ContainerCreating", ""),
        ];
        assert_eq!(explain(&signs, &NAMES), None);
    }
}
