//! The rules of volumes, and of what a node has different about them.

use std::collections::BTreeSet;

use super::{Path, Rules};
use crate::intent::VolumeType::{Directory, Disk, Existing, Partition, Raw};
use crate::intent::{EncryptionKey, FilesystemType, Intent, MaxSize, Volume, VolumeType};
use crate::model::disks::{NEWEST, Selector};
use crate::yaml::PathPart;

/// Which types take a key; the others take none of it.
const KEYS: [(&[&str], &[VolumeType]); 13] = [
    (&["disk"], &[Partition, Disk, Raw, Existing]),
    (&["disk", "shared"], &[Partition, Raw]),
    (&["partition"], &[Existing]),
    (&["minSize"], &[Partition, Disk, Raw]),
    (&["maxSize"], &[Partition, Raw]),
    (&["grow"], &[Partition, Raw]),
    (&["filesystem"], &[Partition, Disk]),
    (&["encryption"], &[Partition, Disk, Raw]),
    (&["mount"], &[Partition, Disk, Directory, Existing]),
    (&["mount", "disableAccessTime"], &[Partition, Disk, Existing]),
    (&["mount", "readOnly"], &[Existing]),
    (&["trim"], &[Partition, Disk, Existing]),
    (&["scrub"], &[Partition, Disk, Existing]),
];

/// What Talos takes for the shortest time between two scrubs, in seconds.
const SHORTEST: u64 = 10;
/// What a GPT takes for a partition's label.
const LABEL: usize = 36;

impl Rules<'_> {
    pub(super) fn volumes(&self, intent: &Intent) {
        let before = self.faults.borrow().len();
        let mut seen = BTreeSet::new();
        for (i, volume) in intent.volumes.iter().enumerate() {
            let base = ["volumes".into(), i.into()];
            let name = &volume.name;
            let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            let good = letters && (1..=34).contains(&name.len());
            let found = format!("volume name `{name}` is not allowed");
            self.check(
                good,
                &under(&base, &["name"]),
                &found,
                "Talos takes 1 to 34 letters, digits and dashes",
            );
            let found = format!("volume {name} is listed twice");
            self.check(seen.insert(name), &under(&base, &["name"]), &found, "name each volume once");
            self.volume(&base, volume);
        }
        if let Some(ephemeral) = intent.ephemeral {
            self.size_is_some(&["ephemeral".into(), "maxSize".into()], ephemeral.max_size);
        }
        // What is wrong with all volumes is not said of each node again.
        if self.faults.borrow().len() == before {
            (0..intent.nodes.len()).for_each(|i| self.overrides(intent, i));
        }
    }

    fn overrides(&self, intent: &Intent, i: usize) {
        let Some(node) = intent.nodes.get(i) else { return };
        let base: [PathPart<'_>; 2] = ["nodes".into(), i.into()];
        for (key, value) in &node.labels {
            let path = under(&base, &["labels", key]);
            self.label(&path, key, value.as_deref().unwrap_or_default());
        }
        if let Some(ephemeral) = node.ephemeral {
            self.size_is_some(&under(&base, &["ephemeral", "maxSize"]), ephemeral.max_size);
        }
        let on = intent.on(&node.address);
        for (name, different) in &node.volumes {
            let path = under(&base, &["volumes", name]);
            let known: Vec<&str> = intent.volumes.iter().map(|volume| volume.name.as_str()).collect();
            let found = format!("there is no volume {name}");
            let allowed = format!("`volumes` lists {}", known.join(", "));
            self.check(known.contains(&name.as_str()), &path, &found, &allowed);
            if different.is_some() {
                on.volumes.iter().filter(|v| v.name == *name).for_each(|v| self.volume(&path, v));
            }
        }
    }

    fn volume(&self, base: Path<'_>, volume: &Volume) {
        self.keys(base, volume.kind);
        self.sizes(base, volume);
        let at = |keys: &[&'static str]| under(base, keys);
        let kind = volume.kind.name();
        if volume.kind != Directory {
            let found = format!("a volume of type {kind} needs `disk.match`");
            let good = !volume.disk.matches.is_empty();
            let there = self.check(good, &at(&["disk"]), &found, "write one such as disk.serial == \"…\"");
            let selector = Selector::parse(&volume.disk.matches);
            if let Err(e) = selector.and_then(|selector| selector.check(NEWEST))
                && there
            {
                let hint = e.hint.as_deref().unwrap_or("see `nodeprep discover --select`");
                self.check(false, &at(&["disk", "match"]), &e.what, hint);
            }
        }
        let quota = volume.filesystem.project_quota && volume.filesystem.kind != FilesystemType::Xfs;
        self.check(
            !quota,
            &at(&["filesystem", "projectQuota"]),
            "projectQuota needs an XFS filesystem",
            "set filesystem.type to xfs, or leave it out",
        );
        let label = volume.partition.as_ref().is_none_or(|label| (1..=LABEL).contains(&label.len()));
        let found = "a partition's label has 1 to 36 characters";
        self.check(label, &at(&["partition"]), found, "`nodeprep discover -o json` shows them");
        for (key, every) in [("trim", volume.trim), ("scrub", volume.scrub)] {
            let found = format!("{key}: {} is too often", every.map_or_else(String::new, |e| e.to_string()));
            let good = every.is_none_or(|every| every.0 >= SHORTEST);
            self.check(good, &at(&[key]), &found, "write one such as 168h");
        }
        self.encryption(base, volume);
    }

    /// No key that the type does not take.
    fn keys(&self, base: Path<'_>, kind: VolumeType) {
        for (keys, types) in KEYS {
            let path = under(base, keys);
            let written = self.stream.position(0, &path).is_some();
            let names: Vec<&str> = types.iter().map(|kind| kind.name()).collect();
            let found = format!("`{}` is nothing for a volume of type {}", keys.join("."), kind.name());
            let allowed = format!("leave it out; it is for {}", names.join(", "));
            self.check(!written || types.contains(&kind), &path, &found, &allowed);
        }
    }

    fn sizes(&self, base: Path<'_>, volume: &Volume) {
        let sized = matches!(volume.kind, Partition | Raw);
        let found = format!("a volume of type {} needs `minSize`", volume.kind.name());
        self.check(
            !sized || volume.min_size.is_some_and(|size| size.0 > 0),
            &under(base, &["minSize"]),
            &found,
            "write the least that will do, such as 100GiB; without it a leftover gap of a disk would be taken",
        );
        let path = under(base, &["maxSize"]);
        let most = volume.max_size.and_then(MaxSize::bytes);
        if let (Some(least), Some(most)) = (volume.min_size, most) {
            let found = format!("maxSize is smaller than minSize {least}");
            self.check(most >= least.0, &path, &found, "swap them");
        }
        if let Some(size) = volume.max_size {
            self.size_is_some(&path, size);
        }
        self.check(
            !volume.disk.shared || most.is_some(),
            &path,
            "a volume on a shared disk needs `maxSize`",
            "write it in bytes, such as 200GiB, so that the others have room",
        );
    }

    /// Talos takes nothing for "not set".
    fn size_is_some(&self, path: Path<'_>, size: MaxSize) {
        let allowed = "write a size such as 200GiB, 80% or -10GiB";
        self.check(!size.is_nothing(), path, "maxSize is nothing", allowed);
    }

    fn encryption(&self, base: Path<'_>, volume: &Volume) {
        let Some(encryption) = &volume.encryption else { return };
        let path = under(base, &["encryption", "keys"]);
        let some = !encryption.keys.is_empty();
        self.check(some, &path, "encryption without keys", "list nodeID, tpm, kms or static");
        for (i, key) in encryption.keys.iter().enumerate() {
            let mut path = path.clone();
            path.push(i.into());
            let good = match key {
                EncryptionKey::NodeId | EncryptionKey::Tpm => true,
                EncryptionKey::Kms(kms) => kms.endpoint.contains("://"),
                EncryptionKey::Static(from) => !from.key.is_empty() && !from.file.as_os_str().is_empty(),
            };
            let allowed =
                "kms needs an endpoint such as https://host:4443; static needs a SOPS file and a key";
            self.check(good, &path, "this key is not whole", allowed);
        }
    }
}

fn under<'p>(base: Path<'p>, keys: &[&'p str]) -> Vec<PathPart<'p>> {
    base.iter().copied().chain(keys.iter().map(|key| PathPart::Key(key))).collect()
}
