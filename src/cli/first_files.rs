//! What the folder of a new sandbox begins with: a nodeprep.yaml that fits the scenario, its secrets and the key to them.

use std::path::Path;

use jiff::Timestamp;
use nodeprep_sandbox::machine::Machine;
use nodeprep_sandbox::world::World;
use nodeprep_sandbox::{KEY, configs};

use crate::error::{Error, Result};
use crate::secrets::{Format, NewKey, Selector, Settings, encrypt};
use crate::state::write_private;

/// The file that asks for everything.
pub(super) const FILE: &str = "nodeprep.yaml";

/// Writes that file, and its secrets.
///
/// # Errors
/// A file can't be written.
pub fn first_files(folder: &Path, world: &World) -> Result<()> {
    let key = NewKey::generate(Timestamp::now());
    let path = folder.join(KEY);
    if !path.exists() {
        key.write(&path)?;
        let settings = Settings {
            recipients: vec![key.recipient()],
            selector: Selector::EncryptedRegex(
                regex::Regex::new("^(data|stringData)$").map_err(|e| Error::failed(e.to_string()))?,
            ),
            mac_only_encrypted: false,
        };
        let secrets = encrypt(SECRETS.as_bytes(), Format::Yaml, &settings, Timestamp::now())?;
        write_private(&folder.join("velero.sops.yaml"), secrets.as_bytes())?;
    }
    let nodes: String = world.machines.values().map(node).collect();
    write_private(&folder.join(FILE), ALL.replace("NODES\n", &nodes).as_bytes())
}

/// The machine's entry in the file.
fn node(machine: &Machine) -> String {
    let entry = format!("  - address: {}\n", machine.address);
    match &machine.active {
        None => format!("{entry}    config: {}\n", configs::file(machine.controlplane)),
        Some(_) => entry,
    }
}

/// The secrets of a store that does not exist.
const SECRETS: &str = "apiVersion: v1
kind: Secret
metadata:
  name: cloud-credentials
stringData:
  cloud: |
    [default]
    aws_access_key_id=simulated
    aws_secret_access_key=nothing-is-behind-it
---
apiVersion: v1
kind: Secret
metadata:
  name: velero-repo-credentials
stringData:
  repository-password: of-a-simulated-repository
";

/// What the sandbox does when no file says it.
const ALL: &str = "# What the sandbox does when no file of yours says it.
apiVersion: nodeprep.dev/v1alpha1
kind: Cluster
metadata:
  name: sandbox

nodes:
NODES
labels:
  openebs.io/storage-node: \"true\"

volumes:
  - name: openebs
    disk:
      match: disk.transport == \"nvme\" && disk.size > 900u * GB
    minSize: 100GiB
    filesystem:
      type: xfs
      projectQuota: true

provisioner:
  openebs:
    nodeSelector:
      openebs.io/storage-node: \"true\"

classes:
  - name: openebs-hostpath
    basePath: /var/mnt/openebs
    default: true

backup:
  location:
    bucket: simulated
    region: us-east-1
  secrets:
    - velero.sops.yaml
  schedules:
    - name: daily-backup
      cron: 0 2 * * *

validation:
  pendingFor: 2s
  fio:
    size: 512MiB
    runtime: 5s
";

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use nodeprep_sandbox::scenario::Scenario;

    use super::*;

    #[test]
    fn a_machine_that_waits_for_a_config_has_it_in_its_entry() {
        for (machine, entry) in [
            (
                "role: controlplane, maintenance: true",
                "  - address: 10.5.0.2\n    config: controlplane.yaml\n",
            ),
            ("maintenance: true", "  - address: 10.5.0.2\n    config: worker.yaml\n"),
            ("role: controlplane", "  - address: 10.5.0.2\n"),
        ] {
            let scenario = Scenario::parse("scenario", &format!("machines: [{{{machine}}}]")).unwrap();
            let world = World::new(&scenario, Timestamp::UNIX_EPOCH);
            assert_eq!(node(&world.machines["10.5.0.2"]), entry);
        }
    }
}
