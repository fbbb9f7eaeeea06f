//! How the machines and the cluster are reached.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use crate::cluster::{self, Cluster};
use crate::dial::Dial;
use crate::error::{Error, Kind, Result};
use crate::model::node::Node;
use crate::observe::identity::{self, Member};
use crate::talos::client::Options;
use crate::talos::config::Places;
use crate::talos::{Client, Context};

/// The configuration that leads to the machines and to the cluster, and the clock that ages are told by.
#[derive(Clone)]
pub struct Reach {
    /// Where the talosconfig is looked for.
    pub places: Places,
    pub talos_context: Option<String>,
    pub options: Options,
    /// By kubectl's rules when none is named.
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    /// To the API server.
    pub dial: Dial,
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { places, kubeconfig, .. } = self;
        f.debug_struct("Reach")
            .field("places", places)
            .field("kubeconfig", kubeconfig)
            .finish_non_exhaustive()
    }
}

/// The cluster as it was found.
#[derive(Debug, Clone)]
pub enum Reached {
    /// No configuration leads to one.
    None,
    /// It does not answer.
    Away(Error),
    Here(Cluster),
}

impl Reached {
    /// # Errors
    /// All but that it is away.
    pub fn of(found: Result<Cluster>) -> Result<Self> {
        match found {
            Ok(cluster) => Ok(Self::Here(cluster)),
            Err(error) if error.kind == Kind::Unavailable => Ok(Self::Away(error)),
            Err(error) => Err(error),
        }
    }

    pub fn here(&self) -> Option<&Cluster> {
        match self {
            Self::Here(cluster) => Some(cluster),
            Self::None | Self::Away(_) => None,
        }
    }

    /// Whether there is a cluster, as far as it is known.
    pub fn is_one(&self) -> bool {
        !matches!(self, Self::None)
    }
}

impl Reach {
    pub fn talos_context(&self) -> Result<Context> {
        Context::load(&self.places, self.talos_context.as_deref(), (self.clock)())
    }

    pub fn talos(&self) -> Result<Client> {
        let context = self.talos_context()?;
        Client::connect(&context, &context.endpoints, &self.options)
    }

    /// Whether a talosconfig is named, or lies where it is looked for.
    pub fn has_talosconfig(&self) -> bool {
        self.places.flag.is_some() || self.places.talosconfig.is_some() || self.places.find().is_ok()
    }

    /// The cluster that the kubeconfig leads to.
    pub async fn cluster(&self) -> Result<Cluster> {
        Cluster::connect(self.kubeconfig.as_deref(), self.context.as_deref(), &self.dial).await
    }

    /// The cluster that is connected already, else the one that the kubeconfig leads to.
    ///
    /// # Errors
    /// It can't be reached.
    pub async fn connected(&self, connected: Option<Reached>) -> Result<Cluster> {
        match connected {
            Some(Reached::Here(cluster)) => Ok(cluster),
            _ => self.cluster().await,
        }
    }

    /// The cluster of these machines, if a kubeconfig leads to it. One that only lies where kubectl looks for it may be of
    /// another cluster, and is left alone then; one that was named may not.
    ///
    /// # Errors
    /// `Kind::Invalid`: the kubeconfig that was named is not of these machines' cluster, or is none.
    pub async fn cluster_of(&self, client: &Client, machines: &[Node]) -> Result<Reached> {
        let named = self.kubeconfig.is_some() || self.context.is_some();
        if !named && !cluster::has_config() {
            return Ok(Reached::None);
        }
        let members: Vec<&Node> = machines.iter().filter(|node| !node.maintenance).collect();
        if members.is_empty() {
            return Ok(Reached::None);
        }
        let found = async {
            let cluster = self.cluster().await?;
            identity::prove(client, members, &cluster).await.map(|_| cluster)
        };
        match found.await {
            Err(error) if !named && error.kind == Kind::Invalid => Ok(Reached::None),
            found => Reached::of(found),
        }
    }

    /// Proves that the nodes at these addresses and the cluster are one, and tells which node each address is. Without a
    /// talosconfig only the addresses tell.
    ///
    /// # Errors
    /// `Kind::Invalid`: they are not, or nothing proves it.
    pub async fn members(&self, addresses: &[String], cluster: &Cluster) -> Result<BTreeMap<String, Member>> {
        if addresses.is_empty() {
            return Ok(BTreeMap::new());
        }
        if !self.has_talosconfig() {
            return Ok(identity::prove_listed(addresses, cluster).await?.members(addresses));
        }
        let client = self.talos()?;
        let machines = identity::witnesses(&client, addresses).await?;
        Ok(identity::prove(&client, machines, cluster).await?.members(addresses))
    }
}
