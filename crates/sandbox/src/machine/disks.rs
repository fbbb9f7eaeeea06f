//! A machine's disks, what is on them, and how Talos tells of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::host::Speed;
use crate::model::disks::{Disk as Observed, Holder, Uses};
use crate::model::resources::DiskSpec;

/// A disk of a simulated machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Disk {
    /// The kernel's name at this boot, such as `nvme0n1`.
    pub name: String,
    #[serde(default)]
    pub model: String,
    #[serde(default)]
    pub serial: String,
    #[serde(default)]
    pub wwid: String,
    /// In bytes.
    pub size: u64,
    /// Such as `nvme`, `sata` or `usb`.
    #[serde(default)]
    pub transport: String,
    #[serde(default)]
    pub rotational: bool,
    #[serde(default)]
    pub readonly: bool,
    #[serde(default)]
    pub mkfs_fails: bool,
    #[serde(default)]
    pub contents: Contents,
    /// The volume that has all of it; nothing on the disk says so.
    #[serde(default)]
    pub volume: Option<String>,
    #[serde(default)]
    pub speed: Speed,
}

/// What is on a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Contents {
    #[default]
    Nothing,
    /// Talos' own partitions.
    Talos,
    /// A GPT with these partitions, by index from 1. A partition that goes leaves the others their indices.
    Gpt(BTreeMap<usize, Partition>),
    /// A table that Talos does not recognise, with so many partitions that only the kernel knows of.
    Mbr(u32),
    /// Something on the whole disk: in Talos' words, such as `xfs`, `lvm2-pv` or `luks`, or what only udev recognises,
    /// in its words, such as `ntfs` or `linux_raid_member`.
    Whole(String),
}

/// A partition of a GPT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Partition {
    pub label: String,
    /// Such as `xfs`; empty when nothing is recognised.
    #[serde(default)]
    pub format: String,
    /// In bytes.
    pub size: u64,
}

/// What Talos recognises on a whole disk (siderolabs/go-blockdevice, blkid).
const RECOGNISED: [&str; 14] = [
    "xfs",
    "ext2",
    "ext3",
    "ext4",
    "vfat",
    "btrfs",
    "iso9660",
    "squashfs",
    "swap",
    "luks",
    "lvm2-pv",
    "bluestore",
    "zfs",
    "talosmeta",
];

/// The major number of NVMe disks' devices; here of all.
const MAJOR: u64 = 259;
/// So many minor numbers are one disk's.
const MINORS: u64 = 64;

/// What a GPT takes for itself, in bytes.
const TABLE: u64 = 2 << 20;

/// The label of Talos' own data partition.
pub const EPHEMERAL: &str = "EPHEMERAL";
/// Of a partition that only Talos' own disk has.
const META: &str = "META";

impl Disk {
    /// Whether Talos is installed on it.
    pub fn is_system(&self) -> bool {
        match &self.contents {
            Contents::Talos => true,
            Contents::Gpt(partitions) => partitions.values().any(|partition| partition.label == META),
            Contents::Nothing | Contents::Mbr(_) | Contents::Whole(_) => false,
        }
    }

    /// Makes Talos' data partition as small as this says of the space there is for it.
    pub fn limit_ephemeral(&mut self, most: impl Fn(u64) -> u64) {
        let mut partitions = self.partitions();
        if let Some(own) = partitions.values_mut().find(|partition| partition.label == EPHEMERAL)
            && most(own.size) < own.size
        {
            own.size = most(own.size);
            self.contents = Contents::Gpt(partitions);
        }
    }

    /// Takes Talos' data partition away, if it is on this disk.
    pub fn drop_ephemeral(&mut self) {
        if self.labelled(EPHEMERAL).is_some() {
            let mut partitions = self.partitions();
            partitions.retain(|_, partition| partition.label != EPHEMERAL);
            self.contents = Contents::Gpt(partitions);
        }
    }

    pub fn path(&self) -> String {
        format!("/dev/{}", self.name)
    }

    /// The name that udev links to it; none without a serial.
    fn link(&self) -> Option<String> {
        let link = format!("/dev/disk/by-id/{}-{}_{}", self.transport, self.model, self.serial);
        (!self.serial.is_empty()).then(|| link.replace(' ', "_"))
    }

    /// Whether this path leads to it.
    pub fn is_at(&self, path: &str) -> bool {
        path == self.path() || self.link().as_deref() == Some(path)
    }

    /// What Talos recognises on the whole disk, such as `gpt` or `xfs`; empty when it takes the disk for blank.
    pub fn format(&self) -> &str {
        match &self.contents {
            Contents::Nothing | Contents::Mbr(_) => "",
            Contents::Talos | Contents::Gpt(_) => "gpt",
            Contents::Whole(format) if RECOGNISED.contains(&format.as_str()) => format,
            Contents::Whole(_) => "",
        }
    }

    /// The kernel's name of a partition, from 1; of the disk itself at 0.
    pub fn partition(&self, index: usize) -> String {
        if index == 0 {
            return self.name.clone();
        }
        let p = if self.name.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
        format!("{}{p}{index}", self.name)
    }

    /// The index of the device of this name: of a partition, or 0 of the disk itself.
    pub fn index_of(&self, device: &str) -> Option<usize> {
        if device == self.name {
            return Some(0);
        }
        self.indices().into_iter().find(|index| self.partition(*index) == device)
    }

    /// The indices of the partitions that the kernel knows of.
    fn indices(&self) -> Vec<usize> {
        match &self.contents {
            Contents::Mbr(count) => (1..=usize::try_from(*count).unwrap_or_default()).collect(),
            _ => self.partitions().into_keys().collect(),
        }
    }

    /// The partitions that Talos recognises, by index.
    pub fn partitions(&self) -> BTreeMap<usize, Partition> {
        let own = |label: &str, format: &str, size| Partition {
            label: label.to_owned(),
            format: format.to_owned(),
            size,
        };
        match &self.contents {
            Contents::Nothing | Contents::Whole(_) | Contents::Mbr(_) => BTreeMap::new(),
            Contents::Gpt(partitions) => partitions.clone(),
            Contents::Talos => {
                let system = [
                    own("EFI", "vfat", 2 << 30),
                    own(META, "talosmeta", 1 << 20),
                    own("STATE", "xfs", 100 << 20),
                ];
                let taken: u64 = system.iter().map(|partition| partition.size).sum();
                let rest = own(EPHEMERAL, "xfs", self.size.saturating_sub(taken + TABLE));
                (1..).zip(system.into_iter().chain([rest])).collect()
            }
        }
    }

    /// The partition that carries this label, and its index.
    pub fn labelled(&self, label: &str) -> Option<(usize, Partition)> {
        self.partitions().into_iter().find(|(_, partition)| partition.label == label)
    }

    /// Where the volume of this id is: its partition, or the whole disk, at index 0.
    pub fn holding(&self, id: &str) -> Option<(usize, Partition)> {
        match &self.contents {
            Contents::Whole(format) if self.volume.as_deref() == Some(id) => {
                Some((0, Partition { label: id.to_owned(), format: format.clone(), size: self.size }))
            }
            _ => self.labelled(id),
        }
    }

    /// What is at this index: a partition, or at 0 the whole disk.
    pub fn at(&self, index: usize) -> Option<(usize, Partition)> {
        let whole = || Partition { label: String::new(), format: self.format().to_owned(), size: self.size };
        let found = if index == 0 { Some(whole()) } else { self.partitions().remove(&index) };
        found.map(|partition| (index, partition))
    }

    /// Gives all of the disk to the volume of this id, with a file system of this kind.
    ///
    /// # Errors
    /// In Talos' words: it has another format.
    pub fn give(&mut self, id: &str, format: &str) -> Result<(), String> {
        if !["", format].contains(&self.format()) {
            return Err(format!("filesystem type mismatch: {} != {format}", self.format()));
        }
        self.contents = Contents::Whole(format.to_owned());
        self.volume = Some(id.to_owned());
        Ok(())
    }

    /// Formats the partition of this label if it was wiped.
    pub fn format_wiped(&mut self, label: &str, format: &str) {
        let wiped = |found: &&mut Partition| found.label == label && found.format.is_empty();
        if let Contents::Gpt(partitions) = &mut self.contents
            && let Some(partition) = partitions.values_mut().find(wiped)
        {
            format.clone_into(&mut partition.format);
        }
    }

    /// What is left for another partition, in bytes; nothing when the disk holds something else.
    pub fn free(&self) -> Option<u64> {
        let taken: u64 = match &self.contents {
            Contents::Nothing | Contents::Mbr(_) => 0,
            Contents::Gpt(partitions) => partitions.values().map(|partition| partition.size).sum(),
            Contents::Whole(format) if !RECOGNISED.contains(&format.as_str()) => 0,
            Contents::Talos | Contents::Whole(_) => return None,
        };
        Some(self.size.saturating_sub(taken + TABLE))
    }

    /// Adds a partition, over whatever Talos takes for nothing; its index, the first that is not taken.
    pub fn add(&mut self, partition: Partition) -> usize {
        let mut partitions = match std::mem::take(&mut self.contents) {
            Contents::Gpt(partitions) => partitions,
            _ => BTreeMap::new(),
        };
        let taken = (1_usize..).zip(partitions.keys()).take_while(|(index, key)| index == *key).count();
        partitions.insert(taken + 1, partition);
        self.contents = Contents::Gpt(partitions);
        taken + 1
    }

    /// Wipes the partition of this index, and takes it out of the table when it is to be dropped; all of the disk at 0.
    ///
    /// # Errors
    /// There is no GPT to take it out of.
    pub fn wipe(&mut self, index: usize, drop: bool) -> Result<(), String> {
        if index == 0 {
            self.contents = Contents::Nothing;
            return Ok(());
        }
        if self.format() != "gpt" {
            // What is on the partitions of other tables is not simulated.
            return if drop { Err("failed to read GPT table".to_owned()) } else { Ok(()) };
        }
        let mut partitions = self.partitions();
        if drop {
            partitions.remove(&index);
        } else if let Some(partition) = partitions.get_mut(&index) {
            partition.format.clear();
        }
        self.contents = Contents::Gpt(partitions);
        Ok(())
    }

    pub fn spec(&self) -> Value {
        let mut spec = json!({
            "dev_path": self.path(), "size": self.size, "pretty_size": pretty(self.size), "io_size": 512,
            "sector_size": 512, "readonly": self.readonly, "cdrom": false,
            "bus_path": format!("/virtual/{}", self.name), "sub_system": "/sys/class/block",
        });
        let said = [
            ("model", &self.model),
            ("serial", &self.serial),
            ("wwid", &self.wwid),
            ("transport", &self.transport),
        ];
        for (key, value) in said.into_iter().filter(|(_, value)| !value.is_empty()) {
            spec[key] = json!(value);
        }
        if self.rotational {
            spec["rotational"] = json!(true);
        }
        if let Some(link) = self.link() {
            spec["symlinks"] = json!([link]);
        }
        spec
    }

    /// For the evaluation of selectors, which Talos does over the same fields.
    pub fn observed(&self) -> Observed {
        let spec: DiskSpec = serde_json::from_value(self.spec()).unwrap_or_default();
        Observed {
            id: self.name.clone(),
            spec,
            system: self.is_system(),
            holder: Holder::Unknown(String::new()),
            partitions: Vec::new(),
            uses: Uses::default(),
            eligible: Ok(()),
        }
    }

    /// Ids and specs of what Talos discovers on it: the disk and its partitions.
    pub fn discovered(&self) -> Vec<(String, Value)> {
        let sizes = |size: u64| json!({"size": size, "pretty_size": pretty(size), "sector_size": 512, "io_size": 512});
        let mut whole = sizes(self.size);
        whole["dev_path"] = json!(self.path());
        whole["type"] = json!("disk");
        whole["name"] = json!(self.format());
        let mut found = vec![(self.name.clone(), whole)];
        for (index, partition) in self.partitions() {
            let name = self.partition(index);
            let mut spec = sizes(partition.size);
            spec["dev_path"] = json!(format!("/dev/{name}"));
            spec["type"] = json!("partition");
            spec["parent"] = json!(self.name);
            spec["parent_dev_path"] = json!(self.path());
            spec["name"] = json!(partition.format);
            spec["partition_label"] = json!(partition.label);
            spec["partition_index"] = json!(index);
            found.push((name, spec));
        }
        found
    }

    /// What udev's record of it says; `place` is its place among the machine's disks. Nothing when another device is
    /// at this path.
    pub fn record(&self, place: u64, path: &str) -> Option<String> {
        let found = match &self.contents {
            Contents::Nothing => String::new(),
            Contents::Talos | Contents::Gpt(_) => "E:ID_PART_TABLE_TYPE=gpt\n".to_owned(),
            Contents::Mbr(_) => "E:ID_PART_TABLE_TYPE=dos\n".to_owned(),
            Contents::Whole(format) => format!("E:ID_FS_TYPE={format}\n"),
        };
        let own = format!("/run/udev/data/b{MAJOR}:{}", place * MINORS);
        (path == own).then(|| format!("I:1000000\nE:ID_SERIAL={}\n{found}V:1\n", self.serial))
    }

    /// Its lines in the kernel's list of what it has, in KiB; `place` is its place among the machine's disks.
    pub fn listed(&self, place: u64) -> String {
        let (labels, indices) = (self.partitions(), self.indices());
        let share = self.size / (indices.len() as u64).max(1);
        let parts = indices.into_iter().map(|index| {
            let size = labels.get(&index).map_or(share, |partition| partition.size);
            (index as u64, size, self.partition(index))
        });
        let lines = std::iter::once((0, self.size, self.name.clone())).chain(parts);
        let line = |(index, size, name): (u64, u64, String)| {
            format!("{MAJOR:4} {:8} {:10} {name}\n", place * MINORS + index, size / 1024)
        };
        lines.map(line).collect()
    }

    /// Ids and specs of the kernel's devices; `place` is its place among the machine's disks.
    pub fn devices(&self, place: u64) -> Vec<(String, Value)> {
        let first = place * MINORS;
        let mut found = vec![(self.name.clone(), json!({"type": "disk", "major": MAJOR, "minor": first}))];
        let labels = self.partitions();
        for index in self.indices() {
            let label = labels.get(&index).map_or("", |partition| partition.label.as_str());
            let spec = json!({
                "type": "partition", "major": MAJOR, "minor": first + index as u64, "partitionName": label,
                "partitionNumber": index, "parent": self.name,
            });
            found.push((self.partition(index), spec));
        }
        found
    }
}

/// As Talos shows sizes to people: decimal, two figures.
pub fn pretty(size: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (size as f64, 0);
    while value >= 999.5 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(value < 9.95 && unit > 0);
    format!("{value:.digits$} {}", UNITS.get(unit).unwrap_or(&"B"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_talos_writes_them() {
        for (size, text) in
            [(0, "0 B"), (1 << 20, "1.0 MB"), (114_192_384, "114 MB"), (4_292_870_144, "4.3 GB")]
        {
            assert_eq!(pretty(size), text);
        }
    }

    #[test]
    fn a_partition_goes_on_what_talos_takes_for_nothing() {
        for (contents, free) in [
            (Contents::Nothing, true),
            (Contents::Mbr(2), true),
            (Contents::Whole("xfs".into()), false),
            (Contents::Whole("ntfs".into()), true),
            (Contents::Talos, false),
        ] {
            let disk = Disk { size: 1 << 40, contents: contents.clone(), ..Disk::default() };
            assert_eq!(disk.free().is_some(), free, "{contents:?}");
        }
        let mut disk = Disk { name: "nvme0n1".into(), size: 1 << 40, ..Disk::default() };
        let index = disk.add(Partition { label: "u-a".into(), format: "xfs".into(), size: 1 << 39 });
        assert_eq!(disk.partition(index), "nvme0n1p1");
        assert_eq!(disk.free(), Some((1 << 39) - TABLE));
        assert_eq!(Disk { name: "sda".into(), ..Disk::default() }.partition(4), "sda4");
    }

    #[test]
    fn a_partition_that_goes_leaves_the_others_where_they_are() {
        let mut disk = Disk { name: "sda".into(), size: 1 << 40, ..Disk::default() };
        let mut add = |label: &str| disk.add(Partition { label: label.into(), ..Partition::default() });
        assert_eq!([add("a"), add("b"), add("c")], [1, 2, 3]);
        disk.wipe(2, true).unwrap();
        let labels = |disk: &Disk| disk.partitions().into_values().map(|p| p.label).collect::<String>();
        assert_eq!(
            (labels(&disk).as_str(), disk.index_of("sda2"), disk.index_of("sda3")),
            ("ac", None, Some(3))
        );
        assert_eq!(disk.add(Partition { label: "d".into(), ..Partition::default() }), 2);
        assert_eq!(labels(&disk), "adc");
    }
}
