//! What a machine shows to the programs that run on it: its mounted file systems and what lies on them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Where Talos mounts user volumes.
pub const USER_VOLUMES: &str = "/var/mnt/";
/// What of `/var` Talos mounts into its kubelet by itself.
const KUBELET: [&str; 5] =
    ["/var/lib/containerd", "/var/lib/kubelet", "/var/log/containers", "/var/log/pods", "/var/mnt"];

/// A machine as its containers see it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// The name of its Node object.
    pub name: String,
    /// Off, or on its way up: nothing runs on it.
    pub down: bool,
    /// By mount point. `/var` is always there.
    pub mounts: BTreeMap<String, FileSystem>,
    /// Mount points that the kubelet does not see: it sees an empty read-only directory of the file system below.
    pub hidden: BTreeSet<String>,
    /// What the configuration mounts into the kubelet besides: destination and source.
    #[serde(default)]
    pub extra: BTreeMap<String, String>,
}

/// A mounted file system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FileSystem {
    /// Such as `/dev/nvme0n1p1`.
    pub source: String,
    /// The folder of it that is mounted, such as `/mnt/data`; nothing when it is all of it.
    #[serde(default)]
    pub root: String,
    /// Such as `xfs`.
    pub kind: String,
    /// Such as `rw` and `noexec`.
    pub options: Vec<String>,
    /// In bytes.
    pub size: u64,
    /// In bytes, without `files`.
    pub used: u64,
    pub speed: Speed,
    /// Directories by their path within the file system, such as `/pvc-1`.
    pub directories: BTreeMap<String, Directory>,
}

/// What a disk can do; what fio finds on it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Random writes of 4 KiB a second.
    pub iops: f64,
    /// In microseconds.
    pub p50: f64,
    /// In microseconds.
    pub p99: f64,
}

impl Default for Speed {
    /// Of a common NVMe disk.
    fn default() -> Self {
        Self { iops: 182_000.0, p50: 160.0, p99: 420.0 }
    }
}

/// A directory that was made for a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    pub files: BTreeMap<String, File>,
}

/// A file, or a folder or symlink of a volume whose program made such.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// In bytes.
    pub size: u64,
    /// Of its content, in hex.
    pub sha256: String,
    /// Its content, where that is a text that a program wrote; of a symlink its target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// None of a plain file: root's, which all may read, of one name and without holes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<Inode>,
}

/// What a file system keeps beside a file's content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode {
    /// As the kernel has it: the type and the permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// In seconds since 1970.
    pub modified: i64,
    /// How many names it has.
    pub links: u64,
    /// Of 512 bytes, on the disk.
    pub blocks: u64,
}

impl File {
    /// Whether it is one, and neither folder nor symlink.
    pub fn is_file(&self) -> bool {
        self.inode.is_none_or(|inode| inode.mode >> 12 == 0o10)
    }

    /// How much of the disk it takes, in bytes; what several names share is divided among them.
    pub fn takes(&self) -> u64 {
        self.inode.map_or(self.size, |inode| (inode.blocks * 512).min(self.size) / inode.links.max(1))
    }
}

/// Where a path of the host lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The mount point of its file system.
    pub mount: String,
    /// Its path within that file system, such as `/pvc-1`.
    pub root: String,
    /// Nothing can be written there.
    pub read_only: bool,
}

impl Host {
    /// Where a path lies for the container runtime, which sees everything that is mounted.
    pub fn place(&self, path: &str) -> Option<Place> {
        self.within(path, |_| true).map(|(mount, root)| Place { mount, root, read_only: false })
    }

    /// Where a path lies for the kubelet and the pods that it mounts it into.
    pub fn place_for_kubelet(&self, path: &str) -> Option<Place> {
        let extra = self.extra.iter().filter_map(|(point, source)| Some((source, below(path, point)?)));
        if let Some((source, rest)) = extra.min_by_key(|(_, rest)| rest.len()) {
            return self.place(&format!("{source}{rest}"));
        }
        if !KUBELET.iter().any(|seen| below(path, seen).is_some()) {
            return None;
        }
        let (mount, root) = self.within(path, |point| !self.hidden.contains(point))?;
        // Talos mounts user volumes into the kubelet; what else lies below /var/mnt is only there to read.
        let read_only = path.starts_with(USER_VOLUMES) && !mount.starts_with(USER_VOLUMES);
        Some(Place { mount, root, read_only })
    }

    fn within(&self, path: &str, seen: impl Fn(&str) -> bool) -> Option<(String, String)> {
        let points = self.mounts.keys().filter(|point| seen(point));
        let within = points.filter_map(|point| Some((point, below(path, point)?)));
        let (point, rest) = within.max_by_key(|(point, _)| point.len())?;
        let root = if rest.is_empty() { "/" } else { rest };
        Some((point.clone(), root.to_owned()))
    }

    pub fn directory(&self, place: &Place) -> Option<&Directory> {
        self.mounts.get(&place.mount)?.directories.get(&place.root)
    }

    /// Makes a directory, where its file system is mounted; one that exists stays as it is.
    pub fn make_directory(&mut self, place: &Place) {
        if let Some(system) = self.mounts.get_mut(&place.mount) {
            system.directories.entry(place.root.clone()).or_default();
        }
    }

    /// Removes a directory and all below it.
    pub fn remove_directory(&mut self, place: &Place) {
        if let Some(system) = self.mounts.get_mut(&place.mount) {
            system.directories.retain(|root, _| below(root, &place.root).is_none());
        }
    }

    pub fn directory_mut(&mut self, place: &Place) -> Option<&mut Directory> {
        self.mounts.get_mut(&place.mount)?.directories.get_mut(&place.root)
    }
}

/// What a path says after a folder's, empty for the folder itself; none when it lies elsewhere.
pub fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    path.strip_prefix(folder).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl FileSystem {
    /// In bytes.
    pub fn available(&self) -> u64 {
        let files = self.directories.values().flat_map(|directory| directory.files.values());
        self.size.saturating_sub(self.used).saturating_sub(files.map(File::takes).sum())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_on_the_nearest_mount_that_is_seen() {
        let mut host = Host::default();
        for point in ["/var", "/var/mnt/openebs"] {
            host.mounts.insert(point.into(), FileSystem::default());
        }
        let volume = "/var/mnt/openebs/pvc-1";
        let own = Place { mount: "/var/mnt/openebs".into(), root: "/pvc-1".into(), read_only: false };
        let below = Place { mount: "/var".into(), root: "/mnt/openebs/pvc-1".into(), read_only: true };
        assert_eq!(host.place(volume).unwrap(), own);
        assert_eq!(host.place_for_kubelet(volume).unwrap(), own);
        host.hidden.insert("/var/mnt/openebs".into());
        assert_eq!(host.place(volume).unwrap(), own);
        assert_eq!(host.place_for_kubelet(volume).unwrap(), below);
        assert_eq!(host.place("/var/mnt/openebsx").unwrap().mount, "/var");
        assert!(host.place("/proc").is_none());
    }

    #[test]
    fn the_kubelet_sees_of_var_what_talos_and_the_configuration_mount_into_it() {
        let mut host = Host::default();
        for point in ["/var", "/var/mnt/openebs"] {
            host.mounts.insert(point.into(), FileSystem::default());
        }
        let other = "/var/openebs/local/pvc-1";
        assert!(host.place(other).is_some() && host.place_for_kubelet(other).is_none());
        assert!(host.place_for_kubelet("/var/lib/kubelet/pods/x").is_some());
        for (source, root) in [("/var/openebs/local", "/openebs/local/pvc-1"), ("/var/mnt/openebs", "/pvc-1")]
        {
            host.extra = [("/var/openebs/local".to_owned(), source.to_owned())].into();
            let place = host.place_for_kubelet(other).unwrap();
            assert_eq!((place.root.as_str(), place.read_only), (root, false));
        }
    }
}
