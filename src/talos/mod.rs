//! Adapter to the Talos machine API: gRPC over mutual TLS, one call per node.
//!
//! [`config`] finds the credentials, [`connect`] carries the bytes, [`client`], [`calls`], [`bootstrap`] and [`etcd`] make the calls,
//! [`resources`] reads what comes back.

mod bootstrap;
pub mod calls;
pub mod client;
pub mod config;
pub mod connect;
mod etcd;
mod fault;
mod insecure;
pub mod resources;

pub use bootstrap::Bootstrap;
pub use client::{Client, Node};
pub use config::Context;
pub use fault::{is_stranger, is_wrong_ca};
pub use nodeprep_wire::talos::{MAX_MESSAGE, PORT, proto};
