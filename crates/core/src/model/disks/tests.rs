use super::*;
use crate::model::resources::{BlockDevice, DiscoveredVolume};

fn item<T>(id: &str, spec: T) -> Item<T> {
    Item { id: id.into(), version: "1".into(), labels: Default::default(), spec }
}

fn nvme(id: &str) -> Item<DiskSpec> {
    let spec = DiskSpec {
        dev_path: format!("/dev/{id}"),
        size: 4 << 30,
        model: "QEMU NVMe Ctrl".into(),
        serial: format!("SERIAL-{id}"),
        wwid: format!("nvme.{id}"),
        transport: "nvme".into(),
        ..DiskSpec::default()
    };
    item(id, spec)
}

/// The whole of a disk, with the format found on it.
fn whole(id: &str, name: &str, label: &str) -> Item<DiscoveredVolume> {
    let spec = DiscoveredVolume {
        kind: "disk".into(),
        name: name.into(),
        label: label.into(),
        ..Default::default()
    };
    item(id, spec)
}

/// A partition that was recognised: number, partition label, format.
pub(super) fn part(disk: &str, index: u32, label: &str, name: &str) -> Item<DiscoveredVolume> {
    let spec = DiscoveredVolume {
        kind: "partition".into(),
        parent: disk.into(),
        name: name.into(),
        partition_label: label.into(),
        partition_index: index,
        ..Default::default()
    };
    item(&format!("{disk}p{index}"), spec)
}

/// A partition that only the kernel lists.
pub(super) fn listed(disk: &str, index: u32) -> Item<BlockDevice> {
    let spec = BlockDevice {
        kind: "partition".into(),
        parent: disk.into(),
        partition_number: index,
        ..Default::default()
    };
    item(&format!("{disk}p{index}"), spec)
}

fn upper(id: &str, secondaries: &[&str]) -> Item<BlockDevice> {
    let secondaries = secondaries.iter().map(ToString::to_string).collect();
    item(id, BlockDevice { kind: "disk".into(), secondaries, ..Default::default() })
}

/// Facts about the one disk nvme0n1, on which udev recognised nothing.
fn facts(discovered: Vec<Item<DiscoveredVolume>>, devices: Vec<Item<BlockDevice>>) -> Facts {
    Facts {
        disks: vec![nvme("nvme0n1")],
        discovered,
        devices,
        udev: udev_of(&["nvme0n1"], ""),
        ..Facts::default()
    }
}

/// What udev says of these disks.
fn udev_of(disks: &[&str], said: &str) -> std::collections::BTreeMap<String, Result<udev::Record, String>> {
    let record =
        udev::Record::parse(&format!("S:disk/by-id/x\nI:83\nE:ID_SERIAL=x\n{said}V:1\n")).expect("a record");
    disks.iter().map(|disk| (disk.to_string(), Ok(record.clone()))).collect()
}

/// A disk on which Talos sees nothing, and of which udev says this.
fn seen_by_udev(said: &str) -> Facts {
    Facts { udev: udev_of(&["nvme0n1"], said), ..facts(vec![whole("nvme0n1", "", "")], vec![]) }
}

fn volume(id: &str, location: &str, mount_location: &str) -> Item<VolumeStatus> {
    let (location, mount_location) = (location.into(), mount_location.into());
    item(id, VolumeStatus { phase: "ready".into(), location, mount_location, ..VolumeStatus::default() })
}

fn mount(source: &str, target: &str) -> Item<MountStatus> {
    item(target, MountStatus { source: source.into(), target: target.into(), ..MountStatus::default() })
}

#[test]
fn every_holder_is_told_and_only_empty_disks_are_eligible() {
    let d = "nvme0n1";
    let gpt = |partitions| Holder::PartitionTable { table: Table::Gpt, partitions };
    let file_system = |kind: &str, label: &str| Holder::Filesystem { kind: kind.into(), label: label.into() };
    let table: Vec<(&str, Facts, Holder, Option<&str>)> = vec![
        ("blank", facts(vec![whole(d, "", "")], vec![]), Holder::Nothing, None),
        ("an empty GPT", facts(vec![whole(d, "gpt", "")], vec![]), gpt(0), None),
        (
            "an old Talos disk",
            facts(
                vec![whole(d, "gpt", ""), part(d, 1, "EFI", "vfat"), part(d, 2, "META", "talosmeta")],
                vec![],
            ),
            Holder::System,
            Some("holds Talos"),
        ),
        (
            "one user volume",
            facts(vec![whole(d, "gpt", ""), part(d, 1, "u-openebs", "xfs")], vec![listed(d, 1)]),
            Holder::Volume("u-openebs".into()),
            Some("holds user volume openebs"),
        ),
        (
            "one encrypted user volume",
            facts(
                vec![whole(d, "gpt", ""), part(d, 1, "u-openebs", "luks")],
                vec![upper("dm-0", &["nvme0n1p1"])],
            ),
            Holder::Volume("u-openebs".into()),
            Some("holds user volume openebs"),
        ),
        (
            "a user volume beside something else",
            facts(
                vec![whole(d, "gpt", ""), part(d, 1, "u-openebs", "xfs"), part(d, 2, "data", "ext4")],
                vec![],
            ),
            gpt(2),
            Some("holds a GPT with 2 partitions"),
        ),
        (
            "a user volume on the whole disk",
            facts(vec![whole(d, "xfs", "u-openebs")], vec![]),
            Holder::Volume("u-openebs".into()),
            Some("holds user volume openebs"),
        ),
        ("LVM on the disk", facts(vec![whole(d, "lvm2-pv", "")], vec![]), Holder::Lvm, Some("holds LVM")),
        (
            "LVM in a partition",
            facts(vec![whole(d, "gpt", ""), part(d, 1, "", "lvm2-pv")], vec![]),
            Holder::Lvm,
            Some("holds LVM"),
        ),
        (
            "ZFS",
            facts(vec![whole(d, "gpt", ""), part(d, 1, "zfs-1", "zfs"), part(d, 9, "", "")], vec![]),
            Holder::Zfs,
            Some("holds ZFS"),
        ),
        ("Ceph", facts(vec![whole(d, "bluestore", "")], vec![]), Holder::Ceph, Some("holds Ceph")),
        ("LUKS", facts(vec![whole(d, "luks", "")], vec![]), Holder::Luks, Some("holds LUKS")),
        (
            "a RAID member, which looks empty",
            facts(vec![whole(d, "", "")], vec![upper("md127", &["nvme0n1"])]),
            Holder::Raid,
            Some("holds a RAID array"),
        ),
        (
            "a plain dm-crypt, which looks empty",
            facts(vec![whole(d, "", "")], vec![upper("dm-3", &["nvme0n1"])]),
            Holder::Unknown("dm-3 lies on it".into()),
            Some("may hold something: dm-3 lies on it"),
        ),
        (
            "an MBR, which looks empty",
            facts(vec![whole(d, "", "")], vec![listed(d, 1), listed(d, 2)]),
            Holder::PartitionTable { table: Table::Mbr, partitions: 2 },
            Some("holds an MBR with 2 partitions"),
        ),
        (
            "a GPT with one foreign partition",
            facts(vec![whole(d, "gpt", ""), part(d, 1, "Basic data partition", "")], vec![]),
            gpt(1),
            Some("holds a GPT with 1 partition"),
        ),
        (
            "a dirty disk",
            facts(vec![whole(d, "xfs", "old-data")], vec![]),
            file_system("xfs", "old-data"),
            Some("holds xfs \"old-data\""),
        ),
        ("swap", facts(vec![whole(d, "swap", "")], vec![]), file_system("swap", ""), Some("holds swap")),
        (
            "a format of a later Talos",
            facts(vec![whole(d, "ntfs", "WIN")], vec![]),
            file_system("ntfs", "WIN"),
            Some("holds ntfs \"WIN\""),
        ),
        (
            "not looked at yet",
            facts(vec![], vec![]),
            Holder::Unknown("Talos has not looked at it yet".into()),
            Some("may hold something: Talos has not looked at it yet"),
        ),
    ];
    for (name, facts, holder, why_not) in table {
        let disks = join(&facts);
        let [disk] = &disks[..] else { panic!("{name}: {disks:?}") };
        assert_eq!(disk.holder, holder, "{name}");
        assert_eq!(disk.eligible.as_ref().err().map(String::as_str), why_not, "{name}");
    }
}

#[test]
fn what_talos_takes_for_blank_and_udev_does_not_is_refused() {
    let file_system = |kind: &str, label: &str| Holder::Filesystem { kind: kind.into(), label: label.into() };
    let mbr = Holder::PartitionTable { table: Table::Mbr, partitions: 0 };
    let table = [
        ("nothing", "", Holder::Nothing),
        ("an MBR without partitions", "E:ID_PART_TABLE_TYPE=dos\n", mbr),
        (
            "NTFS on the whole disk",
            "E:ID_FS_LABEL=WIN\nE:ID_FS_LABEL_ENC=WIN\nE:ID_FS_TYPE=ntfs\nE:ID_FS_USAGE=filesystem\n",
            file_system("ntfs", "WIN"),
        ),
        ("exFAT", "E:ID_FS_TYPE=exfat\n", file_system("exfat", "")),
        ("F2FS", "E:ID_FS_TYPE=f2fs\n", file_system("f2fs", "")),
        (
            "NTFS, which looks like a table too",
            "E:ID_PART_TABLE_TYPE=dos\nE:ID_FS_TYPE=ntfs\n",
            file_system("ntfs", ""),
        ),
        (
            "a RAID member that nobody assembled",
            "E:ID_FS_TYPE=linux_raid_member\nE:ID_FS_USAGE=raid\n",
            Holder::Raid,
        ),
        ("firmware RAID", "E:ID_FS_TYPE=isw_raid_member\n", Holder::Raid),
        ("LVM", "E:ID_FS_TYPE=LVM2_member\n", Holder::Lvm),
        ("ZFS", "E:ID_FS_TYPE=zfs_member\n", Holder::Zfs),
        ("LUKS", "E:ID_FS_TYPE=crypto_LUKS\n", Holder::Luks),
        ("Ceph", "E:ID_FS_TYPE=ceph_bluestore\n", Holder::Ceph),
        ("a Sun table", "E:ID_PART_TABLE_TYPE=sun\n", file_system("a sun table", "")),
    ];
    for (name, said, holder) in table {
        let disks = join(&seen_by_udev(said));
        assert_eq!(disks[0].holder, holder, "{name}");
        assert_eq!(disks[0].eligible.is_ok(), holder == Holder::Nothing, "{name}");
    }
}

#[test]
fn a_disk_that_looks_blank_is_unknown_until_udev_has_looked() {
    let unread = |why: Result<udev::Record, String>| Facts {
        udev: [("nvme0n1".to_owned(), why)].into(),
        ..facts(vec![whole("nvme0n1", "", "")], vec![])
    };
    let mut linked = unread(Err("has no record".into()));
    linked.disks[0].spec.symlinks = vec!["/dev/disk/by-diskseq/3".into(), "/dev/disk/by-uuid/01D9".into()];
    let table = [
        ("no answer", unread(Err("its record could not be read: not permitted".into())), "not permitted"),
        ("not asked", Facts { udev: Default::default(), ..seen_by_udev("") }, "was not asked"),
        ("a link that only a file system has", linked, "holds a file system that Talos does not know"),
    ];
    for (name, facts, words) in table {
        let disks = join(&facts);
        let why = disks[0].eligible.as_ref().expect_err(name);
        assert!(why.contains(words), "{name}: {why}");
    }
    assert_eq!(udev::Record::parse("S:disk/by-id/x\nE:ID_FS_TYPE=\nV:1\n"), None, "udev is not done with it");
}

#[test]
fn udev_is_asked_about_what_talos_sees_nothing_on_and_about_nothing_else() {
    let mut facts =
        facts(vec![whole("nvme0n1", "", ""), whole("sda", "xfs", ""), whole("loop0", "", "")], vec![]);
    facts.disks.extend([nvme("sda"), nvme("loop0"), nvme("sdb")]);
    let device = BlockDevice { kind: "disk".into(), major: 259, minor: 4, ..Default::default() };
    facts.devices = ["nvme0n1", "sda", "loop0", "sdb"].map(|id| item(id, device.clone())).to_vec();
    let asked: Vec<_> = unproven(&facts).map(|(id, device)| (id, udev::path(device))).collect();
    assert_eq!(asked, [("nvme0n1", "/run/udev/data/b259:4".to_owned())]);
}

#[test]
fn a_volume_of_another_cluster_is_told_from_one_of_this_machine() {
    let partition =
        || facts(vec![whole("nvme0n1", "gpt", ""), part("nvme0n1", 1, "u-openebs", "xfs")], vec![]);
    let on_disk = || facts(vec![whole("nvme0n1", "xfs", "u-openebs")], vec![]);
    let beside = || {
        let parts = vec![
            whole("nvme0n1", "gpt", ""),
            part("nvme0n1", 1, "u-openebs", "xfs"),
            part("nvme0n1", 2, "a", ""),
        ];
        facts(parts, vec![])
    };
    let with = |facts: Facts, volumes: Option<Vec<Item<VolumeStatus>>>| Facts { volumes, ..facts };
    let table = [
        ("it has it there", with(partition(), Some(vec![volume("u-openebs", "/dev/nvme0n1p1", "")])), false),
        ("it has not placed it yet", with(partition(), Some(vec![volume("u-openebs", "", "")])), false),
        ("it has no volumes", with(partition(), Some(vec![])), true),
        ("it has other volumes", with(partition(), Some(vec![volume("u-data", "/dev/sdb1", "")])), true),
        ("it has it elsewhere", with(partition(), Some(vec![volume("u-openebs", "/dev/sdb1", "")])), true),
        ("beside another partition", with(beside(), Some(vec![])), true),
        ("on the whole disk", with(on_disk(), Some(vec![])), true),
        (
            "on the whole disk, its own",
            with(on_disk(), Some(vec![volume("u-openebs", "/dev/nvme0n1", "")])),
            false,
        ),
        ("nobody could tell", with(partition(), None), false),
    ];
    for (name, facts, stray) in table {
        let disk = join(&facts).remove(0);
        assert_eq!(disk.uses.strays == ["u-openebs"], stray, "{name}: {:?}", disk.uses);
        assert!(disk.has_volume("u-openebs") && !disk.has_volume("u-data"), "{name}");
        assert!(disk.eligible.is_err(), "{name}");
        if stray && !name.starts_with("beside") {
            let why = disk.eligible.clone().expect_err(name);
            assert!(why.contains("user volume openebs of another cluster"), "{name}: {why}");
            assert_eq!(disk.holds(), "leftover user volume openebs", "{name}");
        }
    }
}

#[test]
fn volumes_and_mounts_are_told_with_their_disk_also_through_encryption() {
    let mut facts = facts(
        vec![whole("nvme0n1", "gpt", ""), part("nvme0n1", 1, "u-openebs", "luks")],
        vec![upper("dm-0", &["nvme0n1p1"])],
    );
    facts.volumes = Some(vec![
        volume("u-openebs", "/dev/nvme0n1p1", "/dev/dm-0"),
        volume("EPHEMERAL", "/dev/vda4", "/dev/vda4"),
    ]);
    facts.mounts =
        vec![mount("/dev/dm-0", "/var/mnt/openebs"), mount("/dev/vda4", "/var"), mount("", "/proc")];
    let uses = join(&facts).remove(0).uses;
    assert_eq!(uses.volumes, [("u-openebs".to_owned(), "ready".to_owned())]);
    assert_eq!((uses.mounts, uses.uppers), (vec!["/var/mnt/openebs".to_owned()], vec!["dm-0".to_owned()]));
}

#[test]
fn of_disks_that_nothing_tells_apart_none_is_eligible() {
    let two = |change: fn(&mut DiskSpec, &mut DiskSpec)| {
        let (mut a, mut b) = (nvme("sda"), nvme("sdb"));
        change(&mut a.spec, &mut b.spec);
        let discovered = vec![whole("sda", "", ""), whole("sdb", "", "")];
        Facts { disks: vec![a, b], discovered, udev: udev_of(&["sda", "sdb"], ""), ..Facts::default() }
    };
    let table: [(&str, Facts, Option<&str>); 8] = [
        ("identical models", two(|_, _| {}), None),
        ("multipath: one WWID twice", two(|a, b| b.wwid = a.wwid.clone()), Some("has the same WWID as sdb")),
        (
            "namespaces of one controller: one serial, two WWIDs",
            two(|a, b| b.serial = a.serial.clone()),
            None,
        ),
        (
            "one serial, no WWID",
            two(|a, b| (b.serial, a.wwid, b.wwid) = (a.serial.clone(), String::new(), String::new())),
            Some("has the same serial as sdb"),
        ),
        (
            "one serial, and a WWID on one face only",
            two(|a, b| (b.serial, b.wwid) = (a.serial.clone(), String::new())),
            Some("has the same serial as sdb"),
        ),
        ("a missing serial", two(|a, _| a.serial = String::new()), None),
        (
            "nothing at all",
            two(|a, _| (a.serial, a.wwid) = (String::new(), String::new())),
            Some("has neither serial nor WWID"),
        ),
        ("a USB disk is a disk", two(|a, _| a.transport = "usb".into()), None),
    ];
    for (name, facts, why_not) in table {
        let disks = join(&facts);
        let why = disks[0].eligible.as_ref().err();
        assert_eq!(why.is_some(), why_not.is_some(), "{name}: {why:?}");
        assert!(why.is_none_or(|why| why.contains(why_not.unwrap_or_default())), "{name}: {why:?}");
        let twin = why_not.is_some_and(|why| why.contains("same"));
        assert_eq!(disks[0].twin(&disks).is_some(), twin, "{name}");
    }
}

#[test]
fn disks_that_swapped_names_are_the_same_disks() {
    let (mut a, mut b) = (nvme("nvme0n1"), nvme("nvme1n1"));
    (a.spec.serial, b.spec.serial) = ("B".into(), "A".into());
    (a.spec.wwid, b.spec.wwid) = ("nvme.B".into(), "nvme.A".into());
    let discovered =
        vec![whole("nvme0n1", "", ""), whole("nvme1n1", "gpt", ""), part("nvme1n1", 1, "u-openebs", "xfs")];
    let volumes = Some(vec![volume("u-openebs", "/dev/nvme1n1p1", "")]);
    let udev = udev_of(&["nvme0n1"], "");
    let disks = join(&Facts { disks: vec![a, b], discovered, volumes, udev, ..Facts::default() });
    let rows: Vec<_> =
        disks.iter().map(|disk| (disk.spec.serial.as_str(), disk.holds(), disk.eligible.is_ok())).collect();
    assert_eq!(rows, [("B", "nothing".to_owned(), true), ("A", "user volume openebs".to_owned(), false)]);
}

#[test]
fn a_disk_below_another_disk_is_taken_even_when_it_looks_empty() {
    let mut facts = facts(vec![whole("nvme0n1", "", "")], vec![]);
    let spec = DiskSpec { secondary_disks: vec!["nvme0n1".into()], ..DiskSpec::default() };
    facts.disks.push(item("md0", spec));
    let not_looked = Holder::Unknown("Talos has not looked at it yet".into());
    let holders: Vec<_> = join(&facts).into_iter().map(|disk| (disk.id, disk.holder)).collect();
    assert_eq!(holders, [("md0".to_owned(), not_looked), ("nvme0n1".to_owned(), Holder::Raid)]);
}

#[test]
fn a_volume_that_talos_placed_on_the_whole_disk_is_found_by_its_status() {
    let mut facts = facts(vec![whole("nvme0n1", "luks", "")], vec![]);
    let status = VolumeStatus { location: "/dev/nvme0n1".into(), ..VolumeStatus::default() };
    facts.volumes = Some(vec![item("EPHEMERAL", VolumeStatus::default()), item("u-openebs", status)]);
    assert_eq!(join(&facts)[0].holder, Holder::Volume("u-openebs".into()));
}

#[test]
fn what_is_no_data_disk_is_never_eligible() {
    let blank = |id: &str| facts_of(nvme(id));
    fn facts_of(disk: Item<DiskSpec>) -> Facts {
        let udev = udev_of(&[&disk.id], "");
        Facts { discovered: vec![whole(&disk.id, "", "")], disks: vec![disk], udev, ..Facts::default() }
    }
    let mut read_only = nvme("nvme0n1");
    read_only.spec.readonly = true;
    let mut cdrom = nvme("sr0");
    cdrom.spec.cdrom = true;
    let system = Facts { system_disk: Some("sda".into()), ..blank("sda") };
    let table = [
        ("the system disk", system, Some("is the disk Talos is installed on")),
        ("a read-only disk", facts_of(read_only), Some("is read-only")),
        ("a CD-ROM", facts_of(cdrom), Some("is a CD-ROM")),
        ("a loop device", blank("loop0"), Some("is a loop device")),
        ("a device-mapper device", blank("dm-1"), Some("is a device-mapper device")),
        ("an array", blank("md127"), Some("is a RAID array")),
        ("zram", blank("zram0"), Some("is compressed memory")),
        ("memory", blank("ram0"), Some("is a RAM disk")),
        ("a pod's network volume", blank("rbd0"), Some("is a Ceph RBD image")),
        ("a SATA disk", blank("sdb"), None),
        ("a virtual machine's disk", blank("vda"), None),
        ("an eMMC", blank("mmcblk0"), None),
    ];
    for (name, facts, why_not) in table {
        assert_eq!(join(&facts)[0].eligible.as_ref().err().map(String::as_str), why_not, "{name}");
    }
}

/// A system disk, two disks that differ in nothing but the serial, and a slow one.
pub(super) fn fleet() -> Vec<Disk> {
    let mut disks = vec![nvme("nvme0n1"), nvme("nvme1n1"), nvme("sdb"), nvme("sda")];
    disks[2].spec.transport = "sata".into();
    disks[2].spec.rotational = true;
    disks[2].spec.size = 8_000_000_000_000;
    disks[2].spec.symlinks = vec!["/dev/disk/by-id/ata-X".into(), "/dev/disk/by-path/pci-0".into()];
    join(&Facts { disks, system_disk: Some("sda".into()), ..Facts::default() })
}
