//! The switches that every verb takes, and what they lead to: the file, the nodes, the cluster.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use nodeprep_sandbox::Sandbox;
use nodeprep_sandbox::scenario::Scenario;
use nodeprep_sandbox::serve::network::Network;
use secrecy::{ExposeSecret, SecretString};

use super::first_files::{FILE, first_files};
use super::rehearsal::Configs;
use crate::cluster;
use crate::config_doc;
use crate::dial::{self, Dial};
use crate::error::{Error, Result, all};
use crate::event::Events;
use crate::intent::{self, EncryptionKey, Intent, Passphrase, Volume};
use crate::plan::Passphrases;
use crate::report::{self, Progress};
use crate::secrets;
use crate::session::Reach;
use crate::stack::StackSecret;
use crate::state::{ClusterIdentity, State};
use crate::talos::client::Options;
use crate::talos::config::Places;
use crate::yaml::{PathPart, Stream};

/// Where a sandbox keeps its journals, in its folder.
const STATE: &str = "state";
/// Switches that lead to real machines.
const REAL: [&str; 4] = ["talosconfig", "talos_context", "kubeconfig", "context"];

#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// The file that says what is wanted.
    #[arg(short, long, global = true, default_value = FILE, value_name = "FILE")]
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
    /// Act on a simulated fleet: of three machines, or as a scenario file says. Nothing real is touched.
    #[arg(
        long, global = true, value_name = "SCENARIO", conflicts_with_all = REAL, help_heading = "Sandbox"
    )]
    pub sandbox: Option<Option<PathBuf>>,
    /// A simulated fleet of so many machines.
    #[arg(
        long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..),
        conflicts_with_all = REAL, help_heading = "Sandbox"
    )]
    pub sandbox_nodes: Option<u16>,
    /// Keep the simulated fleet in this folder, so that several commands act on one.
    #[arg(long, global = true, value_name = "FOLDER", conflicts_with_all = REAL, help_heading = "Sandbox")]
    pub sandbox_state: Option<PathBuf>,
    /// Where the journal is kept and which age key is tried first, in a sandbox.
    #[arg(skip)]
    pub simulated: Option<Simulated>,
    /// The verb begins a cluster: in a sandbox without a scenario the machines wait for their configs.
    #[arg(skip)]
    pub begins: bool,
    /// What this process tells, as it happens.
    #[arg(skip)]
    pub stream: Arc<OnceLock<Events>>,
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

/// What a sandbox brings with it.
#[derive(Clone)]
pub struct Simulated {
    pub state: PathBuf,
    pub age_key: PathBuf,
    /// Leads to the simulated machines in maintenance mode too.
    pub dial: Dial,
    /// The file's configs are of a cluster whose authorities the sandbox does not have.
    pub foreign: bool,
}

impl std::fmt::Debug for Simulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { state, age_key, .. } = self;
        f.debug_struct("Simulated").field("state", state).field("age_key", age_key).finish_non_exhaustive()
    }
}

/// How data is printed on stdout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    #[default]
    Table,
    Json,
}

impl Global {
    /// Serves the sandbox that the switches ask for, and leads everything to it.
    pub async fn enter_sandbox(&mut self) -> Result<Option<Sandbox>> {
        if self.sandbox.is_none() && self.sandbox_nodes.is_none() && self.sandbox_state.is_none() {
            return Ok(None);
        }
        let configs = Configs::of(self);
        let sandbox = self.start(&configs).await?;
        let foreign = !configs.is_empty() && !sandbox.has_given();
        self.talosconfig = Some(sandbox.talosconfig());
        self.kubeconfig = Some(sandbox.kubeconfig());
        if self.file.as_os_str() == FILE && !self.file.exists() {
            self.file = sandbox.folder.join(FILE);
        }
        let (state, age_key, dial) = (sandbox.folder.join(STATE), sandbox.age_key(), sandbox.dial());
        self.simulated = Some(Simulated { state, age_key, dial, foreign });
        Ok(Some(sandbox))
    }

    /// Serves the sandbox on this machine.
    pub async fn start_sandbox(&self) -> Result<Sandbox> {
        self.start(&Configs::of(self)).await
    }

    async fn start(&self, configs: &Configs) -> Result<Sandbox> {
        let (mut scenario, folder) = (self.scenario()?, self.sandbox_state.as_deref());
        if self.begins && self.sandbox.as_ref().is_none_or(Option::is_none) && self.sandbox_nodes.is_none() {
            configs.wait_for(&mut scenario);
        }
        let now = jiff::Timestamp::now();
        let authorities = configs.authorities();
        Sandbox::start_as(&scenario, folder, Network::Loopback, now, &first_files, &authorities).await
    }

    /// The scenario of the file, or of so many machines, or with a machine for each node of nodeprep.yaml.
    pub fn scenario(&self) -> Result<Scenario> {
        let file = self.sandbox.as_ref().and_then(Option::as_ref);
        let mut scenario = match file {
            Some(path) => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path).map_err(|e| {
                    Error::invalid(format!("can't read the scenario {name}: {e}"))
                        .hint("without a scenario, write --sandbox after the verb")
                })?;
                Scenario::parse(&name, &text)?
            }
            None => Scenario::default(),
        };
        if let Some(machines) = self.sandbox_nodes {
            scenario.machines = Scenario::of(machines.into()).machines;
        } else if file.is_none() && self.file.exists() {
            let nodes = self.intent()?.nodes;
            if !nodes.is_empty() {
                scenario.machines = Scenario::of(nodes.len()).machines;
                for (machine, node) in scenario.machines.iter_mut().zip(nodes) {
                    machine.address = Some(node.address);
                }
            }
        }
        Ok(scenario)
    }

    pub fn intent(&self) -> Result<Intent> {
        let name = self.file.display().to_string();
        let bytes = std::fs::read(&self.file).map_err(|e| {
            Error::invalid(format!("can't read {name}: {e}"))
                .hint("name the file with -f; examples/ holds one to start from")
        })?;
        let folder = self.file.parent().unwrap_or_else(|| Path::new(""));
        intent::parse_with(&name, &bytes, |path| std::fs::read_to_string(folder.join(path)))
    }

    pub fn events(&self) -> Events {
        self.stream.get_or_init(|| report::events(self.progress, self.verbose)).clone()
    }

    /// The state folder of one cluster: `NODEPREP_STATE`, else `$XDG_STATE_HOME/nodeprep`, else
    /// `~/.local/state/nodeprep`.
    pub fn state(&self, name: &str) -> Result<State> {
        let set = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        let simulated = self.simulated.as_ref().map(|simulated| simulated.state.clone());
        let dir = simulated
            .or_else(|| set("NODEPREP_STATE"))
            .or_else(|| set("XDG_STATE_HOME").map(|dir| dir.join("nodeprep")))
            .or_else(|| set("HOME").map(|home| home.join(".local/state/nodeprep")))
            .ok_or_else(|| {
                Error::invalid("no place for the journal: neither NODEPREP_STATE nor HOME is set")
            })?;
        State::find(&dir, name, &self.identity())
    }

    /// What the configurations at hand tell of the cluster. A sandbox makes new authorities each time, and has a folder of its own.
    fn identity(&self) -> ClusterIdentity {
        if self.simulated.is_some() {
            return ClusterIdentity::default();
        }
        let reach = self.reach();
        let talos = reach.has_talosconfig().then(|| reach.talos_context().ok()).flatten();
        ClusterIdentity {
            talos: talos.map(|context| context.fingerprint()),
            kubernetes: cluster::fingerprint(self.kubeconfig.as_deref(), self.context.as_deref()),
        }
    }

    /// What leads to the machines and to the cluster.
    pub fn reach(&self) -> Reach {
        let set = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        let dial = self.simulated.as_ref().map_or_else(dial::tcp, |simulated| simulated.dial.clone());
        Reach {
            places: Places {
                flag: self.talosconfig.clone(),
                talosconfig: set("TALOSCONFIG"),
                talos_home: set("TALOS_HOME"),
                home: set("HOME"),
            },
            talos_context: self.talos_context.clone(),
            options: Options { dial, ..Options::default() },
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            dial: dial::tcp(),
            clock: Arc::new(jiff::Timestamp::now),
        }
    }

    /// The nodes of the file that are in scope: all, or those of `--nodes`.
    pub fn addresses(&self, intent: &Intent) -> Result<Vec<String>> {
        let listed = intent.addresses();
        if let Some(unknown) = self.nodes.iter().find(|node| !listed.contains(node)) {
            return Err(Error::invalid(format!("--nodes {unknown}: not a node of {}", self.file.display()))
                .hint(format!("the file lists: {}", listed.join(", "))));
        }
        Ok(if self.nodes.is_empty() { listed } else { intent::distinct(&self.nodes) })
    }

    /// The decrypted secrets that the file's backup names.
    pub fn stack_secrets(&self, intent: &Intent) -> Result<Vec<StackSecret>> {
        let Some(backup) = &intent.backup else { return Ok(Vec::new()) };
        let identities = self.identities()?;
        let files = backup.secrets.iter().enumerate().map(|(i, path)| {
            let read = self.secrets_file(path, &identities);
            read.map_err(|error| self.at_line(&["backup".into(), "secrets".into(), i.into()], error))
        });
        Ok(all(files)?.concat())
    }

    /// The error of a file that nodeprep.yaml names, with the line that names it.
    fn at_line(&self, path: &[PathPart<'_>], error: Error) -> Error {
        let stream = std::fs::read_to_string(&self.file).ok().and_then(|text| Stream::parse(text).ok());
        match stream.and_then(|stream| stream.position(0, path)) {
            Some((line, column)) => error.at(format!("{}:{line}:{column}", self.file.display())),
            None => error,
        }
    }

    /// The decrypted passphrases that the file's volumes name.
    pub fn passphrases(&self, intent: &Intent) -> Result<Passphrases> {
        let keys = |(i, volume): (usize, &'_ Volume)| {
            let keys = volume.encryption.iter().flat_map(|encryption| encryption.keys.clone());
            keys.enumerate().map(move |(j, key)| (i, j, key)).collect::<Vec<_>>()
        };
        let keys = intent.volumes.iter().enumerate().flat_map(keys);
        let named = keys.filter_map(|(i, j, key)| match key {
            EncryptionKey::Static(from) => Some((i, j, from)),
            EncryptionKey::NodeId | EncryptionKey::Tpm | EncryptionKey::Kms(_) => None,
        });
        let named: Vec<_> = named.collect();
        if named.is_empty() {
            return Ok(Passphrases::new());
        }
        let identities = self.identities()?;
        let found = named.into_iter().map(|(i, j, from)| {
            let path = ["volumes".into(), i.into(), "encryption".into(), "keys".into(), j.into()];
            let value = self.passphrase(&from, &identities);
            Ok((from, value.map_err(|error| self.at_line(&path, error))?))
        });
        Ok(all(found)?.into_iter().collect())
    }

    fn passphrase(&self, from: &Passphrase, identities: &secrets::Identities) -> Result<SecretString> {
        let (file, key) = (from.file.display(), &from.key);
        let secrets = self.secrets_file(&from.file, identities)?;
        let mut values = secrets.into_iter().filter_map(|mut secret| secret.data.remove(key));
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Error::invalid(format!("{file}: not exactly one Secret in it has the key {key}"))
                .hint("write the passphrase below `stringData` of a Secret, and encrypt the file"));
        };
        if value.expose_secret().is_empty() {
            return Err(Error::invalid(format!("{file}: {key} is empty")));
        }
        Ok(value)
    }

    /// A machine config, decrypted when it is a SOPS file; its path counts from the file's folder.
    pub fn machine_config(&self, path: &Path) -> Result<SecretString> {
        let name = path.display();
        let base = self.file.parent().unwrap_or_else(|| Path::new(""));
        let text = std::fs::read_to_string(base.join(path))
            .map(SecretString::from)
            .map_err(|error| Error::invalid(format!("can't read the machine config {name}: {error}")))?;
        let text = if secrets::is_encrypted(text.expose_secret(), secrets::Format::Yaml) {
            let plain = secrets::decrypt(text.expose_secret(), secrets::Format::Yaml, &self.identities()?);
            plain.and_then(|plain| Ok(plain.expose_text()?.into())).map_err(|error| error.at(name))?
        } else {
            text
        };
        config_doc::hold_fields(text.expose_secret());
        Ok(text)
    }

    fn identities(&self) -> Result<secrets::Identities> {
        let own = self.simulated.as_ref().map(|simulated| simulated.age_key.as_path());
        secrets::Identities::load(own, &secrets::Environment::from_process())
    }

    /// The Secrets of an encrypted file, with its path counted from the file's folder.
    fn secrets_file(&self, path: &Path, identities: &secrets::Identities) -> Result<Vec<StackSecret>> {
        let base = self.file.parent().unwrap_or_else(|| Path::new(""));
        secrets::load_kubernetes_secrets(&base.join(path), identities)?
            .into_iter()
            .map(stack_secret)
            .collect()
    }
}

/// The values of Velero's secrets are text; anything else is refused.
fn stack_secret(secret: secrets::KubeSecret) -> Result<StackSecret> {
    let text = |(key, value): (String, secrecy::SecretSlice<u8>)| {
        let text = std::str::from_utf8(value.expose_secret())
            .map_err(|_| Error::invalid(format!("Secret {}: {key} is not text", secret.name)))?;
        config_doc::hold(text);
        Ok((key, SecretString::from(text)))
    };
    let data = secret.data.into_iter().map(text).collect::<Result<_>>()?;
    Ok(StackSecret { name: secret.name.clone(), data })
}
