//! What a container wrote, whole or cut at a limit.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;

use super::{Cluster, from_kube};
use crate::error::Result;

/// At most so many bytes of a container's log are read.
pub(super) const LIMIT: i64 = 4 << 20;

impl Cluster {
    /// The log of one container of a pod, at most [`LIMIT`] bytes from its beginning.
    pub async fn logs(&self, namespace: &str, pod: &str, container: &str) -> Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = LogParams {
            container: Some(container.to_owned()),
            limit_bytes: Some(LIMIT),
            ..LogParams::default()
        };
        let what = format!("log of {namespace}/{pod} ({container})");
        pods.logs(pod, &params).await.map_err(|e| from_kube(&what, e))
    }

    /// The last lines of what a container wrote before it ended; nothing when they can't be had.
    pub(super) async fn last_lines(&self, namespace: &str, pod: &str, container: &str) -> String {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = LogParams {
            container: Some(container.to_owned()),
            previous: true,
            tail_lines: Some(5),
            ..LogParams::default()
        };
        pods.logs(pod, &params).await.unwrap_or_default()
    }
}
