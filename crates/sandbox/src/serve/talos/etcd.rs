//! etcd as its members tell of it: the control planes that have data, of which each answers for itself.

use tonic::Status;

use super::found;
use crate::machine::{Etcd, Machine};
use crate::scenario::fingerprint;
use crate::talos::proto::machine as wire;
use crate::talos::proto::machine::etcd_member_alarm::AlarmType;
use crate::world::World;

/// All members; they answer only while they have a quorum.
pub(super) fn members(world: &World, address: &str) -> Result<wire::EtcdMembers, Status> {
    own(world, address)?;
    if leader(world) == 0 {
        return Err(Status::unavailable("etcdserver: no leader"));
    }
    let member = |machine: &Machine| wire::EtcdMember {
        id: id(machine),
        hostname: machine.host.name.clone(),
        peer_urls: vec![format!("https://{}:2380", machine.address)],
        client_urls: vec![format!("https://{}:2379", machine.address)],
        is_learner: false,
    };
    Ok(wire::EtcdMembers { metadata: None, members: all(world).map(member).collect() })
}

pub(super) fn status(world: &World, address: &str) -> Result<wire::EtcdStatus, Status> {
    let machine = own(world, address)?;
    let leader = leader(world);
    let status = wire::EtcdMemberStatus {
        protocol_version: "3.6.4".to_owned(),
        storage_version: "3.6.0".to_owned(),
        leader,
        errors: if leader == 0 { vec!["etcdserver: no leader".to_owned()] } else { Vec::new() },
        member_id: id(machine),
        ..Default::default()
    };
    Ok(wire::EtcdStatus { metadata: None, member_status: Some(status) })
}

pub(super) fn alarms(world: &World, address: &str) -> Result<wire::EtcdAlarm, Status> {
    own(world, address)?;
    let alarm = |machine: &Machine| {
        let alarm = match machine.etcd {
            Etcd::Running | Etcd::Stopped => return None,
            Etcd::Nospace => AlarmType::Nospace,
            Etcd::Corrupt => AlarmType::Corrupt,
        };
        Some(wire::EtcdMemberAlarm { member_id: id(machine), alarm: alarm.into() })
    };
    Ok(wire::EtcdAlarm { metadata: None, member_alarms: all(world).filter_map(alarm).collect() })
}

/// The machine that is asked, when it has a member that answers.
fn own<'a>(world: &'a World, address: &str) -> Result<&'a Machine, Status> {
    let machine = found(world, address)?;
    match (machine.controlplane, machine.runs("etcd")) {
        (false, _) => Err(Status::unimplemented("member list is only available on control plane nodes")),
        (true, false) => Err(Status::unavailable("error building etcd client: connection refused")),
        (true, true) => Ok(machine),
    }
}

/// The members: whoever has data.
pub(super) fn all(world: &World) -> impl Iterator<Item = &Machine> {
    world.machines.values().filter(|machine| machine.etcd_data)
}

fn id(machine: &Machine) -> u64 {
    fingerprint(&machine.address)
}

/// The first member that runs, while most of them do; else 0.
fn leader(world: &World) -> u64 {
    let mut run = all(world).filter(|machine| machine.takes_members());
    let first = run.next().map_or(0, id);
    if 1 + run.count() > all(world).count() / 2 { first } else { 0 }
}
