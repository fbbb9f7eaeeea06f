//! One request to the store.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{HOST, HeaderMap};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Store, sign};
use crate::dial::{Dial, Io};
use crate::error::chain;

const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(10);
/// An answer that is longer is none of a store's to these requests.
const LARGEST: usize = 256 << 10;
/// An archive of a backup's objects may be so large, and take so long.
const LARGEST_OBJECT: usize = 512 << 20;
const LOAD: Duration = Duration::from_secs(300);

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Broken {
    Refused(String),
    Unreached(String),
}

impl Broken {
    pub(super) fn at(self, place: &str) -> Self {
        match self {
            Self::Refused(why) => Self::Refused(format!("{place}: {why}")),
            Self::Unreached(why) => Self::Unreached(format!("{place}: {why}")),
        }
    }
}

/// Where a bucket's objects are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    tls: bool,
    host: String,
    port: u16,
    /// The host with the port that the file writes.
    authority: String,
    /// The path of the bucket.
    base: String,
    /// The store's own host, where the bucket has one of its own.
    bare: Option<String>,
}

impl Endpoint {
    pub(super) fn of(store: &Store) -> Result<Self, Broken> {
        let url = store.url.clone().unwrap_or_else(|| format!("https://s3.{}.amazonaws.com", store.region));
        let uri: Uri = url.parse().map_err(|_| Broken::Unreached(format!("{url} is no address")))?;
        let tls = uri.scheme_str() == Some("https");
        let bare = uri.host().unwrap_or_default().to_owned();
        let port = uri.port_u16();
        let (host, base) = match store.path_style {
            true => (bare.clone(), format!("/{}", store.bucket)),
            false => (format!("{}.{bare}", store.bucket), String::new()),
        };
        Ok(Self {
            tls,
            authority: port.map_or_else(|| host.clone(), |port| format!("{host}:{port}")),
            port: port.unwrap_or(if tls { 443 } else { 80 }),
            bare: (!store.path_style).then_some(bare),
            host: host.trim_matches(['[', ']']).to_owned(),
            base,
        })
    }
}

/// What all requests have in common.
pub(super) struct Call<'a> {
    pub(super) store: &'a Store,
    pub(super) at: &'a Endpoint,
    pub(super) dial: &'a Dial,
    pub(super) now: Timestamp,
}

impl Call<'_> {
    /// The body of a good answer.
    pub(super) async fn send(
        &self,
        method: &str,
        key: &str,
        query: &str,
        body: &[u8],
    ) -> Result<Bytes, Broken> {
        let request = self.signed(method, key, query, body)?;
        timeout(ANSWER, self.exchange(request, LARGEST)).await.map_err(late)?
    }

    /// An object that may be large.
    pub(super) async fn load(&self, key: &str) -> Result<Bytes, Broken> {
        let request = self.signed("GET", key, "", b"")?;
        timeout(LOAD, self.exchange(request, LARGEST_OBJECT)).await.map_err(late)?
    }

    fn signed(
        &self,
        method: &str,
        key: &str,
        query: &str,
        body: &[u8],
    ) -> Result<Request<Full<Bytes>>, Broken> {
        let (at, store) = (self.at, self.store);
        let key = sign::encode(key, true);
        let path = if query.is_empty() {
            format!("{}/{key}", at.base)
        } else {
            format!("{}/{key}?{query}", at.base)
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, &at.authority);
        if method == "PUT" && store.checksums {
            let mut sum = flate2::Crc::new();
            sum.update(body);
            let sum = BASE64_STANDARD.encode(sum.sum().to_be_bytes());
            request =
                request.header("x-amz-checksum-crc32", sum).header("x-amz-sdk-checksum-algorithm", "CRC32");
        }
        let request = request.body(()).map_err(|error| Broken::Unreached(error.to_string()))?;
        let (mut parts, ()) = request.into_parts();
        sign::sign(&mut parts, body, &store.key, &store.region, self.now);
        Ok(Request::from_parts(parts, Full::new(Bytes::copy_from_slice(body))))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, most: usize) -> Result<Bytes, Broken> {
        let io = self.connected().await?;
        let lost = |error: hyper::Error| {
            let why = chain(&error);
            // A server that speaks TLS answers no plain text.
            match !self.at.tls && error.is_parse() {
                true => Broken::Refused(format!(
                    "{why}: as to a client that sent an HTTP request to an HTTPS server"
                )),
                false => Broken::Unreached(why),
            }
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(lost)?;
        let driven = tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(lost)?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, most).collect().await;
        driven.abort();
        let body = body.map_err(|error| Broken::Unreached(error.to_string()))?.to_bytes();
        if parts.status.is_success() {
            Ok(body)
        } else {
            Err(Broken::Refused(refusal(parts.status, &parts.headers, &body)))
        }
    }

    async fn connected(&self) -> Result<Box<dyn Io>, Broken> {
        let at = self.at;
        let io = match self.dialled(&at.host).await {
            Ok(io) => io,
            // The store is there, under the name that begins with no bucket's.
            Err(error) => match &at.bare {
                Some(bare) if self.dialled(bare).await.is_ok() => {
                    let host = &at.host;
                    return Err(Broken::Refused(format!(
                        "lookup {host}: no such host ({error}), but {bare} is there"
                    )));
                }
                _ => return Err(Broken::Unreached(format!("{}: {error}", at.authority))),
            },
        };
        if !at.tls {
            return Ok(io);
        }
        let name =
            ServerName::try_from(at.host.clone()).map_err(|error| Broken::Unreached(error.to_string()))?;
        let connector = TlsConnector::from(Arc::new(trusting(self.store.ca_cert.as_deref())?));
        let no_tls = |_| Broken::Unreached(format!("{}: no TLS came in time", at.authority));
        match timeout(CONNECT, connector.connect(name, io)).await.map_err(no_tls)? {
            Ok(io) => Ok(Box::new(io)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Broken::Refused(chain(&error))),
            Err(error) => Err(Broken::Unreached(format!("{}: {}", at.authority, chain(&error)))),
        }
    }

    async fn dialled(&self, host: &str) -> io::Result<Box<dyn Io>> {
        let dialling = (self.dial)(host.to_owned(), self.at.port);
        timeout(CONNECT, dialling).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

fn late(_: tokio::time::error::Elapsed) -> Broken {
    Broken::Unreached("no answer came in time".into())
}

/// Trusts the authorities that this machine does, and those of the file.
fn trusting(ca_cert: Option<&str>) -> Result<ClientConfig, Broken> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let own = CertificateDer::pem_slice_iter(ca_cert.unwrap_or_default().as_bytes());
    roots.add_parsable_certificates(own.filter_map(Result::ok));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| Broken::Unreached(error.to_string()))?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

/// An error in the words that Velero has for it.
fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let between = |tag: &str| {
        let (_, rest) = body.split_once(&format!("<{tag}>"))?;
        rest.split_once(&format!("</{tag}>")).map(|(text, _)| text.to_owned())
    };
    let said = match (between("Code"), between("Message")) {
        (Some(code), message) => format!("api error {code}: {}", message.unwrap_or_default()),
        (None, _) => body.lines().next().unwrap_or_default().chars().take(200).collect(),
    };
    let region = headers.get("x-amz-bucket-region").and_then(|region| region.to_str().ok());
    let region = region.map(str::to_owned).or_else(|| between("Region"));
    let region = region
        .filter(|_| !said.contains("expecting"))
        .map_or_else(String::new, |region| format!("; expecting '{region}'"));
    format!("StatusCode: {}, {said}{region}", status.as_u16())
}
