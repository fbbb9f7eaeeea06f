//! How bytes reach a server: over TCP, or through an in-memory duplex that carries the same TLS and HTTP.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::{Connected, Connection};
use rustls::{AlertDescription, CertificateError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Anything that carries bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// For clients of HTTP.
impl Connection for Box<dyn Io> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// Opens a byte stream to a host and port.
pub type Dial = Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Box<dyn Io>>> + Send + Sync>;

/// How long is waited before a call that failed at once is made again, each time. Only one that may be made twice is.
pub const AGAIN: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];
/// A server that is away lets one wait for longer than this; it is not asked again.
pub const AT_ONCE: Duration = Duration::from_secs(2);

/// Dials over TCP. A dead peer is noticed by TCP keepalive: apid answers HTTP/2 pings more often than every five
/// minutes with GOAWAY (`too_many_pings`).
pub fn tcp() -> Dial {
    Arc::new(|host, port| {
        Box::pin(async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            let idle = socket2::TcpKeepalive::new().with_time(Duration::from_secs(30));
            socket2::SockRef::from(&stream).set_tcp_keepalive(&idle)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    })
}

/// Why a TLS handshake failed, told alike for both APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFault {
    /// The server's certificate is of another authority.
    Stranger,
    /// The server's certificate has expired, or is not valid yet.
    NotNow,
    NotForName,
    Unacceptable,
    /// The server refuses our certificate as expired.
    OursExpired,
    WantsOurs,
    RefusesOurs,
    Other,
}

impl TlsFault {
    pub fn of(error: &rustls::Error) -> Self {
        use AlertDescription as Alert;
        use CertificateError as Bad;
        match error {
            rustls::Error::InvalidCertificate(bad) => match bad {
                Bad::UnknownIssuer | Bad::BadSignature => Self::Stranger,
                Bad::Expired
                | Bad::ExpiredContext { .. }
                | Bad::NotValidYet
                | Bad::NotValidYetContext { .. } => Self::NotNow,
                Bad::NotValidForName | Bad::NotValidForNameContext { .. } => Self::NotForName,
                _ => Self::Unacceptable,
            },
            rustls::Error::AlertReceived(alert) => match alert {
                Alert::CertificateExpired => Self::OursExpired,
                Alert::CertificateRequired => Self::WantsOurs,
                Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::CertificateUnknown
                | Alert::DecryptError
                | Alert::AccessDenied => Self::RefusesOurs,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }

    /// What happened, where `file` holds the credentials: `talosconfig` or `kubeconfig`.
    pub fn what(self, file: &str) -> String {
        match self {
            Self::Stranger => format!("its certificate is not from the CA of the {file}"),
            Self::NotNow => "its certificate is not valid at this time".into(),
            Self::NotForName => "its certificate is not for this address".into(),
            Self::Unacceptable => "its certificate is not acceptable".into(),
            Self::OursExpired => "it refuses the client certificate as expired".into(),
            Self::WantsOurs => "it wants a client certificate and got none".into(),
            Self::RefusesOurs => "it refuses the client certificate".into(),
            Self::Other => "the TLS handshake failed".into(),
        }
    }
}
