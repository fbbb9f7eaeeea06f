//! `bootstrap`: from machines without a config to a cluster, and on to its storage.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::watch;

use super::apply as cli;
use super::global::{Global, Output};
use super::plan::agree;
use super::wipe::Typed;
use crate::cluster::{self, Cluster};
use crate::dial;
use crate::error::{Error, Result};
use crate::intent::Intent;
use crate::model::node::Node;
use crate::observe::nodes::observe_answering;
use crate::plan::Plan;
use crate::plan::bootstrap::{BootstrapRequest, plan, unseen};
use crate::plan::first::First;
use crate::report;
use crate::session::{Manner, Planned, Reached, begun_on, cut_offs};
use crate::state::State;
use crate::talos::Client;
use crate::wait::{Look, Wait};

const VERB: &str = "bootstrap";
/// Between two looks at machines that do not answer.

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Carry the plans out unasked.
    #[arg(short, long)]
    yes: bool,
    /// Take the cluster's lock over from a run on another machine that died.
    #[arg(long)]
    take_over: bool,
    /// The serial of a disk that Talos is installed on: whatever is on it may be lost, which nobody can see before.
    #[arg(long, value_name = "SERIAL")]
    wipe_disk: Vec<String>,
    /// End with the cluster: do not go on with `apply`.
    #[arg(long)]
    no_apply: bool,
    /// Do not prove the storage afterwards.
    #[arg(long)]
    no_validate: bool,
}

pub(super) async fn run(global: &Global, args: &Args) -> Result<()> {
    if !global.nodes.is_empty() {
        return Err(Error::invalid("bootstrap needs all nodes of the file: --nodes leaves some out"));
    }
    let intent = global.intent()?;
    let firsts = firsts(global, &intent)?;
    let network = firsts.values().all(First::has_network);
    let interrupted = super::interrupted(global.events());
    let begin = Begin { global, args, intent: &intent, firsts: &firsts, kubeconfig: kubeconfig(global) };
    begin.run(interrupted.clone()).await?;
    let path = begin.kubeconfig;
    global.events().say(format!("the cluster is there: export KUBECONFIG={}", path.display()));
    if args.no_apply || !network {
        let why = if network { "" } else { "it has no network yet: install yours, then " };
        global.events().say(format!("{why}`nodeprep apply` goes on"));
        return Ok(());
    }
    let global = Global { kubeconfig: Some(path), ..global.clone() };
    let consent = cli::Consent { yes: args.yes, take_over: args.take_over, ..cli::Consent::default() };
    cli::all(&global, &intent, &consent, args.no_validate, args.output, interrupted).await
}

/// Where the kubeconfig is, or goes: `--kubeconfig`, else beside the file.
fn kubeconfig(global: &Global) -> PathBuf {
    let beside = || global.file.parent().map(|folder| folder.join("kubeconfig")).unwrap_or_default();
    let path = global.kubeconfig.clone().unwrap_or_else(beside);
    std::path::absolute(&path).unwrap_or(path)
}

/// The first configs that the file names, by address.
pub(super) fn firsts(global: &Global, intent: &Intent) -> Result<BTreeMap<String, First>> {
    let mut read: BTreeMap<&PathBuf, SecretString> = BTreeMap::new();
    let mut firsts = BTreeMap::new();
    for node in &intent.nodes {
        let Some(path) = &node.config else { continue };
        let text = match read.entry(path) {
            Entry::Occupied(text) => text.into_mut(),
            Entry::Vacant(place) => place.insert(global.machine_config(path)?),
        };
        firsts.insert(node.address.clone(), First::parse(&path.display().to_string(), text)?);
    }
    Ok(firsts)
}

/// The way to a cluster.
struct Begin<'a> {
    global: &'a Global,
    args: &'a Args,
    intent: &'a Intent,
    /// By address.
    firsts: &'a BTreeMap<String, First>,
    kubeconfig: PathBuf,
}

impl Begin<'_> {
    /// Plans until there is a cluster, and carries it out.
    async fn run(&self, interrupted: watch::Receiver<bool>) -> Result<()> {
        let Self { global, args, intent, .. } = self;
        let client = self.client()?;
        let session = cli::open(global, &intent.metadata.name, VERB, interrupted)?;
        let resumed = cut_offs(session.state())?.iter().any(|cut| cut.verb == VERB);
        let typed = Typed::beside(&args.wipe_disk);
        let make = async |connected: Option<Reached>| {
            let nodes = self.observe(&client, resumed).await?;
            let cluster = match connected {
                Some(cluster) => cluster,
                None => self.cluster().await?,
            };
            let plan = self.plan(session.state(), &client, cluster.here().is_some(), nodes, &typed).await?;
            Ok(Planned::new(plan, Some(client.clone()), cluster, Vec::new()))
        };
        let manner =
            Manner { take_over: args.take_over, deadlines: intent.deadlines.clone(), ..Manner::default() };
        session.carry_out(&manner, make, agree(global, &session, args.yes)).await
    }

    /// Whether the authorities must be those of the configs; a sandbox may not have theirs.
    fn judges(&self) -> bool {
        self.global.simulated.as_ref().is_none_or(|simulated| !simulated.foreign)
    }

    /// A client of the machines, whose certificates the configs' authority will make.
    fn client(&self) -> Result<Client> {
        let Self { global, firsts, .. } = self;
        let reach = global.reach();
        let context = reach.talos_context()?;
        let stranger = |first: &&First| !context.trusts(first.talos_ca());
        if let Some(first) = firsts.values().find(stranger).filter(|_| self.judges()) {
            let (file, config) = (context.file.display(), &first.file);
            return Err(Error::invalid(format!(
                "{file}: context {} is not of the cluster of {config}",
                context.name
            ))
            .hint("once the machines have that config, only its own cluster's talosconfig reaches them: name it with --talosconfig"));
        }
        if !context.endpoints.is_empty() {
            return reach.talos();
        }
        // As `talosctl gen config` leaves it.
        let controls = |address: &&String| firsts.get(*address).is_some_and(First::is_control_plane);
        let endpoints = self.intent.nodes.iter().map(|node| &node.address).filter(controls).cloned();
        Client::connect(&context, &endpoints.collect::<Vec<_>>(), &reach.options)
    }

    /// Reads the machines; after a run that was cut off some may be installing Talos, and answer later.
    async fn observe(&self, client: &Client, patient: bool) -> Result<Vec<Node>> {
        let _busy = report::busy(self.global.progress, "reading the machines");
        let addresses = self.intent.addresses();
        let patience = if patient { self.intent.deadlines.bootstrap.std() } else { Duration::ZERO };
        let events = self.global.events();
        let wait = Wait::new("the machines to answer", patience, &events);
        let nodes = wait
            .until(async || observe_answering(client, &addresses, Timestamp::now()).await.map(Look::Done));
        nodes.await.map_err(|late| late.or(|_, last| Error::failed(last)))
    }

    /// The cluster that the kubeconfig leads to, when there is one.
    async fn cluster(&self) -> Result<Reached> {
        let (path, context) = (&self.kubeconfig, self.global.context.as_deref());
        if !path.exists() {
            return Ok(Reached::None);
        }
        for first in self.firsts.values() {
            let authority = first.kubernetes_ca().unwrap_or_default();
            if self.judges() && !cluster::trusts(path, context, &authority).await? {
                return Err(Error::invalid(format!("{} is not of the cluster of {}", path.display(), first.file))
                    .hint("name another file with --kubeconfig: one that is not there is written, and one that is there is never changed"));
            }
        }
        Reached::of(Cluster::connect(Some(path), context, &dial::tcp()).await)
    }

    /// Those of the command line, and those that somebody at a terminal types.
    fn tokens(&self, nodes: &[Node], typed: &Typed) -> Result<Vec<String>> {
        let why =
            "a machine in maintenance mode does not show whether it is empty, and whatever is on it is lost";
        typed.with(unseen(self.firsts, nodes).into_iter().filter_map(|(address, disk)| {
            let about = format!("{address}: Talos is to be installed on {}; {why}.", disk.what);
            Some((disk.token?, about))
        }))
    }

    async fn plan(
        &self,
        state: &State,
        client: &Client,
        answers: bool,
        nodes: Vec<Node>,
        typed: &Typed,
    ) -> Result<Plan> {
        let mut begun = BTreeMap::new();
        for node in nodes.iter().filter(|node| !node.maintenance && node.is_control_plane()) {
            begun.insert(node.address.clone(), client.node(&node.address)?.has_etcd_data().await);
        }
        let record = state.dir().join("etcd.json");
        let tokens = self.tokens(&nodes, typed)?;
        let asked = BootstrapRequest {
            intent: self.intent,
            firsts: self.firsts,
            begun: &begun,
            kubeconfig: self.kubeconfig.clone(),
            has_kubeconfig: self.kubeconfig.exists(),
            answers,
            tokens: &tokens,
            former: begun_on(&record)?,
            record,
        };
        let plan = plan(&asked, nodes)?;
        Ok(Plan { simulated: plan.simulated || self.global.simulated.is_some(), ..plan })
    }
}
