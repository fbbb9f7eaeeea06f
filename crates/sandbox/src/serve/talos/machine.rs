//! The calls of the machine service.

#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use tonic::{Request, Response, Status};

use super::{Api, Caller, Replies, etcd, files, found, gone, refused, wire_time};
use crate::fleet::Change;
use crate::machine::resources::services;
use crate::machine::{Apply, Machine};
use crate::talos::proto::common::{self, Metadata};
use crate::talos::proto::machine as wire;
use crate::talos::proto::machine::machine_service_server::MachineService;
use crate::world::{SIMULATED, World};

impl Api {
    /// The bytes of a stream of one machine.
    async fn bytes(
        &self,
        caller: &Caller,
        name: &str,
        act: impl Fn(&Machine) -> Result<Vec<u8>, Status>,
    ) -> Result<Response<Replies<common::Data>>, Status> {
        let mut chunks = Vec::new();
        for node in &caller.nodes {
            let bytes =
                self.call(caller, node, name, |world, _, address| act(found(world, address)?)).await?;
            chunks.push(Ok(common::Data { metadata: whose(caller, node), bytes }));
        }
        Ok(Response::new(Box::pin(futures::stream::iter(chunks))))
    }
}

/// Of an answer to a call that could go to several machines: whose it is.
fn whose(caller: &Caller, node: &str) -> Option<Metadata> {
    caller.many.then(|| Metadata { hostname: node.to_owned(), error: String::new() })
}

#[tonic::async_trait]
impl MachineService for Api {
    type ReadStream = Replies<common::Data>;
    type DmesgStream = Replies<common::Data>;
    type KubeconfigStream = Replies<common::Data>;
    type ListStream = Replies<wire::FileInfo>;

    async fn version(&self, request: Request<()>) -> Result<Response<wire::VersionResponse>, Status> {
        let caller = self.caller(&request, "Version")?;
        let version = |world: &mut World, _: Timestamp, address: &str| Ok(version(found(world, address)?));
        let messages = self.each(&caller, "Version", version).await?;
        Ok(Response::new(wire::VersionResponse { messages }))
    }

    async fn apply_configuration(
        &self,
        request: Request<wire::ApplyConfigurationRequest>,
    ) -> Result<Response<wire::ApplyConfigurationResponse>, Status> {
        let mut caller = self.caller(&request, "ApplyConfiguration")?;
        self.admin(&caller)?;
        let asked = request.into_inner();
        let body = String::from_utf8_lossy(&asked.data).into_owned();
        caller.change = Some(Change { dry: asked.dry_run, mode: Some(asked.mode()), body });
        let apply = |world: &mut World, now, address: &str| apply(world, now, address, &asked);
        let messages = self.each(&caller, "ApplyConfiguration", apply).await?;
        Ok(Response::new(wire::ApplyConfigurationResponse { messages }))
    }

    async fn mounts(&self, request: Request<()>) -> Result<Response<wire::MountsResponse>, Status> {
        let caller = self.caller(&request, "Mounts")?;
        let mounts = |world: &mut World, _: Timestamp, address: &str| {
            let mounted = found(world, address)?.host.mounts.iter();
            let stats = mounted.map(|(point, mounted)| wire::MountStat {
                filesystem: mounted.source.clone(),
                size: mounted.size,
                available: mounted.available(),
                mounted_on: point.clone(),
            });
            Ok(wire::Mounts { metadata: None, stats: stats.collect() })
        };
        let messages = self.each(&caller, "Mounts", mounts).await?;
        Ok(Response::new(wire::MountsResponse { messages }))
    }

    async fn service_list(
        &self,
        request: Request<()>,
    ) -> Result<Response<wire::ServiceListResponse>, Status> {
        let caller = self.caller(&request, "ServiceList")?;
        let list = |world: &mut World, now: Timestamp, address: &str| {
            let machine = found(world, address)?;
            let services = services(machine).iter().map(|id| service(machine, id, now)).collect();
            Ok(wire::ServiceList { metadata: None, services })
        };
        let messages = self.each(&caller, "ServiceList", list).await?;
        Ok(Response::new(wire::ServiceListResponse { messages }))
    }

    async fn etcd_member_list(
        &self,
        request: Request<wire::EtcdMemberListRequest>,
    ) -> Result<Response<wire::EtcdMemberListResponse>, Status> {
        let caller = self.caller(&request, "EtcdMemberList")?;
        let members = |world: &mut World, _: Timestamp, address: &str| etcd::members(world, address);
        let messages = self.each(&caller, "EtcdMemberList", members).await?;
        Ok(Response::new(wire::EtcdMemberListResponse { messages }))
    }

    async fn etcd_status(&self, request: Request<()>) -> Result<Response<wire::EtcdStatusResponse>, Status> {
        let caller = self.caller(&request, "EtcdStatus")?;
        let status = |world: &mut World, _: Timestamp, address: &str| etcd::status(world, address);
        let messages = self.each(&caller, "EtcdStatus", status).await?;
        Ok(Response::new(wire::EtcdStatusResponse { messages }))
    }

    async fn etcd_alarm_list(
        &self,
        request: Request<()>,
    ) -> Result<Response<wire::EtcdAlarmListResponse>, Status> {
        let caller = self.caller(&request, "EtcdAlarmList")?;
        let alarms = |world: &mut World, _: Timestamp, address: &str| etcd::alarms(world, address);
        let messages = self.each(&caller, "EtcdAlarmList", alarms).await?;
        Ok(Response::new(wire::EtcdAlarmListResponse { messages }))
    }

    async fn reboot(
        &self,
        request: Request<wire::RebootRequest>,
    ) -> Result<Response<wire::RebootResponse>, Status> {
        let caller = self.caller(&request, "Reboot")?;
        caller.admin()?;
        let reboot = |world: &mut World, now, address: &str| {
            if let Some((machine, timers)) = world.machine(address) {
                machine.reboot(timers, now);
            }
            Ok(wire::Reboot { metadata: None, actor_id: SIMULATED.to_owned() })
        };
        let messages = self.each(&caller, "Reboot", reboot).await?;
        Ok(Response::new(wire::RebootResponse { messages }))
    }

    async fn read(&self, request: Request<wire::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let caller = self.caller(&request, "Read")?;
        caller.admin()?;
        let path = request.into_inner().path;
        let read = |machine: &Machine| match path.as_str() {
            "/proc/mounts" => Ok(mounts(machine)),
            "/proc/partitions" => Ok(partitions(machine)),
            "/proc/sys/kernel/random/boot_id" => Ok(machine.boot_id() + "\n"),
            "/etc/machine-id" => Ok(machine.machine_id() + "\n"),
            "/system/state/config.yaml" => Ok(machine.persistent.clone().unwrap_or_default()),
            path => {
                let mut records =
                    (0..).zip(&machine.disks).filter_map(|(place, disk)| disk.record(place, path));
                let missing = || Status::not_found(format!("stat {path}: no such file or directory"));
                records.next().ok_or_else(missing)
            }
        };
        self.bytes(&caller, "Read", |machine| read(machine).map(String::into_bytes)).await
    }

    async fn bootstrap(
        &self,
        request: Request<wire::BootstrapRequest>,
    ) -> Result<Response<wire::BootstrapResponse>, Status> {
        let mut caller = self.caller(&request, "Bootstrap")?;
        caller.admin()?;
        if request.into_inner().recover_etcd {
            return Err(Status::unimplemented("the sandbox has no snapshots of etcd"));
        }
        caller.change = Some(Change { dry: false, mode: None, body: String::new() });
        let bootstrap = |world: &mut World, now, address: &str| {
            let (machine, timers) = world.machine(address).ok_or_else(gone)?;
            machine.bootstrap(timers, now).map_err(refused)?;
            Ok(wire::Bootstrap { metadata: None })
        };
        let messages = self.each(&caller, "Bootstrap", bootstrap).await?;
        Ok(Response::new(wire::BootstrapResponse { messages }))
    }

    async fn kubeconfig(&self, request: Request<()>) -> Result<Response<Self::KubeconfigStream>, Status> {
        let caller = self.caller(&request, "Kubeconfig")?;
        caller.admin()?;
        let kubeconfig = |machine: &Machine| match (machine.controlplane, self.fleet.kubeconfig()) {
            (true, Some(text)) => files::archive("kubeconfig", text),
            (true, None) => Err(Status::unavailable("the sandbox's API server is not served")),
            (false, _) => Err(Status::unimplemented("kubeconfig is only available on control plane nodes")),
        };
        self.bytes(&caller, "Kubeconfig", kubeconfig).await
    }

    async fn list(&self, request: Request<wire::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let caller = self.caller(&request, "List")?;
        let root = request.into_inner().root;
        let mut infos = Vec::new();
        for node in &caller.nodes {
            let list =
                |world: &mut World, _: Timestamp, address: &str| files::list(found(world, address)?, &root);
            let found = self.call(&caller, node, "List", list).await?;
            let metadata = whose(&caller, node);
            infos.extend(
                found.into_iter().map(|info| Ok(wire::FileInfo { metadata: metadata.clone(), ..info })),
            );
        }
        Ok(Response::new(Box::pin(futures::stream::iter(infos))))
    }

    async fn dmesg(
        &self,
        request: Request<wire::DmesgRequest>,
    ) -> Result<Response<Self::DmesgStream>, Status> {
        let caller = self.caller(&request, "Dmesg")?;
        let log = |machine: &Machine| {
            let lines =
                machine.log.iter().map(|line| format!("{}: user: warning: {line}\n", machine.address));
            Ok(lines.collect::<String>().into_bytes())
        };
        self.bytes(&caller, "Dmesg", log).await
    }
}

fn version(machine: &Machine) -> wire::Version {
    let version = wire::VersionInfo {
        tag: machine.version.clone(),
        sha: SIMULATED.to_owned(),
        os: "linux".to_owned(),
        arch: "amd64".to_owned(),
        ..Default::default()
    };
    let name = if machine.container { "container" } else { "metal" };
    let platform = wire::PlatformInfo { name: name.to_owned(), mode: name.to_owned() };
    wire::Version {
        metadata: None,
        version: Some(version),
        platform: Some(platform),
        features: Some(wire::FeaturesInfo { rbac: true }),
    }
}

fn apply(
    world: &mut World,
    now: Timestamp,
    address: &str,
    asked: &wire::ApplyConfigurationRequest,
) -> Result<wire::ApplyConfiguration, Status> {
    let config =
        std::str::from_utf8(&asked.data).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let timeout = asked.try_mode_timeout.and_then(|timeout| Duration::try_from(timeout).ok());
    let (machine, timers) = world.machine(address).ok_or_else(gone)?;
    let asked = Apply { config, mode: asked.mode(), dry_run: asked.dry_run, try_timeout: timeout };
    let applied = machine.apply(&asked, timers, now).map_err(refused)?;
    Ok(wire::ApplyConfiguration {
        metadata: None,
        warnings: Vec::new(),
        mode: applied.mode.into(),
        mode_details: applied.details,
    })
}

fn service(machine: &Machine, id: &str, now: Timestamp) -> wire::ServiceInfo {
    let at = Some(wire_time(now));
    let runs = machine.runs(id);
    let (state, msg) = if runs { ("Running", "Started") } else { ("Preparing", "Running pre state") };
    let event = wire::ServiceEvent { msg: msg.to_owned(), state: state.to_owned(), ts: at };
    wire::ServiceInfo {
        id: id.to_owned(),
        state: state.to_owned(),
        events: Some(wire::ServiceEvents { events: vec![event] }),
        health: Some(wire::ServiceHealth {
            unknown: !runs,
            healthy: runs,
            last_message: String::new(),
            last_change: at,
        }),
    }
}

fn mounts(machine: &Machine) -> String {
    let mounts = machine.host.mounts.iter();
    mounts
        .map(|(point, mounted)| {
            format!("{} {point} {} {} 0 0\n", mounted.source, mounted.kind, mounted.options.join(","))
        })
        .collect()
}

fn partitions(machine: &Machine) -> String {
    let disks = (0..).zip(&machine.disks).map(|(place, disk)| disk.listed(place));
    format!("major minor  #blocks  name\n\n{}", disks.collect::<String>())
}
