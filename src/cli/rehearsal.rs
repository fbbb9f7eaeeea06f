//! A sandbox for a file of one's own: its machines wait for the configs that the file names, and have the authorities that
//! these have.

use nodeprep_sandbox::Authorities;
use nodeprep_sandbox::scenario::{Role, Scenario};

use super::bootstrap::firsts;
use super::global::Global;
use crate::plan::first::First;

/// The configs that the file names; what is wrong with them is said by the verb that needs them.
pub(super) struct Configs(Vec<(String, First)>);

impl Configs {
    pub(super) fn of(global: &Global) -> Self {
        let read = || firsts(global, &global.intent().ok()?).ok();
        Self(if global.file.exists() { read().unwrap_or_default().into_iter().collect() } else { Vec::new() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of the first control plane, whose config has the keys.
    pub(super) fn authorities(&self) -> Authorities {
        let control = self.0.iter().map(|(_, first)| first).find(|first| first.is_control_plane());
        let [talos, kubernetes] = control.map(First::authorities).unwrap_or_default();
        Authorities { talos, kubernetes }
    }

    /// Lets the machines that get a config wait for it, in the Talos that it is for.
    pub(super) fn wait_for(&self, scenario: &mut Scenario) {
        for (machine, index) in scenario.machines.iter_mut().zip(0..) {
            let address = machine.address(index);
            if let Some((_, first)) = self.0.iter().find(|(of, _)| *of == address) {
                machine.maintenance = true;
                machine.version =
                    first.version(None).map_or_else(|_| machine.version.clone(), |version| version.tag);
                machine.role = if first.is_control_plane() { Role::Controlplane } else { Role::Worker };
            }
        }
    }
}
