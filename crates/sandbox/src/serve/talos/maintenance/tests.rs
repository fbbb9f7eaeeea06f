#![expect(clippy::unwrap_used)]

use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request};

use super::*;
use crate::dial::Io;
use crate::scenario::Scenario;
use crate::serve::Peer;
use crate::serve::network::Network;
use crate::talos::proto::cosi::resource::state_client::StateClient;
use crate::talos::proto::cosi::resource::{GetRequest, ListRequest};
use crate::talos::proto::machine::ApplyConfigurationRequest;
use crate::talos::proto::machine::apply_configuration_request::Mode;
use crate::talos::proto::machine::machine_service_client::MachineServiceClient;

const NEW: &str = "10.5.0.3";
const CONFIG: &str = "version: v1alpha1\nmachine:\n  type: worker\n  ca: {crt: c2lt}\n  install: {disk: /dev/sda}\n\
                      cluster: {}\n";

fn world(version: &str) -> World {
    let text = format!("machines: [{{role: controlplane}}, {{maintenance: true, version: {version}}}]");
    World::new(&Scenario::parse("scenario", &text).unwrap(), Timestamp::UNIX_EPOCH)
}

/// A client's trust in everybody.
#[derive(Debug)]
struct Blind(CryptoProvider);

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        server: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, server, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        server: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, server, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A connection without a certificate.
async fn insecure(network: Network, port: u16) -> io::Result<TlsStream<Box<dyn Io>>> {
    let blind = Arc::new(Blind(ring::default_provider()));
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(blind)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = network.dial()("127.0.0.1".into(), port).await?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn channel(network: &Network, port: u16) -> Channel {
    let network = network.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let connecting = insecure(network.clone(), port);
        async move { connecting.await.map(TokioIo::new) }
    });
    Endpoint::from_static("https://127.0.0.1").connect_with_connector_lazy(connector)
}

#[tokio::test(start_paused = true)]
async fn a_machine_takes_its_first_configuration_from_anybody_and_then_wants_a_certificate() {
    let (now, network) = (Timestamp::UNIX_EPOCH, Network::memory());
    let fleet = Fleet::new(world("v1.11.5"), now, network.clone());
    let port = serve(&fleet, &Authority::new("talos").unwrap(), NEW).await.unwrap().port();
    let channel = channel(&network, port);
    let mut machine = MachineServiceClient::new(channel.clone());
    let mut state = StateClient::new(channel);
    let refused = machine.version(()).await.unwrap_err();
    assert_eq!(refused.message(), "API is not implemented in maintenance mode");
    let disks = ListRequest {
        namespace: "runtime".into(),
        r#type: "Disks.block.talos.dev".into(),
        ..ListRequest::default()
    };
    let mut disks = state.list(disks).await.unwrap().into_inner();
    assert!(disks.message().await.unwrap().is_some());
    let status = GetRequest {
        namespace: "runtime".into(),
        r#type: "MachineStatuses.runtime.talos.dev".into(),
        id: "machine".into(),
        ..GetRequest::default()
    };
    let found = state.get(status).await.unwrap().into_inner().resource.unwrap();
    assert!(found.spec.unwrap().yaml_spec.contains("stage: maintenance"));
    let secret = ListRequest {
        namespace: "config".into(),
        r#type: "MachineConfigs.config.talos.dev".into(),
        ..ListRequest::default()
    };
    assert_eq!(state.list(secret).await.unwrap_err().code(), Code::PermissionDenied);

    let config = |dry_run| ApplyConfigurationRequest {
        data: CONFIG.into(),
        mode: Mode::Auto.into(),
        dry_run,
        ..ApplyConfigurationRequest::default()
    };
    let dry = machine.apply_configuration(config(true)).await.unwrap().into_inner();
    assert!(dry.messages[0].mode_details.contains("does not have a config yet"));
    assert!(fleet.look().machines[NEW].active.is_none());
    machine.apply_configuration(config(false)).await.unwrap();
    let gone = machine.apply_configuration(config(true)).await.unwrap_err();
    assert_eq!((gone.code(), gone.message().contains("connection refused")), (Code::Unavailable, true));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fleet.look().machines[NEW].active.as_deref(), Some(CONFIG));
    let gone = machine.apply_configuration(config(true)).await.unwrap_err();
    assert_eq!((gone.code(), gone.message().contains("not in maintenance")), (Code::Unavailable, true));
    // In TLS 1.3 the client's part of the handshake ends before it hears of it.
    let mut stream = insecure(network, port).await.unwrap();
    let refused = stream.read_u8().await.unwrap_err();
    let refused = refused.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap();
    assert_eq!(*refused, rustls::Error::AlertReceived(AlertDescription::CertificateRequired));
}

#[test]
fn what_is_served_before_there_is_a_configuration_depends_on_the_version() {
    for (call, old, new) in [
        (STATE, None, None),
        ("ApplyConfiguration", None, None),
        ("Version", Some(Code::Unimplemented), None),
        ("Mounts", Some(Code::Unimplemented), None),
        ("ServiceList", Some(Code::Unimplemented), None),
        ("Reboot", Some(Code::Unimplemented), None),
        ("Bootstrap", Some(Code::Unimplemented), None),
        ("Kubeconfig", Some(Code::Unimplemented), None),
        ("List", Some(Code::Unimplemented), None),
        ("Time", Some(Code::Unimplemented), None),
        ("BlockDeviceWipe", None, None),
        ("HealthCheck", Some(Code::Unimplemented), Some(Code::Unimplemented)),
    ] {
        for (version, refusal) in [("v1.12.9", old), ("v1.13.0", new)] {
            let caller = Caller { peer: Peer::default(), nodes: Vec::new(), many: false, change: None };
            let admitted = admit(&world(version), NEW, caller, call);
            assert_eq!(admitted.err().map(|status| status.code()), refusal, "{version} {call}");
        }
    }
    let caller = Caller { peer: Peer::default(), nodes: Vec::new(), many: false, change: None };
    assert!(admit(&world("v1.10.9"), NEW, caller, "BlockDeviceWipe").is_err(), "from 1.11 on");
}

#[tokio::test]
async fn only_the_machine_itself_answers_and_only_in_its_mode() {
    let fleet = Fleet::new(world("v1.13.0"), Timestamp::UNIX_EPOCH, Network::memory());
    let alone = Api { fleet: Arc::clone(&fleet), maintained: Some(NEW.to_owned()) };
    let all = Api { fleet, maintained: None };
    for (node, admitted) in [(None, true), (Some(""), true), (Some(NEW), true), (Some("10.5.0.2"), false)] {
        let mut request = Request::new(());
        if let Some(node) = node {
            request.metadata_mut().insert("node", node.parse().unwrap());
        }
        let caller = alone.caller(&request, "Version");
        assert_eq!(caller.is_ok_and(|caller| caller.nodes == [NEW] && caller.admin().is_err()), admitted);
    }
    assert_eq!(alone.reach(NEW).unwrap(), NEW);
    assert!(all.reach(NEW).unwrap_err().message().contains("signed by unknown authority"));
    assert_eq!(all.reach("talos-1").unwrap(), "10.5.0.2");
}

#[tokio::test(start_paused = true)]
async fn a_machine_shows_another_certificate_after_each_boot() {
    let network = Network::memory();
    let fleet = Fleet::new(world("v1.11.5"), Timestamp::UNIX_EPOCH, network.clone());
    let port = serve(&fleet, &Authority::new("talos").unwrap(), NEW).await.unwrap().port();
    let shown = || async {
        let stream = insecure(network.clone(), port).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap().to_vec()
    };
    let first = shown().await;
    assert_eq!(shown().await, first);
    fleet.act(|world, now| {
        let (machine, timers) = world.machine(NEW).unwrap();
        machine.reboot(timers, now);
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fleet.look().machines[NEW].boots, 1);
    assert_ne!(shown().await, first);
}
