//! Adapter to the Kubernetes API: connection, server-side apply, waits, logs.

mod client;
mod config;
mod drain;
mod error;
mod logs;
mod object;
mod proxy;
mod ready;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::client::Body;
use kube::discovery::{ApiResource, Scope};
use tokio::sync::Mutex;

pub use config::{fingerprint, has_config, trusts};
pub use drain::Losses;
pub use error::from_kube;
pub use object::{Applied, Outcome};
pub use ready::Standing;

pub use crate::judge::steady::Steady;
pub use crate::model::object::MANAGER;

use crate::dial::Dial;
use crate::error::{Error, Result};

/// How long the first answer of the API server may take.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// The kinds served under one `apiVersion`.
type Kinds = HashMap<String, (ApiResource, Scope)>;

/// A connection to one cluster; cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    /// What the cluster was reached by, for people: `context admin@lab (https://10.88.0.1:6443)`.
    name: String,
    /// The API server is a sandbox's, and says so in its version.
    simulated: bool,
    /// The certificates of the authorities that its connection data trust, as DER.
    authorities: Arc<Vec<Vec<u8>>>,
    /// What discovery said, by `apiVersion`.
    kinds: Arc<Mutex<HashMap<String, Kinds>>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Connects by kubectl's rules (the path, else `KUBECONFIG`, else `~/.kube/config`, else in-cluster) and
    /// asks the API server for its version, so that a wrong address or credential shows at once.
    pub async fn connect(kubeconfig: Option<&Path>, context: Option<&str>, dial: &Dial) -> Result<Self> {
        let config::Connection { config, proxy, name } = config::load(kubeconfig, context).await?;
        let authorities = Arc::new(config.root_cert.clone().unwrap_or_default());
        let dial = proxy.map_or_else(|| Arc::clone(dial), |proxy| proxy.dial(dial));
        let client = client::client(config, dial).map_err(|e| from_kube(&name, e))?;
        let cluster = Self { name, authorities, ..Self::from_client(client) };
        match tokio::time::timeout(FIRST_ANSWER, cluster.client.apiserver_version()).await {
            Ok(Ok(version)) => Ok(Self { simulated: version.git_version.contains("simulated"), ..cluster }),
            Ok(Err(error)) => Err(from_kube(&cluster.name, error)),
            Err(_) => Err(error::silent(&cluster.name, FIRST_ANSWER)),
        }
    }

    /// Whether the API server says that it is ready: it answers before it is, and then knows no roles and classes yet.
    pub async fn is_up(&self) -> Result<()> {
        let request = http::Request::get("/readyz").body(Vec::new());
        let request = request.map_err(|error| Error::failed(format!("/readyz: {error}")))?;
        let asked = self.client.request_text(request).await;
        asked.map(drop).map_err(|error| error::not_ready(&self.name, error))
    }

    /// The time on the API server's clock, which is the one that Velero's times are to be held against.
    pub async fn time(&self) -> Result<Timestamp> {
        let request = http::Request::get("/version").body(Body::empty());
        let request = request.map_err(|error| Error::failed(format!("/version: {error}")))?;
        let answer = self.client.send(request).await.map_err(|error| from_kube(&self.name, error))?;
        let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
        let time = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        time.map(|time| time.timestamp()).ok_or_else(|| {
            Error::failed(format!("{}: the API server does not say what time it is", self.name))
        })
    }

    /// Takes a client that is already connected.
    pub fn from_client(client: kube::Client) -> Self {
        Self {
            client,
            name: "the cluster".into(),
            simulated: false,
            authorities: Arc::default(),
            kinds: Arc::default(),
        }
    }

    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Whether it is of a sandbox.
    pub fn simulated(&self) -> bool {
        self.simulated
    }

    /// The certificates of the authorities that its connection data trust, as DER.
    pub fn authorities(&self) -> &[Vec<u8>] {
        &self.authorities
    }

    /// What the cluster was reached by, for people.
    pub fn name(&self) -> &str {
        &self.name
    }
}
