//! What the kernel has at this moment, by its own list. Talos' list of block devices is kept by news, and may go on having a
//! partition that was deleted (seen on v1.11.5: its table was written, and the kernel had told that it is gone).

use std::collections::BTreeSet;

use super::Facts;
use crate::model::resources::{BlockDevice, DiscoveredVolume, Item};

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
    /// Reads the list; none when a line is not as expected, since what is not in it does not exist.
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
fn is_doubtful(discovered: &[Item<DiscoveredVolume>], device: &Item<BlockDevice>) -> bool {
    device.spec.kind == "partition" && discovered.iter().all(|found| found.id != device.id)
}

/// Whether the kernel is to be asked.
pub fn is_needed(facts: &Facts) -> bool {
    facts.devices.iter().any(|device| is_doubtful(&facts.discovered, device))
}

/// Takes out the partitions that do not exist any more.
pub fn drop_deleted(facts: &mut Facts, kernel: &Kernel) {
    let Facts { devices, discovered, .. } = facts;
    devices.retain(|device| !(is_doubtful(discovered, device) && kernel.lacks(device)));
}

#[cfg(test)]
mod tests {
    use super::super::tests::{listed, part};
    use super::*;

    const LIST: &str = "major minor  #blocks  name\n\n 259        0    5242880 nvme1n1\n 259        1    5242880 nvme0n1\n \
                        259        3    5240832 nvme0n1p1\n";

    /// The first partition of a disk, as Talos lists it.
    fn first(disk: &str, minor: u32) -> Item<BlockDevice> {
        let mut first = listed(disk, 1);
        (first.spec.major, first.spec.minor) = (259, minor);
        first
    }

    #[test]
    fn a_partition_is_gone_only_when_nobody_but_talos_list_has_it() {
        for (name, device, discovered, there) in [
            ("deleted", first("nvme1n1", 4), vec![], false),
            ("recognised by Talos", first("nvme1n1", 4), vec![part("nvme1n1", 1, "", "")], true),
            ("its number is in use", first("nvme1n1", 3), vec![], true),
            ("of a table that Talos does not know", first("nvme0n1", 3), vec![], true),
            ("by its name", first("nvme0n1", 9), vec![], true),
            ("of a disk that the kernel does not list", first("nvme7n1", 9), vec![], true),
        ] {
            let mut facts = Facts { devices: vec![device], discovered, ..Facts::default() };
            assert_eq!(is_needed(&facts), facts.discovered.is_empty(), "{name}");
            drop_deleted(&mut facts, &Kernel::parse(LIST).expect("a list"));
            assert_eq!(!facts.devices.is_empty(), there, "{name}");
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
