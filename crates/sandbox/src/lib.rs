//! A simulated fleet, served over the real sockets: machines with disks that speak the machine API, and the cluster that
//! they make up. What it shows says that it is simulated. It answers as the real ones do, whoever asks.

mod changes;
pub mod configs;
pub mod faults;
pub mod fleet;
pub mod host;
pub mod kube;
pub mod machine;
pub mod object_store;
mod saved;
pub mod scenario;
pub mod serve;
pub mod timers;
pub mod world;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nodeprep_core::{config_doc, error, intent, model};
use nodeprep_wire::{dial, talos};
use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;

use self::fleet::Fleet;
use self::scenario::Scenario;
use self::serve::{kube as kubernetes, network::Network, pki::Authority, talos as machines_api};
use self::world::World;
use crate::dial::Dial;
use crate::error::{Error, Result};
use crate::talos::PORT;

/// The world is written to its folder this often, when something changed.
const SAVE_EVERY: Duration = Duration::from_secs(2);

/// The name of the folder's age key.
pub const KEY: &str = "age.key";

/// A sandbox: the files that lead to it, and the fleet while this process serves it.
#[derive(Debug)]
pub struct Sandbox {
    pub folder: PathBuf,
    network: Network,
    maintenance: Vec<(String, SocketAddr)>,
    /// Its authorities are those that it was given.
    given: bool,
    served: Option<Served>,
    /// Removed with the sandbox, unless it has a folder of its own.
    _temporary: Option<TempDir>,
}

/// The authorities of a cluster, each a certificate and its key in PEM. Only what is signed with the keys is written down.
#[derive(Debug, Default)]
pub struct Authorities {
    pub talos: Option<(String, SecretString)>,
    pub kubernetes: Option<(String, SecretString)>,
}

impl Authorities {
    /// Those that can be used.
    fn both(&self) -> Option<(Authority, Authority)> {
        let of = |given: &Option<(String, SecretString)>| {
            let (certificate, key) = given.as_ref()?;
            Authority::given(certificate, key.expose_secret())
        };
        Some((of(&self.talos)?, of(&self.kubernetes)?))
    }
}

/// Writes into a new folder what its user begins with, beside what leads to the servers: also the [`KEY`] that seals what is
/// kept there. Without one, what is kept holds no secrets.
pub type Files = dyn Fn(&Path, &World) -> Result<()> + Send + Sync;

#[derive(Debug)]
struct Served {
    fleet: Arc<Fleet>,
    /// Its folder is this process' own as long as it is held.
    _lock: Option<std::fs::File>,
    keep: bool,
}

impl Sandbox {
    pub fn talosconfig(&self) -> PathBuf {
        self.folder.join("talosconfig")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// The age key that opens what is kept in the folder, when there is one.
    pub fn age_key(&self) -> PathBuf {
        self.folder.join(KEY)
    }

    /// Whether its machines and its API server have the authorities that it was given.
    pub fn has_given(&self) -> bool {
        self.given
    }

    /// Whether another process serves it.
    pub fn joined(&self) -> bool {
        self.served.is_none()
    }

    /// Serves a fleet on this network until it is dropped; it is `now` when it starts. With a folder, the fleet is the one that
    /// was kept there, or is kept there from now on; one that another process serves is joined. A new one gets these files.
    ///
    /// # Errors
    /// The folder can't be used, or no port is free.
    pub async fn start(
        scenario: &Scenario,
        folder: Option<&Path>,
        network: Network,
        now: Timestamp,
        files: &Files,
    ) -> Result<Self> {
        Self::start_as(scenario, folder, network, now, files, &Authorities::default()).await
    }

    /// The same, as the cluster with these authorities, if they can be used.
    ///
    /// # Errors
    /// The folder can't be used, or no port is free.
    pub async fn start_as(
        scenario: &Scenario,
        folder: Option<&Path>,
        network: Network,
        now: Timestamp,
        files: &Files,
        authorities: &Authorities,
    ) -> Result<Self> {
        let (folder, temporary) = match folder {
            Some(folder) => (folder.to_owned(), None),
            None => {
                let made = tempfile::Builder::new().prefix("nodeprep-sandbox-").tempdir();
                let made = made.map_err(|error| failed(&error))?;
                (made.path().to_owned(), Some(made))
            }
        };
        let keep = temporary.is_none();
        let lock = if keep {
            match saved::lock(&folder)? {
                Some(lock) => Some(lock),
                None => {
                    let maintenance = read_maintenance(&folder);
                    return Ok(Self {
                        folder,
                        network,
                        maintenance,
                        given: false,
                        served: None,
                        _temporary: None,
                    });
                }
            }
        } else {
            None
        };
        let world = match saved::load(&folder)? {
            Some(world) => world,
            None => {
                let world = World::new(scenario, now);
                files(&folder, &world)?;
                world
            }
        };
        let fleet = Fleet::new(world, now, network.clone());
        let given = authorities.both();
        let (taken, own) = (given.is_some(), || {
            Ok::<_, Error>((Authority::new("sandbox talos")?, Authority::new("sandbox kubernetes")?))
        });
        let maintenance = publish(&folder, &fleet, given.map_or_else(own, Ok)?).await?;
        if keep {
            tokio::spawn(save_often(folder.clone(), Arc::downgrade(&fleet)));
        }
        let served = Some(Served { fleet, _lock: lock, keep });
        Ok(Self { folder, network, maintenance, given: taken, served, _temporary: temporary })
    }

    /// The fleet, when this process serves it.
    pub fn fleet(&self) -> Option<&Arc<Fleet>> {
        self.served.as_ref().map(|served| &served.fleet)
    }

    /// The machines that were in maintenance mode when they began to be served, and where each is reached.
    pub fn maintenance(&self) -> &[(String, SocketAddr)] {
        &self.maintenance
    }

    /// How the sandbox's servers are dialled. The address of a machine in maintenance mode leads to where it is reached.
    pub fn dial(&self) -> Dial {
        let (dial, maintenance) = (self.network.dial(), self.maintenance.clone());
        Arc::new(move |host, port| {
            match maintenance.iter().find(|(address, _)| port == PORT && *address == host) {
                Some((_, at)) => dial(at.ip().to_string(), at.port()),
                None => dial(host, port),
            }
        })
    }

    /// Writes down how the fleet is now, when it has a folder.
    pub fn save(&self) -> Result<()> {
        match &self.served {
            Some(served) if served.keep => saved::save(&self.folder, &served.fleet.look()),
            _ => Ok(()),
        }
    }
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::failed(format!("the sandbox can't be set up: {error}"))
}

async fn save_often(folder: PathBuf, fleet: std::sync::Weak<Fleet>) {
    let mut saved = 0;
    loop {
        tokio::time::sleep(SAVE_EVERY).await;
        let Some(fleet) = fleet.upgrade() else { return };
        let world = fleet.look();
        // What can't be written now is tried again, and said at the end.
        if world.revision() != saved && saved::save(&folder, &world).is_ok() {
            saved = world.revision();
        }
    }
}

/// Starts all servers, and writes the files that clients need; returns where machines in maintenance mode are reached.
async fn publish(
    folder: &Path,
    fleet: &Arc<Fleet>,
    (talos_ca, kubernetes_ca): (Authority, Authority),
) -> Result<Vec<(String, SocketAddr)>> {
    let address = machines_api::serve(fleet, &talos_ca, 0).await?;
    let machines = |configured: bool| -> Vec<String> {
        let world = fleet.look();
        let found = world.machines.values().filter(|machine| machine.active.is_some() == configured);
        found.map(|machine| machine.address.clone()).collect()
    };
    let days = fleet.look().certificate_days;
    let client = talos_ca.client(machines_api::ADMIN, days)?;
    let config = machines_api::talosconfig(address, &machines(true), &talos_ca, &client);
    saved::write(&folder.join("talosconfig"), config.to_string().as_bytes())?;
    let mut maintenance = Vec::new();
    for node in machines(false) {
        let address = machines_api::serve_maintenance(fleet, &talos_ca, &node).await?;
        maintenance.push((node, address));
    }
    let lines: String = maintenance.iter().map(|(node, address)| format!("{node}: {address}\n")).collect();
    saved::write(&folder.join("maintenance.yaml"), [MAINTENANCE, &lines].concat().as_bytes())?;
    let address = kubernetes::serve(fleet, &kubernetes_ca, 0).await?;
    let config =
        kubernetes::kubeconfig(address, &kubernetes_ca, &kubernetes_ca.client("system:masters", days)?);
    fleet.set_kubeconfig(config.to_string());
    configs::write(folder, &fleet.look(), &configs::Cluster { talos_ca, kubernetes_ca, address })?;
    // It comes last: who finds it finds the others too.
    saved::write(&folder.join("kubeconfig"), config.to_string().as_bytes())?;
    Ok(maintenance)
}

/// Where machines in maintenance mode are reached, as the process that serves them wrote it down.
fn read_maintenance(folder: &Path) -> Vec<(String, SocketAddr)> {
    let text = std::fs::read_to_string(folder.join("maintenance.yaml")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines.filter_map(|(node, at)| Some((node.to_owned(), at.parse().ok()?))).collect()
}

/// Before the list of machines in maintenance mode.
const MAINTENANCE: &str =
    "# Where each machine in maintenance mode is reached: talosctl -n 127.0.0.1:PORT get disks --insecure\n";
