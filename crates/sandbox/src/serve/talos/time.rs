//! The time service: a machine's clock beside that of its time server, which goes right.

use jiff::Timestamp;
use tonic::{Request, Response, Status};

use super::{Api, found, wire_time};
use crate::talos::proto::time as wire;
use crate::talos::proto::time::time_service_server::TimeService;
use crate::world::{SIMULATED, World};

#[tonic::async_trait]
impl TimeService for Api {
    async fn time(&self, request: Request<()>) -> Result<Response<wire::TimeResponse>, Status> {
        let caller = self.caller(&request, "Time")?;
        let time = |world: &mut World, now: Timestamp, address: &str| {
            let local = found(world, address)?.time(now);
            Ok(wire::Time {
                metadata: None,
                server: SIMULATED.to_owned(),
                localtime: Some(wire_time(local)),
                remotetime: Some(wire_time(now)),
            })
        };
        let messages = self.each(&caller, "Time", time).await?;
        Ok(Response::new(wire::TimeResponse { messages }))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fleet::Fleet;
    use crate::scenario::Scenario;
    use crate::serve::network::Network;

    #[tokio::test(start_paused = true)]
    async fn a_clock_is_as_far_off_as_the_scenario_says_and_the_time_server_goes_right() {
        let now = Timestamp::from_second(1000).unwrap();
        let machines = "machines: [{}, {clock: -7s}, {clock: 90m}, {clock: -200000000h}]";
        let world = World::new(&Scenario::parse("scenario", machines).unwrap(), now);
        let api = Api { fleet: Fleet::new(world, now, Network::memory()), maintained: None };
        let least = Timestamp::MIN.as_second();
        for (node, local) in [("10.5.0.2", 1000), ("10.5.0.3", 993), ("talos-3", 6400), ("10.5.0.5", least)] {
            let mut request = Request::new(());
            request.metadata_mut().insert("node", node.parse().unwrap());
            let told = api.time(request).await.unwrap().into_inner().messages.remove(0);
            let seconds = |time: Option<prost_types::Timestamp>| time.unwrap().seconds;
            assert_eq!((seconds(told.localtime), seconds(told.remotetime)), (local, 1000), "{node}");
        }
        let mut several = Request::new(());
        several.metadata_mut().insert("nodes", "10.5.0.2,10.5.0.9".parse().unwrap());
        let told = api.time(several).await.unwrap().into_inner().messages;
        let errors: Vec<bool> = told.iter().map(|m| !m.metadata.as_ref().unwrap().error.is_empty()).collect();
        assert_eq!(errors, [false, true]);
    }
}
