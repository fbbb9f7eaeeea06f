//! Large texts that are part of the program: the build packs them (`build.rs`), since they are most of what is not code.

use std::io::Read;

use flate2::read::GzDecoder;

/// The CustomResourceDefinitions of Velero (`manifests/velero/crds.yaml`).
pub fn velero_crds() -> String {
    text(include_bytes!(concat!(env!("OUT_DIR"), "/crds.yaml.gz")))
}

/// The types of the Kubernetes API (`src/sandbox/kube/types.json`).
pub fn kubernetes_types() -> String {
    text(include_bytes!(concat!(env!("OUT_DIR"), "/types.json.gz")))
}

/// What was packed is whole, as a test reads it; what is not is nothing.
fn text(packed: &[u8]) -> String {
    let mut text = String::new();
    match GzDecoder::new(packed).read_to_string(&mut text) {
        Ok(_) => text,
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_packed_is_what_the_files_hold() {
        assert_eq!(super::velero_crds(), include_str!("../manifests/velero/crds.yaml"));
        assert_eq!(super::kubernetes_types(), include_str!("sandbox/kube/types.json"));
    }
}
