//! A cluster is rehearsed with one's own configs: from simulated machines in maintenance mode to storage that is proven.

use std::fs;
use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use crate::common::golden;

/// What is wanted, but for the nodes.
const WANTED: &str = "apiVersion: nodeprep.dev/v1alpha1
kind: Cluster
metadata: {name: home}
provisioner: {openebs: {}}
classes: [{name: openebs-hostpath, basePath: /var/mnt/openebs, default: true}]
validation: {pendingFor: 1s, fio: {size: 512MiB, runtime: 1s}}
";
const NVME: &str =
    "volumes: [{name: openebs, disk: {match: 'disk.size > 900u * GB'}, minSize: 100GiB, maxSize: 50%}]\n";
/// The config of an older Talos, as its tools write it, cut down. Its authorities are none.
const LEGACY: &str = "version: v1alpha1
machine:
  type: controlplane
  token: aaaaaa.0123456789abcdef
  ca: {crt: LS0t, key: LS0t}
  install: {disk: /dev/sda, image: 'ghcr.io/siderolabs/installer:v1.13.9'}
cluster:
  id: aGVsbG8=
  clusterName: home
  controlPlane: {endpoint: 'https://10.5.0.2:6443'}
  network: {podSubnets: [10.244.0.0/16]}
  ca: {crt: LS0t, key: LS0t}
";

struct Folder(TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    fn run(&self, args: &str) -> Output {
        crate::common::nodeprep(self.0.path()).args(args.split_whitespace()).output().unwrap()
    }

    /// Runs, wants this exit code and these words in what is printed; all that was printed.
    fn says(&self, args: &str, code: i32, words: &[&str]) -> String {
        let output = self.run(args);
        let text = [output.stderr.as_slice(), output.stdout.as_slice()].concat();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args}: {text}");
        for word in words {
            assert!(text.contains(word), "{args}: no `{word}` in: {text}");
        }
        text
    }
}

/// Storage is proven: what was written through a claim was read by the next pod too.
fn passes(said: &str) {
    for check in ["pvc ", "persistence ", "fio "] {
        let mut verdicts = said.lines().filter(|line| line.starts_with(check)).peekable();
        assert!(verdicts.peek().is_some() && verdicts.all(|line| line.contains(" pass ")), "{check}: {said}");
    }
}

fn generated(name: &str) -> String {
    fs::read_to_string(golden("generated/1.14").join(name)).unwrap()
}

/// Whether a file below the folder holds the text.
fn holds(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return holds(&path, text);
        }
        let bytes = fs::read(&path).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[test]
fn the_configs_that_talos_1_14_generates_become_a_cluster_with_proven_storage() {
    let (control, worker) = (generated("controlplane.yaml"), generated("worker.yaml"));
    let nodes = "nodes:\n  - {address: 10.5.0.2, config: controlplane.yaml}\n  - {address: 10.5.0.3, config: worker.yaml}\n";
    let folder = Folder::new(&[
        ("controlplane.yaml", &control),
        ("worker.yaml", &worker),
        ("nodeprep.yaml", &format!("{WANTED}{NVME}{nodes}labels: {{openebs.io/storage-node: 'true'}}\n")),
        (
            "scenario.yaml",
            "speed: 50\nmachines:\n  - {role: controlplane, maintenance: true, version: v1.14.1}\n  - {maintenance: true, version: v1.14.1}\n",
        ),
    ]);
    let bootstrap = "bootstrap --sandbox scenario.yaml --sandbox-state fleet --yes --wipe-disk SIMS0001 --wipe-disk SIMS0002";
    let said = folder.says(
        bootstrap,
        0,
        &[
            "Talos v1.14.1, on sda (238.5GiB, model Simulated SSD, serial SIMS0001), the one disk that provisioning.diskSelector of UnattendedInstallConfig matches",
        ],
    );
    passes(&said);
    // The sandbox has the authorities of the configs, and nobody's secret is anywhere else than in them.
    let kubeconfig = fs::read_to_string(folder.0.path().join("fleet/talosconfig")).unwrap();
    let authority = control.lines().find_map(|line| line.trim().strip_prefix("crt: ")).unwrap();
    assert!(kubeconfig.contains(authority), "{kubeconfig}");
    let secret = |key: &str| control.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap();
    let token = secret("token: ").split(' ').next().unwrap().to_owned();
    let (key, service) = (secret("key: ").to_owned(), "MIIJKQIBAAKCAgEAq4kgNIM1VtsG1WqnQLHFURBRtPAV");
    for secret in [token.as_str(), key.as_str(), service] {
        assert!(control.contains(secret) && !holds(&folder.0.path().join("fleet"), secret), "{secret}");
        assert!(!said.contains(secret), "{secret}");
    }
    folder.says("plan --sandbox-state fleet --exit-code", 0, &["Nothing to change"]);
}

#[test]
fn without_a_scenario_the_machines_wait_for_the_configs_that_the_file_names() {
    let folder = Folder::new(&[
        ("c.yaml", LEGACY),
        ("nodeprep.yaml", &format!("{WANTED}{NVME}nodes: [{{address: 10.0.0.7, config: c.yaml}}]\n")),
    ]);
    folder.says(
        "bootstrap --sandbox --yes --no-apply",
        5,
        &["Talos is to be installed", "--wipe-disk SIMS0001"],
    );
    folder.says("bootstrap --sandbox --yes --no-apply --wipe-disk SIMS0001", 0, &["the cluster is there"]);
}

#[test]
fn a_selector_takes_exactly_one_disk_and_its_serial_is_the_token() {
    let folder = Folder::new(&[
        ("nodeprep.yaml", &format!("{WANTED}nodes: [{{address: 10.5.0.2, config: c.yaml}}]\n")),
        (
            "scenario.yaml",
            "speed: 50\nmachines: [{role: controlplane, maintenance: true, version: v1.13.9}]\n",
        ),
    ]);
    let bootstrap = "bootstrap --sandbox scenario.yaml --yes --no-apply";
    for (selector, arguments, code, words) in [
        (
            "{type: ssd}",
            "",
            5,
            vec!["matches 3 disks", "nvme0n1 (931.5GiB", "serial SIMB0001", "sda (238.5GiB"],
        ),
        ("{model: Other*}", "", 5, vec!["matches no disk", "sda (238.5GiB"]),
        ("{type: nvme, size: '< 600GB'}", "", 5, vec!["--wipe-disk SIMB0001"]),
        (
            "{type: nvme, size: '< 600GB'}",
            "--wipe-disk SIMB0001",
            0,
            vec![
                "on nvme1n1 (465.8GiB, model Simulated NVMe 500GB, serial SIMB0001), the one disk that machine.install.diskSelector matches",
            ],
        ),
        ("{serial: 'SIMS*'}", "--wipe-disk SIMS0001", 0, vec!["on sda (238.5GiB"]),
        ("{name: sda}", "", 2, vec!["c.yaml", "by `name`"]),
    ] {
        let config = LEGACY.replace("install: {", &format!("install: {{diskSelector: {selector}, "));
        fs::write(folder.0.path().join("c.yaml"), config).unwrap();
        folder.says(&format!("{bootstrap} {arguments}"), code, &words);
    }
}

/// What the disks of one machine become that has only one.
const ONE: &str = "speed: 50\nmachines:\n  - role: controlplane\n    version: v1.13.9\n    MODE\n    disks:\n      \
                   - {name: nvme0n1, model: Single NVMe, serial: ONE1, size: 2TB}\n";
const REST: &str =
    "volumes: [{name: openebs, disk: {match: system_disk, shared: true}, minSize: 100GiB, maxSize: 1TiB}]\n";

#[test]
fn a_machine_with_one_disk_has_its_volume_beside_talos_when_that_is_said_at_the_first_boot() {
    let file = |ephemeral: &str| {
        format!("{WANTED}{REST}{ephemeral}nodes: [{{address: 10.5.0.2, config: c.yaml}}]\n")
    };
    let folder = Folder::new(&[
        ("c.yaml", &LEGACY.replace("/dev/sda", "/dev/nvme0n1")),
        ("scenario.yaml", &ONE.replace("MODE", "maintenance: true")),
        ("nodeprep.yaml", &file("")),
    ]);
    let bootstrap = "bootstrap --sandbox scenario.yaml --sandbox-state fleet --yes --wipe-disk ONE1";
    folder.says(bootstrap, 5, &["EPHEMERAL would take all of it", "ephemeral: {maxSize: 100GiB}"]);
    fs::write(folder.0.path().join("nodeprep.yaml"), file("ephemeral: {maxSize: 900GiB}\n")).unwrap();
    folder.says(bootstrap, 5, &["left beside Talos with EPHEMERAL of 900GiB", "want 1.0TiB"]);
    fs::write(folder.0.path().join("nodeprep.yaml"), file("ephemeral: {maxSize: 200GiB}\n")).unwrap();
    passes(&folder.says(bootstrap, 0, &["EPHEMERAL of at most 200GiB", "volume openebs on nvme0n1"]));
    folder.says("plan --sandbox-state fleet --exit-code", 0, &["Nothing to change"]);
}

#[test]
fn where_talos_has_the_whole_disk_already_it_is_said_what_a_volume_there_would_cost() {
    let folder = Folder::new(&[
        ("scenario.yaml", &ONE.replace("MODE", "").replace("size: 2TB", "size: 2TB, holds: talos")),
        ("nodeprep.yaml", &format!("{WANTED}{REST}nodes: [{{address: 10.5.0.2}}]\n")),
    ]);
    let lost = ["has only", "all that is on it is lost", "talosctl reset --system-labels-to-wipe EPHEMERAL"];
    folder.says("plan --sandbox scenario.yaml", 5, &lost);
    let alone = REST.replace(", shared: true", "");
    fs::write(
        folder.0.path().join("nodeprep.yaml"),
        format!("{WANTED}{alone}nodes: [{{address: 10.5.0.2}}]\n"),
    )
    .unwrap();
    let text = folder.says("plan --sandbox scenario.yaml", 5, &["Talos itself is on it", "shared: true"]);
    assert!(!text.contains("empty this one yourself"), "{text}");
}

#[test]
fn talos_in_a_container_has_directories_and_claims_on_them_are_judged_as_what_they_are() {
    let file = |kind: &str| {
        let volume = match kind {
            "directory" => "{name: openebs, type: directory}",
            _ => "{name: openebs, disk: {match: nvme}, minSize: 1GiB}",
        };
        format!("{WANTED}volumes: [{volume}]\nnodes: [{{address: 10.5.0.2}}, {{address: 10.5.0.3}}]\n")
    };
    for (kind, words) in [
        ("directory", ["directory volume openebs", "a directory of Talos' own, as volume openebs asks"]),
        (
            "partition",
            ["volume openebs is a directory: Talos runs in a container", "where Talos runs in a container"],
        ),
    ] {
        let folder = Folder::new(&[
            (
                "scenario.yaml",
                "speed: 50\nmachines:\n  - {role: controlplane, container: true, version: v1.14.1}\n  - {container: true, version: v1.14.1}\n",
            ),
            ("nodeprep.yaml", &file(kind)),
        ]);
        folder.says("apply --sandbox scenario.yaml --sandbox-state fleet --yes", 0, &words);
        folder.says("plan --sandbox-state fleet --exit-code", 0, &["Nothing to change"]);
    }
}
