//! What of the cluster may have its data on a node's own disks: volumes, pods, CSI drivers.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::NodeSelectorTerm;

use super::affinity::{Fit, fit};

/// All of the cluster, whatever its phase: the data of a released volume and of a pod that has ended are still there.
#[derive(Debug, Clone, Default)]
pub struct Users {
    pub nodes: Vec<KubeNode>,
    pub volumes: Vec<Claimed>,
    /// Pods, and what would make some and has none.
    pub pods: Vec<Mounting>,
    /// The CSI drivers that run on each node, by its name.
    pub drivers: BTreeMap<String, BTreeSet<String>>,
    pub attached: Vec<Attached>,
    pub pools: Vec<Pool>,
}

/// A node as the cluster knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeNode {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub addresses: Vec<String>,
}

/// A PersistentVolume whose bytes may be a node's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    pub name: String,
    /// `namespace/name`.
    pub claim: Option<String>,
    /// Of type `local` or `hostPath`; or what a CSI driver noted of it.
    pub paths: Vec<String>,
    pub driver: Option<String>,
    /// The terms of its node affinity.
    pub terms: Vec<NodeSelectorTerm>,
}

/// A pod with folders or devices of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounting {
    /// `pod namespace/name`.
    pub name: String,
    /// Nothing when it has none yet.
    pub node: Option<String>,
    pub selector: BTreeMap<String, String>,
    pub paths: Vec<String>,
    /// It is there; else it is only what would make it.
    pub is_there: bool,
}

/// A volume that a CSI driver has attached to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    pub node: String,
    pub driver: String,
    pub volume: String,
}

/// An object that names disks or folders of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub title: String,
    /// Its own name, and the node's that it is said to be of.
    pub of: Vec<String>,
    pub paths: Vec<String>,
}

impl KubeNode {
    /// Whether terms of a node affinity allow it; what is not understood allows all.
    fn fits(&self, terms: &[NodeSelectorTerm]) -> bool {
        fit(terms, &self.name, &self.labels) != Fit::No
    }
}

impl Claimed {
    /// Whether its bytes can be on one of these nodes: no other of the cluster is the one that its affinity names. A node
    /// that the cluster does not know can be any.
    pub fn can_be_on(&self, here: &[&KubeNode], all: &[KubeNode]) -> bool {
        let mut fitting = all.iter().filter(|node| node.fits(&self.terms)).peekable();
        here.is_empty() || fitting.peek().is_none() || fitting.any(|node| here.contains(&node))
    }
}

impl std::fmt::Display for Claimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PersistentVolume {}", self.name)?;
        self.claim.as_ref().map_or(Ok(()), |claim| write!(f, " (claim {claim})"))
    }
}

impl Mounting {
    /// Whether it is, or can come to be, on one of these nodes; one that the cluster does not know can be any.
    pub fn can_be_on(&self, here: &[&KubeNode]) -> bool {
        let fits = |node: &&KubeNode| match &self.node {
            Some(name) => *name == node.name,
            None => self.selector.iter().all(|(key, value)| node.labels.get(key) == Some(value)),
        };
        here.is_empty() || here.iter().any(fits)
    }
}

impl Pool {
    /// Whether it is not said to be of another node.
    pub fn can_be_on(&self, here: &[&KubeNode], all: &[KubeNode]) -> bool {
        let named = |node: &KubeNode| self.of.contains(&node.name);
        here.is_empty() || here.iter().any(|node| named(node)) || !all.iter().any(named)
    }
}
