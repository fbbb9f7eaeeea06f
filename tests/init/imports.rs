//! Files of talhelper and topf mean here what they mean to those tools, and nothing of a volume is lost without a word.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nodeprep::error::{Error, Result};
use nodeprep::intent::import::{Around, Import, import};
use nodeprep::intent::init::{Answers, from_import, text};
use nodeprep::intent::{EncryptionKey, Intent, MaxSize, Size, VolumeType, parse};

use super::run;

const HEAD: &str = "clusterName: c\nendpoint: https://10.0.0.1:6443\n";
const NVME: &str = "diskSelector: {match: disk.transport == \"nvme\"}";

/// Files and variables around the file that is read.
#[derive(Default)]
struct Fake {
    files: BTreeMap<&'static str, String>,
    variables: BTreeMap<&'static str, &'static str>,
}

impl Around for Fake {
    fn read(&self, path: &str) -> Result<Option<String>> {
        match self.files.get(path) {
            Some(text) if text == "locked" => Err(Error::invalid("no key fits")),
            found => Ok(found.cloned()),
        }
    }

    fn list(&self, folder: &str) -> Vec<String> {
        let inside = |path: &&&str| path.starts_with(&format!("{folder}/"));
        self.files.keys().filter(inside).map(|path| (*path).to_owned()).collect()
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|value| (*value).to_owned())
    }
}

fn fake(files: &[(&'static str, &str)], variables: &[(&'static str, &'static str)]) -> Fake {
    Fake {
        files: files.iter().map(|(path, text)| (*path, (*text).to_owned())).collect(),
        variables: variables.iter().copied().collect(),
    }
}

fn read(text: &str, around: &Fake) -> Import {
    import("talconfig.yaml", text.as_bytes(), around).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The file that is written, and the one that nodeprep reads in it.
fn written(import: &Import) -> (String, Intent) {
    let answers = from_import(import, None).unwrap_or_else(|e| panic!("{e}"));
    let text = text(&Answers { name: "c".into(), ..answers });
    let intent = parse("out.yaml", text.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{text}"));
    (text, intent)
}

/// The names of the volumes on each node, by the end of its address.
fn volumes(talconfig: &str, around: &Fake) -> Vec<(String, Vec<String>)> {
    let import = read(&format!("{HEAD}{talconfig}"), around);
    let names = |machine: &nodeprep::intent::import::Machine| {
        machine.volumes.iter().map(|volume| volume.name.clone()).collect()
    };
    import.machines.iter().map(|machine| (machine.name.clone(), names(machine))).collect()
}

#[test]
fn a_node_has_its_own_volumes_or_those_of_its_group() {
    let volume = |name: &str| format!("[{{name: {name}, provisioning: {{{NVME}, minSize: 50GB}}}}]");
    let groups = format!(
        "controlPlane: {{userVolumes: {}}}\nworker: {{userVolumes: {}}}\n",
        volume("cp"),
        volume("w")
    );
    let table: Vec<(String, &[&str])> = vec![
        // An empty list opts out; null does not.
        ("userVolumes: []".into(), &[]),
        ("userVolumes:".into(), &["w"]),
        ("userVolumes: ~".into(), &["w"]),
        (format!("userVolumes: {}", volume("own")), &["own"]),
        // Booleans as go-yaml reads them into one.
        ("controlPlane: True".into(), &["cp"]),
        ("controlPlane: TRUE".into(), &["cp"]),
        ("controlPlane: yes".into(), &["cp"]),
        ("controlPlane: Y".into(), &["cp"]),
        ("controlPlane: \"on\"".into(), &["cp"]),
        ("controlPlane: off".into(), &["w"]),
        ("controlPlane: No".into(), &["w"]),
        ("controlPlane: ~".into(), &["w"]),
        ("controlPlane: ${IS_CP}".into(), &["cp"]),
        // Merge keys: what is the node's own wins, then the first of several.
        ("<<: *x".into(), &["x"]),
        (format!("<<: *x\n    userVolumes: {}", volume("own")), &["own"]),
        ("<<: [*y, *x]".into(), &["y"]),
        ("<<: *z".into(), &["x"]),
        ("\"<<\": *x".into(), &["w"]),
    ];
    let anchors = format!(
        "x: &x {{userVolumes: {}}}\ny: &y {{userVolumes: {}}}\nz: &z {{<<: *x}}\n",
        volume("x"),
        volume("y")
    );
    let around = fake(&[], &[("IS_CP", "true")]);
    for (line, expected) in table {
        let node =
            format!("{anchors}{groups}nodes:\n  - hostname: a\n    ipAddress: 10.0.0.11\n    {line}\n");
        assert_eq!(volumes(&node, &around)[0].1, expected, "{line}");
    }
}

#[test]
fn all_that_nodeprep_can_say_of_a_volume_is_carried_over() {
    let talconfig = format!(
        "{HEAD}nodes:\n  - hostname: a\n    ipAddress: 10.0.0.11\n    userVolumes:\n      - name: data\n        \
         provisioning: {{{NVME}, minSize: 50GB, maxSize: 12.5%, grow: yes}}\n        \
         filesystem: {{type: ext4, projectQuotaSupport: off}}\n        mount: {{secure: no, disableAccessTime: true}}\n        \
         trim: {{enabled: true, interval: 168h}}\n        \
         encryption:\n          provider: luks2\n          keys:\n            - {{slot: 1, kms: {{endpoint: \"https://k:4443\"}}}}\n            \
         - {{slot: 0, tpm: {{}}}}\n            - {{slot: 2, nodeID: {{}}, lockToState: false}}\n            \
         - {{slot: 3, static: {{passphrase: top secret}}}}\n      - {{name: whole, volumeType: disk, provisioning: {{{NVME}}}}}\n      \
         - {{name: dir, volumeType: directory}}\n"
    );
    let import = read(&talconfig, &Fake::default());
    let (text, intent) = written(&import);
    let data = &intent.volumes[0];
    assert_eq!((data.min_size, data.grow), (Some(Size(50_000_000_000)), Some(true)));
    assert_eq!(data.max_size, Some(MaxSize::parse("12.5%").unwrap()));
    assert!(text.contains("minSize: 50GB\n") && text.contains("12.5%"), "{text}");
    assert_eq!((data.mount.secure, data.mount.disable_access_time), (Some(false), Some(true)));
    assert_eq!(data.filesystem.kind.name(), "ext4");
    assert_eq!(data.trim.unwrap().0, 168 * 3600);
    let keys = &data.encryption.as_ref().unwrap().keys;
    let [EncryptionKey::Tpm, EncryptionKey::Kms(kms), EncryptionKey::NodeId, EncryptionKey::Static(from)] =
        &keys[..]
    else {
        panic!("{keys:?}")
    };
    assert_eq!((&kms.endpoint[..], &from.key[..]), ("https://k:4443", "data-3"));
    assert!(!text.contains("top secret") && !format!("{import:?}").contains("top secret"));
    assert_eq!((intent.volumes[1].kind, intent.volumes[2].kind), (VolumeType::Disk, VolumeType::Directory));
    assert!(import.notes.is_empty(), "{:?}", import.notes);
}

#[test]
fn what_is_not_carried_over_is_named_with_its_line() {
    let talconfig = format!(
        "{HEAD}nodes:\n  - hostname: a\n    ipAddress: 10.0.0.11\n    userVolumes:\n      - name: data\n        \
         provisioning: {{{NVME}, minSize: 50GiB}}\n        filesystem: {{xfs: {{minAllocationGroupSize: 1GiB}}}}\n        \
         encryption: {{provider: luks2, cipher: aes, keys: [{{slot: 0, tpm: {{}}}}]}}\n        colour: blue\n    \
         volumes:\n      - name: EPHEMERAL\n        provisioning: {{maxSize: 50GiB}}\n    \
         machineDisks:\n      - {{device: /dev/sdb, partitions: [{{mountpoint: /var/lib/x}}]}}\n"
    );
    let import = read(&talconfig, &Fake::default());
    let (text, _) = written(&import);
    for word in
        ["filesystem.xfs", "encryption.cipher", "colour", "EPHEMERAL", "/dev/sdb, mounted at /var/lib/x"]
    {
        let note = import.notes.iter().find(|note| note.contains(word));
        assert!(note.is_some_and(|note| note.starts_with("talconfig.yaml:")), "{word}: {:?}", import.notes);
        assert!(text.lines().any(|line| line.starts_with('#') && line.contains(word)), "{word}\n{text}");
    }
}

#[test]
fn what_would_be_a_weaker_or_another_volume_is_refused_with_its_place() {
    let keys = |keys: &str| format!("encryption: {{provider: luks2, keys: [{keys}]}}");
    let table: Vec<(String, &str)> = vec![
        (keys("{slot: 0, tpm: {options: {pcrs: [7]}}}"), "can't ask for this"),
        (keys("{slot: 0, tpm: {}, lockToState: true}"), "can't ask for this"),
        (keys("{slot: 0, tpm: {}, nodeID: {}}"), "two keys"),
        (keys("{slot: 1, tpm: {}}"), "slots"),
        (keys("{slot: 0}"), "without a key"),
        (keys("{slot: 0, static: {}}"), "without `passphrase`"),
        (keys(""), "without keys"),
        ("encryption: {keys: [{slot: 0, tpm: {}}]}".into(), "provider"),
        ("encryption: yes".into(), "is no map"),
        ("filesystem: {type: btrfs}".into(), "btrfs"),
        ("filesystem: {projectQuotaSupport: maybe}".into(), "neither true nor false"),
        ("volumeType: tape".into(), "tape"),
        ("provisioning: {minSize: 1GiBBB}".into(), "1GiBBB"),
    ];
    for (line, word) in table {
        let text = format!(
            "{HEAD}nodes:\n  - hostname: a\n    ipAddress: 10.0.0.11\n    userVolumes:\n      - name: data\n        {line}\n"
        );
        let error = import("talconfig.yaml", text.as_bytes(), &Fake::default()).unwrap_err();
        assert!(
            error.what.starts_with("talconfig.yaml:7:") || error.what.starts_with("talconfig.yaml:8:"),
            "{line}: {error}"
        );
        assert!(error.what.contains(word), "{line}: {error}");
        assert_eq!(error.kind.exit_code(), 2, "{error}");
    }
    // A volume has one encryption on all nodes.
    let node = |name: &str, n: u8, more: &str| {
        format!(
            "  - {{hostname: {name}, ipAddress: 10.0.0.{n}, userVolumes: [{{name: d, provisioning: {{{NVME}, minSize: 1GiB}}{more}}}]}}\n"
        )
    };
    let plain = node("a", 1, "");
    let locked = node("b", 2, ", encryption: {provider: luks2, keys: [{slot: 0, nodeID: {}}]}");
    let both = read(&format!("{HEAD}nodes:\n{plain}{locked}"), &Fake::default());
    let error = from_import(&both, None).unwrap_err();
    assert!(error.what.contains("talconfig.yaml:5:") && error.what.contains("b than on a"), "{error}");
}

#[test]
fn volumes_in_patches_are_found_and_merged_as_talos_does() {
    let document = |name: &str, more: &str| {
        format!(
            "apiVersion: v1alpha1\nkind: UserVolumeConfig\nname: {name}\nprovisioning: {{{NVME}, minSize: 100GiB}}\n{more}"
        )
    };
    let indented = |text: &str| text.lines().map(|line| format!("        {line}\n")).collect::<String>();
    let files = [
        ("p/data.yaml", document("data", "")),
        ("p/two.yaml", format!("machine: {{}}\n---\n{}", document("two", "mount: {secure: false}\n"))),
        (
            "p/size.yaml",
            "apiVersion: v1alpha1\nkind: UserVolumeConfig\nname: data\nprovisioning:\n  minSize: ${LEAST}\n"
                .into(),
        ),
        ("p/gone.yaml", "apiVersion: v1alpha1\nkind: UserVolumeConfig\nname: two\n$$patch: delete\n".into()),
        ("p/raw.yaml", document("raw", "").replace("UserVolumeConfig", "RawVolumeConfig")),
        ("p/disks.yaml", "machine:\n  disks:\n    - device: /dev/sdc\n".into()),
        ("p/json.yaml", "- op: add\n  path: /machine/disks\n  value: []\n".into()),
        ("p/locked.sops.yaml", "locked".into()),
        ("p/template.yaml", "machine: {nodeLabels: {a: '{{ .MachineConfig }}'}}\n".into()),
        ("p/ephemeral.yaml", "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\n".into()),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let around = fake(&files, &[("LEAST", "20GiB")]);
    let talconfig = format!(
        "{HEAD}patches:\n  - \"@p/disks.yaml\"\n  - \"@p/json.yaml\"\n  - \"@p/locked.sops.yaml\"\n  - \"@p/template.yaml\"\n  \
         - \"@p/nowhere.yaml\"\n  - \"@p/ephemeral.yaml\"\n\
         worker:\n  patches:\n    - \"@ p/data.yaml\"\n    - \"@p/two.yaml\"\nnodes:\n  - hostname: a\n    ipAddress: 10.0.0.11\n    \
         patches:\n      - \"@p/size.yaml\"\n  - hostname: b\n    ipAddress: 10.0.0.12\n    overridePatches: true\n    patches:\n      - |-\n{}  \
         - hostname: c\n    ipAddress: 10.0.0.13\n    patches: [\"@p/gone.yaml\", \"@p/raw.yaml\"]\n",
        indented(&document("inline", ""))
    );
    let import = read(&talconfig, &around);
    let names: Vec<Vec<&str>> =
        import.machines.iter().map(|m| m.volumes.iter().map(|v| v.name.as_str()).collect()).collect();
    assert_eq!(names, [vec!["data", "two"], vec!["inline"], vec!["data", "raw"]]);
    assert_eq!(import.machines[0].volumes[0].min_size, Some(Size(20 << 30)));
    assert_eq!(import.machines[0].volumes[1].mount.secure, Some(false));
    assert_eq!(import.machines[2].volumes[1].kind, Some(VolumeType::Raw));
    for word in [
        "/dev/sdc",
        "JSON patch",
        "locked.sops.yaml was not looked at: no key fits",
        "template",
        "nowhere",
        "EPHEMERAL",
    ] {
        let found: Vec<_> = import.notes.iter().filter(|note| note.contains(word)).collect();
        assert_eq!(found.len(), 1, "{word}: {:?}", import.notes);
    }
    let (_, intent) = written(&import);
    assert_eq!(intent.on("10.0.0.13").volumes.len(), 2);
}

#[test]
fn topfs_patch_folders_are_looked_through() {
    let document = |name: &str, disk: &str| {
        format!(
            "apiVersion: v1alpha1\nkind: UserVolumeConfig\nname: {name}\nprovisioning: {{diskSelector: {{match: 'disk.dev_path == \"{disk}\"'}}, maxSize: 50GiB}}\n"
        )
    };
    let all = document("data", "/dev/sda");
    let of_node = document("data", "{{ .Node.Data.disk }}");
    let role = document("fast", "/dev/nvme0n1");
    let around = fake(
        &[
            ("talos/all/10-data.yaml", &all),
            ("talos/all/README.md", "# not a patch"),
            ("talos/all/20-empty.yaml", "# nothing\n"),
            ("talos/worker/10-fast.yml", &role),
            ("talos/node/w1/50-data.yaml.tpl", &of_node),
            ("talos/node/w1/60-odd.yaml.tpl", "{{ if .Data.x }}a: b{{ end }}"),
        ],
        &[],
    );
    let topf = "clusterName: c\nclusterEndpoint: https://x:6443\npatchesDir: talos\nnodes:\n  - {host: cp1, ip: 10.0.0.1, role: control-plane}\n  \
                - {host: w1, ip: 10.0.0.2, role: worker, data: {disk: /dev/sdb}}\n";
    let import = import("topf.yaml", topf.as_bytes(), &around).unwrap();
    let disks = |i: usize| -> Vec<(&str, &str)> {
        import.machines[i].volumes.iter().map(|v| (&v.name[..], v.matches.as_deref().unwrap())).collect()
    };
    assert_eq!(disks(0), [("data", "disk.dev_path == \"/dev/sda\"")]);
    assert_eq!(
        disks(1),
        [("data", "disk.dev_path == \"/dev/sdb\""), ("fast", "disk.dev_path == \"/dev/nvme0n1\"")]
    );
    assert!(
        import.notes.iter().any(|note| note.contains("60-odd.yaml.tpl was not looked at")),
        "{:?}",
        import.notes
    );
    let (_, intent) = written(&import);
    // What is invented is not above what is said.
    assert_eq!(intent.volumes[0].min_size, Some(Size(50 << 30)));

    for (from, to, word) in [
        ("worker,", "wroker,", "control-plane or worker"),
        ("patchesDir", "configDir", "patchesDir"),
        ("10.0.0.2", "10.0.0.1", "cp1 has this address too"),
    ] {
        let error = nodeprep::intent::import::import("topf.yaml", topf.replace(from, to).as_bytes(), &around)
            .unwrap_err();
        let said = format!("{} {}", error.what, error.hint.clone().unwrap_or_default());
        assert!(said.starts_with("topf.yaml:") && said.contains(word), "{said}");
    }
}

#[test]
fn variables_come_from_the_environment_and_from_talenv_files() {
    let talconfig = format!(
        "{HEAD}# ${{NOBODY}}\ndomain: ${{UNSET}}\nnodes:\n  - hostname: ${{NAME:-a}}\n    ipAddress: $IP\n    userVolumes:\n      \
         - name: d\n        provisioning:\n          {NVME}\n          minSize: ${{SIZE}}\n"
    );
    let around = fake(
        &[("talenv.yaml", "---\n# sizes\nSIZE: 20GiB\nIP: \"10.0.0.9\" # x\n")],
        &[("IP", "10.0.0.1"), ("SIZE", "1GiB")],
    );
    let machine = &read(&talconfig, &around).machines[0];
    assert_eq!((&machine.name[..], &machine.addresses[..]), ("a", &["10.0.0.9".to_owned()][..]));
    assert_eq!(machine.volumes[0].min_size, Some(Size(20 << 30)));
    let error =
        import("talconfig.yaml", talconfig.as_bytes(), &fake(&[], &[("IP", "10.0.0.1")])).unwrap_err();
    assert!(
        error.what.contains("talconfig.yaml:12:") && error.what.contains("`${SIZE}` is not set"),
        "{error}"
    );
    let locked = fake(&[("talenv.sops.yaml", "locked")], &[("IP", "10.0.0.1"), ("SIZE", "1GiB")]);
    assert!(read(&talconfig, &locked).notes[0].contains("talenv.sops.yaml was not looked at: no key fits"));
}

#[test]
fn sizes_and_nodes_that_contradict_each_other_are_told_of_the_file_that_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let node = |n: u8, sizes: &str| {
        format!(
            "  - {{hostname: n{n}, ipAddress: 10.0.0.{n}, userVolumes: [{{name: data, provisioning: {{{NVME}, {sizes}}}}}]}}\n"
        )
    };
    let table: Vec<(String, i32, &str, &[&str])> = vec![
        (node(1, "maxSize: 50GiB"), 0, "minSize: 50GiB", &["no minSize there"]),
        (node(1, "minSize: 1.8TB, maxSize: 2TB"), 0, "minSize: 1.8TB\n    maxSize: 2TB", &[]),
        (node(1, "minSize: 0.5TB, maxSize: \"-10%\""), 0, "minSize: 500GB\n    maxSize: ", &[]),
        (node(1, "minSize: \"1,000GB\""), 0, "minSize: 1TB", &[]),
        (node(1, "minSize: 100gb") + &node(2, "maxSize: 20GiB"), 0, "minSize: 20GiB", &[]),
        (
            node(1, "minSize: 50GiB, maxSize: 10GiB"),
            2,
            "",
            &["talconfig.yaml: maxSize is smaller than minSize 50GiB"],
        ),
        (node(1, "minSize: 1GiB, maxSize: 0.5%"), 2, "", &["talconfig.yaml: maxSize is nothing"]),
        (
            node(1, "minSize: 1GiB") + &node(1, "minSize: 1GiB"),
            2,
            "",
            &["talconfig.yaml:5:", "n1 has this address too"],
        ),
    ];
    for (nodes, code, wanted, words) in table {
        fs::write(folder.path().join("talconfig.yaml"), format!("{HEAD}nodes:\n{nodes}")).unwrap();
        let (found, said) =
            run(folder.path(), &["init", "--from", "talconfig.yaml", "-y", "-f", "out.yaml", "--force"]);
        assert_eq!(found, Some(code), "{nodes}{said}");
        let text = fs::read_to_string(folder.path().join("out.yaml")).unwrap_or_default();
        assert!(text.contains(wanted), "{nodes}{text}");
        assert!(words.iter().all(|word| said.contains(word) || text.contains(word)), "{nodes}{said}{text}");
        assert!(code == 0 || !said.contains("out.yaml"), "{said}");
        let _ = fs::remove_file(folder.path().join("out.yaml"));
    }
}

/// Every folder of `tests/init/files` holds another tool's file, with what belongs to it.
#[test]
fn every_file_of_people_becomes_a_file_that_can_be_planned() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/init/files");
    let mut count = 0;
    for entry in fs::read_dir(files).unwrap() {
        let from = entry.unwrap().path();
        let own = ["talconfig.yaml", "topf.yaml"].into_iter().find(|name| from.join(name).exists()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = from.join(own).display().to_string();
        let (code, said) = run(folder.path(), &["init", "--from", &file, "-y"]);
        assert_eq!(code, Some(0), "{file}: {said}");
        let text = fs::read(folder.path().join("nodeprep.yaml")).unwrap();
        let intent = parse("nodeprep.yaml", &text).unwrap_or_else(|e| panic!("{file}: {e}"));
        let own = fs::read_to_string(from.join(own)).unwrap();
        let names = own.matches("hostname:").count() + own.matches("- host:").count();
        assert_eq!(intent.nodes.len(), names, "{file}");
        let (code, said) = run(folder.path(), &["plan", "--sandbox"]);
        // What is planned depends on the simulated disks; that the file is taken does not.
        assert!(matches!(code, Some(0 | 5)), "{file}: {code:?} {said}");
        count += 1;
    }
    assert!(count >= 6, "{count}");
}
