//! The Talos adapter against a server in this process that speaks the real wire: gRPC over mutual TLS.

mod config;
mod observe;
mod pki;
mod record;
mod recorded;
mod server;
mod wipe;
mod wire;
