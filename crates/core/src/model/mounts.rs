//! Where Talos mounts volumes.

/// The folder that has a folder for each volume (siderolabs/talos, pkg/machinery/constants, `UserVolumeMountPoint`).
pub const MOUNTS: &str = "/var/mnt/";

/// Where the volume of this name is mounted.
pub fn mount_of(volume: &str) -> String {
    format!("{MOUNTS}{volume}")
}

/// The name of the volume that a path is, or lies in.
pub fn volume_at(path: &str) -> Option<&str> {
    path.strip_prefix(MOUNTS)?.split('/').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_in_the_volume_whose_folder_it_is_below() {
        for (path, volume) in [
            ("/var/mnt/data", Some("data")),
            ("/var/mnt/data/", Some("data")),
            ("/var/mnt/data/pvc-1", Some("data")),
            ("/var/mnt/", None),
            ("/var/mnt", None),
            ("/var/mntx/data", None),
            ("var/mnt/data", None),
        ] {
            assert_eq!(volume_at(path), volume, "{path}");
        }
        assert_eq!(volume_at(&mount_of("data")), Some("data"));
    }
}
