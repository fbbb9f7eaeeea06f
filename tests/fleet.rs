//! A simulated fleet in memory, and nodeprep's own flow on it: on one thread with paused time, a run is the same each time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use nodeprep::check::{self, Outcome};
use nodeprep::cli::first_files;
use nodeprep::cluster::Cluster;
use nodeprep::error::Result;
use nodeprep::event::Events;
use nodeprep::intent::{self, Intent};
use nodeprep::observe::nodes::observe_answering;
use nodeprep::plan::first::First;
use nodeprep::plan::{self, bootstrap};
use nodeprep::session::{self, ApplyRequest, Manner, Part, Planned, Reach, Reached};
use nodeprep::stack;
use nodeprep::state::State;
use nodeprep::talos::client::Options;
use nodeprep::talos::config::Places;
use nodeprep_sandbox::Sandbox;
use nodeprep_sandbox::fleet::Fleet;
use nodeprep_sandbox::kube::object::time;
use nodeprep_sandbox::scenario::Scenario;
use nodeprep_sandbox::serve::network::Network;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::common::secret;

/// When the simulated fleet is started, in seconds since 1970.
const START: i64 = 1_790_000_000;

/// Runs something on one thread whose time stands still while there is something to do.
pub(crate) fn paused<T>(what: impl Future<Output = T>) -> T {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(what)
}

/// A fleet, and what is asked of it.
pub(crate) struct Session {
    pub fleet: Arc<Fleet>,
    pub intent: Intent,
    pub events: Events,
    /// The events so far, as JSON.
    pub told: Arc<Mutex<Vec<String>>>,
    network: Network,
    sandbox: Sandbox,
    state: TempDir,
    stop: watch::Sender<bool>,
}

impl Session {
    pub(crate) async fn start(scenario: &Scenario) -> Self {
        let (now, network) = (Timestamp::from_second(START).unwrap(), Network::memory());
        let sandbox = Sandbox::start(scenario, None, network.clone(), now, &first_files).await.unwrap();
        let fleet = Arc::clone(sandbox.fleet().unwrap());
        fleet.calls();
        let told = Arc::new(Mutex::new(Vec::new()));
        let (clock, sink) = (Arc::clone(&fleet), Arc::clone(&told));
        let events = Events::new(
            move || time(clock.now()),
            move |event| sink.lock().unwrap().push(serde_json::to_string(&event).unwrap()),
        );
        let intent =
            intent::parse("nodeprep.yaml", &std::fs::read(sandbox.folder.join("nodeprep.yaml")).unwrap())
                .unwrap();
        let (state, stop) = (tempfile::tempdir().unwrap(), watch::Sender::new(false));
        Self { fleet, intent, events, told, network, sandbox, state, stop }
    }

    /// What leads to the fleet.
    pub(crate) fn reach(&self, kubeconfig: PathBuf) -> Reach {
        let (flag, fleet) = (Some(self.sandbox.talosconfig()), Arc::clone(&self.fleet));
        Reach {
            places: Places { flag, talosconfig: None, talos_home: None, home: None },
            talos_context: None,
            options: Options { dial: self.sandbox.dial(), ..Options::default() },
            kubeconfig: Some(kubeconfig),
            context: None,
            dial: self.network.dial(),
            clock: Arc::new(move || fleet.now()),
        }
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.sandbox.kubeconfig()
    }

    /// What differs between what is asked and what is there, and the connections that it was read through.
    pub(crate) async fn plan(&self) -> Result<Planned> {
        self.planned(None).await
    }

    pub(crate) async fn planned(&self, connected: Option<Reached>) -> Result<Planned> {
        let (addresses, passphrases) = (self.intent.addresses(), plan::Passphrases::new());
        let asked = ApplyRequest {
            intent: &self.intent,
            part: Part::All,
            addresses: &addresses,
            secrets: &secrets(),
            passphrases: &passphrases,
        };
        session::plan(&self.reach(self.kubeconfig()), &asked, connected).await
    }

    pub(crate) async fn cluster(&self) -> Result<Cluster> {
        self.reach(self.kubeconfig()).cluster().await
    }

    /// What is left to do until there is a cluster, and the connections that it was read through.
    pub(crate) async fn plan_bootstrap(&self) -> Result<Planned> {
        let (kubeconfig, record) =
            (self.state.path().join("kubeconfig"), self.state.path().join("etcd.json"));
        let reach = self.reach(kubeconfig.clone());
        let talos = reach.talos()?;
        let nodes = observe_answering(&talos, &self.intent.addresses(), self.fleet.now()).await?;
        let (mut begun, mut firsts) = (BTreeMap::new(), BTreeMap::new());
        for node in nodes.iter().filter(|node| !node.maintenance && node.is_control_plane()) {
            begun.insert(node.address.clone(), talos.node(&node.address)?.has_etcd_data().await);
        }
        for node in &self.intent.nodes {
            let path = node.config.as_ref().unwrap();
            let text = std::fs::read_to_string(self.sandbox.folder.join(path)).unwrap();
            firsts.insert(node.address.clone(), First::parse("config", &text.into())?);
        }
        let disks = bootstrap::unseen(&firsts, &nodes);
        let tokens: Vec<String> = disks.into_iter().filter_map(|(_, disk)| disk.token).collect();
        let cluster = match kubeconfig.exists() {
            true => Reached::of(reach.cluster().await)?,
            false => Reached::None,
        };
        let asked = bootstrap::BootstrapRequest {
            intent: &self.intent,
            firsts: &firsts,
            begun: &begun,
            has_kubeconfig: kubeconfig.exists(),
            kubeconfig,
            answers: cluster.here().is_some(),
            tokens: &tokens,
            former: session::begun_on(&record)?,
            record,
        };
        let plan = bootstrap::plan(&asked, nodes)?;
        Ok(Planned::new(plan, Some(talos), cluster, Vec::new()))
    }

    /// As Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        self.stop.send_replace(true);
    }

    pub(crate) fn state(&self) -> State {
        State::open(self.state.path(), "sandbox").unwrap()
    }

    /// As a process of its own opens one.
    pub(crate) fn open(&self, verb: &'static str) -> Result<session::Session> {
        session::Session::open(verb, "sandbox", self.state(), self.events.clone(), self.stop.subscribe())
    }

    pub(crate) async fn bootstrap(&self) -> Result<()> {
        let make = async |_| self.plan_bootstrap().await;
        self.open("bootstrap")?.carry_out(&Manner::default(), make, async |_| Ok(false)).await
    }

    pub(crate) async fn apply(&self) -> Result<()> {
        let make = async |connected| self.planned(connected).await;
        self.open("apply")?.carry_out(&Manner::default(), make, async |_| Ok(false)).await
    }

    /// Carries out a plan that was made before.
    pub(crate) async fn carry_out(&self, planned: Planned, manner: &Manner) -> Result<()> {
        let planned = RefCell::new(Some(planned));
        let make = async |_| Ok(planned.take().unwrap());
        self.open("apply")?.carry_out(manner, make, async |_| Ok(false)).await
    }

    /// Runs all checks.
    pub(crate) async fn check(&self) -> Result<Outcome> {
        let context = check::Context {
            intent: self.intent.clone(),
            cluster: self.cluster().await?,
            scope: Vec::new(),
            names: BTreeMap::new(),
            events: self.events.clone(),
            run_id: "run".into(),
            now: self.fleet.now(),
            password: Ok(stack::repository_password(&secrets()).cloned()),
            state: self.state.path().to_owned(),
        };
        check::run(&context, &[], &[], self.stop.subscribe()).await
    }
}

fn secrets() -> [stack::StackSecret; 2] {
    let cloud = "[default]\naws_access_key_id=id\naws_secret_access_key=key\n";
    [
        secret("cloud-credentials", &[("cloud", cloud)]),
        secret("velero-repo-credentials", &[("repository-password", "own")]),
    ]
}
