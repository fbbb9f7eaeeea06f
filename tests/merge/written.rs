//! What nodeprep writes into a machine config is what every supported Talos takes.

use std::path::Path;

use serde_json::Value as Json;

use super::{VERSIONS, recorded};
use crate::common::{assert_golden, golden};
use crate::plan_node::bench::{Disk, Holds, Machine, disk};

/// (name, base config, the file's volumes and labels)
const CASES: [(&str, &str, &str); 6] = [
    (
        "volume",
        "worker",
        "volumes:\n  - {name: openebs, disk: {match: 'disk.serial == \"S1\"'}, minSize: 100GiB}\n",
    ),
    (
        "volume-with-all",
        "controlplane",
        "volumes:\n  - {name: data, disk: {match: 'disk.serial == \"S1\"'}, minSize: 100GiB, maxSize: 1TiB, filesystem: {type: xfs, projectQuota: true}}\n",
    ),
    (
        "volume-ext4",
        "worker",
        "volumes:\n  - {name: data, disk: {match: 'disk.serial == \"S1\"'}, minSize: 1GiB, filesystem: {type: ext4}}\n",
    ),
    (
        "two-volumes",
        "worker",
        "volumes:\n  - {name: a, disk: {match: 'disk.serial == \"S1\"'}, minSize: 1GiB}\n  - {name: b, disk: {match: 'disk.dev_path == \"/dev/nvme1n1\"'}, minSize: 1GiB}\n",
    ),
    ("labels", "worker", "labels: {openebs.io/storage-node: \"true\", example.com/zone: \"1\"}\n"),
    (
        "volume-and-labels",
        "controlplane-bare",
        "labels: {openebs.io/storage-node: \"true\"}\nvolumes:\n  - {name: openebs, disk: {match: 'disk.serial == \"S1\"'}, minSize: 100GiB}\n",
    ),
];

/// The config that the plan sends to a node with two empty disks, the second with an odd serial.
fn written(config: &str, wanted: &str) -> String {
    let large = |id, serial| Disk { size: 4 << 40, ..disk(id, serial, Holds::Nothing) };
    let mut machine = Machine::new(13, &[large("nvme0n1", "S1"), large("nvme1n1", "it's \"S\\2\"")]);
    let text = format!("tests/config_doc/talosctl-{config}/config.yaml");
    machine.config = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(text)).unwrap();
    machine.role = if config == "worker" { "worker" } else { "controlplane" };
    machine.config_of(wanted)
}

/// What a version of Talos says against a config; nothing when it takes it.
fn error(version: &str, name: &str, mode: &str) -> String {
    let answers = recorded("validate", version);
    let answer = answers.get(format!("{name}/{mode}")).unwrap_or(&Json::Null);
    assert!(answer.is_object(), "{version} {name}/{mode} is not recorded");
    answer.get("error").and_then(Json::as_str).unwrap_or_default().to_owned()
}

/// `plan_node` keeps a config for each release, `1.N-….yaml`. Of 1.14 there is no code to ask: what only it knows follows
/// its documentation alone.
#[test]
fn what_is_written_for_a_release_is_valid_there_and_later() {
    let mut asked = 0;
    for entry in std::fs::read_dir(golden("validate")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some((minor, name)) = file
            .strip_suffix(".yaml")
            .zip(file.strip_prefix("1."))
            .and_then(|(name, rest)| Some((rest.split_once('-')?.0.parse::<u64>().unwrap(), name)))
        else {
            continue;
        };
        let later = VERSIONS
            .iter()
            .filter(|version| version.split('.').nth(1).unwrap().parse::<u64>().unwrap() >= minor);
        for version in later {
            assert_eq!(error(version, name, "metal"), "", "{version} {name}");
            asked += 1;
        }
    }
    assert!(asked >= 20, "{asked}");
}

#[test]
fn what_nodeprep_writes_is_valid_on_every_version_that_can_have_it() {
    for (name, config, wanted) in CASES {
        assert_golden(&golden(&format!("validate/{name}.yaml")), &written(config, wanted));
    }
    let mut wrong = Vec::new();
    for (name, _, wanted) in CASES {
        for version in VERSIONS {
            let quota_unknown = wanted.contains("projectQuota") && version == "v1.10.9";
            let error = error(version, name, "metal");
            if quota_unknown != error.contains("projectQuotaSupport") || (!quota_unknown && !error.is_empty())
            {
                wrong.push(format!("{version} {name}: {error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
