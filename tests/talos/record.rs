//! Records replies of a real Talos in `tests/wire/`, as the bytes it sent: `cargo test --test all record -- --ignored`,
//! with TALOSCONFIG naming the talosconfig and NODEPREP_RECORD_NODE the address of a control-plane machine. One file per
//! type holds the replies of a List one after another, each with its length before it.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use nodeprep::talos::config::Places;
use nodeprep::talos::proto::cosi::resource as cosi;
use nodeprep::talos::resources::{
    BlockDevice, DiscoveredVolume, DiskSpec, MachineConfig, MachineStatus, MachineType, Member, MountStatus,
    NodeLabel, NodeStatus, Nodename, PlatformMetadata, SecurityState, Spec, SystemDisk, VolumeStatus, id,
};
use nodeprep::talos::{Client, Context, MAX_MESSAGE, PORT, client::Options};
use prost::Message;
use prost::bytes::{Buf, BufMut};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

/// Sends and receives messages as the bytes they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

/// A connection of its own, since the adapter's gives no bytes away.
fn channel(talosconfig: &str, node: &str) -> Channel {
    let text = std::fs::read_to_string(talosconfig).unwrap();
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap();
        String::from_utf8(STANDARD.decode(value.trim()).unwrap()).unwrap().replace("ED25519 ", "")
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(field("ca:").as_bytes()).unwrap()).unwrap();
    let certificate = CertificateDer::from_pem_slice(field("crt:").as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(field("key:").as_bytes()).unwrap();
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (tls, host) = (TlsConnector::from(Arc::new(config)), node.to_owned());
    let connect = tower::service_fn(move |_: Uri| {
        let (tls, host) = (tls.clone(), host.clone());
        async move {
            let stream = TcpStream::connect((host.as_str(), PORT)).await?;
            tls.connect(ServerName::try_from(host).unwrap(), stream).await.map(TokioIo::new)
        }
    });
    Endpoint::from_shared(format!("https://{node}:{PORT}")).unwrap().connect_with_connector_lazy(connect)
}

async fn call(channel: &Channel, node: &str, path: &'static str, message: Vec<u8>) -> Vec<Vec<u8>> {
    let mut client = tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
    client.ready().await.unwrap();
    let mut request = Request::new(message);
    request.metadata_mut().insert("node", node.parse().unwrap());
    let path = PathAndQuery::from_static(path);
    let mut replies = client.server_streaming(request, path, Raw).await.unwrap().into_inner();
    let mut recorded = Vec::new();
    while let Some(reply) = replies.message().await.unwrap() {
        recorded.push(reply);
    }
    recorded
}

/// Where the replies lie.
pub(super) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wire")
}

fn write(name: &str, replies: &[Vec<u8>]) {
    let mut bytes = Vec::new();
    for reply in replies {
        prost::encode_length_delimiter(reply.len(), &mut bytes).unwrap();
        bytes.extend_from_slice(reply);
    }
    std::fs::create_dir_all(folder()).unwrap();
    std::fs::write(folder().join(format!("{name}.bin")), bytes).unwrap();
}

async fn list<T: Spec>(channel: &Channel, node: &str) {
    let request = cosi::ListRequest { namespace: T::NAMESPACE.into(), r#type: T::TYPE.into(), options: None };
    let replies = call(channel, node, "/cosi.resource.State/List", request.encode_to_vec()).await;
    write(T::TYPE, &replies);
}

#[tokio::test]
#[ignore = "needs a real Talos"]
async fn record() {
    let (talosconfig, node) =
        (std::env::var("TALOSCONFIG").unwrap(), std::env::var("NODEPREP_RECORD_NODE").unwrap());
    let (talosconfig, node) = (&talosconfig, &node);
    let channel = &channel(talosconfig, node);
    write("Version", &call(channel, node, "/machine.MachineService/Version", Vec::new()).await);
    write("Mounts", &call(channel, node, "/machine.MachineService/Mounts", Vec::new()).await);
    list::<DiskSpec>(channel, node).await;
    list::<SystemDisk>(channel, node).await;
    list::<BlockDevice>(channel, node).await;
    list::<DiscoveredVolume>(channel, node).await;
    list::<VolumeStatus>(channel, node).await;
    list::<MountStatus>(channel, node).await;
    list::<MachineStatus>(channel, node).await;
    list::<MachineType>(channel, node).await;
    list::<Member>(channel, node).await;
    list::<Nodename>(channel, node).await;
    list::<NodeStatus>(channel, node).await;
    list::<NodeLabel>(channel, node).await;
    list::<PlatformMetadata>(channel, node).await;
    list::<SecurityState>(channel, node).await;

    // The configuration is full of secrets: it is read here, and not kept.
    let places = Places { flag: Some(talosconfig.into()), ..Places::default() };
    let context = Context::load(&places, None, Timestamp::now()).unwrap();
    let client = Client::connect(&context, std::slice::from_ref(node), &Options::default()).unwrap();
    let config = client.node(node).unwrap().spec::<MachineConfig>(id::ACTIVE_CONFIG).await.unwrap().unwrap();
    assert!(config.spec.0.expose_secret().contains("version: v1alpha1"));
}
