//! The types of `nodeprep.yaml`. Every key is acted on; an unknown one is an error.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Class, Duration, Ephemeral, Provisioners, Resources, Schedule, Size, Toleration, Volume, VolumeOverride,
};

pub const API_VERSION: &str = "nodeprep.dev/v1alpha1";
pub const KIND: &str = "Cluster";

/// The file `nodeprep.yaml`: what a cluster's storage is to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Intent {
    /// Always `nodeprep.dev/v1alpha1`.
    pub api_version: String,
    /// Always `Cluster`.
    pub kind: String,
    pub metadata: Metadata,
    /// The Talos nodes; without them the node steps are skipped.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// Labels set on every node in the list, through the machine config.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Volumes of every node in the list.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// Talos' own data partition on every node in the list.
    #[serde(default)]
    pub ephemeral: Option<Ephemeral>,
    /// What provisions volumes below a directory of the nodes; without it none is installed.
    #[serde(default)]
    pub provisioner: Provisioners,
    /// The storage classes: installed (of `openebs` and of CSI drivers), or only judged (of `external`).
    #[serde(default)]
    pub classes: Vec<Class>,
    /// Velero and its S3 location.
    #[serde(default)]
    pub backup: Option<Backup>,
    #[serde(default)]
    pub images: Images,
    #[serde(default)]
    pub validation: Validation,
    #[serde(default)]
    pub deadlines: Deadlines,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// The cluster's name: names the journal and the lock.
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The address of the node's machine API: an IP or a host name, without port.
    pub address: String,
    /// Labels of this node: beside those of the file, or with another value; null leaves one of the file's out.
    #[serde(default)]
    pub labels: BTreeMap<String, Option<String>>,
    /// What is different about the file's volumes on this node, by their names; null leaves a volume out.
    #[serde(default)]
    pub volumes: BTreeMap<String, Option<VolumeOverride>>,
    /// Instead of the file's.
    #[serde(default)]
    pub ephemeral: Option<Ephemeral>,
    /// The machine config that `bootstrap` gives the machine while it has none, as `talosctl gen config`, talhelper or topf
    /// write it; a SOPS file, or a plain one. Its path counts from the file's folder.
    #[serde(default)]
    pub config: Option<PathBuf>,
    /// The fingerprint of the key that the machine has in maintenance mode, as its console shows it: no other is given a
    /// config.
    #[serde(default)]
    pub fingerprint: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Openebs {
    #[serde(default = "default_openebs_namespace")]
    pub namespace: String,
    #[serde(default)]
    pub workload: Workload,
    /// Only nodes with these labels run the provisioner's pods.
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
    /// How many pods a Deployment has: one leads, the others stand by. One unless said otherwise.
    #[serde(default)]
    pub replicas: Option<u32>,
    /// The taints that the provisioner's pods put up with: Talos' control planes, unless others are named.
    #[serde(default = "Toleration::control_planes")]
    pub tolerations: Vec<Toleration>,
    #[serde(default = "provisioner_resources")]
    pub resources: Resources,
}

fn provisioner_resources() -> Resources {
    Resources::asked(50, 64).limited(100, 128)
}

fn default_openebs_namespace() -> String {
    "openebs".into()
}

/// How the provisioner runs; both elect one leader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Workload {
    #[default]
    Deployment,
    DaemonSet,
}

impl Workload {
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::DaemonSet => "DaemonSet",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct External {
    /// The provisioner's name in its StorageClass, such as `rancher.io/local-path`.
    pub name: String,
    pub namespace: String,
    /// Labels that find its pods, such as `app: local-path-provisioner`.
    pub selector: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Backup {
    #[serde(default = "default_velero_namespace")]
    pub namespace: String,
    /// Where backups go of which nothing else is said: Velero's default location.
    pub location: Location,
    /// More locations, which schedules and `backup --location` name.
    #[serde(default)]
    pub locations: Vec<Location>,
    /// The name of the Secret with the store's credentials, an AWS credentials file under the key `cloud`.
    #[serde(default = "default_credentials_secret")]
    pub credentials_secret: String,
    /// SOPS files that together hold the Secret of `credentialsSecret` (key `cloud`) and `velero-repo-credentials` (key
    /// `repository-password`), the only name that Velero takes; paths count from the file's folder.
    pub secrets: Vec<PathBuf>,
    #[serde(default)]
    pub schedules: Vec<Schedule>,
    /// How old the last good backup of a claim may be, by patterns of namespaces: `{"*": 26h, production: 2h}`. Of those that
    /// fit, the shortest counts; without one the schedules tell when a backup is late.
    #[serde(default)]
    pub rpo: BTreeMap<String, Duration>,
    /// Claims that need no backup.
    #[serde(default)]
    pub exceptions: Vec<Exception>,
    /// How often a restore is to be proven, and how long it may take; without it no drill is ever overdue.
    #[serde(default)]
    pub drill: Option<Drill>,
    #[serde(default)]
    pub server: Server,
    #[serde(default)]
    pub node_agent: NodeAgent,
}

/// How often `nodeprep drill` is to prove that backups restore, and what it may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Drill {
    /// When the last one is older, `validate` fails.
    #[serde(default = "weekly")]
    pub every: Duration,
    /// The longest time from the request for a restore to files that are proven.
    #[serde(default)]
    pub rto: Option<Duration>,
    /// The longest time from a file's last byte to a backup that holds it.
    #[serde(default)]
    pub rpo: Option<Duration>,
}

/// A week, and a day to be late.
fn weekly() -> Duration {
    Duration(8 * 24 * 3600)
}

/// Claims that are told to need no backup, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Exception {
    /// Their namespaces and names, such as `media/cache` or `media/*`.
    pub claims: Vec<String>,
    /// Why no backup is needed; shown beside the claims.
    pub reason: String,
}

/// Velero's server. It is always one pod: two would work on the same backups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Server {
    /// Only nodes with these labels run it.
    pub node_selector: BTreeMap<String, String>,
    /// The taints that it puts up with: Talos' control planes, unless others are named.
    pub tolerations: Vec<Toleration>,
    pub resources: Resources,
}

impl Default for Server {
    fn default() -> Self {
        let tolerations = Toleration::control_planes();
        Self { node_selector: BTreeMap::new(), tolerations, resources: Resources::asked(50, 64) }
    }
}

/// Velero's pod on every node, which reads and writes the volumes there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct NodeAgent {
    /// The taints that it puts up with: all of them, unless some are named. A node without it backs up nothing.
    pub tolerations: Vec<Toleration>,
    pub resources: Resources,
}

impl Default for NodeAgent {
    fn default() -> Self {
        Self { tolerations: Toleration::all(), resources: Resources::asked(50, 64) }
    }
}

fn default_velero_namespace() -> String {
    "velero".into()
}

/// The Secret with the store's credentials, unless the file names another.
pub const CREDENTIALS_SECRET: &str = "cloud-credentials";

fn default_credentials_secret() -> String {
    CREDENTIALS_SECRET.into()
}

/// An S3 bucket that backups go to (Velero's `BackupStorageLocation`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Location {
    /// The name of the BackupStorageLocation.
    #[serde(default = "default_location_name")]
    pub name: String,
    pub bucket: String,
    #[serde(default)]
    pub prefix: Option<String>,
    pub region: String,
    /// The endpoint with its scheme, for anything but AWS.
    #[serde(default)]
    pub url: Option<String>,
    /// `https://host/bucket/key` instead of `https://bucket.host/key`, as most S3 clones want.
    #[serde(default)]
    pub path_style: bool,
    /// Empty switches the checksum headers off, for stores that refuse them.
    #[serde(default)]
    pub checksum_algorithm: Option<String>,
    /// The certificates (PEM) of the authority that signed the store's, where that is no public one: themselves, or the path
    /// of a file, which counts from the file's folder.
    #[serde(default)]
    pub ca_cert: Option<String>,
    /// The Secret with the credentials of this one of `locations`, where `backup.credentialsSecret` has not its own.
    #[serde(default)]
    pub credentials_secret: Option<String>,
}

impl Backup {
    /// The default location, and then the others.
    pub fn all_locations(&self) -> impl Iterator<Item = &Location> {
        std::iter::once(&self.location).chain(&self.locations)
    }

    /// The name of the location that a schedule's backups go to.
    pub fn location_of<'a>(&'a self, schedule: &'a Schedule) -> &'a str {
        schedule.location.as_deref().unwrap_or(&self.location.name)
    }

    /// The name of the Secret with a location's credentials.
    pub fn credentials_of<'a>(&'a self, location: &'a Location) -> &'a str {
        location.credentials_secret.as_deref().unwrap_or(&self.credentials_secret)
    }

    /// The same, where nothing else is said going to the location of this name; None where the file has none.
    pub fn going_to(&self, name: &str) -> Option<Self> {
        let location = self.all_locations().find(|location| location.name == name)?;
        Some(Self { location: location.clone(), ..self.clone() })
    }
}

/// The BackupStorageLocation's name, unless the file says another.
pub const LOCATION: &str = "default";

fn default_location_name() -> String {
    LOCATION.into()
}

/// Image references; every one can be replaced, for a mirror or an air-gapped cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Images {
    pub provisioner: String,
    /// Runs `mkdir` and `rm` on the node for the provisioner.
    pub helper: String,
    pub velero: String,
    pub velero_plugin: String,
    /// A shell with `sha256sum`, for the checks' pods.
    pub shell: String,
    pub fio: String,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            provisioner: "docker.io/openebs/provisioner-localpv:4.6.0".into(),
            helper: "docker.io/openebs/linux-utils:4.6.0".into(),
            velero: "docker.io/velero/velero:v1.18.3".into(),
            velero_plugin: "docker.io/velero/velero-plugin-for-aws:v1.14.3".into(),
            shell: "docker.io/library/busybox:1.36".into(),
            fio: "ghcr.io/kastenhq/kubestr:v0.4.49".into(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Validation {
    /// The size of the claims that the checks make, as Kubernetes writes it: `1Gi`.
    #[serde(with = "super::quantity")]
    #[schemars(with = "super::quantity::Quantity")]
    pub claim_size: Size,
    /// How long a claim without a pod must stay Pending.
    pub pending_for: Duration,
    /// How long one wait may take: a pod to run, a claim to bind.
    pub timeout: Duration,
    pub fio: Fio,
}

impl Default for Validation {
    fn default() -> Self {
        Self {
            claim_size: Size(1 << 30),
            pending_for: Duration(10),
            timeout: Duration(180),
            fio: Fio::default(),
        }
    }
}

/// How long a step may wait for what it brings about before it fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Deadlines {
    /// For a node's volumes, mounts and labels to be as its machine config wants them.
    pub volumes: Duration,
    /// For the pods of a node to leave it before it reboots.
    pub drain: Duration,
    /// For a node to be back and Ready after a reboot.
    pub reboot: Duration,
    /// For etcd to be well again after a control plane had its turn.
    pub etcd: Duration,
    /// For a machine to be back from the installation of Talos, and for etcd and the API server to be there after the
    /// bootstrap.
    pub bootstrap: Duration,
    /// For a workload, a kind or the backup location to be ready.
    pub workloads: Duration,
    /// For a backup that was asked for to end; Velero itself gives its volumes as long.
    pub backup: Duration,
    /// For a restore that was asked for to end; Velero itself gives its volumes as long.
    pub restore: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let minutes = |count: u64| Duration(count * 60);
        Self {
            volumes: minutes(5),
            drain: minutes(5),
            reboot: minutes(15),
            etcd: minutes(5),
            bootstrap: minutes(20),
            workloads: minutes(5),
            backup: minutes(240),
            restore: minutes(240),
        }
    }
}

/// The fio job: random writes, libaio, iodepth 32, 4k blocks, direct, time-based.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Fio {
    pub size: Size,
    pub runtime: Duration,
    /// Fewer operations a second than this fail the check; none, and it only reports.
    pub min_iops: Option<u64>,
    /// A higher 99th percentile of the completion latency fails the check, in microseconds.
    pub max_p99_us: Option<u64>,
}

impl Default for Fio {
    fn default() -> Self {
        Self { size: Size(512 << 20), runtime: Duration(30), min_iops: None, max_p99_us: None }
    }
}
