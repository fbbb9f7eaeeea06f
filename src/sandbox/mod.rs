//! A simulated fleet, served over the real sockets.

pub mod kube;
pub mod serve;
