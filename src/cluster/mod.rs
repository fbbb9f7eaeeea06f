//! Adapter to the Kubernetes API: server-side apply, watches, jobs, logs.

use std::path::Path;

use crate::error::Result;

/// A connection to one cluster.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// Connects by the usual rules: the path, else `KUBECONFIG`, else `~/.kube/config`, else in-cluster.
    pub async fn connect(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Self> {
        let _ = (kubeconfig, context);
        Err(crate::error::Error::failed("not connected"))
    }

    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }
}
