//! Scenarios: which machines there are, what is on their disks, and what goes wrong.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::faults::Fault;
use super::host::Speed;
use super::machine::disks::{Contents, Disk, Partition};
use super::machine::{Etcd, Extension};
use super::object_store::ObjectStore;
use crate::error::{Error, Result};
use crate::intent::Size;

/// A scenario file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Scenario {
    /// What is made up follows from it: the WWIDs of disks.
    #[serde(default)]
    pub seed: u64,
    /// How many times faster than in the world things go that take time.
    #[serde(default = "one")]
    pub speed: f64,
    #[serde(default)]
    pub machines: Vec<Machine>,
    #[serde(default)]
    pub faults: Vec<Fault>,
    #[serde(default)]
    pub object_store: ObjectStore,
    /// What nobody outside of the cluster may do, such as `create pods` or `list jobs.batch`.
    #[serde(default)]
    pub denied: Vec<String>,
    /// For how many days the certificates of talosconfig and kubeconfig are good; with a negative number they expired.
    #[serde(default = "year")]
    pub certificate_days: i32,
}

fn year() -> i32 {
    365
}

fn one() -> f64 {
    1.0
}

/// A machine, or several of a kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Machine {
    /// Chosen when it is not said.
    #[serde(default)]
    pub address: Option<String>,
    #[serde(default)]
    pub hostname: Option<String>,
    #[serde(default = "version")]
    pub version: String,
    /// `controlplane` or `worker`.
    #[serde(default)]
    pub role: Role,
    /// Talos in a container, which has no disks.
    #[serde(default)]
    pub container: bool,
    /// Booted from the ISO, without a configuration; nothing is installed on its disks unless they are said.
    #[serde(default)]
    pub maintenance: bool,
    /// Switched off. When it has a configuration, it is a member of the cluster all the same.
    #[serde(default)]
    pub off: bool,
    /// Those of the default when nothing is said.
    #[serde(default)]
    pub disks: Vec<ScenarioDisk>,
    /// NVMe disks change names at every boot.
    #[serde(default)]
    pub names_swap: bool,
    /// Mount points that the kubelet does not see.
    #[serde(default)]
    pub hidden: Vec<String>,
    /// The Node object has this taint, such as `key=value:NoSchedule`.
    #[serde(default)]
    pub taint: Option<String>,
    /// The system extensions of its image.
    #[serde(default)]
    pub extensions: Vec<Extension>,
    /// How far its clock is ahead of its time server's, such as `-7s`.
    #[serde(default)]
    pub clock: SignedDuration,
    /// `running`, `stopped`, or the alarm it has raised: `nospace`, `corrupt`.
    #[serde(default)]
    pub etcd: Etcd,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Controlplane,
    #[default]
    Worker,
}

fn version() -> String {
    "v1.14.1".to_owned()
}

/// A disk of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ScenarioDisk {
    pub name: String,
    pub size: Size,
    #[serde(default)]
    pub model: String,
    #[serde(default)]
    pub serial: String,
    #[serde(default)]
    pub wwid: String,
    /// Told from the name when it is not said.
    #[serde(default)]
    pub transport: Option<String>,
    #[serde(default)]
    pub rotational: bool,
    #[serde(default)]
    pub readonly: bool,
    /// Whether mkfs fails on it.
    #[serde(default)]
    pub mkfs_fails: bool,
    /// Nothing, `talos`, `mbr`, a partition's label such as `u-openebs`, or a format such as `xfs`.
    #[serde(default)]
    pub holds: String,
    #[serde(default)]
    pub speed: Speed,
}

impl Default for Scenario {
    /// Three machines, each with a system disk and two NVMe disks of different models.
    fn default() -> Self {
        Self::of(3)
    }
}

impl Scenario {
    /// So many machines of the default kind.
    pub fn of(machines: usize) -> Self {
        let machine = |index| Machine {
            address: None,
            hostname: None,
            version: version(),
            role: if index < 3 { Role::Controlplane } else { Role::Worker },
            container: false,
            maintenance: false,
            off: false,
            disks: Vec::new(),
            names_swap: false,
            hidden: Vec::new(),
            taint: None,
            extensions: Vec::new(),
            clock: SignedDuration::ZERO,
            etcd: Etcd::default(),
        };
        Self {
            seed: 0,
            speed: 1.0,
            machines: (0..machines).map(machine).collect(),
            faults: Vec::new(),
            object_store: ObjectStore::default(),
            denied: Vec::new(),
            certificate_days: year(),
        }
    }

    /// Reads a scenario file.
    ///
    /// # Errors
    /// `Kind::Invalid` with the line.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let options = serde_yaml::options! { strict_booleans: true, with_snippet: false };
        let mut scenario: Self = serde_yaml::from_str_with_options(text, options)
            .map_err(|error| Error::invalid(format!("{name}: {error}")))?;
        if scenario.machines.is_empty() {
            scenario.machines = Self::default().machines;
        }
        let wrong = |what: &str| Err(Error::invalid(format!("{name}: {what}")));
        if !(scenario.speed.is_finite() && scenario.speed > 0.0) {
            return wrong("speed must be above 0");
        }
        let mut known = std::collections::BTreeSet::new();
        for (index, machine) in scenario.machines.iter().enumerate() {
            if !known.insert(machine.address(index)) {
                return wrong(&format!("two machines have the address {}", machine.address(index)));
            }
            if machine.container && machine.maintenance {
                return wrong("maintenance is for machines with disks, not for containers");
            }
        }
        Ok(scenario)
    }
}

impl Machine {
    /// Its own, or one from 10.5.0.0/16 by its place in the list.
    pub fn address(&self, index: usize) -> String {
        self.address.clone().unwrap_or_else(|| format!("10.5.{}.{}", index / 250, index % 250 + 2))
    }

    pub fn hostname(&self, index: usize) -> String {
        self.hostname.clone().unwrap_or_else(|| format!("talos-{}", index + 1))
    }

    /// Its disks; made-up serials carry the machine's place in the list.
    pub fn disks(&self, index: usize, seed: u64) -> Vec<Disk> {
        if self.container {
            return Vec::new();
        }
        if !self.disks.is_empty() {
            return self.disks.iter().map(ScenarioDisk::disk).collect();
        }
        let nvme = |name: &str, model: &str, serial: String, size: u64| Disk {
            name: name.to_owned(),
            model: model.to_owned(),
            wwid: format!("eui.{:016x}", fingerprint(&format!("{seed}/{serial}"))),
            serial,
            size,
            transport: "nvme".to_owned(),
            ..Disk::default()
        };
        let serial = |letter: char| format!("SIM{letter}{:04}", index + 1);
        vec![
            nvme("nvme0n1", "Simulated NVMe 1TB", serial('A'), 1_000_204_886_016),
            nvme("nvme1n1", "Simulated NVMe 500GB", serial('B'), 500_107_862_016),
            Disk {
                name: "sda".to_owned(),
                model: "Simulated SSD".to_owned(),
                serial: serial('S'),
                size: 256_060_514_304,
                transport: "sata".to_owned(),
                contents: if self.maintenance { Contents::Nothing } else { Contents::Talos },
                ..Disk::default()
            },
        ]
    }
}

/// A number that follows from a text (FNV-1a).
pub fn fingerprint(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl ScenarioDisk {
    fn disk(&self) -> Disk {
        let transport = self.transport.clone().unwrap_or_else(|| {
            let known = [("nvme", "nvme"), ("vd", "virtio"), ("mmcblk", "mmc")];
            let found = known.iter().find(|(prefix, _)| self.name.starts_with(prefix));
            found.map_or("sata", |(_, transport)| transport).to_owned()
        });
        let contents = match self.holds.as_str() {
            "" => Contents::Nothing,
            "talos" => Contents::Talos,
            "mbr" => Contents::Mbr(1),
            label if label.starts_with("u-") => {
                let (label, format) = (label.to_owned(), "xfs".to_owned());
                let partition = Partition { label, format, size: self.size.0 / 2 };
                Contents::Gpt(BTreeMap::from([(1, partition)]))
            }
            format => Contents::Whole(format.to_owned()),
        };
        Disk {
            name: self.name.clone(),
            model: self.model.clone(),
            serial: self.serial.clone(),
            wwid: self.wwid.clone(),
            size: self.size.0,
            transport,
            rotational: self.rotational,
            readonly: self.readonly,
            mkfs_fails: self.mkfs_fails,
            contents,
            volume: None,
            speed: self.speed,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_says_what_it_wants_and_the_rest_is_the_default() {
        let text = "seed: 7\nmachines:\n  - disks:\n      - {name: nvme0n1, size: 1TB, serial: A}\n      \
                    - {name: sda, size: 100GB, holds: talos}\n  - {address: 10.0.0.9, role: controlplane}\n\
                    faults:\n  - {where: 10.0.0.9, call: ApplyConfiguration, times: 1, dropAfterActing: true}\n";
        let scenario = Scenario::parse("s.yaml", text).unwrap();
        let disks = scenario.machines[0].disks(0, scenario.seed);
        assert_eq!((disks[0].transport.as_str(), disks[1].transport.as_str()), ("nvme", "sata"));
        assert_eq!(scenario.machines[1].address(1), "10.0.0.9");
        let made_up = |seed| scenario.machines[1].disks(1, seed);
        assert!(made_up(1).len() == 3 && made_up(1) == made_up(1) && made_up(1) != made_up(2));
        assert!(scenario.faults[0].drop_after_acting);
        assert_eq!(Scenario::parse("s.yaml", "{}").unwrap().machines.len(), 3);
        let text = "machines: [{clock: -7s, extensions: [{name: iscsi-tools, version: v0.2.0}]}, {clock: 1m 30s}, {}]";
        let told = Scenario::parse("s.yaml", text).unwrap().machines;
        assert_eq!([0, 1, 2].map(|at| told[at].clock.as_secs()), [-7, 90, 0]);
        assert_eq!((told[0].extensions[0].name.as_str(), told[1].extensions.len()), ("iscsi-tools", 0));
        let text = "machines: [{maintenance: true}, {maintenance: true, disks: [{name: sda, size: 1TB, holds: xfs}]}]";
        let new = Scenario::parse("s.yaml", text).unwrap().machines;
        assert!(new[0].disks(0, 0).iter().all(|disk| disk.contents == Contents::Nothing));
        assert_eq!(new[1].disks(1, 0)[0].contents, Contents::Whole("xfs".into()));
    }

    #[test]
    fn the_examples_are_scenarios() {
        let scenario = Scenario::parse("faults.yaml", include_str!("../../../examples/faults.yaml")).unwrap();
        assert_eq!((scenario.machines.len(), scenario.faults.len()), (2, 1));
        let text = include_str!("../../../examples/new-machine.yaml");
        let scenario = Scenario::parse("new-machine.yaml", text).unwrap();
        let kinds = scenario.machines.iter().map(|machine| (machine.maintenance, machine.off));
        assert_eq!(kinds.collect::<Vec<_>>(), [(false, false), (true, false), (false, true)]);
        let scenario = Scenario::parse("bare.yaml", include_str!("../../../examples/bare.yaml")).unwrap();
        let kinds = scenario.machines.iter().map(|machine| (machine.role, machine.maintenance));
        let (first, other) = ((Role::Controlplane, true), (Role::Worker, true));
        assert_eq!(kinds.collect::<Vec<_>>(), [first, other, other]);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, word) in [
            ("machines:\n  - disk: 1\n", "line 2"),
            ("speed: 0\n", "above 0"),
            ("machines: [{address: a}, {address: a}]", "two machines"),
            ("machines: [{container: true, maintenance: true}]", "with disks"),
            ("speed: fast\n", "s.yaml"),
            ("machines:\n  - {}\n  - clock: 7\n", "s.yaml"),
            ("machines: [{clock: late}]", "s.yaml"),
            ("machines:\n  - extensions: [{name: a, version: b, author: c}]\n", "author"),
            ("machines: [{extensions: [{name: a}]}]", "version"),
        ] {
            let error = Scenario::parse("s.yaml", text).unwrap_err();
            assert!(error.what.contains(word), "{}", error.what);
        }
    }
}
