//! Files of a machine, as it lists and sends them.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use tonic::Status;

use crate::machine::Machine;
use crate::talos::proto::machine::FileInfo;

/// Where etcd keeps its data.
const ETCD: &str = "/var/lib/etcd";

/// A folder and what is in it. The folder of etcd is the only one that is simulated.
///
/// # Errors
/// There is no such folder.
pub(super) fn list(machine: &Machine, root: &str) -> Result<Vec<FileInfo>, Status> {
    let path = format!("/{}", root.trim_matches('/'));
    if path != ETCD || !machine.controlplane || machine.active.is_none() {
        return Err(Status::unknown(format!("lstat {path}: no such file or directory")));
    }
    let folder = |name: String, relative: &str| FileInfo {
        name,
        is_dir: true,
        relative_name: relative.to_owned(),
        ..FileInfo::default()
    };
    let data = machine.etcd_data.then(|| folder(format!("{ETCD}/member"), "member"));
    Ok([folder(path, ".")].into_iter().chain(data).collect())
}

/// One file for nobody else to read, as Talos packs it: a gzip'd tar that ends with the file's last byte, without what
/// fills up its block and without the archive's end.
pub(super) fn archive(name: &str, text: &str) -> Result<Vec<u8>, Status> {
    packed(name, text).map_err(|error| Status::unknown(error.to_string()))
}

fn packed(name: &str, text: &str) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_path(name)?;
    header.set_mode(0o600);
    header.set_size(text.len() as u64);
    header.set_cksum();
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(header.as_bytes())?;
    packed.write_all(text.as_bytes())?;
    packed.finish()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn only_a_control_plane_that_is_configured_has_a_folder_of_etcd_and_with_data_something_is_in_it() {
        let listed = |controlplane, config: Option<&str>, data, root: &str| {
            let config = config.map(str::to_owned);
            let mut machine = Machine::new("10.0.0.1", "v1.11.5", controlplane, Vec::new(), config);
            machine.etcd_data = data;
            let infos = list(&machine, root).map_err(|status| status.message().to_owned())?;
            assert!(infos.iter().all(|info| info.is_dir && info.error.is_empty()));
            Ok(infos.into_iter().map(|info| (info.name, info.relative_name)).collect::<Vec<_>>())
        };
        let (root, member) =
            ((ETCD.into(), ".".into()), ("/var/lib/etcd/member".into(), "member".to_owned()));
        for path in [ETCD, "/var/lib/etcd/", "var/lib/etcd"] {
            assert_eq!(listed(true, Some(""), true, path), Ok(vec![root.clone(), member.clone()]));
        }
        assert_eq!(listed(true, Some(""), false, ETCD), Ok(vec![root]));
        let missing = |path: &str| Err(format!("lstat {path}: no such file or directory"));
        assert_eq!(listed(false, Some(""), false, ETCD), missing(ETCD));
        assert_eq!(listed(true, None, false, ETCD), missing(ETCD));
        assert_eq!(listed(true, Some(""), true, "/etc"), missing("/etc"));
    }

    #[test]
    fn a_file_that_was_packed_is_its_owners_alone_and_has_every_byte() {
        let packed = archive("kubeconfig", "a: b\n").unwrap();
        let mut unpacked = tar::Archive::new(GzDecoder::new(packed.as_slice()));
        let mut file = unpacked.entries().unwrap().next().unwrap().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), file.header().mode().unwrap()), ("a: b\n", 0o600));
        assert_eq!(file.path().unwrap().to_str(), Some("kubeconfig"));
        let mut bytes = Vec::new();
        GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 512 + 5, "no more follows");
    }
}
