//! The simulated machine API: the gRPC services that its clients use, for all machines of the fleet at one
//! endpoint, which finds the machine by the metadata of each call as a control-plane node does.

mod each;
mod etcd;
mod files;
mod health;
mod machine;
mod maintenance;
mod state;
mod storage;
mod time;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::Stream;
use jiff::Timestamp;
use prost_types::Timestamp as Time;
use serde_json::{Value, json};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::network::any;
use super::pki::{Authority, Client};
use super::services::Services;
use super::{Peer, Upset, listen};
use crate::error::Result;
use crate::fleet::{Change, Fleet};
use crate::machine::{Machine, Refusal};
use crate::talos::MAX_MESSAGE;
use crate::talos::proto::cluster::cluster_service_server::ClusterServiceServer;
use crate::talos::proto::cosi::resource::state_server::StateServer;
use crate::talos::proto::machine::machine_service_server::MachineServiceServer;
use crate::talos::proto::storage::storage_service_server::StorageServiceServer;
use crate::talos::proto::time::time_service_server::TimeServiceServer;
use crate::world::World;

pub use maintenance::serve as serve_maintenance;

/// The role that may do everything.
pub const ADMIN: &str = "os:admin";

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves the fleet's machines on a port of this machine, to clients of this authority, until the program ends.
pub async fn serve(fleet: &Arc<Fleet>, authority: &Authority, port: u16) -> Result<SocketAddr> {
    let api = Api { fleet: Arc::clone(fleet), maintained: None };
    listen(fleet.network(), any(port), authority.server(authority, &["h2"])?, services(api)).await
}

fn services(api: Api) -> Services {
    let machine = MachineServiceServer::new(api.clone())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    Services::default()
        .with(machine)
        .with(StateServer::new(api.clone()).max_encoding_message_size(MAX_MESSAGE))
        .with(StorageServiceServer::new(api.clone()).max_decoding_message_size(MAX_MESSAGE))
        .with(TimeServiceServer::new(api.clone()))
        .with(ClusterServiceServer::new(api))
}

/// A talosconfig for this address, these machines and this client.
pub fn talosconfig(address: SocketAddr, nodes: &[String], authority: &Authority, client: &Client) -> Value {
    let data = |pem: &str| BASE64_STANDARD.encode(pem);
    // Talos' own tools write Ed25519 keys under this label (siderolabs/crypto, x509).
    let key = client.key.replace(" PRIVATE KEY-", " ED25519 PRIVATE KEY-");
    json!({"context": "sandbox", "contexts": {"sandbox": {
        "endpoints": [address.to_string()], "nodes": nodes,
        "ca": data(authority.pem()), "crt": data(&client.certificate), "key": data(&key),
    }}})
}

#[derive(Clone)]
struct Api {
    fleet: Arc<Fleet>,
    /// The address of the one machine that is served in maintenance mode.
    maintained: Option<String>,
}

/// Who asks, and for which machines.
struct Caller {
    peer: Peer,
    /// As the call named them.
    nodes: Vec<String>,
    /// The call may be answered by several machines, and says of each answer whose it is.
    many: bool,
    /// What the call asks to change.
    change: Option<Change>,
}

impl Caller {
    fn of<T>(request: &Request<T>) -> Self {
        let named = |key: &str, metadata: &MetadataMap| -> Vec<String> {
            let all = metadata.get_all(key).iter().filter_map(|value| value.to_str().ok());
            all.flat_map(|value| value.split(',')).map(|node| node.trim().to_owned()).collect()
        };
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        let (one, several) = (named("node", request.metadata()), named("nodes", request.metadata()));
        let many = !several.is_empty();
        Self { peer, nodes: if many { several } else { one }, many, change: None }
    }

    /// The one machine that is named.
    fn one(&self) -> Result<&str, Status> {
        match self.nodes.as_slice() {
            [node] if !self.many => Ok(node),
            _ => Err(Status::invalid_argument("one-2-many proxying is not supported for this API method")),
        }
    }

    fn admin(&self) -> Result<(), Status> {
        if self.peer.organization == ADMIN {
            return Ok(());
        }
        Err(Status::permission_denied("not authorized"))
    }
}

impl Upset {
    /// What is answered; nothing, when the connection ends.
    async fn status(self) -> Status {
        match self {
            Self::Error { text, .. } => Status::unavailable(text),
            Self::Cut => std::future::pending().await,
        }
    }
}

impl Api {
    /// Who asks for this call, and for which machines.
    ///
    /// # Errors
    /// No machine is named: the sandbox is stricter here than a real machine, which would answer for itself.
    fn caller<T>(&self, request: &Request<T>, call: &str) -> Result<Caller, Status> {
        let caller = Caller::of(request);
        match &self.maintained {
            Some(address) => maintenance::admit(&self.fleet.look(), address, caller, call),
            None if caller.nodes.is_empty() => {
                Err(Status::invalid_argument("no node is named in the call's metadata"))
            }
            None => Ok(caller),
        }
    }

    /// Only an administrator may; in maintenance mode there is nobody yet who could have the right.
    fn admin(&self, caller: &Caller) -> Result<(), Status> {
        if self.maintained.is_some() { Ok(()) } else { caller.admin() }
    }

    /// Carries out a call to one machine, with whatever is staged to go wrong.
    async fn call<T>(
        &self,
        caller: &Caller,
        node: &str,
        name: &str,
        act: impl FnOnce(&mut World, Timestamp, &str) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let address = self.reach(node)?;
        let (asked, fault) = self.fleet.admit(&address, (name, ""), caller.change.clone()).await;
        if let Err(upset) = caller.peer.before(fault.as_ref()).await {
            return Err(upset.status().await);
        }
        let done = self.fleet.act(|world, now| {
            let done = act(world, now, &address);
            if fault.as_ref().is_some_and(|fault| fault.reboot)
                && let Some((machine, timers)) = world.machine(&address)
            {
                machine.reboot(timers, now);
            }
            done
        })?;
        self.fleet.acted(&asked).await;
        match caller.peer.after(fault.as_ref()) {
            Ok(()) => Ok(done),
            Err(upset) => Err(upset.status().await),
        }
    }

    /// The address of a machine that is named by it or by its hostname, and that answers here.
    fn reach(&self, node: &str) -> Result<String, Status> {
        let world = self.fleet.look();
        let machine = reached(&world, node)?;
        if machine.active.is_some() != self.maintained.is_some() {
            return Ok(machine.address.clone());
        }
        Err(Status::unavailable(if self.maintained.is_some() {
            "the connection is closing: the machine is not in maintenance mode any more"
        } else {
            "connection error: desc = \"transport: authentication handshake failed: tls: failed to verify certificate: \
             x509: certificate signed by unknown authority\""
        }))
    }
}

fn found<'a>(world: &'a World, address: &str) -> Result<&'a Machine, Status> {
    world.machines.get(address).ok_or_else(gone)
}

fn gone() -> Status {
    Status::unavailable("the machine is gone")
}

fn refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::Invalid(text) => Status::invalid_argument(text),
        Refusal::Precondition(text) => Status::failed_precondition(text),
        Refusal::Exists(text) => Status::already_exists(text),
        Refusal::Unimplemented(text) => Status::unimplemented(text),
        Refusal::NotFound(text) => Status::not_found(text),
        Refusal::Internal(text) => Status::internal(text),
    }
}

fn wire_time(at: Timestamp) -> Time {
    Time { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

/// A machine that is named by its address or hostname, and that is up.
fn reached<'a>(world: &'a World, node: &str) -> Result<&'a Machine, Status> {
    let named = || world.machines.values().find(|machine| machine.host.name == node);
    let why = match world.machines.get(node).or_else(named) {
        Some(machine) if !machine.rebooting => return Ok(machine),
        Some(machine) if machine.off => "connect: no route to host",
        Some(_) => "connect: connection refused",
        None => "i/o timeout",
    };
    Err(Status::unavailable(format!(
        "connection error: desc = \"transport: Error while dialing: dial tcp {node}:50000: {why}\""
    )))
}
