//! The sandbox's servers: the real protocols over TCP, with mutual TLS.

pub mod kube;
pub mod pki;
