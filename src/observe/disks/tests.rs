use super::*;
use crate::talos::resources::{BlockDevice, DiscoveredVolume};

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
fn part(disk: &str, index: u32, label: &str, name: &str) -> Item<DiscoveredVolume> {
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
fn listed(disk: &str, index: u32) -> Item<BlockDevice> {
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

/// Facts about the one disk nvme0n1.
fn facts(discovered: Vec<Item<DiscoveredVolume>>, devices: Vec<Item<BlockDevice>>) -> Facts {
    Facts { disks: vec![nvme("nvme0n1")], discovered, devices, ..Facts::default() }
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
            Holder::UserVolume("openebs".into()),
            Some("holds user volume openebs"),
        ),
        (
            "one encrypted user volume",
            facts(
                vec![whole(d, "gpt", ""), part(d, 1, "u-openebs", "luks")],
                vec![upper("dm-0", &["nvme0n1p1"])],
            ),
            Holder::UserVolume("openebs".into()),
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
            Holder::UserVolume("openebs".into()),
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
            Holder::Unknown,
            Some("holds something unknown"),
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
        ("not looked at yet", facts(vec![], vec![]), Holder::Unknown, Some("holds something unknown")),
    ];
    for (name, facts, holder, why_not) in table {
        let disks = join(&facts);
        let [disk] = &disks[..] else { panic!("{name}: {disks:?}") };
        assert_eq!(disk.holder, holder, "{name}");
        assert_eq!(disk.eligible.as_ref().err().map(String::as_str), why_not, "{name}");
    }
}

#[test]
fn a_disk_below_another_disk_is_taken_even_when_it_looks_empty() {
    let mut facts = facts(vec![whole("nvme0n1", "", "")], vec![]);
    let spec = DiskSpec { secondary_disks: vec!["nvme0n1".into()], ..DiskSpec::default() };
    facts.disks.push(item("md0", spec));
    let holders: Vec<_> = join(&facts).into_iter().map(|disk| (disk.id, disk.holder)).collect();
    assert_eq!(holders, [("md0".to_owned(), Holder::Unknown), ("nvme0n1".to_owned(), Holder::Raid)]);
}

#[test]
fn a_volume_that_talos_placed_on_the_whole_disk_is_found_by_its_status() {
    let mut facts = facts(vec![whole("nvme0n1", "luks", "")], vec![]);
    let status = VolumeStatus { location: "/dev/nvme0n1".into(), ..VolumeStatus::default() };
    facts.volumes = vec![item("EPHEMERAL", VolumeStatus::default()), item("u-openebs", status)];
    assert_eq!(join(&facts)[0].holder, Holder::UserVolume("openebs".into()));
}

#[test]
fn what_is_no_data_disk_is_never_eligible() {
    let blank = |id: &str| facts_of(nvme(id));
    fn facts_of(disk: Item<DiskSpec>) -> Facts {
        Facts { discovered: vec![whole(&disk.id, "", "")], disks: vec![disk], ..Facts::default() }
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
