//! Several volumes on one node: which disk each is given, what they may share, what is adopted.

use nodeprep::plan::Risk;

use super::bench::{Disk, GIB, Holds, Machine, applied, disk, partitions};

fn nvme(serials: &[&str]) -> Vec<Disk> {
    (0..).zip(serials).map(|(i, serial)| disk(&format!("nvme{i}n1"), serial, Holds::Nothing)).collect()
}

/// Name and disk of what the plan approves.
fn approved(machine: &Machine, file: &str) -> Vec<(String, String)> {
    let plan = machine.plan(file).unwrap_or_else(|e| panic!("{e}"));
    applied(&plan).unwrap().disks.iter().map(|disk| (disk.volume.clone(), disk.name.clone())).collect()
}

const TWO: &str = r#"
volumes:
  - {name: openebs-nvme-fast, disk: {match: disk.serial == "A"}, minSize: 10GiB}
  - {name: openebs-ssd, disk: {match: disk.serial == "B"}, minSize: 10GiB}
"#;

#[test]
fn each_volume_gets_its_own_disk_and_a_node_may_have_others() {
    let machine = Machine::new(11, &nvme(&["A", "B", "C"]));
    let pairs = |of: &[(&str, &str)]| -> Vec<(String, String)> {
        of.iter().map(|(volume, disk)| ((*volume).into(), (*disk).into())).collect()
    };
    assert_eq!(
        approved(&machine, TWO),
        pairs(&[("openebs-nvme-fast", "nvme0n1"), ("openebs-ssd", "nvme1n1")])
    );
    let other = r#"
nodes:
  - address: 10.0.0.1
    volumes: {openebs-nvme-fast: null, openebs-ssd: {disk: {match: disk.serial == "C"}, minSize: 20GiB}}
"#;
    let file = format!("{TWO}{other}");
    assert_eq!(approved(&machine, &file), pairs(&[("openebs-ssd", "nvme2n1")]));
    assert!(machine.config_of(&file).contains("minSize: 20GiB"));
    let same = TWO.replace("\"B\"", "\"A\"");
    assert!(machine.refuses(&same).contains("nvme0n1 is taken by volume openebs-nvme-fast"));
}

fn shared(first: &str, second: &str, disk: &str) -> String {
    let volume = |name: &str, most: &str| {
        format!(
            "  - {{name: {name}, disk: {{match: {disk}, shared: true}}, minSize: 10GiB, maxSize: {most}}}\n"
        )
    };
    format!(
        "volumes:\n{}{}",
        volume("a", first),
        if second.is_empty() { String::new() } else { volume("b", second) }
    )
}

#[test]
fn volumes_that_share_a_disk_must_all_fit() {
    let serial = "disk.serial == \"A\"";
    let mut machine = Machine::new(11, &nvme(&["A"]));
    assert!(machine.refuses(&shared("60GiB", "60GiB", serial)).contains("only 40.0GiB left"));
    let one_alone = shared("40GiB", "50GiB", serial).replacen(", shared: true", "", 1);
    assert!(machine.refuses(&one_alone).contains("taken by volume a"));
    // The second one comes later, into the free space beside the first.
    machine.apply(&machine.config_of(&shared("40GiB", "", serial)));
    let both = shared("40GiB", "50GiB", serial);
    let plan = machine.plan(&both).unwrap();
    assert_eq!(plan.steps[0].risk, Risk::Partition);
    assert_eq!(applied(&plan).unwrap().disks[1].beside, ["u-a"]);
    let config = machine.config_of(&both);
    assert_eq!(machine.apply(&config).len(), 1);
    assert!(machine.is_done(&both));
    let sizes: Vec<_> = machine.disks[0].partitions().into_iter().map(|(.., size)| size / GIB).collect();
    assert_eq!(sizes, [40, 50]);
}

#[test]
fn a_disk_is_shared_with_known_volumes_only() {
    let serial = "disk.serial == \"A\"";
    for (holds, words) in [
        (partitions(&[("data", "xfs", GIB)]), "can't be shared: it holds partition nvme0n1p1 (data)"),
        (partitions(&[("", "", GIB)]), "can't be shared: it holds partition nvme0n1p1"),
        (partitions(&[("u-other", "xfs", GIB)]), "holds user volume other of another cluster or time"),
        (Holds::Mbr, "can't be shared: it holds partition nvme0n1p1"),
        (Holds::Whole("lvm2-pv".into()), "can't be shared: it holds LVM"),
    ] {
        let mut machine = Machine::new(11, &nvme(&["A"]));
        machine.disks[0].holds = holds;
        let refusal = machine.refuses(&shared("40GiB", "", serial));
        assert!(refusal.contains(words), "{refusal}");
    }
}

#[test]
fn a_node_with_one_disk_has_room_beside_a_capped_ephemeral_only() {
    let mut machine = Machine::new(11, &[]);
    let file = shared("40GiB", "", "system_disk");
    assert!(machine.refuses(&file).contains("left for it"));
    machine.disks[0].holds = partitions(&[("EFI", "vfat", GIB), ("EPHEMERAL", "xfs", 50 * GIB)]);
    assert_eq!(machine.plan(&file).unwrap().steps[0].risk, Risk::Partition);
    let alone = file.replace(", shared: true", "");
    assert!(machine.refuses(&alone).contains("Talos is installed on"));
}

#[test]
fn a_disk_is_named_by_what_it_alone_has() {
    let file = |expression: &str| {
        format!("volumes:\n  - {{name: a, disk: {{match: {expression}}}, minSize: 10GiB}}\n")
    };
    let mut machine = Machine::new(11, &nvme(&["A", "A"]));
    // Namespaces of one NVMe disk have one serial, and a WWID each.
    machine.disks[1].wwid = "eui.other".into();
    let config = machine.config_of(&file("disk.wwid == \"eui.other\""));
    assert!(config.contains("match: 'disk.wwid == \"eui.other\"'"), "{config}");
    machine.disks[1].wwid.clear();
    let refusal = machine.refuses(&file("disk.wwid == \"eui.A\""));
    assert!(refusal.contains("not free: has the same serial as nvme1n1"), "{refusal}");
}

#[test]
fn a_whole_disk_is_taken_only_without_a_partition_table() {
    let file = "volumes:\n  - {name: a, type: disk, disk: {match: disk.serial == \"A\"}}\n";
    let mut machine = Machine::new(12, &nvme(&["A"]));
    let mut with = |holds: Holds| {
        machine.disks[0].holds = holds;
        machine.refuses(file)
    };
    assert!(with(partitions(&[])).contains("empty partition table"));
    assert!(with(Holds::Mbr).contains("not free"));
    assert!(with(partitions(&[("u-a", "xfs", GIB)])).contains("u-a that this node's config does not know"));
    assert!(with(Holds::Whole("xfs".into())).contains("not free"));
    machine.disks[0].holds = Holds::Nothing;
    let config = machine.config_of(file);
    machine.apply(&config);
    assert!(machine.is_done(file));
}

#[test]
fn a_part_of_a_disk_is_not_less_than_the_least() {
    let file = |most: &str| {
        format!(
            "volumes:\n  - {{name: a, disk: {{match: disk.serial == \"A\"}}, minSize: 50GiB, maxSize: {most}}}\n"
        )
    };
    let machine = Machine::new(13, &nvme(&["A"]));
    for (most, good) in [("60%", true), ("40%", false), ("-40GiB", true), ("-60GiB", false), ("200GiB", true)]
    {
        let plan = machine.plan(&file(most));
        assert_eq!(plan.is_ok(), good, "{most}: {plan:?}");
    }
}

#[test]
fn what_is_there_is_adopted_and_never_made() {
    let file = |partition: &str| {
        format!(
            "volumes:\n  - {{name: a, type: existing, disk: {{match: disk.serial == \"A\"}}{partition}}}\n"
        )
    };
    let mut machine = Machine::new(11, &nvme(&["A"]));
    machine.disks[0].holds = partitions(&[
        ("MEDIA", "ext4", GIB),
        ("u-old", "xfs", GIB),
        ("pool", "zfs", GIB),
        ("EPHEMERAL", "xfs", GIB),
    ]);
    for label in ["MEDIA", "u-old"] {
        let mut machine = machine.clone();
        let wish = file(&format!(", partition: {label}"));
        let config = machine.config_of(&wish);
        let selector = format!("match: 'volume.partition_label == \"{label}\" && disk.serial == \"A\"'");
        assert!(config.contains(&selector), "{config}");
        assert!(machine.apply(&config).is_empty() && machine.ready == ["e-a"]);
        assert!(machine.is_done(&wish));
    }
    for (partition, words) in [
        (", partition: pool", "holds zfs"),
        (", partition: EPHEMERAL", "Talos' own"),
        (", partition: other", "0 partitions"),
        ("", "no file system"),
    ] {
        let refusal = machine.refuses(&file(partition));
        assert!(refusal.contains(words), "{refusal}");
    }
    machine.disks[0].holds = Holds::Nothing;
    assert!(machine.refuses(&file("")).contains("holds nothing"));
    machine.disks[0].holds = Holds::Whole("xfs".into());
    assert!(machine.config_of(&file("")).contains("volume.name == \"xfs\" && disk.serial == \"A\""));
}

#[test]
fn a_volume_of_a_former_cluster_is_not_adopted_unasked() {
    let file = "volumes:\n  - {name: a, disk: {match: disk.serial == \"A\"}, minSize: 10GiB}\n";
    for holder in [0, 1] {
        let mut machine = Machine::new(11, &nvme(&["A", "B"]));
        machine.disks[holder].holds = partitions(&[("u-a", "xfs", 50 * GIB)]);
        assert!(machine.refuses(file).contains("does not know"), "{holder}");
    }
    // It is this node's, and on another disk than the file says.
    let mut machine = Machine::new(11, &nvme(&["A", "B"]));
    machine.apply(&machine.config_of(file));
    machine.disks.swap(0, 1);
    assert!(machine.is_done(file), "names do not matter");
    assert!(machine.refuses(&file.replace("\"A\"", "\"B\"")).contains("has a partition u-a already"));
}
