//! Whose file system a volume lies on, told from the pod's own `/proc/self/mountinfo`.
//!
//! The `root` of a mount (field 4, proc_pid_mountinfo(5)) is the path of the mounted directory *within its
//! file system*, whatever bind mounts lie between. For a volume `/var/mnt/openebs/pvc-1`:
//!
//! | the file system is mounted at | `root` |
//! |---|---|
//! | `/var/mnt/openebs` (a disk of its own, a loop device too) | `/pvc-1` |
//! | `/var` (the directory is on Talos' EPHEMERAL) | `/mnt/openebs/pvc-1` |
//! | `/` (the directory is on the system disk) | `/var/mnt/openebs/pvc-1` |
//! | elsewhere; a part of it is bind-mounted there | `/some/part/pvc-1` |
//!
//! So cutting `root` off the end of the volume's path leaves the mount point.

use crate::model::mounts::volume_at;

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// The mounted directory within its file system.
    pub root: String,
    /// The type of the file system, such as `xfs`.
    pub kind: String,
    /// The device, such as `/dev/nvme1n1p1`.
    pub source: String,
    /// Options of the mount and of its file system.
    options: Vec<String>,
}

impl Mount {
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }

    /// Where on the node the file system is mounted that holds the volume at `path`; none when only a
    /// part of that file system is mounted there.
    pub(super) fn mounted_at<'a>(&self, path: &'a str) -> Option<&'a str> {
        if self.root == "/" {
            return Some(path);
        }
        let point = path.strip_suffix(self.root.as_str())?;
        Some(if point.is_empty() { "/" } else { point })
    }

    /// The directory was deleted while it was mounted.
    pub(super) fn deleted(&self) -> bool {
        self.root.ends_with("//deleted")
    }
}

/// The topmost mount at `point`, from the text of a mountinfo file.
pub(super) fn find(mountinfo: &str, point: &str) -> Option<Mount> {
    mountinfo.lines().rev().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, at, options) = (fields.next()?, fields.next()?, fields.next()?);
        let mut fields = after.split(' ');
        let (kind, source, super_options) = (fields.next()?, fields.next()?, fields.next().unwrap_or(""));
        let options = options.split(',').chain(super_options.split(',')).map(str::to_owned).collect();
        (unescape(at) == point).then(|| Mount {
            root: unescape(root),
            kind: kind.to_owned(),
            source: unescape(source),
            options,
        })
    })
}

/// The kernel writes blanks, tabs, line ends and backslashes as `\` and three octal digits.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'\\').then(|| tail.get(..3)).flatten();
        let code = code.and_then(|c| std::str::from_utf8(c).ok()).and_then(|c| u8::from_str_radix(c, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a mount at `point` can only be a disk meant for volumes of a class at `base`: the base path
/// itself, or the Talos user volume (`/var/mnt/<name>`) that it lies in.
pub(super) fn is_own(point: &str, base: &str) -> bool {
    let within = base == point || base.strip_prefix(point).is_some_and(|rest| rest.starts_with('/'));
    within && (base == point || volume_at(point).is_some())
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    const BASE: &str = "/var/mnt/openebs";
    const PATH: &str = "/var/mnt/openebs/pvc-1";

    fn mount(line: &str) -> Mount {
        find(line, "/data").unwrap()
    }

    #[test]
    fn the_mount_point_of_the_volumes_file_system_is_found() {
        for (case, line, point) in [
            ("own disk", "90 80 259:3 /pvc-1 /data rw,relatime - xfs /dev/nvme1n1p1 rw,attr2", Some(BASE)),
            ("loop device", "90 80 7:0 /pvc-1 /data rw shared:3 master:2 - xfs /dev/loop0 rw", Some(BASE)),
            ("EPHEMERAL", "90 80 259:6 /mnt/openebs/pvc-1 /data rw - xfs /dev/nvme0n1p6 rw", Some("/var")),
            ("system disk", "90 80 8:1 /var/mnt/openebs/pvc-1 /data rw - ext4 /dev/sda1 rw", Some("/")),
            ("part of a disk", "90 80 8:1 /disk/part/pvc-1 /data rw - ext4 /dev/sda1 rw", None),
            ("subvolume", "90 80 0:40 /@data/pvc-1 /data rw - btrfs /dev/sdb rw,subvol=/@data", None),
            ("name that only looks alike", "90 80 8:1 /x-pvc-1 /data rw - xfs /dev/sdb rw", None),
            ("volume is a mount itself", "90 80 8:1 / /data rw - xfs /dev/sdb rw", Some(PATH)),
            ("deleted", "90 80 8:1 /pvc-1//deleted /data rw - xfs /dev/sdb rw", None),
        ] {
            assert_eq!(mount(line).mounted_at(PATH), point, "{case}");
        }
        assert!(mount("90 80 8:1 /pvc-1//deleted /data rw - xfs /dev/sdb rw").deleted());
    }

    #[test]
    fn only_the_base_path_or_its_user_volume_is_an_own_mount() {
        for (point, base, own) in [
            (BASE, BASE, true),
            (BASE, "/var/mnt/openebs/fast", true),
            ("/var/mnt/openebs/fast", "/var/mnt/openebs/fast", true),
            ("/srv/disk", "/srv/disk", true),
            ("/var", BASE, false),
            ("/", BASE, false),
            ("/var/mnt", BASE, false),
            ("/var/mnt/", BASE, false),
            ("/srv", "/srv/disk", false),
            ("/var/mnt/open", BASE, false),
            (PATH, BASE, false),
        ] {
            assert_eq!(is_own(point, base), own, "{point} for {base}");
        }
    }

    #[test]
    fn lines_are_read_as_the_kernel_writes_them() {
        let text = "22 1 8:1 / / ro - ext4 /dev/root ro\n\
                    23 22 8:2 /old /data rw - xfs /dev/sdb rw\n\
                    short line\n\
                    24 23 8:3 /a\\040b\\134c /data rw,noexec,nosuid master:1 - xfs /dev/disk\\040one rw,prjquota\n";
        let mount = find(text, "/data").unwrap();
        assert_eq!((mount.root.as_str(), mount.source.as_str()), ("/a b\\c", "/dev/disk one"));
        assert!(mount.has("noexec") && mount.has("prjquota") && !mount.has("ro"));
        assert_eq!(find(text, "/dat"), None);
        assert_eq!(find("", "/data"), None);
        assert_eq!(unescape("\\09x\\"), "\\09x\\");
    }
}
