//! A machine as it was found.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::disks::Disk;
use super::resources::{Item, MountFlags, VolumeStatus};
use crate::error::{Error, Result};

/// A part of what was observed; that it could not be read is data too.
pub type Observed<T> = Result<T>;

/// The stage of a machine that waits for its first configuration.
pub const MAINTENANCE: &str = "maintenance";

/// A machine as it is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Node {
    /// The address it was asked for by.
    pub address: String,
    pub version: Observed<Version>,
    /// Its name in Kubernetes, if it has one yet.
    pub hostname: Observed<Option<String>>,
    /// `controlplane` or `worker`; nothing in maintenance mode.
    pub machine_type: Observed<Option<String>>,
    pub status: Observed<Status>,
    /// Empty in a container, which sees no disks.
    pub disks: Observed<Vec<Disk>>,
    /// Volumes by id; a user volume's is `u-<name>`.
    pub volumes: Observed<Vec<Item<VolumeStatus>>>,
    pub mounts: Observed<Vec<Mount>>,
    /// The labels the configuration asks for.
    pub wanted_labels: Observed<BTreeMap<String, String>>,
    /// The labels on the Node object, if the machine can see it.
    pub labels: Observed<Option<BTreeMap<String, String>>>,
    /// The configuration in force; nothing in maintenance mode. It is full of secrets, and kept nowhere.
    #[serde(skip, default = "not_kept")]
    pub config: Observed<Option<MachineConfig>>,
    /// It has no configuration yet and was read without credentials, so nothing proves that it is the machine.
    pub maintenance: bool,
    /// Of the key that it showed in maintenance mode, as its console prints it.
    pub fingerprint: Option<String>,
    /// Whole days until the client certificate in use expires; nothing when none was shown.
    pub cert_days_left: Option<i64>,
}

fn not_kept() -> Observed<Option<MachineConfig>> {
    Err(Error::failed("machine configs are not kept"))
}

/// The Talos a machine runs, and what it runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// As Talos writes it, such as `v1.11.5`.
    pub tag: String,
    /// Major, minor and patch; anything after them is left out.
    pub parsed: (u64, u64, u64),
    /// Such as `metal`.
    pub platform: String,
    /// Whether the machine is a container, which has no disks of its own and cannot reboot.
    pub container: bool,
    /// Such as `amd64`.
    pub arch: String,
    /// Whether it is of a sandbox, which says so where others say of which commit they are.
    pub simulated: bool,
}

impl Version {
    /// That of a metal machine, by the tag of its installer's image; nothing when that is not tagged with a version.
    pub fn of_image(image: &str) -> Option<Self> {
        let name = image.split('@').next()?.rsplit('/').next()?;
        Self::of_tag(name.split_once(':')?.1)
    }

    /// That of a metal machine, by its tag, such as `v1.11.5`; nothing when the tag is no version.
    pub fn of_tag(tag: &str) -> Option<Self> {
        let parsed = parse_version(tag)?;
        let platform = "metal".to_owned();
        let (tag, arch) = (tag.to_owned(), String::new());
        Some(Self { tag, parsed, platform, container: false, arch, simulated: false })
    }
}

/// Where a machine is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Such as `maintenance`, `booting` or `running`.
    pub stage: String,
    pub ready: bool,
    /// What keeps it from being ready: name and reason.
    pub unmet: Vec<String>,
}

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub source: String,
    pub target: String,
    pub filesystem: String,
    /// Bytes, where they could be read.
    pub size: Option<u64>,
    /// Bytes, where they could be read.
    pub available: Option<u64>,
    #[serde(default, skip_serializing_if = "is_plain")]
    pub flags: MountFlags,
}

fn is_plain(flags: &MountFlags) -> bool {
    *flags == MountFlags::default()
}

/// A machine's configuration: all its documents, and the version of the resource that holds them.
#[derive(Clone)]
pub struct MachineConfig {
    pub text: SecretString,
    pub version: String,
}

impl fmt::Debug for MachineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineConfig").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Node {
    /// Whether it is of a sandbox.
    pub fn simulated(&self) -> bool {
        self.version.as_ref().is_ok_and(|version| version.simulated)
    }

    /// Whether it has a control plane; it may have one where that could not be read.
    pub fn is_control_plane(&self) -> bool {
        match &self.machine_type {
            Ok(kind) => kind.as_deref().is_some_and(is_control_plane),
            Err(_) => true,
        }
    }

    /// Whether anything answers at its address. In maintenance mode an older Talos does not tell its version.
    pub fn answers(&self) -> bool {
        self.version.is_ok() || self.status.is_ok()
    }

    /// The parts that could not be read, by name.
    pub fn faults(&self) -> Vec<(&'static str, &Error)> {
        fn fault<'a, T>(name: &'static str, part: &'a Observed<T>) -> Option<(&'static str, &'a Error)> {
            part.as_ref().err().map(|error| (name, error))
        }
        let faults = [
            fault("version", &self.version),
            fault("hostname", &self.hostname),
            fault("machine type", &self.machine_type),
            fault("status", &self.status),
            fault("disks", &self.disks),
            fault("volumes", &self.volumes),
            fault("mounts", &self.mounts),
            fault("wanted labels", &self.wanted_labels),
            fault("labels", &self.labels),
            fault("config", &self.config),
        ];
        faults.into_iter().flatten().collect()
    }
}

/// An error that names the machines of which nothing at all could be read.
pub fn all_answered(nodes: &[Node]) -> Result<()> {
    let silent = nodes.iter().filter(|node| !node.answers());
    let mut dead = silent.filter_map(|node| node.version.as_ref().err().map(|error| (&node.address, error)));
    let Some((_, first)) = dead.next() else { return Ok(()) };
    let others: Vec<&str> = dead.map(|(address, _)| address.as_str()).collect();
    let also =
        if others.is_empty() { String::new() } else { format!(" (and so it is with {})", others.join(", ")) };
    Err(Error { what: format!("{}{also}", first.what), ..first.clone() })
}

/// Whether machines of this type have a control plane.
pub fn is_control_plane(machine_type: &str) -> bool {
    ["controlplane", "init"].iter().any(|kind| machine_type.eq_ignore_ascii_case(kind))
}

/// Reads `v1.11.5`, `1.11.5` or `v1.14.0-alpha.2`.
pub fn parse_version(tag: &str) -> Option<(u64, u64, u64)> {
    let plain = tag.strip_prefix('v').unwrap_or(tag);
    let plain = plain.split(['-', '+']).next()?;
    let mut numbers = plain.split('.').map(str::parse);
    let version = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    numbers.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn reads_the_versions_talos_writes_and_no_others() {
        let table = [
            ("v1.11.5", Some((1, 11, 5))),
            ("1.9.0", Some((1, 9, 0))),
            ("v1.14.0-alpha.2", Some((1, 14, 0))),
            ("v1.15.0-alpha.0-12-g1234abc-dirty", Some((1, 15, 0))),
            ("v1.11", None),
            ("v1.11.5.6", None),
            ("", None),
            ("dev", None),
        ];
        for (tag, expected) in table {
            assert_eq!(parse_version(tag), expected, "{tag}");
        }
    }
}
