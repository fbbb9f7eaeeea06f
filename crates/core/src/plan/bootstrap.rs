//! From machines without a config to a cluster: each gets its first config, etcd is begun on one, and the kubeconfig is
//! fetched.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;

use super::first::{First, InstallDisk};
use super::machine::{first_step, need};
use super::step::chain;
use super::{
    Action, Effect, Local, NodeAction, Passphrases, Plan, Risk, Skipped, Step, Target, WaitAction, ephemeral,
};
use crate::error::{Error, Result};
use crate::intent::{Intent, OnNode};
use crate::model::node::{MachineConfig, Node};

/// A machine that has no config gets its first, by which Talos is installed.
#[derive(Debug)]
pub struct Install {
    pub address: String,
    pub control_plane: bool,
    pub config: SecretString,
    pub labels: Vec<(String, String)>,
    /// Of the key that the machine showed when the plan was made: no other is given the config.
    pub fingerprint: String,
    /// Nothing where Talos is on a disk already.
    pub disk: Option<InstallDisk>,
}

/// etcd is begun on one control plane; the others join it by themselves.
#[derive(Debug)]
pub struct Bootstrap {
    pub address: String,
    /// All control planes: none of them may have data of etcd.
    pub control_planes: Vec<String>,
    /// The file that says which machine was asked; it is written before that, and stays.
    pub record: PathBuf,
}

/// What a bootstrap is planned from, besides the nodes.
#[derive(Debug)]
pub struct BootstrapRequest<'a> {
    pub intent: &'a Intent,
    /// The first configs that the file names, by address.
    pub firsts: &'a BTreeMap<String, First>,
    /// Whether the etcd of a control plane that has its config was begun, or has joined.
    pub begun: &'a BTreeMap<String, Result<bool>>,
    /// Where the kubeconfig goes, if there is none yet.
    pub kubeconfig: PathBuf,
    pub has_kubeconfig: bool,
    /// The cluster's API server answers already.
    pub answers: bool,
    /// Serials of disks on which everything may be lost.
    pub tokens: &'a [String],
    pub record: PathBuf,
    /// The machine that a former run asked.
    pub former: Option<String>,
}

/// The steps; none for what exists already.
///
/// # Errors
/// `Kind::Refused` where data or a second etcd would be at stake.
pub fn plan(asked: &BootstrapRequest<'_>, nodes: Vec<Node>) -> Result<Plan> {
    one_cluster(asked.firsts)?;
    only_with_tokens(asked, &nodes)?;
    let mut plan = Plan { simulated: nodes.iter().any(Node::simulated), ..Plan::default() };
    let mut control_planes = Vec::new();
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for node in nodes {
        let address = node.address.clone();
        let controls = if node.maintenance {
            first_of(asked, &node)?.is_control_plane()
        } else {
            node.is_control_plane()
        };
        if controls {
            control_planes.push(address.clone());
        }
        if node.maintenance {
            let step = install(asked, node, &mut plan.warnings).map_err(|error| error.at(&address))?;
            if controls { &mut first } else { &mut later }.push(step);
        }
    }
    plan.steps.extend(first.into_iter().chain(later));
    let begin = begin(asked, &control_planes, &mut plan.skipped)?;
    if begin.is_some() && control_planes.len() == 2 {
        plan.warnings.push(
            "two control planes: etcd stops when either of them is away; one or three are better".into(),
        );
    }
    let mut cluster = Plan { steps: begin.into_iter().collect(), ..Plan::default() };
    if let (Some(address), false) = (control_planes.first(), asked.has_kubeconfig) {
        let path = asked.kubeconfig.clone();
        let title = format!("kubeconfig in {}", path.display());
        let action = Action::Local(Local::Kubeconfig { address: address.clone(), path });
        cluster.steps.push(Step {
            effect: Effect::Create,
            ..Step::new("cluster/kubeconfig", Target::Cluster, title, action)
        });
    }
    if !asked.answers {
        cluster.steps.push(reachable(asked, &mut plan.warnings));
    }
    chain(&mut cluster.steps);
    plan.then(cluster);
    Ok(plan)
}

/// The configs must be of one cluster: its id and its authorities.
fn one_cluster(firsts: &BTreeMap<String, First>) -> Result<()> {
    let mut all = firsts.values();
    let Some(first) = all.next() else { return Ok(()) };
    match all.find(|other| other.cluster() != first.cluster()) {
        None => Ok(()),
        Some(other) => Err(Error::invalid(format!("{} and {} are configs of two clusters", first.file, other.file))
            .hint("the cluster's id, and the authorities of Talos and of Kubernetes, must be the same: make them from the same secrets")),
    }
}

fn first_of<'a>(asked: &'a BootstrapRequest<'_>, node: &Node) -> Result<&'a First> {
    asked.firsts.get(&node.address).ok_or_else(|| {
        Error::invalid(format!("{}: has no machine config yet, and the file names none for it", node.address))
            .hint("nodes: [{address: …, config: controlplane.yaml}], a config as `talosctl gen config` writes it")
    })
}

fn install(asked: &BootstrapRequest<'_>, node: Node, warnings: &mut Vec<String>) -> Result<Step> {
    let first = first_of(asked, &node)?;
    let fingerprint = fingerprint(asked.intent, &node)?;
    let (node, disk) = configured(node, first)?;
    let (on, disks) = (asked.intent.on(&node.address), need("disks", &node.disks)?);
    first.stays_on_system_disk(disks)?;
    if disk.is_some() {
        let most = on.ephemeral.map(|ephemeral| ephemeral.max_size);
        ephemeral::leaves_room(most.or(first.ephemeral()?), &on.volumes, disks)?;
    }
    // Volumes come when the machine can be looked at closely, which is after this: with `apply`.
    let on = OnNode { volumes: Vec::new(), ..on };
    let (step, said) = first_step(on, &node, &Passphrases::new())?;
    warnings.extend(said);
    let Action::Node(NodeAction::Config(config)) = step.action else {
        return Err(Error::failed("the first config is no config"));
    };
    let version = &need("Talos version", &node.version)?.tag;
    let place = disk.as_ref().map_or_else(|| "it is on a disk already".into(), InstallDisk::place);
    let more = if step.title.is_empty() { String::new() } else { format!("; {}", step.title) };
    let why = format!(
        "its key has the fingerprint {fingerprint}: compare it with the one on the machine's console"
    );
    Ok(Step {
        id: format!("node/{}/install", node.address),
        title: format!("Talos {version}, {place}, as {} by {}{more}", first.machine_type(), first.file),
        why: if step.why.is_empty() { why } else { format!("{why}; {}", step.why) },
        risk: match &disk {
            Some(disk) if disk.token.is_some() => Risk::Destroy,
            Some(_) => Risk::Format,
            None => Risk::Low,
        },
        action: Action::Node(NodeAction::Install(Install {
            address: config.address,
            control_plane: config.control_plane,
            config: config.config,
            labels: config.labels,
            fingerprint,
            disk,
        })),
        ..step
    })
}

/// The key that the machine shows; where the file says which one that must be, no other.
fn fingerprint(intent: &Intent, node: &Node) -> Result<String> {
    let shown = node.fingerprint.clone().ok_or_else(|| Error::failed("showed no certificate"))?;
    let entry = intent.nodes.iter().find(|entry| entry.address == node.address);
    match entry.and_then(|entry| entry.fingerprint.as_ref()) {
        Some(wanted) if *wanted != shown => Err(Error::refused(format!(
            "its key has the fingerprint {shown}, and the file says {wanted}"
        ))
        .hint("another machine answers at this address, or it was started again: its console shows the fingerprint of now")),
        _ => Ok(shown),
    }
}

/// The disks that Talos is to be installed on though nobody sees what is on them, each with its machine's address.
pub fn unseen(firsts: &BTreeMap<String, First>, nodes: &[Node]) -> Vec<(String, InstallDisk)> {
    let new = nodes.iter().filter(|node| node.maintenance);
    new.filter_map(|node| {
        let disk = firsts.get(&node.address)?.install_disk(node.disks.as_deref().ok()?).ok()??;
        disk.token.is_some().then(|| (node.address.clone(), disk))
    })
    .collect()
}

/// What can't be seen may be lost only with its token.
fn only_with_tokens(asked: &BootstrapRequest<'_>, nodes: &[Node]) -> Result<()> {
    let unseen = unseen(asked.firsts, nodes).into_iter();
    let (mut disks, mut tokens) = (String::new(), Vec::new());
    for (address, disk) in unseen {
        if let Some(token) = disk.token.filter(|token| !asked.tokens.contains(token)) {
            disks += &format!("\n  {address}: {}", disk.what);
            tokens.push(format!("--wipe-disk {token}"));
        }
    }
    if tokens.is_empty() {
        return Ok(());
    }
    Err(Error::refused(format!(
        "Talos is to be installed on disks of which a machine in maintenance mode does not show whether they are empty: \
         Talos sees nothing on them, but does not know NTFS or RAID{disks}"
    ))
    .hint(format!("if all that may be on them may be lost: {}", tokens.join(" "))))
}

/// The machine as it will be when Talos is installed: with this config, and on that disk.
fn configured(node: Node, first: &First) -> Result<(Node, Option<InstallDisk>)> {
    let mut found = node.disks?;
    let disk = first.install_disk(&found)?;
    if let Some(disk) = &disk {
        disk.take(&mut found);
    }
    let config = MachineConfig { text: first.text(), version: String::new() };
    let node = Node {
        version: Ok(first.version(node.version.as_ref().ok())?),
        machine_type: Ok(Some(first.machine_type().to_owned())),
        disks: Ok(found),
        volumes: Ok(node.volumes.unwrap_or_default()),
        mounts: Ok(node.mounts.unwrap_or_default()),
        config: Ok(Some(config)),
        ..node
    };
    Ok((node, disk))
}

/// etcd is begun only where it is known of every control plane that it was not.
fn begin(
    asked: &BootstrapRequest<'_>,
    control_planes: &[String],
    skipped: &mut Vec<Skipped>,
) -> Result<Option<Step>> {
    let mut begun = false;
    for (address, state) in asked.begun {
        begun |= *state.as_ref().map_err(|error| {
            Error::new(
                error.kind,
                format!("{address}: whether its etcd was begun is not known: {}", error.what),
            )
            .hint("etcd is begun only when that is known of every control plane")
        })?;
    }
    if begun {
        return Ok(None);
    }
    let Some(first) = control_planes.first() else {
        skipped
            .push(Skipped { what: "etcd".into(), why: "none of the file's nodes is a control plane".into() });
        return Ok(None);
    };
    let address = match &asked.former {
        Some(former) if !control_planes.contains(former) => {
            return Err(Error::refused(format!(
                "a former run began etcd on {former}, which is no control plane of the file"
            ))
            .hint(format!(
                "a second etcd would be another cluster: list {former}, or, if it was reset, remove {}",
                asked.record.display()
            )));
        }
        Some(former) => former,
        None => first,
    };
    let action = Action::Etcd(Bootstrap {
        address: address.clone(),
        control_planes: control_planes.to_vec(),
        record: asked.record.clone(),
    });
    let title = format!("etcd is begun on {address}, once");
    Ok(Some(Step { effect: Effect::Create, ..Step::new("cluster/etcd", Target::Cluster, title, action) }))
}

/// Waits for the API server, and for the nodes where the cluster has a network of Talos' own.
fn reachable(asked: &BootstrapRequest<'_>, warnings: &mut Vec<String>) -> Step {
    let network = asked.firsts.values().all(First::has_network);
    if !network {
        warnings.push("the configs bring no network (cni: none): install yours when the API server answers, then `nodeprep apply`".into());
    }
    let nodes = asked.intent.nodes.iter().filter(|_| network).map(|node| node.address.clone()).collect();
    let action = Action::Wait(WaitAction::Cluster { kubeconfig: asked.kubeconfig.clone(), nodes });
    let title =
        if network { "the API server answers and the nodes are ready" } else { "the API server answers" };
    Step::new("cluster/reachable", Target::Cluster, title, action)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::intent;
    use crate::model::disks::{Disk, Holder, Uses};
    use crate::model::node::{Status, Version};
    use crate::model::resources::DiskSpec;

    const FILE: &str = "apiVersion: nodeprep.dev/v1alpha1\nkind: Cluster\nmetadata: {name: lab}\nlabels: {rack: a}\n\
        volumes:\n  - {name: data, disk: {match: disk.serial == \"B\"}, minSize: 1GiB}\n\
        nodes: [{address: w1}, {address: c1}, {address: c2, fingerprint: key of c2}]\n";

    fn config(kind: &str, cluster: &str) -> First {
        let text = format!(
            "version: v1alpha1\nmachine:\n  type: {kind}\n  ca: {{crt: YQ==}}\n  install: {{disk: /dev/sda, image: \
             'ghcr.io/siderolabs/installer:v1.11.5'}}\ncluster:\n  id: {cluster}\n  ca: {{crt: Yw==}}\n"
        );
        First::parse(&format!("{kind}.yaml"), &text.into()).unwrap()
    }

    fn disk(name: &str, serial: &str, holder: Holder) -> Disk {
        let spec = DiskSpec {
            dev_path: format!("/dev/{name}"),
            serial: serial.into(),
            size: 1 << 40,
            ..DiskSpec::default()
        };
        let eligible = if holder == Holder::Nothing { Ok(()) } else { Err("may hold something".into()) };
        let uses = Uses::default();
        Disk { id: name.into(), spec, system: false, holder, partitions: Vec::new(), uses, eligible }
    }

    /// A machine that has its config, or waits for it.
    fn machine(address: &str, kind: Option<&str>) -> Node {
        let stage = if kind.is_some() { "running" } else { "maintenance" };
        Node {
            address: address.into(),
            version: Version::of_tag("v1.11.5").ok_or_else(|| Error::failed("no")),
            hostname: Ok(None),
            machine_type: Ok(kind.map(str::to_owned)),
            status: Ok(Status { stage: stage.into(), ready: true, unmet: Vec::new() }),
            disks: Ok(vec![disk("sda", "A", Holder::Nothing), disk("sdb", "B", Holder::Nothing)]),
            volumes: Ok(Vec::new()),
            mounts: Ok(Vec::new()),
            wanted_labels: Ok(BTreeMap::new()),
            labels: Ok(None),
            config: Ok(None),
            maintenance: kind.is_none(),
            fingerprint: kind.is_none().then(|| format!("key of {address}")),
            cert_days_left: None,
        }
    }

    /// What a plan is made from; each test changes something of it.
    struct World {
        firsts: BTreeMap<String, First>,
        begun: BTreeMap<String, Result<bool>>,
        nodes: Vec<Node>,
        tokens: Vec<String>,
        former: Option<String>,
        there: bool,
    }

    impl World {
        fn bare() -> Self {
            let firsts = [("w1", "worker"), ("c1", "controlplane"), ("c2", "controlplane")];
            Self {
                firsts: firsts.map(|(address, kind)| (address.to_owned(), config(kind, "x"))).into(),
                begun: BTreeMap::new(),
                nodes: ["w1", "c1", "c2"].map(|address| machine(address, None)).into(),
                tokens: Vec::new(),
                former: None,
                there: false,
            }
        }

        fn plan(self) -> Result<Plan> {
            let asked = BootstrapRequest {
                intent: &intent::parse("nodeprep.yaml", FILE.as_bytes()).unwrap(),
                firsts: &self.firsts,
                begun: &self.begun,
                kubeconfig: "kubeconfig".into(),
                has_kubeconfig: self.there,
                answers: self.there,
                tokens: &self.tokens,
                record: "etcd.json".into(),
                former: self.former,
            };
            plan(&asked, self.nodes)
        }
    }

    fn ids(plan: &Plan) -> String {
        plan.steps.iter().map(|step| step.id.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn bare_machines_become_a_cluster_in_this_order() {
        let plan = World::bare().plan().unwrap();
        assert_eq!(
            ids(&plan),
            "node/c1/install node/c2/install node/w1/install cluster/etcd cluster/kubeconfig cluster/reachable"
        );
        assert!(plan.warnings[0].contains("two control planes"), "{:?}", plan.warnings);
        let Action::Node(NodeAction::Install(install)) = &plan.steps[0].action else { panic!() };
        assert_eq!(
            (install.fingerprint.as_str(), install.disk.as_ref().unwrap().id.serial.as_deref()),
            ("key of c1", Some("A"))
        );
        let config = install.config.expose_secret();
        assert!(config.contains("rack: \"a\"") && !config.contains("UserVolumeConfig"), "{config}");
        assert_eq!(plan.steps[0].risk, Risk::Format);
    }

    #[test]
    fn what_is_there_already_is_left_alone() {
        let mut world = World::bare();
        world.nodes = vec![
            machine("w1", None),
            machine("c1", Some("controlplane")),
            machine("c2", Some("controlplane")),
        ];
        world.begun = [("c1".to_owned(), Ok(true)), ("c2".to_owned(), Ok(false))].into();
        world.there = true;
        assert_eq!(ids(&world.plan().unwrap()), "node/w1/install");
    }

    #[test]
    fn etcd_is_begun_where_it_was_begun_before_and_never_where_that_is_not_known() {
        let begun_on = |world: World| {
            let plan = world.plan()?;
            let step = plan.steps.iter().find(|step| step.id == "cluster/etcd");
            Ok(step.map(|step| match &step.action {
                Action::Etcd(work) => work.address.clone(),
                other => panic!("{other:?}"),
            }))
        };
        assert_eq!(begun_on(World::bare()).unwrap().as_deref(), Some("c1"));
        let former = |address: &str| World { former: Some(address.into()), ..World::bare() };
        assert_eq!(begun_on(former("c2")).unwrap().as_deref(), Some("c2"));
        let error: Error = begun_on(former("c9")).unwrap_err();
        assert!(error.what.contains("c9") && error.kind.exit_code() == 5, "{error}");
        let mut unknown = World::bare();
        unknown.nodes[2] = machine("c2", Some("controlplane"));
        unknown.begun = [("c2".to_owned(), Err(Error::unavailable("no answer")))].into();
        let error = begun_on(unknown).unwrap_err();
        assert!(
            error.what.contains("c2: whether its etcd was begun") && error.kind.exit_code() == 75,
            "{error}"
        );
    }

    /// Changes the world.
    type Change = fn(&mut World);

    #[test]
    fn what_would_be_unsafe_is_refused_with_the_machine() {
        let cases: [(Change, &str, u8); 5] = [
            (|world| drop(world.firsts.remove("w1")), "w1: has no machine config yet", 2),
            (
                |world| drop(world.firsts.insert("w1".into(), config("worker", "y"))),
                "configs of two clusters",
                2,
            ),
            (
                |world| world.nodes[2].fingerprint = Some("another".into()),
                "c2: its key has the fingerprint another",
                5,
            ),
            (
                |world| world.nodes[1].disks = Ok(vec![disk("sdb", "B", Holder::Nothing)]),
                "c1: machine.install.disk /dev/sda",
                5,
            ),
            (
                |world| world.nodes[1].disks = Ok(vec![disk("sda", "A", Holder::Luks)]),
                "c1: Talos is to be installed on sda",
                5,
            ),
        ];
        for (change, word, code) in cases {
            let mut world = World::bare();
            change(&mut world);
            let error = world.plan().unwrap_err();
            assert!(error.what.contains(word) && error.kind.exit_code() == code, "{error}");
        }
    }

    #[test]
    fn a_disk_on_which_nothing_can_be_seen_needs_its_token() {
        let world = |tokens: &[&str]| {
            let mut world = World::bare();
            world.nodes[1].disks = Ok(vec![disk("sda", "A", Holder::Unknown("not looked at".into()))]);
            world.tokens = tokens.iter().map(|token| (*token).to_owned()).collect();
            world
        };
        for tokens in [&[][..], &["B"]] {
            let error = world(tokens).plan().unwrap_err();
            assert!(
                error.hint.unwrap().contains("--wipe-disk A") && error.what.contains("c1: sda"),
                "{}",
                error.what
            );
        }
        assert_eq!(world(&["A"]).plan().unwrap().steps[0].risk, Risk::Destroy);
    }
}
