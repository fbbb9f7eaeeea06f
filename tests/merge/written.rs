//! What nodeprep writes into a machine config is what every supported Talos takes.

use nodeprep::intent;
use nodeprep::observe::disks::{Facts, join};
use nodeprep::observe::nodes::{MachineConfig, Node, Status, Version};
use nodeprep::plan::{Action, machine};
use nodeprep::talos::resources::{BlockDevice, DiscoveredVolume, DiskSpec, Item};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value as Json;

use super::{VERSIONS, assert_golden, golden, recorded};

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

fn item<T>(id: &str, spec: T) -> Item<T> {
    Item { id: id.into(), version: "1".into(), labels: Default::default(), spec }
}

/// A node with two empty disks, the second with an odd serial.
fn node(config: &str) -> Node {
    let disk = |id: &str, serial: &str| {
        let spec = DiskSpec {
            dev_path: format!("/dev/{id}"),
            size: 4 << 40,
            serial: serial.into(),
            wwid: format!("nvme.{serial}"),
            transport: "nvme".into(),
            ..DiskSpec::default()
        };
        item(id, spec)
    };
    let disks = vec![disk("nvme0n1", "S1"), disk("nvme1n1", "it's \"S\\2\"")];
    let blank = |disk: &Item<DiskSpec>| {
        item(&disk.id, DiscoveredVolume { kind: "disk".into(), size: disk.spec.size, ..Default::default() })
    };
    let device =
        |disk: &Item<DiskSpec>| item(&disk.id, BlockDevice { kind: "disk".into(), ..Default::default() });
    let facts = Facts {
        discovered: disks.iter().map(blank).collect(),
        devices: disks.iter().map(device).collect(),
        system_disk: None,
        disks,
        volumes: Vec::new(),
    };
    let text = format!("tests/config_doc/talosctl-{config}/config.yaml");
    let text = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(text)).unwrap();
    Node {
        address: "10.0.0.1".into(),
        version: Ok(Version {
            tag: "v1.13.9".into(),
            parsed: (1, 13, 9),
            platform: "metal".into(),
            container: false,
            arch: "amd64".into(),
            simulated: false,
        }),
        hostname: Ok(None),
        machine_type: Ok(Some(if config == "worker" { "worker" } else { "controlplane" }.into())),
        status: Ok(Status { stage: "running".into(), ready: true, unmet: Vec::new() }),
        disks: Ok(join(&facts)),
        volumes: Ok(Vec::new()),
        mounts: Ok(Vec::new()),
        wanted_labels: Ok(Default::default()),
        labels: Ok(None),
        config: Ok(Some(MachineConfig { text: SecretString::from(text), version: "1".into() })),
        cert_days_left: 300,
    }
}

/// The config that the plan for this node sends.
fn written(config: &str, wanted: &str) -> String {
    let file = format!(
        "apiVersion: nodeprep.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: x}}\nnodes: [{{address: 10.0.0.1}}]\n{wanted}"
    );
    let intent = intent::parse("nodeprep.yaml", file.as_bytes()).unwrap();
    let plan = machine::plan(&intent, &node(config)).unwrap();
    match plan.steps.into_iter().map(|step| step.action).next() {
        Some(Action::ApplyConfig(apply)) => apply.config.expose_secret().to_owned(),
        _ => panic!("the plan writes no config"),
    }
}

#[test]
fn what_nodeprep_writes_is_valid_on_every_version_that_can_have_it() {
    for (name, config, wanted) in CASES {
        assert_golden(&golden(&format!("validate/{name}.yaml")), &written(config, wanted));
    }
    let mut wrong = Vec::new();
    for (name, _, wanted) in CASES {
        for version in VERSIONS {
            let answers = recorded("validate", version);
            let error = |mode: &str| {
                let answer = answers.get(format!("{name}/{mode}")).unwrap_or(&Json::Null);
                assert!(answer.is_object(), "{version} {name}/{mode} is not recorded");
                answer.get("error").and_then(Json::as_str).unwrap_or_default().to_owned()
            };
            let quota_unknown = wanted.contains("projectQuota") && version == "v1.10.9";
            if quota_unknown != error("metal").contains("projectQuotaSupport")
                || (!quota_unknown && !error("metal").is_empty())
            {
                wrong.push(format!("{version} {name}: {}", error("metal")));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
