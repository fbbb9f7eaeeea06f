//! The objects in a backup, out of the archive that Velero keeps in the store.
//! Source: velero-io/velero site/content/docs/main/output-file-format.md; pkg/archive/parser.go.

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::judge::restore::Contents;

/// An archive that unpacks to more than this is none of Velero's.
const LARGEST: u64 = 4 << 30;

fn is_object(path: &Path) -> bool {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    matches!(parts.as_slice(), ["resources", _, "namespaces", _, _] | ["resources", _, "cluster", _])
}

/// Reads the archive.
///
/// # Errors
/// It is cut short, or no archive of Velero's.
pub fn unpack(packed: &[u8]) -> Result<Contents> {
    let broken =
        |error: std::io::Error| Error::failed(format!("the backup's archive can't be read: {error}"));
    let mut archive = tar::Archive::new(GzDecoder::new(packed).take(LARGEST));
    let (mut contents, mut text) = (Contents::default(), String::new());
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        // Each object is there twice, below the version that the cluster prefers as well.
        if !is_object(&entry.path().map_err(broken)?) {
            continue;
        }
        text.clear();
        let size = entry.size();
        entry.read_to_string(&mut text).map_err(broken)?;
        if text.len() as u64 != size {
            return Err(Error::failed("the backup's archive is cut short"));
        }
        let object: Value = serde_json::from_str(&text)
            .map_err(|error| Error::failed(format!("an object of the backup can't be read: {error}")))?;
        contents.take(&object)?;
    }
    // What comes after the last object is the sum of the whole.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).map_err(broken)?;
    Ok(contents)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use serde_json::json;

    use super::*;

    fn packed(files: &[(&str, Value)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (path, object) in files {
            let (mut header, text) = (tar::Header::new_gnu(), object.to_string());
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn each_object_is_read_once_and_a_broken_archive_is_an_error() {
        let object =
            |kind: &str, metadata: Value| json!({"apiVersion": "v1", "kind": kind, "metadata": metadata});
        let (pod, volume) = (
            object("Pod", json!({"namespace": "a", "name": "p"})),
            object("PersistentVolume", json!({"name": "pv"})),
        );
        let files = [
            ("metadata/version", json!(1)),
            ("resources/pods/namespaces/a/p.json", pod.clone()),
            ("resources/pods/v1-preferredversion/namespaces/a/p.json", pod),
            ("resources/persistentvolumes/cluster/pv.json", volume),
        ];
        let whole = packed(&files);
        let contents = unpack(&whole).unwrap();
        assert_eq!((contents.entries.len(), contents.pods.len(), contents.volumes.len()), (2, 1, 1));
        for length in [0, 1, 20, whole.len() / 2, whole.len() - 9] {
            assert!(unpack(&whole[..length]).is_err(), "{length} bytes of {}", whole.len());
        }
        assert!(unpack(b"no archive").is_err());
        let broken = packed(&[("resources/pods/namespaces/a/p.json", json!([]))]);
        assert!(unpack(&broken).is_ok(), "what has no kind is no object that is judged");
    }
}
