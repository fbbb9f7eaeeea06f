//! What Kubernetes, its provisioners and the container runtime say of claims and pods, once for all who judge by it or give
//! advice for it.

use crate::model::said::{Words, words};

// What the kubelet says of a container that waits.
pub(super) const IMAGE_BACK_OFF: Words =
    words("ImagePullBackOff", "kubernetes/kubernetes pkg/kubelet/images/types.go (v1.36.0)");
pub(super) const IMAGE_PULL: Words =
    words("ErrImagePull", "kubernetes/kubernetes pkg/kubelet/images/types.go (v1.36.0)");
pub(super) const IMAGE_NOT_THERE: Words = words(
    "ErrImagePull*not found",
    "kubernetes/kubernetes pkg/kubelet/images/types.go (v1.36.0), around containerd/errdefs errors.go, ErrNotFound (v1.0.0)",
);
pub(super) const IMAGE_NEVER: Words =
    words("ErrImageNeverPull", "kubernetes/kubernetes pkg/kubelet/images/types.go (v1.36.0)");
pub(super) const IMAGE_NAME: Words =
    words("InvalidImageName", "kubernetes/kubernetes pkg/kubelet/images/types.go (v1.36.0)");
/// In each of them.
pub(super) const OF_IMAGE: Words =
    words("Image", "kubernetes/kubernetes pkg/kubelet/images/types.go (v1.36.0)");
pub(super) const CONTAINER_CONFIG: Words = words(
    "CreateContainerConfigError",
    "kubernetes/kubernetes pkg/kubelet/kuberuntime/kuberuntime_container.go (v1.36.0)",
);
pub(super) const CREATE_CONTAINER: Words = words(
    "CreateContainerError",
    "kubernetes/kubernetes pkg/kubelet/kuberuntime/kuberuntime_container.go (v1.36.0)",
);
pub(super) const RUN_CONTAINER: Words =
    words("RunContainerError", "kubernetes/kubernetes pkg/kubelet/container/sync_result.go (v1.36.0)");
pub(super) const CRASH_LOOP: Words =
    words("CrashLoopBackOff", "kubernetes/kubernetes pkg/kubelet/container/sync_result.go (v1.36.0)");
pub(super) const CREATING: Words =
    words("ContainerCreating", "kubernetes/kubernetes pkg/kubelet/kubelet_pods.go (v1.36.0)");
pub(super) const INITIALIZING: Words =
    words("PodInitializing", "kubernetes/kubernetes pkg/kubelet/kubelet_pods.go (v1.36.0)");
/// Why a container ended whose node, or runtime, went down below it.
pub(super) const NODE_DOWN: Words =
    words("Unknown", "containerd/containerd internal/cri/server/helpers.go, unknownExitReason (v2.1.4)");

// Reasons of events.
pub(super) const PULL_SECRET: Words =
    words("FailedToRetrieveImagePullSecret", "kubernetes/kubernetes pkg/kubelet/kubelet_pods.go (v1.36.0)");
pub(super) const FAILED_MOUNT: Words =
    words("FailedMount", "kubernetes/kubernetes pkg/kubelet/events/event.go (v1.36.0)");
pub(super) const FAILED_ATTACH: Words =
    words("FailedAttachVolume", "kubernetes/kubernetes pkg/kubelet/events/event.go (v1.36.0)");
pub(super) const FAILED: Words = words(
    "Failed: ",
    "kubernetes/kubernetes pkg/kubelet/events/event.go, FailedToCreateContainer and others (v1.36.0)",
);
pub(super) const FAILED_CREATE: Words =
    words("FailedCreate", "kubernetes/kubernetes pkg/controller/controller_utils.go (v1.36.0)");
pub(super) const FAILED_SCHEDULING: Words =
    words("FailedScheduling", "kubernetes/kubernetes pkg/scheduler/schedule_one.go (v1.36.0)");
pub(super) const UNSCHEDULABLE: Words =
    words("Unschedulable", "kubernetes/api core/v1/types.go, PodReasonUnschedulable (v0.37.0)");
pub(super) const EXTERNAL: Words =
    words("ExternalProvisioning", "kubernetes/kubernetes pkg/controller/volume/events/event.go (v1.36.0)");
/// What all reasons of the provisioner begin with, and the controller's holds.
pub(super) const OF_PROVISIONER: Words = words(
    "Provisioning",
    "kubernetes-sigs/sig-storage-lib-external-provisioner controller/controller.go (v13.0.0)",
);
pub(super) const PROVISIONING_FAILED: Words = words(
    "ProvisioningFailed",
    "kubernetes-sigs/sig-storage-lib-external-provisioner controller/controller.go (v13.0.0)",
);
pub(super) const PROVISIONED: Words = words(
    "ProvisioningSucceeded",
    "kubernetes-sigs/sig-storage-lib-external-provisioner controller/volume_store.go (v13.0.0)",
);

// What the scheduler says.
pub(super) const POD_AFFINITY: Words = words(
    "didn't match Pod's node affinity",
    "kubernetes/kubernetes pkg/scheduler/framework/plugins/nodeaffinity/node_affinity.go (v1.36.0)",
);
pub(super) const VOLUME_AFFINITY: Words = words(
    "didn't match PersistentVolume's node affinity",
    "kubernetes/kubernetes pkg/scheduler/framework/plugins/volumebinding/binder.go (v1.36.0)",
);
pub(super) const VOLUME_AFFINITY_BEFORE: Words = words(
    "volume node affinity conflict",
    "kubernetes/kubernetes pkg/scheduler/framework/plugins/volumebinding/binder.go (to v1.32)",
);
pub(super) const UNBOUND: Words = words(
    "unbound immediate PersistentVolumeClaims",
    "kubernetes/kubernetes pkg/scheduler/framework/plugins/volumebinding/volume_binding.go (v1.36.0)",
);
pub(super) const CORDONED: Words = words(
    "were unschedulable",
    "kubernetes/kubernetes pkg/scheduler/framework/plugins/nodeunschedulable/node_unschedulable.go (v1.36.0)",
);
pub(super) const TAINTED: Words = words(
    "untolerated taint",
    "kubernetes/kubernetes pkg/scheduler/framework/plugins/tainttoleration/taint_toleration.go (v1.36.0)",
);
pub(super) const NO_ROOM: Words = words(
    "Insufficient ",
    "kubernetes/kubernetes pkg/scheduler/framework/plugins/noderesources/fit.go (v1.36.0)",
);
pub(super) const TOO_MANY: Words = words(
    "Too many pods",
    "kubernetes/kubernetes pkg/scheduler/framework/plugins/noderesources/fit.go (v1.36.0)",
);

// What the kubelet and the API server say of volumes and classes.
pub(super) const NO_PATH: Words =
    words("path \"*does not exist", "kubernetes/kubernetes pkg/volume/util/hostutil/hostutil.go (v1.36.0)");
pub(super) const NO_CLASS: Words = words(
    "storageclass.storage.k8s.io*not found",
    "kubernetes/apimachinery pkg/api/errors/errors.go, NewNotFound (v0.37.0)",
);
pub(super) const THERE_ALREADY: Words = words(
    "already exists",
    "kubernetes/apimachinery pkg/api/errors/errors.go, NewAlreadyExists (v0.37.0); of its helper pod OpenEBS says so to v4.0",
);

// What the provisioners say.
pub(super) const NO_NODE_CHOSEN: Words = words(
    "no node was specified",
    "openebs/dynamic-localpv-provisioner cmd/provisioner-localpv/app/provisioner.go (v4.0.0); rancher/local-path-provisioner \
     provisioner.go (9fa2a62e)",
);
pub(super) const NO_HOSTNAME: Words = words(
    "hostname is empty",
    "openebs/dynamic-localpv-provisioner cmd/provisioner-localpv/app/provisioner.go (v4.0.0)",
);
pub(super) const UNDER_ROOT: Words = words(
    "should not be under root directory",
    "openebs/dynamic-localpv-provisioner cmd/provisioner-localpv/app/helper_hostpath.go (v4.0.0, 014a94f0)",
);
pub(super) const QUOTA_ORDER: Words = words(
    "hard limit cannot be smaller than soft limit",
    "openebs/dynamic-localpv-provisioner cmd/provisioner-localpv/app/helper_hostpath.go (v4.0.0, 014a94f0)",
);
pub(super) const QUOTA_FORMAT: Words = words(
    "invalid format for limit grace",
    "openebs/dynamic-localpv-provisioner cmd/provisioner-localpv/app/helper_hostpath.go (v4.0.0, 014a94f0)",
);
pub(super) const HELPER_LATE: Words = words(
    "create process timeout",
    "openebs/dynamic-localpv-provisioner cmd/provisioner-localpv/app/helper_hostpath.go (v4.0.0, 014a94f0); \
     rancher/local-path-provisioner provisioner.go (9fa2a62e)",
);
pub(super) const NO_LOCAL_PATH: Words =
    words("no local path available on node", "rancher/local-path-provisioner provisioner.go (9fa2a62e)");
pub(super) const NODE_NOT_LISTED: Words =
    words("config doesn't contain node", "rancher/local-path-provisioner provisioner.go (9fa2a62e)");
pub(super) const PROVISIONING: Words = words(
    "is provisioning volume for claim",
    "kubernetes-sigs/sig-storage-lib-external-provisioner controller/controller.go (v13.0.0)",
);
