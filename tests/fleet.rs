//! A simulated fleet in memory, and nodeprep's own flow on it: on one thread with paused time, a run is the same each time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use nodeprep::apply::{self, Journal, Parallel, World};
use nodeprep::check::{self, Outcome};
use nodeprep::cluster::Cluster;
use nodeprep::error::Result;
use nodeprep::event::Events;
use nodeprep::intent::{self, Deadlines, Intent};
use nodeprep::observe;
use nodeprep::observe::identity;
use nodeprep::plan::first::First;
use nodeprep::plan::{self, Plan, Saved, bootstrap};
use nodeprep::sandbox::Sandbox;
use nodeprep::sandbox::fleet::Fleet;
use nodeprep::sandbox::kube::object::time;
use nodeprep::sandbox::scenario::Scenario;
use nodeprep::sandbox::serve::network::Network;
use nodeprep::stack;
use nodeprep::state::State;
use nodeprep::talos::client::{Mode, Options};
use nodeprep::talos::config::Places;
use nodeprep::talos::{Client, Context};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::common::secret;

/// When the simulated fleet is started, in seconds since 1970.
const START: i64 = 1_790_000_000;

/// Runs something on one thread whose time stands still while there is something to do.
pub fn paused<T>(what: impl Future<Output = T>) -> T {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(what)
}

/// A fleet, and what is asked of it.
pub struct Session {
    pub fleet: Arc<Fleet>,
    pub intent: Intent,
    pub events: Events,
    /// The events so far, as JSON.
    pub told: Arc<Mutex<Vec<String>>>,
    network: Network,
    sandbox: Sandbox,
    state: TempDir,
    /// Kept, so that nothing is interrupted.
    stop: watch::Sender<bool>,
}

impl Session {
    pub async fn start(scenario: &Scenario) -> Self {
        let (now, network) = (Timestamp::from_second(START).unwrap(), Network::memory());
        let sandbox = Sandbox::start(scenario, None, network.clone(), now).await.unwrap();
        let fleet = Arc::clone(sandbox.fleet().unwrap());
        fleet.calls();
        let told = Arc::new(Mutex::new(Vec::new()));
        let (clock, sink) = (Arc::clone(&fleet), Arc::clone(&told));
        let events = Events::new(
            move || time(clock.now()),
            move |event| sink.lock().unwrap().push(serde_json::to_string(&event).unwrap()),
        );
        let intent = intent::parse("nodeprep.yaml", &std::fs::read(sandbox.file()).unwrap()).unwrap();
        let (state, stop) = (tempfile::tempdir().unwrap(), watch::Sender::new(false));
        Self { fleet, intent, events, told, network, sandbox, state, stop }
    }

    /// What differs between what is asked and what is there, and the connections that it was read through.
    pub async fn plan(&self) -> Result<(Plan, World)> {
        let talos = self.talos()?;
        let cluster = self.cluster().await?;
        let mut plan = Plan::default();
        let addresses: Vec<String> = self.intent.nodes.iter().map(|node| node.address.clone()).collect();
        let nodes = observe::nodes::observe_all(&talos, &addresses, self.fleet.now()).await?;
        let members = identity::prove(&talos, &nodes, &cluster).await?.members(&addresses);
        let hosts = members.into_iter().map(|(address, member)| (address, member.hostname)).collect();
        let items = stack::render_on(&self.intent, &secrets(), &hosts)?;
        for node in &nodes {
            plan.extend(plan::machine::plan(&self.intent, node, &plan::Passphrases::new())?);
        }
        plan.extend(plan::stack::plan(
            &self.intent,
            &items,
            &observe::cluster::observe(&cluster, &items).await?,
        )?);
        let world = self.world(talos, Some(cluster));
        Ok((plan, world))
    }

    pub async fn cluster(&self) -> Result<Cluster> {
        Cluster::connect(Some(&self.sandbox.kubeconfig()), None, &self.network.dial()).await
    }

    /// What is left to do until there is a cluster, and the connection that it was read through.
    pub async fn plan_bootstrap(&self) -> Result<(Plan, World)> {
        let talos = self.talos()?;
        let addresses: Vec<String> = self.intent.nodes.iter().map(|node| node.address.clone()).collect();
        let nodes = observe::nodes::observe_all(&talos, &addresses, self.fleet.now()).await?;
        if let Some(Err(error)) = nodes.iter().find(|node| !node.answers()).map(|node| &node.version) {
            return Err(error.clone());
        }
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
        let (kubeconfig, record) =
            (self.state.path().join("kubeconfig"), self.state.path().join("etcd.json"));
        let answers = Cluster::connect(Some(&kubeconfig), None, &self.network.dial()).await;
        let asked = bootstrap::Asked {
            intent: &self.intent,
            firsts: &firsts,
            begun: &begun,
            has_kubeconfig: kubeconfig.exists(),
            kubeconfig,
            answers: answers.is_ok(),
            tokens: &tokens,
            former: apply::begun_on(&record)?,
            record,
        };
        Ok((bootstrap::plan(&asked, nodes)?, self.world(talos, None)))
    }

    fn talos(&self) -> Result<Client> {
        let flag = Some(self.sandbox.talosconfig());
        let places = Places { flag, talosconfig: None, talos_home: None, home: None };
        let context = Context::load(&places, None, Timestamp::now())?;
        let options = Options { dial: self.sandbox.dial(), ..Options::default() };
        Client::connect(&context, &context.endpoints, &options)
    }

    fn world(&self, talos: Client, cluster: Option<Cluster>) -> World {
        World {
            talos: Some(talos),
            cluster,
            mode: Mode::NoReboot,
            lease: None,
            parallel: Parallel::default(),
            keep_going: false,
            delete_emptydir_data: false,
            deadlines: Deadlines::default(),
        }
    }

    /// Plans and carries the plan out.
    pub async fn bootstrap(&self) -> Result<()> {
        let (plan, world) = self.plan_bootstrap().await?;
        self.carry_out(&plan, &world).await
    }

    /// Plans and carries the plan out.
    pub async fn apply(&self) -> Result<()> {
        let (plan, world) = self.plan().await?;
        self.carry_out(&plan, &world).await
    }

    pub async fn carry_out(&self, plan: &Plan, world: &World) -> Result<()> {
        let state = State::open(self.state.path(), "sandbox")?;
        let key = state.key()?;
        let mut journal = Journal::begin(&state, "apply", Saved::of("sandbox", plan, &key), &key)?;
        apply::run("apply", plan, world, &self.events, &mut journal, self.stop.subscribe()).await
    }

    /// Runs all checks.
    pub async fn check(&self) -> Result<Outcome> {
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
