//! The wire as both sides know it, nodeprep and its sandbox: the messages of the machine API, and how bytes reach a server.

pub mod dial;
pub mod talos;
