//! Wiping block devices: what Talos refuses, and what is left.

use super::volumes::device;
use super::{Machine, Refusal};

/// A block device to wipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The kernel's name at this boot, without `/dev/`.
    pub name: String,
    /// Take the partition out of the GPT.
    pub drop: bool,
}

impl Machine {
    /// Wipes block devices in this order, once none of them is found to be in use. Stricter than a real machine, which
    /// lets the boot partition of its own disk go.
    ///
    /// # Errors
    /// The refusal in Talos' words. What was wiped before a wipe that fails stays wiped.
    pub fn wipe(&mut self, devices: &[Device]) -> Result<(), Refusal> {
        devices.iter().try_for_each(|device| self.refuse_used(&device.name))?;
        devices.iter().try_for_each(|device| self.wipe_one(device))
    }

    fn refuse_used(&self, name: &str) -> Result<(), Refusal> {
        let disk = self.disks.iter().find(|disk| disk.index_of(name).is_some());
        let disk = disk.ok_or_else(|| not_found(name))?;
        let refused = |why: String| Err(Refusal::Precondition(format!("blockdevice {name:?} is {why}")));
        if disk.readonly {
            return refused("read-only".to_owned());
        }
        let uses = |(_, place, part): &(String, &str, String)| name == part || name == *place;
        match self.placed().into_iter().find(uses) {
            Some((volume, ..)) => refused(format!("in use by volume {volume:?}")),
            None => Ok(()),
        }
    }

    /// The volumes that are on a disk, or about to be found there, each with the names of its disk and of its partition.
    fn placed(&self) -> Vec<(String, &str, String)> {
        let user = self.volumes.keys().filter_map(|id| {
            let (disk, index, _) = device(self, id)?;
            Some((id.clone(), disk.name.as_str(), disk.partition(index)))
        });
        let own = self.system_disk().into_iter().flat_map(|disk| {
            let parts = disk.partitions().into_iter().rev();
            parts.map(move |(index, part)| (part.label, disk.name.as_str(), disk.partition(index)))
        });
        user.chain(own).collect()
    }

    fn wipe_one(&mut self, Device { name, drop }: &Device) -> Result<(), Refusal> {
        let found = self.disks.iter_mut().find_map(|disk| disk.index_of(name).map(|index| (disk, index)));
        let (disk, index) = found.ok_or_else(|| not_found(name))?;
        disk.wipe(index, *drop).map_err(Refusal::Internal)?;
        self.dirty = true;
        self.log(format!("[talos] block device {name} was wiped"));
        Ok(())
    }
}

fn not_found(name: &str) -> Refusal {
    Refusal::NotFound(format!("blockdevice {name:?} not found"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::machine::disks::Disk;
    use crate::scenario::Scenario;
    use crate::world::World;

    /// Talos on `sda`, a former cluster's volume on `sdb`, a file system on `sdc`, an MBR on `sdd`, an older Talos on
    /// `sde`, and `sdf`, which is read-only.
    const DISKS: &str = "machines: [{disks: [{name: sda, size: 1TB, holds: talos}, \
                         {name: sdb, size: 1TB, holds: u-old}, {name: sdc, size: 1TB, holds: xfs}, \
                         {name: sdd, size: 1TB, holds: mbr}, {name: sde, size: 1TB, holds: talos}, \
                         {name: sdf, size: 1TB, holds: xfs, readonly: true}]}]";
    const VOLUME: &str = "---\napiVersion: v1alpha1\nkind: UserVolumeConfig\nname: old\nprovisioning:\n  \
                          diskSelector: {match: '!system_disk'}\n  minSize: 1GB\n";

    fn world() -> World {
        World::new(&Scenario::parse("scenario", DISKS).unwrap(), Timestamp::UNIX_EPOCH)
    }

    /// `sdb1-drop sdb`
    fn devices(text: &str) -> Vec<Device> {
        let device = |word: &str| Device {
            name: word.trim_end_matches("-drop").to_owned(),
            drop: word.ends_with("-drop"),
        };
        text.split(' ').map(device).collect()
    }

    /// What Talos and udev see on each disk but the first: format, udev's line, and partitions with label and format.
    fn seen(world: &World) -> Vec<String> {
        let machine = &world.machines["10.5.0.2"];
        let discovered: Vec<_> = machine.published.of("DiscoveredVolumes.block.talos.dev").collect();
        let kernel: Vec<_> = machine.published.of("BlockDevices.block.talos.dev").collect();
        let of = |(place, disk): (u64, &Disk)| {
            let (_, whole) = discovered.iter().find(|(id, _)| **id == disk.name).unwrap();
            let record = disk.record(place, &format!("/run/udev/data/b259:{}", place * 64)).unwrap();
            let line =
                record.lines().find(|line| line.starts_with("E:ID_FS") || line.starts_with("E:ID_PART"));
            let parts = discovered.iter().filter(|(_, it)| it.spec["parent"] == disk.name.as_str());
            let parts = parts.map(|(id, it)| {
                let said = |key: &str| it.spec[key].as_str().unwrap().to_owned();
                format!(" {id}={}/{}", said("partition_label"), said("name"))
            });
            let listed = kernel.iter().filter(|(_, it)| it.spec["parent"] == disk.name.as_str()).count();
            let line = line.and_then(|line| line.split('=').nth(1)).unwrap_or("-");
            format!("{}:{line}:{listed}{}", whole.spec["name"].as_str().unwrap(), parts.collect::<String>())
        };
        (0..).zip(&machine.disks).skip(1).map(of).collect()
    }

    #[test]
    fn a_wipe_takes_what_is_named_and_nothing_else() {
        let talos = "gpt:gpt:4 sde1=EFI/vfat sde2=META/talosmeta sde3=STATE/xfs sde4=EPHEMERAL/xfs";
        let before = ["gpt:gpt:1 sdb1=u-old/xfs", "xfs:xfs:0", ":dos:1", talos, "xfs:xfs:0"];
        for (wiped, place, after) in [
            ("sdb", 0, ":-:0"),
            ("sdb1", 0, "gpt:gpt:1 sdb1=u-old/"),
            ("sdb1-drop", 0, "gpt:gpt:0"),
            ("sdb1-drop sdb", 0, ":-:0"),
            ("sdc", 1, ":-:0"),
            ("sdc-drop", 1, ":-:0"),
            ("sdd", 2, ":-:0"),
            ("sdd1 sdd", 2, ":-:0"),
            ("sde2-drop", 3, "gpt:gpt:3 sde1=EFI/vfat sde3=STATE/xfs sde4=EPHEMERAL/xfs"),
            ("sde1-drop sde2-drop sde3-drop sde4-drop sde", 3, ":-:0"),
        ] {
            let mut world = world();
            assert_eq!(seen(&world), before);
            let (machine, _) = world.machine("10.5.0.2").unwrap();
            assert_eq!(machine.wipe(&devices(wiped)), Ok(()), "{wiped}");
            world.settle(Timestamp::UNIX_EPOCH);
            let mut expected = before;
            expected[place] = after;
            assert_eq!(seen(&world), expected, "{wiped}");
        }
    }

    #[test]
    fn what_is_not_there_or_in_use_is_refused_before_anything_is_wiped() {
        let mut world = world();
        let now = |second| Timestamp::from_second(second).unwrap();
        let (machine, _) = world.machine("10.5.0.2").unwrap();
        let active = machine.active.take().unwrap_or_default() + VOLUME;
        machine.active = Some(active);
        machine.dirty = true;
        (0..10).for_each(|second| world.settle(now(second)));
        let before = seen(&world);
        let (machine, _) = world.machine("10.5.0.2").unwrap();
        assert!(machine.host.mounts.contains_key("/var/mnt/old"), "the volume was adopted");
        let used = |device: &str, volume: &str| {
            Refusal::Precondition(format!("blockdevice {device:?} is in use by volume {volume:?}"))
        };
        for (device, refusal) in [
            ("sdz", not_found("sdz")),
            ("sdc1", not_found("sdc1")),
            ("/dev/sdc", not_found("/dev/sdc")),
            ("sda", used("sda", "EPHEMERAL")),
            ("sda1-drop", used("sda1", "EFI")),
            ("sda4-drop", used("sda4", "EPHEMERAL")),
            ("sdb", used("sdb", "u-old")),
            ("sdb1-drop", used("sdb1", "u-old")),
            ("sdf", Refusal::Precondition("blockdevice \"sdf\" is read-only".into())),
        ] {
            assert_eq!(machine.wipe(&devices(&format!("sdc {device}"))), Err(refusal), "{device}");
        }
        assert_eq!(
            machine.wipe(&devices("sdd1-drop")),
            Err(Refusal::Internal("failed to read GPT table".into()))
        );
        world.settle(now(20));
        assert_eq!(seen(&world), before);
    }
}
