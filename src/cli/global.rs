//! The switches that every verb takes, and what they lead to: the file, the nodes, the cluster.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::intent::{self, Intent};
use crate::observe::nodes::{self, Node};
use crate::report::{self, Progress};
use crate::secrets;
use crate::stack::StackSecret;
use crate::state::State;
use crate::talos;

#[derive(Debug, clap::Args)]
pub struct Global {
    /// The file that says what is wanted.
    #[arg(short, long, global = true, default_value = "nodeprep.yaml", value_name = "FILE")]
    pub file: PathBuf,
    /// The Talos client configuration [default: TALOSCONFIG, then ~/.talos/config].
    #[arg(long, global = true, value_name = "FILE")]
    pub talosconfig: Option<PathBuf>,
    /// The context in the Talos client configuration.
    #[arg(long, global = true, value_name = "NAME")]
    pub talos_context: Option<String>,
    /// The Kubernetes client configuration [default: KUBECONFIG, then ~/.kube/config].
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context in the Kubernetes client configuration.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Only these of the file's nodes, by address.
    #[arg(long, global = true, value_delimiter = ',', value_name = "ADDRESS")]
    pub nodes: Vec<String>,
    /// How progress is shown on stderr.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "HOW")]
    pub progress: Progress,
    /// Also say what is noted by the way.
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// How data is printed on stdout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Json,
}

impl Global {
    pub fn intent(&self) -> Result<Intent> {
        let name = self.file.display().to_string();
        let bytes = std::fs::read(&self.file).map_err(|e| {
            Error::invalid(format!("can't read {name}: {e}"))
                .hint("name the file with -f; examples/ holds one to start from")
        })?;
        intent::parse(&name, &bytes)
    }

    pub fn events(&self) -> Events {
        report::events(self.progress, self.verbose)
    }

    /// The state folder of one cluster: `NODEPREP_STATE`, else `$XDG_STATE_HOME/nodeprep`, else
    /// `~/.local/state/nodeprep`.
    pub fn state(&self, cluster: &str) -> Result<State> {
        let set = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        let dir = set("NODEPREP_STATE")
            .or_else(|| set("XDG_STATE_HOME").map(|dir| dir.join("nodeprep")))
            .or_else(|| set("HOME").map(|home| home.join(".local/state/nodeprep")))
            .ok_or_else(|| {
                Error::invalid("no place for the journal: neither NODEPREP_STATE nor HOME is set")
            })?;
        State::open(&dir, cluster)
    }

    pub async fn cluster(&self) -> Result<Cluster> {
        Cluster::connect(self.kubeconfig.as_deref(), self.context.as_deref()).await
    }

    /// The client for the machine API, and the addresses to speak to: the file's nodes, narrowed by `--nodes`.
    pub fn talos(&self, intent: &Intent) -> Result<Option<(talos::Client, Vec<String>)>> {
        let listed: Vec<String> = intent.nodes.iter().map(|node| node.address.clone()).collect();
        if let Some(unknown) = self.nodes.iter().find(|node| !listed.contains(node)) {
            return Err(Error::invalid(format!("--nodes {unknown}: not a node of {}", self.file.display()))
                .hint(format!("the file lists: {}", listed.join(", "))));
        }
        let wanted = if self.nodes.is_empty() { listed } else { self.nodes.clone() };
        if wanted.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.talos_client()?, wanted)))
    }

    pub fn talos_client(&self) -> Result<talos::Client> {
        let context = self.talos_context()?;
        talos::Client::connect(&context, &context.endpoints, &talos::client::Options::default())
    }

    pub fn talos_context(&self) -> Result<talos::Context> {
        let set = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        let places = talos::config::Places {
            flag: self.talosconfig.clone(),
            talosconfig: set("TALOSCONFIG"),
            talos_home: set("TALOS_HOME"),
            home: set("HOME"),
        };
        talos::Context::load(&places, self.talos_context.as_deref(), jiff::Timestamp::now())
    }

    /// The decrypted secrets that the file names, with paths counted from the file's folder.
    pub fn stack_secrets(&self, intent: &Intent) -> Result<Vec<StackSecret>> {
        let Some(backup) = &intent.backup else { return Ok(Vec::new()) };
        let base = self.file.parent().unwrap_or_else(|| Path::new(""));
        let identities = secrets::Identities::load(None, &secrets::Environment::from_process())?;
        let mut found = Vec::new();
        for path in &backup.secrets {
            for secret in secrets::load_kubernetes_secrets(&base.join(path), &identities)? {
                found.push(stack_secret(secret)?);
            }
        }
        Ok(found)
    }
}

/// The values of Velero's secrets are text; anything else is refused.
fn stack_secret(secret: secrets::KubeSecret) -> Result<StackSecret> {
    let text = |(key, value): (String, secrecy::SecretSlice<u8>)| {
        let text = std::str::from_utf8(value.expose_secret())
            .map_err(|_| Error::invalid(format!("Secret {}: {key} is not text", secret.name)))?;
        Ok((key, SecretString::from(text)))
    };
    let data = secret.data.into_iter().map(text).collect::<Result<_>>()?;
    Ok(StackSecret { name: secret.name.clone(), data })
}

/// Reads all nodes at once. Nodes of which nothing at all could be read are an error that names them.
pub async fn observe(client: &talos::Client, addresses: &[String]) -> Result<Vec<Node>> {
    let nodes = nodes::observe_all(client, addresses, jiff::Timestamp::now()).await?;
    let mut dead =
        nodes.iter().filter_map(|node| node.version.as_ref().err().map(|error| (&node.address, error)));
    let Some((_, first)) = dead.next() else { return Ok(nodes) };
    let others: Vec<&str> = dead.map(|(address, _)| address.as_str()).collect();
    let also =
        if others.is_empty() { String::new() } else { format!(" (and so it is with {})", others.join(", ")) };
    let error = Error::new(first.kind, format!("{}{also}", first.what));
    Err(match &first.hint {
        Some(hint) => error.hint(hint),
        None => error,
    })
}
