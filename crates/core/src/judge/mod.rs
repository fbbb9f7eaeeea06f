//! What objects of the cluster say of themselves, judged: one judgement for who waits for them and for who checks them. Pure.

pub mod backup;
pub mod claims;
pub mod copies;
pub mod coverage;
pub mod drill;
pub mod files;
pub mod pods;
pub mod protection;
pub mod ready;
pub mod restore;
pub mod selection;
pub mod steady;
pub mod store;
pub mod taints;
pub mod velero;
pub mod why;
mod words;
pub mod workload;
