//! `init`: what other tools' files say, what the disks propose, and that what is written is a good file.
//!
//! The files of topf and talhelper here have the shape of those in postfinance/topf (example/topf.yaml,
//! docs/configuration.md) and budimanjojo/talhelper (example/talconfig.yaml, docs/docs/reference/configuration.md).

mod backup;
mod imports;

use std::fs;
use std::path::Path;

use nodeprep::intent::import::{Keeper, import};
use nodeprep::intent::init::{Answers, Node, Volume, cluster_name, from_import, min_size, propose, text};
use nodeprep::intent::{Intent, MaxSize, Size, VolumeType, parse};
use proptest::prelude::*;

use crate::common::Alone;
use crate::plan_node::bench::{Disk, GIB, Holds, Machine, disk, partitions};

const TOPF: &str = "\
kubernetesVersion: 1.35.5
talosVersion: 1.13.3
clusterEndpoint: https://192.168.1.80:6443
clusterName: my-cluster
data:
  region: eu-west-1
nodes:
  - host: node1
    ip: 192.168.1.11
    role: control-plane
  - host: node2.example
    role: worker
    data:
      storageDevice: /dev/sdb
";

const TALHELPER: &str = "\
---
clusterName: home-cluster
talosVersion: v1.12.0
kubernetesVersion: v1.35.0
endpoint: https://192.168.200.10:6443
domain: ${myDomainName}
nodes:
  - hostname: kmaster1
    ipAddress: 192.168.200.11, 10.0.0.11
    controlPlane: true
    userVolumes:
      - name: data
        provisioning:
          diskSelector:
            match: disk.serial == \"S64GNE0R811820\"
          minSize: 100GiB
        filesystem:
          type: xfs
          projectQuotaSupport: true
        encryption:
          provider: luks2
          keys:
            - slot: 0
              tpm: {}
  - hostname: kworker1
    ipAddress: 192.168.200.13
    controlPlane: false
    installDisk: /dev/sdb
  - hostname: kworker2
    ipAddress: 192.168.200.14
    controlPlane: false
    userVolumes:
      - name: scratch
        volumeType: directory
worker:
  userVolumes:
    - name: data
      provisioning:
        diskSelector:
          match: disk.transport == \"nvme\"
        minSize: 50GiB
        maxSize: 80%
      encryption:
        provider: luks2
        keys:
          - slot: 0
            tpm: {}
";

fn good(answers: &Answers) -> Intent {
    let text = text(answers);
    parse("nodeprep.yaml", text.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

#[test]
fn a_topf_yaml_tells_name_and_nodes() {
    let import = import("topf.yaml", TOPF.as_bytes(), &Alone).unwrap();
    assert_eq!((import.keeper, import.cluster.as_deref()), (Keeper::Topf, Some("my-cluster")));
    let nodes: Vec<_> =
        import.machines.iter().map(|m| (&m.name[..], &m.addresses[0][..], m.control_plane)).collect();
    assert_eq!(nodes, [("node1", "192.168.1.11", true), ("node2.example", "node2.example", false)]);
    assert!(!import.partial);
    assert_eq!(import.machine("192.168.1.11", None).unwrap().name, "node1");
    assert_eq!(import.machine("10.9.9.9", Some("node1")).unwrap().name, "node1");
    assert_eq!(import.machine("10.9.9.9", None), None);
}

#[test]
fn a_talconfig_yaml_tells_volumes_too_and_what_nodes_have_differently() {
    let import = import("talconfig.yaml", TALHELPER.as_bytes(), &Alone).unwrap();
    assert_eq!((import.keeper, import.cluster.as_deref()), (Keeper::Talhelper, Some("home-cluster")));
    assert_eq!(import.machine("10.0.0.11", None).unwrap().name, "kmaster1");
    let answers = Answers { name: "home".into(), ..from_import(&import, None).unwrap() };
    let intent = good(&answers);
    let [data, scratch] = &intent.volumes[..] else { panic!("{:?}", intent.volumes) };
    assert_eq!((&data.disk.matches[..], data.min_size), ("serial:S64GNE0R811820", Some(Size(100 * GIB))));
    assert!(data.filesystem.project_quota);
    assert_eq!(scratch.kind, VolumeType::Directory);
    // A node's own volumes take the place of its group's.
    let names = |address: &str| -> Vec<String> {
        intent.on(address).volumes.iter().map(|volume| volume.name.clone()).collect()
    };
    assert_eq!(names("192.168.200.11"), ["data"]);
    assert_eq!(names("192.168.200.13"), ["data"]);
    assert_eq!(names("192.168.200.14"), ["scratch"]);
    let worker = &intent.on("192.168.200.13").volumes[0];
    assert_eq!(worker.disk.matches, "disk.transport == \"nvme\"");
    assert_eq!((worker.min_size, worker.max_size), (Some(Size(50 * GIB)), Some(MaxSize::Percent(80.into()))));
    // What a node's entry can't say is said.
    assert!(answers.notes.iter().any(|note| note.contains("kworker1")), "{:?}", answers.notes);
}

#[test]
fn what_a_file_has_wrong_is_told_with_its_line() {
    let topf = |from: &str, to: &str| TOPF.replace(from, to);
    let tal = |from: &str, to: &str| TALHELPER.replace(from, to);
    let cases: Vec<(String, &[&str])> = vec![
        (String::new(), &["documents"]),
        ("a: [".into(), &["file:"]),
        ("x: 1\n".into(), &["neither a topf.yaml nor a talconfig.yaml"]),
        (format!("{TOPF}endpoint: https://x\n"), &["neither"]),
        (topf("  - host: node1\n    ip", "  - ip"), &["file:8:", "without `host`"]),
        (topf("192.168.1.11", "192.168.1.11/24"), &["file:9:", "192.168.1.11/24"]),
        (topf("host: node1", "host: [a]"), &["file:8:", "is no text"]),
        (topf("my-cluster", "ENC[AES256_GCM,data:x]"), &["file:4:", "encrypted with sops"]),
        (TOPF[..TOPF.find("nodes:").unwrap()].to_owned(), &["lists no nodes"]),
        (topf("nodes:\n", "nodes: 5\nrest:\n"), &["file:7:", "is no list"]),
        (tal("home-cluster", "${NAME}"), &["file:2:", "`${NAME}` is not set"]),
        (tal("    ipAddress: 192.168.200.13\n", ""), &["file:", "kworker1 has no `ipAddress`"]),
        (tal("minSize: 100GiB", "minSize: lots"), &["file:16:", "lots"]),
        (tal("      - name: scratch\n        volume", "      - volume"), &["without `name`"]),
        (format!("{TOPF}---\n{TOPF}"), &["holds 2 documents"]),
    ];
    for (text, words) in cases {
        let error = import("file", text.as_bytes(), &Alone).unwrap_err();
        assert_eq!(error.kind.exit_code(), 2, "{error}");
        for word in words {
            assert!(error.what.contains(word), "no `{word}` in: {error}\n{text}");
        }
    }
    assert!(import("file", &[0xff, 0xfe], &Alone).unwrap_err().what.contains("not a text file"));
    let unknown = TALHELPER.replace("volumeType: directory", "volumeType: tape");
    let error = import("talconfig.yaml", unknown.as_bytes(), &Alone).unwrap_err();
    assert!(error.what.contains("talconfig.yaml:34:") && error.what.contains("tape"), "{error}");
}

fn sized(id: &str, serial: &str, gib: u64) -> Disk {
    Disk { size: gib * GIB, ..disk(id, serial, Holds::Nothing) }
}

/// Machines, and what is proposed for them: the selector, those without a volume, those to choose for, and the smallest disk.
type Row<'a> = (Vec<Machine>, Option<&'a str>, &'a [&'a str], &'a [&'a str], Option<u64>);

#[test]
fn a_selector_is_proposed_by_the_disks_of_all_nodes() {
    let held =
        |name: &str| Disk { holds: partitions(&[(name, "xfs", 50 * GIB)]), ..sized("nvme0n1", "H", 100) };
    let one = || Machine::new(11, &[sized("nvme0n1", "A", 1000)]);
    let two = || Machine::new(11, &[sized("nvme0n1", "A", 500), sized("nvme1n1", "B", 1000)]);
    let alike = || Machine::new(11, &[sized("nvme0n1", "A", 500), sized("nvme1n1", "B", 500)]);
    let none = || Machine::new(11, &[sized("sdb", "A", 500)]);
    let has = || Machine { ready: vec!["u-openebs".into()], ..Machine::new(11, &[held("u-openebs")]) };
    let taken = || Machine::new(11, &[held("data"), sized("nvme1n1", "B", 300)]);
    let table: [Row<'_>; 8] = [
        (vec![one(), one()], Some("nvme"), &[], &[], Some(1000)),
        (vec![one(), has()], Some("nvme"), &[], &[], Some(100)),
        (vec![one(), two()], Some("largest-free-nvme"), &[], &[], Some(1000)),
        (vec![taken()], Some("largest-free-nvme"), &[], &[], Some(300)),
        (vec![one(), none()], Some("nvme"), &["n2"], &[], Some(1000)),
        (vec![one(), alike()], Some("largest-free-nvme"), &[], &["n2"], Some(500)),
        (vec![none()], None, &["n1"], &[], None),
        (vec![], None, &[], &[], None),
    ];
    for (number, (machines, matches, without, undecided, smallest)) in table.into_iter().enumerate() {
        let disks: Vec<_> = machines.iter().map(|machine| machine.node().disks.unwrap()).collect();
        let names = ["n1", "n2"];
        let nodes: Vec<_> = names.into_iter().zip(disks.iter().map(Vec::as_slice)).collect();
        let proposal = propose("openebs", &nodes).unwrap();
        assert_eq!(proposal.matches, matches, "{number}");
        assert_eq!(proposal.without, without, "{number}");
        assert_eq!(proposal.undecided.keys().collect::<Vec<_>>(), undecided, "{number}");
        assert_eq!(proposal.smallest, smallest.map(|gib| gib * GIB), "{number}");
    }
    assert_eq!(min_size(None).to_string(), "100GiB");
    assert_eq!(min_size(Some(1000 * GIB)).to_string(), "100GiB");
    assert_eq!(min_size(Some(10 * GIB)).to_string(), "8GiB");
    assert_eq!(min_size(Some(0)).to_string(), "1MiB");
}

#[test]
fn a_node_without_the_volume_gets_no_label_either() {
    let volume = Volume {
        name: "openebs".into(),
        matches: Some("nvme".into()),
        min_size: Some(Size(GIB)),
        ..Volume::default()
    };
    let node = |address: &str, different: &[(String, Option<_>)]| Node {
        address: address.into(),
        different: different.iter().cloned().collect(),
        ..Node::default()
    };
    let nodes = vec![node("10.0.0.1", &[]), node("fd00::2", &[("openebs".into(), None)])];
    let intent = good(&Answers { name: "x".into(), nodes, volumes: vec![volume], ..Answers::default() });
    let (with, without) = (intent.on("10.0.0.1"), intent.on("fd00::2"));
    assert_eq!((with.labels.len(), with.volumes.len()), (1, 1));
    assert_eq!((without.labels.len(), without.volumes.len()), (0, 0));
    assert_eq!(intent.classes[0].place(), "/var/mnt/openebs");
}

#[test]
fn a_clusters_name_is_made_of_what_is_known() {
    for (known, name) in
        [("home", Some("home")), ("admin@Home_Lab", Some("admin-home-lab")), ("--", None), ("", None)]
    {
        assert_eq!(cluster_name(known).as_deref(), name, "{known}");
    }
}

/// Lines that the readers look at, put together at random.
fn file() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "clusterName: a",
        "clusterName: [a]",
        "endpoint: x",
        "clusterEndpoint: x",
        "nodesProvider: x",
        "nodes:",
        "nodes: {}",
        "- hostname: a",
        "  - hostname: b",
        "  - host: c",
        "    ip: 10.0.0.1",
        "    ipAddress: 10.0.0.2,,",
        "    role: worker",
        "    controlPlane: true",
        "    userVolumes:",
        "    userVolumes: []",
        "    <<: *a",
        "  - <<: [*a, 5]",
        "    patches: [\"@x\", \"- a\", \"a: [\"]",
        "    patches: [\"kind: UserVolumeConfig\\nname: ${X:-y}\"]",
        "    ipAddress: $X",
        "        encryption: {provider: luks2, keys: [{tpm: {}}, {static: {passphrase: x}}]}",
        "&a controlPlane: {patches: {}}",
        "      - name: v",
        "        volumeType: disk",
        "        provisioning:",
        "          minSize: 1GiB",
        "          maxSize: -5GiB",
        "          diskSelector: {match: 'true'}",
        "        encryption: {}",
        "worker:",
        "  userVolumes: [{name: w}]",
        "---",
        "&a b: *a",
        "\t",
        "? x",
        "\u{feff}",
    ]);
    prop::collection::vec(line, 0..14).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn reading_anything_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,200}", file in file()) {
        let _ = import("x", &bytes, &Alone);
        let _ = import("x", text.as_bytes(), &Alone);
        if let Ok(read) = import("x", file.as_bytes(), &Alone)
            && let Ok(answers) = from_import(&read, None)
        {
            let written = nodeprep::intent::init::text(&Answers { name: "x".into(), ..answers });
            let _ = parse("x", written.as_bytes());
        }
    }

    /// What is answered stays what it is, whatever signs are in it.
    #[test]
    fn answers_are_read_back_as_they_were(serial in "[ -~]{1,20}", about in "\\PC{0,20}", note in ".{0,30}") {
        let matches = format!("disk.serial == {}", serde_json::Value::from(serial));
        let volume = Volume { name: "v".into(), matches: Some(matches.clone()), min_size: Some(Size(1)), ..Volume::default() };
        let nodes = vec![Node { address: "10.0.0.1".into(), about, ..Node::default() }];
        let intent = good(&Answers { name: "x".into(), nodes, volumes: vec![volume], notes: vec![note], ..Answers::default() });
        prop_assert_eq!(&intent.volumes[0].disk.matches, &matches);
        prop_assert_eq!(intent.nodes.len(), 1);
    }
}

/// The exit code, and all that was said.
fn run(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = crate::common::nodeprep(folder).args(args).output().unwrap();
    let all = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&all).into_owned())
}

#[test]
fn the_members_of_a_cluster_and_their_disks_make_a_file_that_can_be_planned() {
    let folder = tempfile::tempdir().unwrap();
    let (code, said) = run(folder.path(), &["init", "--sandbox-nodes", "3"]);
    assert_eq!(code, Some(0), "{said}");
    let written = fs::read_to_string(folder.path().join("nodeprep.yaml")).unwrap();
    let intent = parse("nodeprep.yaml", written.as_bytes()).unwrap();
    assert_eq!(
        intent.nodes.iter().map(|node| &node.address[..]).collect::<Vec<_>>(),
        ["10.5.0.2", "10.5.0.3", "10.5.0.4"]
    );
    let (code, said) = run(folder.path(), &["plan", "--sandbox"]);
    assert!(code == Some(0) && said.contains("formats an empty disk"), "{said}");

    let (code, said) = run(folder.path(), &["init", "--sandbox", "--yes"]);
    assert!(code == Some(5) && said.contains("--force"), "{said}");
    assert_eq!(fs::read_to_string(folder.path().join("nodeprep.yaml")).unwrap(), written);
    let more = [
        "init",
        "--sandbox",
        "--force",
        "--name",
        "lab",
        "--volume",
        "fast",
        "--match",
        "ssd",
        "--min-size",
        "1GiB",
    ];
    let (code, said) = run(folder.path(), &more);
    assert_eq!(code, Some(0), "{said}");
    let intent = parse("x", &fs::read(folder.path().join("nodeprep.yaml")).unwrap()).unwrap();
    let volume = &intent.volumes[0];
    assert_eq!(
        (&intent.metadata.name[..], &volume.name[..], &volume.disk.matches[..]),
        ("lab", "fast", "ssd")
    );
}

#[test]
fn what_is_missing_is_said_when_nobody_can_be_asked() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("topf.yaml"), TOPF).unwrap();
    fs::write(folder.path().join("bad.yaml"), TOPF.replace("192.168.1.11", "a b")).unwrap();
    let alike = "machines:\n  - disks:\n      - {name: nvme0n1, serial: A, size: 1TB}\n      - {name: nvme1n1, serial: B, size: 1TB}\n      \
                 - {name: sda, serial: S, size: 250GB, holds: talos}\n";
    fs::write(folder.path().join("alike.yaml"), alike).unwrap();
    let table: [(&[&str], i32, &[&str]); 6] = [
        (&["init"], 2, &["no nodes are known", "--nodes", "--from"]),
        (&["init", "--from", "gone.yaml"], 2, &["gone.yaml"]),
        (&["init", "--from", "bad.yaml"], 2, &["bad.yaml:9:", "a b"]),
        (&["init", "--nodes", "10.0.0.1"], 2, &["--name"]),
        (&["init", "--sandbox=alike.yaml"], 2, &["nvme0n1 (serial A), nvme1n1 (serial B)", "--match"]),
        (&["init", "--nodes", "10.0.0.1", "--name", "Not_Good"], 2, &["Not_Good"]),
    ];
    for (args, code, words) in table {
        let (found, said) = run(folder.path(), args);
        assert_eq!(found, Some(code), "{args:?}: {said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{args:?}: no `{word}` in: {said}"));
        assert!(!folder.path().join("nodeprep.yaml").exists(), "{args:?}");
    }
    // Without a talosconfig nothing is known of disks; the nodes are.
    let (code, said) = run(folder.path(), &["init", "--from", "topf.yaml"]);
    assert!(code == Some(0) && said.contains("nothing is known of their disks"), "{said}");
    let intent = parse("x", &fs::read(folder.path().join("nodeprep.yaml")).unwrap()).unwrap();
    assert_eq!((&intent.metadata.name[..], intent.nodes.len()), ("my-cluster", 2));
}
