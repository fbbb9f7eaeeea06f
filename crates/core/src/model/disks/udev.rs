//! What udev knows of a device. Its blkid recognises what Talos' own look does not: MBR tables, NTFS, exFAT, members of
//! RAID arrays and many more. The record is a file of the machine (systemd, `device_update_db`); the links that udev
//! makes are part of Talos' own resources.

use super::{Holder, Table};
use crate::model::resources::{BlockDevice, DiskSpec};

/// The longest record that is read, in bytes; real ones have a few KiB.
pub const LONGEST: usize = 1 << 16;

/// What udev recognised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Such as `ntfs` or `linux_raid_member`; empty when nothing was recognised.
    pub format: String,
    pub label: String,
    /// The sort of partition table, such as `dos` or `gpt`; empty when there is none.
    pub table: String,
}

/// Where the record of a device lies.
pub fn path(device: &BlockDevice) -> String {
    format!("/run/udev/data/b{}:{}", device.major, device.minor)
}

impl Record {
    /// Reads a record; none when udev is not done with the device.
    pub fn parse(text: &str) -> Option<Self> {
        let said = |key: &str| {
            let value =
                text.lines().find_map(|line| line.strip_prefix("E:")?.strip_prefix(key)?.strip_prefix('='));
            value.unwrap_or_default().to_owned()
        };
        // The time of the first look; without it nobody looked.
        text.lines().any(|line| line.starts_with("I:")).then(|| Self {
            format: said("ID_FS_TYPE"),
            label: said("ID_FS_LABEL"),
            table: said("ID_PART_TABLE_TYPE"),
        })
    }

    /// Who owns the bytes, as far as udev can tell.
    pub(super) fn holder(&self) -> Holder {
        let kind = self.format.clone();
        match (self.format.as_str(), self.table.as_str()) {
            ("", "") => Holder::Nothing,
            ("", "gpt") => Holder::PartitionTable { table: Table::Gpt, partitions: 0 },
            ("", "dos" | "PMBR") => Holder::PartitionTable { table: Table::Mbr, partitions: 0 },
            ("", other) => Holder::Filesystem { kind: format!("a {other} table"), label: String::new() },
            ("LVM2_member" | "LVM1_member", _) => Holder::Lvm,
            ("crypto_LUKS", _) => Holder::Luks,
            ("zfs_member", _) => Holder::Zfs,
            ("ceph_bluestore", _) => Holder::Ceph,
            (raid, _) if raid.ends_with("_raid_member") => Holder::Raid,
            _ => Holder::Filesystem { kind, label: self.label.clone() },
        }
    }
}

/// Whether udev made a link that only something with a file system's UUID or label has.
pub(super) fn has_content_link(disk: &DiskSpec) -> bool {
    let of_content = |link: &String| {
        ["/dev/disk/by-uuid/", "/dev/disk/by-label/"].iter().any(|folder| link.starts_with(folder))
    };
    disk.symlinks.iter().any(of_content)
}
