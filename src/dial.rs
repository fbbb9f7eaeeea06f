//! How bytes reach a server: over TCP, or through an in-memory duplex that carries the same TLS and HTTP.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Anything that carries bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

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
