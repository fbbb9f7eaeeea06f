//! The sandbox's servers: the real protocols with mutual TLS, over TCP or in memory.

pub mod kube;
pub mod network;
pub mod pki;
pub mod services;
pub mod talos;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::{Body, Incoming};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

use self::network::Network;
use super::faults::Fault;
use crate::dial::Io;
use crate::error::{Error, Result};
use crate::intent::Duration;

/// Who asks, and a way to end the connection.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// The organization of the client's certificate, which names its role.
    pub organization: String,
    hangup: Arc<Notify>,
}

/// Why a call is not answered as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upset {
    /// The server says so, with an HTTP status where it speaks HTTP, and may ask to be left alone for a while.
    Error { text: String, code: Option<u16>, retry_after: Option<Duration> },
    /// The connection ends.
    Cut,
}

impl Peer {
    /// What a fault does before the call is carried out.
    ///
    /// # Errors
    /// The call is not carried out.
    pub async fn before(&self, fault: Option<&Fault>) -> Result<(), Upset> {
        let Some(fault) = fault else { return Ok(()) };
        if let Some(delay) = fault.delay {
            tokio::time::sleep(delay.std()).await;
        }
        if fault.reset {
            return Err(self.cut());
        }
        let Fault { code, retry_after, .. } = *fault;
        fault.error.clone().map_or(Ok(()), |text| Err(Upset::Error { text, code, retry_after }))
    }

    /// What a fault does once the call was carried out.
    ///
    /// # Errors
    /// The call is not answered.
    pub fn after(&self, fault: Option<&Fault>) -> Result<(), Upset> {
        let Some(fault) = fault else { return Ok(()) };
        if fault.drop_after_acting || fault.reboot {
            return Err(self.cut());
        }
        if let Some(after) = fault.cut_after {
            let hangup = Arc::clone(&self.hangup);
            tokio::spawn(async move {
                tokio::time::sleep(after.std()).await;
                hangup.notify_one();
            });
        }
        Ok(())
    }

    fn cut(&self) -> Upset {
        self.hangup.notify_one();
        Upset::Cut
    }
}

/// Serves at a place of the network (port 0: any that is free) until the program ends.
pub async fn listen<S, B>(
    network: &Network,
    at: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    service: S,
) -> Result<SocketAddr>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let listened = network.listen(at).await;
    let (address, mut listener) =
        listened.map_err(|error| Error::failed(format!("the sandbox can't listen at {at}: {error}")))?;
    let acceptor = TlsAcceptor::from(tls);
    tokio::spawn(async move {
        while let Some(stream) = listener.accept().await {
            tokio::spawn(converse(stream, acceptor.clone(), service.clone()));
        }
    });
    Ok(address)
}

/// One connection, from the TLS handshake to its end.
pub async fn converse<S, B>(stream: Box<dyn Io>, acceptor: TlsAcceptor, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let peer = Peer { organization: organization(&stream), hangup: Arc::default() };
    let hangup = Arc::clone(&peer.hangup);
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        service.call(request)
    });
    // Over HTTP/2 the server speaks first, which it does not while it still looks which protocol it is.
    let builder = auto::Builder::new(TokioExecutor::new());
    let builder = if h2 { builder.http2_only() } else { builder.http1_only() };
    tokio::select! {
        biased;
        _ = builder.serve_connection(TokioIo::new(stream), service) => {}
        () = hangup.notified() => {}
    }
}

fn organization<T>(stream: &tokio_rustls::server::TlsStream<T>) -> String {
    let (_, connection) = stream.get_ref();
    let Some(certificate) = connection.peer_certificates().and_then(|all| all.first()) else {
        return String::new();
    };
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return String::new() };
    let mut names = certificate.subject().iter_organization();
    names.next().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned()
}
