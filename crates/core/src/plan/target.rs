//! The disk that Talos is installed on, as a machine's first config names it: by its path, or by a selector. Talos takes
//! the first disk that a selector matches; here it must match exactly one.

use super::disks::{cel_string, describe};
use crate::config_doc::ConfigDoc;
use crate::error::{Error, Result};
use crate::intent::Size;
use crate::model::disks::{Disk, DiskId, Holder, select};
use crate::yaml::Node;

/// The document that says from Talos 1.14 on where Talos is installed.
pub(super) const UNATTENDED: &str = "UnattendedInstallConfig";

/// What names the disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InstallTarget {
    Path(String),
    Selector {
        /// Where in the config it is.
        at: &'static str,
        /// In CEL.
        expression: String,
    },
}

impl InstallTarget {
    /// What the config says; nothing when it says nothing.
    ///
    /// # Errors
    /// `Kind::Invalid`: it says it twice, or in a way that Talos does not read.
    pub(super) fn of(doc: &ConfigDoc) -> Result<Option<Self>> {
        let legacy = doc.legacy();
        let install = legacy.as_ref().and_then(|legacy| legacy.root.get(&["machine", "install"]));
        let install = install.filter(|install| !install.is_null());
        if let Some(unattended) = document(doc, UNATTENDED) {
            if install.is_some() {
                return Err(Error::invalid(format!("it has both {UNATTENDED} and machine.install"))
                    .hint("Talos refuses the two together: keep one"));
            }
            let at = "provisioning.diskSelector of UnattendedInstallConfig";
            let expression = text(unattended, &["provisioning", "diskSelector", "match"]);
            let expression = expression.ok_or_else(|| Error::invalid(format!("{at} is not in it")))?;
            return Ok(Some(Self::Selector { at, expression: expression.to_owned() }));
        }
        let Some(install) = install else { return Ok(None) };
        // Talos looks at the path only where there is no selector.
        if let Some(selector) = install.get(&["diskSelector"]).filter(|selector| !selector.is_null()) {
            let at = "machine.install.diskSelector";
            let expression = expression(selector).map_err(|error| error.at(at))?;
            return Ok(Some(Self::Selector { at, expression }));
        }
        Ok(text(install, &["disk"]).map(|path| Self::Path(path.to_owned())))
    }

    /// The one disk that is meant.
    ///
    /// # Errors
    /// `Kind::Refused` with the candidates: it is none or several; `Kind::Invalid`: the selector can't be read.
    pub(super) fn find<'a>(&self, disks: &'a [Disk]) -> Result<&'a Disk> {
        let found: Vec<&Disk> = match self {
            Self::Path(path) => disks.iter().filter(|disk| is_at(disk, path)).collect(),
            Self::Selector { at, expression } => {
                let found = select(expression, disks).map_err(|error| error.at(*at))?;
                found.into_iter().filter_map(|index| disks.get(index)).collect()
            }
        };
        let list = |disks: &mut dyn Iterator<Item = &Disk>| {
            disks.map(|disk| format!("\n  {}", describe(disk))).collect::<String>()
        };
        let all = || list(&mut disks.iter().filter(|disk| !disk.is_memory()));
        let what = match (self, found.as_slice()) {
            (_, [disk]) => return Ok(*disk),
            (Self::Path(path), _) => {
                format!("machine.install.disk {path} is no disk of this machine; it has:{}", all())
            }
            (Self::Selector { at, expression }, []) => {
                format!("{at} (`{expression}`) matches no disk of this machine; it has:{}", all())
            }
            (Self::Selector { at, expression }, several) => format!(
                "{at} (`{expression}`) matches {} disks of this machine, and Talos takes any of them:{}",
                several.len(),
                list(&mut several.iter().copied())
            ),
        };
        Err(Error::refused(what))
    }
}

/// The root of the document of a kind that has no name.
pub(super) fn document<'a>(doc: &'a ConfigDoc, kind: &str) -> Option<&'a Node> {
    doc.documents().find(|document| document.id.kind.as_deref() == Some(kind)).map(|found| found.root)
}

/// The text of a value that is not empty.
pub(super) fn text<'a>(node: &'a Node, path: &[&str]) -> Option<&'a str> {
    node.get(path).filter(|value| !value.is_null())?.text().filter(|text| !text.is_empty())
}

fn is_at(disk: &Disk, path: &str) -> bool {
    disk.spec.dev_path == path
        || path.strip_prefix("/dev/") == Some(disk.id.as_str())
        || disk.spec.symlinks.iter().any(|link| link == path)
}

/// What a key of `machine.install.diskSelector` is compared with, by shell patterns.
const PATTERNS: [(&str, &str); 6] = [
    ("uuid", "uuid"),
    ("wwid", "wwid"),
    ("model", "model"),
    ("serial", "serial"),
    ("modalias", "modalias"),
    ("busPath", "bus_path"),
];

/// `machine.install.diskSelector` as the expression that Talos makes of it (siderolabs/talos, v1alpha1, InstallConfig).
fn expression(selector: &Node) -> Result<String> {
    let mut terms = Vec::new();
    for (key, value) in selector.entries().iter().filter(|(_, value)| !value.is_null()) {
        let (Some(key), Some(value)) = (key.text(), value.text()) else {
            return Err(Error::invalid("it is not a map of texts"));
        };
        let pattern = PATTERNS.iter().find(|(name, _)| *name == key);
        match (key, pattern) {
            _ if value.is_empty() => {}
            ("size", _) => terms.push(size(value)?),
            ("type", _) => terms.push(kind(value)?.to_owned()),
            (_, Some((_, field))) => terms.push(format!("glob({}, disk.{field})", cel_string(value))),
            ("name", _) => return Err(Error::invalid("Talos does not look for a disk by `name`")),
            _ => return Err(Error::invalid(format!("Talos knows no key `{key}`"))),
        }
    }
    terms.extend(["disk.transport != \"\"", "!disk.readonly", "!disk.cdrom"].map(str::to_owned));
    Ok(terms.join(" && "))
}

fn kind(kind: &str) -> Result<&'static str> {
    Ok(match kind {
        "nvme" => "disk.transport == \"nvme\"",
        "sd" => "disk.transport == \"mmc\"",
        "hdd" => "disk.rotational",
        "ssd" => "!disk.rotational",
        _ => {
            return Err(Error::invalid(format!("`{kind}` is no type of disk"))
                .hint("Talos knows ssd, hdd, nvme and sd"));
        }
    })
}

/// `>= 100GB`, or a size alone, which must be exactly the disk's.
fn size(condition: &str) -> Result<String> {
    let condition = condition.trim();
    let operators = [">=", "<=", ">", "<", "=="];
    let operator = operators.into_iter().find(|operator| condition.starts_with(operator));
    let size = operator.and_then(|operator| condition.strip_prefix(operator)).unwrap_or(condition);
    let size = Size::parse(size.trim()).map_err(|why| Error::invalid(format!("size: {why}")))?;
    Ok(format!("disk.size {} {}u", operator.unwrap_or("=="), size.0))
}

/// The disk that Talos is to be installed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallDisk {
    /// Its name at this boot.
    pub name: String,
    pub id: DiskId,
    /// Name, size, model and serial, for people.
    pub what: String,
    /// What is on it can't be seen: what has to be said for it to be written, which is its serial, or its WWID.
    pub token: Option<String>,
    /// Where in the config the selector is that it alone matches, and the selector.
    pub selector: Option<(&'static str, String)>,
}

impl InstallDisk {
    /// The disk, if it is free or may be made so by a token.
    pub(super) fn choose(target: &InstallTarget, disks: &[Disk]) -> Result<Self> {
        let disk = target.find(disks)?;
        let told = disk.token(disks).filter(|_| disk.twin(disks).is_none());
        let token = match (&disk.eligible, told) {
            (Ok(()), _) => None,
            (Err(_), Some(token)) if matches!(disk.holder, Holder::Unknown(_)) => Some(token),
            (Err(why), _) => {
                return Err(Error::refused(format!(
                    "Talos is to be installed on {}, which is not free: {why}",
                    describe(disk)
                ))
                .hint("choose another disk, or wipe this one if nothing on it is needed: talosctl wipe disk --insecure"));
            }
        };
        let selector = match target {
            InstallTarget::Path(_) => None,
            InstallTarget::Selector { at, expression } => Some((*at, expression.clone())),
        };
        let (name, what) = (disk.id.clone(), describe(disk));
        Ok(Self { name, id: disk.identity(), what, token, selector })
    }

    /// It is the system's from now on.
    pub fn take(&self, disks: &mut [Disk]) {
        for disk in disks.iter_mut().filter(|disk| disk.id == self.name) {
            disk.system = true;
            disk.holder = Holder::System;
            disk.eligible = Err("is the disk Talos is to be installed on".into());
        }
    }

    /// Right before the installation it is still the one of that name, the only one that the selector matches, and free.
    pub fn still(&self, disks: &[Disk]) -> Result<()> {
        let what = format!("the approved disk {}", self.what);
        let refused = |why: &str| {
            Err(Error::refused(format!("{what}: {why}")).hint("run it again, to plan from what is there now"))
        };
        let disk = self.id.find(disks).map_err(|error| error.at(&what))?;
        if disk.id != self.name {
            return refused(&format!("has another name by now, {}", disk.id));
        }
        if let Some((at, expression)) = &self.selector {
            let target = InstallTarget::Selector { at, expression: expression.clone() };
            if target.find(disks).map(|found| &found.id).ok() != Some(&disk.id) {
                return refused(&format!("{at} does not match it alone any more"));
            }
        }
        match &disk.eligible {
            Ok(()) => Ok(()),
            Err(_) if self.token.is_some() && matches!(disk.holder, Holder::Unknown(_)) => Ok(()),
            Err(why) => refused(why),
        }
    }

    /// Where it is, for people.
    pub(super) fn place(&self) -> String {
        match &self.selector {
            None => format!("on {}", self.what),
            Some((at, _)) => format!("on {}, the one disk that {at} matches", self.what),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::disks::Uses;
    use crate::model::resources::DiskSpec;

    fn target(install: &str) -> Result<Option<InstallTarget>> {
        let legacy = if install.contains("kind:") { String::new() } else { install.to_owned() };
        let rest = if legacy.is_empty() { format!("---\n{install}") } else { String::new() };
        InstallTarget::of(&ConfigDoc::parse(&format!("machine:\n  type: worker\n{legacy}{rest}")).unwrap())
    }

    fn selector(of: &str) -> String {
        match target(&format!("  install: {{diskSelector: {of}}}\n")).unwrap() {
            Some(InstallTarget::Selector { expression, .. }) => expression,
            other => panic!("{of}: {other:?}"),
        }
    }

    fn disk(name: &str, transport: &str, gib: u64) -> Disk {
        let spec = DiskSpec {
            dev_path: format!("/dev/{name}"),
            serial: name.to_uppercase(),
            model: format!("Model {name}"),
            transport: transport.into(),
            bus_path: format!("/pci0000:00/{name}"),
            size: gib << 30,
            ..DiskSpec::default()
        };
        Disk {
            id: name.into(),
            spec,
            system: false,
            holder: Holder::Nothing,
            partitions: Vec::new(),
            uses: Uses::default(),
            eligible: Ok(()),
        }
    }

    #[test]
    fn a_legacy_selector_means_what_talos_makes_of_it() {
        let real = " && disk.transport != \"\" && !disk.readonly && !disk.cdrom";
        for (text, expression) in [
            ("{size: '>= 100GB', type: ssd}", "disk.size >= 100000000000u && !disk.rotational"),
            ("{size: 1 GiB}", "disk.size == 1073741824u"),
            ("{size: '<2TB'}", "disk.size < 2000000000000u"),
            (
                "{model: Samsung*, serial: 123}",
                "glob(\"Samsung*\", disk.model) && glob(\"123\", disk.serial)",
            ),
            ("{busPath: '/pci*', wwid: '', type: hdd}", "glob(\"/pci*\", disk.bus_path) && disk.rotational"),
            (
                "{uuid: u, modalias: m, type: nvme}",
                "glob(\"u\", disk.uuid) && glob(\"m\", disk.modalias) && disk.transport == \"nvme\"",
            ),
            ("{type: sd}", "disk.transport == \"mmc\""),
        ] {
            assert_eq!(selector(text), format!("{expression}{real}"));
        }
        assert_eq!(selector("{}"), &real[4..]);
        for (text, word) in [
            ("{name: sda}", "by `name`"),
            ("{colour: red}", "no key `colour`"),
            ("{type: tape}", "no type of disk"),
            ("{size: large}", "size:"),
            ("{model: [a]}", "map of texts"),
        ] {
            let error = target(&format!("  install: {{diskSelector: {text}}}\n")).unwrap_err();
            assert!(error.what.contains(word) && error.kind.exit_code() == 2, "{error}");
        }
    }

    #[test]
    fn it_is_found_where_talos_looks_for_it() {
        let unattended =
            "kind: UnattendedInstallConfig\nprovisioning: {diskSelector: {match: system_disk}}\n";
        assert_eq!(
            target("  install: {disk: /dev/sda}\n").unwrap(),
            Some(InstallTarget::Path("/dev/sda".into()))
        );
        let both = target("  install: {disk: /dev/sda, diskSelector: {type: ssd}}\n").unwrap();
        assert!(matches!(both, Some(InstallTarget::Selector { .. })), "Talos takes the selector");
        assert!(matches!(target(unattended).unwrap(), Some(InstallTarget::Selector { .. })));
        assert_eq!(target("  install: {wipe: false}\n").unwrap(), None);
        assert!(target("kind: UnattendedInstallConfig\n").unwrap_err().what.contains("diskSelector"));
        let doc = format!("machine: {{install: {{disk: /dev/sda}}}}\n---\n{unattended}");
        assert!(InstallTarget::of(&ConfigDoc::parse(&doc).unwrap()).unwrap_err().what.contains("both"));
    }

    #[test]
    fn exactly_one_disk_must_match_and_the_others_are_told() {
        let disks = [disk("sda", "sata", 100), disk("nvme0n1", "nvme", 500), disk("nvme1n1", "nvme", 900)];
        let find = |text: &str| {
            let target = target(&format!("  install: {{diskSelector: {text}}}\n")).unwrap().unwrap();
            target.find(&disks).map(|disk| disk.id.clone())
        };
        assert_eq!(find("{type: nvme, size: '< 600GB'}").unwrap(), "nvme0n1");
        assert_eq!(find("{busPath: '*sda'}").unwrap(), "sda");
        let none = find("{model: Other*}").unwrap_err();
        assert!(none.what.contains("matches no disk") && none.what.contains("nvme1n1 (900.0GiB"), "{none}");
        let several = find("{type: nvme}").unwrap_err();
        assert!(several.what.contains("matches 2 disks") && !several.what.contains("sda"), "{several}");
        assert_eq!((none.kind.exit_code(), several.kind.exit_code()), (5, 5));
    }

    #[test]
    fn a_disk_that_came_since_and_matches_too_stops_the_installation() {
        let mut disks = vec![disk("sda", "sata", 100), disk("nvme0n1", "nvme", 500)];
        let target = target("  install: {diskSelector: {type: nvme}}\n").unwrap().unwrap();
        let chosen = InstallDisk::choose(&target, &disks).unwrap();
        assert!(chosen.place().contains("serial NVME0N1") && chosen.place().contains("diskSelector"));
        chosen.still(&disks).unwrap();
        disks.push(disk("nvme1n1", "nvme", 900));
        let error = chosen.still(&disks).unwrap_err();
        assert!(error.what.contains("does not match it alone") && error.kind.exit_code() == 5, "{error}");
    }

    #[test]
    fn a_disk_that_another_one_says_to_be_is_not_installed_on_and_its_token_names_it_alone() {
        let target = InstallTarget::Path("/dev/sda".into());
        let named = |name: &str, serial: &str, wwid: &str| {
            let mut disk = disk(name, "sata", 100);
            (disk.spec.serial, disk.spec.wwid) = (serial.into(), wwid.into());
            disk
        };
        let unknown = |disk: Disk| Disk {
            holder: Holder::Unknown("not looked at".into()),
            eligible: Err("may hold something".into()),
            ..disk
        };
        let disks = [unknown(named("sda", "S", "w1")), named("sdb", "S", "w2")];
        assert_eq!(InstallDisk::choose(&target, &disks).unwrap().token.as_deref(), Some("w1"));

        let chosen = InstallDisk::choose(&target, &[named("sda", "S", "w1")]).unwrap();
        chosen.still(&[named("sda", "S", "w1"), named("sdb", "S", "w2")]).unwrap();
        for (name, now, word) in [
            ("on two paths", vec![named("sda", "S", "w1"), named("sdb", "S", "w1")], "sda and sdb"),
            (
                "a twin that hides its WWID",
                vec![named("sda", "S", "w1"), named("sdb", "S", "")],
                "sda and sdb",
            ),
            ("another WWID", vec![named("sda", "S", "w2")], "no disk has the serial S and the WWID w1"),
            ("another name", vec![named("sdb", "S", "w1")], "has another name by now, sdb"),
        ] {
            let error = chosen.still(&now).unwrap_err();
            assert!(error.what.contains(word) && error.kind.exit_code() == 5, "{name}: {error}");
        }
    }
}
