//! A machine for the planner, and what Talos makes of a config: only as much as decides where bytes are written.

use std::collections::BTreeMap;

use nodeprep::error::Result;
use nodeprep::intent::{Intent, MaxSize, parse};
use nodeprep::model::disks::udev::Record;
use nodeprep::model::disks::{Facts, join, select};
use nodeprep::model::node::{MachineConfig, Mount, Node, Status, Version};
use nodeprep::plan::{Action, ApplyConfig, NodeAction, Passphrases, Plan, machine};
use nodeprep::talos::resources::{BlockDevice, DiscoveredVolume, DiskSpec, Item, VolumeStatus};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const ADDRESS: &str = "10.0.0.1";
/// A worker's config without labels and volumes, as talosctl writes it.
pub(crate) const BASE: &str = include_str!("base.yaml");

#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub version: (u64, u64, u64),
    pub container: bool,
    pub role: &'static str,
    pub disks: Vec<Disk>,
    pub config: String,
    /// Volumes that Talos brought up, by id.
    pub ready: Vec<String>,
    /// Labels on the Node object.
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Disk {
    pub id: String,
    pub serial: String,
    pub wwid: String,
    pub size: u64,
    pub holds: Holds,
    pub system: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Holds {
    Nothing,
    /// Talos takes it for nothing.
    Mbr,
    Whole(String),
    /// A GPT: label, format and size of each partition.
    Gpt(Vec<(String, String, u64)>),
}

/// What was written, and whether something was lost by it.
#[derive(Debug, PartialEq)]
pub(crate) struct Write {
    pub disk: usize,
    pub lost: bool,
}

pub(crate) fn disk(id: &str, serial: &str, holds: Holds) -> Disk {
    let wwid = if serial.is_empty() { String::new() } else { format!("eui.{serial}") };
    Disk { id: id.into(), serial: serial.into(), wwid, size: 100 * GIB, holds, system: false }
}

pub(crate) fn partitions(of: &[(&str, &str, u64)]) -> Holds {
    Holds::Gpt(of.iter().map(|(label, format, size)| ((*label).into(), (*format).into(), *size)).collect())
}

/// `nodeprep.yaml` with this below its header and one node.
pub(crate) fn intent(text: &str) -> Intent {
    let nodes = if text.contains("nodes:") { "" } else { "nodes: [{address: 10.0.0.1}]\n" };
    let text = format!(
        "apiVersion: nodeprep.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: lab}}\n{nodes}{}",
        text.trim_start_matches('\n')
    );
    parse("nodeprep.yaml", text.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

impl Machine {
    /// Talos 1.`minor` with a system disk and these disks.
    pub(crate) fn new(minor: u64, disks: &[Disk]) -> Self {
        let talos = partitions(&[
            ("EFI", "vfat", GIB),
            ("META", "talosmeta", 1 << 20),
            ("EPHEMERAL", "xfs", 90 * GIB),
        ]);
        let system = Disk { system: true, ..disk("sda", "SYS", talos) };
        Self {
            version: (1, minor, 5),
            container: false,
            role: "worker",
            disks: disks.iter().cloned().chain([system]).collect(),
            config: BASE.to_owned(),
            ready: Vec::new(),
            labels: BTreeMap::new(),
        }
    }

    pub(crate) fn plan(&self, file: &str) -> Result<Plan> {
        machine::plan(&intent(file), &self.node(), &Passphrases::new())
    }

    /// Whether there is nothing left to do for the file.
    pub(crate) fn is_done(&self, file: &str) -> bool {
        self.plan(file).unwrap_or_else(|e| panic!("{e}")).steps.is_empty()
    }

    /// The words of the refusal.
    pub(crate) fn refuses(&self, file: &str) -> String {
        match self.plan(file) {
            Ok(plan) => panic!("planned: {plan:?}"),
            Err(error) => format!("{} {}", error.what, error.hint.unwrap_or_default()),
        }
    }

    /// The machine config that the plan would send.
    pub(crate) fn config_of(&self, file: &str) -> String {
        let plan = self.plan(file).unwrap_or_else(|e| panic!("{e}"));
        applied(&plan).unwrap().config.expose_secret().to_owned()
    }

    pub(crate) fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        for disk in &self.disks {
            let transport = if disk.id.starts_with("nvme") { "nvme" } else { "sata" };
            let spec = DiskSpec {
                dev_path: format!("/dev/{}", disk.id),
                size: disk.size,
                serial: disk.serial.clone(),
                wwid: disk.wwid.clone(),
                transport: transport.into(),
                ..DiskSpec::default()
            };
            facts.disks.push(item(&disk.id, spec));
            let whole =
                DiscoveredVolume { kind: "disk".into(), name: disk.format().into(), ..Default::default() };
            facts.discovered.push(item(&disk.id, whole));
            facts.devices.push(item(&disk.id, BlockDevice { kind: "disk".into(), ..Default::default() }));
            for (index, (label, format, size)) in (1..).zip(disk.partitions()) {
                let id = format!("{}p{index}", disk.id);
                let spec = DiscoveredVolume {
                    kind: "partition".into(),
                    parent: disk.id.clone(),
                    name: format,
                    size,
                    partition_label: label,
                    partition_index: index,
                    ..Default::default()
                };
                facts.discovered.push(item(&id, spec));
            }
            if disk.holds == Holds::Mbr {
                let spec =
                    BlockDevice { kind: "partition".into(), parent: disk.id.clone(), ..Default::default() };
                facts.devices.push(item(&format!("{}p1", disk.id), spec));
            }
            if disk.system {
                facts.system_disk = Some(disk.id.clone());
            }
        }
        facts.volumes = Some(self.volumes());
        facts.udev = self.disks.iter().map(|disk| (disk.id.clone(), Ok(disk.record()))).collect();
        facts
    }

    fn volumes(&self) -> Vec<Item<VolumeStatus>> {
        let status = |id: &String| {
            let whole = self.disks.iter().find(|disk| disk.holds == Holds::Whole(format!("{id} xfs")));
            let location = whole.map_or_else(String::new, |disk| format!("/dev/{}", disk.id));
            item(id, VolumeStatus { phase: "ready".into(), location, ..Default::default() })
        };
        self.ready.iter().map(status).collect()
    }

    pub(crate) fn node(&self) -> Node {
        let (major, minor, patch) = self.version;
        let wanted = nodeprep::config_doc::ConfigDoc::parse(&self.config).unwrap().labels();
        let mount = |id: &String| Mount {
            source: String::new(),
            target: format!("/var/mnt/{}", &id[2..]),
            filesystem: "xfs".into(),
            size: None,
            available: None,
            flags: Default::default(),
        };
        Node {
            address: ADDRESS.into(),
            version: Ok(Version {
                tag: format!("v{major}.{minor}.{patch}"),
                parsed: self.version,
                platform: if self.container { "container" } else { "metal" }.into(),
                container: self.container,
                arch: "amd64".into(),
                simulated: false,
            }),
            hostname: Ok(Some("n1".into())),
            machine_type: Ok(Some(self.role.into())),
            status: Ok(Status { stage: "running".into(), ready: true, unmet: Vec::new() }),
            disks: Ok(if self.container { Vec::new() } else { join(&self.facts()) }),
            volumes: Ok(self.volumes()),
            mounts: Ok(self.ready.iter().filter(|id| !id.starts_with("r-")).map(mount).collect()),
            wanted_labels: Ok(wanted),
            labels: Ok(Some(self.labels.clone())),
            config: Ok(Some(MachineConfig {
                text: SecretString::from(self.config.as_str()),
                version: "7".into(),
            })),
            maintenance: false,
            fingerprint: None,
            cert_days_left: Some(100),
        }
    }

    /// What Talos does with a config: finds each volume, or makes it where its selector says.
    pub(crate) fn apply(&mut self, config: &str) -> Vec<Write> {
        self.config = config.to_owned();
        self.labels = nodeprep::config_doc::ConfigDoc::parse(config).unwrap().labels();
        let documents: Vec<Value> = serde_yaml::from_multiple(config).unwrap();
        let mut writes = Vec::new();
        for document in documents {
            let name = document["name"].as_str().unwrap_or_default();
            let prefix = match document["kind"].as_str() {
                Some("UserVolumeConfig") => "u-",
                Some("RawVolumeConfig") => "r-",
                Some("ExistingVolumeConfig") => "e-",
                _ => continue,
            };
            let id = format!("{prefix}{name}");
            let done = match (prefix, document["volumeType"].as_str().unwrap_or("partition")) {
                ("e-", _) => self.adopt(&document),
                (_, "directory") => true,
                (_, "disk") => self.whole_disk(&id, &document, &mut writes),
                _ => self.partition(&id, &document, &mut writes),
            };
            if done && !self.ready.contains(&id) {
                self.ready.push(id);
            }
        }
        writes
    }

    fn matching(&self, expression: &str) -> Vec<usize> {
        let disks = join(&self.facts());
        let ids: Vec<_> =
            select(expression, &disks).unwrap().into_iter().map(|i| disks[i].id.clone()).collect();
        (0..self.disks.len()).filter(|i| ids.contains(&self.disks[*i].id)).collect()
    }

    fn adopt(&self, document: &Value) -> bool {
        let expression = document["discovery"]["volumeSelector"]["match"].as_str().unwrap();
        let (what, disk) = expression.split_once(" && ").unwrap();
        let text = what.split('"').nth(1).unwrap();
        let [found] = self.matching(disk)[..] else { return false };
        match &self.disks[found].holds {
            Holds::Gpt(partitions) => partitions.iter().any(|(label, ..)| label == text),
            _ => self.disks[found].format() == text,
        }
    }

    fn whole_disk(&mut self, id: &str, document: &Value, writes: &mut Vec<Write>) -> bool {
        let expression = document["provisioning"]["diskSelector"]["match"].as_str().unwrap();
        let [found] = self.matching(expression)[..] else { return false };
        let disk = &mut self.disks[found];
        let ours = format!("{id} xfs");
        match &disk.holds {
            Holds::Nothing | Holds::Mbr => {
                writes.push(Write { disk: found, lost: disk.holds == Holds::Mbr });
                disk.holds = Holds::Whole(ours);
                true
            }
            Holds::Whole(format) => *format == ours,
            Holds::Gpt(_) => false,
        }
    }

    /// Found by label on any disk; else made on the first matching disk that has room.
    fn partition(&mut self, id: &str, document: &Value, writes: &mut Vec<Write>) -> bool {
        if self.disks.iter().any(|disk| disk.partitions().iter().any(|(label, ..)| label == id)) {
            return true;
        }
        let provisioning = &document["provisioning"];
        let size = |key: &str| provisioning[key].as_str().map(|text| MaxSize::parse(text).unwrap());
        let least = size("minSize").and_then(MaxSize::bytes).unwrap_or(0);
        for found in self.matching(provisioning["diskSelector"]["match"].as_str().unwrap()) {
            let disk = &mut self.disks[found];
            let taken: u64 = disk.partitions().iter().map(|(.., size)| size).sum();
            let free = disk.size.saturating_sub(taken + (2 << 20));
            if free < least || matches!(disk.holds, Holds::Whole(_)) {
                continue;
            }
            let size = size("maxSize").map_or(free, |most| most.of(free));
            writes.push(Write { disk: found, lost: disk.holds == Holds::Mbr });
            let mut table = disk.partitions();
            table.push((id.to_owned(), "xfs".to_owned(), size));
            disk.holds = Holds::Gpt(table);
            return true;
        }
        false
    }
}

impl Disk {
    /// What is recognised on the whole disk; a volume's own file system has its id before the format.
    fn format(&self) -> &str {
        match &self.holds {
            Holds::Nothing | Holds::Mbr => "",
            Holds::Whole(format) => format.rsplit(' ').next().unwrap(),
            Holds::Gpt(_) => "gpt",
        }
    }

    /// udev also sees what Talos does not.
    fn record(&self) -> Record {
        let table = if self.holds == Holds::Mbr { "dos" } else { "" };
        Record { table: table.into(), ..Record::default() }
    }

    pub(crate) fn partitions(&self) -> Vec<(String, String, u64)> {
        match &self.holds {
            Holds::Gpt(partitions) => partitions.clone(),
            _ => Vec::new(),
        }
    }
}

/// The config that a plan sends.
pub(crate) fn applied(plan: &Plan) -> Option<&ApplyConfig> {
    plan.steps.iter().find_map(|step| match &step.action {
        Action::Node(NodeAction::Config(work)) => Some(work),
        _ => None,
    })
}

fn item<T>(id: &str, spec: T) -> Item<T> {
    Item { id: id.into(), version: "1".into(), labels: BTreeMap::new(), spec }
}
