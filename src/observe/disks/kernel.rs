//! What the kernel has at this moment, by its own list. Talos' list of block devices is kept by news, and may go on having a
//! partition that was deleted (seen on v1.11.5: its table was written, and the kernel had told that it is gone).

use std::collections::BTreeSet;

use super::Facts;
use crate::talos::resources::{BlockDevice, Item};

/// Where the list lies (proc(5)).
pub const PATH: &str = "/proc/partitions";
/// The longest list that is read, in bytes; a line has about 30.
pub const LONGEST: usize = 1 << 20;

/// The disks and partitions that the kernel has.
#[derive(Debug)]
pub struct Kernel {
    names: BTreeSet<String>,
    numbers: BTreeSet<(u32, u32)>,
}

impl Kernel {
    /// Reads the list; none when a line is not as expected, since what is not in it is not there.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter(|line| !line.is_empty());
        let heads = lines.next()?.split_whitespace();
        if !heads.eq(["major", "minor", "#blocks", "name"]) {
            return None;
        }
        let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
        for line in lines {
            let mut fields = line.split_whitespace();
            let (major, minor, _, name) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            numbers.insert((major.parse().ok()?, minor.parse().ok()?));
            names.insert(name.to_owned());
        }
        text.ends_with('\n').then_some(Self { names, numbers })
    }

    /// Whether a partition is only on Talos' list: the kernel has its disk, and neither its name nor its number.
    fn lacks(&self, Item { id, spec, .. }: &Item<BlockDevice>) -> bool {
        self.names.contains(&spec.parent)
            && !self.names.contains(id)
            && !self.numbers.contains(&(spec.major, spec.minor))
    }
}

/// Whether Talos lists the partition, and recognised nothing there: of a table that it does not know, or of none any more.
fn is_doubtful(facts: &Facts, device: &Item<BlockDevice>) -> bool {
    device.spec.kind == "partition" && facts.discovered.iter().all(|found| found.id != device.id)
}

/// Whether the kernel is to be asked.
pub fn is_needed(facts: &Facts) -> bool {
    facts.devices.iter().any(|device| is_doubtful(facts, device))
}

/// Without the partitions that are not there any more.
pub fn without_deleted(mut facts: Facts, kernel: &Kernel) -> Facts {
    let devices = std::mem::take(&mut facts.devices);
    let there = |device: &Item<BlockDevice>| !(is_doubtful(&facts, device) && kernel.lacks(device));
    let devices = devices.into_iter().filter(there).collect();
    Facts { devices, ..facts }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::talos::resources::DiscoveredVolume;

    const LIST: &str = "major minor  #blocks  name\n\n 259        0    5242880 nvme1n1\n 259        1    5242880 nvme0n1\n \
                        259        3    5240832 nvme0n1p1\n";

    fn item<T>(id: &str, spec: T) -> Item<T> {
        Item { id: id.into(), version: "1".into(), labels: BTreeMap::new(), spec }
    }

    fn part(parent: &str, minor: u32) -> Item<BlockDevice> {
        let spec = BlockDevice {
            kind: "partition".into(),
            parent: parent.into(),
            major: 259,
            minor,
            ..BlockDevice::default()
        };
        item(&format!("{parent}p1"), spec)
    }

    #[test]
    fn a_partition_is_gone_only_when_nobody_but_talos_list_has_it() {
        let found =
            |id: &str| item(id, DiscoveredVolume { kind: "partition".into(), ..DiscoveredVolume::default() });
        for (name, device, discovered, there) in [
            ("deleted", part("nvme1n1", 4), vec![], false),
            ("recognised by Talos", part("nvme1n1", 4), vec![found("nvme1n1p1")], true),
            ("its number is in use", part("nvme1n1", 3), vec![], true),
            ("of a table that Talos does not know", part("nvme0n1", 3), vec![], true),
            ("by its name", part("nvme0n1", 9), vec![], true),
            ("of a disk that the kernel does not list", part("nvme7n1", 9), vec![], true),
        ] {
            let facts = Facts { devices: vec![device], discovered, ..Facts::default() };
            assert_eq!(is_needed(&facts), facts.discovered.is_empty(), "{name}");
            let left = without_deleted(facts, &Kernel::parse(LIST).expect("a list")).devices;
            assert_eq!(!left.is_empty(), there, "{name}");
        }
    }

    #[test]
    fn a_list_that_is_cut_off_or_none_is_not_believed() {
        for text in ["", "\n", "nvme0n1\n", &LIST[..LIST.len() - 1], &LIST[..LIST.len() - 12], &LIST[28..]] {
            assert!(Kernel::parse(text).is_none(), "{text:?}");
        }
        assert!(Kernel::parse("major minor  #blocks  name\n\n").is_some(), "a machine without disks");
    }
}
