//! A control plane's etcd: it begins a cluster of its own when it is told to, or joins the one that exists.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Machine, Refusal};
use crate::timers::Timers;

/// From the call to an etcd that runs.
const BOOTSTRAP: Duration = Duration::from_secs(1);
/// From the boot, or from the first member, to a member that runs.
const JOIN: Duration = Duration::from_secs(2);

/// How a control plane's etcd is, once it has data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Etcd {
    #[default]
    Running,
    /// It waits for something.
    Stopped,
    /// It runs, and has raised this alarm.
    Nospace,
    Corrupt,
}

impl Machine {
    /// Whether a service of this machine runs.
    pub fn runs(&self, service: &str) -> bool {
        service != "etcd" || self.etcd_data && self.etcd != Etcd::Stopped
    }

    /// Whether another control plane can join its etcd.
    pub fn takes_members(&self) -> bool {
        self.etcd_data && !self.rebooting && self.runs("etcd")
    }

    /// Whether it is a control plane that is up and whose etcd waits for a cluster.
    pub(super) fn waits_for_etcd(&self) -> bool {
        self.controlplane && self.active.is_some() && !self.etcd_data && !self.rebooting
    }

    /// Begins a new etcd on this machine, whether or not there is one elsewhere: that is for the caller to know.
    ///
    /// # Errors
    /// The refusal in Talos' words.
    pub fn bootstrap(&mut self, timers: &mut Timers, now: Timestamp) -> Result<(), Refusal> {
        if self.active.is_none() || self.bootstrapping {
            return Err(Refusal::Precondition("bootstrap is not available yet".into()));
        }
        if !self.controlplane {
            let text = "bootstrap can only be performed on a control plane node";
            return Err(Refusal::Precondition(text.into()));
        }
        if self.etcd_data {
            return Err(Refusal::Exists("etcd data directory is not empty".into()));
        }
        self.bootstrapping = true;
        self.dirty = true;
        timers.forget(&self.joining());
        timers.done(&format!("machine/{}/bootstrap", self.address), BOOTSTRAP, now);
        self.log("[talos] bootstrap request received");
        Ok(())
    }

    /// Ends a bootstrap whose time has come.
    pub(super) fn settle_etcd(&mut self, timers: &mut Timers, now: Timestamp) {
        let key = format!("machine/{}/bootstrap", self.address);
        if self.bootstrapping && !self.rebooting && timers.done(&key, BOOTSTRAP, now) {
            self.bootstrapping = false;
            self.etcd_data = true;
            self.log("[talos] etcd is bootstrapped");
        }
    }

    /// Joins the etcd that exists, unless it is about to begin one of its own.
    pub fn join_etcd(&mut self, timers: &mut Timers, now: Timestamp) {
        if self.waits_for_etcd() && !self.bootstrapping && timers.done(&self.joining(), JOIN, now) {
            self.etcd_data = true;
            self.dirty = true;
            self.log("[talos] joined etcd");
        }
    }

    fn joining(&self) -> String {
        format!("machine/{}/join", self.address)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn machine(controlplane: bool, config: Option<&str>) -> Machine {
        Machine::new("10.0.0.1", "v1.11.5", controlplane, Vec::new(), config.map(str::to_owned))
    }

    /// A control plane that was given its first configuration.
    fn bare() -> Machine {
        let mut machine = machine(true, None);
        machine.active = Some(String::new());
        machine
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn a_control_plane_that_is_up_at_the_start_has_data_and_no_other_machine_has() {
        for (controlplane, config, data) in
            [(true, Some(""), true), (false, Some(""), false), (true, None, false)]
        {
            let machine = machine(controlplane, config);
            assert_eq!((machine.etcd_data, machine.runs("etcd")), (data, data));
            assert!(machine.runs("kubelet"));
        }
    }

    #[test]
    fn a_bootstrap_takes_its_time_and_is_refused_while_it_does_and_after() {
        let (mut timers, mut machine) = (Timers::default(), bare());
        machine.bootstrap(&mut timers, at(0)).unwrap();
        let again = machine.bootstrap(&mut timers, at(500)).unwrap_err();
        assert_eq!(again, Refusal::Precondition("bootstrap is not available yet".into()));
        machine.settle(&mut timers, at(999));
        assert!(!machine.etcd_data && !machine.rests());
        machine.settle(&mut timers, at(1000));
        assert!(machine.etcd_data && machine.runs("etcd") && machine.rests());
        let again = machine.bootstrap(&mut timers, at(2000)).unwrap_err();
        assert_eq!(again, Refusal::Exists("etcd data directory is not empty".into()));
    }

    #[test]
    fn only_a_control_plane_with_a_configuration_can_be_bootstrapped() {
        for (mut machine, word) in [
            (machine(false, Some("")), "only be performed on a control plane node"),
            (machine(true, None), "not available yet"),
        ] {
            let refusal = machine.bootstrap(&mut Timers::default(), at(0)).unwrap_err();
            assert!(matches!(&refusal, Refusal::Precondition(text) if text.contains(word)), "{refusal:?}");
        }
    }

    #[test]
    fn a_reboot_ends_a_bootstrap_that_is_not_done() {
        let (mut timers, mut machine) = (Timers::default(), bare());
        machine.persistent.clone_from(&machine.active);
        machine.bootstrap(&mut timers, at(0)).unwrap();
        machine.reboot(&mut timers, at(500));
        for second in [1, 20, 40] {
            machine.settle(&mut timers, at(second * 1000));
        }
        assert!(!machine.rebooting && !machine.etcd_data);
        machine.bootstrap(&mut timers, at(50_000)).unwrap();
        machine.settle(&mut timers, at(51_000));
        machine.reboot(&mut timers, at(52_000));
        assert!(machine.etcd_data && !machine.takes_members(), "data stays, also while it is down");
    }

    #[test]
    fn a_machine_that_is_about_to_begin_an_etcd_does_not_join_another() {
        let (mut timers, mut machine) = (Timers::default(), bare());
        machine.join_etcd(&mut timers, at(0));
        machine.bootstrap(&mut timers, at(1500)).unwrap();
        machine.join_etcd(&mut timers, at(2000));
        assert!(!machine.etcd_data);
        let mut machine = bare();
        for (millis, data) in [(0, false), (1999, false), (2000, true)] {
            machine.join_etcd(&mut timers, at(millis));
            assert_eq!(machine.etcd_data, data, "{millis}");
        }
    }
}
