//! What is waited for in the cluster.

use std::path::PathBuf;

use super::Family;
use crate::model::object::Ready;
use crate::plan::saved::Digest;

#[derive(Debug)]
pub enum WaitAction {
    Ready(Ready),
    /// The API server answers, and the nodes of these machines are Ready.
    Cluster {
        kubeconfig: PathBuf,
        nodes: Vec<String>,
    },
}

impl Family for WaitAction {
    fn changes(&self) -> bool {
        false
    }

    fn digest(&self, digest: &mut Digest) {
        match self {
            Self::Ready(ready) => digest.text("ready").text(&format!("{ready:?}")),
            Self::Cluster { kubeconfig, nodes } => {
                digest.text("cluster").text(&kubeconfig.display().to_string()).text(&nodes.join(" "))
            }
        };
    }
}
