//! Where the sandbox's servers are reached: at ports of this machine, or in memory, through streams that carry the same
//! TLS and HTTP. In memory, with one thread and paused time, a run can be repeated.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::dial::{self, Dial, Io};

/// What a stream in memory holds, in bytes, before its reader must take some; a socket's buffers are about as large.
const BUFFER: usize = 256 << 10;
/// The first port that is given out in memory.
const FIRST_PORT: u16 = 50_000;

/// Where servers listen and clients dial.
#[derive(Debug, Clone, Default)]
pub enum Network {
    /// The loopback interface of this machine.
    #[default]
    Loopback,
    Memory(Memory),
}

/// Streams in memory, by port.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<u16, UnboundedSender<DuplexStream>>>>);

/// What a server takes its connections from.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Memory(UnboundedReceiver<DuplexStream>),
}

impl Network {
    pub fn memory() -> Self {
        Self::Memory(Memory::default())
    }

    /// How its servers are dialled.
    pub fn dial(&self) -> Dial {
        match self {
            Self::Loopback => dial::tcp(),
            Self::Memory(memory) => {
                let memory = memory.clone();
                Arc::new(move |_, port| {
                    let stream = memory.connect(port);
                    Box::pin(async move { stream.map(|stream| Box::new(stream) as Box<dyn Io>) })
                })
            }
        }
    }

    /// Where a machine of this address listens for itself: there, when that is an address of this machine's loopback
    /// interface, else at any port that is free.
    pub(super) fn place(&self, address: &str, port: u16) -> SocketAddr {
        let own = address.parse().ok().filter(IpAddr::is_loopback);
        match (self, own) {
            (Self::Loopback, Some(address)) => (address, port).into(),
            _ => any(0),
        }
    }

    /// Listens there, or at any port that is free when it is 0. In memory there is one host.
    pub(super) async fn listen(&self, at: SocketAddr) -> io::Result<(SocketAddr, Listener)> {
        match self {
            Self::Loopback => {
                let listener = TcpListener::bind(at).await?;
                Ok((listener.local_addr()?, Listener::Tcp(listener)))
            }
            Self::Memory(memory) => memory.listen(at.port()),
        }
    }
}

/// A port of this machine.
pub(super) fn any(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl Memory {
    fn connect(&self, port: u16) -> io::Result<DuplexStream> {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (near, far) = tokio::io::duplex(BUFFER);
        match listeners.get(&port).map(|listener| listener.send(far)) {
            Some(Ok(())) => Ok(near),
            _ => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    fn listen(&self, port: u16) -> io::Result<(SocketAddr, Listener)> {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|_, listener| !listener.is_closed());
        let port = match port {
            0 => (FIRST_PORT..).find(|port| !listeners.contains_key(port)),
            port => Some(port).filter(|port| !listeners.contains_key(port)),
        };
        let port = port.ok_or(io::ErrorKind::AddrInUse)?;
        let (sender, receiver) = unbounded_channel();
        listeners.insert(port, sender);
        Ok((any(port), Listener::Memory(receiver)))
    }
}

impl Listener {
    /// The next connection; none when there will be no more.
    pub(super) async fn accept(&mut self) -> Option<Box<dyn Io>> {
        match self {
            Self::Memory(streams) => streams.recv().await.map(|stream| Box::new(stream) as Box<dyn Io>),
            Self::Tcp(listener) => loop {
                // A client that went away before it was taken is no reason to stop.
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                // Small answers are not held back for more to come.
                let _ = stream.set_nodelay(true);
                return Some(Box::new(stream));
            },
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_port_in_memory_leads_to_whoever_listens_there_and_to_nobody_else() {
        let network = Network::memory();
        let (address, mut listener) = network.listen(any(0)).await.unwrap();
        let (other, _) = network.listen(any(0)).await.unwrap();
        assert_ne!(address, other);
        assert!(network.listen(address).await.is_err());
        let dial = network.dial();
        let mut near = dial("127.0.0.1".into(), address.port()).await.unwrap();
        let mut far = listener.accept().await.unwrap();
        near.write_all(b"hello").await.unwrap();
        drop(near);
        let mut heard = String::new();
        far.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "hello");
        let nobody = dial("127.0.0.1".into(), 1).await.err().unwrap();
        assert_eq!(nobody.kind(), io::ErrorKind::ConnectionRefused);
        drop(listener);
        assert!(dial("127.0.0.1".into(), address.port()).await.is_err());
    }

    #[test]
    fn a_machine_with_an_address_of_the_loopback_interface_listens_at_it() {
        let memory = Network::memory();
        for (network, address, at) in [
            (&Network::Loopback, "127.77.0.2", "127.77.0.2:50000"),
            (&Network::Loopback, "10.5.0.2", "127.0.0.1:0"),
            (&Network::Loopback, "talos.example.org", "127.0.0.1:0"),
            (&memory, "127.77.0.2", "127.0.0.1:0"),
        ] {
            assert_eq!(network.place(address, 50_000).to_string(), at, "{address}");
        }
    }
}
