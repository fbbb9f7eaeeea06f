//! What can be known before anything is done is said then: all of it at once, with the command that helps.

use std::collections::BTreeMap;

use nodeprep::error::{Error, Kind};
use nodeprep::plan::foreseen::selector;
use nodeprep::plan::machine::plan_all;
use nodeprep::plan::{Passphrases, Plan};

use super::bench::{Disk, GIB, Holds, Machine, disk, intent, partitions};

fn nvme(serials: &[&str]) -> Vec<Disk> {
    (0..).zip(serials).map(|(i, serial)| disk(&format!("nvme{i}n1"), serial, Holds::Nothing)).collect()
}

fn planned(machine: &Machine, file: &str) -> Result<Plan, Error> {
    plan_all(&intent(file), &[machine.node()], &Passphrases::new())
}

fn refused(machine: &Machine, file: &str) -> String {
    let error = planned(machine, file).expect_err("a refusal");
    assert_eq!(error.kind, Kind::Refused, "{error}");
    format!("{} {}", error.what, error.hint.unwrap_or_default())
}

const VOLUME: &str = "volumes:\n  - {name: a, disk: {match: disk.serial == \"A\"}, minSize: 10GiB}\n";

#[test]
fn a_class_lies_on_a_volume_or_is_refused() {
    let class = |path: &str, provisioner: &str| {
        format!("{VOLUME}provisioner: {provisioner}\nclasses: [{{name: c, basePath: {path}}}]\n")
    };
    let external = "{external: {name: x.y/z, namespace: n, selector: {app: z}}}";
    let extra =
        "        extraMounts:\n            - {destination: /var/local/x, type: bind, source: /var/local/x}\n";
    let other = "---\napiVersion: v1alpha1\nkind: UserVolumeConfig\nname: other\n";
    for (name, path, provisioner, config, words) in [
        ("on the volume", "/var/mnt/a", "{openebs: {}}", "", Ok(0)),
        ("below it", "/var/mnt/a/b", "{openebs: {}}", "", Ok(0)),
        ("on no volume", "/var/mnt/b", "{openebs: {}}", "", Err("lies on no volume of the file")),
        ("beside it", "/var/mnt/ab", "{openebs: {}}", "", Err("write basePath: /var/mnt/a")),
        ("elsewhere", "/var/local/x", "{openebs: {}}", "", Err("does not see it on 10.0.0.1")),
        ("shown to the kubelet", "/var/local/x/y", "{openebs: {}}", extra, Ok(1)),
        ("beside what is shown", "/var/local/xy", "{openebs: {}}", extra, Err("lies on no volume")),
        ("of another's config", "/var/mnt/other", "{openebs: {}}", other, Ok(0)),
        ("somebody else's class", "/opt/local/x", external, "", Ok(1)),
    ] {
        let mut machine = Machine::new(11, &nvme(&["A"]));
        machine.config = match config {
            other if other.starts_with("---") => format!("{}{other}", machine.config),
            extra => machine.config.replacen("    kubelet:\n", &format!("    kubelet:\n{extra}"), 1),
        };
        match (planned(&machine, &class(path, provisioner)), words) {
            (Ok(plan), Ok(warnings)) => {
                let said = plan.warnings.iter().filter(|said| said.contains("class c")).count();
                assert_eq!(said, warnings, "{name}: {:?}", plan.warnings);
            }
            (Err(error), Err(words)) => {
                let said = format!("{} {}", error.what, error.hint.unwrap_or_default());
                assert!(error.kind == Kind::Refused && said.contains(words), "{name}: {said}");
            }
            (result, _) => panic!("{name}: {result:?}"),
        }
    }
    let nobody = format!("nodes: []\n{}", class("/var/mnt/b", "{openebs: {}}"));
    plan_all(&intent(&nobody), &[], &Passphrases::new()).expect("nothing can be known");
}

#[test]
fn all_that_stands_in_the_way_is_said_at_once_with_what_helps() {
    let file = "labels: {node-role.kubernetes.io/x: a}\nvolumes:\n  \
        - {name: a, disk: {match: disk.serial == \"A\"}, minSize: 10GiB}\n  \
        - {name: b, type: disk, disk: {match: disk.serial == \"B\"}, trim: 24h, scrub: 24h}\n  \
        - {name: c, disk: {match: disk.serial == \"C\"}, minSize: 10GiB}\n  \
        - {name: d, disk: {match: system_disk}, minSize: 10GiB}\n  \
        - {name: e, disk: {match: disk.serial == \"E\"}, minSize: 10GiB}\n";
    let mut machine = Machine::new(11, &nvme(&["A", "B", "C"]));
    machine.disks[0].holds = Holds::Whole("ext4".into());
    machine.disks[2].holds = partitions(&[("u-c", "xfs", 50 * GIB)]);
    let said = refused(&machine, file);
    for words in [
        "`nodeprep wipe --nodes 10.0.0.1 --disk nvme0n1 --wipe-disk A`",
        "volume b: Talos v1.11.5 has no volumes of type disk",
        "volume b: Talos v1.11.5 has no trim",
        "volume b: Talos v1.11.5 has no scrub",
        "`nodeprep wipe --nodes 10.0.0.1 --volume c --wipe-disk C`",
        "volume d: sda",
        "no disk matches `disk.serial == \"E\"`",
        "node-role.kubernetes.io/x",
    ] {
        assert!(said.contains(words), "no {words:?} in: {said}");
    }
    assert!(!said.contains("--wipe-disk SYS"), "{said}");
}

#[test]
fn a_volume_with_a_new_name_does_not_hide_the_old_one() {
    let renamed = VOLUME.replace("name: a", "name: b");
    let mut machine = Machine::new(11, &nvme(&["A", "B"]));
    let config = machine.config_of(VOLUME);
    machine.apply(&config);
    let said = refused(&machine, &renamed);
    let command = "`nodeprep remove --nodes 10.0.0.1 --volume a --wipe-disk A`";
    assert!(said.contains("a volume can't be renamed") && said.contains(command), "{said}");
    // It goes to another disk, and the old one stays.
    let plan = planned(&machine, &renamed.replace("\"A\"", "\"B\"")).expect("a plan");
    let said = plan.warnings.concat();
    assert!(
        said.contains("volume a is there and not in the file") && said.contains("nodeprep remove --volume a"),
        "{said}"
    );
    assert!(planned(&machine, VOLUME).expect("a plan").warnings.is_empty(), "nothing is new");
}

#[test]
fn pods_that_no_node_takes_are_refused() {
    let file = |selector: &str, labels: &str| {
        format!("labels: {labels}\nprovisioner: {{openebs: {{nodeSelector: {selector}}}}}\n")
    };
    let mut machine = Machine::new(11, &nvme(&["A"]));
    machine.labels = BTreeMap::from([("arch".to_owned(), "amd64".to_owned())]);
    for (name, selector_of, labels, met, refused) in [
        ("the file gives it", "{x: \"1\"}", "{x: \"1\"}", false, false),
        ("the node has it", "{arch: amd64}", "{}", false, false),
        ("both", "{arch: amd64, x: \"1\"}", "{x: \"1\"}", false, false),
        ("another value", "{x: \"1\"}", "{x: \"2\"}", false, true),
        ("nobody", "{y: \"1\"}", "{x: \"1\"}", false, true),
        ("a node that is not in the file", "{y: \"1\"}", "{x: \"1\"}", true, false),
        ("none is wanted", "{}", "{}", false, false),
    ] {
        let found = selector(&intent(&file(selector_of, labels)), &[machine.node()], met);
        assert_eq!(
            found.as_ref().map(|error| error.kind),
            refused.then_some(Kind::Refused),
            "{name}: {found:?}"
        );
    }
    let mut unknown = machine.node();
    unknown.labels = Ok(None);
    assert!(selector(&intent(&file("{y: \"1\"}", "{}")), &[unknown], false).is_none(), "it may have it");
}

#[test]
fn a_raw_volume_of_all_but_so_much_is_refused_since_talos_takes_that_for_its_size() {
    let file = |kind: &str| {
        format!(
            "volumes:\n  - {{name: a, type: {kind}, disk: {{match: disk.serial == \"A\"}}, minSize: 1GiB, maxSize: -1GiB}}\n"
        )
    };
    let machine = Machine::new(13, &nvme(&["A"]));
    assert!(refused(&machine, &file("raw")).contains("-1GiB as its size"));
    planned(&machine, &file("partition")).expect("a plan");
}
