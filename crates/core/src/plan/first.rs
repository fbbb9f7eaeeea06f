//! The first config of a machine, as another tool wrote it, and what has to be known of it before it is given away.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret, SecretString};

use super::disks::describe;
pub use super::target::InstallDisk;
use super::target::{InstallTarget, UNATTENDED, document, text};
use crate::config_doc::ConfigDoc;
use crate::error::{Error, Result};
use crate::intent::MaxSize;
use crate::model::disks::{Disk, RAW_VOLUME, USER_VOLUME, select};
use crate::model::node::{Version, is_control_plane};
use crate::plan::ephemeral;
use crate::plan::versions::release;

/// The documents that hold from Talos 1.14 on what `cluster` held.
const AUTHORITY: &str = "KubeAPIServerCAConfig";
const IDENTITY: &str = "DiscoveryIdentityConfig";
const FLANNEL: &str = "KubeFlannelCNIConfig";

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
    /// to disks besides Talos' own, whichever the machine has.
    pub fn parse(file: &str, text: &SecretString) -> Result<Self> {
        Self::read(file, text).map_err(|error| error.at(file))
    }

    fn read(file: &str, text: &SecretString) -> Result<Self> {
        let first = Self { file: file.to_owned(), doc: ConfigDoc::parse(text.expose_secret())? };
        if first.doc.legacy().is_none() {
            return Err(Error::invalid("it has no v1alpha1 document, the one with `machine` and `cluster`")
                .hint(WHOLE));
        }
        for path in [&["machine", "type"][..], &["machine", "ca", "crt"]] {
            if first.value(path).is_none() {
                return Err(Error::invalid(format!("{} is not in it", path.join("."))).hint(WHOLE));
            }
        }
        if first.kubernetes_ca().is_none() {
            return Err(
                Error::invalid(format!("neither cluster.ca.crt nor {AUTHORITY} is in it")).hint(WHOLE)
            );
        }
        InstallTarget::of(&first.doc)?;
        match first.writes() {
            Some(what) => Err(unseen(&what, "")),
            None => Ok(first),
        }
    }

    /// What makes Talos write to disks besides its own, whatever disks there are.
    fn writes(&self) -> Option<String> {
        let kinds = self.doc.documents().find_map(|document| {
            let kind = document.id.kind.as_deref()?;
            let writes = kind == "RAIDArrayConfig" || kind.starts_with("LVM");
            writes.then(|| document.id.to_string())
        });
        let disks =
            || self.doc.legacy()?.root.get(&["machine", "disks"]).filter(|disks| !disks.items().is_empty());
        kinds.or_else(|| disks().map(|_| "machine.disks".to_owned()))
    }

    /// Whether all that the config wants on disks is on the one that Talos is or will be installed on.
    ///
    /// # Errors
    /// `Kind::Refused`: Talos would write to another disk, which nobody has looked at, or finds none at all.
    pub(super) fn stays_on_system_disk(&self, disks: &[Disk]) -> Result<()> {
        for found in self.doc.documents() {
            let kind = found.id.kind.as_deref().unwrap_or_default();
            let prefix = match kind {
                "VolumeConfig" => "",
                "UserVolumeConfig" => USER_VOLUME,
                "RawVolumeConfig" => RAW_VOLUME,
                "SwapVolumeConfig" => "s-",
                _ => continue,
            };
            let Some(expression) = text(found.root, &["provisioning", "diskSelector", "match"]) else {
                continue;
            };
            let what = found.id.to_string();
            let places = select(expression, disks).map_err(|error| error.at(&what).at(&self.file))?;
            let places: Vec<&Disk> = places.into_iter().filter_map(|index| disks.get(index)).collect();
            let others =
                places.iter().filter(|disk| !disk.system).map(|disk| format!("\n  {}", describe(disk)));
            let others: String = others.collect();
            if !others.is_empty() || text(found.root, &["volumeType"]) == Some("disk") {
                return Err(unseen(&what, &others).at(&self.file));
            }
            if places.is_empty() {
                return Err(Error::refused(format!(
                    "{}: {what}: no disk of this machine matches `{expression}`, so Talos would wait for one",
                    self.file
                ))
                .hint("`match: system_disk` is the disk that Talos is on"));
            }
            let label = format!("{prefix}{}", found.id.name.as_deref().unwrap_or_default());
            if let Some(disk) = disks.iter().find(|disk| !prefix.is_empty() && disk.has_volume(&label)) {
                return Err(Error::refused(format!(
                    "{}: {what}: {} has a volume {label} already, of another cluster or time, and Talos would adopt it",
                    self.file,
                    describe(disk)
                ))
                .hint("take the document out, or wipe what is there if nothing on it is needed"));
            }
        }
        Ok(())
    }

    /// The most that Talos' own data partition will have.
    pub(super) fn ephemeral(&self) -> Result<Option<MaxSize>> {
        ephemeral::there(&self.doc)
    }

    pub fn text(&self) -> SecretString {
        self.doc.text().into()
    }

    fn value(&self, path: &[&str]) -> Option<&str> {
        text(self.doc.legacy()?.root, path)
    }

    fn in_document(&self, kind: &str, path: &[&str]) -> Option<&str> {
        text(document(&self.doc, kind)?, path)
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
    pub fn kubernetes_ca(&self) -> Option<String> {
        if let Some(legacy) = self.value(&["cluster", "ca", "crt"]) {
            return Some(legacy.to_owned());
        }
        let authority = document(&self.doc, AUTHORITY)?;
        let accepted = || authority.get(&["acceptedCAs"])?.items().first()?.text();
        let pem = text(authority, &["issuingCA", "cert"]).or_else(accepted)?;
        Some(BASE64_STANDARD.encode(pem))
    }

    /// The authorities of Talos and of Kubernetes, each a certificate and its key in PEM; only control planes have the keys.
    pub fn authorities(&self) -> [Option<(String, SecretString)>; 2] {
        let decoded = |base64: &str| String::from_utf8(BASE64_STANDARD.decode(base64.trim()).ok()?).ok();
        let legacy = |path: [&str; 2]| {
            let part = |key: &str| decoded(self.value(&[path[0], path[1], key])?);
            Some((part("crt")?, part("key")?.into()))
        };
        let part = |key: &str| self.in_document(AUTHORITY, &["issuingCA", key]).map(str::to_owned);
        let document = || Some((part("cert")?, part("key")?.into()));
        [legacy(["machine", "ca"]), legacy(["cluster", "ca"]).or_else(document)]
    }

    /// What is alike in all configs of one cluster.
    pub fn cluster(&self) -> [String; 3] {
        let id = self.value(&["cluster", "id"]).or_else(|| self.in_document(IDENTITY, &["clusterID"]));
        let kubernetes = self.kubernetes_ca().unwrap_or_default();
        [id.unwrap_or_default().to_owned(), plain(self.talos_ca()), plain(&kubernetes)]
    }

    /// Talos brings the cluster's network along; else nodes are not ready before somebody installed one. Control planes
    /// say it.
    pub fn has_network(&self) -> bool {
        let legacy = self.doc.legacy();
        let section = legacy.as_ref().and_then(|legacy| legacy.root.get(&["cluster", "network"]));
        let section = section.filter(|section| !section.is_null());
        let wanted = section.and_then(|section| text(section, &["cni", "name"])) != Some("none");
        // From 1.14 on a section that does not exist means nothing.
        let flannel = document(&self.doc, FLANNEL).is_some();
        let said = flannel || section.is_some() || !self.is_of_documents();
        !self.is_control_plane() || wanted && said
    }

    /// It is for Talos 1.14 or later, as far as it tells.
    fn is_of_documents(&self) -> bool {
        let image = Version::of_image(self.image());
        document(&self.doc, UNATTENDED).is_some() || image.is_some_and(|image| release(&image) >= (1, 14))
    }

    /// The image of the installer.
    fn image(&self) -> &str {
        let image = self.value(&["machine", "install", "image"]);
        image.or_else(|| self.in_document(UNATTENDED, &["installer", "image"])).unwrap_or_default()
    }

    /// The Talos that is installed: by the tag of the installer's image or, where none is named, the one that runs.
    ///
    /// # Errors
    /// The image is not named by a version.
    pub fn version(&self, running: Option<&Version>) -> Result<Version> {
        let image = self.image();
        match (Version::of_image(image), running) {
            (Some(version), _) => Ok(version),
            (None, Some(running)) if image.is_empty() => Ok(running.clone()),
            (None, None) if image.is_empty() => {
                Err(Error::invalid(format!("{}: machine.install.image is not in it, and the machine does not say which Talos it runs", self.file))
                    .hint("name the installer's image with its version's tag"))
            }
            _ => Err(Error::invalid(format!("{}: machine.install.image `{image}` does not name a version", self.file))
                .hint("write it with the version's tag, such as factory.talos.dev/metal-installer/376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba:v1.14.1")),
        }
    }

    /// The disk that Talos is to be installed on; nothing where Talos is on one already.
    ///
    /// # Errors
    /// `Kind::Refused`: there is no such disk, there are several, or it holds something; `Kind::Invalid`: it is not named.
    pub fn install_disk(&self, disks: &[Disk]) -> Result<Option<InstallDisk>> {
        if disks.iter().any(|disk| disk.system) {
            return Ok(None);
        }
        let target = InstallTarget::of(&self.doc).map_err(|error| error.at(&self.file))?;
        let Some(target) = target else {
            return Err(Error::invalid(format!("{}: machine.install.disk is not in it, nor {UNATTENDED}", self.file))
                .hint("say which disk Talos is installed on, for example by its path: machine: {install: {disk: /dev/disk/by-id/…}}"));
        };
        InstallDisk::choose(&target, disks).map(Some).map_err(|error| match error.hint {
            Some(_) => error,
            None => error
                .hint(format!("make it name exactly one disk in {}, for example by its serial", self.file)),
        })
    }
}

/// The same text for the same authority, however it is written.
fn plain(authority: &str) -> String {
    let pem = BASE64_STANDARD.decode(authority.trim());
    pem.map_or_else(|_| authority.to_owned(), |pem| BASE64_STANDARD.encode(pem.trim_ascii()))
}

fn unseen(what: &str, disks: &str) -> Error {
    let list = if disks.is_empty() { String::new() } else { format!(":{disks}") };
    Error::refused(format!("{what} makes Talos write to disks that nobody has looked at{list}"))
        .hint("take it out: `volumes` in nodeprep.yaml says what is wanted, and `apply` makes it when the disks can be looked at; `match: system_disk` is Talos' own disk")
}

const WHOLE: &str = "a whole config is needed, as `talosctl gen config` writes it";

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::disks::{Holder, Partition};
    use crate::model::resources::DiskSpec as Spec;

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
            transport: "sata".into(),
            ..Spec::default()
        };
        Disk {
            id: name.into(),
            spec,
            system: false,
            holder: Holder::Nothing,
            partitions: Vec::new(),
            uses: crate::model::disks::Uses::default(),
            eligible,
        }
    }

    #[test]
    fn what_a_first_config_says_is_read() {
        let config = first(CONFIG).unwrap();
        assert!(config.is_control_plane() && config.has_network());
        assert_eq!(config.version(None).unwrap().parsed, (1, 11, 5));
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
        for image in ["installer", "ghcr.io:5000/installer", "installer:latest"] {
            let text = CONFIG
                .replace("factory.talos.dev/metal-installer/376567988ad:v1.11.5", &format!("'{image}'"));
            let error = first(&text).unwrap().version(None).unwrap_err();
            assert!(error.what.contains("does not name a version"));
        }
        let none = CONFIG.replace("factory.talos.dev/metal-installer/376567988ad:v1.11.5", "''");
        let error = first(&none).unwrap().version(None).unwrap_err();
        assert!(error.what.contains("machine.install.image is not in it"), "{error}");
        let pinned = CONFIG.replace(":v1.11.5", ":v1.12.0@sha256:00");
        assert_eq!(first(&pinned).unwrap().version(None).unwrap().tag, "v1.12.0");
        let unnamed =
            CONFIG.replace("    image: factory.talos.dev/metal-installer/376567988ad:v1.11.5\n", "");
        let running = Version::of_tag("v1.13.9").unwrap();
        assert_eq!(first(&unnamed).unwrap().version(Some(&running)).unwrap().tag, "v1.13.9");
    }

    #[test]
    fn a_config_that_writes_to_other_disks_is_refused() {
        let disks = CONFIG.replace("  install:", "  disks: [{device: /dev/sdb}]\n  install:");
        let lvm = format!("{CONFIG}---\napiVersion: v1alpha1\nkind: LVMVolumeGroupConfig\nname: data\n");
        for (text, what) in [
            (lvm.clone(), Some("LVMVolumeGroup")),
            (lvm.replace("LVMVolumeGroup", "RAIDArray"), Some("RAIDArrayConfig/data")),
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
    fn volumes_of_the_config_may_be_on_talos_own_disk_and_on_no_other() {
        let of = |kind: &str, name: &str, rest: &str| {
            let config = format!("{CONFIG}---\napiVersion: v1alpha1\nkind: {kind}\nname: {name}\n{rest}\n");
            let first = first(&config).unwrap();
            let mut disks = vec![disk("sda", Ok(())), disk("sdb", Ok(()))];
            let leftover = Partition { label: "u-old".into(), size: 1 << 30, ..Partition::default() };
            disks[1].partitions.push(leftover);
            first.install_disk(&disks).unwrap().unwrap().take(&mut disks);
            first.stays_on_system_disk(&disks)
        };
        let on = |expression: &str| {
            format!("provisioning: {{diskSelector: {{match: '{expression}'}}, maxSize: 9GiB}}")
        };
        for name in ["EPHEMERAL", "IMAGECACHE", "ETCD", "CRI", "KUBELET", "LOG"] {
            of("VolumeConfig", name, &on("system_disk")).unwrap();
            of("VolumeConfig", name, "provisioning: {maxSize: 9GiB}").unwrap();
        }
        of("VolumeConfig", "STATE", "encryption: {provider: luks2}").unwrap();
        of("VolumeConfig", "EPHEMERAL", &on("disk.serial == \"SDA\"")).unwrap();
        of("UserVolumeConfig", "data", "volumeType: directory").unwrap();
        of("UserVolumeConfig", "data", &on("system_disk")).unwrap();
        for (kind, name, rest, words) in [
            ("VolumeConfig", "EPHEMERAL", on("true"), ["VolumeConfig/EPHEMERAL", "sdb (1.0TiB, serial SDB)"]),
            ("VolumeConfig", "ETCD", on("!system_disk"), ["VolumeConfig/ETCD", "sdb"]),
            (
                "VolumeConfig",
                "EPHEMERAL",
                on("disk.serial == \"X\""),
                ["no disk of this machine", "Talos would wait"],
            ),
            ("UserVolumeConfig", "data", on("true"), ["UserVolumeConfig/data", "nobody has looked at"]),
            ("RawVolumeConfig", "data", on("!system_disk"), ["RawVolumeConfig/data", "nobody has looked at"]),
            ("SwapVolumeConfig", "data", on("true"), ["SwapVolumeConfig/data", "nobody has looked at"]),
            ("UserVolumeConfig", "old", on("system_disk"), ["sdb", "u-old already"]),
        ] {
            let error = of(kind, name, &rest).unwrap_err();
            let told = words.iter().all(|word| error.what.contains(word)) && error.what.contains("c.yaml");
            assert!(told && error.kind.exit_code() == 5, "{error}");
        }
        assert_eq!(of("VolumeConfig", "EPHEMERAL", &on("disk.size")).unwrap_err().kind.exit_code(), 2);
    }

    /// As `talosctl gen config` of Talos 1.14 writes them.
    const GENERATED: [&str; 2] = [
        include_str!("../../../../tests/golden/generated/1.14/controlplane.yaml"),
        include_str!("../../../../tests/golden/generated/1.14/worker.yaml"),
    ];

    #[test]
    fn the_configs_that_talos_1_14_generates_are_taken() {
        let [control, worker] = GENERATED.map(|text| first(text).unwrap());
        assert!(control.is_control_plane() && !worker.is_control_plane());
        assert!(control.has_network() && worker.has_network());
        assert_eq!(control.cluster(), worker.cluster());
        assert!(control.cluster().iter().all(|part| part.len() > 40), "id and authorities");
        for config in [control, worker] {
            assert_eq!(config.version(None).unwrap().parsed, (1, 14, 1));
            let mut disks = vec![disk("sda", Ok(())), disk("sdb", Ok(()))];
            let chosen = config.install_disk(&disks).unwrap().unwrap();
            assert_eq!(chosen.id.serial.as_deref(), Some("SDA"));
            chosen.take(&mut disks);
            config.stays_on_system_disk(&disks).unwrap();
            assert_eq!(config.ephemeral().unwrap(), None);
        }
        let without = |kind: &str| GENERATED[0].replace(kind, "OtherConfig");
        assert!(!first(&without(FLANNEL)).unwrap().has_network(), "its absence says so from 1.14 on");
        let error = first(&without(AUTHORITY)).unwrap_err();
        assert!(error.what.contains("neither cluster.ca.crt nor KubeAPIServerCAConfig"), "{error}");
        let error = first(&without(UNATTENDED)).unwrap().install_disk(&[disk("sda", Ok(()))]).unwrap_err();
        assert!(error.what.contains("nor UnattendedInstallConfig") && error.kind.exit_code() == 2, "{error}");
        let twice = GENERATED[0].replace("machine:\n", "machine:\n    install: {disk: /dev/sda}\n");
        assert!(first(&twice).unwrap_err().what.contains("both UnattendedInstallConfig and machine.install"));
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
                &CONFIG.replace("    disk: /dev/sda\n", "    diskSelector: {serial: '*B'}\n"),
                used(),
                Ok("sdb"),
            ),
            (&CONFIG.replace("disk: /dev/sda", "diskSelector: {type: ssd}"), Ok(()), Err("matches 2 disks")),
            (&CONFIG.replace("    disk: /dev/sda\n", ""), Ok(()), Err("is not in it")),
        ] {
            let mut disks = vec![disk("sda", sda), disk("sdb", Ok(()))];
            match (first(text).unwrap().install_disk(&disks), found) {
                (Ok(Some(chosen)), Ok(name)) => {
                    assert_eq!(
                        (chosen.name.as_str(), chosen.id.serial.clone()),
                        (name, Some(name.to_uppercase()))
                    );
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
