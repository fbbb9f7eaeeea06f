//! The machine configs that machines in maintenance mode are given, as `talosctl gen config` makes them: they know the
//! authorities of this run.

use std::net::SocketAddr;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::machine::Machine;
use super::saved;
use super::serve::pki::Authority;
use super::world::World;
use crate::error::Result;

/// What the configs say of the cluster.
pub(super) struct Cluster {
    pub(super) talos_ca: Authority,
    pub(super) kubernetes_ca: Authority,
    /// Of its API server.
    pub(super) address: SocketAddr,
}

/// Writes the configs, when a machine waits for one or they were written before.
pub(super) fn write(folder: &Path, world: &World, cluster: &Cluster) -> Result<()> {
    for controlplane in [true, false] {
        let path = folder.join(file(controlplane));
        let new = |machine: &&Machine| machine.active.is_none();
        let waiting = || world.machines.values().filter(new);
        let first = waiting().find(|machine| machine.controlplane == controlplane);
        let like = first.or_else(|| waiting().next());
        let like = like.or_else(|| world.machines.values().next().filter(|_| path.exists()));
        if let Some(machine) = like {
            saved::write(&path, config(cluster, controlplane, &machine.version).as_bytes())?;
        }
    }
    Ok(())
}

/// The name of the file for machines of this kind.
pub const fn file(controlplane: bool) -> &'static str {
    if controlplane { "controlplane.yaml" } else { "worker.yaml" }
}

/// A config for machines of this kind, without a hostname. Its secrets are none.
fn config(cluster: &Cluster, controlplane: bool, version: &str) -> String {
    let data = |text: &str| BASE64_STANDARD.encode(text);
    let (kind, key) = match controlplane {
        true => ("controlplane", format!("        key: {}\n", data("simulated"))),
        false => ("worker", String::new()),
    };
    let (talos, kubernetes) = (data(cluster.talos_ca.pem()), data(cluster.kubernetes_ca.pem()));
    let (address, nothing) = (cluster.address, data("secret of nothing"));
    format!(
        "version: v1alpha1 # the schema's version\ndebug: false\npersist: true\nmachine:\n    type: {kind}\n    \
         token: sim000.0123456789abcdef # not a real one\n    \
         # The authority of this run of the sandbox.\n    ca:\n        crt: {talos}\n{key}    \
         install:\n        disk: /dev/sda\n        image: ghcr.io/siderolabs/installer:{version}\n        wipe: false\n\
         cluster:\n    id: c2ltdWxhdGVk\n    secret: {nothing}\n    controlPlane:\n        \
         endpoint: https://{address}\n    clusterName: sandbox\n    ca:\n        crt: {kubernetes}\n"
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::machine::{Apply, Mode};
    use crate::scenario::Scenario;

    const BARE: &str =
        "machines: [{role: controlplane, maintenance: true}, {maintenance: true, version: v1.13.0}]";

    fn world(scenario: &str) -> World {
        World::new(&Scenario::parse("scenario", scenario).unwrap(), Timestamp::UNIX_EPOCH)
    }

    fn cluster() -> Cluster {
        let new = |name| Authority::new(name).unwrap();
        Cluster { talos_ca: new("t"), kubernetes_ca: new("k"), address: "127.0.0.1:6443".parse().unwrap() }
    }

    #[test]
    fn each_machine_takes_the_config_that_is_written_for_it() {
        let (folder, mut world, cluster) = (tempfile::tempdir().unwrap(), world(BARE), cluster());
        write(folder.path(), &world, &cluster).unwrap();
        for (address, name, version) in
            [("10.5.0.2", "controlplane.yaml", "v1.14.1"), ("10.5.0.3", "worker.yaml", "v1.13.0")]
        {
            assert_eq!(file(world.machines[address].controlplane), name);
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(text.contains(&format!("installer:{version}\n")) && !text.contains("hostname"), "{text}");
            assert!(text.contains(&BASE64_STANDARD.encode(cluster.talos_ca.pem())));
            assert!(text.contains(&BASE64_STANDARD.encode(cluster.kubernetes_ca.pem())));
            let asked = Apply { config: &text, mode: Mode::Auto, dry_run: false, try_timeout: None };
            let (machine, timers) = world.machine(address).unwrap();
            machine.apply(&asked, timers, Timestamp::UNIX_EPOCH).unwrap();
            world.settle(Timestamp::from_second(20).unwrap());
            let machine = &world.machines[address];
            assert_eq!(machine.active.as_deref(), Some(text.as_str()));
            assert_eq!(machine.controlplane, name == "controlplane.yaml");
        }
    }

    #[test]
    fn a_fleet_that_is_configured_gets_no_configs_and_those_that_are_there_are_of_this_run() {
        let (folder, world) = (tempfile::tempdir().unwrap(), world("machines: [{role: controlplane}]"));
        let path = folder.path().join("worker.yaml");
        write(folder.path(), &world, &cluster()).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "of another run").unwrap();
        write(folder.path(), &world, &cluster()).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("type: worker"));
    }
}
