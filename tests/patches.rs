//! The patches for other tools: what is in them, and that they mean what the plan means.
//!
//! The shapes of `tests/golden/patches` are those that the tools' own sources read: postfinance/topf v0.5.0
//! (pkg/config/patches.go), budimanjojo/talhelper v3 (pkg/config/config.go, example/talconfig.yaml), cozystack/talm (README
//! "Apply with side-patches"), siderolabs/talos (configpatcher `LoadPatch`).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use nodeprep::config_doc::ConfigDoc;
use nodeprep::intent::Passphrase;
use nodeprep::intent::import::import;
use nodeprep::model::node::Node;
use nodeprep::plan::machine::{asked, plan};
use nodeprep::plan::patches::{Host, PatchFile, Tool, files};
use nodeprep::plan::{Passphrases, Plan};
use nodeprep::yaml::Value;
use secrecy::{ExposeSecret, SecretString};

use crate::common::{Alone, assert_golden, golden};
use crate::plan_node::bench::{BASE, GIB, Holds, Machine, applied, disk, intent, partitions};

const TOOLS: [(Tool, &str); 4] = [
    (Tool::Talosctl, "talosctl"),
    (Tool::Topf, "topf"),
    (Tool::Talhelper, "talhelper"),
    (Tool::Talm, "talm"),
];

/// Two nodes: one with all that a Talos 1.13 has, one that has not booted yet and gets one volume.
const FILE: &str = r#"
labels: {openebs.io/storage-node: "true", example.com/zone: "1"}
nodes:
  - address: 10.0.0.1
    labels: {example.com/rack: a}
  - address: 10.0.0.2
    ephemeral: {maxSize: 50GiB}
    volumes: {fast: {disk: {match: "serial:A2"}}, secret: null, raw: null, media: null, exec: null}
volumes:
  - {name: fast, disk: {match: "serial:A"}, minSize: 10GiB, grow: true, filesystem: {projectQuota: true}}
  - name: secret
    disk: {match: "serial:C"}
    minSize: 10GiB
    encryption: {keys: [tpm, {static: {file: keys.sops.yaml, key: secret}}]}
  - {name: raw, type: raw, disk: {match: "serial:E"}, minSize: 10GiB, maxSize: 80%, encryption: {keys: [nodeID]}}
  - {name: media, type: existing, disk: {match: "serial:F"}, partition: MEDIA, mount: {readOnly: true}}
  - {name: exec, disk: {match: "serial:K"}, minSize: 10GiB, mount: {secure: false}}
  - {name: scratch, type: directory}
"#;

fn machines() -> [Machine; 2] {
    let blank = |(i, serial): (usize, &str)| disk(&format!("nvme{i}n1"), serial, Holds::Nothing);
    let mut disks: Vec<_> = ["A", "C", "E", "F", "K"].into_iter().enumerate().map(blank).collect();
    disks[3].holds = partitions(&[("MEDIA", "ext4", 50 * GIB)]);
    let mut second = Machine::new(13, &[blank((0, "A2"))]);
    second.disks[1].holds = Holds::Nothing;
    [Machine::new(13, &disks), second]
}

/// The machine as the node with this number.
fn node(machine: &Machine, number: usize) -> Node {
    let (address, name) = (format!("10.0.0.{number}"), format!("n{number}"));
    Node { address, hostname: Ok(Some(name)), ..machine.node() }
}

fn passphrases(text: &str) -> Passphrases {
    let from = Passphrase { file: "keys.sops.yaml".into(), key: "secret".into() };
    [(from, SecretString::from(text))].into()
}

fn hosts(machines: &[Machine], file: &str, passphrase: &str) -> Vec<Host> {
    let (intent, passphrases) = (intent(file), passphrases(passphrase));
    let host = |(machine, number): (&Machine, usize)| {
        let asked = asked(&intent, &node(machine, number), &passphrases).unwrap_or_else(|e| panic!("{e}"));
        Host { name: format!("n{number}"), asked }
    };
    machines.iter().zip(1..).map(host).collect()
}

fn plans(machines: &[Machine], file: &str) -> Vec<Plan> {
    let (intent, passphrases) = (intent(file), passphrases("it's a \"secret\""));
    let plan = |(machine, number)| plan(&intent, &node(machine, number), &passphrases);
    machines.iter().zip(1..).map(|pair| plan(pair).unwrap_or_else(|e| panic!("{e}"))).collect()
}

fn text(file: &PatchFile) -> &str {
    file.text.expose_secret()
}

#[test]
fn each_tool_gets_the_files_that_it_reads() {
    for (tool, name) in TOOLS {
        let folder = golden(&format!("patches/{name}"));
        let found = files(tool, &hosts(&machines(), FILE, "it's a \"secret\""), true).unwrap();
        for file in &found {
            let path = folder.join(&file.path);
            assert_golden(&path, text(file));
            assert_eq!(file.secret, text(file).contains("passphrase:"), "{}", path.display());
        }
        let mut kept = Vec::new();
        walk(&folder, &mut kept);
        assert_eq!(kept.len(), found.len(), "{name}: {kept:?}");
    }
}

fn walk(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

/// What the documents mean, by their names: their order means nothing.
fn values(config: &str) -> BTreeMap<String, Value> {
    let config = ConfigDoc::parse(config).unwrap();
    config.documents().map(|document| (document.id.to_string(), document.root.value())).collect()
}

#[test]
fn a_patch_merged_as_talos_merges_it_is_what_the_plan_applies() {
    let machines = machines();
    let plans = plans(&machines, FILE);
    for (tool, complete) in
        [(Tool::Talosctl, false), (Tool::Talm, false), (Tool::Topf, false), (Tool::Topf, true)]
    {
        let found = files(tool, &hosts(&machines, FILE, "it's a \"secret\""), complete).unwrap();
        for (plan, host) in plans.iter().zip(["n1", "n2"]) {
            let mut config = ConfigDoc::parse(BASE).unwrap();
            // topf merges `all/` before `node/<host>/`.
            let here = found.iter().filter(|file| file.host.as_deref().is_none_or(|of| of == host));
            here.for_each(|file| assert!(config.patch(text(file)).unwrap()));
            let planned = values(applied(plan).unwrap().config.expose_secret());
            assert_eq!(values(config.text()), planned, "{tool:?} {host}");
        }
    }
}

#[test]
fn what_is_in_the_configs_already_is_written_all_the_same() {
    let mut machines = machines();
    let before = hosts(&machines, FILE, "it's a \"secret\"");
    let plans = plans(&machines, FILE);
    for (machine, plan) in machines.iter_mut().zip(&plans) {
        machine.apply(applied(plan).unwrap().config.expose_secret());
    }
    let after = hosts(&machines, FILE, "it's a \"secret\"");
    assert!(after[0].asked.documents.iter().all(|document| document.there));
    for (tool, name) in TOOLS {
        let texts = |hosts: &[Host]| -> Vec<String> {
            files(tool, hosts, true).unwrap().iter().map(|file| text(file).to_owned()).collect()
        };
        assert_eq!(texts(&before), texts(&after), "{name}");
    }
}

#[test]
fn what_a_plan_refuses_is_no_patch_either() {
    let [machine, _] = machines();
    for file in [
        "volumes: [{name: fast, disk: {match: nvme}, minSize: 10GiB}]\n",
        "volumes: [{name: fast, disk: {match: 'serial:F'}, minSize: 10GiB}]\n",
        "labels: {node-role.kubernetes.io/storage: \"\"}\n",
    ] {
        let planned = machine.refuses(file);
        let refused = asked(&intent(file), &machine.node(), &Passphrases::new()).unwrap_err();
        assert_eq!(planned, format!("{} {}", refused.what, refused.hint.unwrap_or_default()), "{file}");
    }
}

#[test]
fn a_disk_that_no_document_can_name_is_refused() {
    let held = || disk("nvme0n1", "", partitions(&[("u-fast", "xfs", 50 * GIB)]));
    let mut machine = Machine::new(13, &[held()]);
    let document = "---\napiVersion: v1alpha1\nkind: UserVolumeConfig\nname: fast\nprovisioning:\n  diskSelector:\n    \
                    match: disk.transport == \"nvme\"\n  minSize: 10GiB\nfilesystem:\n  type: xfs\n";
    machine.config = format!("{BASE}{document}");
    let file = "volumes: [{name: fast, disk: {match: nvme}, minSize: 10GiB}]\n";
    machine.plan(file).unwrap();
    let refused = asked(&intent(file), &machine.node(), &Passphrases::new()).unwrap_err();
    assert!(refused.what.contains("serial or WWID"), "{refused}");
}

#[test]
fn labels_go_where_the_config_keeps_them() {
    let mut machine = Machine::new(14, &[]);
    machine.config =
        format!("{BASE}---\napiVersion: v1alpha1\nkind: KubeNodeConfig\nlabels:\n    example.com/rack: a\n");
    let hosts = hosts(&[machine], "labels: {openebs.io/storage-node: \"true\"}\n", "");
    for (tool, name) in TOOLS {
        let found = files(tool, &hosts, true).unwrap();
        let last = text(found.last().unwrap());
        assert!(
            last.contains("kind: KubeNodeConfig\nlabels:\n  openebs.io/storage-node: \"true\"\n"),
            "{name}: {last}"
        );
        assert!(found.iter().all(|file| !text(file).contains("nodeLabels")), "{name}");
    }
}

#[test]
fn what_a_tool_would_replace_is_refused() {
    for (tool, passphrase, found) in [
        (Tool::Talhelper, "a$b", "`$`"),
        (Tool::Talhelper, "{{ .x }}", "`{{`"),
        (Tool::Topf, "ref+vault://a", "`ref+`"),
    ] {
        let hosts = hosts(&machines(), FILE, passphrase);
        let refused = files(tool, &hosts, false).unwrap_err();
        assert!(refused.what.contains(found) && refused.what.contains("secret"), "{refused}");
        assert!(!refused.what.contains(passphrase), "{refused}");
        files(Tool::Talosctl, &hosts, false).unwrap();
    }
}

#[test]
fn names_that_are_no_files_or_not_unique_are_refused() {
    for names in [["a/b", "c"], ["..", "c"], ["", "c"], ["same", "same"], ["a:b", "a-b"]] {
        let mut hosts = hosts(&machines(), FILE, "x");
        hosts.iter_mut().zip(names).for_each(|(host, name)| host.name = name.into());
        assert!(files(Tool::Topf, &hosts, false).is_err(), "{names:?}");
    }
}

#[test]
fn what_talhelper_is_given_reads_as_its_own_file() {
    let found = files(Tool::Talhelper, &hosts(&machines(), FILE, "x"), true).unwrap();
    let read = import("talconfig.yaml", text(&found[0]).as_bytes(), &Alone).unwrap();
    let volumes: Vec<_> =
        read.machines.iter().map(|machine| (&machine.addresses[0][..], &machine.volumes[..])).collect();
    let [("10.0.0.1", [fast, scratch]), ("10.0.0.2", [other, _])] = volumes[..] else {
        panic!("{volumes:?}")
    };
    assert_eq!((fast.matches.as_deref(), fast.quota), (Some("disk.serial == \"A\""), Some(true)));
    assert_eq!(other.matches.as_deref(), Some("disk.serial == \"A2\""));
    assert_eq!((&scratch.name[..], scratch.kind.unwrap().name()), ("scratch", "directory"));
}

fn run(folder: &Path, args: &[&str]) -> Output {
    crate::common::nodeprep(folder).args(args).output().unwrap()
}

#[test]
fn files_are_written_for_their_owner_alone_and_never_over_others() {
    let folder = tempfile::tempdir().unwrap();
    let patches = ["patches", "--sandbox-nodes", "2", "--for", "topf", "--out", "out"];
    let (ok, stdout) = said(&run(folder.path(), &patches));
    assert!(ok == Some(0) && stdout.contains("wrote out/node/") && stdout.contains("simulated"), "{stdout}");
    let mut found = Vec::new();
    walk(&folder.path().join("out"), &mut found);
    assert_eq!(found.len(), 2, "{found:?}");
    for path in &found {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    let (ok, stdout) = said(&run(folder.path(), &patches));
    assert!(ok == Some(0) && stdout.matches("unchanged").count() == 2, "{stdout}");

    found.sort();
    fs::remove_file(&found[0]).unwrap();
    fs::write(&found[1], "mine").unwrap();
    let (refused, said_so) = said(&run(folder.path(), &patches));
    assert!(refused == Some(5) && said_so.contains("--force"), "{said_so}");
    assert!(!found[0].exists(), "a part was written");
    assert_eq!(fs::read_to_string(&found[1]).unwrap(), "mine");
    let (ok, stdout) = said(&run(folder.path(), &[&patches[..], &["--force"]].concat()));
    assert!(ok == Some(0) && stdout.matches("wrote").count() == 2, "{stdout}");
}

#[test]
fn a_config_that_is_kept_gets_what_the_file_asks_and_nothing_else_in_it_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n1.yaml");
    let own = format!("# mine\n{BASE}");
    fs::write(&path, &own).unwrap();
    let onto = ["patches", "--sandbox-nodes", "2", "--onto", "n1.yaml"];
    let (code, several) = said(&run(folder.path(), &onto));
    assert!(
        code == Some(2) && several.contains("the file lists 2") && several.contains("--nodes"),
        "{several}"
    );
    let onto = [&onto[..], &["--nodes", "10.5.0.3"]].concat();
    let (code, stdout) = said(&run(folder.path(), &onto));
    assert!(
        code == Some(0) && stdout.contains("wrote n1.yaml") && stdout.contains("+name: openebs"),
        "{stdout}"
    );
    let written = fs::read_to_string(&path).unwrap();
    let kept = |line: &&str| !written.lines().any(|there| there == *line);
    assert_eq!(own.lines().find(kept), None, "{written}");
    assert!(written.contains("disk.serial == ") && written.contains("openebs.io/storage-node"), "{written}");
    let (code, stdout) = said(&run(folder.path(), &onto));
    assert!(code == Some(0) && stdout.contains("unchanged n1.yaml"), "{stdout}");
    fs::write(&path, "machine: [\n").unwrap();
    let (code, broken) = said(&run(folder.path(), &onto));
    assert!(code == Some(2) && broken.contains("n1.yaml"), "{broken}");
    let (code, _) = said(&run(folder.path(), &[&onto[..], &["--for", "topf"]].concat()));
    assert_eq!(code, Some(2));
}

/// The exit code, and all that was said.
fn said(output: &Output) -> (Option<i32>, String) {
    let all = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&all).into_owned())
}

#[test]
fn nodes_are_called_what_the_tools_own_file_calls_them() {
    let folder = tempfile::tempdir().unwrap();
    let topf = |second: &str| {
        format!(
            "clusterEndpoint: https://10.5.0.2:6443\nclusterName: x\nnodes:\n  - {{host: one.example, ip: 10.5.0.2, role: control-plane}}\n  \
             - {{host: two.example, ip: {second}, role: worker}}\n"
        )
    };
    let write = |second| fs::write(folder.path().join("topf.yaml"), topf(second)).unwrap();
    let patches = ["patches", "--sandbox-nodes", "2", "--for", "topf", "--out", "."];
    write("10.5.0.3");
    let (ok, stdout) = said(&run(folder.path(), &patches));
    assert!(ok == Some(0) && stdout.contains("node/two.example/50-nodeprep.yaml"), "{stdout}");
    // Labels are alike on both, and topf has no other nodes.
    assert!(stdout.contains("all/50-nodeprep.yaml"), "{stdout}");
    write("10.9.9.9");
    let (refused, said_so) = said(&run(folder.path(), &patches));
    assert!(refused == Some(2) && said_so.contains("10.5.0.3") && said_so.contains("topf.yaml"), "{said_so}");
}
