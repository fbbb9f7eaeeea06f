//! Which disk a volume is given: exactly one, empty or its own; everything else is refused with the reason.

use nodeprep::error::Kind;
use nodeprep::intent::{DiskSelector, Size, Volume};
use nodeprep::model::disks::udev::Record;
use nodeprep::model::disks::{Disk, Facts, join};
use nodeprep::plan::disks::{Choice, How, choose, still};
use nodeprep::talos::resources::{BlockDevice, DiscoveredVolume, DiskSpec, Item};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

fn item<T>(id: &str, spec: T) -> Item<T> {
    Item { id: id.into(), version: "1".into(), labels: Default::default(), spec }
}

fn nvme(id: &str, serial: &str) -> Item<DiskSpec> {
    let spec = DiskSpec {
        dev_path: format!("/dev/{id}"),
        size: 100 * GIB,
        serial: serial.into(),
        wwid: if serial.is_empty() { String::new() } else { format!("nvme.{serial}") },
        transport: "nvme".into(),
        model: "Test".into(),
        ..DiskSpec::default()
    };
    item(id, spec)
}

/// A node with these disks, every one of them blank as far as Talos sees, plus a system disk.
fn node(disks: Vec<Item<DiskSpec>>) -> Facts {
    let system = DiskSpec { serial: "SYS".into(), ..nvme("vda", "SYS").spec };
    let disks: Vec<_> =
        disks.into_iter().chain([item("vda", DiskSpec { transport: "virtio".into(), ..system })]).collect();
    let blank = |disk: &Item<DiskSpec>| {
        item(&disk.id, DiscoveredVolume { kind: "disk".into(), size: disk.spec.size, ..Default::default() })
    };
    let device =
        |disk: &Item<DiskSpec>| item(&disk.id, BlockDevice { kind: "disk".into(), ..Default::default() });
    Facts {
        discovered: disks.iter().map(blank).collect(),
        devices: disks.iter().map(device).collect(),
        system_disk: Some("vda".into()),
        udev: disks.iter().map(|disk| (disk.id.clone(), Ok(Record::default()))).collect(),
        disks,
        ..Facts::default()
    }
}

fn holding(mut facts: Facts, id: &str, format: &str) -> Facts {
    for volume in facts.discovered.iter_mut().filter(|v| v.id == id) {
        volume.spec.name = format.into();
    }
    facts
}

fn partition(mut facts: Facts, disk: &str, label: &str) -> Facts {
    let id = format!("{disk}p1");
    let spec = DiscoveredVolume {
        kind: "partition".into(),
        parent: disk.into(),
        name: "xfs".into(),
        partition_label: label.into(),
        partition_index: 1,
        ..Default::default()
    };
    facts.discovered.push(item(&id, spec));
    let device = BlockDevice {
        kind: "partition".into(),
        parent: disk.into(),
        partition_number: 1,
        ..Default::default()
    };
    facts.devices.push(item(&id, device));
    holding(facts, disk, "gpt")
}

fn volume(selector: &str) -> Volume {
    Volume {
        name: "openebs".into(),
        disk: DiskSelector { matches: selector.into(), shared: false },
        min_size: Some(Size(10 * GIB)),
        ..Volume::default()
    }
}

fn choice(selector: &str, facts: &Facts) -> Result<String, (Kind, String)> {
    match choose(&volume(selector), &[], &join(facts)) {
        Ok(Choice { how: How::Empty, disk, .. }) => Ok(format!("empty {}", disk.name)),
        Ok(Choice { how: How::Holds, disk, .. }) => Ok(format!("holds {}", disk.name)),
        Ok(other) => panic!("{other:?}"),
        Err(e) => Err((e.kind, e.what)),
    }
}

const ALL: &str = r#"disk.transport == "nvme" && !system_disk"#;

#[test]
fn one_empty_disk_is_chosen_and_its_own_is_found_again() {
    assert_eq!(choice(ALL, &node(vec![nvme("nvme0n1", "A")])), Ok("empty nvme0n1".into()));
    let own = partition(node(vec![nvme("nvme0n1", "A")]), "nvme0n1", "u-openebs");
    assert_eq!(choice(ALL, &own), Ok("holds nvme0n1".into()));
}

#[test]
fn whatever_is_not_exactly_one_empty_disk_is_refused() {
    let two = || node(vec![nvme("nvme0n1", "A"), nvme("nvme1n1", "B")]);
    let one = || node(vec![nvme("nvme0n1", "A")]);
    let mut mbr = one();
    let device = BlockDevice {
        kind: "partition".into(),
        parent: "nvme0n1".into(),
        partition_number: 1,
        ..Default::default()
    };
    mbr.devices.push(item("nvme0n1p1", device));
    let mut raid = one();
    let md = DiskSpec { secondary_disks: vec!["nvme0n1".into()], size: GIB, ..Default::default() };
    raid.disks.push(item("md0", md));
    let mut readonly = one();
    readonly.disks[0].spec.readonly = true;
    let mut small = one();
    small.disks[0].spec.size = GIB;
    let twins = node(vec![nvme("nvme0n1", "A"), {
        let mut d = nvme("nvme1n1", "A");
        d.spec.transport = "fc".into();
        d
    }]);
    let cases: Vec<(&str, &str, Facts, &str)> = vec![
        ("two match", ALL, two(), "matches 2 disks"),
        ("none match", r#"disk.serial == "X""#, one(), "no disk matches"),
        ("a whole-disk filesystem", ALL, holding(one(), "nvme0n1", "xfs"), "xfs"),
        ("LVM", ALL, holding(one(), "nvme0n1", "lvm2-pv"), "LVM"),
        ("ZFS", ALL, holding(one(), "nvme0n1", "zfs"), "ZFS"),
        ("Ceph", ALL, holding(one(), "nvme0n1", "bluestore"), "Ceph"),
        ("LUKS", ALL, holding(one(), "nvme0n1", "luks"), "LUKS"),
        ("a foreign partition", ALL, partition(one(), "nvme0n1", "data"), "partition"),
        ("another volume", ALL, partition(one(), "nvme0n1", "u-other"), "other"),
        ("Talos of another machine", ALL, partition(one(), "nvme0n1", "EPHEMERAL"), "Talos"),
        ("MBR, which Talos takes for blank", ALL, mbr, "MBR"),
        ("a RAID member, which Talos takes for blank", ALL, raid, "nvme0n1"),
        ("read-only", ALL, readonly, "read-only"),
        ("the system disk", "system_disk", one(), "Talos is installed on"),
        ("too small", ALL, small, "smaller than minSize"),
        ("no serial and no WWID", ALL, node(vec![nvme("nvme0n1", "")]), "neither serial nor WWID"),
        ("one disk seen twice", ALL, twins, "serial"),
    ];
    for (name, selector, facts, words) in cases {
        let (kind, what) = choice(selector, &facts).expect_err(name);
        assert_eq!(kind, Kind::Refused, "{name}: {what}");
        assert!(what.contains(words), "{name}: no `{words}` in {what}");
    }
}

#[test]
fn identical_models_are_told_apart_by_serial_whatever_their_names() {
    for names in [["nvme0n1", "nvme1n1"], ["nvme1n1", "nvme0n1"]] {
        let facts = node(vec![nvme(names[0], "A"), nvme(names[1], "B")]);
        assert_eq!(choice(r#"disk.serial == "B""#, &facts), Ok(format!("empty {}", names[1])));
    }
}

#[test]
fn the_approved_disk_is_found_again_after_its_name_moved_and_refused_when_it_is_not_what_it_was() {
    let before = join(&node(vec![nvme("nvme0n1", "A"), nvme("nvme1n1", "B")]));
    let Choice { disk: approved, .. } = choose(&volume(r#"disk.serial == "A""#), &[], &before).unwrap();
    let swapped = node(vec![nvme("nvme1n1", "A"), nvme("nvme0n1", "B")]);
    assert!(still(&approved, &join(&swapped)).is_ok());
    let of = |id: &str, serial: &str, wwid: &str| {
        let disk = nvme(id, serial);
        Item { spec: DiskSpec { wwid: wwid.into(), ..disk.spec.clone() }, ..disk }
    };
    let own = partition(node(vec![nvme("nvme1n1", "A")]), "nvme1n1", "u-openebs");
    assert!(still(&approved, &join(&own)).is_ok(), "a run that was killed after the write goes on");
    for (name, facts) in [
        ("gone", node(vec![nvme("nvme0n1", "B")])),
        ("written meanwhile", holding(node(vec![nvme("nvme0n1", "A")]), "nvme0n1", "ext4")),
        ("there twice", node(vec![nvme("nvme0n1", "A"), nvme("nvme1n1", "A")])),
        ("of another WWID", node(vec![of("nvme0n1", "A", "nvme.B")])),
        ("of no WWID any more", node(vec![of("nvme0n1", "A", "")])),
        ("beside one that hides its WWID", node(vec![nvme("nvme0n1", "A"), of("nvme1n1", "A", "")])),
        ("with a blank in its serial", node(vec![of("nvme0n1", "A ", "nvme.A")])),
    ] {
        assert_eq!(still(&approved, &join(&facts)).expect_err(name).kind, Kind::Refused, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Laws 3 and 4 in small: whatever the disks look like, a chosen disk is one that nothing was found on.
    #[test]
    fn no_disk_that_holds_anything_is_ever_chosen(
        formats in prop::collection::vec(prop_oneof![
            Just(""), Just("xfs"), Just("ext4"), Just("gpt"), Just("zfs"), Just("lvm2-pv"), Just("luks"), Just("swap"),
        ], 1..6),
        partitions in prop::collection::vec(any::<bool>(), 6),
        selector in prop_oneof![Just(ALL), Just("true"), Just("!system_disk"), Just(r#"disk.serial == "S2""#), Just("disk.size > 1u * GiB")],
    ) {
        let disks = (0..formats.len()).map(|i| nvme(&format!("nvme{i}n1"), &format!("S{i}"))).collect();
        let mut facts = node(disks);
        for (i, format) in formats.iter().enumerate() {
            facts = holding(facts, &format!("nvme{i}n1"), format);
            if partitions[i] {
                let device = BlockDevice { kind: "partition".into(), parent: format!("nvme{i}n1"), ..Default::default() };
                facts.devices.push(item(&format!("nvme{i}n1p1"), device));
            }
        }
        let joined: Vec<Disk> = join(&facts);
        if let Ok(Choice { how: How::Empty, disk, .. }) = choose(&volume(selector), &[], &joined) {
            let i: usize = disk.name.trim_start_matches("nvme").trim_end_matches("n1").parse().expect("an NVMe disk");
            prop_assert!(matches!(formats[i], "" | "gpt"), "{} holds {}", disk.name, formats[i]);
            prop_assert!(!partitions[i], "{} has a partition", disk.name);
        }
    }
}
