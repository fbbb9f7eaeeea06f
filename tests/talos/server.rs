//! A machine in this process: it answers from a table and notes which node was asked for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nodeprep::dial::Io;
use nodeprep::talos::MAX_MESSAGE;
use nodeprep::talos::proto::common::{self, Metadata};
use nodeprep::talos::proto::config::MachineConfigSpec;
use nodeprep::talos::proto::cosi::resource::state_server::{State, StateServer};
use nodeprep::talos::proto::cosi::resource::{self as cosi, EventType};
use nodeprep::talos::proto::machine::machine_service_server::{MachineService, MachineServiceServer};
use nodeprep::talos::proto::machine::{self as machine, ApplyConfigurationResponse, VersionResponse};
use nodeprep::talos::proto::storage::storage_service_server::{StorageService, StorageServiceServer};
use nodeprep::talos::proto::storage::{
    BlockDeviceWipe, BlockDeviceWipeDescriptor, BlockDeviceWipeRequest, BlockDeviceWipeResponse,
};
use nodeprep::talos::proto::time::time_service_server::{TimeService, TimeServiceServer};
use nodeprep::talos::proto::time::{Time, TimeResponse};
use nodeprep::talos::resources::{MachineConfig, Spec};
use nodeprep_sandbox::serve::converse;
use nodeprep_sandbox::serve::services::Services;
use prost::Message;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

use super::pki::Ca;

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone, Default)]
pub(super) struct Machine {
    /// The `node` metadata of every call.
    pub asked: Arc<Mutex<Vec<String>>>,
    /// Specs by type and id; a type that is not here answers as real Talos does.
    pub resources: BTreeMap<String, BTreeMap<String, String>>,
    /// The version, platform mode, and what the envelope says went wrong.
    pub version: (String, String, String),
    /// What applying answers instead of success.
    pub refuses: Option<(Code, String)>,
    pub mounts: Vec<machine::MountStat>,
    pub delay: Duration,
    /// Files by path.
    pub files: BTreeMap<String, String>,
    /// The clock, in seconds since 1970, and that of the time server.
    pub clock: Option<(i64, i64)>,
    /// Calls need not name a node.
    pub bare: bool,
    /// The wipes that were carried out, a line each: devices and how.
    pub wipes: Arc<Mutex<Vec<String>>>,
    /// Specs that replace those of before once something was wiped.
    pub after_wipe: BTreeMap<String, BTreeMap<String, String>>,
    /// What goes wrong with a wipe.
    pub wipe_fault: WipeFault,
    /// A wipe was asked for.
    pub called: Arc<AtomicBool>,
}

/// As v1.11.5 said it.
fn busy() -> Status {
    Status::internal("failed to write GPT table: failed to delete partition 1: device or resource busy")
}

#[derive(Clone, Default)]
pub(super) enum WipeFault {
    #[default]
    None,
    /// It is carried out, and the reply is lost.
    LostAfter,
    /// It is not carried out, and the reply is lost.
    LostBefore,
    Refuses(&'static str),
    /// The first is carried out in part or not at all, and the kernel does not let go of a partition.
    BusyOnce,
    /// It is carried out, and the kernel does not let go of a partition.
    BusyAfter,
}

impl Machine {
    pub(super) fn talos(tag: &str) -> Self {
        Self { version: (tag.into(), "metal".into(), String::new()), ..Self::default() }
    }

    #[must_use]
    pub(super) fn with(mut self, kind: &str, specs: &[(&str, &str)]) -> Self {
        let specs = specs.iter().map(|(id, spec)| (id.to_string(), spec.to_string())).collect();
        self.resources.insert(kind.into(), specs);
        self
    }

    #[must_use]
    pub(super) fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.into(), text.into());
        self
    }

    async fn note<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let node = request.metadata().get("node").map(|node| node.to_str().unwrap().to_owned());
        if node.is_none() && !self.bare {
            return Err(Status::invalid_argument("no node is named"));
        }
        self.asked.lock().unwrap().extend(node);
        tokio::time::sleep(self.delay).await;
        Ok(())
    }

    fn found(&self, kind: &str) -> Result<&BTreeMap<String, String>, Status> {
        let wiped = !self.wipes.lock().unwrap().is_empty();
        let after = self.after_wipe.get(kind).filter(|_| wiped);
        after.or_else(|| self.resources.get(kind)).ok_or_else(|| Status::permission_denied("access denied"))
    }
}

fn resource(namespace: &str, kind: &str, id: &str, yaml: &str) -> Option<cosi::Resource> {
    let metadata = cosi::Metadata {
        namespace: namespace.into(),
        r#type: kind.into(),
        id: id.into(),
        version: "7".into(),
        phase: "running".into(),
        ..Default::default()
    };
    // As the real Talos does it: a machine config has the proto form alone.
    let spec = if kind == MachineConfig::TYPE {
        let config = MachineConfigSpec { yaml_marshalled: yaml.into() };
        cosi::Spec { proto_spec: config.encode_to_vec(), yaml_spec: "{}\n".into() }
    } else {
        cosi::Spec { yaml_spec: yaml.into(), ..Default::default() }
    };
    Some(cosi::Resource { metadata: Some(metadata), spec: Some(spec) })
}

#[tonic::async_trait]
impl MachineService for Machine {
    type ReadStream = Replies<common::Data>;
    type DmesgStream = Replies<common::Data>;
    type KubeconfigStream = Replies<common::Data>;
    type ListStream = Replies<machine::FileInfo>;

    async fn bootstrap(
        &self,
        _: Request<machine::BootstrapRequest>,
    ) -> Result<Response<machine::BootstrapResponse>, Status> {
        Err(Status::unimplemented("unknown method Bootstrap"))
    }

    async fn kubeconfig(&self, _: Request<()>) -> Result<Response<Self::KubeconfigStream>, Status> {
        Err(Status::unimplemented("unknown method Kubeconfig"))
    }

    async fn list(&self, _: Request<machine::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        Err(Status::unimplemented("unknown method List"))
    }

    async fn dmesg(&self, _: Request<machine::DmesgRequest>) -> Result<Response<Self::DmesgStream>, Status> {
        Err(Status::unimplemented("unknown method Dmesg"))
    }

    async fn etcd_member_list(
        &self,
        _: Request<machine::EtcdMemberListRequest>,
    ) -> Result<Response<machine::EtcdMemberListResponse>, Status> {
        Err(Status::unimplemented("unknown method EtcdMemberList"))
    }

    async fn etcd_status(&self, _: Request<()>) -> Result<Response<machine::EtcdStatusResponse>, Status> {
        Err(Status::unimplemented("unknown method EtcdStatus"))
    }

    async fn etcd_alarm_list(
        &self,
        _: Request<()>,
    ) -> Result<Response<machine::EtcdAlarmListResponse>, Status> {
        Err(Status::unimplemented("unknown method EtcdAlarmList"))
    }

    async fn reboot(
        &self,
        _: Request<machine::RebootRequest>,
    ) -> Result<Response<machine::RebootResponse>, Status> {
        Err(Status::unimplemented("unknown method Reboot"))
    }

    async fn version(&self, request: Request<()>) -> Result<Response<VersionResponse>, Status> {
        self.note(&request).await?;
        let (tag, mode, error) = self.version.clone();
        let message = machine::Version {
            metadata: Some(Metadata { error, ..Default::default() }),
            version: Some(machine::VersionInfo { tag, ..Default::default() }),
            platform: Some(machine::PlatformInfo { mode, ..Default::default() }),
            ..Default::default()
        };
        Ok(Response::new(VersionResponse { messages: vec![message] }))
    }

    async fn apply_configuration(
        &self,
        request: Request<machine::ApplyConfigurationRequest>,
    ) -> Result<Response<ApplyConfigurationResponse>, Status> {
        self.note(&request).await?;
        if let Some((code, text)) = &self.refuses {
            return Err(Status::new(*code, text));
        }
        let request = request.into_inner();
        let timeout = request.try_mode_timeout.map_or(0, |timeout| timeout.seconds);
        let message = machine::ApplyConfiguration {
            metadata: None,
            warnings: vec!["something is old".into()],
            mode: request.mode,
            mode_details: format!("{} bytes, dry run {}, {timeout} s", request.data.len(), request.dry_run),
        };
        Ok(Response::new(ApplyConfigurationResponse { messages: vec![message] }))
    }

    async fn mounts(&self, request: Request<()>) -> Result<Response<machine::MountsResponse>, Status> {
        self.note(&request).await?;
        let message = machine::Mounts { metadata: None, stats: self.mounts.clone() };
        Ok(Response::new(machine::MountsResponse { messages: vec![message] }))
    }

    async fn read(
        &self,
        request: Request<machine::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        self.note(&request).await?;
        let path = request.into_inner().path;
        let text =
            self.files.get(&path).ok_or_else(|| Status::not_found(format!("stat {path}: no such file")))?;
        // In two pieces, as a stream may come.
        let (first, second) = text.as_bytes().split_at(text.len() / 2);
        let chunks = [first, second].map(|bytes| Ok(common::Data { metadata: None, bytes: bytes.to_vec() }));
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks)) as Self::ReadStream))
    }

    async fn service_list(
        &self,
        request: Request<()>,
    ) -> Result<Response<machine::ServiceListResponse>, Status> {
        self.note(&request).await?;
        Err(Status::unimplemented("unknown method ServiceList"))
    }
}

#[tonic::async_trait]
impl StorageService for Machine {
    async fn block_device_wipe(
        &self,
        request: Request<BlockDeviceWipeRequest>,
    ) -> Result<Response<BlockDeviceWipeResponse>, Status> {
        self.note(&request).await?;
        match self.wipe_fault {
            WipeFault::Refuses(text) => return Err(Status::failed_precondition(text)),
            WipeFault::LostBefore => return Err(Status::unavailable("the connection broke")),
            WipeFault::BusyOnce if !self.called.swap(true, Ordering::Relaxed) => return Err(busy()),
            WipeFault::None | WipeFault::LostAfter | WipeFault::BusyOnce | WipeFault::BusyAfter => {}
        }
        let describe = |device: &BlockDeviceWipeDescriptor| {
            assert!(
                !device.skip_volume_check && !device.skip_secondary_check,
                "the node's own checks are kept"
            );
            let drop = if device.drop_partition { "-drop" } else { "" };
            format!("{}{drop}{}", device.device, if device.method == 1 { "-zeroes" } else { "" })
        };
        let devices: Vec<_> = request.get_ref().devices.iter().map(describe).collect();
        self.wipes.lock().unwrap().push(devices.join(" "));
        match self.wipe_fault {
            WipeFault::LostAfter => Err(Status::unavailable("the connection broke")),
            WipeFault::BusyAfter => Err(busy()),
            _ => Ok(Response::new(BlockDeviceWipeResponse { messages: vec![BlockDeviceWipe::default()] })),
        }
    }
}

#[tonic::async_trait]
impl TimeService for Machine {
    async fn time(&self, request: Request<()>) -> Result<Response<TimeResponse>, Status> {
        self.note(&request).await?;
        let (local, remote) = self.clock.ok_or_else(|| Status::unknown("error querying NTP server"))?;
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let time = Time { localtime: at(local), remotetime: at(remote), ..Default::default() };
        Ok(Response::new(TimeResponse { messages: vec![time] }))
    }
}

#[tonic::async_trait]
impl State for Machine {
    type ListStream = Replies<cosi::ListResponse>;
    type WatchStream = Replies<cosi::WatchResponse>;

    async fn get(&self, request: Request<cosi::GetRequest>) -> Result<Response<cosi::GetResponse>, Status> {
        self.note(&request).await?;
        let cosi::GetRequest { namespace, r#type, id, .. } = request.into_inner();
        let spec =
            self.found(&r#type)?.get(&id).ok_or_else(|| Status::not_found("resource doesn't exist"))?;
        Ok(Response::new(cosi::GetResponse { resource: resource(&namespace, &r#type, &id, spec) }))
    }

    async fn list(&self, request: Request<cosi::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        self.note(&request).await?;
        let cosi::ListRequest { namespace, r#type, .. } = request.into_inner();
        let specs = self.found(&r#type)?.iter();
        let replies: Vec<_> = specs
            .map(|(id, spec)| Ok(cosi::ListResponse { resource: resource(&namespace, &r#type, id, spec) }))
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(replies)) as Self::ListStream))
    }

    /// The contents, the end of the contents, and one change of each sort; then the watch breaks.
    async fn watch(
        &self,
        request: Request<cosi::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.note(&request).await?;
        let request = request.into_inner();
        if request.api_version != 1
            || request.id.is_some() == request.options.is_some_and(|it| it.bootstrap_contents)
        {
            return Err(Status::unimplemented("such a watch would say nothing"));
        }
        let event = |kind: EventType, id: &str| cosi::Event {
            resource: resource(&request.namespace, &request.r#type, id, ""),
            event_type: kind.into(),
            ..Default::default()
        };
        let bootstrapped = cosi::Event { event_type: EventType::Bootstrapped.into(), ..Default::default() };
        let errored = cosi::Event {
            event_type: EventType::Errored.into(),
            error: "overrun".into(),
            ..Default::default()
        };
        let replies = [
            vec![],
            vec![event(EventType::Created, "a"), bootstrapped],
            vec![event(EventType::Noop, "a")],
            vec![event(EventType::Updated, "a")],
            vec![event(EventType::Destroyed, "a"), errored],
        ];
        let replies = replies.map(|event| Ok(cosi::WatchResponse { event })).into_iter();
        let replies: Vec<_> = replies.chain([Err(Status::unavailable("rebooting"))]).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(replies)) as Self::WatchStream))
    }
}

/// Serves byte streams: TLS with a certificate of `ca`, asking for one of `clients`.
pub(super) struct Server {
    acceptor: TlsAcceptor,
    services: Services,
}

impl Server {
    pub(super) fn new(machine: Machine, ca: &Ca, clients: &Ca) -> Self {
        Self::over(machine, ca.authority.server(&clients.authority, &["h2"]).unwrap())
    }

    /// As in maintenance mode: with a certificate of its own making, and without asking for one.
    pub(super) fn maintenance(machine: Machine) -> Self {
        let made = rcgen::generate_simple_self_signed(["maintenance-service.talos.dev".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut tls =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Self::over(Machine { bare: true, ..machine }, Arc::new(tls))
    }

    fn over(machine: Machine, tls: Arc<rustls::ServerConfig>) -> Self {
        let services = Services::default()
            .with(StorageServiceServer::new(machine.clone()))
            .with(TimeServiceServer::new(machine.clone()))
            .with(MachineServiceServer::new(machine.clone()))
            .with(StateServer::new(machine).max_encoding_message_size(MAX_MESSAGE));
        Self { acceptor: TlsAcceptor::from(tls), services }
    }

    /// Takes one connection.
    pub(super) fn accept(&self, stream: impl Io + 'static) {
        tokio::spawn(converse(Box::new(stream), self.acceptor.clone(), self.services.clone()));
    }

    /// Takes every connection to a loopback port.
    pub(super) async fn listen(self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                self.accept(stream);
            }
        });
        address
    }
}
