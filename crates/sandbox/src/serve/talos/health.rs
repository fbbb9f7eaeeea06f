//! The cluster service: whether the cluster is healthy. Check after check is judged from what the machines and the Node
//! objects say; what does not hold yet is waited for.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures::stream;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{Api, Replies, etcd, reached};
use crate::changes::Seen;
use crate::kube::object::{holds, text};
use crate::machine::Machine;
use crate::talos::proto::cluster::cluster_service_server::ClusterService;
use crate::talos::proto::cluster::{ClusterInfo, HealthCheckProgress, HealthCheckRequest};
use crate::talos::proto::common::Metadata;
use crate::world::World;

/// No check is waited for longer.
const LONGEST: Duration = Duration::from_secs(300);
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

type Check = fn(&World, &Nodes) -> Result<(), String>;

/// In the order and words of Talos. Its checks of memory, disk sizes, diagnostics, static pods, kube-proxy and CoreDNS are
/// missing: nothing of that is simulated.
static CHECKS: [(&str, Check); 10] = [
    ("etcd to be healthy", |world, nodes| service(world, nodes, "etcd")),
    ("etcd members to be consistent across nodes", etcd_answers),
    ("etcd members to be control plane nodes", etcd_members),
    ("apid to be ready", answer),
    ("kubelet to be healthy", |world, nodes| service(world, nodes, "kubelet")),
    ("all nodes to finish boot sequence", booted),
    ("all k8s nodes to report", |world, nodes| same(&nodes.all(), &registered(world, |_| true))),
    ("all control plane components to be ready", |world, nodes| {
        let labelled = |node: &Value| !node["metadata"]["labels"][CONTROL_PLANE].is_null();
        same(&nodes.controlplanes, &registered(world, labelled))
    }),
    ("all k8s nodes to report ready", |world, _| no_node(world, "ready", |node| !holds(node, "Ready"))),
    ("all k8s nodes to report schedulable", |world, _| {
        no_node(world, "schedulable", |node| node["spec"]["unschedulable"] == true)
    }),
];

/// The addresses of the machines that should be healthy.
struct Nodes {
    controlplanes: BTreeSet<String>,
    workers: BTreeSet<String>,
}

impl Nodes {
    /// Those that are named, or all members.
    fn of(world: &World, named: &ClusterInfo) -> Result<Self, Status> {
        let parsed = |named: &[String]| -> Result<BTreeSet<String>, Status> {
            let wrong = |address| Status::unknown(format!("ParseAddr({address:?}): unable to parse IP"));
            let each = named
                .iter()
                .map(|address| address.parse().map_err(|_| wrong(address)).map(|ip: IpAddr| ip.to_string()));
            each.collect()
        };
        if named.control_plane_nodes.is_empty() && named.worker_nodes.is_empty() {
            let (controlplanes, workers): (Vec<_>, Vec<_>) =
                members(world).partition(|machine| machine.controlplane);
            return Ok(Self { controlplanes: addresses(controlplanes), workers: addresses(workers) });
        }
        Ok(Self { controlplanes: parsed(&named.control_plane_nodes)?, workers: parsed(&named.worker_nodes)? })
    }

    fn all(&self) -> BTreeSet<String> {
        self.controlplanes.union(&self.workers).cloned().collect()
    }
}

fn members(world: &World) -> impl Iterator<Item = &Machine> {
    world.machines.values().filter(|machine| machine.active.is_some())
}

fn addresses<'a>(machines: impl IntoIterator<Item = &'a Machine>) -> BTreeSet<String> {
    machines.into_iter().map(|machine| machine.address.clone()).collect()
}

/// A machine that answers.
fn asked<'a>(world: &'a World, node: &str) -> Result<&'a Machine, String> {
    let found = reached(world, node).and_then(|machine| {
        let configured = Some(machine).filter(|machine| machine.active.is_some());
        configured.ok_or_else(|| Status::unavailable("the machine is in maintenance mode"))
    });
    found.map_err(|status| format!("{node}: {}", in_words(&status)))
}

/// As Talos' own clients write a status.
fn in_words(status: &Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

/// As Talos writes a list of addresses.
fn quoted<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    let quoted: Vec<String> = texts.into_iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// The control planes run this service, and it is well.
fn service(world: &World, nodes: &Nodes, id: &str) -> Result<(), String> {
    for node in &nodes.controlplanes {
        let machine = asked(world, node)?;
        let mut services = machine.published.of("Services.v1alpha1.talos.dev");
        let Some((_, service)) = services.find(|(name, _)| *name == id) else {
            return Err(format!("{node}: service {id:?} is not there"));
        };
        if service.spec["running"] != true || service.spec["healthy"] != true {
            return Err(format!("{node}: service is not healthy: {id}"));
        }
    }
    Ok(())
}

/// Every control plane answers for etcd; whoever does knows the same members.
fn etcd_answers(world: &World, nodes: &Nodes) -> Result<(), String> {
    for node in &nodes.controlplanes {
        if !asked(world, node)?.controlplane {
            let status = Status::unimplemented("member list is only available on control plane nodes");
            return Err(format!("{node}: {}", in_words(&status)));
        }
    }
    Ok(())
}

fn etcd_members(world: &World, nodes: &Nodes) -> Result<(), String> {
    let (members, known) = (addresses(etcd::all(world)), &nodes.controlplanes);
    if members.is_subset(known) {
        return Ok(());
    }
    let (members, known) = (quoted(&members), quoted(known));
    Err(format!("etcd member ips {members} are not subset of control plane node ips {known}"))
}

fn answer(world: &World, nodes: &Nodes) -> Result<(), String> {
    nodes.all().iter().try_for_each(|node| asked(world, node).map(|_| ()))
}

fn booted(world: &World, nodes: &Nodes) -> Result<(), String> {
    for node in nodes.all() {
        let mut statuses = asked(world, &node)?.published.of("MachineStatuses.runtime.talos.dev");
        let stage = statuses.next().map_or("unknown", |(_, status)| text(&status.spec, "/stage"));
        if stage != "running" {
            return Err(format!("nodes are not running: {stage}: [{node}]"));
        }
    }
    Ok(())
}

/// The addresses of the Node objects that are meant.
fn registered(world: &World, meant: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let nodes = world.api.store.list("/nodes", "").map(|(_, node)| node).filter(|node| meant(node));
    let addresses = nodes.flat_map(|node| node["status"]["addresses"].as_array().into_iter().flatten());
    let internal = addresses.filter(|address| address["type"] == "InternalIP");
    internal.map(|address| text(address, "/address").to_owned()).collect()
}

fn same(wanted: &BTreeSet<String>, there: &BTreeSet<String>) -> Result<(), String> {
    if let Some(missing) = wanted.difference(there).next() {
        return Err(format!("can't find expected node with IPs {}", quoted([missing])));
    }
    let unexpected: Vec<&String> = there.difference(wanted).collect();
    if unexpected.is_empty() {
        return Ok(());
    }
    Err(format!("unexpected nodes with IPs {}", quoted(unexpected)))
}

/// No Node object is otherwise than it should be.
fn no_node(world: &World, what: &str, otherwise: impl Fn(&Value) -> bool) -> Result<(), String> {
    let nodes = world.api.store.list("/nodes", "").filter(|(_, node)| otherwise(node));
    let names: Vec<&str> = nodes.map(|(place, _)| place.name.as_str()).collect();
    if names.is_empty() { Ok(()) } else { Err(format!("some nodes are not {what}: [{}]", names.join(" "))) }
}

#[tonic::async_trait]
impl ClusterService for Api {
    type HealthCheckStream = Replies<HealthCheckProgress>;

    async fn health_check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::HealthCheckStream>, Status> {
        let caller = self.caller(&request, "HealthCheck")?;
        let HealthCheckRequest { wait_timeout, cluster_info } = request.into_inner();
        let named = cluster_info.unwrap_or_default();
        let [node] = caller.nodes.as_slice() else {
            return Err(Status::invalid_argument("health is asked of one machine"));
        };
        if !named.force_endpoint.is_empty() {
            return Err(Status::unimplemented("the sandbox has one API server: force_endpoint is not known"));
        }
        let begin = |world: &mut World, _: Timestamp, address: &str| {
            Ok((address.to_owned(), Nodes::of(world, &named)?))
        };
        let (address, nodes) = self.call(&caller, node, "HealthCheck", begin).await?;
        let wait = wait_timeout.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or_default();
        let now = Instant::now();
        let health = Health {
            api: self.clone(),
            address,
            hostname: caller.many.then(|| node.clone()),
            nodes,
            next: 0,
            since: now,
            end: now + wait.min(Duration::from_secs(86_400)),
            said: String::new(),
            changes: self.fleet.changes(),
        };
        Ok(Response::new(Box::pin(stream::unfold(
            Some(health),
            |health| async move { health?.next().await },
        ))))
    }
}

/// A health check on its way.
struct Health {
    api: Api,
    /// Of the machine that checks.
    address: String,
    /// Whose answer it is, when several machines could have been asked.
    hostname: Option<String>,
    nodes: Nodes,
    /// The next of the checks.
    next: usize,
    /// When the next check was begun.
    since: Instant,
    end: Instant,
    /// What was said last.
    said: String,
    changes: Seen,
}

type Reply = Result<HealthCheckProgress, Status>;

impl Health {
    /// The next thing to say, and what goes on after it.
    async fn next(mut self) -> Option<(Reply, Option<Self>)> {
        if self.said.is_empty() {
            let line = format!("discovered nodes: {}", quoted(&self.nodes.all()));
            return Some(self.say(line));
        }
        loop {
            let (what, check) = CHECKS.get(self.next)?;
            let limit = self.end.min(self.since + LONGEST);
            if Instant::now() >= limit {
                return Some((self.fail(Status::deadline_exceeded("context deadline exceeded")), None));
            }
            self.changes.mark_unchanged();
            let judged = match self.judge(*check) {
                Ok(judged) => judged,
                Err(status) => return Some((self.fail(status), None)),
            };
            let line = format!("waiting for {what}: {}", judged.as_ref().err().map_or("OK", String::as_str));
            if judged.is_ok() {
                self.next += 1;
                self.since = Instant::now();
            }
            if line != self.said {
                return Some(self.say(line));
            }
            tokio::select! {
                biased;
                _ = self.changes.changed() => {}
                () = tokio::time::sleep_until(limit) => {}
            }
        }
    }

    /// # Errors
    /// The machine that checks does not answer any more.
    fn judge(&self, check: Check) -> Result<Result<(), String>, Status> {
        let world = self.api.fleet.look();
        if reached(&world, &self.address)?.controlplane {
            return Ok(check(&world, &self.nodes));
        }
        // A worker passes no calls on.
        Ok(Err(in_words(&Status::permission_denied("no request forwarding"))))
    }

    fn say(mut self, line: String) -> (Reply, Option<Self>) {
        self.said.clone_from(&line);
        let metadata = self.hostname.clone();
        let metadata = metadata.map(|hostname| Metadata { hostname, error: String::new() });
        (Ok(HealthCheckProgress { metadata, message: line }), Some(self))
    }

    /// A call to several machines does not fail: one of the answers says what failed.
    fn fail(&self, status: Status) -> Reply {
        let Some(hostname) = self.hostname.clone() else { return Err(status) };
        let metadata = Some(Metadata { hostname, error: in_words(&status) });
        Ok(HealthCheckProgress { metadata, message: String::new() })
    }
}
