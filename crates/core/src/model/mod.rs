//! What machines and clusters are made of, as values: what was read of them, and the objects that they are to have. Nothing
//! here reads or changes anything.

pub mod affinity;
pub mod claims;
pub mod cluster;
pub mod disks;
pub mod files;
pub mod frame;
pub mod mounts;
pub mod node;
pub mod object;
pub mod resources;
pub mod said;

/// The label that Kubernetes gives every node, and that volumes and pods are pinned by.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
