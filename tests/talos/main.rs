//! The Talos adapter against a server in this process that speaks the real wire: gRPC over mutual TLS.

#![allow(clippy::unwrap_used)]

mod config;
mod observe;
mod pki;
mod record;
mod server;
mod wire;
