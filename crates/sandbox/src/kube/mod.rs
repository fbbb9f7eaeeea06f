//! The simulated cluster's API server, and what runs in the cluster.

pub mod actors;
pub mod api;
mod budget;
mod call;
pub mod control;
pub mod fields;
pub mod kinds;
pub mod manage;
pub mod merge;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod psa;
pub mod route;
pub mod rules;
pub mod selector;
pub mod status;
pub mod store;
pub mod table;
pub mod types;
mod write;
