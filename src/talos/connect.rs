//! How a machine is reached: its endpoints, and the mutual TLS that every dialler carries.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::config::Context;
use crate::dial::{Dial, Io};
use crate::error::{Error, Result};

/// A host and port to connect to, as talosconfig writes it: the port may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

impl Endpoint {
    /// Reads `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("{text:?} is not an endpoint: host or host:port is needed"));
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(wrong)?) })
            }
            None if text.matches(':').count() == 1 => {
                text.split_once(':').map(|(host, port)| (host, Some(port))).ok_or_else(wrong)?
            }
            None => (text, None),
        };
        let port = port.map_or(Ok(super::PORT), |port| port.parse().map_err(|_| wrong()))?;
        ServerName::try_from(host).map_err(|_| wrong())?;
        Ok(Self { host: host.into(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{endpoint}: {error}")]
    Tls { endpoint: Endpoint, error: rustls::Error },
    #[error("{0}")]
    Network(String),
}

/// A connection whose first bytes have arrived.
pub(super) type Stream = BufReader<TlsStream<Box<dyn Io>>>;

/// Connects to the first of the endpoints that takes the connection.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) endpoints: Arc<[Endpoint]>,
    pub(super) tls: TlsConnector,
    pub(super) dial: Dial,
    /// For each endpoint, TLS handshake included.
    pub(super) timeout: Duration,
}

impl Connector {
    pub(super) async fn connect(self) -> Result<Stream, Refusal> {
        let mut tls_fault = None;
        let mut network_faults = Vec::new();
        for endpoint in self.endpoints.iter() {
            match tokio::time::timeout(self.timeout, self.try_endpoint(endpoint)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => match tls_error(&error) {
                    Some(error) if tls_fault.is_none() => {
                        tls_fault = Some(Refusal::Tls { endpoint: endpoint.clone(), error });
                    }
                    _ => network_faults.push(format!("{endpoint}: {error}")),
                },
                Err(_) => network_faults.push(format!("{endpoint}: no connection within {:?}", self.timeout)),
            }
        }
        Err(tls_fault.unwrap_or_else(|| Refusal::Network(network_faults.join("; "))))
    }

    /// Connects, and waits until the server has spoken: in TLS 1.3 it refuses a client certificate only after the
    /// handshake, and a connection that was handed on by then would break without saying why. HTTP/2 makes a server
    /// speak first (RFC 9113, section 3.4).
    async fn try_endpoint(&self, endpoint: &Endpoint) -> io::Result<Stream> {
        let name = ServerName::try_from(endpoint.host.clone()).map_err(io::Error::other)?;
        let stream = (self.dial)(endpoint.host.clone(), endpoint.port).await?;
        let mut stream = BufReader::new(self.tls.connect(name, stream).await?);
        if stream.fill_buf().await?.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed right after the TLS handshake"));
        }
        Ok(stream)
    }
}

/// Mutual TLS 1.2 or newer with the credentials of a context, speaking HTTP/2.
pub(super) fn tls(context: &Context) -> Result<TlsConnector> {
    let wrong = |error: rustls::Error| {
        Error::invalid(format!("{}: context {:?}: {error}", context.file.display(), context.name))
    };
    let mut roots = RootCertStore::empty();
    for ca in &context.ca {
        roots.add(ca.clone()).map_err(wrong)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_root_certificates(roots)
        .with_client_auth_cert(context.certificates.clone(), context.private_key()?)
        .map_err(wrong)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn tls_error(error: &io::Error) -> Option<rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>().cloned()
}
