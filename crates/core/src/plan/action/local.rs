//! What is done on the machine that nodeprep runs on.

use std::path::PathBuf;

use super::Family;
use crate::plan::saved::Digest;

#[derive(Debug)]
pub enum Local {
    /// The control plane's kubeconfig is written to a file that does not exist yet.
    Kubeconfig { address: String, path: PathBuf },
}

impl Family for Local {
    fn changes(&self) -> bool {
        true
    }

    fn digest(&self, digest: &mut Digest) {
        let Self::Kubeconfig { address, path } = self;
        digest.text("kubeconfig").text(address).text(&path.display().to_string());
    }
}
