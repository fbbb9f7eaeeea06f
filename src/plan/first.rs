//! The first config of a machine, as another tool wrote it, and what has to be known of it before it is given away.

use secrecy::{ExposeSecret, SecretString};

use super::disks::describe;
use crate::config_doc::ConfigDoc;
use crate::error::{Error, Result};
use crate::observe::disks::{Disk, Holder};
use crate::observe::nodes::{Version, is_control_plane};

/// The document that says from Talos 1.14 on where Talos is installed.
const UNATTENDED: &str = "UnattendedInstallConfig";

/// A machine's first config.
pub struct First {
    /// The file it is from.
    pub file: String,
    doc: ConfigDoc,
}

impl std::fmt::Debug for First {
    /// Without its text, which is full of secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("First").field("file", &self.file).finish_non_exhaustive()
    }
}

impl First {
    /// Reads a whole machine config.
    ///
    /// # Errors
    /// `Kind::Invalid`: it is none, or lacks what a machine needs to become a member of a cluster. `Kind::Refused`: it writes
    /// to disks besides Talos' own.
    pub fn parse(file: &str, text: &SecretString) -> Result<Self> {
        Self::read(file, text).map_err(|error| error.at(file))
    }

    fn read(file: &str, text: &SecretString) -> Result<Self> {
        let first = Self { file: file.to_owned(), doc: ConfigDoc::parse(text.expose_secret())? };
        if first.doc.legacy().is_none() {
            return Err(Error::invalid("it has no v1alpha1 document, the one with `machine` and `cluster`")
                .hint(WHOLE));
        }
        for path in [&["machine", "type"][..], &["machine", "ca", "crt"], &["cluster", "ca", "crt"]] {
            if first.value(path).is_none_or(str::is_empty) {
                return Err(Error::invalid(format!("{} is not in it", path.join("."))).hint(WHOLE));
            }
        }
        if first.doc.get_document(UNATTENDED, "").is_some() {
            return Err(Error::invalid(format!(
                "{UNATTENDED}: nodeprep does not know yet which disk that means"
            ))
            .hint("write machine.install.disk instead"));
        }
        if let Some(what) = first.writes() {
            return Err(Error::refused(format!("{what} makes Talos write to disks that nobody has looked at"))
                .hint("take it out: `volumes` in nodeprep.yaml says what is wanted, and `apply` makes it when the disks can be looked at"));
        }
        Ok(first)
    }

    /// What makes Talos write to disks besides its own.
    fn writes(&self) -> Option<String> {
        let kinds = self.doc.documents().find_map(|document| {
            let kind = document.id.kind.as_deref()?;
            let selects = document.root.get(&["provisioning", "diskSelector"]).is_some();
            let writes = match kind {
                "VolumeConfig" | "UserVolumeConfig" => selects,
                "RawVolumeConfig" | "SwapVolumeConfig" | "RAIDArrayConfig" => true,
                kind => kind.starts_with("LVM"),
            };
            writes.then(|| document.id.to_string())
        });
        let disks =
            || self.doc.legacy()?.root.get(&["machine", "disks"]).filter(|disks| !disks.items().is_empty());
        kinds.or_else(|| disks().map(|_| "machine.disks".to_owned()))
    }

    pub fn text(&self) -> SecretString {
        self.doc.text().into()
    }

    fn value(&self, path: &[&str]) -> Option<&str> {
        self.doc.legacy()?.root.get(path)?.text()
    }

    /// `controlplane` or `worker`.
    pub fn machine_type(&self) -> &str {
        self.value(&["machine", "type"]).unwrap_or_default()
    }

    pub fn is_control_plane(&self) -> bool {
        is_control_plane(self.machine_type())
    }

    /// The certificate of the machine API's authority: base64 of PEM.
    pub fn talos_ca(&self) -> &str {
        self.value(&["machine", "ca", "crt"]).unwrap_or_default()
    }

    /// The certificate of Kubernetes' authority: base64 of PEM.
    pub fn kubernetes_ca(&self) -> &str {
        self.value(&["cluster", "ca", "crt"]).unwrap_or_default()
    }

    /// What is alike in all configs of one cluster.
    pub fn cluster(&self) -> [&str; 3] {
        [self.value(&["cluster", "id"]).unwrap_or_default(), self.talos_ca(), self.kubernetes_ca()]
    }

    /// Talos brings the cluster's network along; else nodes are not ready before somebody installed one.
    pub fn has_network(&self) -> bool {
        self.value(&["cluster", "network", "cni", "name"]) != Some("none")
    }

    /// The Talos that is installed, by the tag of the installer's image.
    ///
    /// # Errors
    /// The image is not named by a version.
    pub fn version(&self) -> Result<Version> {
        let image = self.value(&["machine", "install", "image"]).unwrap_or_default();
        let tag = image.split('@').next().and_then(|name| name.rsplit('/').next()?.split_once(':'));
        tag.and_then(|(_, tag)| Version::of_tag(tag)).ok_or_else(|| {
            Error::invalid(format!("{}: machine.install.image `{image}` does not name a version", self.file))
                .hint("write it with the version's tag, such as ghcr.io/siderolabs/installer:v1.11.5")
        })
    }

    /// The disk that Talos is to be installed on; nothing where Talos is on one already.
    ///
    /// # Errors
    /// `Kind::Refused`: there is no such disk, or it holds something; `Kind::Invalid`: it is not named.
    pub fn install_disk(&self, disks: &[Disk]) -> Result<Option<InstallDisk>> {
        if disks.iter().any(|disk| disk.system) {
            return Ok(None);
        }
        let disk = self.named(disks)?;
        let (serial, wwid) = (&disk.spec.serial, &disk.spec.wwid);
        let told = !(serial.is_empty() && wwid.is_empty()) && disk.twin(disks).is_none();
        let token = match &disk.eligible {
            Ok(()) => None,
            Err(_) if told && matches!(disk.holder, Holder::Unknown(_)) => {
                Some(if serial.is_empty() { wwid.clone() } else { serial.clone() })
            }
            Err(why) => {
                return Err(Error::refused(format!(
                    "Talos is to be installed on {}, which is not free: {why}",
                    describe(disk)
                ))
                .hint("choose another disk, or wipe this one if nothing on it is needed: talosctl wipe disk --insecure"));
            }
        };
        let (name, what) = (disk.id.clone(), describe(disk));
        Ok(Some(InstallDisk { name, serial: serial.clone(), wwid: wwid.clone(), what, token }))
    }

    /// The one disk at the path where Talos is to be installed.
    fn named<'a>(&self, disks: &'a [Disk]) -> Result<&'a Disk> {
        let Some(path) = self.value(&["machine", "install", "disk"]).filter(|path| !path.is_empty()) else {
            return Err(Error::invalid(format!("{}: machine.install.disk is not in it", self.file))
                .hint("name the disk that Talos is installed on by its path, such as /dev/disk/by-id/…; nodeprep does not follow a diskSelector"));
        };
        let named = |disk: &&Disk| {
            disk.spec.dev_path == path
                || path.strip_prefix("/dev/") == Some(disk.id.as_str())
                || disk.spec.symlinks.iter().any(|link| link == path)
        };
        let mut found = disks.iter().filter(named);
        if let (Some(disk), None) = (found.next(), found.next()) {
            return Ok(disk);
        }
        let all = disks.iter().filter(|disk| !disk.is_memory());
        let all: String = all.map(|disk| format!("\n  {}", describe(disk))).collect();
        Err(Error::refused(format!("machine.install.disk {path} is no disk of this machine; it has:{all}"))
            .hint(format!("correct it in {}", self.file)))
    }
}

/// The disk that Talos is to be installed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallDisk {
    /// Its name at this boot.
    pub name: String,
    pub serial: String,
    pub wwid: String,
    /// Name, size, model and serial, for people.
    pub what: String,
    /// What is on it can't be seen: what has to be said for it to be written, which is its serial, or its WWID.
    pub token: Option<String>,
}

impl InstallDisk {
    /// It is the system's from now on.
    pub fn take(&self, disks: &mut [Disk]) {
        for disk in disks.iter_mut().filter(|disk| disk.id == self.name) {
            disk.system = true;
            disk.holder = Holder::System;
            disk.eligible = Err("is the disk Talos is to be installed on".into());
        }
    }

    /// Right before the installation it is still the one of that name, and free.
    pub fn still(&self, disks: &[Disk]) -> Result<()> {
        let same = |disk: &&Disk| {
            disk.id == self.name && disk.spec.serial == self.serial && disk.spec.wwid == self.wwid
        };
        let why = match disks.iter().find(same) {
            None => "is not there any more, or has another name",
            Some(disk) => match &disk.eligible {
                Ok(()) => return Ok(()),
                Err(_) if self.token.is_some() && matches!(disk.holder, Holder::Unknown(_)) => return Ok(()),
                Err(why) => why,
            },
        };
        Err(Error::refused(format!("the approved disk {}: {why}", self.what))
            .hint("run it again, to plan from what is there now"))
    }
}

const WHOLE: &str = "a whole config is needed, as `talosctl gen config` writes it";

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::talos::resources::DiskSpec as Spec;

    const CONFIG: &str = "version: v1alpha1\nmachine:\n  type: controlplane\n  ca: {crt: YQ==, key: Yg==}\n  install:\n    \
        disk: /dev/sda\n    image: factory.talos.dev/metal-installer/376567988ad:v1.11.5\ncluster:\n  id: x\n  ca: {crt: Yw==}\n";

    fn first(text: &str) -> Result<First> {
        First::parse("c.yaml", &SecretString::from(text.to_owned()))
    }

    fn disk(name: &str, eligible: Result<(), String>) -> Disk {
        let spec = Spec {
            dev_path: format!("/dev/{name}"),
            serial: name.to_uppercase(),
            size: 1 << 40,
            symlinks: vec![format!("/dev/disk/by-id/nvme-{name}")],
            ..Spec::default()
        };
        Disk {
            id: name.into(),
            spec,
            system: false,
            holder: Holder::Nothing,
            partitions: Vec::new(),
            uses: crate::observe::disks::Uses::default(),
            eligible,
        }
    }

    #[test]
    fn what_a_first_config_says_is_read() {
        let config = first(CONFIG).unwrap();
        assert!(config.is_control_plane() && config.has_network());
        assert_eq!(config.version().unwrap().parsed, (1, 11, 5));
        assert_eq!(config.cluster(), ["x", "YQ==", "Yw=="]);
        assert!(!first(&format!("{CONFIG}  network: {{cni: {{name: none}}}}\n")).unwrap().has_network());
        assert!(!format!("{config:?}").contains("YQ=="));
    }

    #[test]
    fn what_it_lacks_is_said_with_its_file() {
        for (text, word) in [
            ("kind: HostnameConfig\n".to_owned(), "no v1alpha1 document"),
            (CONFIG.replace("  type: controlplane\n", ""), "machine.type is not in it"),
            (CONFIG.replace("YQ==", "''"), "machine.ca.crt"),
            (CONFIG.replace("  ca: {crt: Yw==}\n", ""), "cluster.ca.crt"),
            (
                format!("{CONFIG}---\napiVersion: v1alpha1\nkind: UnattendedInstallConfig\n"),
                "UnattendedInstallConfig",
            ),
            ("a: [".to_owned(), "c.yaml"),
        ] {
            let error = first(&text).unwrap_err();
            assert!(error.what.contains(word) && error.what.contains("c.yaml"), "{error}");
            assert_eq!(error.kind.exit_code(), 2);
        }
        for image in ["", "installer", "ghcr.io:5000/installer", "installer:latest"] {
            let text = CONFIG
                .replace("factory.talos.dev/metal-installer/376567988ad:v1.11.5", &format!("'{image}'"));
            assert!(first(&text).unwrap().version().unwrap_err().what.contains("does not name a version"));
        }
        let pinned = CONFIG.replace(":v1.11.5", ":v1.12.0@sha256:00");
        assert_eq!(first(&pinned).unwrap().version().unwrap().tag, "v1.12.0");
    }

    #[test]
    fn a_config_that_writes_to_other_disks_is_refused() {
        let volume = "---\napiVersion: v1alpha1\nkind: UserVolumeConfig\nname: data\n";
        let selects = "provisioning: {diskSelector: {match: 'true'}, minSize: 1GiB}\n";
        let disks = CONFIG.replace("  install:", "  disks: [{device: /dev/sdb}]\n  install:");
        for (text, what) in [
            (format!("{CONFIG}{volume}{selects}"), Some("UserVolumeConfig/data")),
            (format!("{CONFIG}{volume}volumeType: directory\n"), None),
            (format!("{CONFIG}{volume}{selects}").replace("User", "Raw"), Some("RawVolumeConfig/data")),
            (format!("{CONFIG}{volume}{selects}").replace("User", ""), Some("VolumeConfig/data")),
            (format!("{CONFIG}{volume}provisioning: {{maxSize: 9GiB}}\n").replace("User", ""), None),
            (
                format!("{CONFIG}{volume}").replace("UserVolumeConfig", "LVMVolumeGroupConfig"),
                Some("LVMVolumeGroup"),
            ),
            (disks, Some("machine.disks")),
            (CONFIG.replace("  install:", "  disks: []\n  install:"), None),
        ] {
            match (first(&text), what) {
                (Ok(_), None) => {}
                (Err(error), Some(what)) => {
                    assert!(error.what.contains(what) && error.kind.exit_code() == 5, "{error}");
                }
                (other, _) => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn talos_is_installed_on_exactly_the_disk_that_is_named_and_only_when_that_is_free() {
        let used = || Err("holds a xfs file system".to_owned());
        let by_id = CONFIG.replace("/dev/sda", "/dev/disk/by-id/nvme-sdb");
        for (text, sda, found) in [
            (CONFIG, Ok(()), Ok("sda")),
            (&by_id, used(), Ok("sdb")),
            (CONFIG, used(), Err("not free: holds a xfs")),
            (&CONFIG.replace("/dev/sda", "/dev/sdz"), Ok(()), Err("is no disk of this machine")),
            (
                &CONFIG.replace("    disk: /dev/sda\n", "    diskSelector: {type: ssd}\n"),
                Ok(()),
                Err("is not in it"),
            ),
        ] {
            let mut disks = vec![disk("sda", sda), disk("sdb", Ok(()))];
            match (first(text).unwrap().install_disk(&disks), found) {
                (Ok(Some(chosen)), Ok(name)) => {
                    assert_eq!((chosen.name.as_str(), chosen.serial.clone()), (name, name.to_uppercase()));
                    chosen.still(&disks).unwrap();
                    chosen.take(&mut disks);
                    assert!(chosen.still(&disks).unwrap_err().what.contains("Talos is to be installed"));
                    let system = disks.iter().filter(|disk| disk.system).map(|disk| disk.id.as_str());
                    assert_eq!(system.collect::<Vec<_>>(), [name]);
                }
                (Err(error), Err(word)) => assert!(error.what.contains(word), "{error}"),
                (other, _) => panic!("{text}: {other:?}"),
            }
        }
        let mut disks = vec![disk("sda", used())];
        disks[0].system = true;
        assert!(first(CONFIG).unwrap().install_disk(&disks).unwrap().is_none(), "it is installed already");
    }
}
