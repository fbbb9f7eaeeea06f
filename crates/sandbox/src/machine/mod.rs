//! A simulated Talos machine: a state machine without sockets and clock. Requests go in, and time; what it publishes
//! comes out.

pub mod config;
pub mod disks;
mod documents;
mod etcd;
mod install;
mod locator;
pub mod resources;
mod volumes;
mod wipe;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use self::config::{Config, needs_reboot, parse};
use self::disks::Disk;
pub use self::etcd::Etcd;
pub use self::install::has_maintenance_service;
use self::resources::Published;
pub use self::wipe::Device;
use super::host::{FileSystem, Host};
use super::intent;
use super::scenario::fingerprint;
use super::timers::Timers;

/// How a configuration is applied.
pub use crate::talos::proto::machine::apply_configuration_request::Mode;

/// From the reset to a machine that answers.
const BOOT: Duration = Duration::from_secs(8);
/// How long a configuration is being applied.
const APPLY: Duration = Duration::from_millis(300);
/// Talos takes a try back after this time unless it is told another (`ConfigTryTimeout`).
const TRY: Duration = Duration::from_secs(60);

/// A machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    pub address: String,
    /// Such as `v1.11.5`.
    pub version: String,
    pub container: bool,
    pub controlplane: bool,
    pub disks: Vec<Disk>,
    /// The configuration in force, all documents; nothing in maintenance mode.
    pub active: Option<String>,
    /// The configuration of the next boot.
    pub persistent: Option<String>,
    /// What a try goes back to.
    pub before_try: Option<String>,
    pub rebooting: bool,
    /// Switched off: it does not come up again.
    pub off: bool,
    /// An apply is going on.
    pub applying: bool,
    /// NVMe disks change names at every boot.
    pub names_swap: bool,
    /// User volumes by id, such as `u-openebs`.
    pub volumes: BTreeMap<String, volumes::Volume>,
    pub host: Host,
    /// The labels that Talos wants on the Node object.
    pub wanted_labels: BTreeMap<String, String>,
    /// The taint of its Node object, such as `key=value:NoSchedule`.
    pub taint: Option<String>,
    /// The extensions of its image.
    pub extensions: Vec<Extension>,
    /// How far its clock is ahead of its time server's.
    pub clock: SignedDuration,
    pub etcd: Etcd,
    /// Its etcd has data: it was bootstrapped, or has joined.
    pub etcd_data: bool,
    /// It was told to begin an etcd, which takes a moment.
    pub bootstrapping: bool,
    /// How often it was booted again.
    pub boots: u64,
    /// What tells it from the machines of other fleets at the same address.
    pub seed: u64,
    /// Its kubelet was started, and is about to register the Node object.
    pub registers: bool,
    /// What it knows of its Node object.
    pub node: Option<serde_json::Value>,
    /// The kernel's log.
    pub log: Vec<String>,
    pub published: Published,
    /// Something was changed since it was published.
    pub dirty: bool,
    /// As what runs on it saw it last.
    #[serde(skip)]
    pub host_seen: Host,
    /// The versions of its Node object and of what it published when both were in accord.
    #[serde(skip)]
    pub accord: (String, u64),
}

/// A system extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extension {
    pub name: String,
    pub version: String,
}

/// A request to apply a configuration.
#[derive(Debug, Clone)]
pub struct Apply<'a> {
    pub config: &'a str,
    pub mode: Mode,
    pub dry_run: bool,
    pub try_timeout: Option<Duration>,
}

/// What became of it: the mode that was really used, and text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub mode: Mode,
    pub details: String,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    Invalid(String),
    Precondition(String),
    Exists(String),
    Unimplemented(String),
    NotFound(String),
    Internal(String),
}

impl Machine {
    /// A machine with this configuration that is up, on the disk of these that holds Talos; without a configuration it
    /// is in maintenance mode.
    pub fn new(
        address: &str,
        version: &str,
        controlplane: bool,
        disks: Vec<Disk>,
        config: Option<String>,
    ) -> Self {
        let host = Host { name: address.to_owned(), down: config.is_none(), ..Host::default() };
        let mut machine = Self {
            address: address.to_owned(),
            version: version.to_owned(),
            container: disks.is_empty(),
            controlplane,
            disks,
            etcd_data: controlplane && config.is_some(),
            bootstrapping: false,
            active: config.clone(),
            persistent: config,
            before_try: None,
            rebooting: false,
            off: false,
            applying: false,
            names_swap: false,
            volumes: BTreeMap::new(),
            host,
            wanted_labels: BTreeMap::new(),
            taint: None,
            extensions: Vec::new(),
            clock: SignedDuration::ZERO,
            etcd: Etcd::default(),
            boots: 0,
            seed: 0,
            registers: false,
            node: None,
            log: Vec::new(),
            published: Published::default(),
            dirty: true,
            host_seen: Host::default(),
            accord: (String::new(), 0),
        };
        machine.log("[talos] simulated machine is up");
        if machine.active.is_some() {
            machine.mount_system();
        }
        machine.wanted_labels = machine.labels(machine.config().labels);
        machine
    }

    pub fn log(&mut self, line: impl Into<String>) {
        self.log.push(line.into());
    }

    /// What the configuration in force asks for; nothing in maintenance mode.
    pub fn config(&self) -> Config {
        let text = self.active.as_deref().unwrap_or_default();
        parse(text, &self.version).unwrap_or_default()
    }

    /// Those of the configuration, and what Talos adds to them.
    fn labels(&self, mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
        if self.controlplane && self.active.is_some() {
            labels.insert("node-role.kubernetes.io/control-plane".to_owned(), String::new());
        }
        labels
    }

    /// What its clock says at this time.
    pub fn time(&self, now: Timestamp) -> Timestamp {
        now.saturating_add(self.clock).unwrap_or(now)
    }

    /// What the kernel calls this boot.
    pub fn boot_id(&self) -> String {
        let text = self.hex(&format!("boot {}", self.boots));
        let (a, b, c, d, e) = (&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]);
        format!("{a}-{b}-{c}-{d}-{e}")
    }

    /// Its name of its own, which its kubelet tells too (machine-id(5)).
    pub fn machine_id(&self) -> String {
        self.hex("machine")
    }

    /// 32 hexadecimal digits of this machine's own.
    fn hex(&self, what: &str) -> String {
        let half = |half| fingerprint(&format!("{}/{}/{what}/{half}", self.seed, self.address));
        format!("{:016x}{:016x}", half("a"), half("b"))
    }

    pub fn system_disk(&self) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk.is_system())
    }

    fn mount_system(&mut self) {
        self.host.mounts.clear();
        let on = |disk: &Disk| {
            let (index, partition) = disk.labelled(disks::EPHEMERAL)?;
            Some((format!("/dev/{}", disk.partition(index)), partition.size, disk.speed))
        };
        let own = self.system_disk().and_then(on).or_else(|| self.disks.iter().find_map(on));
        let kind = if own.is_some() { "xfs" } else { "ext4" };
        // A container's is a folder of the machine that it runs on.
        let (root, other) = match self.container {
            true => ("/var/lib/docker/volumes/simulated/_data", "/dev/root".to_owned()),
            false => ("", String::new()),
        };
        let (source, size, speed) = own.unwrap_or((other, 64 << 30, super::host::Speed::default()));
        let file_system = FileSystem {
            source,
            root: root.to_owned(),
            kind: kind.to_owned(),
            options: ["rw", "nosuid", "nodev", "relatime"].map(str::to_owned).to_vec(),
            size,
            used: 4 << 30,
            speed,
            directories: BTreeMap::new(),
        };
        self.host.mounts.insert("/var".to_owned(), file_system);
    }

    /// Applies a configuration, or says what applying it would do.
    ///
    /// # Errors
    /// The refusal in Talos' words.
    pub fn apply(
        &mut self,
        asked: &Apply<'_>,
        timers: &mut Timers,
        now: Timestamp,
    ) -> Result<Applied, Refusal> {
        if self.active.is_none() {
            return self.apply_first(asked, timers, now);
        }
        if asked.mode != Mode::Try {
            // A dry run, or one that is refused, does so too: what was tried stays.
            timers.forget(&format!("machine/{}/try", self.address));
            self.before_try = None;
        }
        let new = parse(asked.config, &self.version).map_err(Refusal::Invalid)?;
        if self.applying {
            return Err(Refusal::Precondition("another apply configuration is already in progress".into()));
        }
        let modern = config::release(&self.version) >= (1, 14);
        let reboots = needs_reboot(&self.config(), &new, &self.version);
        let mode = match asked.mode {
            Mode::NoReboot | Mode::Try if reboots => {
                let old = self.active.as_deref().unwrap_or_default();
                return Err(Refusal::Invalid(format!(
                    "this config change can't be applied in immediate mode\ndiff:\n{}",
                    config::difference(old, asked.config)
                )));
            }
            Mode::Reboot if modern => {
                return Err(Refusal::Unimplemented(
                    "the REBOOT mode is not supported, please use AUTO or NO_REBOOT modes instead".into(),
                ));
            }
            Mode::Auto if reboots => Mode::Reboot,
            Mode::Auto => Mode::NoReboot,
            mode => mode,
        };
        let details = self.details(asked, mode);
        if !asked.dry_run {
            self.take(asked, mode, timers, now);
        }
        Ok(Applied { mode, details })
    }

    fn details(&self, asked: &Apply<'_>, mode: Mode) -> String {
        let how = match mode {
            Mode::Reboot => "Applied configuration with a reboot",
            Mode::Auto | Mode::NoReboot | Mode::Try => "Applied configuration without a reboot",
            Mode::Staged => "Staged configuration to be applied after the next reboot",
        };
        if asked.dry_run {
            let diff = config::difference(self.active.as_deref().unwrap_or_default(), asked.config);
            let diff = if diff.is_empty() { "No changes." } else { &diff };
            return format!("Dry run summary:\n{how} (skipped in dry-run).\nConfig diff:\n\n{diff}");
        }
        if mode == Mode::Try {
            let within = intent::Duration(asked.try_timeout.unwrap_or(TRY).as_secs());
            return format!(
                "{how}\nThe config is applied in 'try' mode and will be automatically reverted back in {within}"
            );
        }
        how.to_owned()
    }

    fn take(&mut self, asked: &Apply<'_>, mode: Mode, timers: &mut Timers, now: Timestamp) {
        let key = |what: &str| format!("machine/{}/{what}", self.address);
        let (applying, trying) = (key("apply"), key("try"));
        match mode {
            Mode::Staged => self.persistent = Some(asked.config.to_owned()),
            Mode::Try => {
                // A second try goes back to the first one's config.
                timers.forget(&trying);
                self.before_try = self.active.clone();
                self.active = Some(asked.config.to_owned());
                timers.done(&trying, asked.try_timeout.unwrap_or(TRY), now);
            }
            Mode::Reboot | Mode::Auto | Mode::NoReboot => {
                self.persistent = Some(asked.config.to_owned());
                if mode == Mode::Reboot {
                    self.reboot(timers, now);
                    return;
                }
                self.active = Some(asked.config.to_owned());
            }
        }
        self.applying = true;
        self.dirty = true;
        timers.done(&applying, APPLY, now);
        self.log("[talos] configuration applied");
    }

    /// Goes down, and comes back after a while.
    pub fn reboot(&mut self, timers: &mut Timers, now: Timestamp) {
        self.go_down(BOOT, timers, now);
        self.log("[talos] rebooting");
    }

    fn go_down(&mut self, takes: Duration, timers: &mut Timers, now: Timestamp) {
        self.rebooting = true;
        self.dirty = true;
        self.host.down = true;
        timers.forget(&format!("machine/{}/", self.address));
        timers.done(&format!("machine/{}/boot", self.address), takes, now);
    }

    /// Goes down for good.
    pub fn switch_off(&mut self) {
        self.rebooting = true;
        self.off = true;
        self.dirty = true;
        self.host.down = true;
    }

    /// Whether it does nothing until somebody asks for something.
    pub fn rests(&self) -> bool {
        let waits = self.rebooting || self.applying || self.before_try.is_some() || self.waits_for_etcd();
        let placed = || {
            let is_placed =
                |volume: &volumes::Volume| volume.phase == volumes::Phase::Ready && !volume.remounting;
            self.volumes.values().all(is_placed)
        };
        !self.dirty && (self.off || !waits) && placed()
    }

    /// Does what is due.
    pub fn settle(&mut self, timers: &mut Timers, now: Timestamp) {
        if self.rests() {
            return;
        }
        let address = self.address.clone();
        let key = |what: &str| format!("machine/{address}/{what}");
        if self.rebooting && !self.off && timers.done(&key("boot"), BOOT, now) {
            self.boot();
        }
        if self.applying && timers.done(&key("apply"), APPLY, now) {
            self.applying = false;
        }
        if self.before_try.is_some() && timers.done(&key("try"), TRY, now) {
            self.active = self.before_try.take();
            self.log("[talos] the tried configuration was taken back");
        }
        self.settle_etcd(timers, now);
        let config = self.config();
        if !self.rebooting {
            self.host.extra = config.extra_mounts();
            volumes::settle(self, &config.volumes, timers, now);
        }
        self.wanted_labels = self.labels(config.labels);
        let fresh = resources::render(self);
        self.published.replace(fresh, now);
        self.dirty = false;
    }

    fn boot(&mut self) {
        self.rebooting = false;
        self.boots += 1;
        self.applying = false;
        self.bootstrapping = false;
        self.before_try = None;
        self.active = self.persistent.clone();
        if self.names_swap {
            self.swap_names();
        }
        self.log("[talos] simulated machine is up");
        if self.active.is_none() {
            return;
        }
        self.host.down = false;
        self.registers = true;
        for volume in self.volumes.values_mut() {
            (volume.phase, volume.found) = (volumes::Phase::Waiting, None);
        }
        // What was mounted is mounted again, from wherever it is now.
        let kept = std::mem::take(&mut self.host.mounts);
        self.mount_system();
        for (point, file_system) in kept {
            if point == "/var" {
                self.host.mounts.insert(point, file_system);
            } else {
                let was_there = self.volumes.values_mut().filter(|volume| volume.mount == point);
                was_there.for_each(|volume| volume.unmounted = Some(file_system.clone()));
            }
        }
    }

    /// The NVMe disks get each other's names, turned by one.
    fn swap_names(&mut self) {
        let nvme: Vec<usize> =
            (0..).zip(&self.disks).filter(|(_, d)| d.transport == "nvme").map(|(i, _)| i).collect();
        let mut names: Vec<String> =
            nvme.iter().filter_map(|i| Some(self.disks.get(*i)?.name.clone())).collect();
        if !names.is_empty() {
            names.rotate_left(1);
        }
        for (index, name) in nvme.into_iter().zip(names) {
            if let Some(disk) = self.disks.get_mut(index) {
                disk.name = name;
            }
        }
    }
}
