//! Maintenance mode: a machine without a configuration takes its first one, installs Talos and boots from it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::config::{Config, parse, release};
use super::disks::Contents;
use super::{Applied, Apply, BOOT, Machine, Mode, Refusal};
use crate::sandbox::timers::Timers;

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
        let machine = &config.main["machine"];
        match self.write_system(&machine["install"]) {
            Ok(()) => {
                self.persistent = Some(text.to_owned());
                self.controlplane = machine["type"] != "worker";
                if let Some(name) = hostname(config) {
                    self.host.name = name;
                }
            }
            Err(why) => self.log(format!("[talos] install failed: {why}")),
        }
        self.go_down(INSTALL + BOOT, timers, now);
    }

    /// Puts Talos on the disk that is named, unless it is on one already.
    fn write_system(&mut self, install: &Value) -> Result<(), String> {
        if self.system_disk().is_some() {
            return Ok(());
        }
        let path = install["disk"].as_str().unwrap_or_default();
        let failed = |why: &str| format!("failed to open blockdevice {path}: {why}");
        let disk = self.disks.iter_mut().find(|disk| disk.is_at(path));
        let disk = disk.ok_or_else(|| failed("no such file or directory"))?;
        if disk.readonly {
            return Err(failed("read-only file system"));
        }
        let blank = disk.format().is_empty() || disk.contents == Contents::Gpt(BTreeMap::new());
        if !blank && install["wipe"] != true {
            let found = disk.format();
            return Err(format!("disk {path} is not empty, skipping install, detected {found:?}"));
        }
        disk.contents = Contents::Talos;
        self.log(format!("[talos] installed to {path}"));
        Ok(())
    }
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
    if install.is_null() {
        return Err("install instructions are required in \"metal\" mode".to_owned());
    }
    if !install["diskSelector"].is_null() {
        return Err("the sandbox does not look for a disk by diskSelector: name it by disk".to_owned());
    }
    if install["disk"].as_str().is_none_or(str::is_empty) {
        return Err("either install disk or diskSelector should be defined".to_owned());
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
    use crate::sandbox::machine::disks::Disk;

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
            ("---\nkind: HostnameConfig\nhostname: a\n".to_owned(), "doesn't contain v1alpha1 config"),
            (without("  type: worker\n"), "unknown machine type \"\""),
            (without("  ca: {crt: c2lt}\n"), "issuing CA or some accepted CAs are required"),
            (without("  install: {disk: /dev/sda}\n"), "install instructions are required"),
            (CONFIG.replace("{disk: /dev/sda}", "{wipe: true}"), "either install disk or diskSelector"),
            (CONFIG.replace("disk: /dev/sda", "diskSelector: {size: 1TB}"), "name it by disk"),
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
}
