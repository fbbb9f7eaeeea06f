//! Whole machine configs as the planner writes them, for each release: `e2e/oracle` gives them to Talos' own code.

use nodeprep::intent::Passphrase;
use nodeprep::plan::{Passphrases, machine};
use secrecy::{ExposeSecret, SecretString};

use crate::common::{self, assert_golden};

use super::bench::{BASE, GIB, Holds, Machine, applied, disk, intent, partitions};

/// A line for each kind of volume and each field, with the release that has it.
const VOLUMES: [(u64, &str); 14] = [
    (
        10,
        r#"{name: fast, disk: {match: disk.serial == "A"}, minSize: 10GiB, grow: true, filesystem: {type: ext4}}"#,
    ),
    (10, r#"{name: one, disk: {match: disk.serial == "B", shared: true}, minSize: 10GiB, maxSize: 40GiB}"#),
    (10, r#"{name: other, disk: {match: disk.serial == "B", shared: true}, minSize: 10GiB, maxSize: 50GB}"#),
    (
        10,
        r#"{name: secret, disk: {match: disk.serial == "C"}, minSize: 10GiB, encryption: {keys: [nodeID, tpm,
      {kms: {endpoint: "https://kms.example:4443"}}, {static: {file: keys.sops.yaml, key: secret}}]}}"#,
    ),
    (
        11,
        r#"{name: quota, disk: {match: disk.serial == "D"}, minSize: 10GiB, filesystem: {projectQuota: true}}"#,
    ),
    (
        11,
        r#"{name: raw, type: raw, disk: {match: disk.serial == "E"}, minSize: 10GiB, maxSize: 20GiB, encryption: {keys: [nodeID]}}"#,
    ),
    (
        11,
        r#"{name: media, type: existing, disk: {match: disk.serial == "F"}, partition: MEDIA, mount: {readOnly: true}}"#,
    ),
    (11, r#"{name: old, type: existing, disk: {match: disk.serial == "G"}}"#),
    (
        12,
        r#"{name: whole, type: disk, disk: {match: disk.serial == "H"}, filesystem: {projectQuota: true}, encryption: {keys: [tpm]}}"#,
    ),
    (12, "{name: scratch, type: directory}"),
    (12, r#"{name: part, disk: {match: disk.serial == "I"}, minSize: 10GiB, maxSize: 80%}"#),
    (13, r#"{name: all-but, disk: {match: disk.serial == "J"}, minSize: 10GiB, maxSize: -10GiB}"#),
    (
        13,
        r#"{name: exec, disk: {match: disk.serial == "K"}, minSize: 10GiB, mount: {secure: false, disableAccessTime: true}}"#,
    ),
    (14, r#"{name: kept, disk: {match: disk.serial == "L"}, minSize: 10GiB, trim: 168h, scrub: 720h}"#),
];
const LABELS: &str = "labels: {openebs.io/storage-node: \"true\", example.com/zone: \"1\"}\n";

fn machine_with_all(minor: u64) -> Machine {
    let blank = |(i, serial): (usize, char)| disk(&format!("nvme{i}n1"), &serial.to_string(), Holds::Nothing);
    let mut disks: Vec<_> = ('A'..='L').enumerate().map(blank).collect();
    disks[5].holds = partitions(&[("MEDIA", "ext4", 50 * GIB)]);
    disks[6].holds = Holds::Whole("xfs".into());
    Machine::new(minor, &disks)
}

/// The config is what the golden file says.
fn golden(minor: u64, name: &str, machine: &Machine, file: &str) -> String {
    let from = Passphrase { file: "keys.sops.yaml".into(), key: "secret".into() };
    let passphrases: Passphrases = [(from, SecretString::from("it's a \"secret\""))].into();
    let plan = machine::plan(&intent(file), &machine.node(), &passphrases).unwrap_or_else(|e| panic!("{e}"));
    let config = applied(&plan).unwrap().config.expose_secret().to_owned();
    assert_golden(&common::golden(&format!("validate/1.{minor}-{name}.yaml")), &config);
    config
}

#[test]
fn each_release_gets_the_documents_that_it_knows() {
    for minor in 10..=14 {
        let volumes: String = VOLUMES
            .iter()
            .filter(|(first, _)| *first <= minor)
            .map(|(_, volume)| format!("  - {volume}\n"))
            .collect();
        let mut machine = machine_with_all(minor);
        let file = format!("{LABELS}volumes:\n{volumes}");
        let config = golden(minor, "worker", &machine, &file);
        // Talos makes of it what is asked, and then there is nothing left to do.
        let writes = machine.apply(&config);
        assert!(writes.iter().all(|write| !write.lost), "{writes:?}");
        let known = VOLUMES.iter().filter(|(first, _)| *first <= minor).count();
        assert_eq!(machine.ready.len(), known, "{:?}", machine.ready);
    }
}

#[test]
fn the_size_of_the_ephemeral_partition_is_set_before_it_is_made() {
    for (minor, most) in [(10, "50GiB"), (11, "50GiB"), (12, "50%"), (13, "-20GiB"), (14, "-20GiB")] {
        let mut machine = Machine::new(minor, &[]);
        machine.disks[0].holds = Holds::Nothing;
        golden(minor, "ephemeral", &machine, &format!("ephemeral: {{maxSize: {most}}}\n"));
    }
}

#[test]
fn labels_of_talos_1_14_go_to_its_own_document_from_the_facts() {
    let mut machine = Machine::new(14, &[]);
    machine.config =
        format!("{BASE}---\napiVersion: v1alpha1\nkind: KubeNodeConfig\nlabels:\n    example.com/rack: a\n");
    golden(14, "kube-node-config", &machine, LABELS);
}
