//! A machine in maintenance mode: at a port of its own, to everybody, with the reader's role and the right to apply a
//! configuration.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use tonic::Status;

use super::{Api, Caller, services};
use crate::error::Result;
use crate::fleet::Fleet;
use crate::machine::config::release;
use crate::machine::has_maintenance_service;
use crate::serve::listen;
use crate::serve::pki::Authority;
use crate::talos::PORT;
use crate::world::World;

/// Any call of the resource API.
pub(super) const STATE: &str = "State";

/// Serves one machine on a port of its own until the program ends; where its address is this machine's own, at it. As soon
/// as it has a configuration, a client without a certificate of this authority is turned away, as at every machine that
/// has one.
pub async fn serve(fleet: &Arc<Fleet>, authority: &Authority, address: &str) -> Result<SocketAddr> {
    let api = Api { fleet: Arc::clone(fleet), maintained: Some(address.to_owned()) };
    let at = fleet.network().place(address, PORT);
    let (of, address) = (Arc::clone(fleet), address.to_owned());
    let standing = move || {
        let world = of.look();
        let machine = world.machines.get(&address);
        machine.map_or((false, 0), |machine| (machine.active.is_some(), machine.boots))
    };
    listen(fleet.network(), at, authority.maintenance(standing, &["h2"])?, services(api)).await
}

/// The caller of a machine that is not configured: whoever it is, it asks this machine.
///
/// # Errors
/// Another machine is named, or this machine's version does not serve the call before it has a configuration.
pub(super) fn admit(world: &World, address: &str, caller: Caller, call: &str) -> Result<Caller, Status> {
    // talosctl names a machine by nothing when it asks without a certificate.
    if caller.many || caller.nodes.iter().any(|node| !node.is_empty() && node != address) {
        return Err(Status::permission_denied("no request forwarding"));
    }
    let version = world.machines.get(address).map_or("", |machine| machine.version.as_str());
    let old = has_maintenance_service(version);
    match call {
        "ApplyConfiguration" | STATE => {}
        "BlockDeviceWipe" if release(version) >= (1, 11) => {}
        "Time" if old => return Err(Status::unimplemented("unknown service time.TimeService")),
        "HealthCheck" => return Err(Status::unimplemented("unknown service cluster.ClusterService")),
        "Version" if old => {
            return Err(Status::unimplemented("API is not implemented in maintenance mode"));
        }
        call if old => return Err(Status::unimplemented(format!("method {call} not implemented"))),
        _ => {}
    }
    Ok(Caller { nodes: vec![address.to_owned()], ..caller })
}
