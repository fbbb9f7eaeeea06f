//! Maintenance mode: a machine without a configuration takes its first one, installs Talos and boots from it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::config::{Config, parse, release};
use super::disks::{Contents, Disk, EPHEMERAL, Partition};
use super::{Applied, Apply, BOOT, Machine, Mode, Refusal};
use crate::intent::Size;
use crate::model::disks::{NEWEST, accept, select};
use crate::timers::Timers;

/// From the configuration to the reset into the installed Talos.
const INSTALL: Duration = Duration::from_secs(5);
const DRY_RUN: &str = "Dry run summary:\nNode is running in maintenance mode and does not have a config yet.";

/// Whether a service of its own, which knows few calls, serves this version's maintenance mode.
pub fn has_maintenance_service(version: &str) -> bool {
    release(version) < (1, 13)
}

impl Machine {
    /// Takes the first configuration. Stricter than a real machine, which keeps one without a v1alpha1 document and goes
    /// on waiting.
    pub(super) fn apply_first(
        &mut self,
        asked: &Apply<'_>,
        timers: &mut Timers,
        now: Timestamp,
    ) -> Result<Applied, Refusal> {
        let refused = matches!(asked.mode, Mode::NoReboot | Mode::Staged)
            || asked.mode == Mode::Reboot && release(&self.version) >= (1, 14);
        if refused {
            let mode = asked.mode.as_str_name().to_lowercase().replace('_', "-");
            let text = format!("apply configuration --mode='{mode}' is not supported in maintenance mode");
            return Err(Refusal::Unimplemented(text));
        }
        let config = parse(asked.config, &self.version).and_then(complete);
        let config =
            config.map_err(|error| Refusal::Invalid(format!("configuration validation failed: {error}")))?;
        let mut details = DRY_RUN;
        if !asked.dry_run {
            self.install(&config, asked.config, timers, now);
            details = "";
        }
        // Nothing else than the default is said of the mode.
        Ok(Applied { mode: Mode::Reboot, details: details.to_owned() })
    }

    /// Goes down to come back with what was installed; when that failed, in maintenance mode again.
    fn install(&mut self, config: &Config, text: &str, timers: &mut Timers, now: Timestamp) {
        match self.write_system(config) {
            Ok(()) => {
                self.persistent = Some(text.to_owned());
                self.controlplane = config.main["machine"]["type"] != "worker";
                if let Some(name) = hostname(config) {
                    self.host.name = name;
                }
            }
            Err(why) => self.log(format!("[talos] install failed: {why}")),
        }
        self.go_down(INSTALL + BOOT, timers, now);
    }

    /// Puts Talos on the disk that is meant, unless it is on one already, and its data partition where that is to be.
    fn write_system(&mut self, config: &Config) -> Result<(), String> {
        if self.system_disk().is_some() {
            return Ok(());
        }
        let target = Target::of(config);
        let path = target.path(&self.disks)?;
        let failed = |why: &str| format!("failed to open blockdevice {path}: {why}");
        let place = self.disks.iter().position(|disk| disk.is_at(&path));
        let disk = place.and_then(|place| self.disks.get_mut(place));
        let disk = disk.ok_or_else(|| failed("no such file or directory"))?;
        if disk.readonly {
            return Err(failed("read-only file system"));
        }
        let blank = disk.format().is_empty() || disk.contents == Contents::Gpt(BTreeMap::new());
        if !blank && !target.wipes() {
            let found = disk.format();
            return Err(format!("disk {path} is not empty, skipping install, detected {found:?}"));
        }
        disk.contents = Contents::Talos;
        disk.limit_ephemeral(|free| config.ephemeral.most(free));
        self.log(format!("[talos] installed to {path}"));
        self.move_ephemeral(config)
    }

    /// Puts the data partition on the first disk that its selector matches, when that is another one.
    fn move_ephemeral(&mut self, config: &Config) -> Result<(), String> {
        let expression = &config.ephemeral.disk_selector.expression;
        if expression.is_empty() {
            return Ok(());
        }
        let observed: Vec<_> = self.disks.iter().map(Disk::observed).collect();
        let matching = select(expression, &observed).map_err(|error| error.what)?;
        let is_own = |index: &usize| self.disks.get(*index).is_some_and(Disk::is_system);
        let fits =
            |index: &usize| is_own(index) || self.disks.get(*index).is_some_and(|disk| disk.free().is_some());
        match matching.into_iter().find(fits) {
            Some(index) if is_own(&index) => Ok(()),
            Some(index) => {
                self.disks.iter_mut().for_each(Disk::drop_ephemeral);
                if let Some(disk) = self.disks.get_mut(index) {
                    let size = config.ephemeral.most(disk.free().unwrap_or_default());
                    disk.add(Partition { label: EPHEMERAL.to_owned(), format: "xfs".to_owned(), size });
                }
                Ok(())
            }
            None => Err("no disks matched selector for volume EPHEMERAL".to_owned()),
        }
    }
}

/// Where Talos is to be installed.
enum Target<'a> {
    /// `machine.install`.
    Legacy(&'a Value),
    /// A document, from 1.14 on.
    Unattended(&'a Value),
}

impl<'a> Target<'a> {
    fn of(config: &'a Config) -> Self {
        match &config.unattended {
            Value::Null => Self::Legacy(&config.main["machine"]["install"]),
            document => Self::Unattended(document),
        }
    }

    /// The disk's path; the first disk that the selector matches, which goes before a path.
    fn path(&self, disks: &[Disk]) -> Result<String, String> {
        let expression = match self {
            Self::Unattended(document) => {
                document["provisioning"]["diskSelector"]["match"].as_str().unwrap_or_default().to_owned()
            }
            Self::Legacy(install) if install["diskSelector"].is_null() => {
                return Ok(install["disk"].as_str().unwrap_or_default().to_owned());
            }
            Self::Legacy(install) => expression(&install["diskSelector"])?,
        };
        let observed: Vec<_> = disks.iter().map(Disk::observed).collect();
        let found = select(&expression, &observed).map_err(|error| error.what)?;
        let first = found.first().and_then(|index| disks.get(*index)).map(Disk::path);
        first.ok_or_else(|| format!("no disks matched the expression: {expression}"))
    }

    /// Whether what is on the disk goes; in the document that is what happens unless it says otherwise.
    fn wipes(&self) -> bool {
        match self {
            Self::Legacy(install) => install["wipe"] == true,
            Self::Unattended(document) => document["provisioning"]["wipe"] != false,
        }
    }
}

/// `machine.install.diskSelector` in CEL, as Talos makes it (siderolabs/talos, InstallConfig.DiskMatchExpression).
fn expression(selector: &Value) -> Result<String, String> {
    let said = |key: &str| match &selector[key] {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let mut terms = Vec::new();
    if let Some(size) = said("size") {
        let digits = size.find(|c: char| !"<>=".contains(c)).unwrap_or(size.len());
        let (operator, size) = size.split_at(digits);
        let bytes =
            Size::parse(size.trim()).map_err(|why| format!("failed to parse disk size {size}: {why}"))?;
        terms.push(format!("disk.size {} {}u", if operator.is_empty() { "==" } else { operator }, bytes.0));
    }
    let fields = ["uuid", "wwid", "model", "serial", "modalias"].map(|key| (key, key));
    for (key, field) in fields.into_iter().chain([("busPath", "bus_path")]) {
        terms.extend(said(key).map(|pattern| format!("glob({}, disk.{field})", Value::from(pattern))));
    }
    if said("name").is_some() {
        return Err("selector on name is not supported".to_owned());
    }
    terms.extend(match said("type").as_deref() {
        None => None,
        Some("nvme") => Some("disk.transport == \"nvme\"".to_owned()),
        Some("sd") => Some("disk.transport == \"mmc\"".to_owned()),
        Some("hdd") => Some("disk.rotational".to_owned()),
        Some("ssd") => Some("!disk.rotational".to_owned()),
        Some(other) => return Err(format!("unsupported disk type {other:?}")),
    });
    terms.extend(["disk.transport != \"\"", "!disk.readonly", "!disk.cdrom"].map(str::to_owned));
    Ok(terms.join(" && "))
}

/// What a first configuration must say, and later ones are not asked for: where to install, and who may talk to the machine.
fn complete(config: Config) -> Result<Config, String> {
    let machine = &config.main["machine"];
    let (kind, install) = (machine["type"].as_str().unwrap_or_default(), &machine["install"]);
    if !["init", "controlplane", "worker"].contains(&kind) {
        return Err(format!("unknown machine type {kind:?}"));
    }
    if machine["ca"].is_null() && machine["acceptedCAs"].as_array().is_none_or(Vec::is_empty) {
        return Err(
            "issuing CA or some accepted CAs are required (.machine.ca, machine.acceptedCAs)".to_owned()
        );
    }
    match &config.unattended {
        Value::Null if install.is_null() => {
            return Err("install instructions are required in \"metal\" mode".to_owned());
        }
        Value::Null if !install["diskSelector"].is_null() => {
            expression(&install["diskSelector"])
                .map_err(|why| format!("install disk selector is invalid: {why}"))?;
        }
        Value::Null if install["disk"].as_str().is_none_or(str::is_empty) => {
            return Err("either install disk or diskSelector should be defined".to_owned());
        }
        Value::Null => {}
        document => {
            let said = document["provisioning"]["diskSelector"]["match"].as_str().unwrap_or_default();
            if said.is_empty() {
                return Err("provisioning.diskSelector.match is required".to_owned());
            }
            accept(said, NEWEST)
                .map_err(|error| format!("provisioning.diskSelector.match: {}", error.what))?;
        }
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match hostname(&config) {
        Some(name) if name.is_empty() || !name.chars().all(plain) => {
            Err(format!("invalid hostname {name:?}"))
        }
        _ => Ok(config),
    }
}

/// The name that the kubelet registers: the first part of the hostname, when the configuration says one.
fn hostname(config: &Config) -> Option<String> {
    let hostname = config.hostname.as_deref().filter(|name| !name.is_empty())?;
    hostname.split('.').next().map(str::to_lowercase)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::machine::disks::Disk;

    const CONFIG: &str = "version: v1alpha1\nmachine:\n  type: worker\n  ca: {crt: c2lt}\n  install: {disk: /dev/sda}\n  \
                          network: {hostname: New-1.example.org}\ncluster: {}\n";

    fn blank(version: &str) -> Machine {
        let disk = |name: &str, contents| Disk {
            name: name.into(),
            model: "Some SSD".into(),
            serial: name.to_uppercase(),
            transport: "sata".into(),
            size: 1 << 38,
            contents,
            ..Disk::default()
        };
        let disks = vec![disk("sda", Contents::Nothing), disk("sdb", Contents::Whole("xfs".into()))];
        Machine::new("10.0.0.1", version, true, disks, None)
    }

    fn apply(machine: &mut Machine, config: &str, mode: Mode, dry_run: bool) -> Result<Applied, Refusal> {
        let asked = Apply { config, mode, dry_run, try_timeout: None };
        machine.apply(&asked, &mut Timers::default(), Timestamp::UNIX_EPOCH)
    }

    /// As it is long after.
    fn later(machine: &mut Machine) {
        let mut timers = Timers::default();
        for seconds in [0, 100, 200] {
            machine.settle(&mut timers, Timestamp::from_second(seconds).unwrap());
        }
    }

    #[test]
    fn the_first_configuration_installs_talos_and_makes_a_member_of_the_machine() {
        let mut machine = blank("v1.11.5");
        let dry = apply(&mut machine, CONFIG, Mode::Auto, true).unwrap();
        assert!(dry.details.contains("does not have a config yet"));
        assert!(!machine.rebooting && machine.system_disk().is_none());

        let applied = apply(&mut machine, CONFIG, Mode::Auto, false).unwrap();
        assert_eq!((applied.mode, applied.details.as_str()), (Mode::Reboot, ""));
        assert!(machine.rebooting && machine.active.is_none());
        later(&mut machine);
        assert_eq!(machine.active.as_deref(), Some(CONFIG));
        assert_eq!(machine.system_disk().unwrap().name, "sda");
        assert_eq!(machine.host.name, "new-1");
        assert!(!machine.controlplane && machine.registers && !machine.host.down);
        assert!(machine.host.mounts.contains_key("/var"));
    }

    #[test]
    fn what_a_first_configuration_lacks_is_refused_and_nothing_happens() {
        let without = |part: &str| CONFIG.replace(part, "");
        for (config, word) in [
            (
                "---\napiVersion: v1alpha1\nkind: KmsgLogConfig\nname: a\n".to_owned(),
                "doesn't contain v1alpha1 config",
            ),
            (without("  type: worker\n"), "unknown machine type \"\""),
            (without("  ca: {crt: c2lt}\n"), "issuing CA or some accepted CAs are required"),
            (without("  install: {disk: /dev/sda}\n"), "install instructions are required"),
            (CONFIG.replace("{disk: /dev/sda}", "{wipe: true}"), "either install disk or diskSelector"),
            (
                CONFIG.replace("disk: /dev/sda", "diskSelector: {name: sda}"),
                "install disk selector is invalid",
            ),
            (CONFIG.replace("disk: /dev/sda", "diskSelector: {type: tape}"), "unsupported disk type"),
            (CONFIG.replace("New-1", "New_1"), "invalid hostname"),
            ("a: [".to_owned(), "decoding"),
        ] {
            let mut machine = blank("v1.11.5");
            let Err(Refusal::Invalid(text)) = apply(&mut machine, &config, Mode::Auto, false) else {
                panic!("{config} was taken");
            };
            assert!(text.contains(word), "{text}");
            assert!(!machine.rebooting);
        }
    }

    #[test]
    fn some_modes_are_for_machines_with_a_configuration_only() {
        for (version, mode, taken) in [
            ("v1.11.5", Mode::Reboot, true),
            ("v1.11.5", Mode::Auto, true),
            ("v1.11.5", Mode::Try, true),
            ("v1.11.5", Mode::NoReboot, false),
            ("v1.11.5", Mode::Staged, false),
            ("v1.14.0", Mode::Reboot, false),
        ] {
            match apply(&mut blank(version), CONFIG, mode, true) {
                Err(Refusal::Unimplemented(_)) => assert!(!taken, "{version} {mode:?}"),
                other => assert!(taken && other.is_ok(), "{version} {mode:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_install_that_fails_ends_in_maintenance_mode_again() {
        let by_id = "/dev/disk/by-id/sata-Some_SSD_SDA";
        for (disk, fails) in [
            ("/dev/sdb", Some("not empty, skipping install, detected \"xfs\"")),
            ("/dev/sdc", Some("no such file")),
            ("/dev/sdb, wipe: true", None),
            (by_id, None),
            ("/dev/sdb, diskSelector: {serial: '*A'}", None),
            ("/dev/sda, diskSelector: {serial: '*B'}", Some("not empty")),
            ("/dev/sda, diskSelector: {serial: '*X'}", Some("no disks matched the expression")),
        ] {
            let mut machine = blank("v1.11.5");
            apply(&mut machine, &CONFIG.replace("/dev/sda", disk), Mode::Auto, false).unwrap();
            later(&mut machine);
            assert!(!machine.rebooting);
            assert_eq!(machine.active.is_none(), fails.is_some(), "{disk}");
            assert_eq!(machine.host.down, fails.is_some());
            assert!(fails.is_none_or(|why| machine.log.iter().any(|line| line.contains(why))), "{disk}");
        }
    }

    #[test]
    fn the_first_disk_that_a_selector_matches_is_taken_and_wiped_unless_it_says_otherwise() {
        let bare = CONFIG.replace("  install: {disk: /dev/sda}\n", "");
        for (selector, wipe, on) in [
            ("disk.serial == \"SDA\"", "", Some("sda")),
            ("disk.transport == \"sata\"", "", Some("sda")),
            ("disk.serial == \"SDB\"", "", Some("sdb")),
            ("disk.serial == \"SDB\"", "wipe: false", None),
            ("system_disk", "", None),
        ] {
            let document = format!(
                "---\napiVersion: v1alpha1\nkind: UnattendedInstallConfig\nprovisioning:\n  diskSelector: {{match: '{selector}'}}\n  {wipe}\n"
            );
            let mut machine = blank("v1.14.1");
            apply(&mut machine, &format!("{bare}{document}"), Mode::Auto, false).unwrap();
            later(&mut machine);
            assert_eq!(machine.system_disk().map(|disk| disk.name.as_str()), on, "{selector}");
        }
    }

    #[test]
    fn talos_own_data_partition_is_as_large_and_where_the_config_says() {
        for (provisioning, disk, size) in [
            ("maxSize: 50GiB", "sda", Some(50 << 30)),
            ("diskSelector: {match: system_disk}, maxSize: 50GiB", "sda", Some(50 << 30)),
            ("diskSelector: {match: disk.serial == \"SDC\"}, maxSize: 10GiB", "sdc", Some(10 << 30)),
            ("grow: true", "sda", None),
        ] {
            let mut machine = blank("v1.13.9");
            machine.disks.push(Disk {
                name: "sdc".into(),
                serial: "SDC".into(),
                size: 1 << 36,
                ..Disk::default()
            });
            let volume = format!(
                "---\napiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {{{provisioning}}}\n"
            );
            apply(&mut machine, &format!("{CONFIG}{volume}"), Mode::Auto, false).unwrap();
            later(&mut machine);
            let found: Vec<_> = machine
                .disks
                .iter()
                .filter_map(|disk| Some((disk.name.as_str(), disk.labelled(EPHEMERAL)?.1.size)))
                .collect();
            assert_eq!((found.len(), found[0].0), (1, disk), "{provisioning}");
            assert!(size.is_none_or(|size| found[0].1 == size), "{provisioning}: {found:?}");
            assert_eq!(machine.system_disk().unwrap().name, "sda");
            assert!(
                machine.host.mounts["/var"].source.starts_with(&format!("/dev/{disk}")),
                "{provisioning}"
            );
        }
    }
}
