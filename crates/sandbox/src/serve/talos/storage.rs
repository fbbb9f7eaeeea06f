//! The storage service: the wipe of block devices.

use jiff::Timestamp;
use tonic::{Request, Response, Status};

use super::{Api, gone, refused};
use crate::machine::Device;
use crate::talos::proto::storage as wire;
use crate::talos::proto::storage::block_device_wipe_descriptor::Method;
use crate::talos::proto::storage::storage_service_server::StorageService;
use crate::world::World;

#[tonic::async_trait]
impl StorageService for Api {
    /// Stricter than a real machine: that no volume is on a device is also looked at when the call says not to.
    async fn block_device_wipe(
        &self,
        request: Request<wire::BlockDeviceWipeRequest>,
    ) -> Result<Response<wire::BlockDeviceWipeResponse>, Status> {
        let caller = self.caller(&request, "BlockDeviceWipe")?;
        self.admin(&caller)?;
        let devices = request.into_inner().devices.into_iter().map(device).collect::<Result<Vec<_>, _>>()?;
        let wipe = |world: &mut World, _: Timestamp, address: &str| {
            let (machine, _) = world.machine(address).ok_or_else(gone)?;
            machine.wipe(&devices).map_err(refused)?;
            Ok(wire::BlockDeviceWipe::default())
        };
        let messages = self.each(&caller, "BlockDeviceWipe", wipe).await?;
        Ok(Response::new(wire::BlockDeviceWipeResponse { messages }))
    }
}

/// Which way a device is wiped makes no difference here.
fn device(of: wire::BlockDeviceWipeDescriptor) -> Result<Device, Status> {
    let unknown = |_| Status::invalid_argument(format!("unsupported wipe method {}", of.method));
    Method::try_from(of.method).map_err(unknown)?;
    Ok(Device { name: of.device, drop: of.drop_partition })
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::fleet::Fleet;
    use crate::machine::disks::Contents;
    use crate::scenario::Scenario;
    use crate::serve::Peer;
    use crate::serve::network::Network;
    use crate::serve::talos::ADMIN;

    const DISKS: &str =
        "machines: [{disks: [{name: sda, size: 1TB, holds: talos}, {name: sdb, size: 1TB, holds: xfs}]}]";

    #[tokio::test(start_paused = true)]
    async fn an_administrator_wipes_what_is_there_and_free() {
        let now = Timestamp::UNIX_EPOCH;
        for (role, device, method, refusal) in [
            (ADMIN, "sdb", 0, None),
            (ADMIN, "sdb", 1, None),
            (ADMIN, "sdb", 2, Some(Code::InvalidArgument)),
            (ADMIN, "sdc", 0, Some(Code::NotFound)),
            (ADMIN, "sda", 0, Some(Code::FailedPrecondition)),
            ("os:reader", "sdb", 0, Some(Code::PermissionDenied)),
        ] {
            let world = World::new(&Scenario::parse("scenario", DISKS).unwrap(), now);
            let api = Api { fleet: Fleet::new(world, now, Network::memory()), maintained: None };
            // A volume on it is looked for all the same.
            let device = wire::BlockDeviceWipeDescriptor {
                device: device.into(),
                method,
                skip_volume_check: true,
                ..Default::default()
            };
            let mut request = Request::new(wire::BlockDeviceWipeRequest { devices: vec![device.clone()] });
            request.metadata_mut().insert("node", "10.5.0.2".parse().unwrap());
            request.extensions_mut().insert(Peer { organization: role.into(), ..Peer::default() });
            let reply = api.block_device_wipe(request).await;
            assert_eq!(reply.err().map(|status| status.code()), refusal, "{role} {device:?}");
            let wiped = api.fleet.look().machines["10.5.0.2"].disks[1].contents == Contents::Nothing;
            assert_eq!(wiped, refusal.is_none(), "{role} {device:?}");
        }
    }
}
